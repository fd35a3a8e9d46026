"""A steady tone in the pauses that the recording doesn't have: whistles, hum, lines at the edge of a filter bank."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gansound.metrics.pair import Audio, UndefinedMeasure, is_silent, matched

FRAME_SECONDS = 0.093
QUIET_SHARE = 0.2
LEAST_FRAMES = 4
AUDIBLE_DBFS = -80.0
LOWEST_HZ = 60.0
_AROUND_BINS = 12
_TINY = 1e-16


def pause_tone_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """How far the plainest line of the estimate's pauses stands above its surroundings, beyond the recording's there.

    Pauses are the fifth of the frames (Hann, 93 ms, a quarter apart) in which the recording is faintest. A line is a
    bin of their mean power spectrum over the median of the 12 bins on each side; the recording's is the highest within
    two bins. Lines under -80 dBFS or 60 Hz don't count.

    Shape: `(T,)`, `(T,)` -> scalar, 0 at least.

    Raises:
        UndefinedMeasure: the recording is silent or shorter than half a second.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("tone in pauses: the recording is silent")
    size = 2 * round(FRAME_SECONDS * sample_rate / 2)
    real, fake = (_power(audio, size) for audio in (first, second))
    count = max(LEAST_FRAMES, round(QUIET_SHARE * len(real)))
    if len(real) < 3 * LEAST_FRAMES:
        raise UndefinedMeasure(
            f"tone in pauses: got {first.size / sample_rate:.2f} s, expected half a second or more"
        )
    quiet = np.argsort(real.sum(axis=1), kind="stable")[:count]
    known, made = (power[quiet].mean(axis=0) for power in (real, fake))
    stands = _heights_db(made)
    known_stands = sliding_window_view(np.pad(_heights_db(known), 2, mode="edge"), 5).max(axis=1)
    # A tone of amplitude a puts a² / 4 · (window's sum)² into its bin, and a² / 2 is its power.
    window = np.hanning(size + 1)[:-1]
    level_dbfs = 10.0 * np.log10(2.0 * made / window.sum() ** 2 + _TINY)
    counts = (level_dbfs > AUDIBLE_DBFS) & (np.arange(made.size) * sample_rate / size >= LOWEST_HZ)
    beyond = np.where(counts, stands - np.maximum(known_stands, 0.0), 0.0)
    return float(max(0.0, beyond.max()))


def _power(audio: Audio, size: int) -> NDArray[np.float64]:
    """Power spectra of frames. Shape: `(T,)` -> `(F, size // 2 + 1)`, `F = 1 + (T - size) // (size // 4)`."""
    if audio.size < size:
        return np.zeros((0, size // 2 + 1))
    frames = sliding_window_view(audio, size)[:: size // 4]
    power: NDArray[np.float64] = np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1], axis=1)) ** 2
    return power


def _heights_db(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each bin over the median of the bins around it but its neighbours, in dB."""
    around = sliding_window_view(np.pad(power, _AROUND_BINS, mode="reflect"), 2 * _AROUND_BINS + 1)
    middle = np.arange(2 * _AROUND_BINS + 1) - _AROUND_BINS
    floor = np.median(around[:, np.abs(middle) > 2], axis=1)
    heights: NDArray[np.float64] = 10.0 * np.log10((power + _TINY) / (floor + _TINY))
    return heights
