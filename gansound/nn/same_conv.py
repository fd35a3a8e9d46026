"""Strided convolutions padded as TensorFlow's "SAME" pads them, and their transposes, as convolutions of stride 1.

Beside each other in memory, `stride` samples of C channels are one column of `stride * C` channels. Seen so, a strided
convolution is a plain one over columns (space to depth; Shi et al., arXiv 1609.05158, section 2), and a transposed one
gives a column's samples as channels. With channels last both ways of seeing are free, a kernel of 25 taps becomes one
of 7 columns, and padding 10 samples on one side and 11 on the other becomes 3 columns on both.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SameConv1d(nn.Conv1d):
    """A strided convolution with SAME padding: `kernel_size - stride` zeros, an odd one on the right.

    The weights start as TensorFlow's layers start them: Glorot and Bengio's uniform draw (AISTATS 2010), zero biases.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: taps, at least `stride`.
        stride: samples from one output to the next.

    Shape:
        x `(B, in_channels, T)`, T a multiple of `stride` → `(B, out_channels, T / stride)`, channels last in memory.

    Raises:
        ValueError: the kernel is shorter than the stride.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.columns = _Columns(kernel_size, stride)
        _glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, in_channels, T)` → `(B, out_channels, T / stride)`."""
        stride = self.stride[0]
        rows = x.transpose(1, 2).unflatten(1, (-1, stride)).flatten(2)  # (B, T / stride, stride * C)
        weight = self.columns.split(self.weight).permute(0, 3, 1, 2).flatten(1, 2)
        return _convolve(rows, weight, self.bias, self.columns.padding).transpose(1, 2)


class SameTransposedConv1d(nn.ConvTranspose1d):
    """The transpose of `SameConv1d`: it multiplies the length by its stride, cutting `kernel_size - stride` samples.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: taps, at least `stride`.
        stride: output samples for each input sample.

    Shape:
        x `(B, in_channels, T)` → `(B, out_channels, T * stride)`, channels last in memory.

    Raises:
        ValueError: the kernel is shorter than the stride.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.columns = _Columns(kernel_size, stride)
        _glorot(self)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Shape: `(B, in_channels, T)` → `(B, out_channels, T * stride)`."""
        stride = self.stride[0]
        weight = self.columns.split(self.weight).flip(2).permute(3, 1, 0, 2).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(stride)
        rows = _convolve(x.transpose(1, 2), weight, bias, self.columns.padding)
        return rows.unflatten(2, (stride, -1)).flatten(1, 2).transpose(1, 2)


class _Columns:
    """A kernel over samples as one over columns of `stride` samples, as many before its own column as after."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        if stride < 1 or kernel_size < stride:
            raise ValueError(
                f"a strided kernel must be as long as its stride, got kernel_size={kernel_size}, stride={stride}"
            )
        left = (kernel_size - stride) // 2  # SAME: an odd sample of padding goes right
        right = kernel_size - stride - left
        self.padding = -(-max(left, right) // stride)
        self.stride = stride
        self.zeros = (self.padding * stride - left, self.padding * stride - right)

    def split(self, weight: Tensor) -> Tensor:
        """Shape: `(a, b, kernel_size)` → `(a, b, 2 * padding + 1, stride)`."""
        return F.pad(weight, self.zeros).unflatten(2, (-1, self.stride))


def _convolve(rows: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Shape: rows `(B, T, C)`, weight `(O, C, k)` → `(B, T, O)`, contiguous."""
    image = rows.transpose(1, 2).unsqueeze(2)  # (B, C, 1, T), channels last
    kernel = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return F.conv2d(image, kernel, bias, padding=(0, padding)).squeeze(2).transpose(1, 2)


def _glorot(layer: nn.Conv1d | nn.ConvTranspose1d) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def clip_strides(clip_samples: int) -> tuple[int, ...]:
    """The strides of WaveGAN's layers between a clip and its 16 columns or fewer.

    Five of 4 up to 16384 samples, so that a shorter clip has fewer columns and is as much cheaper; then a sixth of 2,
    up to 32768; then of 4 (chrisdonahue/wavegan has 16384, 32768 and 65536). Longer clips have more columns.

    Raises:
        ValueError: not a whole number of columns.
    """
    strides: tuple[int, ...] = (4,) * 5
    if clip_samples > 16384:
        strides += (2,) if clip_samples <= 32768 else (4,)
    column = math.prod(strides)
    if clip_samples < 1 or clip_samples % column:
        near = max(1, round(clip_samples / column)) * column
        raise ValueError(f"clip_samples must be a multiple of {column} here, got {clip_samples}; take {near}")
    return strides
