"""Sets of points `(N, D)`, and how far apart they lie."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.counts import counted

Points = NDArray[np.float64]


def checked(points: ArrayLike, name: str, *, least: int = 2) -> Points:
    """Points as float64.

    Raises:
        ValueError: another shape than `(N, D)`, fewer than `least`, NaN or infinity.
    """
    found = np.asarray(points, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] == 0:
        raise ValueError(f"{name}: got shape {found.shape}, expected points (N, D)")
    if len(found) < least:
        raise ValueError(f"{name}: got {counted(len(found), 'point')}, expected at least {least}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: holds NaN or infinity, expected finite numbers")
    return found


def checked_pair(a: ArrayLike, b: ArrayLike, *, least: int = 2) -> tuple[Points, Points]:
    """Two sets of points in one space; ValueError where they aren't."""
    first, second = checked(a, "first set", least=least), checked(b, "second set", least=least)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"got points of {first.shape[1]} and of {second.shape[1]} dimensions, expected one backbone's"
        )
    return first, second


def distances(a: Points, b: Points) -> Points:
    """Euclidean distances `(N, M)` of points `(N, D)` and `(M, D)`.

    By the product of matrices, about the mean of `b`: a distance under 1e-7 of the sets' extent is rounding.
    """
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * (a @ b.T)
    return np.sqrt(np.maximum(squares, 0.0))


def distances_within(a: Points) -> Points:
    """Distances `(N, N)` of a set's points to each other; a point is infinitely far from itself."""
    found = distances(a, a)
    np.fill_diagonal(found, np.inf)
    return found
