"""Audio files through soundfile (libsndfile): probe, read a segment by seeking, write whole or nothing."""

import contextlib
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile

logger = logging.getLogger(__name__)

# What a suffix means when writing: libsndfile's container, the default encoding, those allowed.
_PCM = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_WRITERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    ".wav": ("WAV", "PCM_16", ("PCM_U8", *_PCM)),
    ".w64": ("W64", "PCM_16", _PCM),
    ".rf64": ("RF64", "PCM_16", _PCM),
    ".caf": ("CAF", "PCM_16", ("PCM_S8", *_PCM)),
    ".au": ("AU", "PCM_16", ("PCM_S8", *_PCM)),
    ".aif": ("AIFF", "PCM_16", ("PCM_S8", *_PCM)),
    ".aiff": ("AIFF", "PCM_16", ("PCM_S8", *_PCM)),
    ".flac": ("FLAC", "PCM_16", ("PCM_S8", "PCM_16", "PCM_24")),
    ".ogg": ("OGG", "VORBIS", ("VORBIS", "OPUS")),
    ".oga": ("OGG", "VORBIS", ("VORBIS", "OPUS")),
    ".opus": ("OGG", "OPUS", ("OPUS",)),
    ".mp3": ("MP3", "MPEG_LAYER_III", ("MPEG_LAYER_III",)),
}
AUDIO_SUFFIXES: frozenset[str] = frozenset({*_WRITERS, ".aifc", ".snd"})
_INTEGER_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_FLOATS = ("FLOAT", "DOUBLE")
_WAV_LIMIT_BYTES = 2**32 - 2**16  # a RIFF header counts its bytes in 32 bits
TAGS = frozenset({"title", "artist", "album", "comment", "copyright", "software", "genre", "tracknumber"})
"""What may stand in a file beside its sound."""
TAG_LIMIT_BYTES = 2000  # of one tag: from 2048 on libsndfile writes none at all into a WAV file
_BLOCK_SAMPLES = 1 << 16  # one long write overflows libvorbis' stack


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
            f"{path}: not audio that can be read ({_reason(error)}). Readable are WAV, FLAC, Ogg, Opus, MP3, "
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
        raise AudioError(f"{path}: damaged: {_reason(error)}. Copy or encode it again") from None


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", "") or error)
    return text.removeprefix("Error : ").strip().rstrip(".") or type(error).__name__


class _Sink:
    """A file for libsndfile that remembers an OSError, which a C callback can't raise."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except OSError as error:  # a buffered write that comes due when seeking
            self.error = self.error or error
            return 0

    def tell(self) -> int:
        return self.file.tell()


class Writer:
    """Write a file piece by piece: beside its place first, renamed there when complete.

    ``with Writer(path, 22050) as writer: writer.append(audio)``; after an exception nothing is left.
    Integer encodings round to the nearest step, so a 16-bit file read and written again is the same; values
    beyond ±1 are clipped, counted in ``clipped`` and logged at the end. FLOAT and DOUBLE keep them.
    ``tags`` (of :data:`TAGS`) go into the file where its format has a place for them.
    Raises AudioError for a suffix, encoding, rate or tag that can't be; OSError (with the path) for a full disk.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        *,
        channels: int = 1,
        subtype: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.tags = dict(tags or {})
        if unknown := self.tags.keys() - TAGS:
            raise AudioError(
                f"{self.path}: no such tag as {min(unknown)!r}. Use some of {', '.join(sorted(TAGS))}"
            )
        for name, text in self.tags.items():
            if len(text.encode()) > TAG_LIMIT_BYTES:
                raise AudioError(
                    f"{self.path}: the tag {name} has {len(text.encode())} bytes, expected at most {TAG_LIMIT_BYTES}"
                )
        self.sample_rate = sample_rate
        self.channels = channels
        self.clipped = 0
        self.frames = 0
        suffix = self.path.suffix.lower()
        if suffix not in _WRITERS:
            raise AudioError(
                f"{self.path}: can't write audio with the suffix {suffix!r}. "
                f"Use one of {', '.join(sorted(_WRITERS))}"
            )
        self.format, default, allowed = _WRITERS[suffix]
        self.subtype = default if subtype is None else subtype.upper()
        if self.subtype not in allowed:
            raise AudioError(
                f"{self.path}: {suffix} can't hold {self.subtype} samples. Use one of {', '.join(allowed)}"
            )
        if self.path.exists() and not self.path.is_file():
            raise AudioError(f"{self.path}: is there already and not a regular file. Choose another name")
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        try:
            self._file = self._temporary.open("xb+")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        try:
            self._sink = _Sink(self._file)
            self._sound = soundfile.SoundFile(
                self._sink, "w", self.sample_rate, self.channels, self.subtype, format=self.format
            )
            for name, value in self.tags.items():
                setattr(self._sound, name, value)
        except (soundfile.SoundFileError, ValueError, TypeError, OverflowError) as error:
            self._discard()
            raise AudioError(
                f"{self.path}: can't write {self.channels} channels at {self.sample_rate} Hz as "
                f"{self.subtype}: {_reason(error)}. Choose another rate or format, and give audio as (C, T)"
            ) from None
        return self

    def append(self, audio: np.ndarray) -> None:
        """Add samples: (T,) for one channel, else (C, T). Raises AudioError for NaN and for another shape."""
        samples = np.atleast_2d(np.asarray(audio))
        if samples.ndim != 2 or samples.shape[0] != self.channels or samples.dtype.kind != "f":
            raise AudioError(
                f"{self.path}: got {samples.dtype} samples of shape {np.shape(audio)}, expected floating-point "
                f"ones between -1 and 1 of shape {'(T,)' if self.channels == 1 else f'({self.channels}, T)'}"
            )
        if not np.isfinite(samples).all():
            raise AudioError(
                f"{self.path}: refusing to write NaN or infinite samples. Look at where they come from"
            )
        if self.subtype not in _FLOATS:
            self.clipped += int(np.count_nonzero(np.abs(samples) > 1.0))
        for start in range(0, samples.shape[1], _BLOCK_SAMPLES):
            self._sound.write(self._encode(samples[:, start : start + _BLOCK_SAMPLES].T))
            self._check()
        self.frames += samples.shape[1]
        if self.format == "WAV" and self._file.tell() > _WAV_LIMIT_BYTES:
            raise AudioError(f"{self.path}: a WAV file holds 4 GiB at most. Write .flac or .w64")

    def _encode(self, samples: np.ndarray) -> np.ndarray:
        # libsndfile scales by 2^(bits-1) - 1 on writing but by 2^(bits-1) on reading: integers would change.
        bits = _INTEGER_BITS.get(self.subtype)
        if bits is None:
            clipped = samples if self.subtype in _FLOATS else samples.clip(-1.0, 1.0)
            return clipped.astype(np.float64 if self.subtype == "DOUBLE" else np.float32)
        scale = 2.0 ** (bits - 1)
        steps = np.rint(samples.astype(np.float64) * scale).clip(-scale, scale - 1)
        container = 16 if bits <= 16 else 32
        return (steps * 2.0 ** (container - bits)).astype(np.int16 if container == 16 else np.int32)

    def _check(self) -> None:
        if self._sink.error is not None:
            error = self._sink.error
            raise OSError(error.errno, error.strerror, str(self.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._sound.close()
            if kind is None:
                self._check()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary.replace(self.path)
        except OSError as failure:
            raise OSError(failure.errno, failure.strerror, str(self.path)) from None
        finally:
            self._discard()
        if kind is None and self.clipped:
            logger.warning("%s: clipped %d samples of %d beyond ±1", self.path, self.clipped, self.frames)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def write(
    path: str | os.PathLike[str],
    audio: np.ndarray,
    sample_rate: int,
    *,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Write (T,) or (C, T) to WAV, FLAC, Ogg, Opus or MP3 by suffix; returns how many samples were clipped.

    The encoding is 16-bit, or the suffix's lossy one, unless ``subtype`` (PCM_24, FLOAT, …) says otherwise.
    Atomic, and never wraps: see :class:`Writer`.
    """
    audio = np.asarray(audio)
    if audio.ndim not in (1, 2) or audio.size == 0:
        raise AudioError(f"{path}: got an array of shape {audio.shape}, expected samples (T,) or (C, T)")
    with Writer(
        path, sample_rate, channels=1 if audio.ndim == 1 else audio.shape[0], subtype=subtype, tags=tags
    ) as writer:
        writer.append(audio)
    return writer.clipped
