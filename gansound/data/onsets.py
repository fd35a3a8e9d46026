"""Where sounds begin and end, from the power of each millisecond.

An attack is the first frame within 30 dB of the loudest (and 12 dB over the noise), traced back to where the
level came out of the quiet; its sample is the first one there that stands out of the noise. Thresholds hang on
the recording's own peak and on its noise floor, but never so high that a loud noise hides the sound. The trace
back over the rise is that of librosa's onset_backtrack (https://librosa.org), which does it by local minima.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gansound.audio import SILENT_PEAK_DB

Read = Callable[[int, int], np.ndarray]  # (start, length) in samples -> (C, length)

_FRAME_SECONDS = 0.001
_FLOOR_FRAMES = 10
_RISE_FRAMES = 50  # longest rise that is traced back
_APART_FRAMES = 100
_RINGING_FRAMES = 10
_LEAST_OFFSET = 1e-3
_PIECE_SECONDS = 30.0
_ATTACK_DB, _QUIET_DB = 30.0, 60.0
_RISE = 10.0  # a new attack has ten times the mean power of the 50 ms before


def power(db: float) -> float:
    """Ratio of powers."""
    return 10.0 ** (db / 10)


@dataclass(frozen=True)
class Envelope:
    """Mean power of each frame of ``frame`` samples over the channels, the peak, and what the channels rest at."""

    powers: np.ndarray  # (F,)
    frame: int
    samples: int
    peak: float
    offset: np.ndarray  # (C, 1): a constant offset would pass for sound

    @classmethod
    def of(cls, read: Read, samples: int, sample_rate: int) -> "Envelope":
        """Of ``samples`` samples, read piece by piece, so that memory stays flat."""
        frame = max(1, round(_FRAME_SECONDS * sample_rate))
        piece = round(_PIECE_SECONDS / _FRAME_SECONDS) * frame
        offset: np.ndarray | None = None
        powers, peak = [], 0.0
        for start in range(0, samples, piece):
            audio = read(start, min(piece, samples - start))
            if offset is None:
                offset = resting(audio)
            rested = audio - offset
            peak = max(peak, float(np.abs(rested).max()))
            squares = np.square(rested, out=rested)
            powers.append(_frame_powers(squares.mean(axis=0) if len(squares) > 1 else squares[0], frame))
        assert offset is not None, "a record holds samples"
        return cls(np.concatenate(powers), frame, samples, peak, offset)

    @property
    def silent(self) -> bool:
        """Whether nothing is over −60 dB; the ends of a constant offset, where a resampled file rings, are no sound."""
        if not self.offset.any():
            return self.peak <= 10 ** (SILENT_PEAK_DB / 20)
        inside = self.powers[_RINGING_FRAMES:-_RINGING_FRAMES]
        return float(inside.max(initial=0.0)) <= power(SILENT_PEAK_DB)

    @functools.cached_property
    def floor(self) -> float:
        """Power of the quietest tenth: the noise floor, where there is one."""
        count = min(_FLOOR_FRAMES, len(self.powers))
        whole = len(self.powers) // count * count
        return float(np.percentile(self.powers[:whole].reshape(-1, count).mean(axis=1), 10))


def resting(audio: np.ndarray) -> np.ndarray:
    """What channels (C, T) rest at, (C, 1) float32, where median and mean agree on it; else 0, as of a kick's mean."""
    median = np.median(audio[:, ::8], axis=1, keepdims=True)
    agreed = np.abs(median - audio.mean(axis=1, keepdims=True)) <= np.abs(median) / 4
    return np.where(agreed & (np.abs(median) > _LEAST_OFFSET), median, 0).astype(np.float32)


def _frame_powers(squares: np.ndarray, frame: int) -> np.ndarray:
    whole = len(squares) // frame * frame
    powers = squares[:whole].reshape(-1, frame).mean(axis=1, dtype=np.float64)
    rest = squares[whole:]
    return np.append(powers, rest.mean(dtype=np.float64)) if len(rest) else powers


def attacks(envelope: Envelope, read: Read) -> list[int]:
    """Samples where a sound sets in, in order: power ten times that of the 50 ms before, within 30 dB of the loudest.

    The first is the attack of the whole recording, however slow. Two are 100 ms apart or more. ``read`` gives the
    samples around each. Empty for digital silence.
    """
    powers, top = envelope.powers, float(envelope.powers.max())
    if top == 0:
        return []
    floor = envelope.floor
    trigger = max(top * power(-_ATTACK_DB), min(floor * power(12), top * power(-12)))
    quiet = max(top * power(-_QUIET_DB), min(floor * power(6), trigger * power(-6)))
    total = np.concatenate([[0.0], np.cumsum(powers)])
    frames = np.arange(len(powers))
    before = (total[frames] - total[np.maximum(frames - _RISE_FRAMES, 0)]) / _RISE_FRAMES
    first = int(np.argmax(powers >= trigger))
    found = [_traced_back(envelope, read, first, 0, quiet)]
    for frame in np.flatnonzero((powers >= trigger) & (powers >= _RISE * before)):
        if frame - first >= _APART_FRAMES:
            # In the tail of the sound before nothing is quiet.
            found.append(_traced_back(envelope, read, int(frame), first + 1, max(quiet, 2 * before[frame])))
            first = int(frame)
    return found


def _traced_back(envelope: Envelope, read: Read, trigger: int, earliest: int, quiet: float) -> int:
    """The sample at which the rise begins that passes the trigger's frame."""
    frame, least = trigger, max(earliest, trigger - _RISE_FRAMES)
    while frame > least and envelope.powers[frame - 1] > quiet:
        frame -= 1
    begin = max(frame - 1, earliest) * envelope.frame
    end = min((trigger + 1) * envelope.frame, envelope.samples)
    level = np.abs(read(begin, end - begin) - envelope.offset).max(axis=0)
    above = np.flatnonzero(level > 2 * quiet**0.5)
    return begin + int(above[0]) if len(above) else frame * envelope.frame


def ending(envelope: Envelope, start: int, stop: int, trim_db: float | None) -> int:
    """The sample between ``start`` and ``stop`` after which the sound that begins at ``start`` is over.

    That is where 10 ms are last less than ``trim_db`` under its loudest one; a steady noise ends it sooner, but
    nothing does that is less than 40 dB under.
    """
    size = envelope.frame
    powers = envelope.powers[start // size : -(-stop // size)]
    if trim_db is None or not len(powers) or powers.max() == 0:
        return stop
    top = float(powers.max())
    threshold = max(top * power(-trim_db), min(envelope.floor * power(3), top * power(-40)))
    padded = np.pad(powers, (0, -len(powers) % _FLOOR_FRAMES))
    sounding = np.flatnonzero(padded.reshape(-1, _FLOOR_FRAMES).mean(axis=1) > threshold)
    last = (int(sounding[-1]) + 1) * _FLOOR_FRAMES if len(sounding) else len(powers)
    return min(stop, (start // size + last) * size)


def decays(envelope: Envelope, start: int, stop: int) -> bool:
    """Whether the last fifth of a sound is 15 dB under the first."""
    powers = envelope.powers[start // envelope.frame : -(-stop // envelope.frame)]
    fifth = max(1, len(powers) // 5)
    return bool(powers[-fifth:].mean() <= powers[:fifth].mean() * power(-15))


def held(envelope: Envelope, spans: Sequence[tuple[int, int]]) -> float:
    """Share of the recording's energy, less that of its noise, inside the spans (start, stop) of samples."""
    energy = np.maximum(envelope.powers - envelope.floor, 0)
    inside = np.zeros(len(energy), dtype=bool)
    for start, stop in spans:
        inside[max(start, 0) // envelope.frame : -(-stop // envelope.frame)] = True
    return float(energy[inside].sum() / energy.sum()) if energy.any() else 0.0
