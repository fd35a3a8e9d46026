"""Distances between spectrograms of two waveforms.

`mel_distance` keeps one convention of its own, whatever the model's front end: 80 Slaney bands from 0 to
Nyquist, periodic Hann window of the power of two nearest 46 ms (1024 samples from 16 to 24 kHz, 2048 at 44.1
and 48 kHz), hop a quarter of it, centred with reflection, magnitude, natural log with a floor of 1e-5. Numbers
of different sample rates aren't comparable: the top band lies elsewhere.

`stft_distance` follows Yamamoto, Song & Kim (Parallel WaveGAN, arXiv 1910.11480, eq. 4-6): spectral
convergence and log-magnitude distance, averaged over three resolutions; floor 1e-5 as well.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gansound.extras import require
from gansound.metrics.pair import Audio, UndefinedMeasure, is_silent, matched

MEL_BANDS = 80
FLOOR = 1e-5
WINDOW_SECONDS = 0.0464
STFT_RESOLUTIONS_SAMPLES = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
"""(n_fft, hop_length, win_length) of Parallel WaveGAN, in samples at any rate."""


class STFTDistance(NamedTuple):
    """Means over the resolutions: relative Frobenius error, and mean |ln difference| of magnitudes."""

    convergence: float
    log_magnitude: float


def magnitude_stft(audio: Audio, n_fft: int, hop_length: int, win_length: int) -> NDArray[np.float32]:
    """Magnitudes of a centred STFT, periodic Hann window, reflected ends.

    Shape: `(T,)` -> `(F, n_fft // 2 + 1)`, `F = 1 + T // hop_length`.
    """
    half = n_fft // 2
    # np.pad reflects again and again, so clips shorter than half a window need no case of their own.
    padded = np.pad(audio, half, mode="reflect" if audio.size > 1 else "edge")
    window = np.zeros(n_fft, np.float32)
    start = (n_fft - win_length) // 2
    window[start : start + win_length] = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(win_length) / win_length)
    frames = sliding_window_view(padded, n_fft)[::hop_length][: 1 + audio.size // hop_length]
    magnitudes: NDArray[np.float32] = np.abs(np.fft.rfft(frames * window, axis=1)).astype(
        np.float32, copy=False
    )
    return magnitudes


def mel_window_samples(sample_rate: int) -> int:
    """The power of two nearest 46 ms."""
    return int(2 ** round(np.log2(WINDOW_SECONDS * sample_rate)))


@lru_cache(maxsize=8)
def _mel_filters(sample_rate: int, n_fft: int) -> NDArray[np.float32]:
    require("The mel distance", "librosa")
    from librosa.filters import mel

    filters: NDArray[np.float32] = mel(sr=sample_rate, n_fft=n_fft, n_mels=MEL_BANDS, fmin=0.0, fmax=None)
    return filters


def log_mel(audio: Audio, sample_rate: int) -> NDArray[np.float32]:
    """Natural-log mel in this module's convention. Shape: `(T,)` -> `(F, 80)`."""
    n_fft = mel_window_samples(sample_rate)
    magnitudes = magnitude_stft(audio, n_fft, n_fft // 4, n_fft)
    mels: NDArray[np.float32] = np.log(np.maximum(magnitudes @ _mel_filters(sample_rate, n_fft).T, FLOOR))
    return mels


def mel_distance(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Mean absolute difference of natural-log mels in the convention above, in nepers.

    A gain of g everywhere costs |ln g|.
    """
    first, second = matched(reference, estimate, sample_rate)
    return float(np.abs(log_mel(first, sample_rate) - log_mel(second, sample_rate)).mean(dtype=np.float64))


def stft_distance(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> STFTDistance:
    """Multi-resolution STFT distance; each part is the mean over `STFT_RESOLUTIONS_SAMPLES`.

    Convergence is || |R| - |E| || / || |R| || over the whole utterance; log magnitude is mean |ln |R| - ln |E||.

    Raises:
        UndefinedMeasure: the reference is silent, so that a relative error has no meaning.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("STFT distance: the reference is silent")
    convergence, log_magnitude = [], []
    for n_fft, hop_length, win_length in STFT_RESOLUTIONS_SAMPLES:
        real = magnitude_stft(first, n_fft, hop_length, win_length)
        fake = magnitude_stft(second, n_fft, hop_length, win_length)
        convergence.append(float(np.linalg.norm(real - fake) / np.linalg.norm(real)))
        difference = np.log(np.maximum(real, FLOOR)) - np.log(np.maximum(fake, FLOOR))
        log_magnitude.append(float(np.abs(difference).mean(dtype=np.float64)))
    return STFTDistance(float(np.mean(convergence)), float(np.mean(log_magnitude)))
