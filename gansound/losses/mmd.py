"""Maximum mean discrepancy: do real and fake have the same mean in a kernel's feature space?

Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, eq. 3; as a generator's loss Dziugaite et al.,
arXiv 1505.03906; on critics that learn Li et al., "MMD GAN", arXiv 1705.08584, and Bińkowski et al.,
arXiv 1801.01401.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gansound.losses.adversarial import AdversarialLoss, given
from gansound.precision import full_precision, no_autocast


class Kernel(ABC):
    """A characteristic kernel of the distance between two points."""

    @abstractmethod
    def __call__(self, squared_distance: Tensor) -> Tensor:
        """Kernel values, of the same shape."""


class RBFMixture(Kernel):
    """Σ exp(−d² / 2σ²). Li et al., arXiv 1705.08584.

    Args:
        bandwidths: the σ.
    """

    def __init__(self, bandwidths: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)) -> None:
        self.bandwidths = _positive("bandwidths", bandwidths)

    def __call__(self, squared_distance: Tensor) -> Tensor:
        return torch.stack([torch.exp(squared_distance / (-2 * s * s)) for s in self.bandwidths]).sum(0)


class RationalQuadratic(Kernel):
    """Σ (1 + d² / 2α)^−α: heavier tails, so slope from afar. Bińkowski et al., arXiv 1801.01401, eq. 4.

    Args:
        alphas: the α.
    """

    def __init__(self, alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0)) -> None:
        self.alphas = _positive("alphas", alphas)

    def __call__(self, squared_distance: Tensor) -> Tensor:
        return torch.stack([(1 + squared_distance / (2 * a)) ** -a for a in self.alphas]).sum(0)


class MMD(AdversarialLoss):
    """Squared maximum mean discrepancy between the critics' outputs of real and fake, unbiased.

    The logits of an item, of whatever shape, are one vector. The critics raise it, the generator lowers it. It
    compares all items of a batch with each other: worked through in parts or dealt to several processes, it is the
    mean of the parts' discrepancies, still unbiased but noisier, and not the same numbers as whole.

    Args:
        kernel: `RBFMixture` with MMD GAN's bandwidths by default.
    """

    needs_real = True
    needs_lipschitz = True  # assumption 2 of arXiv 1705.08584, there met by clipping
    over_batch = True
    threshold = None

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel or RBFMixture()

    def discriminator(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        """Σ −MMD²."""
        return -self._total(real_logits, fake_logits)

    def generator(self, fake_logits: Sequence[Tensor], real_logits: Sequence[Tensor] | None = None) -> Tensor:
        """Σ MMD²."""
        return self._total([real.detach() for real in given(real_logits, self)], fake_logits)

    def _total(self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
        pairs = zip(real_logits, fake_logits, strict=True)
        return torch.stack([squared_mmd(real, fake, self.kernel) for real, fake in pairs]).sum()


def squared_mmd(real: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    """The unbiased estimate of MMD², which may be negative; `(N, …)` and `(M, …)` → scalar.

    Raises:
        ValueError: fewer than two items on a side: a kernel is averaged over pairs of different items.
    """
    if min(len(real), len(fake)) < 2:
        raise ValueError(
            f"MMD needs at least 2 real and 2 fake items in a (micro-)batch, got {len(real)} and {len(fake)}"
        )
    with no_autocast(fake):
        x, y = full_precision(real).flatten(1), full_precision(fake).flatten(1)
        cross = kernel(_squared_distances(x, y)).mean()
        return _mean_of_pairs(x, kernel) + _mean_of_pairs(y, kernel) - 2 * cross


def _mean_of_pairs(x: Tensor, kernel: Kernel) -> Tensor:
    n = len(x)
    values = kernel(_squared_distances(x, x))
    return (values.sum() - values.diagonal().sum()) / (n * (n - 1))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    # Not |x|² + |y|² − 2xy, which loses the small distances by cancellation.
    return (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(-1)


def _positive(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if not values or min(values) <= 0:
        raise ValueError(f"{name} must be one or more numbers above 0, got {tuple(values)}")
    return tuple(values)
