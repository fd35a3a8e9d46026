"""The averaged generator: what is validated and shipped."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """An exponential moving average that reaches back over a tenth of the steps until that is `decay`'s reach.

    So the first weights, which are noise, don't stay in it for thousands of steps (TensorFlow's
    `ExponentialMovingAverage` with `num_updates` has the same law). Buffers are the model's own.

    Args:
        model: of which; always the same one.
        decay: the share of what was in the average that stays in it.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        # A walk through all modules costs more of the processor than the averaging; and the number of steps stays
        # with the processor, which would wait for a GPU to tell it.
        self._own, self._model = _tensors(self.module), _tensors(model)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Let the model's weights of now in."""
        own, its = self._own, self._model
        count = int(self.n_averaged)
        if count == 0:
            torch._foreach_copy_(own[0], its[0])
        else:
            now = min(self.decay, (1 + count) / (10 + count))
            torch._foreach_lerp_(own[0], its[0], 1 - now)
        if own[1]:
            torch._foreach_copy_(own[1], its[1])
        self.n_averaged += 1


def _tensors(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    return list(module.parameters()), list(module.buffers())
