"""What is run while timing: a generator of any size without training it."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gansound.nn.fold import fold_parametrizations

_LAST_DEVIATION = 0.3  # before a tanh: no sample is pressed flat
Module = TypeVar("Module", bound=nn.Module)


def with_lively_weights(generator: Module, mel: Tensor) -> Module:
    """A copy, weight norm folded, with each layer's output scaled to unit variance on this mel, the last's to less.

    As drawn, the signal of a deep stack fades to nothing: it would run at the speed of denormals, and an error
    would be too small to be seen. After Mishkin and Matas, "All you need is a good init", arXiv 1511.06422.
    """
    scaled = fold_parametrizations(copy.deepcopy(generator).eval())
    order: list[nn.Module] = []

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        factor = 1 / output.std().clamp_min(1e-8)
        _multiply(layer, factor)
        order.append(layer)
        return output * factor

    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Linear)
    hooks = [m.register_forward_hook(scale) for m in scaled.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        scaled(mel)
    for hook in hooks:
        hook.remove()
    _multiply(order[-1], _LAST_DEVIATION)
    return scaled


def _multiply(layer: nn.Module, factor: Tensor | float) -> None:
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.mul_(factor)
