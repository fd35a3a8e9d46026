"""Corpora as they are found: links in circles, names of any bytes, paths of one name, files that were replaced."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gansound import audio
from gansound.cli import main
from gansound.cli.vocode import outputs
from gansound.data.check import check_corpus
from gansound.data.corpus import entries, scan
from gansound.data.manifest import read_manifest
from gansound.data.prepare import prepare
from gansound.data.segments import SegmentDataset
from gansound.data.source import open_corpus
from tests.test_house import examples

RATE = 8000


def sound(seed, seconds=0.5):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def files(root, *names):
    for seed, name in enumerate(names):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, sound(seed), RATE)
    return root


def test_links_in_circles_are_gone_through_once(tmp_path):
    root = files(tmp_path / "c", "a/one.wav", "b/two.wav", "b/deep/three.wav")
    for link in ("a/back", "b/back", "b/deep/up"):
        (root / link).symlink_to(root)
    (root / "a" / "aside").symlink_to(root / "b" / "deep")
    outside = files(tmp_path / "elsewhere", "four.wav")
    (root / "b" / "away").symlink_to(outside)
    expected = ["a/one.wav", "b/away/four.wav", "b/deep/three.wav", "b/two.wav"]
    assert [e.name for e in entries(root)[0]] == expected
    found = outputs([root], tmp_path / "out", audio.AUDIO_SUFFIXES)
    assert [target.relative_to(tmp_path / "out").as_posix() for _, target in found] == expected


def test_what_is_passed_over_is_said(tmp_path, caplog):
    root = files(tmp_path / "c", "a.wav", "b.wave.wav")
    for name in ("c.m4a", "d", "e.txt", ".hidden"):
        (root / name).write_bytes(b"x")
    (root / "b.wave.wav").rename(root / "b.wave")
    soundfile.write(root / "f.sph", sound(5), RATE, format="NIST", subtype="PCM_16")
    assert [e.name for e in entries(root)[0]] == ["a.wav", "b.wave", "f.sph"]
    list(outputs([root], tmp_path / "out", audio.AUDIO_SUFFIXES))
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2
    for text in said:
        assert "3 files passed over: 1 .m4a, 1 without a suffix, 1 .txt. .m4a can't be read: convert" in text


TABLES = {
    "paths": ["p0/0000.wav", "p1/0000.wav", "p0/0001.wav"],
    "without a suffix": ["p0/0000", "p1/0000", "p0/0001"],
    "of another system": ["p0\\0000.wav", "p1\\0000.wav", "p0\\0001"],
    "from above": ["wavs/p0/0000.wav", "./wavs/p1/0000", "/home/me/set/wavs/p0/0001.wav"],
    "of files that were converted": ["p0/0000.flac", "p1/0000.mp3", "p0/0001.wav"],
}


@pytest.mark.parametrize("named", TABLES.values(), ids=list(TABLES))
def test_a_text_goes_with_the_file_of_its_path(tmp_path, named):
    files(tmp_path / "wavs", "p0/0000.wav", "p1/0000.wav", "p0/0001.wav")
    (tmp_path / "metadata.csv").write_text("".join(f"{n}|Text {i}\n" for i, n in enumerate(named)))
    found, missing = entries(tmp_path)
    assert not missing
    assert {e.name: e.text for e in found} == {
        "wavs/p0/0000.wav": "Text 0",
        "wavs/p1/0000.wav": "Text 1",
        "wavs/p0/0001.wav": "Text 2",
    }


def test_a_name_that_two_files_have_is_refused_truthfully(tmp_path):
    files(tmp_path / "wavs", "p0/0000.wav", "p1/0000.wav", "p0/one.wav", "p0/b.wav", "p0/b.flac")
    (tmp_path / "metadata.csv").write_text("0000|A\none|B\np2/one|C\np0/b|D\np0/b.flac|E\none.wav|F\n")
    found, missing = entries(tmp_path)
    assert {e.name: e.text for e in found} == {"wavs/p0/one.wav": "B", "wavs/p0/b.flac": "E"}
    reasons = [reason for _, reason in missing]
    assert "2 files in wavs/ are called so (p0/0000.wav, p1/0000.wav)" in reasons[0]
    assert reasons[1].endswith("wavs/ lacks it")
    assert "2 files in wavs/ are called so" in reasons[2]
    assert "a second time" in reasons[3]


def test_flat_corpora_take_lists_with_folders_of_elsewhere(tmp_path):
    files(tmp_path / "wavs", "LJ001-0001.wav")
    (tmp_path / "metadata.csv").write_text("DUMMY1/LJ001-0001.wav|Text\n")
    found, missing = entries(tmp_path)
    assert [(e.name, e.text) for e in found] == [("wavs/LJ001-0001.wav", "Text")]
    assert not missing


@pytest.fixture
def odd(tmp_path):
    """One good name, one of Latin-1, one of 244 bytes."""
    try:
        return files(tmp_path / "odd", b"ok.wav", b"caf\xe9.wav", b"n" * 240 + b".wav")
    except OSError:
        pytest.skip("this file system takes Unicode only")


def test_any_name_is_checked_prepared_and_trained_on(odd, tmp_path):
    assert len(check_corpus(odd).files) == 3
    assert main(["-q", "data", "check", str(odd), "--json", str(tmp_path / "report.json")]) == 0
    named = [file["path"] for file in json.loads((tmp_path / "report.json").read_text())["files"]]
    assert os.fsencode(odd) + b"/caf\xe9.wav" in [os.fsencode(name) for name in named]
    for rate in (None, 16000):
        out = tmp_path / f"out{rate}"
        for run in range(2):
            done = prepare(odd, out, sample_rate=rate)
            assert (len(done.records), done.reused) == (3, 3 * run)
        records = read_manifest(done.manifest)
        assert [audio.probe(r.path).frames for r in records] == [r.frames for r in records]
        assert any(b"caf\xe9.wav" in os.fsencode(r.path) for r in records)
        data = SegmentDataset(records, sample_rate=rate or RATE, segment_samples=512, seed=0, cache_bytes=0)
        assert {int(data[p]["record"]) for p in range(40)} == {0, 1, 2}


def test_no_message_says_to_delete(tmp_path):
    root = files(tmp_path / "c", "a.wav", "b.wav", "c.wav", "silent.wav")
    audio.write(root / "silent.wav", np.zeros(RATE, np.float32), RATE)
    audio.write(root / "long.wav", sound(9, 2.39), RATE)
    (root / "empty.wav").write_bytes(b"")
    soundfile.write(root / "none.wav", np.zeros(0), RATE)
    soundfile.write(root / "stereo.wav", np.stack([sound(8), -sound(8)], axis=1), RATE)
    done = prepare(root, tmp_path / "out", min_seconds=1)
    reasons = {path.name: reason for path, reason in done.unusable}
    assert reasons["a.wav"] == "0.5 s, under --min-seconds 1"
    assert reasons["silent.wav"] == "silent, its peak isn't over -60 dB"
    assert not any("elete" in reason for reason in reasons.values())
    with pytest.raises(ValueError, match=r"long.wav: 2\.4 s, under --min-seconds 100"):
        prepare(root, tmp_path / "out2", min_seconds=100)


def test_stereo_out_of_phase_is_no_silence(tmp_path):
    root = files(tmp_path / "c", "a.wav")
    soundfile.write(root / "s.wav", np.stack([sound(8), -0.9 * sound(8)], axis=1), RATE)
    report = check_corpus(root)
    assert report.summary["silent_files"] == 0
    assert report.summary["rms_db"]["min"] > -25
    assert any("channels that cancel each other" in line for line in report.verdicts)
    done = prepare(root, tmp_path / "out")
    assert (len(done.records), done.cancelled, done.mixed) == (2, 1, 0)
    data = SegmentDataset(done.records, sample_rate=RATE, segment_samples=512, seed=0)
    assert all(audio.rms_db(data[p]["audio"].numpy()) > -25 for p in range(20))


def test_a_long_file_that_cannot_be_entered_anywhere_gets_a_copy(tmp_path):
    root = files(tmp_path / "c", "short.wav")
    soundfile.write(root / "long.ogg", sound(1, 31), RATE)
    soundfile.write(root / "short.ogg", sound(2, 2), RATE)
    done = prepare(root, tmp_path / "out")
    where = {r.path.name: r.path.parent for r in done.records}
    assert where == {"long.ogg.flac": tmp_path / "out" / "audio", "short.ogg": root, "short.wav": root}
    copy = audio.read(tmp_path / "out" / "audio" / "long.ogg.flac")[0]
    np.testing.assert_allclose(copy, audio.read(root / "long.ogg")[0], atol=1 / 32768)
    inside = prepare(root, root / "prepared")
    assert {r.path.name for r in inside.records} == {"long.ogg", "short.ogg", "short.wav"}


@pytest.mark.parametrize("prepared", [False, True])
def test_a_file_put_in_the_place_of_one_of_its_length_is_noticed(tmp_path, prepared):
    root = files(tmp_path / "c", "a.wav", "b.wav", "c.wav")
    records = prepare(root, tmp_path / "out").records if prepared else scan(root).records
    data = SegmentDataset(records, sample_rate=RATE, segment_samples=512, seed=0, cache_bytes=0)
    before = data.records.fingerprint
    first = [data[p] for p in range(30)]
    os.utime(root / "a.wav", ns=(1, 1))  # touched, and the same
    assert all((data[p]["audio"] == first[p]["audio"]).all() for p in range(30))
    audio.write(root / "b.wav", sound(77), RATE)
    anew = SegmentDataset(records, sample_rate=RATE, segment_samples=512, seed=0, cache_bytes=0)
    for after in (data, anew):  # in the run, and after a resume
        items = after.__getitems__(range(30))
        assert {i["record"] for i in items} == {0, 2}
        assert any(
            "holds another sound than it did, of the same length" in r
            for i in items
            for _, r in i.get("bad", ())
        )
    again = prepare(root, tmp_path / "out").records if prepared else scan(root).records
    assert SegmentDataset(again, sample_rate=RATE, segment_samples=512, seed=0).records.fingerprint != before


def test_a_parquet_file_takes_no_more_memory_than_its_values(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from gansound.data.readers import tables

    value = bytes(4_000_000)
    names = pa.array(["a"] * 64)
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array([value], pa.binary()))
    column = pa.StructArray.from_arrays([once, names], names=["bytes", "path"])
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"audio": column}),
        path,
        compression="zstd",
        dictionary_pagesize_limit=10**9,
        store_schema=False,
    )
    assert path.stat().st_size < 3000
    before = pa.default_memory_pool().max_memory()
    assert all(row["audio"]["bytes"] == value for row in tables.rows(path, ["audio"]))
    assert pa.default_memory_pool().max_memory() - before < 16 * len(value)  # of 64


def test_another_projects_lists_become_a_manifest_as_docs_say(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    (example,) = (block.text for block in examples(page) if "validation.txt" in block.text)
    names = [f"LJ001-000{i}" for i in range(4)]
    files(tmp_path / "wavs", *(f"{name}.wav" for name in names))
    for table, its in (("training.txt", names[1:]), ("validation.txt", names[:1])):
        (tmp_path / table).write_text("".join(f"{name}|Printing, in the only sense|with\n" for name in its))
    with pytest.raises(ValueError, match=r"got a .txt file. How another project's list .* docs/training.md"):
        open_corpus(tmp_path / "training.txt")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    records = open_corpus("manifest.jsonl")
    assert {record.path.stem: record.split for record in records} == {
        name: "valid" if name == names[0] else "train" for name in names
    }
    assert {(record.sample_rate, record.frames) for record in records} == {(RATE, RATE // 2)}
