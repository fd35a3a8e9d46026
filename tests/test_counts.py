"""Counts in words, and that no command says "1 files"."""

import re
from pathlib import Path

import numpy as np
import pytest

from gansound import audio
from gansound.cli import main
from gansound.counts import counted, some_of
from gansound.mel import MelSpec


@pytest.mark.parametrize(
    "number, said",
    [(0, "0 copies"), (1, "1 copy"), (2, "2 copies"), (-1, "-1 copies"), (1000, "1000 copies")],
)
def test_a_count(number: int, said: str) -> None:
    assert counted(number, "copy", "copies") == said
    assert counted(number, "file") == said.replace("copies", "files").replace("copy", "file")


def test_one_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 22050).astype(np.float32)
    for rate in (16000, 22050):  # one to resample, one as it is
        audio.write(root / f"{rate}.wav", noise[:rate], rate)
    (root / "cut.wav").write_bytes((root / "22050.wav").read_bytes()[:30])
    (root / "copy.wav").write_bytes((root / "22050.wav").read_bytes())
    for command in (
        ["check", str(root)],
        ["prepare", str(root), "-o", str(tmp_path / "out"), "--sample-rate", "16000"],
        ["prepare", str(root), "-o", str(tmp_path / "part"), "--slice", "1/4"],
    ):
        assert main(["data", *command]) == 0
        said = "".join(capsys.readouterr())
        assert re.search(r"\b1 (file|group|copy)\b|\b1 exact copy", said), said
        assert not wrong_of_one(said), said


@pytest.mark.parametrize(
    "part, whole, said, verb",
    [
        (0, 2, "0 of 2 files", "are"),
        (1, 2, "1 of 2 files", "is"),
        (2, 2, "2 of 2 files", "are"),
        (1, 1, "1 of 1 file", "is"),
    ],
)
def test_some_of_all(part: int, whole: int, said: str, verb: str) -> None:
    assert some_of(part, whole, "file") == said
    assert some_of(part, whole, "file", "is", "are") == f"{said} {verb}"


def wrong_of_one(said: str) -> list[str]:
    """What is said of one thing as of several: "1 files", "of 1 files", "1 of 2 files are"."""
    things = r"(?<![\d.,/])\b1 (?!is\b|has\b)(?:exact copies|[a-z]+s)\b(?! of)"
    verbs = r"\b1 of \d+ [a-z]+ (?:are|have|lie|hold|pass|last)\b"
    return re.findall(f"{things}|{verbs}", said)


def test_what_is_wrong_of_one_is_found() -> None:
    for wrong in ("1 files", "none of 1 files can", "1 of 2 files are", "1 of 1 file have"):
        assert wrong_of_one(wrong), wrong
    for right in ("1 file", "1 of 2 files is", "21 files", "1 has", "0.1 seconds", "1 of 1 file"):
        assert not wrong_of_one(right), right


def test_a_corpus_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that can't be used, and one that has every fault that is counted."""
    bad, odd = tmp_path / "bad", tmp_path / "odd"
    for folder in (bad, odd):
        (folder / "clap").mkdir(parents=True)
    (bad / "clap" / "a.wav").write_bytes(b"no sound")
    time = np.arange(5 * 16000) / 16000
    loud = np.clip(0.3 + 3 * np.sin(2 * np.pi * 200 * time), -0.99, 0.99).astype(np.float32)
    loud[0] = 1.5
    audio.write(odd / "clap" / "a.wav", np.stack([loud, loud]), 16000, subtype="FLOAT")
    for command, code, words in (
        (["check", str(bad)], 1, "none of 1 file can be used"),
        (["prepare", str(bad), "-o", str(tmp_path / "out")], 1, "none of 1 file can be used"),
        (["check", str(odd)], 0, "the file passes full scale"),
    ):
        assert main(["data", *command]) == code
        said = " ".join("".join(capsys.readouterr()).split())
        assert words in said
        assert not wrong_of_one(said), said


def test_one_value_of_a_mel() -> None:
    spec = MelSpec.preset("hifigan")
    for value, words in ((np.nan, "1 of 400 values is NaN"), (50.0, "1 of 400 values is such as no sound")):
        mel = np.full((80, 5), -5.0)
        mel[3, 2] = value
        with pytest.raises(ValueError, match=words):
            spec.check(mel)
