"""Means with bootstrap intervals, alone and as paired differences.

Percentile bootstrap over utterances (Efron & Tibshirani, 1993, ch. 13): resample utterances with replacement, take
the statistic each time, cut 2.5 % from each side. Seeded, so the same figures give the same interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_BLOCK = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval over `count` utterances. With one utterance the interval is a point."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def clear_of_zero(self) -> bool:
        """Zero lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0


def mean_interval(
    values: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of `values` `(N,)` and its bootstrap interval.

    With `weights` it is sum(w v) / sum(w), each resample with its own weights: errors per word over a corpus is the
    rate of each utterance weighted by its words.

    Raises:
        ValueError: no values, non-finite ones, or weights that don't fit or aren't positive.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"got values of shape {data.shape}, expected (N,) with at least one value")
    share = np.ones_like(data) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != data.shape:
        raise ValueError(f"got {share.size} weights for {data.size} values, expected one each")
    if not np.isfinite(data).all():
        raise ValueError(
            "got NaN or infinite values, expected finite ones: leave undefined measures out first"
        )
    if not (np.isfinite(share).all() and (share > 0).all()):
        raise ValueError("got weights that are zero, negative or not finite, expected positive ones")
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // data.size)
    means = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picks = generator.integers(0, data.size, (rows, data.size))
        means.append((data * share)[picks].sum(axis=1) / share[picks].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float((data * share).sum() / share.sum()), float(low), float(high), int(data.size))


def paired_difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Interval:
    """Mean of `first - second`, utterance by utterance, and its interval; pairs where one is None are left out.

    Raises:
        ValueError: the sequences aren't of one length, or no pair is left.
    """
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} and {len(second)} values, expected pairs of the same utterances")
    kept = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a is not None and b is not None]
    differences = [float(first[i]) - float(second[i]) for i in kept]  # type: ignore[arg-type]
    kept_weights = None if weights is None else [weights[i] for i in kept]
    return mean_interval(differences, weights=kept_weights, seed=seed)
