"""Sound to a file through soundfile (libsndfile): whole or not at all, at a rate that its encoding has."""

import contextlib
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile

from gansound.audio.files import TAGS, AudioError, reason
from gansound.audio.signal import Resampler

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
# Of the encodings that have some rates only, in Hz.
_RATES: dict[str, tuple[int, ...]] = {
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
SUBTYPE_OF_BITS = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}
"""What a command's --bits stands for."""
_INTEGER_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_FLOATS = ("FLOAT", "DOUBLE")
_WAV_LIMIT_BYTES = 2**32 - 2**16  # a RIFF header counts its bytes in 32 bits
TAG_LIMIT_BYTES = 2000  # of one tag: from 2048 on libsndfile writes none at all into a WAV file
_BLOCK_SAMPLES = 1 << 16  # one long write overflows libvorbis' stack


class _Sink:
    """A file for libsndfile that remembers what was raised: a C callback can't, be it a full disk or Ctrl-C."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            if self.error is None:
                self.file.write(data)
        except BaseException as error:
            self.error = error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except BaseException as error:  # a buffered write comes due when seeking
            self.error = self.error or error
            return 0

    def tell(self) -> int:
        return self.file.tell()


class Writer:
    """Write a file piece by piece: beside its place first, renamed there when complete.

    ``with Writer(path, 22050) as writer: writer.append(audio)``; after an exception nothing is left.
    Opus and MP3 have some rates only: what has another is resampled to the next above (or the greatest), and that is
    logged. Integer encodings round to the nearest step, so a 16-bit file read and written again is the same; values
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
        self.sample_rate = sample_rate
        rates = _RATES.get(self.subtype, (sample_rate,))
        self.written_rate = next((rate for rate in rates if rate >= sample_rate), rates[-1])
        if self.path.exists() and not self.path.is_file():
            raise AudioError(f"{self.path}: is there already and not a regular file. Choose another name")
        # Cut: what is legal as a name is still legal with this around it.
        self._temporary = self.path.with_name(f".{self.path.name[:40]}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        try:
            self._file = self._temporary.open("xb+")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        try:
            self._resampler = Resampler(self.sample_rate, self.written_rate, self.channels)
            self._sink = _Sink(self._file)
            self._sound = soundfile.SoundFile(
                self._sink, "w", self.written_rate, self.channels, self.subtype, format=self.format
            )
            for name, value in self.tags.items():
                setattr(self._sound, name, value)
        except (soundfile.SoundFileError, ValueError, TypeError, OverflowError) as error:
            self._discard()
            raise AudioError(
                f"{self.path}: can't write {self.channels} channels at {self.sample_rate} Hz as "
                f"{self.subtype}: {reason(error)}. Choose another rate or format, and give audio as (C, T)"
            ) from None
        except BaseException:
            self._discard()
            raise
        if self.written_rate != self.sample_rate:
            logger.info(
                "%s: resampled from %d Hz to %d Hz, a rate that %s has",
                self.path, self.sample_rate, self.written_rate, self.path.suffix.lower().removeprefix("."),
            )  # fmt: skip
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
        self._put(self._resampler.push(samples))

    def _put(self, samples: np.ndarray) -> None:
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
        error = self._sink.error
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(self.path))
        if error is not None:
            raise error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._put(self._resampler.flush())
            self._sound.close()
            if kind is None:
                self._check()
                self._forget_when()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary.replace(self.path)
        except OSError as failure:
            raise OSError(failure.errno, failure.strerror, str(self.path)) from None
        finally:
            self._discard()
        if kind is None and self.clipped:
            count = f"{self.clipped} sample{'s' * (self.clipped != 1)}"
            logger.warning("%s: clipped %s of %d beyond ±1", self.path, count, self.frames)

    def _forget_when(self) -> None:
        """Zero the time in a float WAV file, which libsndfile writes beside its peak: the same sound, the same file."""
        if self.format != "WAV" or self.subtype not in _FLOATS:
            return
        at = 12  # behind RIFF, its size and WAVE: chunks, each a name, a size and so many bytes, to an even number
        while True:
            self._file.seek(at)
            name, size = self._file.read(4), int.from_bytes(self._file.read(4), "little")
            if name in (b"", b"data"):
                return
            if name == b"PEAK":
                self._file.seek(at + 12)  # behind its version
                self._file.write(bytes(4))
                return
            at += 8 + size + size % 2

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
