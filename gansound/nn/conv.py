"""Convolutions that carry their own padding.

A vocoder is a chain of these layers. Padding belongs to the layer, not to the model, so that what a
layer does at the two ends of an utterance is stated, and can be changed, in one place.
"""

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm as parametrized_weight_norm

Padding = Literal["zeros", "reflect"]
Module = TypeVar("Module", bound=nn.Module)


def reflect_pad(x: Tensor, left: int, right: int) -> Tensor:
    """Mirror a signal at its two ends, however short it is.

    Where the padding is shorter than the signal this is `torch.nn.functional.pad(mode="reflect")`. A
    signal too short for that is mirrored back and forth, column `i` being column `|i mod 2(T-1)|` folded
    into `[0, T)`, and a single column repeats: the rule of `numpy.pad(mode="reflect")`.

    Shape:
        x `(..., T)`, T >= 1 → `(..., left + T + right)`; up to three dimensions.
    """
    length = x.shape[-1]
    if length > max(left, right):
        return F.pad(x, (left, right), mode="reflect")
    period = max(2 * (length - 1), 1)
    index = torch.arange(-left, length + right, device=x.device).remainder(period)
    return x[..., torch.where(index < length, index, period - index)]


class Conv1d(nn.Conv1d):
    """A convolution that pads by half its reach on each side.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: taps; `(kernel_size - 1) * dilation` must be even.
        stride: samples from one output to the next.
        dilation: samples from one tap to the next.
        groups: blocks of channels that don't see each other.
        padding_mode: "zeros", or "reflect" (see `reflect_pad`, which has a rule for short signals too).

    Shape:
        x `(B, in_channels, T)`, T >= 1 → `(B, out_channels, ceil(T / stride))`.

    Raises:
        ValueError: when the reach is odd, so that the two sides couldn't be padded equally.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: Padding = "zeros",
    ) -> None:
        reach_samples = (kernel_size - 1) * dilation
        if reach_samples % 2:
            raise ValueError(
                f"(kernel_size - 1) * dilation must be even to pad both sides equally, got "
                f"kernel_size={kernel_size}, dilation={dilation}; take an odd kernel_size"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
            padding=reach_samples // 2,
            padding_mode=padding_mode,
        )
        self.side_samples = reach_samples // 2

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, in_channels, T)` → `(B, out_channels, ceil(T / stride))`."""
        side = self.side_samples
        if self.padding_mode == "reflect" and side:
            x, side = reflect_pad(x, side, side), 0
        return F.conv1d(x, self.weight, self.bias, self.stride, side, self.dilation, self.groups)


class TransposedConv1d(nn.ConvTranspose1d):
    """A transposed convolution that multiplies the length by exactly its rate.

    The `kernel_size - rate` samples of overlap are cut from both ends, an odd one from the start.

    Args:
        in_channels, out_channels: width before and after.
        rate: output samples for each input sample, 2 or more.
        kernel_size: taps, at least `rate`.

    Shape:
        x `(B, in_channels, T)` → `(B, out_channels, T * rate)`.

    Raises:
        ValueError: when the rate is below 2, or the kernel shorter than the rate, which would leave holes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rate: int, kernel_size: int) -> None:
        overlap_samples = kernel_size - rate
        if rate < 2 or overlap_samples < 0:
            raise ValueError(
                f"an upsampling rate must be 2 or more and its kernel at least as long, got rate={rate}, "
                f"kernel_size={kernel_size}"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=rate,
            padding=(overlap_samples + 1) // 2,
            output_padding=overlap_samples % 2,
        )
        self.rate = rate


def weight_norm(layer: Module) -> Module:
    """Split a layer's weight into length and direction, `w = g v / |v|`, one length for each row of dim 0.

    Salimans and Kingma, "Weight Normalization", arXiv 1602.07868. The layer's state dict then holds
    `parametrizations.weight.original0` (g) and `original1` (v).
    """
    parametrized_weight_norm(layer)
    return layer
