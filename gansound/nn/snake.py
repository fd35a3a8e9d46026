"""Periodic activations: x plus a sine's square, its frequency learned for each channel.

Ziyin, Hartwig and Ueda, "Neural Networks Fail to Learn Periodic Functions and How to Fix It" (arXiv 2006.08195), as
Lee et al., "BigVGAN" (arXiv 2206.04658), section 3.2, have them, with a magnitude apart from the frequency in
`SnakeBeta`.
"""

import torch
from torch import Tensor, nn

from gansound.nn.streaming import Pointwise

LEAST_DIVISOR = 1e-9  # what the published code adds to a divisor


class Snake(Pointwise):
    """`x + sin(alpha x)² / alpha`, an alpha for each channel.

    Args:
        channels: width.
        log_scale: keep the logarithm of alpha, which then stays positive; it starts at alpha = 1 either way.

    Shape:
        `(B, channels, ...)` → the same.
    """

    def __init__(self, channels: int, *, log_scale: bool = True) -> None:
        super().__init__()
        self.log_scale = log_scale
        self.alpha = nn.Parameter(self._one(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self._along(self.alpha, x)
        return x + torch.sin(x * alpha).square() / (alpha + LEAST_DIVISOR)

    def _one(self, channels: int) -> Tensor:
        return torch.zeros(channels) if self.log_scale else torch.ones(channels)

    def _along(self, parameter: Tensor, x: Tensor) -> Tensor:
        """`(C,)` as what is meant by it, to multiply x with."""
        value = parameter.exp() if self.log_scale else parameter
        return value.reshape(-1, *[1] * (x.dim() - 2))


class SnakeBeta(Snake):
    """`x + sin(alpha x)² / beta`: alpha is the frequency, beta the inverse of the magnitude.

    Args:
        channels: width.
        log_scale: keep the logarithms of both; they start at 1 either way.

    Shape:
        `(B, channels, ...)` → the same.
    """

    def __init__(self, channels: int, *, log_scale: bool = True) -> None:
        super().__init__(channels, log_scale=log_scale)
        self.beta = nn.Parameter(self._one(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self._along(self.alpha, x), self._along(self.beta, x)
        return x + torch.sin(x * alpha).square() / (beta + LEAST_DIVISOR)
