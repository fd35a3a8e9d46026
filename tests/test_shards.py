"""Shards give what the files gave, bit for bit, from a folder, a web server or an object store, well or not."""

import dataclasses
import io
import json
import os
import pickle
import random
import re
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from gansound import audio, extras
from gansound.cli import main
from gansound.cli.evaluate import items_of
from gansound.data import decoded, pack, source, store
from gansound.data.clips import ClipDataset
from gansound.data.corpus import by_split
from gansound.data.items import BAD, collate
from gansound.data.manifest import Stored, parse_line
from gansound.data.pack import write_shards
from gansound.data.prepare import prepare
from gansound.data.records import Records
from gansound.data.segments import PositionSampler, SegmentDataset
from gansound.data.source import open_corpus
from gansound.engine.feed import Feed
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.recipe import to_yaml
from tests.corpus import write_corpus
from tests.store_server import serving
from tests.test_engine import assert_same_run, tiny
from tests.test_kills import last_step, start
from tests.tiny import save_tiny_model

RATE = 8000
SEGMENT = 512


def speech_like(seed, frames):
    """Noise under an envelope with pauses, so that some crops are silence."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.choice([1e-4, 0.03, 1.0], frames // 400 + 1), 400)[:frames]
    return (0.2 * envelope * rng.standard_normal(frames)).clip(-1, 1).astype(np.float32)


KINDS = [
    ("a/short.wav", "PCM_16", 1, 300), ("a/plain.wav", "PCM_16", 1, 9000), ("a/old.wav", "PCM_U8", 1, 7000),
    ("b/wide.wav", "PCM_24", 1, 8000), ("b/float.wav", "FLOAT", 1, 8000), ("b/flac.flac", "PCM_16", 1, 12000),
    ("c/stereo.wav", "PCM_16", 2, 8000), ("c/cancels.wav", "PCM_16", 2, 8000), ("c/vorbis.ogg", "VORBIS", 1, 20000),
    ("c/stereo_float.wav", "FLOAT", 2, 6000), ("c/long.wav", "PCM_16", 1, 40_000),
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A corpus of every kind of file, prepared, and its shards of some recordings each in a folder."""
    root = tmp_path_factory.mktemp("shards")
    for seed, (name, subtype, channels, frames) in enumerate(KINDS):
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sounds = np.stack([speech_like(seed + 100 * c, frames) for c in range(channels)], axis=1)
        if "cancels" in name:
            sounds[:, 1] = -0.9 * sounds[:, 0]
        soundfile.write(path, sounds, RATE, subtype=subtype)
    prepare(root / "in", root / "out", speaker_pattern="^(.)/", valid=0.0, test=0.0)
    about = write_shards(
        open_corpus(root / "out"), str(root / "shards"), names_below=[root / "in"], shard_bytes=40_000
    )
    assert len(list((root / "shards" / about.id).glob("*.tar"))) > 3
    return root


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "WAITS_SECONDS", (0.01, 0.02, 0.02))
    monkeypatch.setattr(decoded, "_WHOLE_SAMPLES", 30_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store._hopeless.clear()
    monkeypatch.setattr(store, "_said_at", [-60.0])


@pytest.fixture
def server(prepared):
    pytest.importorskip("aiohttp")
    with serving(prepared / "shards") as server:
        yield server


def segments(records, **settings):
    given = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 3, "cache_bytes": 0, "silence_db": 20.0}
    return SegmentDataset(records, **(given | settings))


def assert_same_items(one, other, positions):
    for mine, theirs in zip(one.__getitems__(positions), other.__getitems__(positions), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name])


SETTINGS = {
    "plain": {},
    "all of it": {"speed": 0.5, "gain_db": (-6.0, 3.0), "balance": 0.5, "pad": "random"},
    "in memory": {"cache_bytes": 2**30},
    "resampled": {"sample_rate": 11025},
    "starts": {"crop": "start", "silence_db": None},
    "faster": {"sample_rate": 4000, "speed": 1.0},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_items_are_those_of_the_files(prepared, server, settings):
    local, shards, remote = (
        segments(open_corpus(place), **SETTINGS[settings])
        for place in (prepared / "out", prepared / "shards", server.url)
    )
    assert local.records.fingerprint == shards.records.fingerprint == remote.records.fingerprint
    assert not shards.records.waits
    assert remote.records.waits
    positions = list(range(30))
    assert_same_items(local, shards, positions)
    assert_same_items(local, remote, positions)
    kinds = {record.stored.encoding for record in remote.records}
    assert kinds == {"PCM_16", "FLOAT"}
    assert {r.stored.mono for r in remote.records if r.stored.channels == 2} == {None, 0}


def test_records_keep_what_is_known_of_them(prepared):
    local, shards = open_corpus(prepared / "out"), open_corpus(prepared / "shards")
    for mine, theirs in zip(local, shards, strict=True):
        assert mine.path == prepared / "in" / theirs.path
        for name in ("sample_rate", "frames", "speaker", "text", "label", "split", "digest"):
            assert getattr(mine, name) == getattr(theirs, name)


def test_what_judges_hears_them_too(prepared):
    local, shards = (
        {
            item.speaker + item.id.rsplit("/", 1)[1]: item.load()
            for item in items_of(open_corpus(place), place)
        }
        for place in (prepared / "out", prepared / "shards")
    )
    assert local.keys() == shards.keys()
    for name, (sound, rate) in local.items():
        assert rate == shards[name][1]
        np.testing.assert_array_equal(sound, shards[name][0])


def test_evaluate_and_compare_take_a_url(prepared, server, tmp_path, capsys):
    model = save_tiny_model(tmp_path / "model")
    found = {}
    for name, place in (("files", prepared / "out"), ("folder", prepared / "shards"), ("url", server.url)):
        command = [
            "evaluate",
            "--model",
            str(model),
            "--backend",
            "eager",
            "--measures",
            "stft",
            "--split",
            "all",
        ]
        target = tmp_path / f"{name}.json"
        assert main([*command, "--limit", "4", "--data", str(place), "--json", str(target)]) == 0
        record = json.loads(target.read_text())
        assert record["data"] == str(place)
        found[name] = [one["systems"]["model"]["stft_convergence"] for one in record["utterances"]]
        ids = [one["id"] for one in record["utterances"]]
    assert found["files"] == found["folder"] == found["url"]
    assert len(found["url"]) == 4
    assert all(one in {name for name, *_ in KINDS} for one in ids)
    systems = [str(model), str(save_tiny_model(tmp_path / "other"))]
    assert (
        main(
            [
                "compare",
                *systems,
                "--data",
                server.url,
                "--split",
                "all",
                "--limit",
                "2",
                "--measures",
                "stft",
            ]
        )
        == 0
    )
    capsys.readouterr()
    for command in (["evaluate", "--model", str(model)], ["compare", *systems]):
        assert main([*command, "--data", "nothing://here"]) == 2
        assert "nothing://here: Protocol not known" in capsys.readouterr().err
        assert main([*command, "--data", f"{server.url}/nowhere"]) == 1
        assert "nowhere/shards.json: isn't there" in capsys.readouterr().err


def test_clips_of_two_channels_are_those_of_the_files(prepared, server):
    local, remote = (
        ClipDataset(
            open_corpus(place), sample_rate=RATE, clip_samples=4000, channels=2, seed=0, cache_bytes=0
        )
        for place in (prepared / "out", server.url)
    )
    assert_same_items(local, remote, range(40))


def test_a_segment_is_one_request_for_its_own_bytes(prepared, server):
    """But for crops that may be silence, whose file must be measured."""
    data = segments(open_corpus(server.url), silence_db=30.0)
    plain = {
        i for i, r in enumerate(data.records) if r.stored.encoding == "PCM_16" and r.stored.channels == 1
    }
    server.asked.clear()
    items = data.__getitems__(range(200))
    assert {int(item["record"]) for item in items} >= plain
    exact = [size for name, size in server.asked if size == 2 * SEGMENT]
    assert len(exact) > 0.7 * len(items)
    server.asked.clear()
    heard = segments(open_corpus(server.url), silence_db=None)
    server.asked.clear()
    heard.__getitems__(range(100))
    assert len(server.asked) == 100


def test_a_level_is_bounded_from_above(prepared, server):
    data = segments(open_corpus(server.url))
    for index in range(len(data.records)):
        bound, exact = data._highest_level(index), data._level(index)
        assert exact <= bound
        if data.source.frames[index] <= 16 * SEGMENT:
            assert bound < exact + 4
    assert data._highest_level(0) == np.inf  # it is known better now


def test_all_items_of_a_batch_wait_at_once(server, monkeypatch):
    monkeypatch.setattr(store, "ANSWER_SECONDS", 240.0)
    data = segments(open_corpus(server.url), silence_db=None)
    server.together = 13
    data.__getitems__(range(24))
    assert server.most_waiting > 12


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_ranks_deal_out_the_same_batches(prepared, server, workers):
    local, remote = segments(open_corpus(prepared / "out")), segments(open_corpus(server.url))
    expected = [collate(local.__getitems__(range(first, first + 8))) for first in range(0, 64, 8)]
    for rank in (0, 1):
        sampler = PositionSampler(16, 64, rank=rank, ranks=2, batch_size=4)
        loader = DataLoader(
            remote, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=collate, timeout=240
        )
        for batch, whole in zip(loader, expected[2:], strict=True):
            for name, value in batch.items():
                assert torch.equal(value, whole[name][4 * rank : 4 * rank + 4]), name


def test_a_large_manifest_is_mapped_with_the_fingerprint_of_its_own_index(prepared, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(source, "INDEXED_BYTES", 1)
    (tmp_path / "out").mkdir()
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_bytes((prepared / "out" / "manifest.jsonl").read_bytes())
    local = open_corpus(manifest)
    assert isinstance(local, Records)
    write_shards(local, str(tmp_path / "shards"), names_below=[prepared / "in"])
    with serving(tmp_path / "shards") as server:
        for place in (tmp_path / "shards", server.url):
            remote = open_corpus(place)
            assert isinstance(remote, Records)
            assert remote.fingerprint == local.fingerprint
            one, other = segments(by_split(local)["train"]), segments(by_split(remote)["train"])
            assert_same_items(one, other, range(40))
            assert_same_items(one, pickle.loads(pickle.dumps(other)), range(40))
        fetched = [name for name, _ in server.asked if name.endswith("index")]
        open_corpus(server.url)
        assert [name for name, _ in server.asked if name.endswith("index")] == fetched, "it was kept"


def test_any_program_reads_the_tar_files(prepared):
    records = open_corpus(prepared / "out")
    found = {}
    about = json.loads((prepared / "shards" / "shards.json").read_text())
    for part in about["shardlist"]:
        with tarfile.open(prepared / "shards" / part["url"]) as tar:
            assert len(tar.getnames()) == 2 * part["nsamples"]
            for member in tar:
                key, suffix = member.name.split(".")
                found.setdefault(key, {})[suffix] = tar.extractfile(member).read()
    assert len(found) == len(records) == about["records"]
    for sample, record in zip((found[key] for key in sorted(found)), records, strict=True):
        sound, rate = soundfile.read(io.BytesIO(sample["wav"]), dtype="float32", always_2d=True)
        expected, _ = audio.read(record.path, mono=False)
        assert rate == record.sample_rate
        np.testing.assert_array_equal(sound.T, expected)
        known = json.loads(sample["json"])
        assert (known["speaker"], known["frames"]) == (record.speaker, record.frames)


def test_webdataset_reads_them(prepared):
    webdataset = pytest.importorskip("webdataset")
    parts = sorted(map(str, (prepared / "shards").glob("*/*.tar")))
    samples = list(webdataset.WebDataset(parts, shardshuffle=False))
    assert len(samples) == len(KINDS)
    assert {json.loads(sample["json"])["speaker"] for sample in samples} == {"a", "b", "c"}


def shard_of(data, position):
    return data.records[int(data._item(position)["record"])].stored.shard.rsplit("/", 1)[1]


@pytest.mark.parametrize("fault", ["error", "cut", "stall"])
def test_a_store_that_fails_now_and_then_changes_nothing(prepared, server, monkeypatch, fault):
    local, remote = segments(open_corpus(prepared / "out")), segments(open_corpus(server.url))
    failed = []
    if fault == "stall":
        monkeypatch.setattr(store, "ANSWER_SECONDS", 1.0)

    def at_first(name, start):
        few = fault != "stall" or len(failed) < 4
        if name.endswith(".tar") and (name, start) not in failed and few:
            failed.append((name, start))
            return fault
        return None

    server.fault = at_first
    assert_same_items(local, remote, range(60))
    assert len(failed) > 3


@pytest.mark.parametrize(
    "fault, said",
    [
        ("gone", "isn't there"), ("error", "500"), ("cut", "Payload"), ("stall", "no answer"),
        ("refuse", "403"), ("deaf", "byte ranges"),
    ],
)  # fmt: skip
def test_a_shard_that_stays_bad_is_named_and_drawn_past(prepared, server, monkeypatch, caplog, fault, said):
    patient = store.ANSWER_SECONDS
    if fault == "stall":
        monkeypatch.setattr(store, "ANSWER_SECONDS", 1.0)
    local, remote = segments(open_corpus(prepared / "out")), segments(open_corpus(server.url))
    bad = remote.records[1].stored.shard
    lost = {i for i, record in enumerate(remote.records) if record.stored.shard == bad}
    assert 0 < len(lost) < len(KINDS)
    server.fault = lambda name, start: fault if bad.endswith(name) else None
    positions = list(range(24 if fault == "stall" else 80))
    expected, items = local.__getitems__(positions), remote.__getitems__(positions)
    redrawn = 0
    for mine, theirs in zip(expected, items, strict=True):
        if int(mine["record"]) in lost:
            redrawn += 1
            record, reason = theirs[BAD][0]
            assert record in lost
            assert bad in reason
            assert said in reason
            assert theirs["record"] not in lost
        else:
            np.testing.assert_array_equal(mine["audio"], theirs["audio"])
    assert redrawn
    if fault in ("error", "cut"):
        assert any("asking again" in record.message for record in caplog.records)
    server.fault = lambda name, start: None
    monkeypatch.setattr(store, "ANSWER_SECONDS", patient)  # a busy machine may take a second to answer
    assert_same_items(local, remote, positions)


def test_a_run_fed_by_a_failing_store_is_the_run_fed_by_files_and_goes_on_from_it(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    write_corpus(tmp_path / "in", files=6)
    prepare(tmp_path / "in", tmp_path / "out", valid=0.2, test=0.0)
    write_shards(open_corpus(tmp_path / "out"), str(tmp_path / "shards"), shard_bytes=50_000)
    Run(plan(tiny(tmp_path / "out", 4)), tmp_path / "local").fit()
    with serving(tmp_path / "shards") as server:
        failed = set()

        def at_first(name, start):
            if not name.endswith("tar") or (name, start) in failed:
                return None
            return failed.add((name, start)) or "cut"

        server.fault = at_first
        fed = {"data.cache_gb": 0, "data.workers": 1}
        Run(plan(tiny(tmp_path / "out", 2)), tmp_path / "remote").fit()
        run = Run(plan(tiny(server.url, 4, **fed)), tmp_path / "remote")
        run.fit()
        assert failed
        held_out = Feed(plan(tiny(server.url, 4)).settings, run.task).held_out[0]
    assert_same_run(tmp_path / "local", tmp_path / "remote")
    expected = Feed(plan(tiny(tmp_path / "out", 4)).settings, run.task).held_out[0]
    for (name, sound), (its_name, its_sound) in zip(expected, held_out, strict=True):
        assert name == its_name
        np.testing.assert_array_equal(sound, its_sound)


def test_a_store_that_is_gone_ends_with_its_name(server):
    data = segments(open_corpus(server.url))
    server.fault = lambda name, start: "error"
    with pytest.raises(ValueError, match=r"16 draws in a row .*http://127.*shard-"):
        data[0]


def test_an_index_that_lacks_or_is_anothers_is_said(prepared, server, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"isn't there.*data prepare DIR -o OUT --shards"):
        open_corpus(f"{server.url}/nowhere")
    with pytest.raises(ValueError, match="Protocol not known: nothing"):
        open_corpus("nothing://here")
    about = json.loads((prepared / "shards" / "shards.json").read_text())
    for change in (
        {"format": "gansound shards 9"}, {"id": "../../etc"}, {"records": None}, {"index_bytes": "x"},
        {"sample_rates": 7},
    ):  # fmt: skip
        (tmp_path / "shards.json").write_text(json.dumps(about | change))
        with pytest.raises(ValueError, match="describes no shards"):
            open_corpus(tmp_path)
    server.fault = lambda name, start: "cut" if name.endswith("index") else None
    with pytest.raises(ValueError, match=r"corpus\.index"):
        open_corpus(server.url)
    server.fault = lambda name, start: None
    assert len(open_corpus(server.url)) == len(KINDS)


@pytest.mark.parametrize(
    "change",
    [
        {"shard": "../secret.tar"}, {"shard": "/etc/passwd"}, {"shard": "http://elsewhere/x.tar"}, {"at": -1},
        {"encoding": "PICKLE"}, {"channels": 0}, {"channels": 2**40}, {"mono": 1}, {"energy": "much"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_strangers_index_leads_nowhere_else(change):
    stored = {"shard": "s.tar", "at": 0, "encoding": "PCM_16", "channels": 1, "mono": None, "energy": 1.0}
    line = {"path": "x.wav", "sample_rate": 8000, "frames": 9, "stored": stored}
    found = parse_line(json.dumps(line).encode(), Path(), "here", "s3://bucket/id")
    assert found.stored == Stored("s3://bucket/id/s.tar", 0, "PCM_16", 1, None, 1.0)
    line["stored"] = stored | change
    with pytest.raises(ValueError, match=r"^here: stored: "):
        parse_line(json.dumps(line).encode(), Path(), "here", "s3://bucket/id")


def test_writing_goes_on_where_it_was_stopped(prepared, tmp_path, monkeypatch):
    records, place = open_corpus(prepared / "out"), tmp_path / "again"
    settings = {"names_below": [prepared / "in"], "shard_bytes": 40_000, "jobs": 1}
    real, seen = pack._add, []

    def stopped(*arguments):
        seen.append(arguments)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pack, "_add", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_shards(records, str(place), **settings)
    assert not (place / "shards.json").exists()
    assert not [path for path in place.rglob("*") if path.suffix == ".tmp"]
    with pytest.raises(ValueError, match="no audio files"):
        open_corpus(place)
    whole = list(place.rglob("*.tar"))
    assert whole
    seen.clear()
    monkeypatch.setattr(pack, "_add", lambda *arguments: (seen.append(arguments), real(*arguments))[1])
    calls = []
    about = write_shards(records, str(place), **settings, progress=lambda *done: calls.append(done))
    assert 0 < len(seen) < len(KINDS)
    assert calls[-1] == (len(KINDS), len(KINDS))

    def tree(folder):
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in folder.rglob("*")
            if p.suffix in (".tar", ".jsonl")
        }

    assert tree(place) == tree(prepared / "shards")
    seen.clear()
    assert write_shards(records, str(place), **settings) == about
    assert not seen
    with pytest.raises(ValueError, match="holds shards of another corpus"):
        write_shards(records[1:], str(place), **settings)


def test_a_file_that_changed_since_is_not_written(prepared, tmp_path):
    records = list(open_corpus(prepared / "out"))
    copy = tmp_path / "copy.wav"
    sound, rate = audio.read(records[0].path)
    audio.write(copy, sound[::-1].copy(), rate)
    with pytest.raises(ValueError, match="isn't what it was"):
        write_shards([dataclasses.replace(records[0], path=copy)], str(tmp_path / "shards"))


def test_the_command_writes_them_and_says_what_it_cannot(prepared, tmp_path, capsys):
    arguments = ["data", "prepare", str(prepared / "in"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--shards", str(tmp_path / "shards")]) == 0
    assert f"{len(KINDS)} recordings" in capsys.readouterr().out
    local, shards = open_corpus(tmp_path / "out"), open_corpus(tmp_path / "shards")
    assert Records.of(local).fingerprint == Records.of(shards).fingerprint
    for place, said in (
        ("http://x/y", "can't be written"), ("nothing://x", "not known"),
        (str(tmp_path / "out" / "manifest.jsonl"), "not a folder"),
    ):  # fmt: skip
        assert main([*arguments, "--shards", place]) == 2
        assert said in capsys.readouterr().err
    assert main([*arguments, "--shards", str(prepared / "shards")]) == 1
    assert "another corpus" in capsys.readouterr().err
    (tmp_path / "file").write_bytes(b"")
    assert main([*arguments, "--shards", str(tmp_path / "file" / "in")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_a_url_without_fsspec_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"s3:// needs fsspec.*gansound\[store\]"):
        open_corpus("s3://bucket/corpus")
    assert main(["train", "tiny_cpu", "--data.path", "s3://bucket/x", "--run", str(tmp_path / "run")]) == 2
    assert "gansound[store]" in capsys.readouterr().err


def kill_again_and_again(tmp_path, kills):
    """A run fed by a failing web server and killed so often, beside one fed by files that never was."""
    corpus = write_corpus(tmp_path / "in", files=6)
    prepare(corpus, tmp_path / "out", valid=0.2, test=0.0)
    write_shards(open_corpus(tmp_path / "out"), str(tmp_path / "shards"), shard_bytes=50_000)
    rng = random.Random(7)
    settings = {"checkpoint_every": 3, "data.workers": 1, "data.cache_gb": 0, "adversarial_from": 3}
    at = []
    with serving(tmp_path / "shards") as server:
        server.fault = lambda name, start: (
            rng.choice([None, None, "cut", "error"]) if name.endswith("tar") else None
        )
        recipe = tmp_path / "shards.yaml"
        for kill in range(kills):
            recipe.write_text(to_yaml(tiny(server.url, 10_000, **settings)))
            process, begun = start(recipe, tmp_path / "killed"), last_step(tmp_path / "killed")
            until = time.monotonic() + 200
            while last_step(tmp_path / "killed") < begun + 2 + rng.randrange(4):
                assert process.poll() is None, (kill, process.stderr.read())
                assert time.monotonic() < until
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
            at.append(last_step(tmp_path / "killed"))
        steps = max(at) + 5
        recipe.write_text(to_yaml(tiny(server.url, steps, **settings)))
        assert start(recipe, tmp_path / "killed").wait(600) == 0
    recipe.write_text(to_yaml(tiny(tmp_path / "out", steps, **settings)))
    assert start(recipe, tmp_path / "whole").wait(600) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    return at


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_from_shards_that_is_killed_ends_as_one_from_files(tmp_path):
    pytest.importorskip("aiohttp")
    assert kill_again_and_again(tmp_path, 3)[-1] > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_runs_from_shards_each_killed_once_end_alike(tmp_path):
    """Each by a failing web server, by way of one cache on the disk, killed (SIGKILL) at a moment of its own."""
    pytest.importorskip("aiohttp")
    prepare(write_corpus(tmp_path / "in", files=6), tmp_path / "out", valid=0.2, test=0.0)
    write_shards(open_corpus(tmp_path / "out"), str(tmp_path / "shards"), shard_bytes=50_000)
    rng, steps = random.Random(3), 24
    cache = {"gb": 0.01, "path": str(tmp_path / "cache")}
    settings = {"checkpoint_every": 3, "data.workers": 1, "data.cache_gb": 0, "adversarial_from": 3}
    Run(plan(tiny(tmp_path / "out", steps, **settings)), tmp_path / "whole").fit()
    at = []
    with serving(tmp_path / "shards") as server:
        server.fault = lambda name, start: rng.choice([None, None, "cut"]) if name.endswith("tar") else None
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(to_yaml(tiny(server.url, steps, **settings, **{"data.disk_cache": cache})))
        for number in range(10):
            run = tmp_path / f"run_{number}"
            process, wanted = start(recipe, run), 1 + rng.randrange(steps - 8)
            while last_step(run) < wanted:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            assert process.poll() is None, "it was to be killed in a live step"
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
            at.append(last_step(run))
            Run(plan(tiny(server.url, steps, **settings, **{"data.disk_cache": cache})), run).fit()
            assert_same_run(tmp_path / "whole", run)
    print(f"killed at steps {at}")


NO_BUCKET = r"no bucket 'nowhere' \(The specified bucket does not exist\)\. Make it"


@pytest.mark.parametrize(
    "error, said",
    [
        (FileNotFoundError("The specified bucket does not exist"), NO_BUCKET),
        (
            type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"),
            "Check the credentials",
        ),
        (OSError("flooded"), "flooded, 4 times. Is the store well"),
    ],
    ids=["no bucket", "no credentials", "no luck"],
)
def test_a_store_that_cannot_be_written_is_known_before_anything_is_prepared(
    prepared, tmp_path, capsys, monkeypatch, error, said
):
    fsspec = pytest.importorskip("fsspec")

    class Refusing(fsspec.AbstractFileSystem):
        def cat_file(self, path, start=None, end=None, **more):
            raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda place: (Refusing(), place))
    out = tmp_path / "out"
    command = ["data", "prepare", str(prepared / "in"), "-o", str(out), "--sample-rate", "22050"]
    assert main([*command, "--shards", "refusing://nowhere/mine"]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not out.exists()


@pytest.fixture
def bucket(monkeypatch):
    """An object store of this machine: moto's."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="corpora")
    yield "s3://corpora/mine"
    server.stop()


def test_an_object_store_is_written_and_read_as_a_folder_is(prepared, bucket):
    records = open_corpus(prepared / "out")
    settings = {"names_below": [prepared / "in"], "shard_bytes": 40_000}
    about = write_shards(records, bucket, **settings)
    assert write_shards(records, bucket, **settings) == about
    with pytest.raises(ValueError, match="another corpus"):
        write_shards(records[:-1], bucket, **settings)
    local, remote = segments(records), segments(open_corpus(bucket))
    assert remote.records.fingerprint == local.records.fingerprint
    assert_same_items(local, remote, range(60))
    lost = remote.records[0].stored.shard
    with store.writing(lost) as file:
        file.write_bytes(b"nothing")
    assert any(lost in reason for item in remote.__getitems__(range(60)) for _, reason in item.get(BAD, ()))
    for use in (lambda place: write_shards(records, place, **settings), open_corpus):
        with pytest.raises(ValueError, match=NO_BUCKET):
            use("s3://nowhere/mine")
    with pytest.raises(ValueError, match=r"nothing/shards\.json: isn't there"):
        open_corpus("s3://corpora/nothing")
