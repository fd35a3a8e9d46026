"""Faults planted into recordings, and changes that nobody hears, for the detectors of `gansound.metrics.faults`.

Each is a function `(audio (T,) float32, rate, generator) -> (T,)`. Faults are as loud as would be heard, no louder.
"""

import io
from collections.abc import Callable

import numpy as np
import soundfile
from scipy.signal import lfilter

from gansound.audio import resample

Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def rms(audio: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))


def banded(audio: np.ndarray, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(audio)
    hertz = np.fft.rfftfreq(audio.size, 1 / rate)
    outside = np.maximum(low_hz - hertz, hertz - high_hz)
    spectrum *= np.clip(1 - outside / 200, 0, 1)
    return np.fft.irfft(spectrum, audio.size).astype(np.float32)


def near_peak(audio: np.ndarray, place: int, rate: int) -> float:
    reach = rate // 100
    return float(np.abs(audio[max(0, place - reach) : place + reach]).max())


def tone(audio, rate, generator):
    """A tone as strong as all else in the pauses, -65 dBFS at least."""
    blocks = np.mean(np.square(audio[: audio.size // 512 * 512].reshape(-1, 512), dtype=np.float64), axis=1)
    pauses = np.sort(blocks)[: max(1, blocks.size // 5)].mean()
    level = max(np.sqrt(pauses), 10 ** (-65 / 20))
    times = np.arange(audio.size) / rate
    return audio + level * np.sqrt(2) * np.sin(2 * np.pi * generator.uniform(150, 9000) * times)


def seam(audio, rate, generator):
    """From somewhere on the waveform is upside down, where it is half as high as near there or more."""
    loud = np.flatnonzero(np.abs(audio) > 0.1 * np.abs(audio).max())
    place = next(n for n in generator.permutation(loud) if abs(audio[n]) > 0.5 * near_peak(audio, n, rate))
    out = audio.copy()
    out[place:] *= -1
    return out


def offset(audio, rate, generator):
    """A step half as high again as the waveform near there, which dies away in 20 ms as behind a high-pass filter."""
    place = int(generator.integers(audio.size // 10, audio.size * 9 // 10))
    height = max(1.5 * near_peak(audio, place, rate), 0.01)
    out = audio.copy()
    out[place:] += height * np.exp(-np.arange(audio.size - place) / rate / 0.020)
    return out


def abrupt_end(audio, rate, generator):
    """The beginning or the end doesn't come from silence: 2 % of full scale, or what the waveform has there."""
    decay = np.exp(-np.arange(audio.size) / rate / 0.020)
    place = generator.choice([0, audio.size - 1])
    step = max(0.02, near_peak(audio, int(place), rate)) * decay
    return audio + (step if place == 0 else step[::-1])


def above_8_khz(audio, rate, generator):
    """Noise from 8.6 to 10.5 kHz at -40 dB."""
    noise = banded(generator.standard_normal(audio.size), rate, 8600, 10500)
    return audio + 10 ** (-40 / 20) * rms(audio) / rms(noise) * noise


def smear(audio, rate, generator):
    """Each sound begins in the 20 ms before, at -9 dB in all, as an inverse STFT with wrong phases does."""
    length = round(0.020 * rate)
    before = np.exp(-np.arange(length) / rate / 0.008) * generator.choice([-1, 1], length)
    early = np.convolve(audio[::-1], before / np.sqrt(np.sum(before**2)))[: audio.size][::-1]
    return 0.9 * audio + 0.35 * early


def drift(audio, rate, generator):
    """4 dB louder or fainter from beginning to end."""
    change_db = generator.choice([-4.0, 4.0]) * np.linspace(-0.5, 0.5, audio.size)
    return audio * 10 ** (change_db / 20)


PLANTED: dict[str, tuple[Change, ...]] = {
    "pause_tone_db": (tone,),
    "step_db": (seam, offset, abrupt_end),
    "above_band_db": (above_8_khz,),
    "onset_smear_db": (smear,),
    "level_drift_db": (drift,),
}


def same(audio, rate, generator):
    return audio


def sixteen_bits(audio, rate, generator):
    return np.round(0.8 * audio * 32768) / 32768


def resampled(audio, rate, generator):
    return resample(resample(audio, rate, 2 * rate), 2 * rate, rate)


def noisy(audio, rate, generator):
    return audio + 10 ** (-50 / 20) * rms(audio) * generator.standard_normal(audio.size)


def phase_turned(audio, rate, generator):
    return lfilter([0.6, -1.0], [1.0, -0.6], lfilter([-0.5, 1.0], [1.0, -0.5], audio))


def vorbis(audio, rate, generator):
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format="OGG", subtype="VORBIS")
    file.seek(0)
    out = soundfile.read(file, dtype="float32")[0][: audio.size]
    return np.pad(out, (0, audio.size - out.size))


HARMLESS: tuple[Change, ...] = (same, sixteen_bits, resampled, noisy, phase_turned, vorbis)
