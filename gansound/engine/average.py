"""The averaged generator: what is validated and shipped."""

from collections.abc import Callable
from typing import Any

import torch


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average that reaches back over a tenth of the steps until that is `decay`'s reach.

    So the first weights, which are noise, don't stay in it for thousands of steps (TensorFlow's
    `ExponentialMovingAverage` with `num_updates` has the same law).
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        now = min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, 1 - now)

    return update
