"""Read audio files through soundfile (libsndfile): probe, a segment, or piece by piece.

What a file holds is decided in :mod:`gansound.audio.contents`. Samples are the same however they are asked for: of
formats that can't be entered at any sample exactly (see ``EXACT_SEEKS``) all before them is decoded, too.
"""

import contextlib
import hashlib
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile

from gansound.audio.contents import Known, PointerError, Splice, Stamp, Window, another_flac, known, stamp

AUDIO_SUFFIXES: frozenset[str] = frozenset(
    {".wav", ".wave", ".bwf", ".w64", ".rf64", ".caf", ".au", ".snd", ".aif", ".aiff", ".aifc", ".flac"}
    | {".ogg", ".oga", ".opus", ".mp3", ".mp2", ".sph", ".nist"}
)
"""Of files that are taken for audio in a folder; a file that is named is read whatever its suffix."""
TAGS = frozenset({"title", "artist", "album", "comment", "copyright", "software", "genre", "tracknumber"})
"""What may stand in a file beside its sound."""
LOWEST_RATE, HIGHEST_RATE = 1000, 384_000
"""Hz; a header that says another rate is wrong, and what it says would be asked of memory."""
EXACT_SEEKS = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})
"""Encodings, FLAC's among them, in which libsndfile finds any sample: in MP3 four of ten seeks gave wrong samples, in
Vorbis one of ten (libsndfile 1.2.2), and some have no seeks at all."""

_UNKNOWN_FRAMES = 2**62
_MOST_SAMPLES_A_BYTE = 8192  # FLAC keeps 65,535 samples of silence in 11 bytes
_PIECE_SAMPLES = 1 << 22  # decoded at a time, so that memory is what is there and not what a header says
_CANCELS = 0.01
_UNBOUNDED = frozenset({"FLOAT", "DOUBLE"})  # subtypes of any values
_LOUDEST = 32.0  # 30 dB over full scale
_EDGE_BYTES = 4096


class AudioError(ValueError):
    """A file or an array that isn't usable audio: ``PATH: reason. What to do``."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file holds; ``frames`` counts samples of one channel, ``stamp`` tells it from one put in its place."""

    path: Path
    sample_rate: int
    frames: int
    channels: int
    format: str
    subtype: str
    stamp: Stamp = field(repr=False)

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.sample_rate

    @property
    def seeks(self) -> bool:
        """Whether a segment is read without what comes before it."""
        return self.subtype in EXACT_SEEKS


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """What a file holds, without decoding it.

    Raises AudioError when it is missing, unreadable, cut, holds no samples or says what can't be.
    """
    with _Sound(path) as sound:
        return sound.info


def read_tags(path: str | os.PathLike[str]) -> dict[str, str]:
    """What stands in a file beside its sound, of :data:`TAGS`. Raises AudioError as :func:`probe` does."""
    with _Sound(path) as sound:
        return sound.tags()


def read(
    path: str | os.PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    mono: bool = True,
    check: Callable[[AudioInfo], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Decode ``frames`` samples from ``start`` on (to the end when None); also the sample rate.

    ``check`` is shown what the file holds that is then decoded, and may raise: a file can be replaced between
    a probe and a read.

    Shape: float32 (T,) when ``mono`` (the mean of the channels; where they would cancel, as in a recording with one
    channel upside down, the strongest of them: :func:`cancelling`), else (C, T), with T = frames.
    Raises AudioError: missing, unreadable, empty, truncated, non-finite, or shorter than asked.
    """
    with _Sound(path) as sound:
        if check is not None:
            check(sound.info)
        available = sound.info.frames
        if frames is None:
            sound.check_end()
        length = available - start if frames is None else frames
        if start < 0 or length < 1 or start + length > available:
            raise AudioError(
                f"{sound.path}: asked for samples {start} to {start + length}, but it holds {available}. "
                "If a manifest named it, the file has changed since: run 'gansound data prepare' again"
            )
        sound.go(start)
        return sound.take(length, mono), sound.info.sample_rate


def blocks(
    path: str | os.PathLike[str], *, block_samples: int = 1 << 20, mono: bool = True
) -> Iterator[np.ndarray]:
    """Decode a whole file piece by piece, so that memory stays flat; pieces as of :func:`read`."""
    with _Sound(path) as sound:
        sound.check_end()
        for start in range(0, sound.info.frames, block_samples):
            yield sound.take(min(block_samples, sound.info.frames - start), mono)


def cancelling(path: str | os.PathLike[str]) -> int | None:
    """The channel that is read as mono, from 0, where mixing a file's channels would cancel them; else None.

    They cancel where their mean is 20 dB under that of channels that have nothing to do with each other.
    """
    with _Sound(path) as sound:
        return sound.channel()


def digest(path: str | os.PathLike[str]) -> str:
    """What tells a file from another one of the same length without reading it all: 64 bits in hexadecimal.

    Of its size, and of 4 KiB at its start, middle and end. Raises AudioError where it can't be opened.
    """
    with _opened(Path(path)) as (descriptor, status):
        size = status.st_size
        places = sorted({0, max(0, size // 2 - _EDGE_BYTES // 2), max(0, size - _EDGE_BYTES)})
        pieces = [os.pread(descriptor, _EDGE_BYTES, place) for place in places]
    return hashlib.blake2b(b"".join((b"%d\0" % size, *pieces)), digest_size=8).hexdigest()


class _Stream(soundfile.SoundFile):
    """A file that is read on from where it was put.

    soundfile asks where a seekable file stands, and seeks there, before and after every read: three seeks, each of
    which costs a FLAC file as much as decoding some thousand samples.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file, opened; a pipe of that name can't hang it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}. Check the path") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{path}: not a regular file. Name an audio file")
        yield descriptor, status
    finally:
        os.close(descriptor)


class _Sound:
    """An audio file, open: all that it holds, in order, from the start or where :meth:`go` put it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held:
            self._descriptor, status = held.enter_context(_opened(self.path))
            if status.st_size == 0:
                raise AudioError(f"{self.path}: the file is empty (0 bytes). Copy it again")
            self._size = status.st_size
            try:
                self._known: Known = known(self._descriptor, status)
            except PointerError as error:
                raise AudioError(f"{self.path}: {error}") from None
            self._streams = self._stream_all(held)
            self.info = self._info(status)
            self._current, self._at = 0, 0
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def _stream_all(self, held: contextlib.ExitStack) -> list[_Stream]:
        parts = self._known.contents.parts
        sources: list[Any] = [Splice(self._descriptor, part) for part in parts] or [self._descriptor]
        streams = []
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for source in sources:
            try:
                streams.append(held.enter_context(contextlib.closing(_Stream(source, closefd=False))))
            except (soundfile.SoundFileError, TypeError, OSError) as error:
                raise AudioError(
                    f"{self.path}: not audio that can be read ({reason(error)}). Readable are WAV, FLAC, Ogg, Opus, "
                    "MP3, AIFF, AU and CAF; convert other formats first, for example with ffmpeg"
                ) from None
        return streams

    def _info(self, status: os.stat_result) -> AudioInfo:
        first = self._streams[0]
        kinds = {(stream.samplerate, stream.channels) for stream in self._streams}
        if len(kinds) > 1:
            each = ", ".join(f"{rate} Hz with {channels}" for rate, channels in sorted(kinds))
            raise AudioError(
                f"{self.path}: holds several sounds one behind the other, of different rates or numbers of channels "
                f"({each}). Make them files of their own, for example with ffmpeg"
            )
        rate = first.samplerate
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(
                f"{self.path}: header says {rate:,} Hz, expected {LOWEST_RATE:,} to {HIGHEST_RATE:,}. Is it right "
                "but for that, put the right rate into the header, for example with sox -r"
            )
        frames = self._frames()
        held = self._known.contents
        if frames < 1:
            raise AudioError(
                f"{self.path}: "
                + (
                    "holds a header and no samples"
                    if held.whole == 1
                    else "cut behind its header: no samples are there"
                )
                + ". Copy it again"
            )
        if (meant := frames * held.whole + held.lost) != frames:
            said = (
                "it ends without its last page"
                if math.isinf(meant)
                else (f"header says {meant / rate:.2f} s")
            )
            raise AudioError(
                f"{self.path}: cut: {said}, file holds {frames / rate:.2f} s. Copy it again; where there is no more "
                "of it, save what is there as another file, for example with ffmpeg"
            )
        if frames > _MOST_SAMPLES_A_BYTE * self._size:
            raise AudioError(
                f"{self.path}: header says {frames:,} samples, of which {self._size:,} bytes can't be. Copy it again"
            )
        return AudioInfo(self.path, rate, frames, first.channels, first.format, first.subtype, stamp(status))

    def _frames(self) -> int:
        """Samples a channel; counted by decoding where the header of the only stream doesn't say."""
        if len(self._streams) > 1 or self._streams[0].frames < _UNKNOWN_FRAMES:
            return sum(stream.frames for stream in self._streams)
        if self._known.frames is None:
            count = 0
            whole = Splice(self._descriptor, ((0, self._size),))  # with a place of its own in the file
            with self._decoding(), _Stream(whole, closefd=False) as stream:
                while piece := len(stream.read(_PIECE_SAMPLES // stream.channels, dtype="float32")):
                    count += piece
            self._known.frames = count
        return self._known.frames

    def tags(self) -> dict[str, str]:
        """Those of :data:`TAGS` that it has."""
        found = {name: getattr(self._streams[0], name) for name in sorted(TAGS)}
        return {name: text for name, text in found.items() if text}

    def check_end(self) -> None:
        """For who reads all of it. Raises AudioError when more lies behind it, which can't be read."""
        if self.info.format == "FLAC" and another_flac(Window(self._descriptor), self._size):
            raise AudioError(
                f"{self.path}: a second FLAC file lies behind the first {self.info.seconds:.2f} s. Make them files of "
                "their own, for example with ffmpeg"
            )

    def go(self, start: int) -> None:
        """To a sample, from the first one."""
        if not start:
            return
        if len(self._streams) == 1 and self.info.seeks:
            with self._decoding():
                self._streams[0].seek(start)
            self._at = start
            return
        while self._at < start:
            self._piece(min(start - self._at, _PIECE_SAMPLES // self.info.channels))

    def take(self, length: int, mono: bool) -> np.ndarray:
        """The next samples."""
        pieces, left = [], length
        channel = self.channel() if mono else None
        while left:
            first = self._at
            samples = self._piece(min(left, max(1, _PIECE_SAMPLES // self.info.channels)))
            if not np.isfinite(samples).all():
                bad = first + int(np.argmin(np.isfinite(samples).all(axis=1)))
                raise AudioError(
                    f"{self.path}: holds NaN or infinite samples, the first at sample {bad}. Render it again"
                )
            if self.info.subtype in _UNBOUNDED and (loudest := float(np.abs(samples).max())) > _LOUDEST:
                raise AudioError(
                    f"{self.path}: holds samples up to {loudest:.6g}, expected -1 to 1. Whole numbers of 16 bits, "
                    "saved as floating-point ones? Divide them by 32768"
                )
            left -= len(samples)
            pieces.append(mixed(samples, channel) if mono else samples)
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return whole if mono else np.ascontiguousarray(whole.T)

    def _piece(self, length: int) -> np.ndarray:
        """Up to so many of the next samples, one or more: (T, C). Raises AudioError when none are left."""
        while True:
            with self._decoding():
                samples = self._streams[self._current].read(length, dtype="float32", always_2d=True)
            if len(samples):
                self._at += len(samples)
                return samples
            if self._current + 1 == len(self._streams):
                raise AudioError(
                    f"{self.path}: truncated: decoding stopped at sample {self._at} of {self.info.frames}. "
                    "Copy it again"
                )
            self._current += 1

    def channel(self) -> int | None:
        """See :func:`cancelling`; decodes all of a file of several channels, once a process."""
        if self.info.channels == 1:
            return None
        if not self._known.mixes:
            powers, mixed = np.zeros(self.info.channels), 0.0
            with contextlib.suppress(AudioError), _Sound(self.path) as other:  # what goes before counts
                while other._at < other.info.frames:
                    samples = other._piece(_PIECE_SAMPLES // other.info.channels).astype(np.float64)
                    powers += np.square(samples).sum(axis=0)
                    mixed += float(np.square(samples.mean(axis=1)).sum())
            cancel = mixed < _CANCELS * powers.sum() / self.info.channels**2
            self._known.channel = int(np.argmax(powers)) if cancel else None
            self._known.mixes = True
        return self._known.channel

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(f"{self.path}: damaged: {reason(error)}. Copy or encode it again") from None


def mixed(samples: np.ndarray, channel: int | None) -> np.ndarray:
    """(T, C) as mono (T,): the channel that is given, or the mean of all."""
    if channel is not None or samples.shape[1] == 1:
        return samples[:, channel or 0].copy()
    return samples.mean(axis=1, dtype=np.float32)


def reason(error: Exception) -> str:
    """Libsndfile's words."""
    text = str(getattr(error, "error_string", "") or error)
    return text.removeprefix("Error : ").strip().rstrip(".") or type(error).__name__
