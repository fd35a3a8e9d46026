"""What fills a band: a tone, hiss, or something that flutters. Levels alone can't tell, ears can.

Noise that is given a sound's levels, band by band and moment by moment, has the same log-mels. Tonality is the spectral
flatness of Gray and Markel (IEEE Trans. ASSP 22, 1974) within each band; texture how much a band's level turns from one
8 ms to the next, where beating, modulation and grain are.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gansound.metrics.sets.backbone import LogMelBackbone, cell_edges, checked_clips
from gansound.metrics.sets.points import Points

_BATCH = 64
_BANDS, _CELLS = 12, 4
_LEAST, _AUDIBLE = 1e-9, 1e-7  # powers, of a full-scale sine 1
_TONAL_SECONDS, _NOISE_DB, _TONE_DB, _TONAL_UNIT = 0.046, 3.0, 9.0, 4.0
_TEXTURE_SECONDS, _TEXTURE_UNIT_DB = 0.008, 2.5


class HearingBackbone:
    """Levels, tonality and texture: the 24 × 8 log-mels of `LogMelBackbone`, and 12 × 4 cells of each of the others.

    Tonality goes from 0, as flat as noise (3 dB between the mean power of a band's bins and the mean of their logs) or
    too faint to be heard, to 1 from 9 dB on, which every tone reaches; it counts fourfold. Texture is the mean change
    of slope of a band's level, in units of 2.5 dB.

    Of 762 drums and 1,200 words, a third of the kits or speakers held out: noise with the levels of each other sound in
    24 bands every 8 ms is told from the held-out ones 93 % and 80 % of the time (by levels alone 82 % and 62 %), the
    other sounds themselves 76 % and 64 % (75 % and 60 %). A vote of the five nearest of other kits or speakers names
    60 % of the drums and 37 % of the words; by levels alone 61 % and 40 %.

    Args:
        sample_rate: in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.levels = LogMelBackbone(sample_rate)
        self.sample_rate = sample_rate
        self.name = f"{self.levels.name}, tonality and texture {_BANDS}×{_CELLS}"

    def embed(self, clips: ArrayLike) -> Points:
        """`(N, T)` → `(N, 288)`.

        Raises:
            ValueError: another shape, or samples that aren't finite numbers.
        """
        sounds = checked_clips(clips)
        found = [self.levels.embed(sounds)]
        for measure in (tonality, texture):
            parts = (measure(sounds[i : i + _BATCH], self.sample_rate) for i in range(0, len(sounds), _BATCH))
            found.append(np.concatenate(list(parts)).reshape(len(sounds), -1))
        found[1] *= _TONAL_UNIT
        found[2] /= _TEXTURE_UNIT_DB
        return np.concatenate(found, axis=1)


def tonality(clips: NDArray[np.float32], sample_rate: int) -> Points:
    """0 for noise and silence, 1 for tones: `(N, T)` → `(N, 12, 4)`, each the mean of two bands."""
    power = _power(clips, sample_rate, _TONAL_SECONDS, 4) + _LEAST
    edges = band_edges(sample_rate, power.shape[1], 2 * _BANDS)
    mean = 10 * np.log10(_banded(power, edges))
    flatness = _banded(10 * np.log10(power), edges) - mean
    heard = np.clip((mean - 10 * math.log10(_AUDIBLE)) / 20, 0, 1)
    depth = -_celled(flatness * heard)
    tonal = np.clip((depth - _NOISE_DB) / (_TONE_DB - _NOISE_DB), 0, 1)
    paired: Points = tonal.reshape(len(clips), _BANDS, 2, _CELLS).mean(axis=2)
    return paired


def texture(clips: NDArray[np.float32], sample_rate: int) -> Points:
    """Decibels by which a band's level turns from one moment to the next: `(N, T)` → `(N, 12, 4)`."""
    power = _power(clips, sample_rate, _TEXTURE_SECONDS, 2)
    edges = band_edges(sample_rate, power.shape[1], _BANDS)
    level = 10 * np.log10(np.add.reduceat(power, edges[:-1], axis=1) + _AUDIBLE)
    return _celled(np.abs(np.diff(level, n=2, axis=2)) / 2)


def band_edges(sample_rate: int, bins: int, bands: int) -> NDArray[np.intp]:
    """`(bands + 1,)` numbers of bins from 0 to `bins`, equally far apart in mel, each band at least a bin wide."""
    mels = np.linspace(0, _mel(sample_rate / 2), bands + 1)
    edges = np.rint(700 * (10 ** (mels / 2595) - 1) / (sample_rate / 2) * (bins - 1)).astype(np.intp)
    for band in range(1, bands + 1):
        edges[band] = max(edges[band], edges[band - 1] + 1)
    edges = np.minimum(edges, bins - bands + np.arange(bands + 1))
    edges[-1] = bins
    return edges


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _power(clips: NDArray[np.float32], sample_rate: int, seconds: float, hops: int) -> Points:
    """Powers `(N, bins, frames)`; a full-scale sine peaks at 1."""
    n_fft = max(64, 2 ** round(math.log2(seconds * sample_rate)))
    sounds = torch.from_numpy(clips)
    missing = max(0, 4 * n_fft - sounds.shape[1])
    padded = torch.nn.functional.pad(sounds, (n_fft // 2, n_fft // 2 + missing))
    window = torch.hann_window(n_fft)
    spectra: Tensor = torch.stft(
        padded, n_fft, n_fft // hops, window=window, center=False, return_complex=True
    )
    return np.asarray(spectra.abs().square().double().numpy() / (n_fft / 4) ** 2)


def _banded(values: Points, edges: NDArray[np.intp]) -> Points:
    summed: Points = np.add.reduceat(values, edges[:-1], axis=1) / np.diff(edges)[:, None]
    return summed


def _celled(values: Points) -> Points:
    """Means over cells in time, which grow from the attack on."""
    edges = cell_edges(values.shape[2], _CELLS)
    means: Points = np.add.reduceat(values, edges[:-1], axis=2) / np.diff(edges)
    return means
