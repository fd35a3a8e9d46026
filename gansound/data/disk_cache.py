"""Pieces of shards on the local disk, so that a store is asked once for what is drawn again and again.

A segment is cut anywhere, so the same range is never asked for twice: what is kept are pieces of 64 KiB, counted from
the beginning of each recording. Larger ones would save few requests more and cost bytes where the corpus doesn't fit.

    FOLDER/pieces/sizes        bytes in each of the 256 folders; who changes what lies there locks it
    FOLDER/pieces/7f/03c5 …    a piece and its CRC-32, named by a hash of the shard, the recording and the number
"""

import contextlib
import errno
import hashlib
import logging
import mmap
import os
import re
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gansound.data import store

logger = logging.getLogger(__name__)

_CHECK_BYTES = 4
PIECE_BYTES = (64 << 10) - _CHECK_BYTES  # a file of it fills its blocks
FOLDERS = 256
_BLOCK_BYTES = 4096
_NAME = re.compile(r"[0-9a-f]{38}")
_LOOKED_THROUGH = 512
_PATIENCE_SECONDS = 1.0
_FRESH_SECONDS = 60.0  # a piece used less long ago isn't marked as used again
_LEFT_SECONDS = 3600.0  # what is half written for so long was left by a kill


class DiskCache:
    """Up to ``most_bytes`` of the shards that are read from, below a folder; those used last stay.

    Any number of processes and threads may share the folder, each with a bound of its own. A piece that is cut or
    damaged is noticed and read anew. Where the disk is full or can't be written, that is said once, and what isn't
    there is read from the store.
    """

    def __init__(self, folder: str | os.PathLike[str], most_bytes: int) -> None:
        self.folder = Path(folder) / "pieces"
        self.most_bytes = most_bytes
        self._share_said()

    def _share_said(self) -> None:
        self._said = mmap.mmap(-1, 1)  # forked workers see each other's

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_said": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._share_said()

    def read(self, place: str, start: int, stop: int, *, of: tuple[int, int]) -> bytes:
        """Bytes ``start`` to ``stop`` - 1 of a shard, which lie in the recording of bytes ``of``. Raises StoreError."""
        begin, end = of
        first, last = (start - begin) // PIECE_BYTES, (stop - 1 - begin) // PIECE_BYTES
        pieces = [self._kept(place, of, number) for number in range(first, last + 1)]
        number = first
        while number <= last:
            after = number
            while after <= last and pieces[after - first] is None:
                after += 1
            if after > number:  # what lacks in a row is one request
                lowest, highest = begin + number * PIECE_BYTES, min(begin + after * PIECE_BYTES, end)
                raw = store.read(place, lowest, highest)
                for each in range(number, after):
                    piece = raw[(each - number) * PIECE_BYTES : (each - number + 1) * PIECE_BYTES]
                    pieces[each - first] = piece
                    self._keep(place, of, each, piece)
            number = after + 1
        offset = begin + first * PIECE_BYTES
        return b"".join(piece for piece in pieces if piece is not None)[start - offset : stop - offset]

    def _path(self, place: str, of: tuple[int, int], number: int) -> Path:
        digest = hashlib.blake2b(f"{place} {of[0]} {of[1]} {number}".encode(), digest_size=20).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def _kept(self, place: str, of: tuple[int, int], number: int) -> bytes | None:
        path = self._path(place, of, number)
        try:
            with path.open("rb", buffering=0) as file:
                raw = file.read()
                if time.time() - os.fstat(file.fileno()).st_mtime > _FRESH_SECONDS:
                    with contextlib.suppress(OSError):  # a disk that is only read
                        os.utime(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(error)
            return None
        piece, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        expected = min(PIECE_BYTES, of[1] - of[0] - number * PIECE_BYTES)
        if len(piece) == expected and check == _check(path, piece):
            return piece
        logger.info("%s: is damaged, and read from %s again", path, place)
        return None

    def _keep(self, place: str, of: tuple[int, int], number: int, piece: bytes) -> None:
        path = self._path(place, of, number)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_bytes(piece + _check(path, piece))
                with self._sizes() as sizes:
                    if sizes is None:
                        return  # busy: the next time
                    more = _occupied(len(piece) + _CHECK_BYTES)
                    with contextlib.suppress(FileNotFoundError):
                        more -= _occupied(path.stat().st_size)  # it is damaged, or another process was first
                    if self._make_room(sizes, more):
                        sizes[int(path.parent.name, 16)] += more
                        beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            self._say(error)

    @contextlib.contextmanager
    def _sizes(self) -> Iterator[np.ndarray | None]:
        """Bytes in each folder, to be changed by one process and thread alone; None where the others took too long."""
        with os.fdopen(os.open(self.folder / "sizes", os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0) as file:
            if not _locked(file):
                yield None
                return
            if len(raw := file.read()) == 8 * FOLDERS:
                sizes = np.frombuffer(raw, "<i8").copy()
            else:
                sizes = np.array([sum(size for _, size, _ in self._there(n)) for n in range(FOLDERS)], "<i8")
            try:
                yield sizes
            finally:
                file.seek(0)
                file.write(sizes.tobytes())

    def _make_room(self, sizes: np.ndarray, more: int) -> bool:
        """Remove what was used longest ago until there is room for ``more`` bytes; whether there is.

        Some hundred pieces of the fullest folders are looked through, and the oldest of them removed, an eighth at a
        time: pieces are dealt out by a hash, so these are about the oldest of all.
        """
        if more > self.most_bytes:
            return False
        while (over := int(sizes.sum()) + more - self.most_bytes) > 0:
            there: list[tuple[int, int, Path]] = []
            for number in np.argsort(-sizes):
                found = self._there(int(number))
                sizes[number] = sum(size for _, size, _ in found)  # as it is, whoever removed what
                there += found
                if len(there) >= _LOOKED_THROUGH:
                    break
            over = max(over, sum(size for _, size, _ in there) // 8)
            for _, size, path in sorted(there):
                if over <= 0:
                    break
                path.unlink(missing_ok=True)
                sizes[int(path.parent.name, 16)] -= size
                over -= size
        return True

    def _there(self, number: int) -> list[tuple[int, int, Path]]:
        """When each piece in a folder was last used, its size and path."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / f"{number:02x}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _NAME.fullmatch(entry.name):
                        found.append((status.st_mtime_ns, _occupied(status.st_size), Path(entry.path)))
                    elif entry.name.endswith(".tmp") and time.time() - status.st_mtime > _LEFT_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
        return found

    def _say(self, error: OSError) -> None:
        if self._said[0]:
            return
        self._said[0] = 1
        logger.warning(
            "%s: nothing can be kept there (%s); the run goes on, and reads from the store each time",
            self.folder,
            error.strerror,
        )


def _check(path: Path, piece: bytes) -> bytes:
    """Of a piece under its name, so that one that was put in another's place is noticed too."""
    return zlib.crc32(piece, zlib.crc32(path.name.encode())).to_bytes(_CHECK_BYTES, "little")


def _occupied(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _locked(file: Any) -> bool:
    """Whether a file is locked now, until it is closed; without locks, as on some network disks, it is as if."""
    try:
        import fcntl
    except ImportError:
        return True
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
