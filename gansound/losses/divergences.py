"""f-divergences between real and fake, estimated from below by the discriminators.

Nowozin, Cseke and Tomioka, "f-GAN", arXiv 1606.00709. For a convex f with f(1) = 0 and its conjugate f*, any function T
gives D_f(P || Q) >= E_P[T] − E_Q[f*(T)]; equality at T = f'(p / q). An output activation g maps a logit v into the
domain of f*. Each divergence states g(v) and f*(g(v)) of the paper's tables 2 and 6, the second composed by hand: so no
logarithm is taken of what has been rounded to 0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.losses.adversarial import AdversarialLoss
from gansound.precision import full_precision


class Divergence(ABC):
    """An f-divergence by what its bound makes of logits.

    Attributes:
        threshold: the logit v of an item that is equally probable under both: g(v) = f'(1).
    """

    threshold: float = 0.0

    @abstractmethod
    def activation(self, logits: Tensor) -> Tensor:
        """g(v), the estimate of f'(p / q)."""

    @abstractmethod
    def conjugate(self, logits: Tensor) -> Tensor:
        """f*(g(v))."""


class KullbackLeibler(Divergence):
    """KL(P || Q): f(u) = u log u. Covers every mode of the real, at the price of what lies between."""

    threshold = 1.0

    def activation(self, logits: Tensor) -> Tensor:
        return logits

    def conjugate(self, logits: Tensor) -> Tensor:
        return torch.exp(logits - 1)


class ReverseKullbackLeibler(Divergence):
    """KL(Q || P): f(u) = −log u. Stays on modes of the real, at the price of those it leaves."""

    def activation(self, logits: Tensor) -> Tensor:
        return -torch.exp(-logits)

    def conjugate(self, logits: Tensor) -> Tensor:
        return logits - 1


class PearsonChiSquared(Divergence):
    """∫ (p − q)² / q: f(u) = (u − 1)²; the paper's table 1 has p below, which its own f isn't."""

    def activation(self, logits: Tensor) -> Tensor:
        return logits

    def conjugate(self, logits: Tensor) -> Tensor:
        return logits.square() / 4 + logits


class SquaredHellinger(Divergence):
    """∫ (√p − √q)²: f(u) = (√u − 1)²; between 0 and 2."""

    def activation(self, logits: Tensor) -> Tensor:
        return -torch.expm1(-logits)

    def conjugate(self, logits: Tensor) -> Tensor:
        return torch.expm1(logits)


class JensenShannon(Divergence):
    """The paper's (table 1): twice the usual, KL(P || M) + KL(Q || M) with M = (P + Q) / 2; 0 to 2 log 2."""

    def activation(self, logits: Tensor) -> Tensor:
        return math.log(2) - F.softplus(-logits)

    def conjugate(self, logits: Tensor) -> Tensor:
        return F.softplus(logits) - math.log(2)


class OriginalGAN(Divergence):
    """Goodfellow's game: `JensenShannon` − log 4."""

    def activation(self, logits: Tensor) -> Tensor:
        return -F.softplus(-logits)

    def conjugate(self, logits: Tensor) -> Tensor:
        return F.softplus(logits)


class FDivergence(AdversarialLoss):
    """The discriminators raise the bound on a divergence, the generator lowers it.

    Nowozin et al., arXiv 1606.00709, eq. 6; averaged over each sub-discriminator's logits and summed.

    Args:
        divergence: which.
        heuristic: the generator raises E[g(v)] instead of lowering the bound (section 3.2, Goodfellow's trick): slope
            where it loses, but it is then no longer this divergence that it descends.
    """

    def __init__(self, divergence: Divergence, heuristic: bool = False) -> None:
        self.divergence = divergence
        self.heuristic = heuristic
        self.threshold = divergence.threshold

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ mean(f*(g(fake))) − mean(g(real)): minus the bound."""
        terms = [
            self.divergence.conjugate(full_precision(fake)).mean()
            - self.divergence.activation(full_precision(real)).mean()
            for real, fake in zip(real_logits, fake_logits, strict=True)
        ]
        return torch.stack(terms).sum()

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ −mean(f*(g(fake))), or Σ −mean(g(fake)) by the heuristic."""
        lowered = self.divergence.activation if self.heuristic else self.divergence.conjugate
        return torch.stack([-lowered(full_precision(fake)).mean() for fake in fake_logits]).sum()
