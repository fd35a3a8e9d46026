"""Spectra inside a net: frames of a signal as columns, of which there is one more than hops, and layers that know it.

`torch.stft` puts a frame amid each hop's beginning, and one at the end of the last: of L hops there are L + 1. So has
an inverse STFT in front of which a net stands, as iSTFTNet's code and HiFTNet's have it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.conv import Conv1d, reflect_pad
from gansound.nn.streaming import Cursor


class STFT(nn.Module):
    """`torch.stft` of a signal that is mirrored at its ends, by a Hann window.

    Args:
        n_fft: samples of a frame, even.
        hop_length: from one frame to the next.

    Shape:
        `(B, 1, L * hop_length)` → `(B, n_fft + 2, L + 1)`, real parts before imaginary parts.
        A streaming step takes a multiple of `hop_length` columns.

    Raises:
        ValueError: an odd n_fft, or a hop that is no part of it.
    """

    kernel: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        if n_fft < 2 or n_fft % 2 or hop_length < 1 or n_fft % hop_length:
            raise ValueError(
                f"n_fft must be even and a multiple of hop_length, got n_fft {n_fft}, hop_length {hop_length}"
            )
        self.hop_length = hop_length
        self.side = n_fft // 2 - 1  # the window's first sample is 0
        time = torch.arange(1, n_fft, dtype=torch.float64)
        angle = 2 * math.pi / n_fft * torch.outer(torch.arange(n_fft // 2 + 1, dtype=torch.float64), time)
        window = torch.sin(math.pi / n_fft * time).square()
        kernel = torch.cat([window * angle.cos(), -window * angle.sin()])[:, None]
        self.register_buffer("kernel", kernel.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = reflect_pad(x, self.side, self.side + 1)
        return F.conv1d(padded, self.kernel.to(x.dtype), stride=self.hop_length)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, 1, n)` → `(B, n_fft + 2, n / hop_length)`."""
        columns, reach = x.shape[-1], 2 * self.side
        wait = -(cursor.delay + self.side) % self.hop_length
        before = 2  # the last frame is amid what is behind the end, and mirrored about the last sample
        window = cursor.window(x, before + reach + wait, padding="reflect")
        cursor.late(self.side + wait, self.side)
        cursor.downsample(self.hop_length)
        if cursor.length is not None:
            cursor.length = cursor.length + 1
        window = window[..., before : before + columns + reach]
        return F.conv1d(window, self.kernel.to(x.dtype), stride=self.hop_length)


class DownConv1d(Conv1d):
    """A strided convolution over the frames of an `STFT`, two strides long; the frame at the end makes no column.

    Args:
        in_channels, out_channels: width before and after.
        stride: frames from one column to the next, 2 or more.
        causal: a column hears one frame more than up to the next column; otherwise as much on both sides.

    Shape:
        `(B, in_channels, L * stride + 1)` → `(B, out_channels, L)`.
        A streaming step takes a multiple of `stride` columns.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, causal: bool = False) -> None:
        super().__init__(in_channels, out_channels, 2 * stride, stride=stride, causal=True)
        self.left_samples = stride - 1 if causal else stride // 2
        self.right_samples = stride - 1 - self.left_samples  # of padding; the last column ends before the end

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, in_channels, n)` → `(B, out_channels, n / stride)`."""
        columns, stride = x.shape[-1], self.stride[0]
        reach = 2 * stride - 1
        right = reach - self.left_samples
        wait = -(cursor.delay + right) % stride
        window = cursor.window(x, reach + wait)
        cursor.late(right + wait, self.left_samples)
        if cursor.length is not None:
            cursor.length = cursor.length - 1
        cursor.downsample(stride)
        return F.conv1d(window[..., : columns + reach], self.weight, self.bias, self.stride)
