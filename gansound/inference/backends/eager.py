"""PyTorch itself: no extra dependency, any device; and compiled by its own compiler."""

import torch
from torch import Tensor

from gansound.inference.backends.runner import Precision, Runner
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm
from gansound.nn.streaming import State

_DTYPES = {"fp32": None, "bf16": torch.bfloat16}


class EagerRunner(Runner):
    """The inference form of the generator, on the device of its weights."""

    name = "eager"

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self._form = InferenceForm(generator, dtype=_DTYPES[precision])
        if next(generator.parameters()).is_cuda:
            self.offline_frames = 4096  # a GPU wants much work at once

    def init_state(self, batch: int = 1) -> State:
        return self._form.init_state(batch)

    def step(self, mel: Tensor, state: State, *, interior: bool = False) -> tuple[Tensor, State]:
        with torch.inference_mode():
            audio, state = self._form.step(mel, state, interior=interior)
            return audio.to(mel.dtype), state

    def finish(self, state: State, remaining: int | Tensor = 0, items: Tensor | None = None) -> State:
        return self._form.finish(state, remaining, items)

    def reset(self, state: State, items: Tensor | None = None) -> State:
        return self._form.reset(state, items)


class CompileRunner(EagerRunner):
    """`torch.compile`, weights frozen, for the interior of utterances; the ends run eagerly.

    Each number of frames that occurs is compiled for itself, which takes 5 to 30 seconds.
    """

    name = "compile"

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self._compiled = torch.compile(self._interior, dynamic=False, options={"freezing": True})

    def step(self, mel: Tensor, state: State, *, interior: bool = False) -> tuple[Tensor, State]:
        if not interior:
            return super().step(mel, state)
        with torch.no_grad():
            audio, buffers = self._compiled(mel, state[2:])
            return audio.to(mel.dtype), (state[0] + mel.shape[-1], state[1], *buffers)

    def _interior(self, mel: Tensor, buffers: State) -> tuple[Tensor, State]:
        anywhere = torch.zeros(mel.shape[0], dtype=torch.int64)
        audio, state = self._form.step(mel, (anywhere, anywhere, *buffers), interior=True)
        return audio, state[2:]
