"""Noise that a net multiplies its signal with, the same in each utterance."""

import numpy as np
import torch
from torch import Tensor, nn

from gansound.nn.streaming import Cursor

NOISE_COLUMNS = 2**17
"""Columns until the noise begins again: 5 s at 24 kHz."""


class NoiseProduct(nn.Module):
    """Each column times a number of its own, drawn from a normal distribution.

    Nets that were trained with noise drawn anew are given a constant one here, counted from an utterance's beginning:
    a stream is then what the whole is, and an utterance the same each time.

    Args:
        seed: of the noise.

    Shape:
        `(B, C, T)` or `(B, C, 1, T)` → the same.
    """

    noise: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        # Whose numbers stay what they are in each release of numpy.
        noise = np.random.RandomState(seed).standard_normal(NOISE_COLUMNS)
        self.register_buffer("noise", torch.as_tensor(noise, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._times(x, torch.arange(x.shape[-1], device=x.device)[None])

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        columns = x.shape[-1]
        number = cursor.recalled(x.new_zeros((x.shape[0], 1), dtype=torch.float32)).long()
        if cursor.position is not None:
            first = cursor.indices(columns, 0)[:, :1]
            number = torch.where(first > 0, number, first)
        cursor.remember((number + columns).remainder(NOISE_COLUMNS).to(torch.float32))
        return self._times(x, number + torch.arange(columns, device=x.device))

    def _times(self, x: Tensor, number: Tensor) -> Tensor:
        """Shape: x and numbers of its columns, `(B, T)` or `(1, T)`."""
        noise = self.noise[number.remainder(NOISE_COLUMNS)].to(x.dtype)
        return x * noise.reshape(noise.shape[0], *[1] * (x.dim() - 2), x.shape[-1])
