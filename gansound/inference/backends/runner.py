"""What a backend is: one generator, in one precision, run step by step."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator

Precision = Literal["fp32", "bf16", "int8"]
STEP_FRAMES = (256, 128, 64, 32, 16, 8, 4, 2, 1)  # of the steps of a runtime that compiles for each length
PUSHED_FRAMES = 32  # of a stream's step at most, so that it can be interrupted
# Of what a layer hands on for a chunk of a whole utterance at most. Measured on cores of 1 MiB of cache: MelGAN and
# HiFi-GAN are the quickest in chunks of 32 frames, 13 to 40 % slower in 128; frame-rate nets want 256.
CHUNK_BYTES = 1.75 * 2**20


def step_lengths(frames: int) -> list[int]:
    """Any number of frames as steps of those lengths."""
    lengths = [STEP_FRAMES[0]] * (frames // STEP_FRAMES[0])
    return lengths + [length for length in STEP_FRAMES[1:] if frames & length]


class BackendUnavailable(ValueError):
    """This backend or precision isn't to be had here; the message says what to do."""


class Runner(ABC):
    """A generator on one runtime. Safe to use from many threads, each with its own states.

    A state is whatever `init_state` gives; a step consumes the state it is given, so keep only the one it returns.

    Attributes:
        name: of the backend, such as `onnxruntime`.
        precision: what it computes in.
        n_mels, hop_length: the generator's.
        lookahead_samples: by how much a step's audio is late.
        interior_frames: frames after which `interior` may be promised, see `StreamingGenerator.step`.
    """

    name: str
    compiles_each_length = False  # and size of a batch; an odd rest of an utterance is better rounded up

    def __init__(self, generator: StreamingGenerator, precision: Precision) -> None:
        self.generator = generator
        self.precision = precision
        self.n_mels = generator.n_mels
        self.hop_length = generator.hop_length
        self.receptive_field = generator.receptive_field  # once: it is worked out by running a step
        self.lookahead_samples = self.receptive_field.lookahead
        self.interior_frames = generator.interior_frames

    @property
    def lookahead_frames(self) -> int:
        """Frames that must follow a frame before all of its samples are out."""
        return -(-self.lookahead_samples // self.hop_length)

    @cached_property
    def offline_frames(self) -> int:
        """The chunk in which `synthesize` runs a whole utterance: large enough to be quick, and fit for a cache."""
        return self.cached_frames()

    def cached_frames(self) -> int:
        """Frames of which what a layer hands on fits a cache."""
        frames = 4
        sizes: list[int] = []

        def note(_module: nn.Module, _input: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.nbytes)

        # Weight norm hands on a weight at each call, which no chunk makes smaller.
        net = fold_parametrizations(copy.deepcopy(self.generator).eval())
        for module in net.modules():
            module.register_forward_hook(note)
        with torch.no_grad():
            net(next(net.parameters()).new_zeros(1, self.n_mels, frames))
        fit = CHUNK_BYTES * frames / max(sizes)
        return next((n for n in STEP_FRAMES if n <= fit), 1)

    @abstractmethod
    def init_state(self, batch: int = 1) -> Any:
        """The state of so many streams before their first frame."""

    def whole_state(self, batch: int) -> Any:
        """That of whole utterances, which wait for what a stream has compiled behind it."""
        return self.init_state(batch)

    @abstractmethod
    def step(self, mel: Tensor, state: Any, *, interior: bool = False) -> tuple[Tensor, Any]:
        """`(B, n_mels, n)` float32 → `(B, n * hop_length)` float32 and the next state; see `StreamingGenerator`."""

    @abstractmethod
    def finish(self, state: Any, remaining: int | Tensor = 0, items: Tensor | None = None) -> Any:
        """See `gansound.nn.streaming.finish`."""

    @abstractmethod
    def reset(self, state: Any, items: Tensor | None = None) -> Any:
        """See `gansound.nn.streaming.reset`."""

    def settle(self) -> None:  # noqa: B027 - most have nothing behind
        """Make ready now what steps of the lengths met so far would have made ready behind them, to time them."""

    def synthesize(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """A whole utterance by way of the stream: the same samples, and working memory that doesn't grow with it.

        Args:
            mel: of each item.
            lengths: `(B,)` int64, frames of each item, 1 to F; what follows them is never heard. All of them when None.

        Shape:
            `(B, n_mels, F)` → `(B, F * hop_length)` float32, on the mel's device, zeros after each item's end.
        """
        if self.compiles_each_length and len(mel) > 1 and not mel.is_cuda:
            return self._one_by_one(mel, lengths)
        hop = self.hop_length
        audio = torch.empty(mel.shape[0], mel.shape[-1] * hop, dtype=torch.float32, device=mel.device)
        done = 0
        for piece in self.pieces([mel if lengths is None else mel[..., : int(lengths.max())]], lengths):
            audio[:, done : done + piece.shape[-1]] = piece
            done += piece.shape[-1]
        if lengths is None:
            assert done == audio.shape[-1]
            return audio
        after = torch.arange(audio.shape[-1], device=mel.device) >= lengths.to(mel.device)[:, None] * hop
        return audio.masked_fill_(after, 0.0)

    def _one_by_one(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        """`synthesize`, each item alone: a core is as quick at that, and each size of a batch would be compiled for."""
        frames = [mel.shape[-1]] * len(mel) if lengths is None else lengths.tolist()
        samples = mel.shape[-1] * self.hop_length
        audio = torch.zeros(mel.shape[0], samples, dtype=torch.float32, device=mel.device)
        for sound, item, n in zip(audio, mel, frames, strict=True):
            sound[: n * self.hop_length] = self.synthesize(item[None, :, :n])[0]
        return audio

    def pieces(self, mels: Iterable[Tensor], lengths: Tensor | None = None) -> Iterator[Tensor]:
        """The sound of an utterance whose mel comes in pieces, as it gets ready; joined it is `synthesize`'s.

        Args:
            mels: one after the other.
            lengths: see `synthesize`; what comes after an item's end means nothing.

        Shape:
            `(B, n_mels, n)` each → `(B, T)` each; F frames in all make `F * hop_length` samples.
        """
        chunk_frames, hop, late = self.offline_frames, self.hop_length, self.lookahead_samples
        state: Any = None
        start = 0
        first_end = None if lengths is None else int(lengths.min())
        # One step that holds the end, then what is still inside the net comes out of steps of nothing.
        for chunk, frames in self._steps(mels):
            if state is None:
                state = self.whole_state(chunk.shape[0])
                if lengths is not None:
                    state = self.finish(state, remaining=lengths.to(chunk.device))
            if lengths is None and frames is not None and chunk.shape[-1]:
                state = self.finish(state, remaining=chunk.shape[-1])
            left = chunk_frames if frames is None else frames + self.lookahead_frames - start
            steps = min(chunk_frames, left)
            if self.compiles_each_length:  # what is past the end means nothing
                steps = min(chunk_frames, 1 << (steps - 1).bit_length())
            if missing := steps - chunk.shape[-1]:
                chunk = torch.nn.functional.pad(chunk, (0, missing))
            no_end = frames is None if first_end is None else start + steps <= first_end
            out, state = self.step(chunk, state, interior=no_end and start >= self.interior_frames)
            first = start * hop - late
            end = first + out.shape[-1] if frames is None else min(first + out.shape[-1], frames * hop)
            if end > max(0, first):
                yield out[:, max(0, -first) : end - first]
            start += chunk_frames

    def _steps(self, mels: Iterable[Tensor]) -> Iterator[tuple[Tensor, int | None]]:
        """The mel cut anew into chunks, and its frames in all once they are known, from the last chunk on."""
        chunk_frames, start = self.offline_frames, 0
        have: Tensor | None = None
        for mel in mels:
            have = mel if have is None else torch.cat([have, mel], -1)
            while have.shape[-1] > chunk_frames:
                yield have[..., :chunk_frames], None
                have, start = have[..., chunk_frames:], start + chunk_frames
        if have is None or not have.shape[-1]:
            return
        frames = start + have.shape[-1]
        yield have, frames
        for _ in range(start + chunk_frames, frames + self.lookahead_frames, chunk_frames):
            yield have[..., :0], frames


# Error over signal; another net's is about 1. In bf16 a noise's phases are others: of the trial's at 8 to 11 kHz, 0.58.
_NEAR = {"fp32": 1e-2, "bf16": 0.7, "int8": 0.5}


def computes_its_model(runner: Runner) -> bool:
    """Whether a step of a runner, of the ends and of the interior, is near that of its generator."""
    generator = runner.generator
    like = next(generator.parameters())
    # In a coarser precision a stream may begin in fp32.
    begin = runner.init_state if runner.precision == "fp32" else runner.whole_state
    settled = runner.interior_frames  # before it the interior's graph need not be right
    frames = 1 << (settled + 1).bit_length()
    mel = torch.randn(1, runner.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 4
    with torch.inference_mode():
        for interior in (False, True):
            expected, _ = generator.step(mel.to(like), generator.init_state(1), interior=interior)
            found, _ = runner.step(mel, begin(1), interior=interior)
            expected, found = (audio[:, settled * runner.hop_length :] for audio in (expected, found))
            if not is_near(found, expected, runner.precision):
                return False
    return True


def is_near(found: Tensor, expected: Tensor, precision: Precision) -> bool:
    """Whether a sound can be that of the same net in that precision; another net's isn't."""
    if found.shape != expected.shape:
        return False
    return float((found - expected).norm()) <= _NEAR[precision] * float(expected.norm()) + 1e-6
