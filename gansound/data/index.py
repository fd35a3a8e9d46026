"""The index beside a large manifest: its lines and columns in one file that is mapped, not read.

The file holds a header (JSON, padded to 4 KiB), a copy of the manifest, and its columns as raw arrays. The copy is
what a run works from: whatever becomes of the manifest meanwhile, the mapped file keeps its inode and stays what it
was. Lines are fetched with ``pread``, so that they count as the system's cache and not as anyone's memory.
"""

import contextlib
import hashlib
import json
import logging
import mmap
import multiprocessing
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from gansound.data.manifest import check_values, parse_line
from gansound.data.records import Part, Records, Table, narrowed, number_of_split, parts_of
from gansound.data.store import is_url
from gansound.machine import usable_cores

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index"
_FORMAT = "gansound index 2"
_HEADER_BYTES = 4096
_EDGE_BYTES = 1 << 16
_CHUNK_BYTES = 8 << 20
_SAID_EVERY_SECONDS = 10.0
_OF_A_PART = ("rows", "frames", "sample_rates", "rates")


def open_index(manifest: str | os.PathLike[str]) -> Records:
    """The records of a manifest by its index, which is made where there is none or an older one.

    That goes beside the manifest, else into the user's cache, else into a temporary file.
    Raises ValueError naming file and line for what isn't a record, and for a manifest that changes meanwhile.
    """
    manifest = Path(manifest)
    places = [manifest.with_name(manifest.name + INDEX_SUFFIX), _in_cache(manifest)]
    with manifest.open("rb") as source:
        identity = _identity(source)
        if (records := _found(places, identity, manifest)) is not None:
            return records
        with locked(source):
            if (records := _found(places, identity, manifest)) is not None:
                return records  # another process made it while this one waited
            for place in places:
                try:
                    return _made(source, place, identity, manifest)
                except OSError as error:
                    logger.info("%s: no index can be kept there (%s)", place.parent, error.strerror)
            return _made(source, None, identity, manifest)


def write_index(place: Path, manifest: Path, digest: str | None = None) -> None:
    """The index of a manifest as a file that goes elsewhere, see :func:`map_index`. Raises as :func:`open_index`.

    ``digest``: as of :class:`Table`, in place of the manifest's own.
    """
    with manifest.open("rb") as source, place.open("xb+") as file:
        identity = _identity(source)
        own = _copy_lines(file, source, identity, manifest)
        write_columns(file, _columns(file, identity["bytes"], manifest), {}, digest or own)


def map_index(place: Path, store: str) -> Records:
    """The records of an index that lies at ``place``, whose sounds lie in the shards of ``store``.

    Raises ValueError where it is no index.
    """
    return Records(_mapped(place, None, place, store))


def _found(places: list[Path], identity: dict[str, Any], manifest: Path) -> Records | None:
    for place in places:
        with contextlib.suppress(OSError, _Stale):
            return Records(_mapped(place, identity, manifest))
    return None


def _in_cache(manifest: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(manifest.absolute()), digest_size=16).hexdigest()
    return cache_folder() / f"{name}{INDEX_SUFFIX}"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/gansound`, as a rule `~/.cache/gansound`."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gansound"
    except RuntimeError:  # a user without a home, as in containers
        return Path(os.devnull) / "gansound"  # where nothing can be kept


def _identity(source: BinaryIO) -> dict[str, Any]:
    """What tells a manifest from the same one edited."""
    status = os.fstat(source.fileno())
    edges = os.pread(source.fileno(), _EDGE_BYTES, 0)
    edges += os.pread(source.fileno(), _EDGE_BYTES, max(0, status.st_size - _EDGE_BYTES))
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "edges": hashlib.blake2b(edges, digest_size=16).hexdigest(),
    }


@contextlib.contextmanager
def locked(source: IO[bytes]) -> Iterator[None]:
    """One process of those that start together makes the index; without locks, as on some network disks, each does."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(source, fcntl.LOCK_EX)  # given back when the file is closed
    yield


@dataclass(frozen=True)
class MappedTable(Table):
    """A table that lies in an index; a process that is sent it maps it again."""

    place: Path
    identity: dict[str, Any] | None
    manifest: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.place, self.identity, self.manifest, self.store)


class _Stale(ValueError):
    """An index of another manifest, of an older one, or of another version."""


def _mapped(
    place: Path, identity: dict[str, Any] | None, manifest: Path, store: str | None = None
) -> MappedTable:
    """Open an index; _Stale when it isn't that of a manifest of this identity (None: of any)."""
    file = place.open("rb")
    try:
        header = json.loads(file.read(_HEADER_BYTES).rstrip(b"\0"))
        fits = header["format"] == _FORMAT and identity in (None, header["manifest"])
        whole = fits and os.fstat(file.fileno()).st_size == header["bytes"]
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        file.close()
        raise _Stale(f"{place}: is no index of {manifest}, or of an older one. Start again")
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    columns = {
        name: np.frombuffer(mapped, column["type"], column["count"], column["at"])
        if column["count"]
        else np.empty(0, column["type"])
        for name, column in header["columns"].items()
    }
    parts = {
        name: Part(
            columns.pop(f"{name}.rows"),
            columns.pop(f"{name}.frames"),
            columns.pop(f"{name}.sample_rates"),
            columns.pop(f"{name}.rates"),
            seconds=known["seconds"],
            fingerprint=known["fingerprint"],
        )
        for name, known in header["parts"].items()
    }
    return MappedTable(
        read=lambda start, stop: os.pread(file.fileno(), stop - start, _HEADER_BYTES + start),
        folder=manifest.parent if store is None else Path(),
        digest=header["digest"],
        name=store or str(manifest),
        store=store,
        waits=store is not None and is_url(store),
        place=place,
        identity=identity,
        manifest=manifest,
        parts=parts,
        **columns,
    )


def _made(source: BinaryIO, place: Path | None, identity: dict[str, Any], manifest: Path) -> Records:
    """Write an index beside its place, put it there and map it; with no place, one that goes with the process."""
    begun = time.monotonic()
    logger.info("%s: making an index of %.0f MB, once", manifest, identity["bytes"] / 1e6)
    if place is None:
        logger.info("%s: its index is kept in %s for this run", manifest, tempfile.gettempdir())
        with tempfile.NamedTemporaryFile(suffix=INDEX_SUFFIX) as temporary:
            _write(temporary, source, identity, manifest)
            return Records(_mapped(Path(temporary.name), identity, manifest))
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb+") as file:
            _write(file, source, identity, manifest)
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    records = Records(_mapped(place, identity, manifest))
    logger.info("%s: %d records indexed in %.1f s", manifest, len(records), time.monotonic() - begun)
    return records


def _write(file: Any, source: BinaryIO, identity: dict[str, Any], manifest: Path) -> None:
    digest = _copy_lines(file, source, identity, manifest)
    write_columns(file, _columns(file, identity["bytes"], manifest), identity, digest)


def _copy_lines(file: Any, source: BinaryIO, identity: dict[str, Any], manifest: Path) -> str:
    """A manifest's lines into a file that will be an index; their digest."""
    size = identity["bytes"]
    digest = hashlib.blake2b(digest_size=16)
    file.write(bytes(_HEADER_BYTES))
    for start in range(0, size, _CHUNK_BYTES):
        piece = os.pread(source.fileno(), min(_CHUNK_BYTES, size - start), start)
        digest.update(piece)
        file.write(piece)
    file.flush()
    now = manifest.stat()
    if (now.st_size, now.st_mtime_ns) != (size, identity["modified_ns"]) or file.tell() != (
        _HEADER_BYTES + size
    ):
        raise ValueError(f"{manifest}: changed while it was read. Start again when it is complete")
    return digest.hexdigest()


def write_columns(file: Any, columns: dict[str, np.ndarray], identity: dict[str, Any], digest: str) -> None:
    """Behind the lines of a file that will be an index its columns, and its header before them."""
    table = Table(
        lambda start, stop: b"",
        columns["offsets"],
        columns["frames"],
        columns["sample_rates"],
        columns["splits"],
        folder=Path(),
        digest=digest,
        name="",
    )
    header: dict[str, Any] = {
        "format": _FORMAT,
        "manifest": identity,
        "digest": digest,
        "columns": {},
        "parts": {},
    }
    for name, part in parts_of(table).items():
        columns = columns | {f"{name}.{of}": getattr(part, of) for of in _OF_A_PART}
        header["parts"][name] = {"seconds": part.seconds, "fingerprint": part.fingerprint}
    for name, column in columns.items():
        at = -(-file.tell() // 64) * 64
        file.seek(at)
        file.write(np.ascontiguousarray(column))
        header["columns"][name] = {"at": at, "count": len(column), "type": column.dtype.str}
    header["bytes"] = file.tell()
    file.truncate()  # where the last column is empty, to there
    file.seek(0)
    file.write(json.dumps(header).encode())
    file.flush()


def _columns(file: Any, size: int, manifest: Path) -> dict[str, np.ndarray]:
    """The columns of a copied manifest, parsed on all cores."""
    parts: list[_Part] = []
    lines, said = 0, time.monotonic()
    bounds = list(_bounds(file.fileno(), size))
    with on_all_cores(len(bounds), f"{manifest}: a process that indexed it") as mapping:
        for (start, stop), part in zip(
            bounds, mapping(_parsed, [(file.fileno(), *bound) for bound in bounds]), strict=True
        ):
            if part is None:
                _say_what_is_wrong(
                    os.pread(file.fileno(), stop - start, _HEADER_BYTES + start), lines, manifest
                )
            parts.append(part)
            lines += part.lines
            if time.monotonic() - said > _SAID_EVERY_SECONDS:
                said = time.monotonic()
                logger.info("%s: %d %% indexed", manifest, 100 * stop // size)
    if not sum(len(part.frames) for part in parts):
        raise ValueError(f"{manifest}: the manifest is empty. Run 'gansound data prepare' again")
    offsets = np.concatenate([*(part.offsets for part in parts), [size]])
    return {
        "offsets": narrowed(offsets),
        "frames": narrowed(np.concatenate([part.frames for part in parts])),
        "sample_rates": np.concatenate([part.sample_rates for part in parts]),
        "splits": np.concatenate([part.splits for part in parts]),
    }


@contextlib.contextmanager
def on_all_cores(count: int, killed: str) -> Iterator[Any]:
    """An ordered map over all cores where processes can be forked, which takes no time to speak of."""
    processes = min(usable_cores(), count)
    if processes > 1 and "fork" in multiprocessing.get_all_start_methods():
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"))
        try:
            yield pool.map
        except BrokenProcessPool:
            raise ValueError(
                f"{killed} was killed, for lack of memory as a rule. Start again when there is more"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    else:
        yield map


def _bounds(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of chunks that hold whole lines."""
    start = 0
    while start < size:
        stop = min(start + _CHUNK_BYTES, size)
        while stop < size:
            piece = os.pread(descriptor, _EDGE_BYTES, _HEADER_BYTES + stop)[: size - stop]
            if (end := piece.find(b"\n")) >= 0:
                stop += end + 1
                break
            stop += len(piece)
        yield start, stop
        start = stop


@dataclass
class _Part:
    """What a chunk says: ``offsets`` of its lines that hold a record, and how many lines it has."""

    offsets: np.ndarray
    frames: np.ndarray
    sample_rates: np.ndarray
    splits: np.ndarray
    lines: int


def _parsed(bound: tuple[int, int, int]) -> _Part | None:
    """The columns of a chunk; None when something in it is no record."""
    descriptor, start, stop = bound
    raw = os.pread(descriptor, stop - start, _HEADER_BYTES + start)
    lines = raw.split(b"\n")
    begins = np.cumsum([0, *(len(line) + 1 for line in lines[:-1])])
    filled = [i for i, line in enumerate(lines) if line.strip()]
    try:
        # At one go: a call a line takes twice as long.
        values = json.loads(b"[" + b",".join([lines[i] for i in filled]) + b"]")
        if len(values) != len(filled):
            return None
        for value in values:
            check_values(value, "")
    except ValueError:
        return None
    return _Part(
        offsets=start + begins[np.array(filled, dtype=np.int64)],
        frames=np.array([value["frames"] for value in values], dtype=np.int64),
        sample_rates=np.array([value["sample_rate"] for value in values], dtype=np.int32),
        splits=np.array([number_of_split(value.get("split")) for value in values], dtype=np.uint8),
        lines=raw.count(b"\n"),
    )


def _say_what_is_wrong(raw: bytes, lines_before: int, manifest: Path) -> None:
    """Raises ValueError that names the line."""
    for number, line in enumerate(raw.split(b"\n"), start=lines_before + 1):
        if line.strip():
            where = f"{manifest}:{number}"
            parse_line(line, manifest.parent, where)
    raise ValueError(f"{manifest}: lines {lines_before + 1} and after aren't one object each")
