"""What the discriminators' logits are asked to be: hinge and least squares.

Every function takes the logits of each sub-discriminator, of any shape, averages each one's and sums the
averages; in float32 also where the logits are 16-bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.losses.precision import full_precision


def hinge_discriminator(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
    """Σ mean(max(0, 1 − real)) + mean(max(0, 1 + fake)).

    Lim and Ye, "Geometric GAN", arXiv 1705.02894; as MelGAN uses it, arXiv 1910.06711.
    """
    return _total(
        F.relu(1 - full_precision(real)).mean() + F.relu(1 + full_precision(fake)).mean()
        for real, fake in zip(real_logits, fake_logits, strict=True)
    )


def hinge_generator(fake_logits: Sequence[Tensor]) -> Tensor:
    """Σ −mean(fake). Geometric GAN, arXiv 1705.02894; MelGAN, arXiv 1910.06711."""
    return _total(-full_precision(fake).mean() for fake in fake_logits)


def least_squares_discriminator(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
    """Σ mean((real − 1)²) + mean(fake²).

    Mao et al., "Least Squares GAN", arXiv 1611.04076, with targets 1 and 0; HiFi-GAN, arXiv 2010.05646.
    """
    return _total(
        (full_precision(real) - 1).square().mean() + full_precision(fake).square().mean()
        for real, fake in zip(real_logits, fake_logits, strict=True)
    )


def least_squares_generator(fake_logits: Sequence[Tensor]) -> Tensor:
    """Σ mean((fake − 1)²). HiFi-GAN, arXiv 2010.05646."""
    return _total((full_precision(fake) - 1).square().mean() for fake in fake_logits)


class AdversarialLoss(ABC):
    """A pair of losses, one for each player: what a recipe names."""

    @abstractmethod
    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Loss of the discriminators, a scalar, from the logits of each sub-discriminator."""

    @abstractmethod
    def generator(self, fake_logits: Sequence[Tensor]) -> Tensor:
        """Loss of the generator, a scalar, from the logits of each sub-discriminator."""


class Hinge(AdversarialLoss):
    """MelGAN's: real logits above 1 and fake ones below −1 cost nothing; the generator's loss is linear."""

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """See `hinge_discriminator`."""
        return hinge_discriminator(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor]) -> Tensor:
        """See `hinge_generator`."""
        return hinge_generator(fake_logits)


class LeastSquares(AdversarialLoss):
    """HiFi-GAN's: squared distance of the logits to 1 for real and 0 for fake."""

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """See `least_squares_discriminator`."""
        return least_squares_discriminator(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor]) -> Tensor:
        """See `least_squares_generator`."""
        return least_squares_generator(fake_logits)


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
