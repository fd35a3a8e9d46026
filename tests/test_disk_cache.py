"""What lies on the local disk is what the store would give, whoever shares it, whatever happens to it."""

import logging
import multiprocessing
import os
import pickle
import random
import threading
import time
from pathlib import Path

import pytest
import torch

from gansound.cli import main
from gansound.cli.train import overrides
from gansound.data import disk_cache, store
from gansound.data.disk_cache import FOLDERS, PIECE_BYTES, DiskCache
from gansound.data.settings import DiskCacheSettings
from gansound.data.source import open_corpus
from gansound.engine.feed import Feed
from gansound.engine.folder import identity
from gansound.engine.plan import plan
from gansound.recipe import load_recipe
from tests import test_shards
from tests.store_server import serving
from tests.test_engine import tiny
from tests.test_shards import assert_same_items, segments

MB = 1 << 20
BLOCK = 64 << 10
prepared = test_shards.prepared


@pytest.fixture
def shard(tmp_path, monkeypatch):
    """A file of five megabytes, and the ranges that were asked for in it."""
    path = tmp_path / "shard.tar"
    path.write_bytes(random.Random(1).randbytes(5 * MB))
    real, asked = store.read, []

    def read(place, start=0, stop=None):
        asked.append((start, stop))
        return real(place, start, stop)

    monkeypatch.setattr(store, "read", read)
    return path, asked


def pieces(cache):
    return list(cache.folder.glob("??/[0-9a-f]*"))


def occupied(cache):
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in pieces(cache))


def test_any_range_is_what_the_store_gives(shard, tmp_path):
    path, asked = shard
    raw, rng = path.read_bytes(), random.Random(2)
    cache = DiskCache(tmp_path / "cache", 100 * MB)
    recordings = [(0, 100), (512, 700_001), (700_512, 700_512 + 3 * PIECE_BYTES), (4 * MB, 5 * MB)]
    for _ in range(300):
        begin, end = rng.choice(recordings)
        start = rng.randrange(begin, end)
        stop = rng.randrange(start + 1, min(end, start + 3 * PIECE_BYTES) + 1)
        assert cache.read(str(path), start, stop, of=(begin, end)) == raw[start:stop]
    assert all(any(begin <= start < stop <= end for begin, end in recordings) for start, stop in asked)
    assert len(asked) <= sum(-(-(end - begin) // PIECE_BYTES) for begin, end in recordings)
    asked.clear()
    for begin, end in recordings:
        assert cache.read(str(path), begin, end, of=(begin, end)) == raw[begin:end]
    kept = sum(stop - start for start, stop in asked)
    assert kept < 3 * BLOCK, "nearly all was read before"


def test_what_lacks_in_a_row_is_one_request(shard, tmp_path):
    path, asked = shard
    cache, of = DiskCache(tmp_path, 100 * MB), (0, 10 * PIECE_BYTES)
    cache.read(str(path), 4 * PIECE_BYTES + 5, 4 * PIECE_BYTES + 6, of=of)
    asked.clear()
    cache.read(str(path), *of, of=of)
    assert asked == [(0, 4 * PIECE_BYTES), (5 * PIECE_BYTES, 10 * PIECE_BYTES)]


@pytest.mark.parametrize("damage", ["cut", "empty", "a bit", "another's", "longer"])
def test_a_damaged_piece_is_read_again(shard, tmp_path, damage):
    path, asked = shard
    cache, of = DiskCache(tmp_path, 100 * MB), (0, 2 * PIECE_BYTES)
    expected = path.read_bytes()[: of[1]]
    assert cache.read(str(path), *of, of=of) == expected
    one, other = pieces(cache)
    raw = bytearray(one.read_bytes())
    if damage == "a bit":
        raw[1000] ^= 4
    new = {"cut": raw[:-1], "empty": b"", "another's": other.read_bytes(), "longer": raw + b"x"}.get(
        damage, raw
    )
    one.write_bytes(new)
    asked.clear()
    assert cache.read(str(path), *of, of=of) == expected
    assert len(asked) == 1
    assert cache.read(str(path), *of, of=of) == expected
    assert len(asked) == 1, "it is whole again"


def test_the_bound_holds_and_what_was_used_last_stays(shard, tmp_path, monkeypatch):
    path, asked = shard
    monkeypatch.setattr(disk_cache, "_FRESH_SECONDS", 0.0)
    cache, count = DiskCache(tmp_path, 30 * BLOCK), 50
    of = (0, count * PIECE_BYTES)

    def use(number):
        cache.read(str(path), number * PIECE_BYTES, number * PIECE_BYTES + 9, of=of)
        assert occupied(cache) <= cache.most_bytes
        time.sleep(0.002)  # a step of the file system's clock

    for number in range(count):
        use(number)
        use(0)
        use(1)
    assert len(pieces(cache)) > 24
    asked.clear()
    for number in (0, 1, *range(count - 10, count)):
        use(number)
    assert not asked
    use(2)
    assert asked


def test_what_is_larger_than_all_of_it_is_read_past_it(shard, tmp_path):
    path, asked = shard
    cache = DiskCache(tmp_path, 4096)
    for _ in range(2):
        assert cache.read(str(path), 0, 9, of=(0, MB)) == path.read_bytes()[:9]
    assert not pieces(cache)
    assert len(asked) == 2


def hammer(cache, path, seed, results):
    rng, raw, good = random.Random(seed), Path(path).read_bytes(), True
    for _ in range(60):
        start = rng.randrange(4 * MB)
        good = good and cache.read(path, start, start + 9000, of=(0, 5 * MB)) == raw[start : start + 9000]
        with cache._sizes() as sizes:  # nobody else adds or removes one now
            good = good and (sizes is None or sizes.sum() == occupied(cache) <= cache.most_bytes)
    results.put(good)


def test_processes_and_threads_share_it(shard, tmp_path):
    path, _ = shard
    cache = DiskCache(tmp_path / "cache", 30 * BLOCK)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    others = [context.Process(target=hammer, args=(cache, str(path), seed, results)) for seed in range(2)]
    for process in others:
        process.start()
    mine = [threading.Thread(target=hammer, args=(cache, str(path), seed, results)) for seed in (7, 8)]
    for thread in mine:
        thread.start()
    assert all(results.get(timeout=120) for _ in range(4))
    for process in (*others, *mine):
        process.join()
    assert occupied(cache) <= cache.most_bytes
    with cache._sizes() as sizes:
        assert sizes.sum() == occupied(cache)
    assert not list(cache.folder.rglob("*.tmp"))


def test_what_someone_removed_or_a_kill_left_is_counted_anew(shard, tmp_path):
    path, _ = shard
    cache, of = DiskCache(tmp_path, 20 * BLOCK), (0, 70 * PIECE_BYTES)
    cache.read(str(path), 0, 20 * PIECE_BYTES, of=of)
    assert len(pieces(cache)) == 20
    left = pieces(cache)[0].with_name(".x.tmp")
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    for piece in pieces(cache):
        if piece != left:
            piece.unlink()
    cache.read(str(path), 20 * PIECE_BYTES, 50 * PIECE_BYTES, of=of)
    assert 17 <= len(pieces(cache)) <= 20
    assert not left.exists()
    (cache.folder / "sizes").write_bytes(b"no sizes")
    cache.read(str(path), 50 * PIECE_BYTES, 70 * PIECE_BYTES, of=of)
    assert 17 <= len(pieces(cache)) <= 20
    with cache._sizes() as sizes:
        assert len(sizes) == FOLDERS
        assert sizes.sum() == occupied(cache)


def test_one_that_is_busy_for_long_is_not_waited_for(shard, tmp_path, monkeypatch):
    path, _ = shard
    monkeypatch.setattr(disk_cache, "_PATIENCE_SECONDS", 0.05)
    cache = DiskCache(tmp_path, 20 * BLOCK)
    cache.read(str(path), 0, 9, of=(0, MB))
    with cache._sizes():
        assert cache.read(str(path), MB - 9, MB, of=(0, MB)) == path.read_bytes()[MB - 9 : MB]
    assert len(pieces(cache)) == 1


@pytest.mark.parametrize("fault", ["full", "read-only", "a file is there"])
def test_a_disk_that_takes_nothing_is_named_once_and_read_past(shard, tmp_path, monkeypatch, caplog, fault):
    path, _ = shard
    cache = DiskCache(tmp_path / "cache", 20 * BLOCK)
    if fault == "full":

        def full(self, data):
            raise OSError(28, "No space left on device", str(self))

        monkeypatch.setattr(Path, "write_bytes", full)
    elif fault == "read-only":

        def refused(self, *arguments, **more):
            raise OSError(30, "Read-only file system", str(self))

        monkeypatch.setattr(Path, "mkdir", refused)
    else:
        (tmp_path / "cache").touch()
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            start = number * PIECE_BYTES
            assert cache.read(str(path), start, start + 7, of=(0, MB)) == path.read_bytes()[start : start + 7]
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert str(tmp_path / "cache") in said[0]
    assert {"full": "No space left", "read-only": "Read-only", "a file is there": "Not a directory"}[
        fault
    ] in said[0]


def test_items_are_those_of_the_store_and_the_second_epoch_asks_for_little(prepared, tmp_path):
    pytest.importorskip("aiohttp")
    with serving(prepared / "shards") as server:
        records = open_corpus(server.url)
        plain, kept = segments(records), segments(records, disk=DiskCache(tmp_path, 100 * MB))
        server.asked.clear()
        kept.__getitems__(range(120))
        first = len(server.asked)
        server.asked.clear()
        assert_same_items(segments(open_corpus(prepared / "out")), kept, range(120, 240))
        assert len(server.asked) < first / 5
        again = pickle.loads(pickle.dumps(kept))
        server.asked.clear()
        assert_same_items(plain, again, range(240))
        server.asked.clear()
        segments(records, disk=DiskCache(tmp_path, 100 * MB)).__getitems__(range(240))
        assert not server.asked, "another run on this machine finds all of it"


def test_a_run_is_fed_the_same_by_way_of_one(prepared, tmp_path, caplog):
    pytest.importorskip("aiohttp")
    given = {"data.cache_gb": 0, "data.workers": 0, "data.valid": 0.0, "validate_every": None}
    keeps = given | {"data.disk_cache": {"gb": 0.05, "path": str(tmp_path / "cache")}}

    def fed(place, settings):
        its = plan(tiny(place, 5, **settings))
        return Feed(its.settings, its.task)

    with serving(prepared / "shards") as server, caplog.at_level(logging.INFO):
        plain, kept = fed(server.url, given), fed(server.url, keeps)
        assert f"up to 0.05 GB of the shards are kept in {tmp_path / 'cache' / 'pieces'}" in caplog.text
        for one, other in zip(plain.batches(0, 0, 1, False), kept.batches(0, 0, 1, False), strict=True):
            assert torch.equal(one["audio"], other["audio"])
        assert pieces(kept.disk)
        fed(server.url, given | {"data.disk_cache": {"gb": 1e-6}})
        assert "% of what is trained on" in caplog.text
    assert fed(prepared / "out", keeps).disk is None
    assert "holds files" in caplog.text


def test_a_run_may_go_on_with_another_cache_and_the_command_takes_one(tmp_path, monkeypatch, capsys):
    one = tiny(tmp_path, 5, **{"data.disk_cache": {"gb": 5.0}})
    assert identity(one) == identity(tiny(tmp_path, 5))
    found = load_recipe(
        "tiny_cpu", overrides(["--data.disk_cache.gb", "7", "--data.disk_cache.path", "here/it"])
    )
    assert plan(found).settings.data.disk_cache == DiskCacheSettings(7.0, str(Path("here/it").absolute()))
    for wrong in ("0", "-1", "1e9", "much"):
        assert main(["train", "tiny_cpu", "--data.path", str(tmp_path), "--data.disk_cache.gb", wrong]) == 2
        assert "gb" in capsys.readouterr().err
