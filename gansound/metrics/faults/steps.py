"""A step in the waveform, at its ends or where pieces were joined, that the recording doesn't have: clicks.

What a click adds is small beside a vowel, but not predictable from the samples before it, as a vowel is. So both
waveforms are whitened first, by linear prediction in frames (Makhoul, Proc. IEEE 63(4), 1975), and by the same filters,
so that they can be compared.

A vocoder packs a pulse of the glottis or a burst into fewer samples than a mouth and a room do, and some milliseconds
beside. It stands out, and is no step: a jump is one where it is higher than all that the recording has about there.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gansound.metrics.pair import Audio, matched

AROUND_SECONDS, ITSELF_SECONDS, END_SECONDS = 0.012, 0.001, 0.005
FRAME_SECONDS = 0.020
ORDER = 20
AUDIBLE = 10 ** (-60 / 20)
_TINY = 1e-6


def step_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """How far the plainest jump of the estimate stands out of the 12 ms on each side, its own and the recording's.

    A jump is what the 20 samples before don't predict, silence lying before and after the waveform; those under a
    thousandth of full scale don't count. It is taken over the greatest of the estimate from 1 to 12 ms away, on the
    side where that is greater, and over the greatest of the recording within 12 ms. At its ends that is its crest in
    the 5 ms there, for it might as well have been cut at it.

    Shape: `(T,)`, `(T,)` -> scalar, 0 at least.
    """
    first, second = matched(reference, estimate, sample_rate)
    near, far, end = (
        max(ORDER, round(seconds * sample_rate)) for seconds in (ITSELF_SECONDS, AROUND_SECONDS, END_SECONDS)
    )
    filters = _predictors(second, sample_rate)
    real, fake = _unpredicted(first, filters, sample_rate), _unpredicted(second, filters, sample_rate)
    real[0] = np.abs(first[:end]).max()
    real[first.size] = np.abs(first[-end:]).max()
    over = np.maximum(_around(fake, near, far), _running_max(real, far, far))
    beyond_db = 20.0 * np.log10((fake + _TINY) / (over + _TINY))
    return float(max(0.0, beyond_db[fake > AUDIBLE].max(initial=0.0)))


def _predictors(audio: Audio, sample_rate: int) -> NDArray[np.float64]:
    """For each frame a filter that predicts a sample from those before it. Shape: `(T,)` -> `(F, ORDER)`."""
    size = round(FRAME_SECONDS * sample_rate)
    windows = sliding_window_view(_framed(audio, size), 2 * size)[size // 2 :: size][: _count(audio, size)]
    spectra = np.fft.rfft(windows * np.hanning(2 * size), 1 << (2 * size + ORDER).bit_length(), axis=1)
    lags = np.fft.irfft(np.abs(spectra) ** 2, axis=1)[:, : ORDER + 1]
    lags[:, 0] = lags[:, 0] * (1 + 1e-9) + 1e-9
    places = np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))
    return np.asarray(np.linalg.solve(lags[:, places], lags[:, 1:, None])[..., 0], np.float64)


def _unpredicted(audio: Audio, filters: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """Size of the prediction error, with the silence after the end. Shape: `(T,)` -> `(T + ORDER,)`."""
    size = round(FRAME_SECONDS * sample_rate)
    count = _count(audio, size)
    # Sample n of a frame and the ORDER before it, the last first.
    reach = sliding_window_view(_framed(audio, size)[size - ORDER : size + count * size], ORDER + 1)[:, ::-1]
    reach = reach.reshape(count, size, ORDER + 1)
    error = reach[..., 0] - np.einsum("fnk,fk->fn", reach[..., 1:], filters)
    return np.abs(error.ravel()[: audio.size + ORDER])


def _count(audio: Audio, size: int) -> int:
    return -(-(audio.size + ORDER) // size)


def _framed(audio: Audio, size: int) -> NDArray[np.float64]:
    """A frame of silence before, and one or more after."""
    return np.pad(audio.astype(np.float64), (size, (_count(audio, size) + 1) * size - audio.size))


def _around(size: NDArray[np.float64], near: int, far: int) -> NDArray[np.float64]:
    """The greatest from `near` to `far` places away, on the side where it is greater."""
    around = _running_max(size, 0, far - near)
    before = np.concatenate([np.zeros(far), around])[: size.size]
    after = np.concatenate([around[near:], np.zeros(near)])
    return np.maximum(before, after)


def _running_max(values: NDArray[np.float64], before: int, after: int) -> NDArray[np.float64]:
    """The greatest from so many places before to so many after."""
    width = before + after + 1
    padded = np.pad(
        values, (before, after + -(values.size + before + after) % width), constant_values=-np.inf
    )
    # Van Herk: the maximum of a window is that of a block's tail and the next block's head.
    blocks = padded.reshape(-1, width)
    heads = np.maximum.accumulate(blocks, axis=1).ravel()
    tails = np.maximum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    out: NDArray[np.float64] = np.maximum(tails[: values.size], heads[width - 1 : width - 1 + values.size])
    return out
