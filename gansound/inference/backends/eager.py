"""PyTorch itself: no extra dependency, any device."""

import torch
from torch import Tensor

from gansound.inference.backends.runner import Precision, Runner
from gansound.nn.generator import StreamingGenerator
from gansound.nn.streaming import State


class EagerRunner(Runner):
    """Runs the generator as it is, where its weights are."""

    name = "eager"

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self.generator = generator

    def init_state(self, batch: int = 1) -> State:
        return self.generator.init_state(batch)

    def step(self, mel: Tensor, state: State, *, interior: bool = False) -> tuple[Tensor, State]:
        with torch.inference_mode():
            return self.generator.step(mel, state, interior=interior)

    def finish(self, state: State, remaining: int | Tensor = 0, items: Tensor | None = None) -> State:
        return self.generator.finish(state, remaining, items)

    def reset(self, state: State, items: Tensor | None = None) -> State:
        return self.generator.reset(state, items)
