"""Layers whose sums don't depend on how they are computed.

Single precision rounds a sum by the order of its terms, which a library chooses by how many columns there are. For
what is heard that is nothing. A frequency is added up in a phase, over seconds, and the overtones multiply it; where
two peaks are about as high the last digit chooses; and what a net hears first, each layer behind makes more of: there a
stream and the whole, or two runtimes, would drift apart.
"""

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor, stream


class ExactConv1d(nn.Module):
    """A convolution computed in double precision and then rounded, with its activation.

    Its weights aren't learnt as they are drawn: no gradient comes back from what is added up behind it.

    Where there is no double precision (Apple's GPUs, OpenVINO), it is computed in single.

    Args:
        in_channels, out_channels: width before and after.
        left, right: columns that it looks back and ahead.
        elu: followed by an ELU.

    Shape:
        `(B, in_channels, T)` → `(B, out_channels, T)`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, left: int = 0, right: int = 0, elu: bool = False
    ) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.elu = elu
        taps = left + right + 1
        bound = 1 / math.sqrt(in_channels * taps)  # as torch's convolutions begin
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.requires_grad_(False)
        self._kept: tuple[Tensor, Tensor] | None = None

    def keep(self) -> "ExactConv1d":
        """Turn the weights to double precision once for all calls: they change no more, and stay on this device."""
        self._kept = self._factors()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self._convolved(F.pad(x, (self.left, self.right)))

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, in_channels, n)` → `(B, out_channels, n)`."""
        window = cursor.window(x, self.left + self.right)
        cursor.late(self.right, self.left)
        return self._convolved(window)

    def _convolved(self, window: Tensor) -> Tensor:
        matrix, bias = self._kept or self._factors()
        taps = self.weight.shape[-1]
        columns = window.shape[-1] - taps + 1
        rows = torch.cat([window[..., tap : tap + columns] for tap in range(taps)], 1).transpose(1, 2)
        y = rows.to(matrix.dtype) @ matrix + bias
        if self.elu:
            y = torch.where(y > 0, y, y.clamp(max=0).exp() - 1)
        return y.transpose(1, 2).to(window.dtype)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """The weight as a matrix over taps and their channels, and the bias."""
        dtype = self.weight.dtype if self.weight.device.type == "mps" else torch.float64
        return self.weight.permute(2, 1, 0).flatten(0, 1).to(dtype), self.bias.to(dtype)


class MayBeExact(nn.Module):
    """What is computed in double precision and then rounded, from when it is asked to be."""

    is_exact = False

    def exactly(self) -> Self:
        """Compute in double precision from now on."""
        self.is_exact = True
        return self.double()

    def given(self, x: Tensor) -> Tensor:
        """An input in the precision that is computed in."""
        return x.double() if self.is_exact else x


class Exactly(MayBeExact):
    """A layer as one that may be exact.

    Shape: as the layer's.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.given(x))
        return y.to(x.dtype)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """As the layer's."""
        return stream(self.layer, self.given(x), cursor).to(x.dtype)
