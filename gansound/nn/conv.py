"""Convolutions that carry their own padding.

A vocoder is a chain of these layers. Padding belongs to the layer, not to the model, so that what a
layer does at the two ends of an utterance is stated, and can be changed, in one place.
"""

import re
from collections.abc import Mapping
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm as parametrized_weight_norm

from gansound.nn import images
from gansound.nn.streaming import Cursor, Padding
from gansound.precision import no_autocast

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
    """A convolution that pads by half its reach on each side, or by all of it on the left when it is causal.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: taps; `(kernel_size - 1) * dilation` must be even, unless causal.
        stride: samples from one output to the next.
        dilation: samples from one tap to the next.
        groups: blocks of channels that don't see each other.
        bias: add one to each channel.
        padding_mode: "zeros", or "reflect" (see `reflect_pad`, which has a rule for short signals too).
        causal: look at the past only; the padding is then zeros, since nothing but the past could be reflected.

    Shape:
        x `(B, in_channels, T)`, T >= 1 → `(B, out_channels, ceil(T / stride))`.
        A streaming step takes a multiple of `stride` columns.

    Raises:
        ValueError: when the reach is odd, so that the two sides couldn't be padded equally; or another padding.
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
        bias: bool = True,
        padding_mode: Padding = "zeros",
        causal: bool = False,
    ) -> None:
        reach_samples = (kernel_size - 1) * dilation
        if reach_samples % 2 and not causal:
            raise ValueError(
                f"(kernel_size - 1) * dilation must be even to pad both sides equally, got "
                f"kernel_size={kernel_size}, dilation={dilation}; take an odd kernel_size"
            )
        if padding_mode not in get_args(Padding):  # torch's own knows more, which don't stream
            raise ValueError(f"padding_mode is {' or '.join(get_args(Padding))}, got {padding_mode!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding=0 if causal else reach_samples // 2,
            padding_mode="zeros" if causal else padding_mode,
        )
        self.right_samples = 0 if causal else reach_samples // 2
        self.left_samples = reach_samples - self.right_samples

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, in_channels, T)` → `(B, out_channels, ceil(T / stride))`."""
        left, right = self.left_samples, self.right_samples
        reflect = self.padding_mode == "reflect" and right > 0
        if images.quick_on(x.device) and not (reflect and x.shape[-1] <= right):
            return images.convolve(
                x,
                self.weight,
                self.bias,
                left=left,
                right=right,
                reflect=reflect,
                stride=self.stride[0],
                dilation=self.dilation[0],
                groups=self.groups,
            )
        if left != right:
            x, right = F.pad(x, (left, right)), 0
        elif reflect:
            x, right = reflect_pad(x, left, right), 0
        return F.conv1d(x, self.weight, self.bias, self.stride, right, self.dilation, self.groups)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, in_channels, n)` → `(B, out_channels, n / stride)`."""
        columns, stride = x.shape[-1], self.stride[0]
        if columns % stride:
            raise ValueError(f"a step must hold a multiple of the stride {stride}, got {columns} columns")
        reach = self.left_samples + self.right_samples
        wait = -(cursor.delay + self.right_samples) % stride  # so that steps begin on the grid of the stride
        padding: Padding = "reflect" if self.padding_mode == "reflect" else "zeros"
        window = cursor.window(x, reach + wait, padding=padding)
        cursor.late(self.right_samples + wait, self.left_samples)
        if stride > 1:
            cursor.downsample(stride)
        window = window[..., : columns + reach]
        return F.conv1d(window, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class AheadConv1d(Conv1d):
    """A convolution that looks at the present and what follows, and not back.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: taps.

    Shape:
        x `(B, in_channels, T)`, T >= 1 → `(B, out_channels, T)`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, causal=True)
        self.left_samples, self.right_samples = 0, self.left_samples


class StridedConv1d(Conv1d):
    """A convolution two strides long, which begins half a stride before a column's own samples.

    Args:
        in_channels, out_channels: width before and after.
        stride: samples from one column to the next, 2 or more.
        causal: it ends at the first of a column's own samples.

    Shape:
        x `(B, in_channels, T * stride)` → `(B, out_channels, T)`.
        A streaming step takes a multiple of `stride` columns.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, causal: bool = False) -> None:
        super().__init__(in_channels, out_channels, 2 * stride, stride=stride, causal=True)
        if not causal:
            self.left_samples = (stride + 1) // 2
            self.right_samples = 2 * stride - 1 - self.left_samples


class RepeatedConv1d(Conv1d):
    """A causal convolution of a signal whose columns were each repeated `rate` times.

    Computed as the transposed convolution that this is, by sums of the taps that meet the same column.

    Args:
        in_channels, out_channels: width before and after.
        rate: output samples for each column, 2 or more.
        kernel_size: taps, in output samples.

    Shape:
        x `(B, in_channels, T)` → `(B, out_channels, T * rate)`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rate: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, causal=True)
        self.rate = rate

    def as_transposed(self) -> Tensor:
        """The transposed convolution's weight, `(in_channels, out_channels, kernel_size + rate - 1)`."""
        padded = F.pad(self.weight.flip(-1), (self.rate - 1, self.rate - 1))
        return padded.unfold(-1, self.rate, 1).sum(-1).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, in_channels, T)` → `(B, out_channels, T * rate)`."""
        if images.quick_on(x.device):
            y = images.convolve_transposed(
                x, self.as_transposed(), self.bias, stride=self.rate, padding=0, output_padding=0
            )
        else:
            y = F.conv_transpose1d(x, self.as_transposed(), self.bias, self.rate)
        return y[..., : x.shape[-1] * self.rate]

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, in_channels, n)` → `(B, out_channels, n * rate)`."""
        weight = self.as_transposed()
        phases = polyphase(weight, self.rate)
        return overlap_add(x, phases, self.bias, self.rate, weight.shape[-1], 0, cursor)


class TransposedConv1d(nn.ConvTranspose1d):
    """A transposed convolution that multiplies the length by exactly its rate.

    The `kernel_size - rate` samples of overlap are cut from both ends, an odd one from the start; all of them from
    the end when it is causal.

    Args:
        in_channels, out_channels: width before and after.
        rate: output samples for each input sample, 2 or more.
        kernel_size: taps, at least `rate`.
        causal: an output sample depends on the input of its own time and the past only.

    Shape:
        x `(B, in_channels, T)` → `(B, out_channels, T * rate)`.

    Raises:
        ValueError: when the rate is below 2, or the kernel shorter than the rate, which would leave holes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, rate: int, kernel_size: int, causal: bool = False
    ) -> None:
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
            padding=0 if causal else (overlap_samples + 1) // 2,
            output_padding=0 if causal else overlap_samples % 2,
        )
        self.rate = rate
        self.causal = causal
        self.trim_samples = 0 if causal else (overlap_samples + 1) // 2

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Shape: `(B, in_channels, T)` → `(B, out_channels, T * rate)`."""
        if images.quick_on(x.device):
            y = images.convolve_transposed(
                x,
                self.weight,
                self.bias,
                stride=self.rate,
                padding=int(self.padding[0]),
                output_padding=self.output_padding[0],
            )
        else:
            y = super().forward(x)
        return y[..., : x.shape[-1] * self.rate] if self.causal else y

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, in_channels, n)` → `(B, out_channels, n * rate)`."""
        phases = polyphase(self.weight, self.rate)
        return overlap_add(x, phases, self.bias, self.rate, self.kernel_size[0], self.trim_samples, cursor)


def polyphase(weight: Tensor, rate: int) -> Tensor:
    """A transposed convolution's weight as that of a plain one, which gives a column's `rate` samples as channels.

    Sample `i * rate + j` of a transposed convolution is the sum over q of `weight[..., j + q * rate]` times input
    column `i - q`: a convolution over the last `ceil(kernel_size / rate)` columns for each phase j.

    Shape:
        `(in_channels, out_channels, kernel_size)` → `(rate * out_channels, in_channels, ceil(kernel_size / rate))`.
    """
    columns = -(-weight.shape[-1] // rate)
    padded = F.pad(weight, (0, columns * rate - weight.shape[-1]))
    phases = padded.unflatten(-1, (columns, rate))  # (in, out, columns, rate)
    return phases.flip(2).permute(3, 1, 0, 2).flatten(0, 1)  # the oldest column first


def overlap_add(
    x: Tensor,
    phases: Tensor,
    bias: Tensor | None,
    rate: int,
    kernel_size: int,
    trim_samples: int,
    cursor: Cursor,
) -> Tensor:
    """A step of a transposed convolution, its weight in phases.

    Args:
        x: the next columns.
        phases: of the weight, from `polyphase`.
        bias: of the convolution.
        rate: output samples for each column.
        kernel_size: taps of the weight.
        trim_samples: cut from the start of the whole output.
        cursor: where the columns stand.

    Shape:
        x `(B, in_channels, n)`, phases as `polyphase` gives them → `(B, out_channels, n * rate)`.
    """
    context = phases.shape[-1] - 1
    window = cursor.window(x, context)
    cursor.upsample(rate)
    cursor.late(trim_samples, kernel_size - 1 - trim_samples)
    y = F.conv1d(window, phases).unflatten(1, (rate, -1))  # (B, rate, C, n)
    samples = y.permute(0, 2, 3, 1).flatten(2)
    return samples if bias is None else samples + bias[:, None]


def weight_norm(layer: Module) -> Module:
    """Split a layer's weight into length and direction, `w = g v / |v|`, one length for each row of dim 0.

    Salimans and Kingma, "Weight Normalization", arXiv 1602.07868. The layer's state dict then holds
    `parametrizations.weight.original0` (g) and `original1` (v).
    """
    parametrized_weight_norm(layer)
    return layer


class SpectralNorm(nn.Module):
    """A weight divided by its largest singular value, which each pass in training comes nearer to.

    Miyato et al., "Spectral Normalization for GANs", arXiv 1802.05957, algorithm 1: first the right vector from the
    left, then the left from the right, as in `torch.nn.utils.spectral_norm`, whose newer form goes the other way round:
    a published training goes on exactly so. In full precision also under autocast.

    Args:
        weight: a row of dim 0 is a row of its matrix.

    Attributes:
        u, v: the singular vectors, as far as they are known.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0))
        for _ in range(15):
            self._turn(weight.detach().flatten(1))

    def forward(self, weight: Tensor) -> Tensor:
        with no_autocast(weight):
            matrix = weight.flatten(1)
            if self.training:
                self._turn(matrix.detach())
            # Copies, for the next pass changes the vectors before this one's gradient is taken.
            return weight / torch.dot(self.u.clone(), torch.mv(matrix, self.v.clone()))

    @torch.no_grad()
    def _turn(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(torch.mv(matrix.T, self.u), dim=0))
        self.u.copy_(F.normalize(torch.mv(matrix, self.v), dim=0))


def spectral_norm(layer: Module) -> Module:
    """Divide a layer's weight by its largest singular value, see `SpectralNorm`.

    The layer's state dict then holds `parametrizations.weight.original` and the vectors `parametrizations.weight.0.u`
    and `v`.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    parametrize.register_parametrization(layer, "weight", SpectralNorm(weight))
    return layer


def published_keys(module: nn.Module, layers: Mapping[str, str]) -> dict[str, str]:
    """The keys of a module's state dict and, for each, another project's, its layers named by `layers`.

    Weight norm's pair is there called `weight_g`, `weight_v`, as torch did before it had parametrizations, and spectral
    norm's weight and vectors `weight_orig`, `weight_u`, `weight_v`.
    """
    keys = {}
    for key in module.state_dict():
        layer = next(name for name in layers if key.startswith(name + "."))
        tensor = key.removeprefix(layer + ".")
        keys[key] = f"{layers[layer]}.{older_name(tensor)}"
    return keys


def older_name(name: str) -> str:
    """What a parametrized weight was called before torch had parametrizations; any other name as it is."""
    return re.sub(r"\bparametrizations\.weight\.(original[01]?|0\.[uv]|0\._[uv])$", _older, name)


def _older(found: re.Match[str]) -> str:
    names = {"original0": "weight_g", "original1": "weight_v", "original": "weight_orig"}
    return names.get(found[1], f"weight_{found[1][-1]}")
