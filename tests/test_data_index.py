"""Records in arrays and the index of a large manifest: what a list of them holds, and a run's own whatever happens."""

import dataclasses
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gansound.data import index, segments, source
from gansound.data.corpus import by_split
from gansound.data.index import open_index
from gansound.data.manifest import Record, read_manifest, write_manifest
from gansound.data.records import Records
from gansound.data.segments import SegmentDataset
from gansound.data.source import open_corpus


def written(folder, count=200, seed=0):
    """A manifest of what records may hold, with a blank line here and there."""
    rng = random.Random(seed)
    records = [
        Record(
            Path(f"/elsewhere/é {i}.wav") if i % 7 == 3 else folder / "wavs" / f'{i} "quoted".flac',
            rng.choice([8000, 22050, 44100]),
            rng.randrange(1, 2**20),
            speaker=rng.choice([None, "ann", "bö"]),
            text=rng.choice([None, "line\nbreak", "\u2028 x"]),
            label=rng.choice([None, "kick"]),
            split=rng.choice([None, "train", "valid", "test"]),
        )
        for i in range(count)
    ]
    path = folder / "manifest.jsonl"
    write_manifest(path, records)
    lines = path.read_text().split("\n")
    path.write_text("\n" + "\n".join(f"{line}\n \r" if i % 11 == 0 else line for i, line in enumerate(lines)))
    return path, records


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(index, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(index, "_EDGE_BYTES", 16)


def test_an_index_holds_what_the_manifest_says(tmp_path, small_chunks):
    path, records = written(tmp_path)
    assert read_manifest(path) == records
    indexed = open_index(path)
    assert len(indexed) == len(records)
    assert list(indexed) == records
    assert indexed[-1] == records[-1]
    assert list(indexed[5:90:4]) == records[5:90:4]
    assert list(indexed[5:90:4].take([3, 1])) == [records[17], records[9]]
    assert indexed.frames.tolist() == [r.frames for r in records]
    assert indexed.sample_rates.tolist() == [r.sample_rate for r in records]
    with pytest.raises(IndexError):
        indexed[len(records)]
    listed = by_split(records)
    for name, part in by_split(indexed).items():
        assert list(part) == list(listed[name])
        assert len(part) > 20
    for other in (Records.of(records), pickle.loads(pickle.dumps(indexed)), open_index(path)):
        assert list(other) == records
        assert {name: list(part) for name, part in other.by_split().items()} == listed


def test_what_an_index_says_of_its_splits_is_what_counting_them_says(tmp_path):
    path, records = written(tmp_path)
    for kept in (
        records,
        [r for r in records if r.split != "test"],
        [r for r in records if r.split == "train"],
    ):
        write_manifest(path, kept)
        indexed, counted = open_index(path), Records(dataclasses.replace(open_index(path).table, parts={}))
        assert set(indexed.by_split()) == {"train", "valid", "test"}
        for name, part in counted.by_split().items():
            its = indexed.by_split()[name]
            assert list(its) == list(part)
            assert its.fingerprint == part.fingerprint
            assert its.seconds == part.seconds
            assert its.rates.tolist() == part.rates.tolist()
            assert its.frames.tolist() == part.frames.tolist() == [r.frames for r in part]
            assert its.sample_rates.tolist() == part.sample_rates.tolist()
            assert list(its[3:40:5][::-1]) == list(part)[3:40:5][::-1]
            assert list(pickle.loads(pickle.dumps(its))) == list(part)
            assert len(pickle.dumps(its)) < 2000


@pytest.mark.parametrize("crop", ["random", "start"])
@pytest.mark.parametrize("most", [1000, 2**40])
def test_segments_are_summed_piece_by_piece(monkeypatch, crop, most):
    """As at one go, in 32 bits or in 64."""
    monkeypatch.setattr(segments, "_PIECE", 7)
    frames = np.random.default_rng(0).integers(1, most, 100)
    records = [Record(Path(f"/nowhere/{i}.wav"), 8000, int(n)) for i, n in enumerate(frames)]
    data = SegmentDataset(records, sample_rate=8000, segment_samples=64, seed=0, cache_bytes=0, crop=crop)
    expected = np.cumsum(np.ones_like(frames) if crop == "start" else -(-frames // 64))
    np.testing.assert_array_equal(data._cumulative, expected)
    assert data._cumulative.dtype == (np.uint32 if expected[-1] < 2**32 else np.int64)


def test_a_record_in_memory_keeps_its_path_as_it_is(tmp_path, monkeypatch):
    name = os.fsdecode(b"caf\xe9.wav")  # as an old disk has it, no UTF-8
    records = [Record(Path("here") / name, 8000, 5), Record(Path("/there/a.wav"), 8000, 2**40)]
    assert list(Records.of(records)) == records
    assert Records.of(records).frames.tolist() == [5, 2**40]


def test_an_index_is_made_once_and_anew_when_the_manifest_changes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, records = written(tmp_path)
    place = tmp_path / "manifest.jsonl.index"
    assert list(open_index(path)) == records
    made = place.stat().st_ino
    assert list(open_index(path)) == records
    assert place.stat().st_ino == made
    assert caplog.text.count("making an index") == 1
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"ann"', b'"bob"', 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size  # size and time are the same: what it holds tells
    assert list(open_index(path)) == read_manifest(path) != records
    for spoil in (lambda b: b[:-1], lambda b: b"{" + b, lambda b: b""):
        place.write_bytes(spoil(place.read_bytes()))
        assert list(open_index(path)) == read_manifest(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.jsonl", "manifest.jsonl.index"]


@pytest.mark.parametrize("how", ["overwritten", "truncated", "replaced", "gone", "prepared again"])
def test_a_run_keeps_the_records_it_began_with(tmp_path, how):
    path, records = written(tmp_path)
    indexed = open_index(path)
    before = indexed.fingerprint
    if how == "overwritten":
        path.write_bytes(bytes(len(path.read_bytes())))
    elif how == "truncated":
        os.truncate(path, 10)
    elif how == "gone":
        path.unlink()
        (tmp_path / "manifest.jsonl.index").unlink()
    else:
        write_manifest(path, records[:5])
        if how == "prepared again":
            assert len(open_index(path)) == 5  # another run's index takes the place of this one's
            assert open_index(path).fingerprint != before
    assert list(indexed) == records
    assert indexed.fingerprint == before


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"not json", "not JSON"),
        (b'{"path": "a", "sample_rate": 8000, "frames": 0}', "frames is 0"),
        (b'{"path": "a", "sample_rate": 8000, "frames": 1, "split": "dev"}', "split is 'dev'"),
        (b'{"path": "\xff", "sample_rate": 8000, "frames": 1}', "not text"),
        (
            b'{"path": "a", "sample_rate": 8000, "frames": 1}, {"path": "a", "sample_rate": 1, "frames": 1}',
            "JSON",
        ),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, small_chunks, line, reason):
    path, _ = written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines.insert(150, line)
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=reason) as caught:
        open_index(path)
    assert f"{path}:151: " in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.jsonl"}
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(ValueError, match="empty"):
        open_index(tmp_path / "empty.jsonl")


def test_a_process_that_is_killed_while_it_indexes_ends_it(tmp_path, small_chunks, monkeypatch):
    path, _ = written(tmp_path)
    parent = os.getpid()

    def killed(values, where):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(index, "usable_cores", lambda: 2)  # one core starts no processes
    monkeypatch.setattr(index, "check_values", killed)  # in the processes, which are forked
    with pytest.raises(ValueError, match="was killed, for lack of memory"):
        open_index(path)
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.jsonl"}


def test_a_manifest_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, _ = written(tmp_path)
    pread, grown = os.pread, []

    def meanwhile(descriptor, size, offset):
        if size > index._EDGE_BYTES or not grown:
            with path.open("a") as file:
                grown.append(file.write(" \n"))
        return pread(descriptor, size, offset)

    with path.open("rb") as file:
        identity = index._identity(file)
    monkeypatch.setattr(index, "_identity", lambda _: identity)
    monkeypatch.setattr(index.os, "pread", meanwhile)
    with pytest.raises(ValueError, match="changed while it was read"):
        open_index(path)
    assert grown
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.jsonl"}


def test_where_the_folder_takes_no_index_the_cache_does_or_a_temporary_file(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "in").mkdir()
    path, records = written(tmp_path / "in")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A folder in the place of the index: nothing can be renamed there, by no user, not even by root.
    (tmp_path / "in" / "manifest.jsonl.index").mkdir()
    assert list(open_index(path)) == records
    (cached,) = (tmp_path / "cache" / "gansound").iterdir()
    assert cached.suffix == ".index"
    assert list(open_index(path)) == records
    assert caplog.text.count("making an index") == 2  # both by the first call
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert list(open_index(path)) == records
    assert "is kept in " in caplog.text


def test_processes_that_start_together_make_one_index(tmp_path):
    path, _ = written(tmp_path)
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO); from gansound.data.index import open_index\n"
        "print(open_index(sys.argv[1]).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate() for process in running]
    assert {out.strip() for out, _ in outputs} == {open_index(path).fingerprint}
    assert sum(err.count("making an index") for _, err in outputs) == 1


def test_a_large_manifest_trains_as_a_small_one(tmp_path, monkeypatch):
    path, _ = written(tmp_path)
    settings = {"sample_rate": 22050, "segment_samples": 4096, "seed": 0, "cache_bytes": 0}
    small = SegmentDataset(by_split(open_corpus(tmp_path))["train"], **settings)
    monkeypatch.setattr(source, "INDEXED_BYTES", 0)
    large = SegmentDataset(by_split(open_corpus(tmp_path))["train"], **settings)
    assert isinstance(open_corpus(path), Records)
    assert [large.file(p) for p in range(300)] == [small.file(p) for p in range(300)]
    np.testing.assert_array_equal(large.source.frames, small.source.frames)
    sent = pickle.loads(pickle.dumps(large))  # as to a spawned worker
    assert [sent.file(p) for p in range(20)] == [small.file(p) for p in range(20)]


def test_millions_without_splits_are_refused_and_fewer_are_split(tmp_path, monkeypatch):
    records = [Record(tmp_path / f"{i}.wav", 8000, 9) for i in range(60)]
    write_manifest(tmp_path / "manifest.jsonl", records)
    listed = open_corpus(tmp_path)
    monkeypatch.setattr(source, "INDEXED_BYTES", 0)
    assert open_corpus(tmp_path) == listed
    monkeypatch.setattr(source, "_MOST_SPLIT_HERE", 59)
    with pytest.raises(ValueError, match=r"none of 60 records has a split.*gansound data prepare"):
        open_corpus(tmp_path)


def test_the_fingerprint_tells_what_is_trained_on(tmp_path):
    records = [Record(tmp_path / f"{i}.wav", 8000, 9 + i, split="train") for i in range(6)]
    print_of = Records.of(records).fingerprint
    moved = [Record(Path("elsewhere") / r.path.name, r.sample_rate, r.frames, split="train") for r in records]
    assert Records.of(moved).fingerprint == print_of
    for other in (
        records[:-1],
        records[::-1],
        [*records[:-1], Record(records[-1].path, 8000, 99)],
        [*records[:-1], Record(records[-1].path, 8001, records[-1].frames)],
        [*records[:-1], Record(tmp_path / "new.wav", 8000, records[-1].frames)],
    ):
        assert Records.of(other).fingerprint != print_of
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, records)
    indexed = open_index(path)
    assert indexed.by_split()["train"].fingerprint == open_index(path).by_split()["train"].fingerprint
    path.write_text(json.dumps(json.loads(path.read_text().split("\n")[0])) + "\n")
    assert open_index(path).fingerprint != indexed.fingerprint
