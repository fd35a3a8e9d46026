"""`gansound evaluate` of generators of sounds and of folders of them."""

import json

import numpy as np
import pytest
import torch

import gansound.cli as cli
from gansound.audio import write
from gansound.generators.wavegan import WaveGANGenerator
from gansound.inference.clips import ClipGenerator
from gansound.metrics.sets import SetJudge
from gansound.metrics.sets.backbone import LogMelBackbone
from gansound.model_folder import save_model_folder
from tests.test_sets import hits
from tests.tiny import save_tiny_model

LABELS = ("hat", "kick")
RATE, SAMPLES = 8000, 1024


class Mine(LogMelBackbone):
    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate, bands=8, cells=4)
        self.name = "mine"


def evaluate(*arguments) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def drums(tmp_path_factory):
    """Ten kits of eight sounds in two label folders, three in four of them hats."""
    folder = tmp_path_factory.mktemp("drums")
    for i, sound in enumerate(hits(1, 80, 2 * SAMPLES)[:, ::2]):
        label = LABELS[i % 4 == 0]
        (folder / label).mkdir(exist_ok=True)
        write(folder / label / f"{'abcdefghij'[i // 8]}__{i:02d}.wav", sound, RATE)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    arguments = {"clip_samples": SAMPLES, "dim": 1, "sample_rate": RATE, "labels": list(LABELS)}
    torch.manual_seed(0)
    generator = WaveGANGenerator(**arguments)
    config = {"class_path": "gansound.generators.wavegan.WaveGANGenerator", "init_args": arguments}
    data = {"segment_samples": SAMPLES, "valid": 0.1, "test": 0.5, "one_shots": {"peak_db": -6.0}}
    path = tmp_path_factory.mktemp("model") / "model"
    return save_model_folder(path, generator, None, config=config, info={"data": data})


def test_a_model_is_judged(model, drums, tmp_path, capsys):
    files = tmp_path / "figures.json", tmp_path / "picture.png"
    code = evaluate(
        "--model", model, "--data", drums, "-n", 40, "--truncation", "0.5,1", "--json", files[0], "--picture", files[1]
    )  # fmt: skip
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "truncation 0.5" in shown.out
    assert "kernel distance ↓" in shown.out
    found = json.loads(files[0].read_text())
    assert f"{found['training_count']} sounds of {drums}, its split 'train', are taken for" in shown.err
    assert found["truncation"] == 1.0
    assert [one["truncation"] for one in found["truncations"]] == [0.5, 1.0]
    assert found["generated_count"] == 40
    assert found["held_out_count"] % 8 == 0  # whole kits
    assert found["held_out_count"] + found["training_count"] < 80
    assert found["kernel_distance"] > found["kernel_distance_floor_split"]
    assert (found["sample_rate_hz"], found["clip_seconds"]) == (RATE, SAMPLES / RATE)
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_every_sound_judged_is_another_and_labels_are_those_of_the_held_out(
    model, drums, monkeypatch, capsys
):
    heard = []
    real = SetJudge.judge
    monkeypatch.setattr(
        SetJudge, "judge", lambda self, fake, labels=None: heard.append(fake) or real(self, fake, labels)
    )
    assert evaluate("--model", model, "--data", drums, "-n", 150, "--seed", 3) == 0, capsys.readouterr().err
    assert heard[0].shape == (150, SAMPLES)
    assert len(np.unique(heard[0], axis=0)) == 150
    clips = ClipGenerator.from_pretrained(model)
    latents = clips.latents(150, 3)
    for i in (0, 63, 64, 149):  # more are made at once than these
        made = [clips.render(latents[i : i + 1], [label]).audio[0].mean(axis=0) for label in LABELS]
        assert min(np.abs(heard[0][i] - one).max() for one in made) < 1e-5


def test_a_folder_is_judged_and_one_of_real_sounds_is_at_the_floor(drums, tmp_path, capsys):
    made = tmp_path / "made"
    made.mkdir()
    for i, sound in enumerate(hits(7, 40, 2 * SAMPLES)[:, ::2]):
        write(made / f"{i}.wav", 0.85 * sound / np.abs(sound).max(), RATE)
    figures = tmp_path / "figures.json"
    arguments = ("--generated", made, "--data", drums, "--split", "test", "-k", 2, "--json", figures)
    capsys.readouterr()
    code = evaluate(*arguments, "--backbone", "tests.test_sets_cli.Mine", "--allow", "tests")
    said = capsys.readouterr().err
    assert code == 0, said
    found = json.loads(figures.read_text())
    assert found["backbone"] == "mine"
    assert found["generated_count"] == 40
    assert found["kernel_distance_low"] <= found["kernel_distance_floor_split_high"]


def test_a_folder_is_judged_at_its_usual_rate_and_never_for_long(drums, tmp_path, capsys):
    made = tmp_path / "made"
    made.mkdir()
    for i, sound in enumerate(hits(7, 14, 2 * SAMPLES)[:, ::2]):
        write(made / f"{i}.wav", sound, RATE)
    loop = np.tile(hits(8, 1, 2 * SAMPLES)[0], 40)
    write(made / "loop.wav", loop, 4 * RATE)
    write(made / "pad.wav", loop, RATE)
    figures = tmp_path / "figures.json"
    code = evaluate(
        "--generated", made, "--data", drums, "-k", 2, "--json", figures,
        "--backbone", "tests.test_sets_cli.Mine", "--allow", "tests",
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code == 0, said
    found = json.loads(figures.read_text())
    assert (found["sample_rate_hz"], found["clip_seconds"]) == (RATE, 4.0)
    assert "judged at 8000 Hz, 4.00 s of each sound" in said


def test_labels_of_generated_sounds_are_those_that_their_list_says(
    model, drums, tmp_path, monkeypatch, capsys
):
    assert cli.main(["generate", "--model", str(model), "-n", "16", "-o", str(tmp_path / "made")]) == 0
    heard = []
    monkeypatch.setattr("gansound.cli.evaluate_sets._numbers", lambda labels, known: heard.append(labels))
    asked = ("--generated", tmp_path / "made", "--model", model, "--data", drums, "-k", 2)
    assert evaluate(*asked) == 0, capsys.readouterr().err
    assert sorted(heard[-1]) == ["hat"] * 8 + ["kick"] * 8


def test_held_out_sounds_may_lie_in_a_folder_of_their_own(model, drums, tmp_path, capsys):
    own = tmp_path / "own"
    for label in LABELS:
        (own / label).mkdir(parents=True)
    for i, sound in enumerate(hits(9, 30, 2 * SAMPLES)[:, ::2]):
        write(own / LABELS[i % 2] / f"mine_{i:02d}.wav", sound, RATE)
    figures = tmp_path / "figures.json"
    common = ("--model", model, "--data", own, "-n", 40, "-k", 2, "--json", figures)
    assert evaluate(*common, "--split", "all", "--train", drums) == 0
    assert "are taken for" not in capsys.readouterr().err
    found = json.loads(figures.read_text())
    assert found["held_out_count"] == 30
    assert found["training_count"] == 56  # what the model's own shares leave of 80
    assert (found["split"], found["train"]) == ("all", str(drums))
    # Of --data's own split only that part counts.
    assert evaluate(*common, "--split", "test", "--train", drums) == 0, capsys.readouterr().err
    assert json.loads(figures.read_text())["held_out_count"] < 30
    capsys.readouterr()
    assert evaluate(*common, "--split", "all") == 2
    assert "--train" in capsys.readouterr().err
    assert evaluate(*common, "--split", "all", "--train", tmp_path / "no") == 2
    assert "no such folder" in capsys.readouterr().err


def test_what_cannot_be_judged_is_refused(model, drums, tmp_path, capsys):
    vocoder = save_tiny_model(tmp_path / "vocoder")
    for arguments, said in (
        (("--data", drums), "say what to measure"),
        (("--model", model, "--data", drums, "--split", "all"), "expected test or valid"),
        (("--model", model, "--data", drums, "--truncation", "0"), "above 0 and at most 1"),
        (("--model", model, "--data", drums, "--truncation", "x"), "expected numbers such as"),
        (("--model", model, "--data", drums, "-n", 0), "-n: got 0"),
        (("--model", model, "--data", drums, "--backbone", "os.path.join"), "refused and wasn't imported"),
        (("--model", model, "--data", drums, "--picture", tmp_path / "no" / "a.png"), "a folder that exists"),
        (("--generated", tmp_path / "nowhere", "--data", drums), "no such folder"),
        (("--generated", drums, "--data", drums, "--truncation", "0.5"), "are there already"),
        (("--generated", drums, "--data", drums, "--model", vocoder), "is a vocoder"),
    ):
        assert evaluate(*arguments) == 2, arguments
        assert said in capsys.readouterr().err
    assert evaluate("--model", model, "--data", drums, "-k", 40) == 1
    said = capsys.readouterr().err
    assert "sounds are held out in the split 'test', and with -k 40 at least 82 must be" in said
    assert said.count("split by") == 1  # one corpus, opened once
    assert evaluate("--model", model, "--data", drums, "-n", 5) == 1
    assert "got 5 generated sounds, expected at least 12" in capsys.readouterr().err
