"""What a file holds, whatever its header says: the one place that decides it.

libsndfile believes headers: of a cut file it gives what is there as if that were all, of several sounds one behind the
other the first, of an MP3 as much as a number at its start says. So the bytes are looked at first: how far they go, and
where another sound begins. What libsndfile would misread is shown to it through :class:`Splice`, with a right header.
"""

import io
import math
import os
import threading
from dataclasses import dataclass
from typing import TypeAlias

from gansound.audio import mpeg, ogg
from gansound.audio.containers import Read, extent

Piece: TypeAlias = bytes | tuple[int, int]
"""Bytes, or start and stop of some of the file's."""
Part: TypeAlias = tuple[Piece, ...]
"""What is decoded as one stream."""

_SLACK_BYTES = 512  # many a header counts itself, or a chunk behind the samples
_KEPT = 1 << 16
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class Contents:
    """What is to be decoded.

    Attributes:
        parts: sounds one behind the other; () for the file as it is.
        whole: how many times as long it was meant to be: 1 when nothing lacks, infinite when nobody knows.
        lost: samples a channel that it was meant to have besides.
    """

    parts: tuple[Part, ...] = ()
    whole: float = 1.0
    lost: int = 0


class PointerError(ValueError):
    """The file stands for one that is kept elsewhere."""


def contents(read: Read, size: int) -> Contents:
    """Of a file of ``size`` bytes. Raises PointerError for a Git LFS pointer."""
    if read(0, len(_POINTER)) == _POINTER:
        raise PointerError("a Git LFS pointer, not the sound itself. Fetch it: git lfs pull")
    at = mpeg.id3_bytes(read, 0)
    head = read(at, 4)
    if head == b"fLaC":
        return Contents()  # says how long it is, and every frame carries a checksum
    if head == b"OggS":
        return _ogg(read, at, size)
    if extent(read, at, size) is not None:
        return _containers(read, at, size)
    if mpeg.begins(read, at, size) or (at and mpeg.frame_length(head)):
        return _mpeg(read, at, size)
    return Contents()


def another_flac(read: Read, size: int) -> bool:
    """Whether a second FLAC stream lies behind the first, of which no header tells: all bytes are searched."""
    window = 1 << 20
    marker = b"fLaC\0\0\0\x22"  # its first block is always the one of 34 bytes that describes it
    return any(marker in read(at, window + 8) for at in range(mpeg.id3_bytes(read, 0) + 4, size, window))


def _ogg(read: Read, at: int, size: int) -> Contents:
    links, ended = ogg.links(read, at, size)
    return Contents(
        tuple(((start, stop),) for start, stop in links) if len(links) > 1 else (),
        1.0 if ended else math.inf,
    )


def _containers(read: Read, at: int, size: int) -> Contents:
    parts: list[Part] = []
    plain = True
    whole = 1.0
    while (found := extent(read, at, size)) is not None and found.start <= size:
        held = size - found.start
        if found.declared is None:
            plain = False
            parts.append((found.header(held), (found.start, size)))
            break
        if found.declared > held + _SLACK_BYTES:
            whole = found.declared / held if held else math.inf
            plain = False
            parts.append((found.header(held), (found.start, size)))
            break
        parts.append(((at, min(found.end, size)),))
        if found.end <= at or found.end >= size:
            break
        at = found.end
    return Contents(() if plain and len(parts) < 2 else tuple(parts), whole)


def _mpeg(read: Read, at: int, size: int) -> Contents:
    runs = [run for run in mpeg.runs(read, at, size) if run.count]
    lost = runs[-1].lost(read, size) if runs else 0
    if len(runs) == 1 and runs[0].declared(read)[0] == runs[0].count and len(runs[0].spans) == 1:
        return Contents()
    parts: list[Part] = [(run.leading(read), *((a, b) for a, b in run.spans)) for run in runs]
    return Contents(tuple(parts), lost=lost)


class Window:
    """Bytes of an open file by offset, read ahead: headers are looked at some bytes at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0
        self._bytes = b""

    def __call__(self, offset: int, count: int) -> bytes:
        first = offset - self._at
        if first < 0 or first + count > len(self._bytes):
            self._at, first = offset, 0
            self._bytes = os.pread(self._descriptor, max(count, 1 << 12), offset)
        return self._bytes[first : first + count]


class Splice(io.RawIOBase):
    """A file made of pieces of another one, to be read. Nothing raises: libsndfile couldn't take it."""

    def __init__(self, descriptor: int, part: Part) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._pieces = part
        self._ends: list[int] = []
        self._size = 0
        for piece in part:
            self._size += len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._ends.append(self._size)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), self._size)
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._at if count < 0 else min(count, self._size - self._at)
        got = []
        while left > 0 and (piece := self._piece(left)):
            got.append(piece)
            self._at += len(piece)
            left -= len(piece)
        return b"".join(got)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _piece(self, count: int) -> bytes:
        index = next(i for i, end in enumerate(self._ends) if end > self._at)
        piece = self._pieces[index]
        before = self._at - (self._ends[index - 1] if index else 0)
        if isinstance(piece, bytes):
            return piece[before : before + count]
        try:
            start = piece[0] + before
            return os.pread(self._descriptor, min(count, piece[1] - start), start)
        except OSError:
            return b""


Stamp: TypeAlias = tuple[int, int, int, int]
"""Device, inode, bytes and time of change: what tells a file from another one put in its place."""


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(slots=True)
class Known:
    """What was found out about a file, in this process, and holds as long as its stamp does."""

    contents: Contents
    frames: int | None = None  # counted by decoding
    channel: int | None = None  # the one that is taken, where mixing would cancel
    mixes: bool = False  # whether it was looked into


_known: dict[Stamp, Known] = {}
_lock = threading.Lock()


def known(descriptor: int, status: os.stat_result) -> Known:
    """What an open file holds. Raises PointerError as :func:`contents`."""
    key = stamp(status)
    found = _known.get(key)
    if found is None:
        found = Known(contents(Window(descriptor), status.st_size))
        with _lock:
            if len(_known) >= _KEPT:
                _known.clear()
            _known[key] = found
    return found
