"""Counts in words, and that no command says "1 files"."""

import re
from pathlib import Path

import numpy as np
import pytest

from gansound import audio
from gansound.cli import main
from gansound.counts import counted


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
        assert not re.search(r"(?<!of )(?<![\d.,/])\b1 (exact copies|[a-z]+s)\b(?! of)", said), said
