"""Write shards: the recordings of a manifest into tar files, at a path or a URL (see `gansound.data.shards`).

A shard is a function of its records alone, and its lines are put beside it after it is there whole: so a second run
does only what lacks, and ``shards.json``, by which the rest is found, is written last.
"""

import collections
import contextlib
import functools
import hashlib
import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gansound import audio
from gansound.data import store
from gansound.data.corpus import in_threads
from gansound.data.index import write_index
from gansound.data.manifest import ENCODINGS, Record, Stored, as_values, json_line, parse_line
from gansound.data.prepare import Run
from gansound.data.records import Records
from gansound.data.shards import ABOUT, INDEX, About
from gansound.data.slices import Slice

SHARD_BYTES = 256 << 20
"""Of 16-bit mono; where recordings aren't, shards are larger."""
_VERSION = 1  # of what lies in a shard
_IN_16_BITS = ("PCM_16", "PCM_S8", "PCM_U8")
_MOST_BYTES = 2**32 - 2**16  # a RIFF header counts its bytes in 32 bits


def check_place(place: str) -> None:
    """Raises ValueError where shards can't be written to a place, as far as that is known beforehand."""
    store.check(place)
    if not store.is_url(place) and Path(place).exists() and not Path(place).is_dir():
        raise ValueError(f"{place}: is there already and not a folder")
    if store.is_read_only(place):
        raise ValueError(f"{place}: can't be written, a web server only gives. Name a bucket or a folder")
    if store.is_url(place):  # a bucket that isn't there is no surprise for after hours of preparing
        with contextlib.suppress(store.NotThere):
            store.read(store.join(place, ABOUT), 0, 1)


def write_shards(
    records: Sequence[Record],
    place: str,
    *,
    names_below: Sequence[Path] = (),
    shard_bytes: int = SHARD_BYTES,
    jobs: int | None = None,
    part: Slice | None = None,
    run: Run | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> About | None:
    """Write the recordings of some records to a path or URL, in shards; what is there already of a killed run stays.

    The records as ``open_corpus`` gives them: what is opened at ``place`` has their fingerprint, and gives the same
    samples to the bit. They are kept in 16 bits where these hold them exactly, else as float32, in all their channels.

    Args:
        records: of files, each with its split.
        place: a folder or a URL of fsspec.
        names_below: folders from which the names of files are told; of others the name alone is kept.
        shard_bytes: how large a shard gets, about.
        jobs: shards that are written at once, all cores by default.
        part: write only a slice of the shards, beside others on other machines; once all are there, a run without it
            writes what they are found by.
        run: what writes each shard instead of threads, as of ``prepare``.
        progress: called with the number of recordings done, and of all.

    Returns:
        What was written; None of a slice.

    Raises:
        ValueError: other shards are there, the store doesn't take them, or a file isn't what its record says.
    """
    check_place(place)
    if not records:
        raise ValueError("got no records to write into shards, expected one or more")
    below = [folder.absolute() for folder in names_below]
    parts = list(_parts(records, shard_bytes))
    identity = _identity(records, below, shard_bytes)
    if store.size(store.join(place, ABOUT)) is not None:
        there = About.read(place)
        if there.id == identity:
            if progress is not None:
                progress(len(records), len(records))
            return there
        raise ValueError(
            f"{place}: holds shards of another corpus ({there.records} recordings, {there.hours:.1f} h). Remove "
            "them, or choose another place: a run may read from them"
        )
    folder = store.join(place, identity)
    numbers = range(len(parts)) if part is None else part.of(range(len(parts)))
    run = run or functools.partial(in_threads, threads=jobs)
    written = run(functools.partial(_shard, records, below, folder), [(n, *parts[n]) for n in numbers])

    def told() -> Iterator[bytes]:
        done = 0
        for number, lines in zip(numbers, written, strict=True):
            done += parts[number][1] - parts[number][0]
            if progress is not None:
                progress(done, len(records))
            yield lines

    if part is not None:
        collections.deque(told(), maxlen=0)
        return None
    with tempfile.TemporaryDirectory(prefix="gansound-") as temporary:
        manifest, index = Path(temporary) / "manifest.jsonl", Path(temporary) / INDEX
        with manifest.open("wb") as file:
            for lines in told():
                file.write(lines)
        write_index(index, manifest, records.table.digest if isinstance(records, Records) else None)
        digest, size = hashlib.blake2b(digest_size=16), 0
        with (
            store.writing(store.join(folder, INDEX)) as target,
            index.open("rb") as made,
            target.open("wb") as copy,
        ):
            while piece := made.read(1 << 20):
                digest.update(piece)
                size += copy.write(piece)
    columns = Records.of(records)
    about = About(
        id=identity,
        records=len(records),
        hours=round(columns.seconds / 3600, 3),
        sample_rates=[int(rate) for rate in columns.rates],
        index_bytes=size,
        index_digest=digest.hexdigest(),
        listed=not isinstance(records, Records),
    )
    with store.writing(store.join(place, ABOUT)) as target:
        target.write_bytes(about.written([(_name(i), stop - start) for i, (start, stop) in enumerate(parts)]))
    return about


def _name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def _parts(records: Sequence[Record], shard_bytes: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 of the records of each shard."""
    ends = 2 * np.cumsum(Records.of(records).frames, dtype=np.int64)
    start = 0
    while start < len(records):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + shard_bytes, side="right")))
        yield start, stop
        start = stop


def _identity(records: Sequence[Record], below: Sequence[Path], shard_bytes: int) -> str:
    digest = hashlib.blake2b(f"{_VERSION} {shard_bytes}\n".encode(), digest_size=8)
    for record in records:
        digest.update(json_line(as_values(_told(record, below))))
    return digest.hexdigest()


def _told(record: Record, below: Sequence[Path]) -> Record:
    """The record with a name in place of its path."""
    path = record.path.absolute()
    for folder in below:
        if path.is_relative_to(folder):
            return replace(record, path=path.relative_to(folder))
    return replace(record, path=Path(path.name))


def _shard(
    records: Sequence[Record], below: Sequence[Path], folder: str, part: tuple[int, int, int]
) -> bytes:
    """Write a shard, of its number and its records' bounds, where it isn't there; the lines of its records."""
    number, start, stop = part
    place = store.join(folder, _name(number))
    beside = store.join(folder, _name(number).replace(".tar", ".jsonl"))
    if (lines := _written(place, beside, stop - start)) is not None:
        return lines
    made = []
    with (
        store.writing(place) as target,
        target.open("wb") as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for row in range(start, stop):
            record = records[row]
            told = _told(record, below)
            stored = _add(tar, file, record, f"{row:09d}", told, _name(number))
            made.append(json_line(as_values(replace(told, stored=stored))))
    with store.writing(beside) as target:
        target.write_bytes(b"".join(made))
    return b"".join(made)


def _written(place: str, beside: str, count: int) -> bytes | None:
    """The lines of a shard that an earlier run wrote."""
    if store.size(beside) is None or (size := store.size(place)) is None:
        return None
    lines = store.read(beside)
    try:
        made = [parse_line(line, Path(), beside) for line in lines.splitlines()]
    except ValueError:
        return None
    last = made[-1].stored if made else None
    return lines if len(made) == count and last is not None and size > last.at else None


def _add(tar: tarfile.TarFile, file: BinaryIO, record: Record, key: str, told: Record, shard: str) -> Stored:
    """Put a recording into a tar file that is being written, and what is known of it."""
    try:
        info = audio.probe(record.path)
        same = (info.sample_rate, info.frames) == (record.sample_rate, record.frames)
        if not same or (record.digest is not None and audio.digest(record.path) != record.digest):
            raise ValueError(
                f"{record.path}: isn't what it was when it was prepared. Run 'gansound data prepare' again"
            )
        narrow = info.subtype in _IN_16_BITS or all(
            _fits_16_bits(block) for block in audio.blocks(record.path, mono=False)
        )
        encoding = "PCM_16" if narrow else "FLOAT"
        kind = np.dtype(ENCODINGS[encoding])
        size = info.frames * info.channels * kind.itemsize
        if size > _MOST_BYTES:
            raise ValueError(
                f"{record.path}: {info.seconds / 3600:.1f} h are more than a WAV file holds. Cut it into several"
            )
        header = _wav_header(info.sample_rate, info.channels, kind, size)
        member = tarfile.TarInfo(f"{key}.wav")
        member.size = len(header) + size
        tar.addfile(member)  # its header; what follows is written here, piece by piece
        file.write(header)
        at = file.tell()
        mono, energy = audio.cancelling(record.path), 0.0
        for block in audio.blocks(record.path, mono=False):
            samples = np.ascontiguousarray(block.T)
            energy += float(np.square(audio.mixed(samples, mono), dtype=np.float64).sum())
            file.write((np.rint(samples * 32768).astype(kind) if narrow else samples.astype(kind)).tobytes())
    except audio.AudioError as error:
        raise ValueError(f"{error}. It is in the manifest: run 'gansound data prepare' again") from None
    file.write(bytes(-member.size % tarfile.BLOCKSIZE))
    tar.offset = file.tell()
    known = as_values(told) | {"key": key}
    text = json.dumps(known, ensure_ascii=False).encode(errors="surrogateescape")
    beside = tarfile.TarInfo(f"{key}.json")
    beside.size = len(text)
    tar.addfile(beside, io.BytesIO(text))
    return Stored(shard, at, encoding, info.channels, mono, energy)


def _fits_16_bits(samples: np.ndarray) -> bool:
    scaled = samples * np.float32(32768)
    return bool((scaled == np.rint(scaled)).all() and scaled.min() >= -32768 and scaled.max() <= 32767)


def _wav_header(sample_rate: int, channels: int, kind: np.dtype, size: int) -> bytes:
    """The bytes before the samples of a WAV file."""
    width = channels * kind.itemsize
    shape = struct.pack(
        "<HHIIHH",
        1 if kind.kind == "i" else 3,
        channels,
        sample_rate,
        sample_rate * width,
        width,
        8 * kind.itemsize,
    )
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt \x10\0\0\0"
        + shape
        + b"data"
        + struct.pack("<I", size)
    )
