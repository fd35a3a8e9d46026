"""A generator of clips laid out for inference: the same function, its layers' weights computed once.

A strided transposed convolution makes a convolution's weight of its own at each call, which for a wide net takes as
long as the convolution. And an embedding of labels takes mixtures of them, which training has no use for.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.generators.latent import LatentGenerator
from gansound.nn.fold import fold_parametrizations
from gansound.nn.same_conv import SameTransposedConv1d

_MIXTURE: ContextVar[Tensor | None] = ContextVar("mixture of labels", default=None)


def clip_form(generator: LatentGenerator) -> LatentGenerator:
    """A copy in eval mode, its parameters fixed, that computes the same in less time.

    A layer that isn't known stays as it is.
    """
    form = fold_parametrizations(copy.deepcopy(generator).eval()).requires_grad_(False)
    for parent in list(form.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is SameTransposedConv1d:
                setattr(parent, name, _Upsampling(layer))
            elif type(layer) is nn.Embedding and form.labels and layer.num_embeddings == len(form.labels):
                setattr(parent, name, _LabelEmbedding(layer))
    return form


@contextmanager
def mixed(form: nn.Module, weights: Tensor | None) -> Iterator[None]:
    """Inside, `clip_form`'s generator sees these mixtures of labels instead of the labels it is given.

    Args:
        form: of a generator with labels.
        weights: `(B, classes)`, one row for each clip; None leaves the labels.

    Raises:
        ValueError: its labels don't enter by an embedding.
    """
    if weights is not None and not any(isinstance(layer, _LabelEmbedding) for layer in form.modules()):
        raise ValueError(
            "this model's labels can't be mixed: they don't enter by an embedding. Take one label"
        )
    token = _MIXTURE.set(weights)
    try:
        yield
    finally:
        _MIXTURE.reset(token)


class _LabelEmbedding(nn.Module):
    """Shape: labels `(B,)` → `(B, D)`, or the mean of the labels' embeddings with the mixture's weights."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, labels: Tensor) -> Tensor:
        weights = _MIXTURE.get()
        return F.embedding(labels, self.weight) if weights is None else weights.to(self.weight) @ self.weight


class _Upsampling(nn.Module):
    """A `SameTransposedConv1d` as a convolution that gives a column's samples as channels.

    Shape: `(B, in_channels, T)` → `(B, out_channels, T * stride)`, channels last in memory.
    """

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, layer: SameTransposedConv1d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.stride, self.padding = layer.stride[0], layer.columns.padding
        phases = layer.columns.split(layer.weight.detach()).flip(2).permute(3, 1, 0, 2).flatten(0, 1)
        kernel = phases.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.register_buffer("kernel", kernel)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().repeat(self.stride))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x.unsqueeze(2), self.kernel, self.bias, padding=(0, self.padding)).squeeze(2)
        return y.transpose(1, 2).unflatten(2, (self.stride, -1)).flatten(1, 2).transpose(1, 2)
