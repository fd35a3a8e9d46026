"""What prepare makes of files, that it never makes it twice, and that killing it changes nothing."""

import json
import os
import pickle
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansound import audio
from gansound.cli import main
from gansound.data.corpus import entries
from gansound.data.manifest import read_manifest, write_manifest
from gansound.data.prepare import prepare
from gansound.data.process import Processing, process
from gansound.data.source import open_corpus
from tests import warm

ROOT = Path(__file__).parents[1]
RATE = 16000


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def put(path: Path, samples: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, samples, rate)


def corpus(folder: Path, files: int = 6) -> Path:
    """Noise between silences, each file at its own level."""
    for i in range(files):
        silence = np.zeros(RATE // 2, np.float32)
        sound = np.concatenate([silence, noise(0.5, i, 0.02 * (i + 1)), silence])
        put(folder / f"s{i}" / f"take_{i:02d}.wav", sound, RATE)
    return folder


def written(out: Path) -> dict[str, bytes]:
    """Everything a prepared corpus is, by name; the journal's order of lines is no part of it."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are decoded from now on."""
    seen: list[str] = []
    import gansound.data.prepare as module

    real = module.process

    def watched(entry: Any, *args: Any) -> Any:
        seen.append(Path(entry.name).name)
        return real(entry, *args)

    monkeypatch.setattr(module, "process", watched)
    return seen


def test_trimmed_resampled_and_as_loud(tmp_path: Path) -> None:
    root = corpus(tmp_path / "c")
    done = prepare(root, tmp_path / "out", sample_rate=8000, trim_db=40, loudness_lufs=-23)
    assert (len(done.records), done.copied) == (6, 6)
    assert done.seconds_in == pytest.approx(6 * 1.5)
    assert done.trimmed_seconds == pytest.approx(6 * 0.85, abs=6 * 0.1), (
        "half a second each side, but for 50 ms"
    )
    assert done.seconds_out == pytest.approx(done.seconds_in - done.trimmed_seconds, abs=1e-3)
    for record in done.records:
        samples, rate = audio.read(record.path)
        assert (rate, len(samples)) == (8000, record.frames)
        loudness = audio.loudness_lufs(samples, rate)
        assert loudness == pytest.approx(-23, abs=0.1) or audio.peak_db(samples) == pytest.approx(-1, abs=0.1)
    # A whole file resampled in one go is the oracle.
    plain = prepare(root, tmp_path / "plain", sample_rate=8000)
    source, _ = audio.read(root / "s3" / "take_03.wav")
    made, _ = audio.read(next(r.path for r in plain.records if r.path.name.startswith("take_03")))
    np.testing.assert_allclose(made, audio.resample(source, RATE, 8000), atol=0.51 / 32768)


def test_a_peak_bounds_loudness(tmp_path: Path) -> None:
    click = np.zeros(RATE, np.float32)
    click[4000:4010] = 0.5
    put(tmp_path / "c" / "a.wav", click + 1e-3 * noise(1.0), RATE)
    done = prepare(tmp_path / "c", tmp_path / "out", loudness_lufs=-10)
    made, _ = audio.read(done.records[0].path)
    assert audio.peak_db(made) == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize("rate, setting", [(RATE, ["--trim", "40"]), (RATE // 2, [])])
def test_what_passes_full_scale_is_made_quieter_and_said(tmp_path, capsys, rate, setting) -> None:
    (tmp_path / "c").mkdir()
    for name, level in (("loud", 1.0), ("fits", 0.1)):
        sound = np.pad(noise(1.0, level=level), RATE)
        audio.write(tmp_path / "c" / f"{name}.wav", sound, RATE, subtype="FLOAT")
    words = ["data", "prepare", str(tmp_path / "c"), "-o", str(tmp_path / "out"), "--sample-rate", str(rate)]
    assert main([*words, *setting, "--valid", "0", "--test", "0"]) == 0
    peaks = {}
    for name in ("loud", "fits"):
        given, _ = audio.read(tmp_path / "c" / f"{name}.wav")
        whole = audio.resample(given, RATE, rate)
        made, _ = audio.read(tmp_path / "out" / "audio" / f"{name}.wav.flac")
        peaks[name] = np.abs(whole).max()
        by = np.correlate(whole, made, "valid").max() / np.square(made).sum()
        assert by == pytest.approx(max(1.0, peaks[name]), rel=1e-3)  # all of it by the same factor
        assert np.abs(made).max() == pytest.approx(min(1.0, peaks[name]), rel=1e-3)
    said = capsys.readouterr()
    assert "1 file passed full scale and is quieter in its copy, most " in said.out
    assert f"{Path('c', 'loud.wav')}, by {20 * np.log10(peaks['loud']):.2g} dB" in said.out
    assert "clipped" not in said.err


def test_process_is_a_function_of_file_and_settings(tmp_path: Path) -> None:
    found, _ = entries(corpus(tmp_path / "c"))
    processing = Processing(8000, 40, -23)
    here = process(found[2], processing, tmp_path / "here")
    elsewhere = pickle.loads(pickle.dumps(process))(
        *pickle.loads(pickle.dumps((found[2], processing))), tmp_path / "there"
    )
    one, other = (o.place(found[2], tmp_path / n) for o, n in ((here, "here"), (elsewhere, "there")))
    assert one != other
    assert one.read_bytes() == other.read_bytes()
    assert here == elsewhere
    assert Processing(8000).key != Processing(8000, trim_db=40).key


def test_the_broken_the_short_and_the_silent_are_dropped_and_listed(tmp_path: Path) -> None:
    root = corpus(tmp_path / "c")
    put(root / "silent.wav", np.zeros(RATE, np.float32), RATE)
    put(root / "short.wav", noise(0.05), RATE)
    (root / "text.wav").write_text("no sound")
    done = prepare(root, tmp_path / "out", min_seconds=0.1)
    reasons = {path.name: reason for path, reason in done.unusable}
    assert set(reasons) == {"silent.wav", "short.wav", "text.wav"}
    for name, word in {
        "silent.wav": "silent",
        "short.wav": "under --min-seconds 0.1",
        "text.wav": "not audio",
    }.items():
        assert word in reasons[name]
    assert len(done.records) == 6
    listed = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert {Path(line["path"]).name: line["reason"] for line in listed} == reasons


def test_of_copies_the_first_is_taken(tmp_path: Path) -> None:
    root = corpus(tmp_path / "c")
    samples, _ = audio.read(root / "s2" / "take_02.wav")
    put(root / "s4" / "again.flac", samples, RATE)
    done = prepare(root, tmp_path / "out")
    assert done.copies == [(root / "s4" / "again.flac", root / "s2" / "take_02.wav")]
    assert len(read_manifest(done.manifest)) == 6
    kept = prepare(root, tmp_path / "kept", keep_copies=True, valid=0.3, test=0.3)
    splits = {record.path.name: record.split for record in kept.records}
    assert len(splits) == 7
    assert splits["again.flac"] == splits["take_02.wav"]


def test_a_corpus_keeps_its_own_splits(tmp_path: Path) -> None:
    for subset, speaker in (("train-clean-100", "19"), ("dev-clean", "84"), ("test-clean", "61")):
        folder = tmp_path / "LibriTTS" / subset / speaker / "1"
        put(folder / f"{speaker}_1_000001_000000.wav", noise(0.5, int(speaker)), RATE)
        (folder / f"{speaker}_1_000001_000000.normalized.txt").write_text("A word.")
    done = prepare(tmp_path / "LibriTTS", tmp_path / "out", valid=0.0, test=0.0)
    assert {r.speaker: r.split for r in done.records} == {"19": "train", "84": "valid", "61": "test"}
    assert done.layout == "libritts"
    assert "the corpus itself" in done.grouping
    assert {r.speaker: r.split for r in open_corpus(tmp_path / "out")} == {
        "19": "train",
        "84": "valid",
        "61": "test",
    }


def test_of_a_prepared_corpus_all_that_it_says_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "LibriTTS"
    for subset, speaker in (("train-clean-100", "19"), ("dev-clean", "84"), ("test-clean", "61")):
        folder = root / subset / speaker / "1"
        put(folder / f"{speaker}_1_000001_000000.wav", noise(0.5, int(speaker)), RATE)
        (folder / f"{speaker}_1_000001_000000.normalized.txt").write_text(f"A word of {speaker}.")
    put(corpus(tmp_path / "kits", 4) / "s0" / "extra.wav", noise(0.3, 60), RATE)
    for source, changes in ((root, {}), (root, {"sample_rate": 8000}), (tmp_path / "kits", {"trim_db": 40})):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        first = prepare(source, tmp_path / "one", **changes).records
        done = prepare(tmp_path / "one", tmp_path / "out", sample_rate=4000)
        kept = [(r.speaker, r.text, r.label, r.split) for r in done.records]
        assert kept == [(r.speaker, r.text, r.label, r.split) for r in first]
        assert {r.sample_rate for r in done.records} == {4000}
        assert done.layout == "prepared"
        assert len({r.path for r in done.records}) == len(first)
        assert read_manifest(tmp_path / "out" / "manifest.jsonl") == done.records
        by_hand = prepare(tmp_path / "one", tmp_path / "out", layout="folder") if changes else None
        assert by_hand is None or not any(r.speaker for r in by_hand.records), "a layout says otherwise"
        with pytest.raises(ValueError, match="says its speakers itself"):
            prepare(tmp_path / "one", tmp_path / "out", speaker_pattern="(s)")


def test_a_manifest_of_other_files_is_not_written_over(tmp_path: Path) -> None:
    root, out = corpus(tmp_path / "c"), tmp_path / "out"
    prepare(root, root)
    own = written(root)
    (root / "s5" / "take_05.wav").unlink()
    put(root / "s5" / "new.wav", noise(0.4, 50), RATE)
    assert len(prepare(root, root).records) == 6, "the corpus's own may change"
    prepare(root, out, sample_rate=8000)
    before = written(out)
    with pytest.raises(ValueError, match=r"manifest\.jsonl: wasn't made of this folder .*another folder"):
        prepare(out, out)
    assert written(out) == before
    (root / "journal.jsonl").unlink()  # as of one that was written by hand
    with pytest.raises(ValueError, match="would be written over"):
        prepare(root, root)
    assert own.keys() - {"s5/take_05.wav"} <= written(root).keys()


def test_mels_beside_sounds_are_not_lost(tmp_path: Path) -> None:
    records = prepare(corpus(tmp_path / "c"), tmp_path / "one").records
    write_manifest(tmp_path / "one" / "manifest.jsonl", [replace(r, mel=Path("a.npy")) for r in records])
    with pytest.raises(ValueError, match="names mels beside its sounds"):
        prepare(tmp_path / "one", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_run_decodes_what_is_new_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = corpus(tmp_path / "c"), tmp_path / "out"
    prepare(root, out, sample_rate=8000)
    before, seen = written(out), decoded(monkeypatch)
    done = prepare(root, out, sample_rate=8000)
    assert seen == []
    assert done.reused == 6
    assert written(out) == before
    # One more, one changed, one whose copy was lost: those alone.
    put(root / "s1" / "new.wav", noise(0.4, 50), RATE)
    put(root / "s2" / "take_02.wav", noise(0.4, 51), RATE)
    (out / "audio" / "s3" / "take_03.wav.flac").unlink()
    prepare(root, out, sample_rate=8000)
    assert sorted(seen) == ["new.wav", "take_02.wav", "take_03.wav"]
    fresh = tmp_path / "fresh"
    prepare(root, fresh, sample_rate=8000)
    assert written(out) == written(fresh)
    # Other settings are another result.
    seen.clear()
    prepare(root, out, sample_rate=8000, trim_db=40)
    assert len(seen) == 7


def test_a_journal_cut_by_a_kill_loses_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = corpus(tmp_path / "c"), tmp_path / "out"
    prepare(root, out, sample_rate=8000)
    before, journal = written(out), out / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - 20)
    seen = decoded(monkeypatch)
    prepare(root, out, sample_rate=8000)
    assert len(seen) == 1
    seen.clear()
    prepare(root, out, sample_rate=8000)
    assert seen == [], "the line after the cut one is read"
    assert written(out) == before
    journal.write_text("[1, 2]\nnull\n" + journal.read_text())
    prepare(root, out, sample_rate=8000)
    assert seen == []


# Of two threads one is killed with a file written and not yet named, when ten are in the journal.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from gansound.data.prepare import prepare
journal, calls, real = Path(sys.argv[2]) / "journal.jsonl", [], Path.replace
def replace(self, target):
    calls.append(target)
    if len(calls) == 15:
        while not (journal.exists() and journal.read_bytes().count(b"\\n") >= 10):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
prepare(sys.argv[1], sys.argv[2], sample_rate=22050, jobs=2)
"""


def test_killed_it_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    root, out, whole = tmp_path / "c", tmp_path / "out", tmp_path / "whole"
    for i in range(20):
        put(root / f"take_{i:03d}.wav", noise(1.0, i), RATE)
    prepare(root, whole, sample_rate=22050)
    done = subprocess.run([warm.python(), "-c", KILLED, root, out], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    done_before = (out / "journal.jsonl").read_bytes().count(b"\n")
    assert 10 <= done_before < 20
    assert list((out / "audio").glob(".*.tmp")), "it was to be killed within a file"
    assert not (out / "manifest.jsonl").exists()
    for path in (out / "audio").glob("*.flac"):
        assert audio.read(path)[1] == 22050, "what has its final name is whole"
    again = prepare(root, out, sample_rate=22050)
    assert again.reused >= done_before - 1
    assert written(out) == written(whole), "and what the kill left half-written is gone"


def test_a_corpus_may_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(corpus(tmp_path / "c").parent)
    for settings in ({}, {"sample_rate": 8000}):
        shutil.rmtree("out", ignore_errors=True)
        prepare("c", "out", **settings)
        Path("c").rename("moved")
        Path("out").rename("elsewhere")
        Path("deeper").mkdir(exist_ok=True)
        monkeypatch.chdir("deeper")
        done = prepare(tmp_path / "moved", tmp_path / "elsewhere", **settings)
        assert done.reused == 6
        for record in read_manifest(done.manifest):
            assert audio.probe(record.path).frames == record.frames
        monkeypatch.chdir(tmp_path)
        Path("moved").rename("c")
        Path("elsewhere").rename("out")


def test_equal_samples_at_two_rates_are_two_sounds(tmp_path: Path) -> None:
    for rate in (8000, 16000):
        put(tmp_path / "c" / f"{rate}.wav", noise(0.5), rate)
    done = prepare(tmp_path / "c", tmp_path / "out")
    assert (len(done.records), done.copies) == (2, [])


def test_where_there_is_nothing_to_cut_nothing_is_copied(tmp_path: Path) -> None:
    put(tmp_path / "c" / "full.wav", noise(0.5), RATE)
    put(tmp_path / "c" / "padded.wav", np.concatenate([np.zeros(RATE, np.float32), noise(0.5, 1)]), RATE)
    done = prepare(tmp_path / "c", tmp_path / "out", trim_db=40)
    assert done.copied == 1
    assert {r.path.name for r in done.records} == {"full.wav", "padded.wav.flac"}


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    root, out = corpus(tmp_path / "c"), tmp_path / "out"
    prepare(root, out, sample_rate=8000)
    leftover = out / "audio" / "s0" / ".take_00.wav.flac.abcd1234.tmp"
    leftover.write_bytes(b"half")
    prepare(root, out, sample_rate=8000)
    assert not leftover.exists()


@pytest.mark.parametrize(
    "words, says",
    [
        (["--trim", "5"], "trim"),
        (["--loudness", "3"], "loudness"),
        (["--sample-rate", "10"], "1,000"),
        (["--jobs", "0"], "--jobs"),
        (["--layout", "vctc"], "--layout vctc: expected one of ljspeech"),
        (["--min-seconds", "0"], "min_seconds"),
    ],
)
def test_what_the_command_line_tells_is_2(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = corpus(tmp_path / "c", 1)
    assert main(["data", "prepare", str(root), "-o", str(tmp_path / "out"), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = corpus(tmp_path / "c")
    shutil.copy(root / "s0" / "take_00.wav", root / "s1" / "zz.wav")
    put(root / "silent.wav", np.zeros(RATE, np.float32), RATE)
    words = ["data", "prepare", str(root), "-o", str(tmp_path / "out"), "--trim", "40", "--loudness", "-23"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "6 files",
        "(folder)",
        "1 exact copy left out",
        "1 file can't be used and is left out",
        "zz.wav = ",
        "silent.wav: silent",
        "silence cut",
        "real time",
    ):
        assert part in said, said
    assert main(words) == 0
    assert "7 files were done before; nothing is new" in capsys.readouterr().out


def test_a_hugging_face_data_set_is_written_out_and_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'gansound[datasets]'")
    import pyarrow.parquet

    source = corpus(tmp_path / "c")
    cells = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(source.rglob("*.wav"))]
    table = pa.table({"audio": cells, "text": [f"text {i}" for i in range(6)]})
    (tmp_path / "set" / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(table, tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    words = ["data", "prepare", str(tmp_path / "set"), "-o", str(tmp_path / "out"), "--sample-rate", "8000"]
    assert main(words) == 0
    assert "(hugging_face)" in capsys.readouterr().out
    records = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert sorted(r.text or "" for r in records) == [f"text {i}" for i in range(6)]
    assert {audio.probe(r.path).sample_rate for r in records} == {8000}
    # Rows of equal size that change places take their sounds along.
    turned = pa.table({"audio": cells[::-1], "text": [f"text {5 - i}" for i in range(6)]})
    pyarrow.parquet.write_table(turned, tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    assert len({len(cell["bytes"]) for cell in cells}) == 1
    assert main(words) == 0
    again = {r.text: audio.read(r.path)[0] for r in read_manifest(tmp_path / "out" / "manifest.jsonl")}
    assert main([*words[:4], str(tmp_path / "fresh"), *words[5:]]) == 0
    fresh = {r.text: audio.read(r.path)[0] for r in read_manifest(tmp_path / "fresh" / "manifest.jsonl")}
    assert again.keys() == fresh.keys()
    assert all(np.array_equal(again[text], fresh[text]) for text in fresh)
    assert main([*words, "--speaker", "(a)"]) == 1
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "set")]) == 1
    assert "gansound data prepare" in capsys.readouterr().err
