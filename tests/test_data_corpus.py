"""Manifests, corpora and their splits."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gansound import audio
from gansound.data.corpus import by_split, entries, scan
from gansound.data.manifest import Record, read_manifest, write_manifest
from gansound.data.source import open_corpus
from gansound.data.split import groups, split
from gansound.draw import Draws, draw, streams, unit_hash, words

RATE = 8000


def sound(path, samples=800, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.1 * np.random.default_rng(seed).standard_normal(samples), RATE)


def record(name, text=None, speaker=None, frames=RATE):
    return Record(Path(f"/corpus/{name}.wav"), RATE, frames, speaker=speaker, text=text)


def test_draws_are_pinned_and_independent():
    # Pinned values: another machine, process or release that draws otherwise can't resume a run.
    assert draw(0, 0, "crop").integers(2**63, size=2).tolist() == [254758347584157002, 9118182765464179598]
    assert draw(7, 2**64 - 1, "latent").integers(2**63) == 5058642769433993901
    assert unit_hash(3, "prompt one", "split") == 0.5025662173002998
    same = [draw(1, 5, "gain").random(4) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert draw(7, 2**64 - 2, "latent").integers(2**63) != 5058642769433993901
    others = [draw(1, 6, "gain"), draw(2, 5, "gain"), draw(1, 5, "crop")]
    assert not any(np.isin(other.random(1000), draw(1, 5, "gain").random(1000)).any() for other in others)
    with pytest.raises(ValueError, match="-1"):
        draw(0, -1, "crop")


def test_a_moved_generator_draws_what_one_of_the_position_does():
    positions = [0, 5, 2**63, 2**64 - 1, 5]
    for samples in (1, 2, 7):  # an odd number of 32-bit words leaves half a word over
        got = [rng.random(samples, dtype=np.float32) for rng in streams(3, positions, "mix")]
        expected = [draw(3, position, "mix").random(samples, dtype=np.float32) for position in positions]
        np.testing.assert_array_equal(got, expected)
    latents = Draws(3, positions).each("latent", lambda rng: rng.standard_normal(5, dtype=np.float32))
    assert latents.dtype == torch.float32
    expected = [draw(3, position, "latent").standard_normal(5, dtype=np.float32) for position in positions]
    np.testing.assert_array_equal(latents.numpy(), np.stack(expected))


@pytest.mark.parametrize("least, most", [(-2, 2), (0, 9), (-5, 2**31 + 2**30)])
def test_whole_numbers_of_a_batch_are_those_numpy_draws_one_by_one(least, most):
    # The last width is one that turns away a word in four, which must then be drawn again.
    for count in (1, 4, 5):
        got = Draws(3, range(300)).integers("shuffle", least, most, count)
        assert got.dtype == torch.int64
        for position, row in enumerate(got.numpy()):
            expected = draw(3, position, "shuffle").integers(least, most, size=count, endpoint=True)
            np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    "positions",
    [range(3), range(64, 5000), [3], [9, *range(99), 0, 9000], [2**63 + 1], [2**64 - 1]],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 2**40])
def test_words_drawn_ahead_are_those_of_each_positions_own_generator(seed, positions):
    every = 500 if len(positions) > 200 else 1
    some = positions[::every]
    for count in (1, 4, 5, 8, 9):
        got = words(seed, positions, "one", count)[::every]
        expected = [draw(seed, position, "one").bit_generator.random_raw(count) for position in some]
        np.testing.assert_array_equal(got, expected)
        assert words(seed, [], "one", count).shape == (0, count)
    for shape in ((), (1,), (2, 3), (16,), (17,), (0,)):
        uniform = Draws(seed, some).uniform("another", *shape)
        assert uniform.dtype == torch.float32
        expected = [draw(seed, position, "another").random(shape, dtype=np.float32) for position in some]
        np.testing.assert_array_equal(uniform.numpy(), expected)


def test_draws_over_positions_are_uniform():
    first = np.array([draw(0, position, "crop").random() for position in range(4000)])
    counts = np.histogram(first, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square with 9 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05


def test_a_manifest_round_trips_and_can_be_moved(tmp_path):
    inside = Record(tmp_path / "a" / "wavs" / "é b.wav", 22050, 5, "ann", 'say "x"', "kick", "valid")
    outside = Record(tmp_path / "elsewhere.wav", 8000, 7)
    (tmp_path / "a").mkdir()
    assert write_manifest(tmp_path / "a" / "manifest.jsonl", [inside, outside]) == 2
    assert read_manifest(tmp_path / "a" / "manifest.jsonl") == [inside, outside]
    (tmp_path / "a").rename(tmp_path / "b")
    moved = read_manifest(tmp_path / "b" / "manifest.jsonl")
    assert moved[0].path == tmp_path / "b" / "wavs" / "é b.wav"
    assert moved[1] == outside
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"manifest.jsonl"}


def test_a_failed_write_keeps_the_old_manifest(tmp_path):
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, [record("a")])

    def broken():
        yield record("b")
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError):
        write_manifest(path, broken())
    assert [r.path.stem for r in read_manifest(path)] == ["a"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "line, reason",
    [
        ("not json", "not JSON"),
        ("[1]", "got a list"),
        ('{"path": "a", "sample_rate": 8000}', "frames is missing"),
        ('{"path": "a", "sample_rate": "8000", "frames": 1}', "sample_rate is '8000', expected int"),
        ('{"path": "a", "sample_rate": 8000, "frames": true}', "frames is True"),
        ('{"path": "a", "sample_rate": 8000, "frames": 0}', "frames is 0"),
        ('{"path": "a", "sample_rate": 8000, "frames": 1, "lang": "en"}', "unknown lang"),
        ('{"path": "a", "sample_rate": 8000, "frames": 1, "split": "dev"}', "split is 'dev'"),
    ],
)
def test_a_bad_manifest_is_named_with_its_line(tmp_path, line, reason):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"path": "x", "sample_rate": 1, "frames": 1}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=reason) as caught:
        read_manifest(path)
    assert f"{path}:2: " in str(caught.value)


def test_any_folder(tmp_path):
    sound(tmp_path / "kick" / "deep" / "a.wav")
    sound(tmp_path / "snare" / "b.FLAC")
    sound(tmp_path / "c.ogg")
    sound(tmp_path / ".hidden" / "d.wav")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "bad.wav").write_text("hello")
    found = scan(tmp_path)
    assert [(r.path.name, r.label, r.sample_rate, r.frames) for r in found.records] == [
        ("c.ogg", None, RATE, 800),
        ("a.wav", "kick", RATE, 800),
        ("b.FLAC", "snare", RATE, 800),
    ]
    assert [(p.name, reason[:9]) for p, reason in found.unusable] == [("bad.wav", "not audio")]


def test_ljspeech_layout(tmp_path, caplog):
    for name in ("one", "two", "three"):
        sound(tmp_path / "wavs" / f"{name}.flac")
    (tmp_path / "metadata.csv").write_text("one|Dr. A|Doctor A\ntwo.wav|b|\n\nlost|c|c\none|again|again\n")
    found, missing = entries(tmp_path)
    assert [(e.path.name, e.text) for e in found] == [("one.flac", "Doctor A"), ("two.flac", "b")]
    assert [reason[:6] for _, reason in missing] == ["line 4", "line 5"]
    assert "left out 1 file in wavs/ that metadata.csv" in caplog.text
    (tmp_path / "metadata.csv").write_text("one,no bars\n")
    with pytest.raises(
        ValueError, match=r"metadata\.csv:1: got 'one,no bars', .*parted by bars.*without .*wavs"
    ):
        entries(tmp_path)


def test_speakers_come_from_a_pattern(tmp_path, caplog):
    for name in ("p1_a", "p2_a", "p3_b", "p3_c"):
        sound(tmp_path / f"{name}.wav")
    found, _ = entries(tmp_path, speaker_pattern=r"(p\d)_")
    assert [e.speaker for e in found] == ["p1", "p2", "p3", "p3"]
    assert not caplog.text
    entries(tmp_path, speaker_pattern=r"(p3)_")
    assert "isn't found in 2 of 4 paths, which get no speaker, such as p1_a.wav" in caplog.text
    nowhere = r"is found in none of 4 paths such as p1_a\.wav"
    for pattern, reason in (("(", "unterminated"), ("p", "no group"), ("(q)", nowhere)):
        with pytest.raises(ValueError, match=reason):
            entries(tmp_path, speaker_pattern=pattern)


@pytest.mark.parametrize(
    "names, texts, speakers, expected, rule",
    [
        # speakers, when there are three
        (["a", "b", "c", "d"], None, ["x", "y", "z", "x"], [0, 1, 2, 0], "speaker"),
        # the same text, whatever its punctuation; names that don't agree with texts don't count
        (["s_1", "s_2", "s_3"], ["Go on.", "go on", "Stop"], None, [0, 0, 1], "prompt"),
        # the same prompt by name, one take's text being mistyped
        ([f"p{i}_{t}" for i in range(3) for t in (1, 2)], list("aabbcx"), None, [0, 0, 1, 1, 2, 2], "prompt"),
        # kits
        (["k__1", "k__2", "l__1", "m__1"], None, None, [0, 0, 1, 2], "name up to the first __"),
        # takes
        (
            [f"w{i}_{t}" for i in range(9) for t in (1, 2)],
            None,
            None,
            [i // 2 for i in range(18)],
            "up to the last",
        ),
        # a common prefix says nothing
        ([f"recording_{i}" for i in range(9)], None, None, list(range(9)), "file"),
        ([f"{n}_{i}" for n in ("kick", "hat", "tom") for i in range(9)], None, None, list(range(27)), "file"),
    ],
)
def test_what_belongs_together(names, texts, speakers, expected, rule):
    count = len(names)
    records = [
        record(n, t, s)
        for n, t, s in zip(names, texts or [None] * count, speakers or [None] * count, strict=True)
    ]
    got, said = groups(records)
    assert rule in said
    same = [[a == b for b in got] for a in got]
    assert same == [[a == b for b in expected] for a in expected]


def test_splits_are_shares_of_groups_and_stable_when_files_are_added():
    records = [record(f"g{i:04}_{take}") for i in range(1000) for take in range(3)]
    before, _ = split(records, seed=4, valid=0.1, test=0.05)
    sizes = {name: len(part) for name, part in by_split(before).items()}
    assert abs(sizes["valid"] - 300) < 90  # three standard deviations
    assert abs(sizes["test"] - 150) < 62
    more = [record(f"new{i}_{take}") for i in range(100) for take in range(3)]
    after, _ = split(more + records, seed=4, valid=0.1, test=0.05)
    assert after[len(more) :] == before
    assert split(records, seed=5)[0] != split(records, seed=4)[0]
    assert split(records[::-1], seed=4, valid=0.1, test=0.05)[0] == before[::-1]


@pytest.mark.parametrize("count", [3, 4, 5, 10])
def test_small_corpora_have_every_split(count):
    for seed in range(30):
        done, _ = split([record(f"file{i}") for i in range(count)], seed=seed)
        assert all(by_split(done).values()), seed
        even, _ = split([record(f"file{i}") for i in range(count)], seed=seed, valid=0.5, test=0.45)
        assert all(by_split(even).values()), seed
        none, _ = split([record(f"file{i}") for i in range(count)], seed=seed, test=0.0)
        assert [bool(part) for part in by_split(none).values()] == [True, True, False]
    done, _ = split([record("a"), record("b")], seed=0, valid=0.0, test=0.0)
    assert {r.split for r in done} == {"train"}
    with pytest.raises(ValueError, match="below 1"):
        split([], seed=0, valid=0.6, test=0.4)


def test_a_group_that_is_most_of_the_corpus_is_trained_on():
    records = [record("big__1", frames=100 * RATE)] + [record(f"k{i}__1") for i in range(20)]
    for seed in range(40):
        assert split(records, seed=seed)[0][0].split == "train"


def test_a_few_loops_among_short_sounds_hold_no_label_out():
    """Each label is one prefix, as in a sample pack sorted by prefix, and one sound in ten lasts long."""
    records = [
        dataclasses.replace(record(f"{label}_{i}", frames=RATE * (9 if i == 0 else 1)), label=label)
        for label in ("bd", "sn", "vinyl", "loop", "hat", "tabla")
        for i in range(10)
    ]
    for seed in range(30):
        trained = {r.label for r in by_split(split(records, seed=seed, valid=0.2, test=0.2)[0])["train"]}
        assert trained == {"bd", "sn", "vinyl", "loop", "hat", "tabla"}


@pytest.mark.parametrize("seconds", [0.1, 3])
def test_copies_are_on_one_side_without_labels_too(tmp_path, seconds):
    for i in range(30):
        for name in (f"one{i}", f"other{i}"):
            sound(tmp_path / f"{name}.wav", round(seconds * RATE) + 2 * (i % 3), seed=i)
    records = open_corpus(tmp_path, seed=0, valid=0.2, test=0.2)
    number = {r.path.stem: r.split for r in records}
    assert all(number[f"one{i}"] == number[f"other{i}"] for i in range(30))
    assert all(by_split(records).values())


def test_kathleen_leaks_no_prompt(shared):
    records = open_corpus(shared / "data" / "kathleen", seed=1)
    assert len(records) == 1523
    assert sum(r.seconds for r in records) / 3600 == pytest.approx(1.29, abs=0.01)
    parts = by_split(records)
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert parts[one]
        assert not {r.text for r in parts[one]} & {r.text for r in parts[other]}
        prompts = [{r.path.stem.rpartition("_")[0] for r in parts[name]} for name in (one, other)]
        assert not prompts[0] & prompts[1]
    assert 0.02 < sum(r.seconds for r in parts["valid"]) / sum(r.seconds for r in records) < 0.1


def test_words_and_drums_leak_no_speaker_and_no_kit(shared):
    for folder, key in (("words", lambda n: n.split("_")[0]), ("drums", lambda n: n.split("__")[0])):
        parts = by_split(open_corpus(shared / "data" / folder))
        held = {key(r.path.name) for name in ("valid", "test") for r in parts[name]}
        assert parts["valid"]
        assert parts["test"]
        assert not held & {key(r.path.name) for r in parts["train"]}


def test_open_corpus_takes_a_folder_or_a_manifest_and_keeps_its_splits(tmp_path, caplog):
    for i in range(6):
        sound(tmp_path / "in" / f"{i}.wav", seed=i)
    (tmp_path / "in" / "bad.wav").write_text("no")
    scanned = open_corpus(tmp_path / "in", seed=2)
    assert "skipped 1 file:" in caplog.text
    assert "bad.wav: not audio" in caplog.text
    assert all(by_split(scanned).values())
    plain = [dataclasses.replace(r, split=None) for r in scanned]
    write_manifest(tmp_path / "in" / "manifest.jsonl", plain)
    assert open_corpus(tmp_path / "in", seed=2) == scanned
    given = [dataclasses.replace(r, split="train") for r in scanned]
    write_manifest(tmp_path / "in" / "manifest.jsonl", given)
    assert open_corpus(tmp_path / "in" / "manifest.jsonl", seed=2) == given


def test_open_corpus_says_what_is_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_text("no")
    (tmp_path / "bad.jsonl").touch()
    (tmp_path / "a.wav").touch()
    for name, reason in (
        ("nowhere", "no such folder"),
        ("empty", "no audio files"),
        ("bad", "none of 1 file can be used: .*a.wav: not audio"),
        ("bad.jsonl", "empty"),
        ("a.wav", "expected a folder"),
    ):
        with pytest.raises(ValueError, match=reason):
            open_corpus(tmp_path / name)
