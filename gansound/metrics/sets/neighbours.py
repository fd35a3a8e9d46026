"""Fidelity and variety from nearest neighbours: precision, recall, density, coverage, and distances to the nearest.

Precision and recall: Kynkäänniemi et al. (arXiv 1904.06991); density and coverage: Naeem et al. (arXiv 2002.09797),
whose k of 5 is used for all four. A ball reaches from a point to its k-th nearest neighbour in its own set.

Recall asks whether a real sound lies in a ball of some generated one. Balls around noise are huge, so a few sounds far
off everything raise it: it is never read without coverage, whose balls are those of real sounds.

Precision has the same weakness on the other side. Where other kits or speakers lie as far from real sounds as a fault
does, no ball tells the two: noise with the levels of drums and words gets 0.82 to 0.89, other kits and speakers 0.79
and 0.89, and neither fewer neighbours, the smaller half of the balls, several balls instead of one, radii relative to
those nearby, soft balls nor whitening parts them on both corpora. Asking generated sounds' own neighbours does:
`told_apart`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gansound.metrics.sets.points import Points, checked, checked_pair, distances, distances_within


class PRDC(NamedTuple):
    """Shares, and density, whose value for generated sounds that are as real is about 1 and may be above."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(real: ArrayLike, fake: ArrayLike, k: int = 5) -> PRDC:
    """Of sets `(N, D)` and `(M, D)`; balls are closed.

    precision: share of fake points in some real ball. recall: share of real points in some fake ball.
    density: real balls that hold a fake point, per fake point, divided by k. coverage: share of real points whose
    ball holds a fake point.

    Raises:
        ValueError: k < 1, a set of k points or fewer, different dimensions, NaN or infinity.
    """
    if k < 1:
        raise ValueError(f"k: got {k}, expected at least 1 neighbour")
    first, second = checked_pair(real, fake, least=k + 1)
    return prdc_of_distances(distances_within(first), distances_within(second), distances(first, second), k)


def prdc_of_distances(within_real: Points, within_fake: Points, across: Points, k: int) -> PRDC:
    """The same from distances `(N, N)` and `(M, M)`, infinite on the diagonal, and real to fake `(N, M)`."""
    in_real_balls = across <= np.partition(within_real, k - 1, axis=1)[:, k - 1, None]
    in_fake_balls = across <= np.partition(within_fake, k - 1, axis=1)[:, k - 1]
    return PRDC(
        precision=float(in_real_balls.any(axis=0).mean()),
        recall=float(in_fake_balls.any(axis=1).mean()),
        density=float(in_real_balls.sum() / (k * across.shape[1])),
        coverage=float(in_real_balls.any(axis=1).mean()),
    )


def told_apart(within_a: Points, within_b: Points, across: Points) -> float:
    """How often the nearest other sound is one of the same set: leave-one-out accuracy of the nearest neighbour.

    Of two sets of one distribution it is a half, of sets that a listener always tells apart 1, of copies less than a
    half (Lopez-Paz and Oquab, arXiv 1610.06545; Xu et al., arXiv 1806.07755). It hears what the balls of precision
    don't: one real sound far off has a ball that holds all of a strange set. Of the larger set as many count as the
    smaller has, evenly spread, since a guess would name the larger.

    Args:
        within_a: distances `(N, N)`, infinite on the diagonal.
        within_b: `(M, M)`.
        across: `(N, M)`.
    """
    count = min(across.shape)
    a, b = (np.arange(count) * size // count for size in across.shape)
    within_a, within_b, across = within_a[a[:, None], a], within_b[b[:, None], b], across[a[:, None], b]
    own_a = within_a.min(axis=1) < across.min(axis=1)
    own_b = within_b.min(axis=1) < across.min(axis=0)
    return float((own_a.mean() + own_b.mean()) / 2)


def nearest_distances(a: ArrayLike, b: ArrayLike | None = None) -> Points:
    """Distance of each point of `a` `(N, D)` to the nearest of `b`, or of its own set but itself: `(N,)`.

    Their mean over generated sounds is the |D|train and the |D|self of WaveGAN (arXiv 1802.04208, section 5.2).

    Raises:
        ValueError: too few points, different dimensions, NaN or infinity.
    """
    if b is None:
        return distances_within(checked(a, "set")).min(axis=1)
    return distances(*checked_pair(a, b, least=1)).min(axis=1)
