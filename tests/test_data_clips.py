"""One-shots: attacks found where they were put, clips a pure function of seed and position, folders as they come."""

import logging
import math
import pickle
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gansound import audio
from gansound.cli import main
from gansound.data.check import check_corpus
from gansound.data.clips import ClipDataset, labels_of, one_clip
from gansound.data.items import collate
from gansound.data.manifest import Record
from gansound.data.onsets import Envelope, attacks, ending
from gansound.data.segments import PositionSampler
from gansound.data.settings import OneShotSettings
from gansound.data.source import open_corpus
from gansound.data.split import groups, split

RATE = 16000
CLIP = 4096
LEAD = 32  # 2 ms


def decaying(length, onset, pitch_hz=300.0, seconds=0.05, level=0.5):
    """A cosine that sets in at full level at `onset`."""
    time = np.arange(length - onset) / RATE
    sound = np.zeros(length)
    sound[onset:] = level * np.exp(-time / seconds) * np.cos(2 * np.pi * pitch_hz * time)
    return sound


def texture(length, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(length)


def put(path, samples, rate=RATE, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, samples, rate, **settings)
    info = audio.probe(path)
    label = path.parent.name if len(path.parent.name) < 8 else None
    return Record(path, info.sample_rate, info.frames, label=label)


def dataset(records, **changes):
    given = {"sample_rate": RATE, "clip_samples": CLIP, "channels": 1, "seed": 0}
    return ClipDataset(records, **(given | changes))


def measured(samples):
    samples = np.atleast_2d(samples).astype(np.float32)

    def read(start, length):
        return samples[:, start : start + length]

    return Envelope.of(read, samples.shape[1], RATE), read


def equal(one, other):
    return all(torch.equal(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in a)


@pytest.mark.parametrize("onset", [0, 1, 15, 16, 17, 5000, 9999])
def test_an_attack_out_of_silence_is_found_to_the_sample(onset):
    assert attacks(*measured(decaying(16000, onset))) == [onset]
    click = np.zeros(16000)
    click[onset] = -0.3
    assert attacks(*measured(click)) == [onset]
    both = np.stack([np.zeros(16000), decaying(16000, onset)])
    assert attacks(*measured(both)) == [onset]


@pytest.mark.parametrize("noise_db", [-70, -50, -35])
def test_an_attack_out_of_noise_is_found_within_a_millisecond(noise_db):
    for seed in range(20):
        onset = 2000 + 331 * seed
        sound = decaying(16000, onset) + texture(16000, seed, 0.5 * 10 ** (noise_db / 20))
        found = attacks(*measured(sound + 0.04))  # a constant offset is no sound
        assert found[0] - onset in range(-24, 9), seed
        assert len(found) == 1


def test_a_soft_attack_is_kept():
    # A rise of 60 dB in 40 ms: the part that is 30 dB and more under the loudest is heard, and traced back.
    onset, rise = 4000, 640
    sound = decaying(16000, onset + rise, seconds=0.3)
    ramp = 10 ** (np.linspace(-60, 0, rise) / 20)
    sound[onset : onset + rise] = 0.5 * ramp * np.cos(np.arange(rise))
    assert onset - 16 <= attacks(*measured(sound))[0] <= onset + rise // 6
    # Noise that never sets in begins where it begins.
    assert attacks(*measured(texture(16000)))[0] < 16


def test_several_attacks_are_found_in_their_order():
    onsets = [800, 5000, 7200, 20000, 24000]
    sound = sum(decaying(32000, onset, 250 + 40 * i) for i, onset in enumerate(onsets))
    found = attacks(*measured(sound))
    np.testing.assert_allclose(found, onsets, atol=16)


def test_an_ending_is_where_the_level_says():
    # 60 dB are three decades of amplitude: exp(-t / 0.05) is there after 0.345 s.
    over = 0.05 * math.log(1000)
    clean, _ = measured(decaying(32000, 0))
    assert ending(clean, 0, 32000, 60.0) / RATE == pytest.approx(over, abs=0.012)
    assert ending(clean, 0, 32000, None) == 32000
    assert ending(clean, 0, 3000, 60.0) == 3000
    noisy, _ = measured(decaying(32000, 0) + texture(32000, 1, 0.5 * 10 ** (-50 / 20)))
    assert ending(noisy, 0, 32000, 60.0) / RATE < over
    # What is loud to the end isn't noise.
    loud, _ = measured(decaying(8000, 0, seconds=0.15))
    assert ending(loud, 0, 8000, 60.0) == 8000


def test_fades():
    faded = audio.fade(np.ones((2, 1000)), 100, 50)
    assert (faded[:, 0] == 0).all()
    assert (faded[:, -1] == 0).all()
    assert (faded[:, 100:950] == 1).all()
    assert faded[0, 50] == pytest.approx(0.5)
    assert faded[0, 975 - 1] == pytest.approx(0.5, abs=1e-6)
    assert (np.diff(faded[:, :101]) > 0).all()
    assert (np.diff(faded[:, 949:]) < 0).all()
    assert audio.fade(np.ones(3), 0, 0).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="fit into 5"):
        audio.fade(np.ones(5), 6, 1)


def test_every_attack_stands_at_the_lead_at_one_level_between_zeros(tmp_path):
    onsets = [0, 7, 1000, 3000]
    records = [
        put(tmp_path / f"{i}.wav", 0.1 * (i + 1) * decaying(6000 + 1000 * i, onset), subtype="FLOAT")
        for i, onset in enumerate(onsets)
    ]
    data = dataset(records)
    assert len(data) == 4
    for i, onset in enumerate(onsets):
        clip, label = data.clip(i)
        assert label == -1
        assert clip.shape == (1, CLIP)
        assert clip.dtype == torch.float32
        clip = clip[0].numpy()
        assert clip[0] == clip[-1] == 0
        assert not clip[:LEAD].any()
        assert clip[LEAD] == np.abs(clip).max() == pytest.approx(10 ** (-1 / 20), rel=1e-6)
        # Between the fades it is the file, but for the level.
        file = audio.read(records[i].path)[0][onset : onset + 3000]
        np.testing.assert_allclose(clip[LEAD : LEAD + 3000], file / file[0] * clip[LEAD], atol=1e-6)
    as_recorded = dataset(records, settings=OneShotSettings(peak_db=None))
    assert [float(as_recorded.clip(i)[0].max()) for i in range(4)] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    unaligned = dataset(records, settings=OneShotSettings(align=False)).clip(2)[0][0]
    assert int(unaligned.abs().argmax()) == 1000


def test_a_constant_offset_leaves_the_clip(tmp_path):
    for channels in (1, 2):
        sound = np.stack([decaying(6000, 500), decaying(6000, 500, 700)])[:channels]
        plain = put(tmp_path / "plain.wav", sound, subtype="FLOAT")
        offset = put(tmp_path / "offset.wav", sound + [[0.05], [-0.03]][:channels], subtype="FLOAT")
        clips = dataset([plain, offset], channels=channels, settings=OneShotSettings(peak_db=None))
        np.testing.assert_allclose(clips.clip(1)[0], clips.clip(0)[0], atol=2e-3)


@pytest.mark.parametrize("rate", [RATE, 22050, 44100, 96000])
def test_silence_with_a_constant_offset_is_silent_at_any_rate(tmp_path, rate, caplog):
    """Resampled, it rings at both ends: a click, which was brought to full level."""
    quiet = 0.05 + 1e-4 * np.random.default_rng(0).standard_normal(rate // 2)
    tick = quiet.copy()
    tick[rate // 4 : rate // 4 + rate // 100] += 0.01  # 10 ms
    records = [
        put(tmp_path / f"{name}.wav", sound, rate) for name, sound in (("quiet", quiet), ("tick", tick))
    ]
    data = dataset(records)
    assert [data.record(i).path.stem for i in range(len(data))] == ["tick"]
    assert "quiet.wav: silent" in caplog.text


def test_loudness_is_made_equal_but_passes_no_peak(tmp_path):
    records = [put(tmp_path / f"{i}.wav", texture(CLIP, i, level)) for i, level in enumerate((0.02, 0.2))]
    click = put(tmp_path / "z.wav", decaying(CLIP, 0, 3000, 0.002))
    data = dataset(records, settings=OneShotSettings(loudness_lufs=-20.0, fade_out_ms=5.0))
    for i in range(2):
        assert audio.loudness_lufs(data.clip(i)[0].numpy(), RATE) == pytest.approx(-20, abs=0.1)
    loud = dataset([click], settings=OneShotSettings(loudness_lufs=0.0)).clip(0)[0]
    assert float(loud.abs().max()) == pytest.approx(10 ** (-1 / 20), rel=1e-5)


def mixed(folder):
    stereo = np.stack([decaying(6000, 100), 0.5 * decaying(6000, 100, 500)])
    return [
        put(folder / "kick" / "a.wav", decaying(9000, 700)),
        put(folder / "kick" / "b.flac", audio.resample(stereo, RATE, 44100), 44100),
        put(folder / "snare" / "c.WAV", stereo, subtype="FLOAT"),
        put(folder / "snare" / "d.ogg", decaying(2000, 50), 8000),
        put(folder / "rain" / "e.wav", texture(5 * RATE)),
        put(folder / "rain" / "f.wav", sum(decaying(6 * RATE, i * 9000 + 50) for i in range(10))),
    ]


@pytest.mark.parametrize("channels", [1, 2])
def test_items_depend_on_seed_and_position_alone(tmp_path, caplog, channels):
    caplog.set_level(logging.INFO)
    records = mixed(tmp_path)
    labels = labels_of(records)
    assert labels == ("kick", "rain", "snare")
    settings = {"labels": labels, "channels": channels}
    data = dataset(records, **settings)
    assert "4 one-shots, 2 long recordings sliced into " in caplog.text
    assert "resampling 8000, 44100 Hz to 16000 Hz" in caplog.text
    assert ("2 files of 2 channels: mixed to mono" in caplog.text) == (channels == 1)
    assert ("4 files of 1 channel: copied to 2 channels" in caplog.text) == (channels == 2)
    expected = [data[p] for p in range(40)]
    assert expected[0]["audio"].shape == (channels, CLIP)
    assert [int(i["position"]) for i in expected] == list(range(40))
    for item in expected:
        assert records[int(item["record"])].label == labels[int(item["label"])]
        assert not item["audio"][:, [0, -1]].any()
        assert float(item["audio"].abs().max()) <= 10 ** (-1 / 20) + 1e-6
    uncached = dataset(records, cache_bytes=0, **settings)
    assert uncached.source._cache is None
    assert data.source._cache is not None
    assert equal([uncached[p] for p in range(39, -1, -1)][::-1], expected)
    assert equal([pickle.loads(pickle.dumps(data))[p] for p in range(8)], expected[:8])
    sampler = PositionSampler(0, 40)
    for workers in (0, 2):
        loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=workers, collate_fn=collate)
        loaded = torch.cat([batch["audio"] for batch in loader])
        assert torch.equal(loaded, torch.stack([item["audio"] for item in expected]))
    assert not equal([dataset(records, **settings | {"seed": 1})[p] for p in range(40)], expected)
    assert int(data[2**64 - 1]["position"]) == -1  # as its 64 bits read
    if channels == 2:
        assert data.clip(0)[0][0].equal(data.clip(0)[0][1])
        assert not data.clip(2)[0][0].equal(data.clip(2)[0][1])


def test_labels_are_drawn_equally_and_files_within_them(tmp_path):
    records = [put(tmp_path / "kick" / f"{i}.wav", decaying(800, 0, 100 + 9 * i)) for i in range(9)]
    records.append(put(tmp_path / "clap" / "a.wav", decaying(800, 0)))
    positions = range(1500)
    data = dataset(records, labels=("clap", "kick"), clip_samples=1024)
    assert data[0]["label"].dtype == torch.int64
    drawn = Counter(int(data[p]["record"]) for p in positions)
    assert abs(drawn[9] - 750) < 64  # 3.3 standard deviations
    assert all(abs(drawn[i] - 750 / 9) < 30 for i in range(9))
    for settings in ({"settings": OneShotSettings(balance=False), "labels": ("clap", "kick")}, {}):
        data = dataset(records, clip_samples=1024, **settings)
        drawn = Counter(int(data[p]["record"]) for p in positions)
        assert all(abs(drawn[i] - 150) < 39 for i in range(10))


def test_a_set_smaller_than_a_batch_fills_it(tmp_path):
    data = dataset(
        [put(tmp_path / "a.wav", decaying(800, 3)), put(tmp_path / "b.wav", decaying(900, 3, 700))]
    )
    batches = list(DataLoader(data, batch_size=16, sampler=PositionSampler(0, 64), collate_fn=collate))
    assert [batch["audio"].shape for batch in batches] == [(16, 1, CLIP)] * 4
    assert {int(r) for batch in batches for r in batch["record"]} == {0, 1}
    assert len(data) == 2
    assert dataset([put(tmp_path / "c.wav", decaying(800, 3))])[5]["audio"].any()


def test_long_recordings_are_sliced_as_they_are(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    onsets = [1000 + 9000 * i for i in range(10)]
    hits = sum(decaying(6 * RATE, onset, 200 + 50 * i) for i, onset in enumerate(onsets))
    records = [
        put(tmp_path / "a.wav", hits),
        put(tmp_path / "b.wav", texture(5 * RATE)),
        put(tmp_path / "c.wav", decaying(5 * RATE, 0, seconds=0.9)),
        put(tmp_path / "d.wav", decaying(3000, 0)),
    ]
    data = dataset(records)
    of = [records.index(data.record(i)) for i in range(len(data))]
    assert Counter(of) == {0: 10, 1: 5 * RATE // CLIP, 2: 1, 3: 1}
    assert (
        f"2 one-shots, 2 long recordings sliced into {10 + 5 * RATE // CLIP} clips (crops and hits)"
        in caplog.text
    )
    assert "1 sound is longer than 0.26 s: cut there" in caplog.text
    for i in range(10):  # each hit at the lead, and nothing of the next
        clip = data.clip(i)[0][0].numpy()
        assert abs(int(np.abs(clip).argmax()) - LEAD) <= 16
        assert not clip[:8].any() or np.abs(clip[:8]).max() < 1e-3
    starts = set()
    for position in range(200):
        item = data[position]
        if int(item["record"]) == 1:
            starts.add(item["audio"].numpy().tobytes())
            assert item["audio"].abs().max() > 0.5
    assert len(starts) > 80  # crops anywhere, not always the same ones
    # Side by side, the crops of a recording are the recording, but for level and fades.
    ramp = slice(100, CLIP - 900)
    whole = audio.read(records[1].path)[0]
    first = data._clips[10].start
    for i in range(4):
        clip, file = data.clip(10 + i)[0][0].numpy()[ramp], whole[first + i * CLIP :][:CLIP][ramp]
        np.testing.assert_allclose(clip, file * np.abs(whole).max() ** -1 * 10 ** (-1 / 20), atol=1e-6)
    assert len(dataset(records, settings=OneShotSettings(long="cut"))) == 4
    assert Counter(len(c) for c in [dataset(records[:1], settings=OneShotSettings(long="crops"))]) == {21: 1}
    assert len(dataset(records[2:3], settings=OneShotSettings(long="hits"))) == 1


def test_what_cannot_be_used_is_named_and_skipped(tmp_path, caplog):
    good = put(tmp_path / "kick" / "good.wav", decaying(3000, 0))
    silent = put(tmp_path / "kick" / "silent.wav", np.zeros(3000))
    hiss = put(tmp_path / "kick" / "hiss.wav", texture(3000, 0, 1e-4))
    stray = put(tmp_path / "a long folder name" / "stray.wav", decaying(3000, 0))
    other = put(tmp_path / "tom" / "other.wav", decaying(3000, 0))
    tiny = put(tmp_path / "kick" / "tiny.wav", np.ones(1), 192000)
    broken = put(tmp_path / "kick" / "broken.flac", texture(30000))
    broken.path.write_bytes(broken.path.read_bytes()[:20000])
    records = [silent, good, hiss, stray, other, tiny, broken]
    data = dataset(records, labels=("kick", "snare"))
    assert len(data) == 1
    assert int(data[0]["record"]) == 1
    said = caplog.text
    for words in (
        "skipped 6 files", "silent.wav: silent", "hiss.wav: silent", "stray.wav: lies in no label's folder",
        "other.wav: label 'tom' is none of the model's", "1 sample is none at 16000 Hz",
    ):  # fmt: skip
        assert words in said, words
    assert "broken.flac: " in said or "and 1 more" in said
    alone = Record(good.path, RATE, 3000)  # as of the folder kick, given by itself
    with pytest.raises(
        ValueError, match=r"good.wav: labels are the folders below .* give the one above 'kick'"
    ):
        dataset([alone], labels=("kick", "snare"))
    with pytest.raises(ValueError, match=r"none of 2 files holds a sound.*silent.wav: silent"):
        dataset([silent, hiss])
    with pytest.raises(ValueError, match="no records"):
        dataset([])
    with pytest.raises(ValueError, match="clip_samples"):
        dataset([good], clip_samples=0)
    changed = Record(good.path, RATE, 2999, label="kick")
    with pytest.raises(ValueError, match=r"good.wav: .*manifest says"):
        dataset([changed])


def test_clips_that_are_mostly_zeros_are_said(tmp_path, caplog):
    records = [put(tmp_path / f"{i}.wav", decaying(900, 0, 200 + i)) for i in range(4)]
    dataset(records)
    assert "4 of 4 sounds fill less than a quarter of 0.26 s" in caplog.text
    caplog.clear()
    dataset(records, clip_samples=1024)
    assert "quarter" not in caplog.text


def test_labels_of_a_corpus(caplog):
    def record(label, split, name="a"):
        return Record(f"/c/{label}/{name}.wav", RATE, 800, label=label, split=split)

    full = [record(label, s) for label in ("tom", "kick") for s in ("train", "valid", "test")]
    assert labels_of(full) == ("kick", "tom")
    assert not caplog.text
    assert labels_of([record(None, None)]) == ()
    assert labels_of([record("kick", None)] * 3) == ()  # one tells nothing apart
    assert labels_of([*full, record("clap", "train")]) == ("clap", "kick", "tom")
    assert "one file has the label 'clap': a generator can only copy it" in caplog.text
    assert "no file of the valid split has the label 'clap'" in caplog.text
    with pytest.raises(ValueError, match="no file to train on has the label 'clap'"):
        labels_of([*full, record("clap", "test")])


def names_and_labels(root):
    return {r.path.relative_to(root).as_posix(): r.label for r in open_corpus(root)}


def test_labels_of_a_designers_folders(tmp_path):
    for name in (
        "Drums/Kick/kit1/x.wav", "Drums/Kick/kit2/x.WAV", "Drums/kick/y.wav", "Drums/Snare/z.Flac",
        "Drums/loose.wav", "Drums/Snare/._z.wav", "Drums/.trash/q.wav",
    ):  # fmt: skip
        put(tmp_path / name, decaying(800, 0))
    assert names_and_labels(tmp_path) == {
        "Drums/Kick/kit1/x.wav": "Kick",
        "Drums/Kick/kit2/x.WAV": "Kick",
        "Drums/kick/y.wav": "Kick",
        "Drums/Snare/z.Flac": "Snare",
        "Drums/loose.wav": None,
    }
    assert set(names_and_labels(tmp_path / "Drums" / "Snare").values()) == {None}


def test_two_ways_of_writing_an_accent_are_one_label(tmp_path):
    for form, name in (("NFD", "a.wav"), ("NFC", "b.wav"), ("NFD", "c.wav")):
        label = unicodedata.normalize(form, "Dämpfer" if name != "c.wav" else "Ping")
        put(tmp_path / label / name, decaying(800, 0))
    assert {path.split("/")[1]: label for path, label in names_and_labels(tmp_path).items()} == {
        "a.wav": "D\u00e4mpfer",
        "b.wav": "D\u00e4mpfer",
        "c.wav": "Ping",
    }


def sounds(names, seconds=0.5):
    return [Record(Path(f"/c/{n}.wav"), RATE, int(seconds * RATE), label=n.split("/")[0]) for n in names]


@pytest.mark.parametrize("seed", range(12))
def test_every_label_is_trained_on(seed):
    # Names that repeat the label don't make the whole label a group.
    named = sounds([f"{label}/{label}_{i}" for label in "abcdefg" for i in range(6)])
    assert groups(named)[1] == "file"
    # A label that one kit alone holds, and one with a single file.
    kits = [f"{label}/k{k}__{i}" for label in "abc" for k in range(8) for i in range(3)]
    lone = sounds([*kits, "clap/k3__1", "clap/k3__2", "bell/k5__7"])
    for records in (named, lone):
        done, _ = split(records, seed=seed, valid=0.3, test=0.3)
        assert {r.label for r in done if r.split == "train"} == {r.label for r in records}
        assert {r.split for r in done} == {"train", "valid", "test"}
    # Long recordings in folders of speakers: those are no classes, and are held out whole.
    speakers = sounds([f"{s}/{s}_{i}" for s in "abcdefg" for i in range(6)], seconds=6)
    assert groups(speakers)[1] == "name up to the last _"


def test_a_kits_folder_stays_whole_and_a_copy_stays_with_its_original(tmp_path):
    nested = sounds([f"{label}/kit{k}/{i}" for label in "ab" for k in range(6) for i in range(4)])
    names, rule = groups(nested)
    assert rule == "folder below the label's"
    assert set(names) == {f"kit{k}" for k in range(6)}
    for i in range(12):
        put(tmp_path / "kick" / f"a{i}.wav", decaying(800, 0, 100 + i))
        put(tmp_path / "kick" / f"b{i}.wav", decaying(800, 0, 100 + i))
        put(tmp_path / "snare" / f"c{i}.wav", decaying(800, 0, 400 + i))
    parts = {r.path.stem: r.split for r in open_corpus(tmp_path, valid=0.3, test=0.3)}
    assert all(parts[f"a{i}"] == parts[f"b{i}"] for i in range(12))
    assert len({parts[f"a{i}"] for i in range(12)}) > 1


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"fade_in_ms": 5.0}, "dull every attack"),
        ({"lead_ms": -1.0}, "lead_ms must be between"),
        ({"fade_out_ms": 2000.0}, "milliseconds"),
        ({"trim_db": 3.0}, "trim_db"),
        ({"peak_db": 3.0}, "peak_db"),
        ({"loudness_lufs": 3.0}, "loudness_lufs"),
        ({"long": "loops"}, "hits, crops or cut"),
    ],
)
def test_wrong_settings_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        OneShotSettings(**settings)


def test_check_says_what_will_happen(tmp_path, capsys):
    for i in range(25):
        put(tmp_path / "kick" / f"{i}.wav", decaying(1600, 0, 100 + i))
    put(tmp_path / "clap" / "one.wav", decaying(1600, 0, 101))  # the same as kick/1.wav
    put(tmp_path / "kick" / "silent.wav", np.zeros(1600))
    put(tmp_path / "kick" / "long.wav", decaying(2 * RATE, 0))
    put(tmp_path / "stray.wav", texture(5 * RATE))
    assert main(["data", "check", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "2 labels to choose from: kick 27, clap 1",
        "a single file has the label clap: a generator can only copy it",
        "1 of 29 files lies in no label's folder",
        "nothing of clap is held out for valid",
        "2 of 29 files last over a second",
        "1 of 29 files lasts four seconds or more",
        "1 sound lies under two labels at once",
        "1 of 29 files is silent",
        "silent.wav",
    ):
        assert words in shown, words
    assert check_corpus(tmp_path).summary["classes"] == {"kick": 27, "clap": 1}


def test_the_drums_and_words_of_the_project(shared):
    for folder, rate, key in (("drums", 44100, "__"), ("words", 16000, "_")):
        records = open_corpus(shared / "data" / folder)
        of = {
            s: {r.path.name.partition(key)[0] for r in records if r.split == s}
            for s in ("train", "valid", "test")
        }
        assert not of["train"] & of["valid"]
        assert not of["train"] & of["test"]
        labels = labels_of(records)
        assert {r.label for r in records if r.split == "train"} == set(labels)
        data = dataset(records[::60], sample_rate=rate, clip_samples=16384, labels=labels)
        assert len(data) == len(records[::60])


def as_one(record, **changes):
    return one_clip(record.path, **({"sample_rate": RATE, "clip_samples": CLIP} | changes))


def test_one_recording_is_the_clip_that_training_makes_of_it(tmp_path):
    hits = np.concatenate([decaying(16000, 400), decaying(16000, 1000), *[decaying(16000, 0)] * 3])
    sounds = {
        "late.wav": decaying(8000, 5000), "offset.wav": 0.2 + decaying(8000, 0, level=0.3), "hits.wav": hits,
        "short.wav": decaying(200, 0), "upside_down.wav": decaying(8000, 0) * np.array([[0.95], [-1]]),
    }  # fmt: skip
    for name, sound in sounds.items():
        record = put(tmp_path / name, sound)
        for changes in ({}, {"channels": 2}, {"settings": OneShotSettings(align=False, peak_db=None)}):
            clip, _ = as_one(record, **changes)
            np.testing.assert_array_equal(clip, dataset([record], **changes).clip(0)[0].numpy())


@pytest.mark.parametrize(
    "samples, rate, said",
    [
        (decaying(8000, 5000), RATE, "took 0.310 to"),
        (0.2 + decaying(8000, 0, level=0.3), RATE, "offset of 0.2"),
        (decaying(8000, 0) * np.array([[0.95], [-1]]), RATE, "took channel 2 of 2 alone"),
        (decaying(8000, 0) * np.array([[0.5], [1]]), RATE, "mixed 2 channels to one"),
        (decaying(8000, 0), 22050, "resampled from 22050 to 16000 Hz"),
        (np.concatenate([decaying(16000, 0)] * 5), RATE, "the first of 5 hits"),
    ],
)
def test_what_was_done_to_one_recording_is_said(tmp_path, samples, rate, said):
    assert said in as_one(put(tmp_path / "a.wav", samples, rate=rate))[1]


def test_a_whole_clip_is_said_nothing_of(tmp_path):
    assert as_one(put(tmp_path / "a.wav", decaying(2000, 0, seconds=9)))[1] == ""


@pytest.mark.parametrize("samples", [np.zeros(8000), np.full(8000, 0.5), np.array([0.5])])
def test_one_silent_recording_is_refused(tmp_path, samples):
    with pytest.raises(ValueError, match=r"a\.wav: silent"):
        as_one(put(tmp_path / "a.wav", samples))
