"""What is run while timing: a mel with something in it, and a generator of any size without training it."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gansound.mel import MelSpec
from gansound.nn.fold import fold_parametrizations

_LAST_DEVIATION = 0.3  # before a tanh: no sample is pressed flat
Module = TypeVar("Module", bound=nn.Module)


def noise_mel(mel_spec: MelSpec, frames: int, *, seed: int = 0) -> Tensor:
    """The mel of noise that swells and fades four times a second. Shape: `(1, n_mels, frames)`."""
    samples = (frames + 1) * mel_spec.hop_length + mel_spec.n_fft
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, samples, generator=draw)
    seconds = torch.arange(samples) / mel_spec.sample_rate
    loudness = 0.02 + 0.1 * torch.sin(4 * torch.pi * seconds).square()
    return mel_spec.mel((noise * loudness).clamp(-1, 1))[..., :frames].contiguous()


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
