"""What a backend is: one generator, in one precision, run step by step."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

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
    compiles_each_length = False  # so that an odd rest of an utterance is better rounded up

    def __init__(self, generator: StreamingGenerator, precision: Precision) -> None:
        self.generator = generator
        self.precision = precision
        self.n_mels = generator.n_mels
        self.hop_length = generator.hop_length
        self.lookahead_samples = generator.receptive_field.lookahead
        self.interior_frames = generator.interior_frames

    @property
    def lookahead_frames(self) -> int:
        """Frames that must follow a frame before all of its samples are out."""
        return -(-self.lookahead_samples // self.hop_length)

    @cached_property
    def offline_frames(self) -> int:
        """The chunk in which `synthesize` runs a whole utterance: large enough to be quick, and fit for a cache."""
        frames = 4
        sizes: list[int] = []

        def note(_module: nn.Module, _input: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.nbytes)

        hooks = [module.register_forward_hook(note) for module in self.generator.modules()]
        try:
            with torch.no_grad():
                like = next(self.generator.parameters())
                self.generator(like.new_zeros(1, self.n_mels, frames))
        finally:
            for hook in hooks:
                hook.remove()
        fit = CHUNK_BYTES * frames / max(sizes)
        return next((n for n in STEP_FRAMES if n <= fit), 1)

    @abstractmethod
    def init_state(self, batch: int = 1) -> Any:
        """The state of so many streams before their first frame."""

    @abstractmethod
    def step(self, mel: Tensor, state: Any, *, interior: bool = False) -> tuple[Tensor, Any]:
        """`(B, n_mels, n)` float32 → `(B, n * hop_length)` float32 and the next state; see `StreamingGenerator`."""

    @abstractmethod
    def finish(self, state: Any, remaining: int | Tensor = 0, items: Tensor | None = None) -> Any:
        """See `gansound.nn.streaming.finish`."""

    @abstractmethod
    def reset(self, state: Any, items: Tensor | None = None) -> Any:
        """See `gansound.nn.streaming.reset`."""

    def synthesize(self, mel: Tensor) -> Tensor:
        """A whole utterance by way of the stream: the same samples, and working memory that doesn't grow with it.

        Shape:
            `(B, n_mels, F)` → `(B, F * hop_length)` float32, on the mel's device.
        """
        frames, late, chunk_frames = mel.shape[-1], self.lookahead_samples, self.offline_frames
        audio = torch.empty(mel.shape[0], frames * self.hop_length, device=mel.device)
        state = self.init_state(mel.shape[0])
        # One step that holds the end, then what is still inside the net comes out of steps of nothing.
        for start in range(0, frames + self.lookahead_frames, chunk_frames):
            chunk = mel[..., start : start + chunk_frames]
            if start + chunk_frames >= frames > start:
                state = self.finish(state, remaining=chunk.shape[-1])
            steps = min(chunk_frames, frames + self.lookahead_frames - start)
            if self.compiles_each_length:  # what is past the end means nothing
                steps = min(chunk_frames, 1 << (steps - 1).bit_length())
            if missing := steps - chunk.shape[-1]:
                chunk = torch.nn.functional.pad(chunk, (0, missing))
            interior = start >= self.interior_frames and start + chunk_frames < frames
            out, state = self.step(chunk, state, interior=interior)
            first = start * self.hop_length - late
            skip = max(0, -first)
            end = min(first + out.shape[-1], audio.shape[-1])
            if end > first + skip:
                audio[:, first + skip : end] = out[:, skip : end - first]
        return audio
