"""The classifier of a user's own sounds: it learns, survives its folder, and refuses what can't be learned."""

import json

import numpy as np
import pytest

import gansound.cli as cli
from gansound.audio import write
from gansound.metrics.sets.classifier import CONFIG, WEIGHTS, ClassifierBackbone, ClassifierError
from gansound.metrics.sets.classifier_training import train_classifier

RATE = 8000
LABELS = ("high", "low", "noise")


def sounds(seed: int, count: int, samples: int = 2000) -> tuple[np.ndarray, list[int]]:
    """Decaying sines above 1500 Hz, below 400 Hz, and noise; levels, pitches and decays vary."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    classes = [i % 3 for i in range(count)]
    clips = []
    for label in classes:
        pitch = rng.uniform(1500, 3500) if label == 0 else rng.uniform(80, 400)
        tone = rng.standard_normal(samples) if label == 2 else np.sin(2 * np.pi * pitch * time)
        clips.append(rng.uniform(0.1, 0.6) * np.exp(-time / rng.uniform(0.02, 0.15)) * tone)
    return np.clip(np.stack(clips), -1, 1).astype(np.float32), classes


@pytest.fixture(scope="module")
def trained():
    return train_classifier(*sounds(1, 60), *sounds(2, 45), LABELS, RATE, steps=40)


def test_it_learns_three_kinds(trained):
    assert trained.accuracy > 0.9
    assert trained.confusion.sum(axis=1).tolist() == [15, 15, 15]
    assert trained.balanced_accuracy == pytest.approx(trained.accuracy)
    probabilities = trained.backbone.probabilities(sounds(3, 6)[0])
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2, 0, 1, 2]
    assert trained.backbone.embed(sounds(3, 6)[0]).shape == (6, 128)


def test_it_learns_nothing_from_labels_that_mean_nothing():
    clips, classes = sounds(1, 60)
    shuffled = np.random.default_rng(0).permutation(classes)
    found = train_classifier(clips, shuffled, *sounds(2, 45), LABELS, RATE, steps=20)
    assert found.accuracy < 0.7


def test_a_round_trip_through_its_folder(trained, tmp_path):
    trained.backbone.info = {"data": "here"}
    folder = trained.backbone.save(tmp_path / "made" / "classifier", {"picture.png": b"1"})
    assert sorted(path.name for path in folder.iterdir()) == sorted([CONFIG, WEIGHTS, "picture.png"])
    assert [path.name for path in folder.parent.iterdir()] == ["classifier"]
    again = ClassifierBackbone.load(folder)
    assert (again.labels, again.sample_rate, again.info) == (LABELS, RATE, {"data": "here"})
    clips = sounds(4, 8)[0]
    assert np.array_equal(again.embed(clips), trained.backbone.embed(clips))
    assert np.array_equal(again.probabilities(clips), trained.backbone.probabilities(clips))
    trained.backbone.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([CONFIG, WEIGHTS])


def test_folders_that_hold_no_classifier_are_refused(trained, tmp_path):
    with pytest.raises(ClassifierError, match="gansound classifier DIR -o"):
        ClassifierBackbone.load(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ClassifierError, match="isn't a classifier"):
        trained.backbone.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    folder = trained.backbone.save(tmp_path / "broken")
    described = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(described | {"labels": ["a", "b"]}))
    with pytest.raises(ClassifierError, match="can't be read as a classifier"):
        ClassifierBackbone.load(folder)


def test_a_save_that_fails_leaves_the_old_one(trained, tmp_path):
    folder = trained.backbone.save(tmp_path / "classifier")
    before = (folder / CONFIG).read_bytes()
    broken = ClassifierBackbone(trained.backbone.net, LABELS, RATE, 2000, {"bad": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        broken.save(folder)
    assert (folder / CONFIG).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["classifier"]


def test_what_cannot_be_learned_is_refused():
    clips, classes = sounds(1, 12)
    with pytest.raises(ValueError, match="no sound to learn 'extra' from"):
        train_classifier(clips, classes, clips, classes, (*LABELS, "extra"), RATE)
    with pytest.raises(ValueError, match="no sound is held out"):
        train_classifier(clips, classes, clips[:0], [], LABELS, RATE)
    with pytest.raises(ValueError, match="2 labels or more"):
        train_classifier(clips, [0] * 12, clips, classes, LABELS[:1], RATE)


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "classifier", ("gansound.cli.classifier", "learn a user's labels"))
    return lambda *arguments: cli.main(["classifier", *map(str, arguments)])


def test_the_command(command, tmp_path, capsys):
    clips, classes = sounds(1, 60)
    for i, (clip, label) in enumerate(zip(clips, classes, strict=True)):
        folder = tmp_path / "sounds" / LABELS[label]
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{'abcdefghij'[i // 6]}__{i}.wav", clip, RATE)
    out = tmp_path / "classifier"
    code = command(
        tmp_path / "sounds", "-o", out, "--sample-rate", RATE, "--seconds", 0.25, "--steps", 30, "--test", 0.3
    )
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert str(out) in shown.out
    assert "named right" in shown.out
    found = ClassifierBackbone.load(out)
    assert found.labels == LABELS
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    counts = np.array(found.info["confusion"])
    assert counts.sum() == found.info["held_out_count"] == 60 - found.info["training_count"]
    assert counts.sum() % 6 == 0  # whole kits of six are held out
    assert found.info["held_out_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())


def test_the_command_refuses_in_time(command, tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    for i in range(8):
        write(tmp_path / "flat" / f"{i}.wav", sounds(i, 1)[0][0], RATE)
    assert command(tmp_path / "nowhere", "-o", tmp_path / "out") == 2
    assert command(tmp_path / "flat", "-o", tmp_path / "out", "--test", 1.5) == 2
    assert command(tmp_path / "flat", "-o", tmp_path / "flat") == 2
    capsys.readouterr()
    assert command(tmp_path / "flat", "-o", tmp_path / "out") == 1
    assert "needs labels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
