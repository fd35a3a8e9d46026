"""Mel-cepstral distortion (Kubichek, IEEE PACRIM 1993) of two waveforms that are aligned.

Cepstra are the cosine transform of the natural-log mels of `gansound.metrics.spectral` (80 bands to Nyquist),
coefficients 1 to 13, so level doesn't count. There is no time warping: copy synthesis starts and ends with its
recording. Figures from WORLD's envelopes or with warping, as papers on text to speech print, lie elsewhere.
"""

import numpy as np
from numpy.typing import ArrayLike

from gansound.metrics.pair import UndefinedMeasure, is_silent, matched
from gansound.metrics.spectral import MEL_BANDS, log_mel

COEFFICIENTS = 13


def mel_cepstral_distortion_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Mean over frames of 10 / ln 10 · sqrt(2 · sum of squared differences of c₁ … c₁₃), in dB.

    `log |H| = c₀ + Σ cₘ cos(m ω)` on the mel axis, so this is the RMS difference in dB of the smoothed spectra.

    Shape: `(T,)`, `(T,)` -> scalar.

    Raises:
        UndefinedMeasure: one of the two is silent.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first) or is_silent(second):
        raise UndefinedMeasure("mel-cepstral distortion: one of the two is silent")
    angles = np.pi * np.outer(np.arange(MEL_BANDS) + 0.5, np.arange(1, COEFFICIENTS + 1)) / MEL_BANDS
    difference = (log_mel(first, sample_rate) - log_mel(second, sample_rate)) @ (
        2 / MEL_BANDS * np.cos(angles)
    )
    return float(np.mean(10.0 / np.log(10.0) * np.sqrt(2.0 * np.sum(difference**2, axis=1))))
