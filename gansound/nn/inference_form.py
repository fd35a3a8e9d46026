"""A generator laid out for inference: the same function, in the shapes that oneDNN and runtimes are quick at.

Convolutions become images of height one, `(B, C, 1, T)`, which oneDNN, ONNX Runtime and OpenVINO have fast kernels
for where they have slow ones for 1-D; with channels last in memory, PyTorch needs no other layout in between. A
transposed convolution becomes a plain one that gives a column's samples as channels, its weight computed once. A
pointwise shortcut beside a branch that ends in a pointwise convolution becomes one convolution over both.
"""

from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from gansound.nn.anti_aliased import AntiAliased
from gansound.nn.conv import Conv1d, RepeatedConv1d, TransposedConv1d
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.exact import ExactConv1d, MayBeExact
from gansound.nn.fold import fold_parametrizations
from gansound.nn.frame_layers import DepthwiseFrames, Expansion, MadeGriffinLimStep, OwnFrameConv, OwnLinear
from gansound.nn.generator import StreamingGenerator
from gansound.nn.griffin_lim import GriffinLimStep
from gansound.nn.image_layers import BandRows, Columns, Image, ImageBands, ImageConv, ImageUpsampling, Merged
from gansound.nn.images import quick_on
from gansound.nn.istft import ISTFT
from gansound.nn.istft_by_products import by_products
from gansound.nn.noise import NoiseProduct
from gansound.nn.pqmf import PQMF
from gansound.nn.residual import Parallel, Residual
from gansound.nn.single_pass import SinglePassPhases
from gansound.nn.snake import Snake

Layer = TypeVar("Layer", bound=nn.Module)
# What works on images as on columns; whatever isn't known to is handed columns.
_ELEMENTWISE = (
    nn.Identity, nn.LeakyReLU, nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Hardtanh,
    nn.Sigmoid, nn.Dropout,
)  # fmt: skip


class InferenceForm(StreamingGenerator):
    """A copy of a generator, for inference alone.

    Args:
        generator: its weights are copied.
        graph: for an exported graph: the inverse FFT as a matrix product, since runtimes lack a fast one.
        most_frames: of a call of that graph, where it is known: then a net that remembers is quicker.
        dtype: of the weights of convolutions and matrix products, and of what they multiply, where it is to be another
            than they have. Normalization stays as it is, and so do constants of the design (filter banks, the inverse
            FFT), since nothing was trained around their error. A layer that isn't gansound's stays as it is too, and so
            does what may be exact, whose errors others would make more of.
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
        self.layers = nn.Sequential(Image(), *converted) if images else converted
        for module in self.layers.modules():
            if isinstance(module, SinglePassPhases) and most_frames is not None:
                module.most_frames = most_frames
        exact = [module for module in self.layers.modules() if isinstance(module, MayBeExact)]
        kept = {part for module in exact for part in module.modules()}
        for module in self.layers.modules() if dtype is not None else ():
            if (
                isinstance(module, ImageConv | ImageUpsampling | Merged | OwnLinear | OwnFrameConv)
                and module not in kept
            ):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
        if not graph and quick_on(self._example.device):  # where double precision costs little
            for module in exact:
                module.exactly()

    def _frame(self, batch: int) -> Tensor:
        return self._example.expand(batch, -1, -1)  # of the generator's type, whatever the weights' now is


def _on_images(layer: nn.Module, graph: bool) -> nn.Module:
    """A layer of columns `(B, C, T)` as one of images `(B, C, 1, T)`."""
    if _is(layer, Conv1d):
        return ImageConv(layer)
    if _is(layer, TransposedConv1d):
        return ImageUpsampling(layer.weight, layer.bias, layer.rate, layer.trim_samples)
    if _is(layer, PQMF):
        return (BandRows if graph else ImageBands)(layer)
    if _is(layer, RepeatedConv1d):
        return ImageUpsampling(layer.as_transposed(), layer.bias, layer.rate, 0)
    if isinstance(layer, ExactConv1d) and not graph:
        return Columns(layer.keep())
    if _samplewise(layer) or (_is(layer, AntiAliased) and _samplewise(layer.activation)):
        return layer
    if type(layer) is Residual and (merged := _merged(layer, graph)) is not None:
        return merged
    ours = isinstance(layer, Parallel) and type(layer).__module__.startswith("gansound.")
    if not (ours or type(layer) in (nn.Sequential, nn.ModuleList)):
        return Columns(by_products(layer) if _is(layer, ISTFT) and graph else layer)
    for name, child in layer.named_children():
        setattr(layer, name, _on_images(child, graph))
    return layer


def _samplewise(activation: nn.Module) -> bool:
    return isinstance(activation, (*_ELEMENTWISE, Snake, NoiseProduct))


def _is(layer: nn.Module, kind: type[Layer]) -> TypeGuard[Layer]:
    """That kind of layer, or one derived from it that streams as it does."""
    return isinstance(layer, kind) and type(layer).stream is kind.stream  # type: ignore[attr-defined]


def _on_frames(layer: nn.Module, graph: bool) -> nn.Module:
    """A layer of frames `(B, F, C)`, which are matrices already."""
    if _is(layer, FrameConv):
        conv = layer.conv
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        return DepthwiseFrames(layer) if depthwise else OwnFrameConv(layer)
    if type(layer) is nn.Linear:
        return OwnLinear(layer)
    if _is(layer, ISTFT) and graph:
        return by_products(layer)
    if type(layer) is GriffinLimStep:
        return MadeGriffinLimStep(layer)
    for name, child in layer.named_children():
        if type(layer) is ConvNeXtBlock and isinstance(child, nn.Linear) and child is layer.expand:
            layer.register_module(name, Expansion(child))
        else:
            layer.register_module(name, _on_frames(child, graph))
    return layer


def _merged(layer: Residual, graph: bool) -> Merged | None:
    shortcut, branch = layer.shortcut, layer.branch
    if not (_is(shortcut, Conv1d) and type(branch) is nn.Sequential and len(branch)):
        return None
    end = branch[-1]
    if not (_is(end, Conv1d) and _pointwise(end) and _pointwise(shortcut)):
        return None
    return Merged(nn.Sequential(*(_on_images(one, graph) for one in list(branch)[:-1])), end, shortcut)


def _pointwise(conv: Conv1d) -> bool:
    return conv.kernel_size == conv.stride == (1,) and conv.groups == 1
