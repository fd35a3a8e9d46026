"""How a generator is told which class to make.

A recipe names a `Conditioner`; the generator, which knows its classes and widths, has it make the layers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Conditioning(nn.Module):
    """The layers by which labels enter a generator; this one lets nothing in.

    Attributes:
        values: how many stand beside the latent's own.
    """

    values: int = 0

    def latents(self, latents: Tensor, labels: Tensor) -> Tensor:
        """What goes into the first layer. Shape: `(B, L)`, labels `(B,)` int64 → `(B, L + values)`."""
        return latents

    def features(self, x: Tensor, labels: Tensor, layer: int) -> Tensor:
        """What comes out of a layer, before its activation. Shape: `(B, C, …)`, labels `(B,)` → the same."""
        return x


class Conditioner(ABC):
    """A way of conditioning, before it knows of which generator."""

    @abstractmethod
    def layers(self, classes: int, widths: Sequence[int]) -> Conditioning:
        """Its layers for so many classes, and for a generator whose hidden layers have these channels."""


class Concatenation(Conditioner):
    """An embedding of the label beside the latent. Mirza and Osindero, "Conditional GAN", arXiv 1411.1784.

    Args:
        dim: values of the embedding.
    """

    def __init__(self, dim: int = 32) -> None:
        self.dim = _positive(dim)

    def layers(self, classes: int, widths: Sequence[int]) -> Conditioning:
        return _Beside(classes, self.dim)


class FiLM(Conditioner):
    """A scale and a shift of every hidden channel. Perez et al., "FiLM", arXiv 1709.07871.

    Each is an affine function of the label's embedding; they start near the identity.

    Args:
        dim: values of the embedding.
    """

    def __init__(self, dim: int = 32) -> None:
        self.dim = _positive(dim)

    def layers(self, classes: int, widths: Sequence[int]) -> Conditioning:
        return _Modulation(classes, self.dim, widths)


class _Beside(Conditioning):
    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.values = dim
        self.embedding = nn.Embedding(classes, dim)

    def latents(self, latents: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([latents, self.embedding(labels).to(latents.dtype)], 1)


class _Modulation(Conditioning):
    def __init__(self, classes: int, dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, dim)
        self.affine = nn.ModuleList(nn.Linear(dim, 2 * width) for width in widths)
        for affine in self.affine:
            assert isinstance(affine, nn.Linear)
            nn.init.xavier_uniform_(affine.weight, gain=0.1)
            nn.init.zeros_(affine.bias)

    def features(self, x: Tensor, labels: Tensor, layer: int) -> Tensor:
        both = self.affine[layer](self.embedding(labels)).to(x.dtype)
        scale, shift = both.unflatten(1, (2, -1, *[1] * (x.dim() - 2))).unbind(1)
        return x * (1 + scale) + shift


def _positive(dim: int) -> int:
    if dim < 1:
        raise ValueError(f"dim, the values of a label's embedding, must be positive, got {dim}")
    return dim
