"""Audio files through soundfile (libsndfile): probe, read a segment by seeking."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

AUDIO_SUFFIXES: frozenset[str] = frozenset({
    ".wav", ".w64", ".rf64", ".caf", ".au", ".snd", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga", ".opus", ".mp3",
})  # fmt: skip
TAGS = frozenset({"title", "artist", "album", "comment", "copyright", "software", "genre", "tracknumber"})
"""What may stand in a file beside its sound."""


class AudioError(ValueError):
    """A file or an array that isn't usable audio: ``PATH: reason. What to do``."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says; ``frames`` counts samples of one channel."""

    path: Path
    sample_rate: int
    frames: int
    channels: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.sample_rate


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header only. Raises AudioError when the file is missing, unreadable or holds no samples."""
    path = Path(path)
    with _open(path) as file:
        return _info(path, file)


def read_tags(path: str | os.PathLike[str]) -> dict[str, str]:
    """What stands in a file beside its sound, of :data:`TAGS`. Raises AudioError as :func:`probe` does."""
    with _open(Path(path)) as file:
        found = {name: getattr(file, name) for name in sorted(TAGS)}
    return {name: text for name, text in found.items() if text}


def read(
    path: str | os.PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    mono: bool = True,
    check: Callable[[AudioInfo], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Decode ``frames`` samples from ``start`` on (to the end when None), by seeking; also the sample rate.

    ``check`` is shown the header of the file that is then decoded, and may raise: a file can be replaced between
    a probe and a read.

    Shape: float32 (T,) when ``mono`` (the mean of the channels), else (C, T), with T = frames.
    Raises AudioError: missing, unreadable, empty, truncated, non-finite, or shorter than asked.
    """
    path = Path(path)
    with _open(path) as file:
        if check is not None:
            check(_info(path, file))
        available = file.frames
        length = available - start if frames is None else frames
        if start < 0 or length < 1 or start + length > available:
            raise AudioError(
                f"{path}: asked for samples {start} to {start + length}, but it holds {available}. "
                "If a manifest named it, the file has changed since: run 'gansound data prepare' again"
            )
        if start:
            with _decoding(path):
                file.seek(start)
        return _take(path, file, start, length, mono), file.samplerate


def blocks(
    path: str | os.PathLike[str], *, block_samples: int = 1 << 20, mono: bool = True
) -> Iterator[np.ndarray]:
    """Decode a whole file piece by piece, so that memory stays flat; pieces as of :func:`read`."""
    path = Path(path)
    with _open(path) as file:
        for start in range(0, file.frames, block_samples):
            yield _take(path, file, start, min(block_samples, file.frames - start), mono)


class _Sound(soundfile.SoundFile):
    """A file that is read on from where it was put.

    soundfile asks where a seekable file stands, and seeks there, before and after every read: three seeks, each of
    which costs a FLAC file as much as decoding some thousand samples.
    """

    def seekable(self) -> bool:
        return False


def _open(path: Path) -> soundfile.SoundFile:
    try:
        status = path.stat()
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}. Check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path}: not a regular file. Name an audio file")
    if status.st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Delete it or copy it again")
    try:
        file = _Sound(path)
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        # TypeError: soundfile takes a .raw file for headerless samples and asks for their rate.
        raise AudioError(
            f"{path}: not audio that can be read ({reason(error)}). Readable are WAV, FLAC, Ogg, Opus, MP3, "
            "AIFF, AU and CAF; convert other formats first, for example with ffmpeg"
        ) from None
    if file.frames < 1 or file.frames >= 2**62:
        file.close()
        raise AudioError(f"{path}: the file has a header but no samples. Delete it or copy it again")
    return file


def _info(path: Path, file: soundfile.SoundFile) -> AudioInfo:
    return AudioInfo(path, file.samplerate, file.frames, file.channels, file.format, file.subtype)


def _take(path: Path, file: soundfile.SoundFile, start: int, length: int, mono: bool) -> np.ndarray:
    with _decoding(path):
        samples = file.read(length, dtype="float32", always_2d=True)
    if len(samples) < length:
        raise AudioError(
            f"{path}: truncated: decoding stopped at sample {start + len(samples)} of {file.frames}. "
            "Copy it again"
        )
    if not np.isfinite(samples).all():
        bad = start + int(np.argmin(np.isfinite(samples).all(axis=1)))
        raise AudioError(f"{path}: holds NaN or infinite samples, the first at sample {bad}. Render it again")
    if not mono:
        return np.ascontiguousarray(samples.T)
    return samples[:, 0].copy() if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: damaged: {reason(error)}. Copy or encode it again") from None


def reason(error: Exception) -> str:
    """What libsndfile says of an error, in its own words."""
    text = str(getattr(error, "error_string", "") or error)
    return text.removeprefix("Error : ").strip().rstrip(".") or type(error).__name__
