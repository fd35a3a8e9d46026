"""What the discriminators' logits are asked to be: hinge, least squares, minimax, Wasserstein and their kin.

Every loss takes the logits of each sub-discriminator, of any shape, averages each one's and sums the
averages; in float32 also where the logits are 16-bit. f-divergences are in `gansound.losses.divergences`, the
maximum mean discrepancy in `gansound.losses.mmd`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.precision import full_precision


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


def clipped_hinge_generator(fake_logits: Sequence[Tensor]) -> Tensor:
    """Σ mean(max(0, 1 − fake)). SoundStream, arXiv 2107.03312; Vocos, arXiv 2306.00814."""
    return _total(F.relu(1 - full_precision(fake)).mean() for fake in fake_logits)


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
    """A pair of losses, one for each player: what a recipe names.

    Attributes:
        needs_real: the generator's loss compares with the logits of the real batch.
        needs_lipschitz: it means something only for critics whose slope is bounded: by a penalty, by weight clipping
            or by spectral normalisation.
        over_batch: it compares items with each other, so that a batch worked through in parts, or dealt to several
            processes, isn't the same loss.
        falls: the generator's loss falls wherever a logit rises, whatever the logit is.
        threshold: the logit above which a discriminator takes an item for real; None for critics, which only rank.
    """

    needs_real: ClassVar[bool] = False
    needs_lipschitz: ClassVar[bool] = False
    over_batch: ClassVar[bool] = False
    falls: ClassVar[bool] = False
    threshold: float | None = 0.0

    @abstractmethod
    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Loss of the discriminators, a scalar, from the logits of each sub-discriminator."""

    @abstractmethod
    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Loss of the generator, a scalar, from the logits of each sub-discriminator.

        `real_logits` count as constants; losses with `needs_real` raise ValueError without them, the others ignore
        them.
        """


class Hinge(AdversarialLoss):
    """MelGAN's: real logits above 1 and fake ones below −1 cost nothing; the generator's loss is linear.

    Args:
        clipped: the generator's loss is a hinge too, as in SoundStream and Vocos: fake logits above 1 cost nothing.
    """

    falls = True

    def __init__(self, clipped: bool = False) -> None:
        self.clipped = clipped

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """See `hinge_discriminator`."""
        return hinge_discriminator(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """See `hinge_generator` and `clipped_hinge_generator`."""
        return clipped_hinge_generator(fake_logits) if self.clipped else hinge_generator(fake_logits)


class LeastSquares(AdversarialLoss):
    """HiFi-GAN's: squared distance of the logits to 1 for real and 0 for fake."""

    threshold = 0.5

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """See `least_squares_discriminator`."""
        return least_squares_discriminator(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """See `least_squares_generator`."""
        return least_squares_generator(fake_logits)


class SoftLeastSquares(AdversarialLoss):
    """Least squares without the rise of the generator's loss above 1, which a slicing head needs.

    Shibuya et al., "BigVSAN", arXiv 2309.02836, section 3.2: softplus(1 − logit)² where least squares has (1 − logit)².
    """

    falls = True
    threshold = 0.5

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ mean(softplus(1 − real)²) + mean(softplus(fake)²)."""
        return _total(
            F.softplus(1 - full_precision(real)).square().mean()
            + F.softplus(full_precision(fake)).square().mean()
            for real, fake in zip(real_logits, fake_logits, strict=True)
        )

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ mean(softplus(1 − fake)²)."""
        return _total(F.softplus(1 - full_precision(fake)).square().mean() for fake in fake_logits)


class Minimax(AdversarialLoss):
    """The original zero-sum game: the generator descends what the discriminator ascends, and starves where it loses.

    Goodfellow et al., arXiv 1406.2661, eq. 1, with D = sigmoid(logit). Against the best discriminator the value is
    2·JS − log 4.
    """

    falls = True

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ −mean(log D(real)) − mean(log(1 − D(fake)))."""
        return _logistic_discriminator(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ mean(log(1 − D(fake)))."""
        return _total(-F.softplus(full_precision(fake)).mean() for fake in fake_logits)


class NonSaturating(AdversarialLoss):
    """Logistic, with a generator that raises D(fake) instead of lowering 1 − D(fake): slope where it loses.

    Goodfellow et al., arXiv 1406.2661, section 3; StyleGAN's, with R1.
    """

    falls = True

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ −mean(log D(real)) − mean(log(1 − D(fake)))."""
        return _logistic_discriminator(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ −mean(log D(fake))."""
        return _total(F.softplus(-full_precision(fake)).mean() for fake in fake_logits)


class Wasserstein(AdversarialLoss):
    """Difference of the mean scores: the earth mover's distance, for critics of slope 1.

    Arjovsky, Chintala and Bottou, "Wasserstein GAN", arXiv 1701.07875, eq. 2. WaveGAN's, with a gradient penalty.
    """

    falls = True
    needs_lipschitz = True
    threshold = None

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ mean(fake) − mean(real)."""
        return _total(
            full_precision(fake).mean() - full_precision(real).mean()
            for real, fake in zip(real_logits, fake_logits, strict=True)
        )

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ −mean(fake)."""
        return _total(-full_precision(fake).mean() for fake in fake_logits)


class Relativistic(AdversarialLoss):
    """Logistic in the difference between a real and a fake item of the same place in the batch.

    A generator that drops a mode leaves the real items there above its own, so it keeps being pulled. Jolicoeur-
    Martineau, arXiv 1807.00734 (RpGAN); with R1 and R2 it is R3GAN, Huang et al., arXiv 2501.05441.
    """

    needs_real = True
    threshold = None

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ mean(softplus(fake − real))."""
        return _total(
            F.softplus(full_precision(fake) - full_precision(real)).mean()
            for real, fake in zip(real_logits, fake_logits, strict=True)
        )

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ mean(softplus(real − fake))."""
        return _total(
            F.softplus(full_precision(real).detach() - full_precision(fake)).mean()
            for real, fake in zip(given(real_logits, self), fake_logits, strict=True)
        )


def given(real_logits: Sequence[Tensor] | None, loss: AdversarialLoss) -> Sequence[Tensor]:
    """The logits of the real batch; ValueError where a loss that needs them wasn't given any."""
    if real_logits is None:
        raise ValueError(f"the generator's {type(loss).__name__} loss needs real_logits, got None")
    return real_logits


def _logistic_discriminator(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
    return _total(
        F.softplus(-full_precision(real)).mean() + F.softplus(full_precision(fake)).mean()
        for real, fake in zip(real_logits, fake_logits, strict=True)
    )


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
