"""What `prepare` does to one file: a pure function of the file and the settings, for any number of workers."""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gansound import audio
from gansound.audio import SILENT_PEAK_DB
from gansound.data.corpus import Entry

_MARGIN_SECONDS = 0.05
_PEAK_DB = -1.0
_NAME_BYTES = 255
_VERSION = 3  # of what comes of a file: outcomes of another one aren't reused
_LONG_SECONDS = 30.0
_WIDE = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")


@dataclass(frozen=True, slots=True)
class Processing:
    """What is made of every file.

    Args:
        sample_rate: of the result, in Hz; None leaves it.
        trim_db: silence at both ends that lies further than this under the loudest moment is cut, but for 50 ms; None
            cuts nothing.
        loudness_lufs: of the result (ITU-R BS.1770), less where the peak would pass -1 dB; None leaves it.
        min_seconds: what is shorter is dropped.
        enterable: a file of over 30 s in an encoding whose samples are found only from its start on (MP3, Ogg, ADPCM;
            see `audio.AudioInfo.seeks`) becomes FLAC, so that training needn't decode all before a segment.
    """

    sample_rate: int | None = None
    trim_db: float | None = None
    loudness_lufs: float | None = None
    min_seconds: float = 0.01
    enterable: bool = False

    def __post_init__(self) -> None:
        if self.sample_rate is not None and not audio.LOWEST_RATE <= self.sample_rate <= audio.HIGHEST_RATE:
            raise ValueError(
                f"sample rate must be between {audio.LOWEST_RATE:,} and {audio.HIGHEST_RATE:,} Hz, got "
                f"{self.sample_rate}"
            )
        if self.trim_db is not None and not 10 <= self.trim_db <= 120:
            raise ValueError(f"trim must be between 10 and 120 dB, got {self.trim_db:g}")
        if self.loudness_lufs is not None and not -60 <= self.loudness_lufs <= 0:
            raise ValueError(f"loudness must be between -60 and 0 LUFS, got {self.loudness_lufs:g}")
        if not self.min_seconds > 0:
            raise ValueError(f"min_seconds must be above 0, got {self.min_seconds:g}")

    @property
    def key(self) -> str:
        """Text that differs when the result may."""
        return json.dumps(asdict(self) | {"version": _VERSION}, sort_keys=True)

    def changes(self, info: audio.AudioInfo) -> bool:
        """Whether a file of this header becomes another one."""
        rated = self.sample_rate is not None and info.sample_rate != self.sample_rate
        return rated or self.trim_db is not None or self.loudness_lufs is not None or self.opens(info)

    def opens(self, info: audio.AudioInfo) -> bool:
        """Whether a file is copied that its segments can be found."""
        return self.enterable and not info.seeks and info.seconds > _LONG_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a file: what training reads, or the reason why it is dropped.

    It names no path: a corpus may be moved, or seen from another folder, and its outcomes stay true.
    """

    sample_rate: int = 0
    frames: int = 0
    channels: int = 0  # of the source
    seconds_in: float = 0.0
    trimmed_seconds: float = 0.0
    content: str = ""  # hash of rate and samples
    digest: str = ""  # of the file that training reads, see `audio.digest`
    cancels: bool = False  # its channels, when they are mixed
    bytes: int = 0  # of the copy, 0 where the source itself is read
    lowered_db: float = 0.0  # by so much the copy is quieter, which would have passed full scale
    dropped: str | None = None

    def place(self, entry: Entry, out: Path) -> Path:
        """The file that training reads."""
        return target(entry, out) if self.bytes else entry.path


def target(entry: Entry, out: Path) -> Path:
    """Where a file's copy goes. The old suffix stays in the name: kick.wav and kick.mp3 are two sounds.

    A name that would be longer so than file systems allow is cut.
    """
    *folders, name = entry.name.split("/")
    return out.joinpath("audio", *folders, f"{cut_name(name, _NAME_BYTES - len('.flac'))}.flac")


def cut_name(name: str, most_bytes: int) -> str:
    """A file's name; one of more than so many bytes is cut, and made its own by a hash of it."""
    raw = os.fsencode(name)
    if len(raw) <= most_bytes:
        return name
    kept = raw[: most_bytes - 35].decode("utf-8", "ignore")
    return f"{kept}~{hashlib.blake2b(raw, digest_size=8).hexdigest()}"


def process(entry: Entry, processing: Processing, out: Path) -> Outcome:
    """Decode a file once, and write `out/audio/NAME.flac` where the settings change its samples.

    Raises OSError when ``out`` can't be written; what is wrong with the file itself is in the outcome.
    """
    try:
        info = audio.probe(entry.path)
        if info.seconds < processing.min_seconds:
            return Outcome(dropped=f"{_said(info.seconds)} s, under --min-seconds {processing.min_seconds:g}")
        return _changed(entry, info, processing, out) if processing.changes(info) else _as_it_is(info)
    except audio.AudioError as error:
        return Outcome(dropped=str(error).removeprefix(f"{entry.path}: "))


def _as_it_is(info: audio.AudioInfo) -> Outcome:
    digest, peak = _digest(info.sample_rate), 0.0
    for block in audio.blocks(info.path):
        digest.update(block.tobytes())
        peak = max(peak, float(np.abs(block).max()))
    if _is_silent(peak):
        return Outcome(dropped=_SILENT)
    return Outcome(
        info.sample_rate,
        info.frames,
        info.channels,
        info.seconds,
        content=digest.hexdigest(),
        digest=audio.digest(info.path),
        cancels=audio.cancelling(info.path) is not None,
    )


def _changed(entry: Entry, info: audio.AudioInfo, processing: Processing, out: Path) -> Outcome:
    samples, rate = audio.read(info.path)
    if _is_silent(float(np.abs(samples).max())):
        return Outcome(dropped=_SILENT)
    whole = len(samples)
    if processing.trim_db is not None:
        _, (start, end) = audio.trim(samples, rate, top_db=processing.trim_db)
        margin = round(_MARGIN_SECONDS * rate)
        samples = samples[max(0, start - margin) : end + margin]
    trimmed = (whole - len(samples)) / rate
    wanted = processing.sample_rate or rate
    if audio.resampled_frames(len(samples), rate, wanted) < processing.min_seconds * wanted:
        left = _said(len(samples) / rate)
        return Outcome(
            dropped=f"{left} s are left after trimming, under --min-seconds {processing.min_seconds:g}"
        )
    same = len(samples) == whole and wanted == rate and processing.loudness_lufs is None
    if same and not processing.opens(info):
        return _as_it_is(info)  # there was nothing to cut
    if wanted != rate:
        samples = audio.resample(samples, rate, wanted)
    if processing.loudness_lufs is not None:
        samples = _as_loud(samples, wanted, processing.loudness_lufs)
    # FLAC has whole numbers, which end at full scale. What passes it is a file of floats, or came of resampling.
    peak = max(1.0, float(np.abs(samples).max()))
    samples = samples / np.float32(peak)
    copy = target(entry, out)
    copy.parent.mkdir(parents=True, exist_ok=True)
    audio.write(copy, samples, wanted, subtype="PCM_24" if info.subtype in _WIDE else "PCM_16")
    digest = _digest(wanted)
    digest.update(np.ascontiguousarray(samples).tobytes())
    return Outcome(
        wanted,
        len(samples),
        info.channels,
        info.seconds,
        trimmed,
        digest.hexdigest(),
        audio.digest(copy),
        audio.cancelling(info.path) is not None,
        copy.stat().st_size,
        20 * math.log10(peak),
    )


def _said(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


def _digest(rate: int) -> hashlib.blake2b:
    """Equal samples at two rates are two sounds."""
    return hashlib.blake2b(f"{rate}\0".encode(), digest_size=16)


def _as_loud(samples: np.ndarray, rate: int, target_lufs: float) -> np.ndarray:
    loudness = audio.loudness_lufs(samples, rate)
    if not np.isfinite(loudness):
        return samples  # too faint to have a loudness
    gain = min(target_lufs - loudness, _PEAK_DB - audio.peak_db(samples))
    return samples * np.float32(10 ** (gain / 20))


def _is_silent(peak: float) -> bool:
    return peak <= 10 ** (SILENT_PEAK_DB / 20)


_SILENT = f"silent, its peak isn't over {SILENT_PEAK_DB:.0f} dB"
