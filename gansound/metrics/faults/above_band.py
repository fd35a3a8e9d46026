"""Sound above the band of the source: stripes, images and aliases where the recording holds nothing."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.metrics.pair import Audio, UndefinedMeasure, is_silent, matched
from gansound.metrics.spectral import magnitude_stft, mel_window_samples

EMPTY_DB = 75.0
LEAST_BAND_OF_NYQUIST = 0.06
_MARGIN_HZ = 250.0
_TINY = 1e-16


def above_band_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Energy of the estimate above the recording's band, over all of its energy, in dB; -100 at least.

    The band ends 250 Hz above the last bin whose mean power (Hann windows of the power of two nearest 46 ms) is within
    75 dB of the strongest.

    Shape: `(T,)`, `(T,)` -> scalar.

    Raises:
        UndefinedMeasure: the recording is silent, or fills its band but for the last 6 % below Nyquist.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first) or is_silent(second):
        raise UndefinedMeasure("energy above the band: one of the two is silent")
    real, fake = _mean_power(first, sample_rate), _mean_power(second, sample_rate)
    hertz = np.linspace(0.0, sample_rate / 2, real.size)
    held = np.flatnonzero(real > real.max() * 10 ** (-EMPTY_DB / 10))
    edge_hz = hertz[held[-1]] + _MARGIN_HZ
    if edge_hz > (1 - LEAST_BAND_OF_NYQUIST) * sample_rate / 2:
        raise UndefinedMeasure(f"energy above the band: the recording reaches {edge_hz / 1000:.1f} kHz")
    return max(-100.0, 10.0 * float(np.log10(fake[hertz > edge_hz].sum() / fake.sum() + _TINY)))


def _mean_power(audio: Audio, sample_rate: int) -> NDArray[np.float64]:
    n_fft = mel_window_samples(sample_rate)
    power: NDArray[np.float64] = np.square(
        magnitude_stft(audio, n_fft, n_fft // 4, n_fft), dtype=np.float64
    ).mean(axis=0)
    return power
