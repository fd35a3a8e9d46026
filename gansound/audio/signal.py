"""What is done to samples: resample (soxr), level, loudness, trim.

Loudness is ITU-R BS.1770-4, https://www.itu.int/rec/R-REC-BS.1770.
"""

from functools import lru_cache

import numpy as np
import soxr


def resampled_frames(frames: int, from_rate: int, to_rate: int) -> int:
    """Length law of :func:`resample`: round(frames * to_rate / from_rate), halves upwards."""
    return (2 * frames * to_rate + from_rate) // (2 * from_rate)


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample the last axis with soxr's VHQ filter (linear phase, no delay), float32.

    Shape: (..., T) -> (..., :func:`resampled_frames` (T)).
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate} Hz")
    audio = np.asarray(audio, dtype=np.float32)
    if from_rate == to_rate:
        return audio.copy()
    length = resampled_frames(audio.shape[-1], from_rate, to_rate)
    out = np.zeros((*audio.shape[:-1], length), dtype=np.float32)
    for index in np.ndindex(audio.shape[:-1]):
        piece = soxr.resample(np.ascontiguousarray(audio[index]), from_rate, to_rate, quality="VHQ")[:length]
        out[index][: len(piece)] = piece
    return out


class Resampler:
    """:func:`resample` piece by piece: all that comes out, joined, is what it makes of the whole, sample for sample.

    Shape: (C, n) in, (C, m) out, m whatever is ready.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int = 1) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate} Hz")
        self._rates = from_rate, to_rate
        self._channels = channels
        same = from_rate == to_rate
        self._streams = [] if same else [_stream(from_rate, to_rate) for _ in range(channels)]
        self._taken = self._given = 0

    def push(self, audio: np.ndarray) -> np.ndarray:
        """The next samples in, those that are ready out; the same array where the rates are the same."""
        self._taken += audio.shape[-1]
        return self._resampled(audio, last=False) if self._streams else audio

    def flush(self) -> np.ndarray:
        """What is left: with it, :func:`resampled_frames` samples came out."""
        rest = np.zeros((self._channels, 0), np.float32)
        return self._resampled(rest, last=True) if self._streams else rest

    def _resampled(self, audio: np.ndarray, *, last: bool) -> np.ndarray:
        pieces = [
            stream.resample_chunk(np.ascontiguousarray(row, dtype=np.float32), last=last)
            for stream, row in zip(self._streams, audio, strict=True)
        ]
        length = len(pieces[0])
        if last:
            length = resampled_frames(self._taken, *self._rates) - self._given
        out = np.zeros((self._channels, length), np.float32)
        for row, piece in zip(out, pieces, strict=True):
            row[: min(length, len(piece))] = piece[:length]
        self._given += length
        return out


def _stream(from_rate: int, to_rate: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="VHQ")


def rms_db(audio: np.ndarray) -> float:
    """Root-mean-square level in dB relative to full scale (a full sine: -3.01); -inf for silence."""
    audio = np.asarray(audio, dtype=np.float64)
    power = float(np.mean(np.square(audio))) if audio.size else 0.0
    return 10.0 * float(np.log10(power)) if power > 0 else -np.inf


SILENT_PEAK_DB = -60.0
"""A recording whose peak isn't over this holds no sound but noise and hum."""


def peak_db(audio: np.ndarray) -> float:
    """Greatest sample magnitude in dB relative to full scale; -inf for silence."""
    peak = float(np.max(np.abs(audio))) if np.size(audio) else 0.0
    return 20.0 * float(np.log10(peak)) if peak > 0 else -np.inf


def loudness_lufs(audio: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness after ITU-R BS.1770-4: K-weighting, 400 ms blocks, gates at -70 LUFS and -10 LU.

    Shape: (T,) or (C, T), channels weighted equally (mono, stereo). Audio under 400 ms counts as one block.
    Returns -inf when all of it is under the gate. Raises ValueError for a rate under 100 Hz.
    """
    if sample_rate < 100:
        raise ValueError(f"loudness needs a sample rate of 100 Hz or more, got {sample_rate}")
    channels = np.atleast_2d(np.asarray(audio, dtype=np.float64))
    hop = round(0.1 * sample_rate)
    energy = sum((_hop_energies(channel, sample_rate, hop) for channel in channels), start=np.zeros(1))
    quarters = min(4, len(energy))
    total = channels.shape[-1]
    samples = min(quarters * hop, total)
    if samples == 0:
        return -np.inf
    power = np.convolve(energy, np.ones(quarters), mode="valid") / samples
    if total >= 4 * hop:
        power = power[: 1 + (total - 4 * hop) // hop]  # whole blocks only
    loud = power[power > 10 ** ((-70.0 + 0.691) / 10)]
    if not len(loud):
        return -np.inf
    loud = loud[loud > loud.mean() * 10 ** (-10.0 / 10)]
    return -0.691 + 10.0 * float(np.log10(loud.mean()))


def _hop_energies(channel: np.ndarray, sample_rate: int, hop: int) -> np.ndarray:
    """Energy of the K-weighted signal in each 100 ms; filtered 30 s at a time after half a second of run-up."""
    step, run_up = 300 * hop, 5 * hop
    energies = []
    for start in range(0, len(channel), step):
        first = max(0, start - run_up)
        piece = channel[first : start + step]
        length = 1 << (len(piece) + run_up).bit_length()  # a run-up more, so that the filter's tail has room
        weighted = np.fft.irfft(np.fft.rfft(piece, n=length) * _k_weighting(sample_rate, length))
        weighted = weighted[start - first : len(piece)]
        whole = np.zeros(-(-len(weighted) // hop) * hop)
        whole[: len(weighted)] = weighted
        energies.append(np.square(whole).reshape(-1, hop).sum(axis=1))
    return np.concatenate(energies) if energies else np.zeros(0)


@lru_cache(maxsize=16)
def _k_weighting(sample_rate: int, length: int) -> np.ndarray:
    """Frequency response of BS.1770's two biquads on an rFFT's bins, at any rate.

    The standard tabulates 48 kHz only; these analogue parameters reproduce its table through the bilinear
    transform (Mansbridge, Finn and Reiss 2012; the constants are libebur128's).
    """
    z = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    k = np.tan(np.pi * 1681.974450955533 / sample_rate)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    shelf = (
        (high + middle * k / q + k * k) + 2 * (k * k - high) * z + (high - middle * k / q + k * k) * z**2
    ) / ((1 + k / q + k * k) + 2 * (k * k - 1) * z + (1 - k / q + k * k) * z**2)
    k, q = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    a0 = 1 + k / q + k * k
    high_pass = (1 - z) ** 2 / (1 + 2 * (k * k - 1) / a0 * z + (1 - k / q + k * k) / a0 * z**2)
    return shelf * high_pass


def fade(audio: np.ndarray, fade_in: int, fade_out: int) -> np.ndarray:
    """A copy whose first and last sample are 0: raised cosines over the first and last so many samples, 1 or more.

    Shape: (..., T) -> (..., T). Raises ValueError when the fades don't fit.
    """
    fade_in, fade_out = max(1, fade_in), max(1, fade_out)
    length = np.shape(audio)[-1]
    if length < max(fade_in, fade_out):
        raise ValueError(f"fades of {fade_in} and {fade_out} samples don't fit into {length}")
    faded = np.array(audio, dtype=np.float32)
    faded[..., :fade_in] *= _rise(fade_in)
    faded[..., length - fade_out :] *= _rise(fade_out)[::-1]
    return faded


@lru_cache(maxsize=64)
def _rise(samples: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / samples)).astype(np.float32)


def trim(audio: np.ndarray, sample_rate: int, *, top_db: float = 40.0) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut leading and trailing parts more than ``top_db`` under the loudest; also (start, end) in samples.

    Level is the RMS of centred frames of 93 ms every 23 ms, as in librosa.effects.trim at 22.05 kHz.
    Shape: (T,) -> (end - start,). Digital silence is left empty: (0, 0).
    """
    audio = np.asarray(audio)
    hop = max(1, round(512 / 22050 * sample_rate))
    half = 2 * hop
    power = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
    centres = np.arange(0, len(audio) + 1, hop)
    energy = power[np.minimum(centres + half, len(audio))] - power[np.maximum(centres - half, 0)]
    top = energy.max()
    loud = np.flatnonzero(energy > top * 10 ** (-top_db / 10)) if top > 0 else np.zeros(0, dtype=int)
    if not len(loud):
        return audio[:0], (0, 0)
    start, end = int(centres[loud[0]]), min(len(audio), int(centres[loud[-1]]) + hop)
    return audio[start:end], (start, end)
