"""Inception score: sure of each sound, unsure of the next (Salimans et al., arXiv 1606.03498, section 4)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gansound.metrics.sets.points import checked


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits, from 1 to the number of classes."""

    mean: float
    deviation: float


def inception_score(probabilities: ArrayLike, splits: int = 10) -> InceptionScore:
    """Exp of the mean KL divergence of each row of `(N, classes)` from the mean row, over `splits` equal parts.

    Rows are taken in their order, as everywhere; the last N mod `splits` rows are left out. It depends on the number
    of rows in a split, so two scores are compared at equal N and splits.

    Raises:
        ValueError: rows that aren't probabilities, or fewer rows than splits.
    """
    rows = checked(probabilities, "probabilities", least=1)
    if rows.min() < 0 or not np.allclose(rows.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError("probabilities: expected rows of numbers from 0 to 1 that add up to 1")
    if not 1 <= splits <= len(rows):
        raise ValueError(
            f"splits: got {splits} for {len(rows)} rows, expected 1 to as many as there are rows"
        )
    size = len(rows) // splits
    parts = rows[: size * splits].reshape(splits, size, -1)
    # 0 log 0 is 0; where the mean is 0 every row is.
    logs = np.log(np.maximum(parts, 1e-300)) - np.log(np.maximum(parts.mean(axis=1, keepdims=True), 1e-300))
    scores = np.exp((parts * logs).sum(axis=2).mean(axis=1))
    return InceptionScore(float(scores.mean()), float(scores.std()))
