"""Slices of a job, each by a process of its own, make what one process makes, byte for byte."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from gansound.cli import main
from gansound.data import pack, prepare
from gansound.data.pack import write_shards
from gansound.data.slices import Slice
from gansound.data.source import open_corpus
from tests.corpus import write_corpus
from tests.tiny import save_tiny_model


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but journals, whose lines come in the order of the work."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("journal")
    }


def test_slices_deal_out_all_there_is_once():
    for count in (1, 2, 7, 30):
        parts = [Slice(number, count).of(range(23)) for number in range(1, count + 1)]
        assert sorted(item for part in parts for item in part) == list(range(23))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0", "", "1/2/3", "1/9999999"])
def test_what_is_no_slice_is_refused(text, capsys, tmp_path):
    with pytest.raises(ValueError, match="slice"):
        Slice.parse(text)
    arguments = ["data", "prepare", str(write_corpus(tmp_path / "in", files=1)), "-o", str(tmp_path / "out")]
    assert main([*arguments, f"--slice={text}"]) == 2
    assert "3/16" in capsys.readouterr().err


def test_slurm_says_which(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=r"SLURM_PROCID is None.*srun"):
        Slice.parse("slurm")
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("SLURM_NTASKS", "16")
    assert Slice.parse("slurm") == Slice(3, 16)
    for name, value in {"ID": "14", "MIN": "10", "STEP": "2", "COUNT": "5"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert Slice.parse("slurm") == Slice(3, 5)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "many")
    with pytest.raises(ValueError, match="COUNT is 'many'"):
        Slice.parse("slurm")


def test_a_corpus_prepared_in_slices_is_the_one_prepared_at_once(tmp_path, monkeypatch, capsys):
    write_corpus(tmp_path / "in", files=9)
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "in" / "copy.wav").write_bytes((tmp_path / "in" / "clip03.wav").read_bytes())

    def run(out, *more):
        arguments = ["--sample-rate", "16000", "--jobs", "1", "--shards", str(tmp_path / f"{out}_shards")]
        given = arguments if "--shards" in more else arguments[:-2]
        more = [word for word in more if word != "--shards"]
        return main(["data", "prepare", str(tmp_path / "in"), "-o", str(tmp_path / out), *given, *more])

    assert run("whole", "--shards") == 0
    assert run("sliced", "--shards", "--slice", "1/3") == 2
    assert "no manifest yet" in capsys.readouterr().err
    for number in random.Random(0).sample([1, 2, 3], 3):
        assert run("sliced", "--slice", f"{number}/3") == 0
        assert not (tmp_path / "sliced" / "manifest.jsonl").exists()
        assert run("sliced", "--slice", f"{number}/3") == 0
    seen: list[str] = []
    real = prepare.process
    monkeypatch.setattr(prepare, "process", lambda *given: (seen.append(given[0].name), real(*given))[1])
    assert run("sliced") == 0
    assert seen == ["broken.wav"], "what the slices did is known"
    whole, sliced = tree(tmp_path / "whole"), tree(tmp_path / "sliced")
    assert whole.keys() == sliced.keys()
    for name, content in whole.items():
        assert sliced[name].replace(b"/sliced/", b"/whole/") == content, name
    for number in (2, 1):
        assert run("sliced", "--shards", "--slice", f"{number}/2") == 0
        assert not (tmp_path / "sliced_shards" / "shards.json").exists()
    assert run("sliced", "--shards") == 0
    assert tree(tmp_path / "sliced_shards") == tree(tmp_path / "whole_shards")
    records, settings = open_corpus(tmp_path / "sliced"), {"shard_bytes": 60_000, "jobs": 1}
    for number in (3, 1, 2):
        assert write_shards(records, str(tmp_path / "many"), part=Slice(number, 3), **settings) is None
    real = pack._add
    monkeypatch.setattr(pack, "_add", lambda *given: pytest.fail("the slices wrote all"))
    assert write_shards(records, str(tmp_path / "many"), **settings).records == 9
    monkeypatch.setattr(pack, "_add", real)
    write_shards(records, str(tmp_path / "one"), **settings)
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    assert len(list((tmp_path / "many").rglob("*.tar"))) == 5


def test_mels_vocoded_in_slices_are_those_vocoded_at_once(tmp_path, caplog):
    model = save_tiny_model(tmp_path / "model")
    mels = tmp_path / "mels"
    mels.mkdir()
    for i in range(5):
        np.save(mels / f"{i}.npy", np.random.default_rng(i).uniform(-4, -1, (80, 6 + i)).astype(np.float32))

    def run(out, *more):
        return main(["vocode", str(mels), "-o", str(tmp_path / out), "--model", str(model), *more])

    assert run("whole") == 0
    assert run("sliced", "--slice", "2/2") == 0
    assert sorted(tree(tmp_path / "sliced")) == ["1.wav", "3.wav"]
    made = (tmp_path / "sliced" / "1.wav").stat().st_mtime_ns
    assert run("sliced", "--skip-existing", "--slice", "1/2") == 0
    assert run("sliced", "--skip-existing") == 0
    assert (tmp_path / "sliced" / "1.wav").stat().st_mtime_ns == made
    assert tree(tmp_path / "sliced") == tree(tmp_path / "whole")
    assert run("empty", "--slice", "9/9") == 0
    assert not (tmp_path / "empty").exists()
    assert run("sliced", "--slice", "7/3") == 2
