"""What a vocoder makes of signals whose copy is known beforehand: noise, a click, silence.

Each is a function of a callable `vocode(audio (T,) float32, sample_rate) -> audio`, so it judges any vocoder, and any
codec. Faults that speech hides are plain here: a frame-wise phase draws lines at multiples of the frame rate into
noise, an inverse STFT spreads a click over its window before the click comes, and a floor in the log makes silence hum.
"""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gansound.metrics.pair import Audio, UndefinedMeasure, is_silent, matched

log = logging.getLogger(__name__)

Vocode = Callable[[NDArray[np.float32], int], NDArray[np.float32]]

FLOOR_DBFS = -150.0
"""Of a level: what is fainter, digital silence too, counts as this."""
_SECONDS = 4.0
_NOISE_RMS = 0.1
_RESOLUTION_SECONDS = 0.5
_CLICK, _CLICK_PLACES = 0.5, 8
_BEFORE_SECONDS = (0.003, 0.020)
_NEAR_SECONDS = 0.050


def probe(vocode: Vocode, sample_rate: int, hop_length: int | None) -> dict[str, float | None]:
    """Every probe of one vocoder, None where it is undefined, whose reason is logged; no `hop_length`, no lines."""
    probes = {
        "noise_lines_db": partial(noise_lines_db, vocode, sample_rate, hop_length or 0),
        "pre_echo_db": partial(pre_echo_db, vocode, sample_rate),
        "silence_level_dbfs": partial(silence_level_dbfs, vocode, sample_rate),
    }
    figures: dict[str, float | None] = {}
    for name, measure in probes.items():
        if name == "noise_lines_db" and hop_length is None:
            figures[name] = None
            continue
        try:
            figures[name] = measure()
        except (ValueError, RuntimeError) as error:
            log.warning("%s: %s", name, error)
            figures[name] = None
    return figures


def noise_lines_db(vocode: Vocode, sample_rate: int, hop_length: int, *, seed: int = 0) -> float:
    """Lines at multiples of the frame rate when white noise goes in, over those of the noise itself.

    Four seconds of Gaussian noise, RMS 0.1; mean power spectrum of half-overlapping Hann windows of about half a second
    (a whole number of frames, so that lines fall on bins 2 Hz wide). A line's height is its bin over the mean of those
    between the lines; the figure is the mean of the heights up to Nyquist, as dB, less the same of the input.

    Args:
        vocode: what is judged.
        sample_rate: of the noise, in Hz.
        hop_length: samples a frame.
        seed: of the noise.

    Raises:
        UndefinedMeasure: nothing comes out.
        ValueError: the frame rate is below 10 Hz or at Nyquist, or what comes out doesn't fit what went in.
    """
    frames = round(_RESOLUTION_SECONDS * sample_rate / hop_length)
    if not (hop_length > 2 and frames >= 6):
        raise ValueError(
            f"got hop_length {hop_length} at {sample_rate} Hz, expected 3 samples to {sample_rate // 12}"
        )
    noise = np.random.default_rng(seed).standard_normal(round(_SECONDS * sample_rate)) * _NOISE_RMS
    given, made = _through(vocode, noise, sample_rate)
    if is_silent(made):
        raise UndefinedMeasure("lines in noise: the vocoder makes silence of noise")
    return _line_height_db(made, hop_length, frames) - _line_height_db(given, hop_length, frames)


def _line_height_db(audio: Audio, hop_length: int, frames: int) -> float:
    size = hop_length * frames
    windows = sliding_window_view(audio.astype(np.float64), size)[:: size // 2]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)
    power = np.mean(np.abs(np.fft.rfft(windows * window, axis=1)) ** 2, axis=0)
    lines = frames * np.arange(1, (hop_length - 1) // 2)
    # A Hann window spreads a line over one bin on each side; two more are left out for good measure.
    between = np.mean([power[lines + offset] for offset in range(3, frames - 2)], axis=0)
    return 10.0 * float(np.log10(np.mean(power[lines] / np.maximum(between, 1e-30))))


def pre_echo_db(vocode: Vocode, sample_rate: int) -> float:
    """What sounds 3 to 20 ms before a click, RMS, over the peak of the click that comes out.

    One sample of 0.5 in a second of silence; mean power over eight places 1.5 ms apart, since a frame-wise vocoder does
    otherwise at each phase of its hop. The peak is sought 50 ms around.

    Raises:
        UndefinedMeasure: nothing comes out.
        ValueError: what comes out doesn't fit what went in.
    """
    first, last = (round(seconds * sample_rate) for seconds in _BEFORE_SECONDS[::-1])
    near = round(_NEAR_SECONDS * sample_rate)
    shares = []
    for number in range(_CLICK_PLACES):
        place = sample_rate // 2 + round(0.0015 * sample_rate * number)
        click = np.zeros(sample_rate)
        click[place] = _CLICK
        _, made = _through(vocode, click, sample_rate)
        peak = float(np.abs(made[place - near : place + near]).max())
        if peak < 1e-5:
            raise UndefinedMeasure("pre-echo: the vocoder makes silence of a click")
        shares.append(
            float(np.mean(np.square(made[place - first : place - last], dtype=np.float64))) / peak**2
        )
    return _db(float(np.mean(shares)))


def silence_level_dbfs(vocode: Vocode, sample_rate: int) -> float:
    """RMS level of what two seconds of digital silence become, -150 at least.

    Raises:
        ValueError: what comes out doesn't fit what went in.
    """
    _, made = _through(vocode, np.zeros(2 * sample_rate), sample_rate)
    return _db(float(np.mean(np.square(made, dtype=np.float64))))


def _through(vocode: Vocode, audio: NDArray[np.float64], sample_rate: int) -> tuple[Audio, Audio]:
    given = audio.astype(np.float32)
    return matched(given, vocode(given, sample_rate), sample_rate)


def _db(power: float) -> float:
    return max(FLOOR_DBFS, 10.0 * float(np.log10(power))) if power > 0 else FLOOR_DBFS
