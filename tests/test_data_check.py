"""What check says of corpora whose properties are known, what prepare writes, and both as commands."""

import json

import numpy as np
import pytest
import soundfile

from gansound import audio
from gansound.cli import main
from gansound.data import verdict
from gansound.data.check import check_corpus, check_file
from gansound.data.corpus import by_split
from gansound.data.manifest import read_manifest
from gansound.data.prepare import prepare
from gansound.data.source import open_corpus

RATE = 22050


def noise(seconds, rate=RATE, level=0.1, seed=0):
    return level * np.random.default_rng(seed).standard_normal(int(seconds * rate))


def bad_corpus(folder):
    """Three good files and one of each defect."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        audio.write(folder / f"good{i}.wav", noise(0.5, seed=i), RATE)
    (folder / "text.wav").write_text("this is text")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan] * 500, np.float32), RATE, subtype="FLOAT")
    soundfile.write(folder / "header.wav", np.zeros(0), RATE)
    audio.write(folder / "eight.wav", np.stack([noise(0.5, seed=9)] * 8), RATE)
    return folder


def test_measures_of_known_signals(tmp_path):
    samples = noise(2.0, level=0.01)
    samples[RATE:] = 0.0
    samples[1000:1010] = 1.5
    samples[2000] = -1.5
    audio.write(tmp_path / "a.wav", samples, RATE)
    report = check_file(tmp_path / "a.wav")
    stored = audio.read(tmp_path / "a.wav")[0]
    assert report.rms_db == pytest.approx(audio.rms_db(stored), abs=1e-6)
    assert report.peak_db == pytest.approx(0.0, abs=1e-3)
    assert report.loudness_lufs == pytest.approx(audio.loudness_lufs(stored, RATE), abs=1e-6)
    assert report.clipped_samples == 10  # a single full-scale sample isn't clipping
    assert report.silence_share == pytest.approx(0.5, abs=0.01)
    assert report.noise_floor_db == pytest.approx(-40, abs=1.0)
    assert report.offset == pytest.approx(float(stored.mean()), abs=1e-7)
    assert report.seconds == 2.0
    assert report.band_limit_hz is None


def test_floats_beyond_full_scale_are_no_clipping(tmp_path):
    samples = np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
    for level, clipped in ((1.0, False), (2.0, False), (2.0, True)):
        made = (level * samples).clip(-1, 1) if clipped else level * samples * 0.99
        audio.write(tmp_path / "a.wav", made, RATE, subtype="FLOAT")
        assert (check_file(tmp_path / "a.wav").clipped_samples > RATE / 4) == clipped


@pytest.mark.parametrize("rate, inner", [(22050, 8000), (22050, 16000), (44100, 16000), (48000, 32000)])
def test_a_band_limit_is_found(tmp_path, rate, inner):
    audio.write(tmp_path / "a.wav", audio.resample(noise(2.0, inner), inner, rate), rate)
    limit = check_file(tmp_path / "a.wav").band_limit_hz
    assert limit == pytest.approx(inner / 2, rel=0.06)


def test_no_band_limit_where_sound_only_decays(tmp_path):
    # A kick drum, pink-like noise, a quiet recording, a tone: all end below the top, none at a cliff.
    time = np.arange(RATE) / RATE
    spectrum = np.fft.rfft(noise(4.0))
    frequency = np.fft.rfftfreq(4 * RATE, 1 / RATE)
    brown = np.fft.irfft(spectrum / np.maximum(frequency / 100, 1) ** 1.5)
    sounds = {
        "kick": 0.8 * np.exp(-8 * time) * np.sin(2 * np.pi * (50 * time - 6 * np.exp(-30 * time))),
        "brown": 0.3 * brown / np.abs(brown).max(),
        "white": noise(1.0),
        "silence": np.zeros(RATE),
    }
    for name, samples in sounds.items():
        audio.write(tmp_path / f"{name}.wav", samples, RATE)
        assert check_file(tmp_path / f"{name}.wav").band_limit_hz is None, name


def test_a_kick_has_no_constant_offset_and_a_shifted_one_has(tmp_path):
    time = np.arange(RATE // 4) / RATE
    kick = 0.6 * np.exp(-30 * time) * np.cos(2 * np.pi * 8 * time)
    sounds = {"kick": kick, "shifted": kick + 0.2, "quiet": 0.05 + noise(0.5, level=1e-3)}
    for name, samples in sounds.items():
        audio.write(tmp_path / f"{name}.wav", samples, RATE)
    reports = {name: check_file(tmp_path / f"{name}.wav") for name in sounds}
    assert abs(reports["kick"].offset) > 0.01  # its mean alone would be taken for one
    assert reports["kick"].rests_at == 0
    assert [reports[name].rests_at for name in ("shifted", "quiet")] == pytest.approx([0.2, 0.05], abs=5e-3)
    assert "2 of 3 files have a constant offset" in "\n".join(check_corpus(tmp_path).verdicts)


def test_a_corpus_report_counts_what_was_put_in(tmp_path):
    folder = bad_corpus(tmp_path / "c")
    # The same samples in another container are the same content; another level isn't.
    audio.write(folder / "copy.flac", audio.read(folder / "good0.wav")[0], RATE)
    audio.write(folder / "slow.wav", noise(1.0, 8000), 8000)
    report = check_corpus(folder)
    s = report.summary
    assert (s["files"], s["unusable_files"]) == (6, 4)
    assert {p.name for p, _ in report.unusable} == {"text.wav", "empty.wav", "nan.wav", "header.wav"}
    assert s["sample_rates_hz"] == {"22050": 5, "8000": 1}
    assert s["channels"] == {"1": 5, "8": 1}
    assert s["hours"] * 3600 == pytest.approx(3.5, abs=1e-3)
    assert [sorted(p.name for p in paths) for paths in report.duplicates] == [["copy.flac", "good0.wav"]]
    said = "\n".join(report.verdicts)
    for words in ("2 sample rates", "several channels", "exact copy", "4 files can't be used", "too few"):
        assert words in said


def test_labels_that_are_not_held_out_are_those_of_the_split_that_training_makes(tmp_path):
    labels = {"bd", "sn", "vinyl", "loop", "hat", "tabla"}
    for number, label in enumerate(sorted(labels)):
        for i in range(4):
            folder = tmp_path / label
            folder.mkdir(exist_ok=True)
            audio.write(folder / f"{label}_{i}.wav", noise(6.0 if i == 0 else 0.2, seed=4 * number + i), RATE)
    report = check_corpus(tmp_path)
    parts = by_split(open_corpus(tmp_path, seed=0, valid=0.1, test=0.1))
    lacking = {name: sorted(labels - {r.label for r in parts[name]}) for name in ("valid", "test")}
    assert report.summary["classes_not_in"] == lacking
    assert any(lacking.values())
    said = "\n".join(report.verdicts)
    assert "24 short sounds" in said
    assert "is held out for" in said
    assert "split by file (every label is trained on)" in said
    prepared = check_corpus(prepare(tmp_path, tmp_path.parent / "prepared", sample_rate=RATE // 2).manifest)
    parts = by_split(open_corpus(tmp_path.parent / "prepared"))
    lacking = {name: sorted(labels - {r.label for r in parts[name]}) for name in ("valid", "test")}
    assert prepared.summary["classes_not_in"] == lacking
    assert "is held out for valid (every label is trained on)" in "\n".join(prepared.verdicts)


@pytest.mark.parametrize("seconds", [0.5, 2.5])
def test_a_corpus_is_judged_for_both_uses(tmp_path, seconds):
    for i in range(3):
        audio.write(tmp_path / f"{i}.wav", noise(seconds, seed=i), RATE)
    vocoder, clips = check_corpus(tmp_path).verdicts[:2]
    assert vocoder.startswith(f"for a vocoder, {3 * seconds} s of sound: enough to try things out")
    assert clips.startswith(f"for a generator of clips, {'3 short sounds' if seconds < 1 else 'long: 2.5 s'}")


@pytest.mark.parametrize(
    "hours, words",
    [
        (0.01, "to try things out"),
        (0.2, "fine-tune one on a voice"),
        (2, "train a small one"),
        (20, "from scratch"),
    ],
)
def test_how_much_is_enough_for_a_vocoder(hours, words):
    report = {"files": 9, "silent_files": 0, "hours": hours, "duration_seconds": {"median": 3.0}}
    assert words in verdict._for_a_vocoder(report)


def test_silence_alone_is_no_corpus(tmp_path, capsys):
    audio.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    assert check_corpus(tmp_path).verdicts == [
        "all files are silent from beginning to end: there is nothing to train on"
    ]
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "nothing to train on" in capsys.readouterr().err


def test_a_prepared_corpus_is_what_its_manifest_names(tmp_path, capsys):
    for i in range(12):
        (tmp_path / "c" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        audio.write(tmp_path / "c" / "ab"[i % 2] / f"{i}.wav", noise(0.3, seed=i), RATE)
    done = prepare(tmp_path / "c", tmp_path / "out", sample_rate=16000, speaker_pattern="^(.)/")
    audio.write(tmp_path / "out" / "audio" / "stray.wav", noise(0.3), RATE)
    for named in (tmp_path / "out", done.manifest):
        report = check_corpus(named)
        assert (report.layout, report.summary["files"]) == ("prepared", 12)
        assert report.splits == {name: len(part) for name, part in by_split(done.records).items()}
        assert report.speakers == report.labels == {"a": 6, "b": 6}
    assert main(["data", "check", str(done.manifest)]) == 0
    assert f"train {report.splits['train']}, valid {report.splits['valid']}" in capsys.readouterr().out
    assert check_corpus(tmp_path / "out", layout="folder").summary["files"] == 13
    audio.write(done.records[0].path, noise(0.2), 16000)
    done.records[1].path.unlink()
    (gone, _), (changed, why) = sorted(
        check_corpus(tmp_path / "out").unusable, key=lambda one: "manifest" in one[1]
    )
    assert (changed, gone) == (done.records[0].path, done.records[1].path)
    assert why.startswith("another sound than the manifest says")
    assert main(["data", "check", str(done.manifest), "--speaker", "(a)"]) == 1
    assert "Leave the speaker pattern out" in capsys.readouterr().err


def test_prepare_says_what_becomes_of_channels(tmp_path, capsys):
    (tmp_path / "c").mkdir()
    for i, channels in enumerate((1, 2, 2)):
        audio.write(tmp_path / "c" / f"{i}.wav", np.stack([noise(0.3, seed=i)] * channels), RATE)
    for rate, words in (
        (RATE, "2 files of several channels stay as they are"),
        (
            8000,
            "2 files of several channels are mono in their copies; a stereo model wants the corpus itself",
        ),
    ):
        command = ["data", "prepare", str(tmp_path / "c"), "-o", str(tmp_path / f"{rate}")]
        assert main([*command, "--sample-rate", str(rate)]) == 0
        said = capsys.readouterr().out
        assert words in said
        assert said.count("several channels") == 1


def test_prepare_keeps_what_is_whole_and_resamples_the_rest(tmp_path):
    folder = bad_corpus(tmp_path / "c")
    (folder / "sub").mkdir()
    audio.write(folder / "sub" / "slow.wav", noise(1.0, 8000), 8000)
    done = prepare(folder, tmp_path / "out", sample_rate=RATE, seed=3)
    assert len(done.unusable) == 4
    assert (done.copied, done.mixed, len(done.copies)) == (1, 1, 0)
    records = read_manifest(done.manifest)
    assert records == open_corpus(tmp_path / "out")
    assert {r.sample_rate for r in records} == {RATE}
    slow = next(r for r in records if "slow" in r.path.name)
    assert slow.path == tmp_path / "out" / "audio" / "sub" / "slow.wav.flac"
    assert slow.label == "sub"
    assert slow.frames == RATE
    expected = audio.resample(audio.read(folder / "sub" / "slow.wav")[0], 8000, RATE)
    np.testing.assert_allclose(audio.read(slow.path)[0], expected, atol=0.51 / 32768)
    # A copy under another name goes where its original goes.
    for i in range(30):
        audio.write(folder / f"n{i}.wav", noise(0.05, seed=100 + i), RATE)
        audio.write(folder / f"m{i}.flac", noise(0.05, seed=100 + i), RATE)
    kept = {"valid": 0.3, "test": 0.3, "keep_copies": True}
    again = {r.path.stem: r.split for r in prepare(folder, tmp_path / "two", **kept).records}
    assert all(again[f"n{i}"] == again[f"m{i}"] for i in range(30))
    assert len(set(again.values())) == 3
    for record in records:
        info = audio.probe(record.path)
        assert (info.frames, info.sample_rate) == (record.frames, record.sample_rate)
    # Again: the copy is kept, the manifest is the same.
    for path in folder.glob("[nm]*.*"):
        if path.stem[1:].isdigit():
            path.unlink()
    stamp, text = slow.path.stat().st_mtime_ns, done.manifest.read_text()
    prepare(folder, tmp_path / "out", sample_rate=RATE, seed=3)
    assert slow.path.stat().st_mtime_ns == stamp
    assert done.manifest.read_text() == text
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_commands(tmp_path, capsys):
    folder = bad_corpus(tmp_path / "c")
    assert main(["data", "check", str(folder), "--json", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert "22050 Hz" in shown
    assert "text.wav: not audio that can be read" in shown
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["summary"]["files"] == 4
    assert len(figures["files"]) == 4
    assert main(["data", "prepare", str(folder), "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "4 files can't be used" in shown
    assert "nan.wav: holds NaN" in shown
    assert "1 file of several channels stays as it is: a model of one channel reads it mixed" in shown
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl")) == 4


@pytest.mark.parametrize(
    "arguments, code, reason",
    [
        (["check", "{tmp}/nowhere"], 2, "no such folder"),
        (["check", "s3://bucket/speech"], 2, "s3://bucket/speech: expected a folder of this machine"),
        (
            ["prepare", "https://host/speech.tar", "-o", "{tmp}/out"],
            2,
            "https://host/speech.tar: expected a folder",
        ),
        (["check", "{tmp}/a.wav"], 2, "not a folder"),
        (["check", "{tmp}/empty"], 1, "no audio files in it"),
        (["check", "{tmp}/bad"], 1, "none of 1 file can"),
        (["check"], 2, "DIR"),
        (["prepare", "{tmp}/bad", "-o", "{tmp}/out"], 1, "text.wav: not audio"),
        (["prepare", "{tmp}/empty", "-o", "{tmp}/out"], 1, "no audio files in it"),
        (["prepare", "{tmp}/bad", "-o", "{tmp}/out", "--sample-rate", "5"], 2, "1,000"),
        (["prepare", "{tmp}/bad", "-o", "{tmp}/bad/out", "--sample-rate", "8000"], 2, "inside"),
        (["prepare", "{tmp}/bad", "-o", "{tmp}/out", "--valid", "0.7", "--test", "0.3"], 2, "below 1"),
        (["prepare", "{tmp}/bad", "-o", "{tmp}/a.wav"], 2, "not a folder"),
        (["check", "{tmp}/bad", "--json", "{tmp}/nowhere/r.json"], 2, "nowhere"),
        (["check", "{tmp}/good", "--json", "/dev/full"], 1, "full"),
    ],
)
def test_wrong_input_gives_one_message_and_its_code(tmp_path, capsys, arguments, code, reason):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.wav").write_text("this is text")
    (tmp_path / "a.wav").touch()
    (tmp_path / "good").mkdir()
    audio.write(tmp_path / "good" / "a.wav", noise(0.1), RATE)
    assert main(["data", *(a.format(tmp=tmp_path) for a in arguments)]) == code
    said = capsys.readouterr()
    assert reason in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.rglob("manifest.jsonl"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_kathleen_is_what_its_readme_says(shared, tmp_path):
    (tmp_path / "wavs").symlink_to(shared / "data" / "kathleen" / "wavs")
    lines = (shared / "data" / "kathleen" / "metadata.csv").read_text().splitlines()[:60]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    report = check_corpus(tmp_path)
    s = report.summary
    assert (s["files"], s["unusable_files"]) == (60, 0)
    assert s["sample_rates_hz"] == {"22050": 60}
    assert 10 ** (s["peak_db"]["median"] / 20) == pytest.approx(0.2, abs=0.06)
    assert s["noise_floor_db"]["median"] == pytest.approx(-60, abs=6)
    assert s["band_limited_files"] == 0
    assert report.grouping == "prompt"
    assert max(report.takes) > 1
