"""A generator laid out for inference: the same function, in the shapes that oneDNN and runtimes are quick at.

Convolutions become images of height one, `(B, C, 1, T)`, which oneDNN, ONNX Runtime and OpenVINO have fast kernels
for where they have slow ones for 1-D; with channels last in memory, PyTorch needs no other layout in between. A
transposed convolution becomes a plain one that gives a column's samples as channels, its weight computed once. A
pointwise shortcut beside a branch that ends in a pointwise convolution becomes one convolution over both.
"""

import copy
import math
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.anti_aliased import AntiAliased
from gansound.nn.conv import Conv1d, RepeatedConv1d, TransposedConv1d, polyphase, reflect_pad
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.exact import ExactConv1d
from gansound.nn.finer_frames import FinerFrames
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.nn.griffin_lim import GriffinLimStep
from gansound.nn.images import quick_on
from gansound.nn.istft import ISTFT
from gansound.nn.pqmf import PQMF
from gansound.nn.residual import Parallel, Residual
from gansound.nn.single_pass import SinglePassPhases
from gansound.nn.snake import Snake
from gansound.nn.streaming import Cursor, Padding, Pointwise, stream
from gansound.precision import full_precision

Layer = TypeVar("Layer", bound=nn.Module)
# What works on images as on columns; whatever isn't known to is handed columns.
_ELEMENTWISE = (
    nn.Identity, nn.LeakyReLU, nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Hardtanh,
    nn.Sigmoid, nn.Dropout,
)  # fmt: skip

_QUARTERED = 256  # samples of a frame from which on fewer multiplications are worth the sums


class InferenceForm(StreamingGenerator):
    """A copy of a generator, for inference alone.

    Args:
        generator: its weights are copied.
        graph: for an exported graph: the inverse FFT as a matrix product, since runtimes lack a fast one.
        most_frames: of a call of that graph, where it is known: then a net that remembers is quicker.
        dtype: of the weights of convolutions and matrix products, and of what they multiply, where it is to be another
            than they have. Normalization stays as it is, and so do constants of the design (filter banks, the inverse
            FFT), since nothing was trained around their error. A layer that isn't gansound's stays as it is too, and so
            does `FinerFrames`, whose errors phases would add up.

    Raises:
        ValueError: a strided convolution.
    """

    def __init__(
        self,
        generator: StreamingGenerator,
        *,
        graph: bool = False,
        most_frames: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.n_mels = generator.n_mels
        self.hop_length = generator.hop_length
        self._example = generator._frame(1)
        layers = fold_parametrizations(generator.for_inference().eval()).requires_grad_(False)
        images = any(isinstance(layer, Conv1d | TransposedConv1d | PQMF) for layer in layers.modules())
        converted = nn.Sequential(
            *(_on_images(one, graph) if images else _on_frames(one, graph) for one in layers)
        )
        self.layers = nn.Sequential(_Image(), *converted) if images else converted
        for module in self.layers.modules():
            if isinstance(module, SinglePassPhases) and most_frames is not None:
                module.most_frames = most_frames
        finer = [module for module in self.layers.modules() if isinstance(module, FinerFrames)]
        kept = {part for module in finer for part in module.modules()}
        for module in self.layers.modules() if dtype is not None else ():
            if isinstance(module, _Conv | _Upsampling | _Merged | _Linear | _Frames) and module not in kept:
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
        if not graph and quick_on(self._example.device):  # where double precision costs little
            for module in finer:
                module.exactly()

    def _frame(self, batch: int) -> Tensor:
        return self._example.expand(batch, -1, -1)  # of the generator's type, whatever the weights' now is


def whole_form(generator: StreamingGenerator) -> StreamingGenerator:
    """A copy of a generator for `forward` alone in an exported graph: weights folded, no FFT.

    Of a whole utterance it computes nothing beyond the end, where a step goes on until the look-ahead is out.
    """
    copied = fold_parametrizations(copy.deepcopy(generator).cpu().float().eval()).requires_grad_(False)
    _without_fft(copied.layers)
    return copied


def _without_fft(layer: nn.Module) -> nn.Module:
    if _is(layer, ISTFT):
        return _by_products(layer)
    if type(layer) is GriffinLimStep:
        return _GriffinLimStep(layer)
    for name, child in layer.named_children():
        setattr(layer, name, _without_fft(child))
    return layer


def _on_images(layer: nn.Module, graph: bool) -> nn.Module:
    """A layer of columns `(B, C, T)` as one of images `(B, C, 1, T)`."""
    if _is(layer, Conv1d):
        return _Conv(layer)
    if _is(layer, TransposedConv1d):
        return _Upsampling(layer.weight, layer.bias, layer.rate, layer.trim_samples)
    if _is(layer, PQMF):
        return (_BandRows if graph else _Bands)(layer)
    if _is(layer, RepeatedConv1d):
        return _Upsampling(layer.as_transposed(), layer.bias, layer.rate, 0)
    if isinstance(layer, ExactConv1d) and not graph:
        return _Columns(layer.keep())
    if _samplewise(layer) or (_is(layer, AntiAliased) and _samplewise(layer.activation)):
        return layer
    if type(layer) is Residual and (merged := _merged(layer, graph)) is not None:
        return merged
    ours = isinstance(layer, Parallel) and type(layer).__module__.startswith("gansound.")
    if not (ours or type(layer) in (nn.Sequential, nn.ModuleList)):
        return _Columns(_by_products(layer) if _is(layer, ISTFT) and graph else layer)
    for name, child in layer.named_children():
        setattr(layer, name, _on_images(child, graph))
    return layer


def _samplewise(activation: nn.Module) -> bool:
    return isinstance(activation, (*_ELEMENTWISE, Snake))


def _is(layer: nn.Module, kind: type[Layer]) -> TypeGuard[Layer]:
    """That kind of layer, or one derived from it that streams as it does."""
    return isinstance(layer, kind) and type(layer).stream is kind.stream  # type: ignore[attr-defined]


def _on_frames(layer: nn.Module, graph: bool) -> nn.Module:
    """A layer of frames `(B, F, C)`, which are matrices already."""
    if _is(layer, FrameConv):
        conv = layer.conv
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        return _DepthwiseFrames(layer) if depthwise else _Frames(layer)
    if type(layer) is nn.Linear:
        return _Linear(layer)
    if _is(layer, ISTFT) and graph:
        return _by_products(layer)
    if type(layer) is GriffinLimStep:
        return _GriffinLimStep(layer)
    for name, child in layer.named_children():
        if type(layer) is ConvNeXtBlock and isinstance(child, nn.Linear) and child is layer.expand:
            layer.register_module(name, _Expansion(child))
        else:
            layer.register_module(name, _on_frames(child, graph))
    return layer


class _Image(Pointwise):
    """`(B, C, T)` → `(B, C, 1, T)`, channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class _Columns(nn.Module):
    """A layer that isn't known to take images, handed columns, and in single precision at least."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self._columns(x))
        return y.unsqueeze(2)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        return stream(self.layer, self._columns(x), cursor).unsqueeze(2)

    @staticmethod
    def _columns(x: Tensor) -> Tensor:
        return full_precision(x.squeeze(2))


class _Conv(nn.Module):
    """A `Conv1d` on images of height one."""

    def __init__(self, conv: Conv1d) -> None:
        super().__init__()
        self.weight = _image_weight(conv.weight)
        self.bias = conv.bias
        self.dilation, self.groups = conv.dilation[0], conv.groups
        self.left_samples, self.right_samples = conv.left_samples, conv.right_samples
        self.padding: Padding = "reflect" if conv.padding_mode == "reflect" else "zeros"
        if conv.stride[0] > 1:
            raise ValueError(f"the inference form has no strided convolutions, got stride {conv.stride[0]}")

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left_samples, self.right_samples
        x = x.to(self.weight.dtype)
        if self.padding == "reflect" and 0 < right < x.shape[-1]:
            return self._convolved(F.pad(x, (left, right, 0, 0), mode="reflect"))
        if self.padding == "reflect":
            return self._convolved(reflect_pad(x.squeeze(2), left, right).unsqueeze(2))
        if left != right:
            return self._convolved(F.pad(x, (left, right)))
        return self._convolved(x, padding=right)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        x = x.to(self.weight.dtype)
        window = cursor.window(x, self.left_samples + self.right_samples, padding=self.padding)
        cursor.late(self.right_samples, self.left_samples)
        return self._convolved(window)

    def _convolved(self, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, 1, (0, padding), (1, self.dilation), self.groups)


class _Upsampling(nn.Module):
    """A transposed convolution whose phases are the channels of a plain one."""

    weight: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor | None, rate: int, trim_samples: int, *, constant: bool = False
    ) -> None:
        super().__init__()
        phases = _image_weight(polyphase(weight.detach(), rate))
        if constant:
            self.register_buffer("weight", phases.data)
        else:
            self.weight = phases
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat(rate), requires_grad=False)
        self.rate = rate
        self.trim_samples, self.kernel_size = trim_samples, weight.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        samples = x.shape[-1] * self.rate
        context = self.weight.shape[-1] - 1
        y = self._samples(self._phases(F.pad(x.to(self.weight.dtype), (context, context))))
        return y[..., self.trim_samples : self.trim_samples + samples]

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(x.to(self.weight.dtype), self.weight.shape[-1] - 1)
        cursor.upsample(self.rate)
        cursor.late(self.trim_samples, self.kernel_size - 1 - self.trim_samples)
        return self._samples(self._phases(window))

    def _samples(self, phases: Tensor) -> Tensor:
        """`(B, rate * C, 1, n)`, phase by phase → `(B, C, 1, n * rate)`."""
        # Channels last, a column's phases lie one after the other, as its samples do: this copies nothing.
        rows = phases.permute(0, 2, 3, 1).unflatten(3, (self.rate, -1))
        return rows.flatten(2, 3).permute(0, 3, 1, 2)

    def _phases(self, window: Tensor) -> Tensor:
        return F.conv2d(window, self.weight, self.bias)


class _Bands(_Upsampling):
    """The synthesis of a `PQMF`."""

    def __init__(self, layer: PQMF) -> None:
        super().__init__(layer.filters * layer.bands, None, layer.bands, layer.half_samples, constant=True)


class _BandRows(_Bands):
    """Its bands as the rows of one channel's image, which sums the same.

    OpenVINO 2026.4 has wrong sums in bf16 where 4 to 8 channels meet a kernel of 16 columns, as four bands' would.
    """

    def __init__(self, layer: PQMF) -> None:
        super().__init__(layer)
        self.weight = self.weight.transpose(1, 2).contiguous()

    def _phases(self, window: Tensor) -> Tensor:
        return F.conv2d(window.transpose(1, 2), self.weight)


class _Merged(nn.Module):
    """Pointwise convolutions of a branch's end and of its shortcut, as one over the channels of both."""

    def __init__(self, branch: nn.Sequential, end: Conv1d, shortcut: Conv1d) -> None:
        super().__init__()
        self.branch = branch
        self.weight = _image_weight(torch.cat([shortcut.weight, end.weight], 1).detach())
        assert end.bias is not None
        assert shortcut.bias is not None
        self.bias = nn.Parameter((end.bias + shortcut.bias).detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._both(x, self.branch(x))

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        direct, branch = cursor.fork(), cursor.fork()
        y = stream(self.branch, x, branch)
        return self._both(*cursor.join([direct, branch], [x, y]))

    def _both(self, x: Tensor, y: Tensor) -> Tensor:
        return F.conv2d(torch.cat([x, y], 1), self.weight, self.bias)


def _merged(layer: Residual, graph: bool) -> _Merged | None:
    shortcut, branch = layer.shortcut, layer.branch
    if not (_is(shortcut, Conv1d) and type(branch) is nn.Sequential and len(branch)):
        return None
    end = branch[-1]
    if not (_is(end, Conv1d) and _pointwise(end) and _pointwise(shortcut)):
        return None
    return _Merged(nn.Sequential(*(_on_images(one, graph) for one in list(branch)[:-1])), end, shortcut)


def _pointwise(conv: Conv1d) -> bool:
    return conv.kernel_size == conv.stride == (1,) and conv.groups == 1


class _Linear(Pointwise):
    """A matrix product in its own precision, given back in that of its input."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x).to(x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class _Expansion(_Linear):
    """A matrix product given back in its own precision: the next one takes it so, and it is the widest of a block."""

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


class _Frames(nn.Module):
    """A `FrameConv` in its own precision, given back in that of its input."""

    def __init__(self, layer: FrameConv) -> None:
        super().__init__()
        self.weight, self.bias = layer.conv.weight, layer.conv.bias
        self.groups = layer.conv.groups
        self.left_frames, self.right_frames = layer.left_frames, layer.right_frames

    def forward(self, x: Tensor) -> Tensor:
        return self._convolved(
            F.pad(x.to(self.weight.dtype), (0, 0, self.left_frames, self.right_frames))
        ).to(x.dtype)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(x.to(self.weight.dtype), self.left_frames + self.right_frames, dim=1)
        cursor.late(self.right_frames, self.left_frames)
        return self._convolved(window).to(x.dtype)

    def _convolved(self, window: Tensor) -> Tensor:
        image = window.transpose(1, 2).unsqueeze(2)
        return F.conv2d(image, self.weight, self.bias, groups=self.groups).squeeze(2).transpose(1, 2)


class _DepthwiseFrames(nn.Module):
    """A depthwise `FrameConv`; of a single frame it is a product and a sum, quicker than a convolution."""

    def __init__(self, layer: FrameConv) -> None:
        super().__init__()
        self.convolution = layer
        self.taps = nn.Parameter(layer.conv.weight.detach()[:, 0, 0].T.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return y

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        if x.shape[1] != 1:
            return self.convolution.stream(x, cursor)
        window = cursor.window(x, len(self.taps) - 1, dim=1)
        cursor.late(self.convolution.right_frames, self.convolution.left_frames)
        y = (window * self.taps).sum(1, keepdim=True)
        bias = self.convolution.conv.bias
        return y if bias is None else y + bias


class _GriffinLimStep(nn.Module):
    """A step of `GriffinLim` whose kernel is made once."""

    def __init__(self, layer: GriffinLimStep) -> None:
        super().__init__()
        self.ahead = layer.ahead
        self.kernel = nn.Parameter(layer.weight().detach().contiguous(), requires_grad=False)

    def near(self, frames: Tensor, outside: int = 0) -> Tensor:
        return F.conv2d(frames, self.kernel, padding=(outside, 1))


def _by_products(layer: ISTFT) -> ISTFT:
    return (_MatrixISTFT if layer.n_fft % 4 or layer.n_fft < _QUARTERED else _QuarteredISTFT)(layer)


class _MatrixISTFT(ISTFT):
    """An `ISTFT` whose transform and window are one product with a matrix."""

    matrix: Tensor

    def __init__(self, layer: ISTFT) -> None:
        super().__init__(
            layer.n_fft, layer.hop_length, layer.framing, layer.bins, layer.skipped, layer.closed
        )
        self.window = layer.window
        matrix = torch.cat(_inverse_dft(self, self.n_fft)).to(self.window) * self.window
        self.register_buffer("matrix", matrix, persistent=False)

    def _frames(self, spectrum: Tensor) -> Tensor:
        return _kept(self, spectrum) @ self.matrix


class _QuarteredISTFT(ISTFT):
    """An `ISTFT` whose transform is a product with a quarter of the matrix of the inverse DFT.

    Cosines are even about half a frame and sines odd; of even bins both are what they are there about its quarter too,
    and of odd bins the other. So four products up to the quarter give the rest, mirrored and with other signs.
    """

    even_cosines: Tensor
    odd_cosines: Tensor
    even_sines: Tensor
    odd_sines: Tensor

    def __init__(self, layer: ISTFT) -> None:
        super().__init__(
            layer.n_fft, layer.hop_length, layer.framing, layer.bins, layer.skipped, layer.closed
        )
        self.window = layer.window
        for name, matrix in zip(("cosines", "sines"), _inverse_dft(self, self.n_fft // 4 + 1), strict=True):
            for first, parity in enumerate(("even", "odd")):
                rows = matrix[first::2].to(self.window).contiguous()
                self.register_buffer(f"{parity}_{name}", rows, persistent=False)

    def _frames(self, spectrum: Tensor) -> Tensor:
        real, imaginary = _kept(self, spectrum).chunk(2, dim=2)
        even = real[..., ::2] @ self.even_cosines, imaginary[..., ::2] @ self.even_sines
        odd = real[..., 1::2] @ self.odd_cosines, imaginary[..., 1::2] @ self.odd_sines
        about = even[0] + odd[1], even[0] - odd[1]  # even about the quarter; before the half, and after it
        against = odd[0] + even[1], odd[0] - even[1]  # odd about it
        onward = torch.stack([about[0] + against[0], about[1] - against[1]], 2)[..., :-1]
        mirrored = torch.stack([about[0] - against[0], about[1] + against[1]], 2)[..., 1:].flip(-1)
        return torch.stack([onward, mirrored], 3).flatten(2) * self.window


def _kept(layer: ISTFT, spectrum: Tensor) -> Tensor:
    """A spectrum's bins that the frames' rate can hold."""
    most = layer.n_fft // 2 + 1
    if layer.bins <= most:
        return spectrum
    return torch.cat([part[..., :most] for part in spectrum.chunk(2, dim=2)], dim=2)


def _inverse_dft(layer: ISTFT, samples: int) -> tuple[Tensor, Tensor]:
    """What those bins' real and imaginary parts give to a frame's first samples: two of `(bins, samples)`."""
    n_fft = layer.n_fft
    k = torch.arange(min(layer.bins, n_fft // 2 + 1), dtype=torch.float64, device="cpu")
    angle = 2 * math.pi / n_fft * torch.outer(k, torch.arange(samples, dtype=torch.float64, device="cpu"))
    share = torch.full((len(k), 1), 2.0 / n_fft, dtype=torch.float64, device="cpu")  # a bin and its conjugate
    share[k == (-k) % n_fft] /= 2  # its own
    share *= layer.louder
    return share * angle.cos(), -share * angle.sin()


def _image_weight(weight: Tensor) -> nn.Parameter:
    """`(out, in, k)` as `(out, in, 1, k)`, channels last in memory."""
    image = weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return nn.Parameter(image, requires_grad=False)
