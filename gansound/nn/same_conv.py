"""Strided convolutions padded as TensorFlow's "SAME" pads them, and their transposes, as convolutions of stride 1.

Beside each other in memory, `stride` samples of C channels are one column of `stride * C` channels. Seen so, a strided
convolution is a plain one over columns (space to depth; Shi et al., arXiv 1609.05158, section 2), and a transposed one
gives a column's samples as channels. With channels last both ways of seeing are free, a kernel of 25 taps becomes one
of 7 columns, and padding 10 samples on one side and 11 on the other becomes 3 columns on both.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.precision import no_autocast

# Short clips stand as rows of one image until it has so many columns: long, narrow images are what oneDNN is quick at,
# and the gradient of a wide kernel over 16 columns takes half the time.
IMAGE_COLUMNS = 256


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
        columns = _Columns(kernel_size, stride)
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.columns = columns
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
        columns = _Columns(kernel_size, stride)
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.columns = columns
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
    """Shape: rows `(B, T, C)`, weight `(O, C, 2 * padding + 1)` → `(B, T, O)`, contiguous."""
    items, length, _ = rows.shape
    together = math.gcd(items, max(1, IMAGE_COLUMNS // length))
    image = rows.unflatten(0, (-1, together)).permute(0, 3, 1, 2)  # (B / n, C, n, T), channels last
    kernel = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    if torch.is_autocast_enabled(rows.device.type):
        dtype = torch.get_autocast_dtype(rows.device.type)
        image, kernel, bias = image.to(dtype), kernel.to(dtype), None if bias is None else bias.to(dtype)
    if torch.is_grad_enabled():
        # As a view, since the engine can't be asked whether it will reach a leaf.
        y = _Convolution.apply(image, kernel, None if bias is None else bias.view_as(bias))
    else:
        y = F.conv2d(image, kernel, bias, padding=(0, padding))
    return y.permute(0, 2, 3, 1).flatten(0, 1)


class _Convolution(torch.autograd.Function):
    """Images `(N, C, H, T)` by a kernel `(O, C, 1, k)`, k odd, to `(N, O, H, T)`, to be differentiated twice.

    torch's own second derivative of a convolution takes one whose kernel is as long as the signal, which is slow. With
    stride 1 and equal padding the gradients are a convolution again and the correlation below, and theirs are these.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        with no_autocast(x):
            return F.conv2d(x, weight, bias, padding=(0, weight.shape[-1] // 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if grad is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        grad_x = _Convolution.apply(grad, _adjoint(weight), None) if ctx.needs_input_grad[0] else None
        grad_weight = _Correlation.apply(x, grad, weight.shape[-1]) if _needed(ctx, 1) else None
        grad_bias = grad.sum((0, 2, 3)) if _needed(ctx, 2) else None
        return grad_x, grad_weight, grad_bias


class _Correlation(torch.autograd.Function):
    """The gradient of a kernel: images `(N, C, H, T)` and `(N, O, H, T)` → `(O, C, 1, k)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.set_materialize_grads(False)
        shape = (grad.shape[1], x.shape[1], 1, size)
        kernel = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        with no_autocast(x):
            return torch.ops.aten.convolution_backward(
                grad, x, kernel, None, [1, 1], [0, size // 2], [1, 1], False, [0, 0], 1, [False, True, False]
            )[1]

    @staticmethod
    def backward(ctx: Any, kernel: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if kernel is None:
            return None, None, None
        x, grad = ctx.saved_tensors
        grad_x = _Convolution.apply(grad, _adjoint(kernel), None) if ctx.needs_input_grad[0] else None
        grad_grad = _Convolution.apply(x, kernel, None) if ctx.needs_input_grad[1] else None
        return grad_x, grad_grad, None


def _adjoint(kernel: Tensor) -> Tensor:
    """The kernel of the convolution's transpose."""
    return kernel.flip(3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _needed(ctx: Any, argument: int) -> bool:
    """Whether the backward pass that runs wants this argument's gradient; a penalty's own wants the input's alone."""
    if not ctx.needs_input_grad[argument]:
        return False
    return bool(torch._C._will_engine_execute_node(ctx.next_functions[argument][0]))


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
