"""PyTorch itself: no extra dependency, any device; and compiled by its own compiler."""

import contextlib
import copy
import itertools
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gansound.inference.backends.runner import Precision, Runner, step_lengths
from gansound.machine import cpuinfo
from gansound.nn import images
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.nn.image_layers import Image
from gansound.nn.inference_form import InferenceForm
from gansound.nn.streaming import State
from gansound.precision import no_autocast

_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
_AUTOCAST = (nn.modules.conv._ConvNd, nn.Linear)  # what multiplies by its weights in half precision there
# Of a whole utterance's windows, in chunks of steps: what each layer of a step does to keep its context costs more than
# a cache saves (tests/reference/vocoder_speed.py).
WINDOW_CHUNKS = 16
GRID_FRAMES = 32  # lengths are multiples of it where each that is new costs


class EagerRunner(Runner):
    """The inference form of the generator, on the device of its weights."""

    name = "eager"

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self._form = InferenceForm(generator, dtype=_DTYPES[precision])

    def _as_asked(self) -> contextlib.AbstractContextManager[Any]:
        """Where the precision is the vocoder's own, whatever autocast the caller is in."""
        return no_autocast(next(self.generator.parameters()))

    @cached_property
    def offline_frames(self) -> int:
        """Of a window."""
        if next(self.generator.parameters()).is_cuda:
            return 4096  # a GPU wants much work at once
        return self.cached_frames() * WINDOW_CHUNKS

    @cached_property
    def _autocast_net(self) -> StreamingGenerator:
        """The generator, its weights in half precision already, where that is asked for."""
        dtype = _DTYPES[self.precision]
        if dtype is None:
            return self.generator
        net = fold_parametrizations(copy.deepcopy(self.generator).eval()).requires_grad_(False)
        for module in net.modules():
            if isinstance(module, _AUTOCAST):
                module.to(dtype)
        return net

    def synthesize(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None or mel.is_cuda:
            return super().synthesize(mel, lengths)
        return self._one_by_one(mel, lengths)  # in one go, which knows one end only

    def pieces(self, mels: Iterable[Tensor], lengths: Tensor | None = None) -> Iterator[Tensor]:
        if lengths is not None:  # what isn't in steps knows one end only
            yield from super().pieces(mels, lengths)
            return
        # An utterance in one go, or in windows that share what the receptive field spans.
        field = self.receptive_field
        window, after = self.offline_frames, field.lookahead_inputs
        have: Tensor | None = None
        done = 0  # frames at the start of `have` whose sound is out already
        mels = iter(mels)
        for mel in mels:
            have = mel if have is None else torch.cat([have, mel], -1)
            if field.remembers and have.shape[-1] > window + after:
                yield from super().pieces(itertools.chain([have], mels))  # what it remembers no window tells
                return
            while have.shape[-1] > done + window + after:
                yield self._whole(have[..., : done + window + after], done, window)
                gone = max(0, done + window - field.lookback_inputs)
                have, done = have[..., gone:], done + window - gone
        if have is not None and have.shape[-1] > done:
            yield from self._rest(have, done)

    def _rest(self, mel: Tensor, first: int) -> Iterator[Tensor]:
        """The sound of a mel that ends, from a frame on."""
        field, frames = self.receptive_field, mel.shape[-1]
        before, after = field.lookback_inputs, field.lookahead_inputs
        starts, size = [0], frames
        if self._lengths_cost:
            starts, size = few_lengths(frames, before + after)
        ends = [start + before for start in starts[1:]] + [frames]
        for start, end in zip(starts, ends, strict=True):
            if end > first:
                yield self._whole(mel[..., start : start + size], first - start, end - first)
                first = end

    @cached_property
    def _lengths_cost(self) -> bool:
        """Whether kernels for a length that is new take longer to make than to run: oneDNN's of AMX."""
        on_amx = self.precision == "bf16" and "amx_bf16" in cpuinfo().get("flags", "").split()
        if not on_amx or self.receptive_field.remembers:
            return False
        return isinstance(self._form.layers[0], Image) and next(self._form.parameters()).device.type == "cpu"

    def _whole(self, mel: Tensor, first: int, frames: int) -> Tensor:
        """The sound of some frames of a mel, which is computed in one go."""
        dtype, device = _DTYPES[self.precision], mel.device
        with torch.no_grad():
            if images.quick_on(device):
                with self._as_asked():
                    sound: Tensor = self._form(mel)
            else:  # a GPU's library lays out for itself
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    sound = self._autocast_net(mel)
        return sound[:, first * self.hop_length : (first + frames) * self.hop_length].to(mel.dtype)

    @cached_property
    def _begun(self) -> State:
        """The state of one stream before its first frame: worked out by running a step, and no step writes into it."""
        with self._as_asked():
            return self._form.init_state(1)

    def init_state(self, batch: int = 1) -> State:
        return self._begun if batch == 1 else tuple(torch.cat([one] * batch) for one in self._begun)

    def step(self, mel: Tensor, state: State, *, interior: bool = False) -> tuple[Tensor, State]:
        with torch.inference_mode(), self._as_asked():
            audio, state = self._form.step(mel, state, interior=interior)
            return audio.to(mel.dtype), state

    def finish(self, state: State, remaining: int | Tensor = 0, items: Tensor | None = None) -> State:
        return self._form.finish(state, remaining, items)

    def reset(self, state: State, items: Tensor | None = None) -> State:
        return self._form.reset(state, items)


class CompileRunner(EagerRunner):
    """`torch.compile`, weights frozen, for the interior of utterances; the ends run eagerly.

    Each number of frames that occurs is compiled for itself, which takes 5 to 30 seconds, so a push of any length is
    cut into steps of a few lengths.
    """

    name = "compile"
    compiles_each_length = True

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self._compiled: Any = torch.compile(self._interior, dynamic=False, options={"freezing": True})

    def pieces(self, mels: Iterable[Tensor], lengths: Tensor | None = None) -> Iterator[Tensor]:
        return Runner.pieces(self, mels, lengths)  # steps are what is compiled

    def init_state(self, batch: int = 1) -> State:
        return _laid_out(super().init_state(batch))

    def step(self, mel: Tensor, state: State, *, interior: bool = False) -> tuple[Tensor, State]:
        # Not in inference mode: its tensors would be compiled for once more.
        with torch.no_grad(), self._as_asked():
            if not interior:
                audio, state = self._form.step(mel, state)
                return audio.to(mel.dtype), _laid_out(state)
            position, length, *buffers = state
            parts = []
            for columns in mel.split(step_lengths(mel.shape[-1]), -1):
                audio, buffers = self._compiled(columns.contiguous(), tuple(buffers))
                parts.append(audio.to(mel.dtype))
            return torch.cat(parts, -1), (position + mel.shape[-1], length, *buffers)

    def _interior(self, mel: Tensor, buffers: State) -> tuple[Tensor, State]:
        anywhere = torch.zeros(mel.shape[0], dtype=torch.int64, device=mel.device)
        audio, state = self._form.step(mel, (anywhere, anywhere, *buffers), interior=True)
        return audio, _laid_out(state[2:])


def few_lengths(frames: int, overlap: int) -> tuple[list[int], int]:
    """Windows of one length that cover so many frames.

    The length is a multiple of GRID_FRAMES, so that there are few of them, and such that the windows' frames are the
    fewest; that of the whole where no windows are shorter.

    Args:
        frames: to cover.
        overlap: of two neighbours at least, in frames.

    Returns:
        where each window begins, in frames, and the length.
    """
    best, least = ([0], frames), math.inf
    for count in range(1, frames // GRID_FRAMES + 1):
        size = GRID_FRAMES * -(-(frames + (count - 1) * overlap) // (count * GRID_FRAMES))
        if size <= frames and count * size < least:
            starts = [i * (frames - size) // max(1, count - 1) for i in range(count)]
            best, least = (starts, size), count * size
    return best


def _laid_out(state: State) -> State:
    """The same numbers in the same strides, whatever step they are from: other strides are compiled for anew."""
    return tuple(
        t.clone(memory_format=torch.channels_last if t.dim() == 4 else torch.contiguous_format) for t in state
    )
