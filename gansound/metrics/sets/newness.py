"""Whether generated sounds are new: how far each is from what was trained on.

Authenticity is that of Alaa et al. (arXiv 2102.08921, section 3.3): a sound is authentic where its nearest training
sound is nearer to another training sound than to it. About half of honest draws are; copies never are.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gansound.metrics.sets.points import Points, distances

_BLOCK = 256


class Newness(NamedTuple):
    """For each sound: the number of its nearest training sound, how far it is, and whether it is authentic."""

    nearest: NDArray[np.intp]
    distances: Points
    authentic: NDArray[np.bool_]


def newness(points: Points, train: Points, *, same: bool = False) -> Newness:
    """Of points `(N, D)` beside training points `(M, D)`; with `same` they are one set, and each is left out in turn.

    Worked through in blocks, so that a training set of any size fits in memory.
    """
    nearest, found = _nearest(points, train, np.arange(len(points)) if same else None)
    # Only training points that are somebody's nearest need their own nearest; the sound itself isn't one of those.
    _, own = _nearest(train[nearest], train, nearest, np.arange(len(points)) if same else None)
    return Newness(nearest, found, found > own)


def _nearest(
    points: Points, train: Points, *excluded: NDArray[np.intp] | None
) -> tuple[NDArray[np.intp], Points]:
    nearest = np.empty(len(points), dtype=np.intp)
    least = np.empty(len(points))
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = distances(points[rows], train)
        for numbers in excluded:
            if numbers is not None:
                block[np.arange(len(block)), numbers[rows]] = np.inf
        nearest[rows] = block.argmin(axis=1)
        least[rows] = block.min(axis=1)
    return nearest, least
