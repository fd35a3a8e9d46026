"""Onsets smeared over what comes before them: soft plosives, pre-echo."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gansound.metrics.pair import Audio, UndefinedMeasure, is_silent, matched

STEP_SECONDS = 0.002
AFTER_SECONDS, BEFORE_SECONDS = 0.010, (0.016, 0.004)
RISE_DB, MASKED_DB, LOUD_DB = 20.0, 30.0, 24.0
APART_SECONDS, BESIDE_SECONDS = 0.050, 0.004
_TINY = 1e-10


def onset_smear_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """How much less an onset stands out of the 4 to 16 ms before it than in the recording; median over the onsets.

    An onset is where the recording's 10 ms from there are 20 dB or more above the 4 to 16 ms before, and within 24 dB
    of the loudest 10 ms; the steepest within 50 ms. The estimate's is the steepest within 4 ms: one that comes earlier
    or later isn't smeared. What lies 30 dB below the onset or more counts as 30 dB: the onset masks it. High-passed by
    a first difference, so that hum doesn't hide plosives.

    Shape: `(T,)`, `(T,)` -> scalar; 0 for a perfect copy.

    Raises:
        UndefinedMeasure: the recording is silent or has no onset.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("smeared onsets: the recording is silent")
    rise, after = _rises_db(first, sample_rate)
    made, _ = _rises_db(second, sample_rate)
    places = _onsets(rise, after)
    if not places:
        raise UndefinedMeasure("smeared onsets: the recording has no onset that rises by 20 dB")
    beside = round(BESIDE_SECONDS / STEP_SECONDS)
    steepest = sliding_window_view(np.pad(made, beside, mode="edge"), 2 * beside + 1).max(axis=1)[places]
    lost = np.minimum(rise[places], MASKED_DB) - np.minimum(steepest, MASKED_DB)
    return float(np.median(lost))


def _onsets(rise: NDArray[np.float64], after: NDArray[np.float64]) -> list[int]:
    """Places of the steepest rises, none within 50 ms of a steeper one."""
    steep = np.flatnonzero((rise >= RISE_DB) & (after > after.max(initial=-np.inf) - LOUD_DB))
    apart = round(APART_SECONDS / STEP_SECONDS)
    places: list[int] = []
    for place in steep[np.argsort(-rise[steep], kind="stable")]:
        if all(abs(place - other) >= apart for other in places):
            places.append(int(place))
    return sorted(places)


def _rises_db(audio: Audio, sample_rate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Level of the 10 ms from each place over that of the 4 to 16 ms before, and that level, every 2 ms."""
    step = round(STEP_SECONDS * sample_rate)
    power = np.square(np.diff(audio.astype(np.float64)))
    blocks = power[: power.size // step * step].reshape(-1, step).mean(axis=1)
    after, first, last = (round(seconds / STEP_SECONDS) for seconds in (AFTER_SECONDS, *BEFORE_SECONDS))
    total = np.concatenate([[0.0], np.cumsum(blocks)])
    places = np.arange(first, blocks.size - after)
    if places.size == 0:
        return np.zeros(0), np.zeros(0)
    following = (total[places + after] - total[places]) / after
    before = (total[places - last] - total[places - first]) / (first - last)
    level = 10.0 * np.log10(following + _TINY)
    return level - 10.0 * np.log10(before + _TINY), level
