"""Level that wanders against the recording's: pumping, fading, a gain that drifts.

Up to 4 kHz: a sibilant that is duller than the recording's is no level that wanders.
"""

import numpy as np
from numpy.typing import ArrayLike

from gansound.metrics.pair import UndefinedMeasure, is_silent, matched
from gansound.metrics.pulses import envelope

BLOCK_SECONDS = 0.4
BAND_HZ = (0.0, 4000.0)
LOUD_DB = 20.0
_TINY = 1e-12


def level_drift_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Range of the estimate's level over the recording's in blocks of 0.4 s, half overlapping, from least to most.

    The level is that below 4 kHz. Only blocks in which the recording is within 20 dB of its loudest count. A gain
    everywhere costs nothing.

    Shape: `(T,)`, `(T,)` -> scalar, 0 for a perfect copy.

    Raises:
        UndefinedMeasure: the recording is silent, or has less than two such blocks.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("level drift: the recording is silent")
    half = round(BLOCK_SECONDS * sample_rate / 2)
    levels = []
    for audio in (first, second):
        power = np.square(envelope(audio, sample_rate, BAND_HZ)[: audio.size // half * half])
        blocks = power.reshape(-1, half).mean(axis=1)
        levels.append(10.0 * np.log10((blocks[1:] + blocks[:-1]) / 4 + _TINY))
    loud = levels[0] > levels[0].max(initial=-np.inf) - LOUD_DB
    if loud.sum() < 2:
        raise UndefinedMeasure(
            f"level drift: got {first.size / sample_rate:.2f} s, expected 0.6 s of sound or more"
        )
    over = (levels[1] - levels[0])[loud]
    return float(over.max() - over.min())
