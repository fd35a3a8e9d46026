"""The few figures that training looks at every validation, and what it calls a collapse."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from gansound.metrics.sets.backbone import LogMelBackbone
from gansound.metrics.sets.distances import kernel_distance
from gansound.metrics.sets.neighbours import precision_recall_density_coverage
from gansound.metrics.sets.points import Points, distances_within

_ALIKE, _DOUBLES = 0.5, 0.4


def quick_figures(real: ArrayLike, fake: ArrayLike, sample_rate: int) -> dict[str, float]:
    """Kernel distance, coverage, and how various the generated clips are, over the log-mel backbone.

    Args:
        real: `(N, T)` float32.
        fake: `(M, T)` float32.
        sample_rate: of both, in Hz.

    Returns:
        `kernel_distance`, `coverage`; `diversity`, the mean distance between two generated clips relative to that
        between two real ones (about 1 when all is well); `spacing`, the same of the median distance to the nearest
        other clip, which falls when there are many copies of several sounds.

    Raises:
        ValueError: fewer than 6 clips, another length, NaN or infinity.
    """
    backbone = LogMelBackbone(sample_rate)
    first, second = backbone.embed(real), backbone.embed(fake)
    here, there = _mean_and_nearest(first), _mean_and_nearest(second)
    return {
        "kernel_distance": kernel_distance(first, second),
        "coverage": precision_recall_density_coverage(first, second).coverage,
        "diversity": _ratio(there[0], here[0]),
        "spacing": _ratio(there[1], here[1]),
    }


def is_collapsed(figures: Mapping[str, float]) -> str | None:
    """Of `quick_figures`: what to tell the user where the generated clips are too alike, else None.

    A generator that hasn't learned yet is alike in the same way: what counts is that it stays or comes back.
    """
    diversity, spacing = figures["diversity"], figures["spacing"]
    if diversity < _ALIKE:
        return (
            f"the generated sounds are all alike: they differ by {diversity:.0%} of what real ones differ by "
            f"(under {_ALIKE:.0%})"
        )
    if spacing < _DOUBLES:
        return (
            f"the generated sounds are copies of a few: the nearest other one is {spacing:.0%} as far off as among "
            f"real ones (under {_DOUBLES:.0%})"
        )
    return None


def _mean_and_nearest(points: Points) -> tuple[float, float]:
    found = distances_within(points)
    mean = float(found[np.isfinite(found)].mean())
    return mean, float(np.median(found.min(axis=1)))


def _ratio(value: float, to: float) -> float:
    return value / to if to > 0 else 1.0 if value == 0 else np.inf
