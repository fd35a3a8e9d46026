"""Frames whose top band came out empty: what a filter bank that ends below Nyquist lets a vocoder forget.

The band is 0.862 to 0.952 of Nyquist, 9.5 to 10.5 kHz at 22.05 kHz. Frames are Hann windows of the power of two
nearest 46 ms, a quarter apart. A frame is speech where the recording is within 40 dB of its loudest frame; the
recording holds something there where the band is within 50 dB of the whole frame; the estimate is empty there where it
is 15 dB or more below the recording.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.metrics.pair import Audio, UndefinedMeasure, is_silent, matched
from gansound.metrics.spectral import magnitude_stft, mel_window_samples

BAND_OF_NYQUIST = (9500 / 11025, 10500 / 11025)
SPEECH_DB, HELD_DB, EMPTY_DB = 40.0, 50.0, 15.0
LEAST_FRAMES = 10
_TINY = 1e-12


def empty_band_percent(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Of the speech frames in which the recording holds something in the top band, those where the estimate doesn't.

    Shape: `(T,)`, `(T,)` -> scalar, 0 to 100.

    Raises:
        UndefinedMeasure: the recording is silent, or ends below the band (fewer than 10 frames hold something there).
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("empty band: the recording is silent")
    whole, band = _levels_db(first, sample_rate)
    held = (whole > whole.max() - SPEECH_DB) & (band > whole - HELD_DB)
    if held.sum() < LEAST_FRAMES:
        low, high = (share * sample_rate / 2000 for share in BAND_OF_NYQUIST)
        raise UndefinedMeasure(f"empty band: the recording holds nothing at {low:.1f} to {high:.1f} kHz")
    _, made = _levels_db(second, sample_rate)
    return 100.0 * float(np.mean(made[held] <= band[held] - EMPTY_DB))


def _levels_db(audio: Audio, sample_rate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Level of each frame, and of the band in it, in dB."""
    n_fft = mel_window_samples(sample_rate)
    power = np.square(magnitude_stft(audio, n_fft, n_fft // 4, n_fft), dtype=np.float64)
    first, last = (round(share * n_fft / 2) for share in BAND_OF_NYQUIST)
    return (
        10.0 * np.log10(power.sum(axis=1) + _TINY),
        10.0 * np.log10(power[:, first : last + 1].sum(axis=1) + _TINY),
    )
