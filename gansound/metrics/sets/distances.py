"""Distances between two distributions, from points drawn of each: Fréchet's and the kernel distance.

Fréchet distance of the Gaussians fitted to each set: Heusel et al. (FID, arXiv 1706.08500, eq. 6), with Kilgour et al.
(FAD, arXiv 1812.08466) for audio. Its estimate is too high by an amount that grows with D / N, so it is read beside
that of two real sets of the same sizes. Kernel distance: Bińkowski et al. (KID, arXiv 1801.01401, section 3), the
unbiased estimate of the squared maximum mean discrepancy, which sets of any size may be compared by.
"""

import numpy as np
from numpy.typing import ArrayLike

from gansound.metrics.sets.points import Points, checked_pair


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """‖µa − µb‖² + tr Σa + tr Σb − 2 tr (Σa Σb)^½, of sets `(N, D)` and `(M, D)` with sample covariances (N − 1).

    With Σa = AᵀA for the centred and scaled points A, and likewise B, the last trace is the sum of the singular values
    of A Bᵀ, or of Ra Rbᵀ by A = Qa Ra: no covariance is formed and no root of a matrix taken, so it is as exact for
    N < D, where the covariances are singular, as elsewhere, and never complex.

    Raises:
        ValueError: fewer than 2 points, different dimensions, NaN or infinity.
    """
    first, second = checked_pair(a, b)
    means = first.mean(axis=0), second.mean(axis=0)
    halves = [_half(first - means[0]), _half(second - means[1])]
    variance = sum(float(np.square(half).sum()) for half in halves)
    shared = float(np.linalg.svd(halves[0] @ halves[1].T, compute_uv=False).sum())
    # Rounding alone can put the distance of a set from itself below zero.
    return max(0.0, float(np.square(means[0] - means[1]).sum()) + variance - 2.0 * shared)


def _half(centred: Points) -> Points:
    """A root of the covariance, of no more rows than columns: its product with itself, transposed, is that."""
    scaled = centred / np.sqrt(len(centred) - 1)
    if len(scaled) <= scaled.shape[1]:
        return scaled
    return np.asarray(np.linalg.qr(scaled, mode="r"), dtype=np.float64)


def kernel_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Squared maximum mean discrepancy of sets `(N, D)` and `(M, D)`, kernel (x·y / D + 1)³; unbiased.

    Of two sets of one distribution it is 0 in the mean, so as often negative as not.

    Raises:
        ValueError: fewer than 2 points, different dimensions, NaN or infinity.
    """
    first, second = checked_pair(a, b)
    return unbiased(kernel(first, first), kernel(second, second), kernel(first, second))


def unbiased(within_a: Points, within_b: Points, across: Points) -> float:
    """The estimate from kernels `(N, N)`, `(M, M)` and `(N, M)`; those of points with themselves don't count."""
    return float(_off_diagonal_mean(within_a) + _off_diagonal_mean(within_b) - 2.0 * across.mean())


def kernel(a: Points, b: Points) -> Points:
    """(x·y / D + 1)³, `(N, M)`."""
    products = a @ b.T
    products /= a.shape[1]
    products += 1.0
    return products * products * products


def _off_diagonal_mean(matrix: Points) -> float:
    count = len(matrix)
    return float(matrix.sum() - np.trace(matrix)) / (count * (count - 1))
