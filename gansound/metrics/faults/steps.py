"""A step in the waveform, at its ends or where pieces were joined, that the recording doesn't have: clicks.

What a click adds is small beside a vowel, but not predictable from the samples before it, as a vowel is. So both
waveforms are whitened first, by linear prediction in frames (Makhoul, Proc. IEEE 63(4), 1975).
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gansound.metrics.pair import Audio, matched

AROUND_SECONDS, ITSELF_SECONDS = 0.012, 0.0015
FRAME_SECONDS = 0.020
ORDER = 20
AUDIBLE = 10 ** (-60 / 20)


def step_db(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """How far the plainest jump of the estimate stands out of the 12 ms on each side, beyond the recording's there.

    A jump is what the 20 samples before don't predict, silence lying before and after the waveform; those under a
    thousandth of full scale don't count. It is taken over the greatest from 1.5 to 12 ms away. The recording's is the
    highest within 1.5 ms.

    Shape: `(T,)`, `(T,)` -> scalar, 0 at least.
    """
    first, second = matched(reference, estimate, sample_rate)
    near, far = (round(seconds * sample_rate) for seconds in (ITSELF_SECONDS, AROUND_SECONDS))
    real, fake = _unpredicted(first, sample_rate), _unpredicted(second, sample_rate)
    known = _running_max(_standing_out_db(real, near, far), near, near)
    beyond = _standing_out_db(fake, near, far) - np.maximum(known, 0.0)
    return float(max(0.0, beyond[fake > AUDIBLE].max(initial=0.0)))


def _unpredicted(audio: Audio, sample_rate: int) -> NDArray[np.float64]:
    """Size of the prediction error, with the silence after the end. Shape: `(T,)` -> `(T + ORDER,)`."""
    size = round(FRAME_SECONDS * sample_rate)
    count = -(-(audio.size + ORDER) // size)
    padded = np.pad(audio.astype(np.float64), (size, (count + 1) * size - audio.size))
    windows = sliding_window_view(padded, 2 * size)[size // 2 :: size][:count] * np.hanning(2 * size)
    spectra = np.fft.rfft(windows, 1 << (2 * size + ORDER).bit_length(), axis=1)
    lags = np.fft.irfft(np.abs(spectra) ** 2, axis=1)[:, : ORDER + 1]
    lags[:, 0] = lags[:, 0] * (1 + 1e-9) + 1e-9
    places = np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))
    filters = np.linalg.solve(lags[:, places], lags[:, 1:, None])[..., 0]
    # Sample n of a frame and the ORDER before it, the last first.
    reach = sliding_window_view(padded[size - ORDER : size + count * size], ORDER + 1)[:, ::-1]
    reach = reach.reshape(count, size, ORDER + 1)
    error = reach[..., 0] - np.einsum("fnk,fk->fn", reach[..., 1:], filters)
    return np.abs(error.ravel()[: audio.size + ORDER])


def _standing_out_db(size: NDArray[np.float64], near: int, far: int) -> NDArray[np.float64]:
    """Each over the greatest from `near` to `far` places away, on the side where that is greater, in dB."""
    around = _running_max(size, 0, far - near)
    before = np.concatenate([np.zeros(far), around])[: size.size]
    after = np.concatenate([around[near:], np.zeros(near)])
    return 20.0 * np.log10((size + 1e-6) / (np.maximum(before, after) + 1e-6))


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
