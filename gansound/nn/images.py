"""Convolutions over columns as convolutions over images, in the shapes that oneDNN is quick at, forward and backward.

Columns `(B, C, T)` with channels last in memory are images `(B, C, 1, T)` for nothing, and the convolutions between
them need no reordering. Several short items make one image of several rows, which cost less than many small images. A
strided convolution is one of stride 1 over columns of `stride` samples (space to depth; Shi et al., arXiv 1609.05158,
section 2): a group of 4 channels with stride 4 becomes one of 16, as wide as a vector register.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGE_COLUMNS = 256  # short items stand as rows of one image until it has so many columns
WINDOW_SAMPLES = 64  # the longest kernel of a single channel whose windows are laid out beside each other
# From so many channels on a group fills vector registers by itself.
WIDE_GROUP_CHANNELS = 8
# With more groups a step from column to column is a page of memory or more, which channels last is slow at.
MOST_GROUPS = 16


def quick_on(device: torch.device) -> bool:
    """Whether these shapes are the quick ones there: on a CPU, where they were measured; cuDNN picks its own.

    Not in an exported graph, which is for any number of columns: they are chosen by it, and runtimes lay out their own.
    """
    return device.type == "cpu" and not torch.compiler.is_compiling()


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    left: int,
    right: int,
    reflect: bool = False,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv1d` of x padded by `left` and `right` samples, zeros or its reflection.

    Shape:
        x `(B, in, T)`, T above both reflections; weight `(out, in / groups, k)` → `(B, out, T')`, channels last in
        memory unless there are many groups.
    """
    x, weight, bias = _autocast(x, weight, bias)
    if reflect:
        x = F.pad(x.unsqueeze(2), (left, right, 0, 0), mode="reflect").squeeze(2)
        left = right = 0
    if x.shape[1] == 1 and groups == dilation == 1 and weight.shape[2] <= WINDOW_SAMPLES:
        return _of_windows(F.pad(x, (left, right)), weight, bias, stride)
    wide = groups > 1 and x.shape[1] // groups >= WIDE_GROUP_CHANNELS
    if wide and x.dtype == torch.float32 and stride < 4 and groups <= MOST_GROUPS:
        # oneDNN's weight gradient of a grouped convolution with channels last takes several times that of its groups.
        biases = [None] * groups if bias is None else bias.chunk(groups)
        parts = [
            _strided(part, own, own_bias, left, right, stride, dilation, 1)
            for part, own, own_bias in zip(x.chunk(groups, 1), weight.chunk(groups), biases, strict=True)
        ]
        return torch.cat([part.transpose(1, 2) for part in parts], 2).transpose(1, 2)
    if stride > 1 and dilation == 1 and not (wide and x.dtype == torch.bfloat16):
        x, weight, left, right = _columns(x, weight, left, right, stride, groups)
        stride = 1
    return _strided(x, weight, bias, left, right, stride, dilation, groups)


def _of_windows(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A single channel's windows times the kernels: `(B, 1, T)` → `(B, out, T')`, channels last in memory."""
    windows = x.squeeze(1).unfold(1, weight.shape[2], stride).contiguous()  # (B, T', k)
    return F.linear(windows, weight.squeeze(1), bias).transpose(1, 2)


def _strided(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    left: int,
    right: int,
    stride: int,
    dilation: int,
    groups: int,
) -> Tensor:
    """The convolution as one of images, whatever its stride."""
    if left != right:
        x, left = F.pad(x, (left, right)), 0
    if groups > MOST_GROUPS:
        return F.conv1d(x.contiguous(), weight, bias, stride, left, dilation, groups)
    layout, together = _layout(x, weight)
    image = _image(weight, layout)
    y = F.conv2d(_rows(x, layout, together), image, bias, (1, stride), (0, left), (1, dilation), groups)
    return _items(y, len(x))


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int, output_padding: int
) -> Tensor:
    """`torch.nn.functional.conv_transpose1d`. Shape: `(B, in, T)` → `(B, out, T')`, channels last in memory."""
    x, weight, bias = _autocast(x, weight, bias)
    layout, together = _layout(x, weight)
    image = _image(weight, layout)
    y = F.conv_transpose2d(
        _rows(x, layout, together), image, bias, (1, stride), (0, padding), (0, output_padding)
    )
    return _items(y, len(x))


def convolve_image(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """`torch.nn.functional.conv2d`, in the layout that is quick where `quick_on` says so.

    Shape:
        x `(B, in, H, W)`, weight `(out, in, h, w)` → `(B, out, H', W')`.
    """
    if quick_on(x.device):
        x, weight, bias = _autocast(x, weight, bias)
        layout = _memory(x, weight)
        x, weight = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
    return F.conv2d(x, weight, bias, stride, padding, dilation)


def _layout(x: Tensor, weight: Tensor) -> tuple[torch.memory_format, int]:
    """How images lie in memory, and how many items stand as rows of one."""
    return _memory(x, weight), math.gcd(len(x), max(1, IMAGE_COLUMNS // x.shape[2]))


def _memory(x: Tensor, weight: Tensor) -> torch.memory_format:
    # A weight larger than what it is for isn't worth moving; and in double there is no oneDNN, and torch's own
    # convolution takes channels last in places only.
    plain = weight.numel() > x.numel() or x.dtype == torch.float64
    return torch.contiguous_format if plain else torch.channels_last


def _autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What autocast would do, before anything is moved: half as many bytes."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x, weight, bias
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _image(x: Tensor, layout: torch.memory_format = torch.channels_last) -> Tensor:
    """`(B, C, T)` → `(B, C, 1, T)`."""
    return x.unsqueeze(2).contiguous(memory_format=layout)


def _rows(x: Tensor, layout: torch.memory_format, together: int) -> Tensor:
    """`(B, C, T)` → `(B / together, C, together, T)`."""
    if layout is torch.contiguous_format:
        return x.unflatten(0, (-1, together)).transpose(1, 2).contiguous()
    # By way of `(B, T, C)`: torch moves, and differentiates, that faster than an image.
    return x.transpose(1, 2).contiguous().unflatten(0, (-1, together)).permute(0, 3, 1, 2)


def _items(y: Tensor, items: int) -> Tensor:
    """`(B / n, C, n, T)` → `(B, C, T)`, channels last in memory."""
    return y.permute(0, 2, 3, 1).contiguous().view(items, y.shape[3], y.shape[1]).transpose(1, 2)


def _columns(
    x: Tensor, weight: Tensor, left: int, right: int, stride: int, groups: int
) -> tuple[Tensor, Tensor, int, int]:
    """A strided convolution's input, weight and padding as those of one over columns of `stride` samples.

    Shape:
        x `(B, in, T)` → `(B, in * stride, T')`; weight `(out, in / groups, k)` → `(out, in / groups * stride, k')`.
    """
    outputs = (x.shape[2] + left + right - weight.shape[2]) // stride + 1
    before = -(-left // stride)
    late = before * stride - left
    kernel = -(-(late + weight.shape[2]) // stride)
    taps = F.pad(weight, (late, kernel * stride - late - weight.shape[2]))
    taps = taps.unflatten(2, (kernel, stride)).transpose(2, 3).flatten(1, 2)
    columns = -(-x.shape[2] // stride)
    x = F.pad(x, (0, columns * stride - x.shape[2])) if x.shape[2] % stride else x
    split = x.unflatten(2, (columns, stride)).unflatten(
        1, (groups, -1)
    )  # (B, groups, in / groups, T', stride)
    if groups > MOST_GROUPS:
        x = split.transpose(3, 4).flatten(1, 3)
    else:
        x = split.permute(0, 3, 1, 2, 4).flatten(2).transpose(1, 2)
    # Whatever the last outputs don't see is cut, or the zeros that they do see are added.
    return x, taps, before, outputs + kernel - 1 - before - columns
