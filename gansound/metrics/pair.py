"""What a measure of two waveforms asks of them before it starts."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.audio import SILENT_PEAK_DB, peak_db

Audio = NDArray[np.float32]

TOLERANCE_SECONDS = 0.025
"""Lengths may differ by this much when no hop is given: above every hop in use (12.5 ms at most)."""


class UndefinedMeasure(ValueError):
    """A measure has no value on this pair (silence, too short, nothing voiced): not a fault of the estimate.

    An evaluation writes the reason down and leaves the utterance out of that one mean.
    """


def one_waveform(audio: ArrayLike, name: str, sample_rate: int) -> Audio:
    """`audio` as float32 `(T,)`; ValueError unless it is one finite, non-empty channel."""
    array = np.asarray(audio)
    if sample_rate <= 0:
        raise ValueError(f"got sample_rate {sample_rate}, expected a positive number of hertz")
    if array.ndim != 1:
        raise ValueError(f"got {name} of shape {array.shape}, expected (T,): measure one channel at a time")
    if array.size == 0:
        raise ValueError(f"got an empty {name}, expected at least one sample")
    if array.dtype.kind != "f":
        raise ValueError(f"got {name} as {array.dtype}, expected floating point in [-1, 1]")
    if not np.isfinite(array).all():
        raise ValueError(f"got {name} with NaN or infinite samples, expected finite ones")
    return np.ascontiguousarray(array, dtype=np.float32)


def matched(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: int, *, tolerance_samples: int | None = None
) -> tuple[Audio, Audio]:
    """Both waveforms cut to the shorter.

    Shape: `(T1,)`, `(T2,)` -> `(min(T1, T2),)` twice.

    Raises:
        ValueError: lengths differ by more than `tolerance_samples` (give the hop; 25 ms without it), or one
            of them isn't a finite, non-empty `(T,)` array.
    """
    first = one_waveform(reference, "reference", sample_rate)
    second = one_waveform(estimate, "estimate", sample_rate)
    allowed = round(TOLERANCE_SECONDS * sample_rate) if tolerance_samples is None else tolerance_samples
    difference = abs(first.size - second.size)
    if difference > allowed:
        raise ValueError(
            f"got reference of {first.size} samples and estimate of {second.size}, {difference} apart, expected "
            f"{allowed} at most: cut or shift them so that they start together and last equally long"
        )
    length = min(first.size, second.size)
    return first[:length], second[:length]


def is_silent(audio: Audio) -> bool:
    """No sample is over -60 dBFS: dither, hum and room, which a measure that levels its input takes for speech."""
    return peak_db(audio) <= SILENT_PEAK_DB
