"""`gansound train` as a user runs it: the run folder, metrics, TensorBoard, resuming, every shipped recipe."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gansound.cli import main
from gansound.cli.errors import UsageError
from gansound.cli.train import overrides
from gansound.cli.training_progress import TrainingProgress, duration
from gansound.inference.clips import ClipGenerator
from gansound.inference.vocoder import Vocoder
from gansound.recipe import load_recipe, recipe_names, recipe_summaries
from tests.corpus import write_corpus
from tests.tiny import arguments, save_tiny_model

QUICK = {"data.segment_samples": "2048", "data.workers": "0", "batch_size": "2", "threads": "1"}
WAVE = {
    "generator.init_args.clip_samples": "2048",
    "generator.init_args.dim": "2",
    "discriminators.wave.network.init_args": "{clip_samples: 2048, dim: 2}",
}
HIFIGAN = {
    "generator.init_args.channels": "16",
    "discriminators.mpd.network.init_args": "{channels: 1}",
    "discriminators.msd.network.init_args": "{channels: 16}",
}
BIGVGAN = {
    "generator.init_args.channels": "64",
    "generator.init_args.residual_kernel_sizes": "[3]",
    "generator.init_args.residual_dilations": "[[1]]",
    "discriminators.mpd.network.init_args": "{channels: 1}",
}
BIGVGAN_1 = BIGVGAN | {"discriminators.mrd.network.init_args.channels": "2"}
BIGVGAN_2 = BIGVGAN | {"discriminators.cqt.network.init_args.channels": "2"}
UNIVERSAL = {
    "generator.init_args": "{channels: 16, hidden_channels: 32, blocks: 1}",
    "data.segment_samples": "2304",  # the window of its modulation loss
}
# What makes each recipe quick; a recipe that isn't named here runs as it is.
SMALL = {
    "finetune_vocoder": {
        "discriminators.mpd.network.init_args": "{channels: 1}",
        "discriminators.msd.network.init_args": "{channels: 16}",
    },
    "melgan_ljspeech": {
        "generator.init_args": "{channels: 32}",
        "discriminators.msd.network.init_args": "{channels: 4, max_channels: 32}",
    },
    "multi_band_melgan_v2_ljspeech": {
        "generator.init_args": "{channels: 32}",
        "discriminators.msd.network.init_args": "{channels: 4, max_channels: 32}",
    },
    "hifigan_v1_ljspeech": HIFIGAN,
    "hifigan_v2_ljspeech": HIFIGAN,
    "hifigan_v3_ljspeech": HIFIGAN,
    "hifigan_v1_libritts": HIFIGAN,
    "nsf_hifigan_44khz": HIFIGAN | {"generator.init_args.channels": "32"},
    "istftnet_ljspeech": HIFIGAN,
    "vocos_24khz": {
        "generator.init_args": "{channels: 16, hidden_channels: 32, blocks: 1}",
        "discriminators.mpd.network.init_args": "{channels: 1}",
        "discriminators.mrd.network.init_args.channels": "2",
    },
    "bigvgan_24khz": BIGVGAN_1,
    "bigvgan_base_22khz": BIGVGAN_1,
    "bigvgan_v2_22khz": BIGVGAN_2,
    "bigvgan_v2_24khz": BIGVGAN_2,
    "bigvgan_v2_44khz": BIGVGAN_2,
    "freev_cpu": {"generator.init_args": "{channels: 16, hidden_channels: 32, blocks: 1}"},
    "universal_cpu": UNIVERSAL,
    "universal_live_cpu": UNIVERSAL
    | {"generator.init_args": "{channels: 16, hidden_channels: 32, blocks: 1, causal: true}"},
    "universal_44khz_cpu": UNIVERSAL
    | {
        "generator.init_args": "{n_fft: 2048, channels: 16, hidden_channels: 32, blocks: 1, bands: 112}",
        "data.segment_samples": "4608",
    },
    "universal_44khz_adversarial_cpu": UNIVERSAL
    | {
        "generator.init_args": "{n_fft: 2048, channels: 16, hidden_channels: 32, blocks: 1, bands: 112}",
        "data.segment_samples": "8192",
        "discriminators.mrd.network.init_args.channels": "2",
        "discriminators.mrd.crop_samples": "4608",
        "discriminators.mrd.every": "1",
        "precision": "fp32",
    },
    "universal_adversarial_cpu": UNIVERSAL
    | {
        "discriminators.mrd.network.init_args.channels": "2",
        "discriminators.mrd.crop_samples": "2048",
        "discriminators.mrd.every": "1",
        "precision": "fp32",  # torch 2.13's bf16 convolutions of three frames read memory that was never written
    },
    "tiny_cpu": {"generator.init_args": "{channels: 16, hidden_channels: 32, blocks: 1}"},
    "specgan_drums": {
        "generator.init_args.frames": "8",
        "generator.init_args.dim": "2",
        "discriminators.spectrum.network.init_args": "{frames: 8, dim: 2}",
    },
    "specgan_drums_44khz": {
        "generator.init_args.frames": "8",
        "generator.init_args.dim": "2",
        "discriminators.spectrum.network.init_args": "{frames: 8, dim: 2}",
        "data.segment_samples": "4096",
    },
    "wavegan_drums": WAVE | {
        "discriminators.spectrum.network.init_args.frames": "8",
        "discriminators.spectrum.network.init_args.dim": "2",
    },
    "wavegan_sc09": WAVE,
    "wavegan_tiny_cpu": WAVE,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("made") / "a corpus, [é] #1")


def train(corpus: Path, run: Path, steps: int = 3, **changes: str) -> int:
    command = [
        "train",
        "tiny_cpu",
        "--data.path",
        str(corpus),
        "--steps",
        str(steps),
        "--seed",
        "0",
        "--run",
        str(run),
    ]
    return main([*command, *arguments(**changes)])


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[dict[str, Any]]:
    timing = ("step_seconds", "data_share")
    return [{key: value for key, value in line.items() if key not in timing} for line in metrics(run)]


def newest(run: Path) -> dict[str, torch.Tensor]:
    folder = max((run / "checkpoints").iterdir())
    files = folder.glob("*.safetensors")
    return {f"{file.stem}/{key}": value for file in files for key, value in load_file(file).items()}


VALIDATED = {"validate_every": "3", "validate_utterances": "1", "checkpoint_every": "2"}


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a run é"
    assert train(corpus, folder, **VALIDATED) == 0
    return folder


def test_the_run_folder(run: Path, corpus: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml", "metrics.jsonl", "sessions.jsonl", "tensorboard", "checkpoints", "model", "best",
    }  # fmt: skip
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000002", "step_00000003"]
    resolved = load_recipe(run / "recipe.yaml")
    assert resolved["data"]["path"] == str(corpus)
    assert (resolved["steps"], resolved["seed"], resolved["batch_size"]) == (3, 0, 2)
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pkl", ".ckpt", ".bin", ".tmp")]


def test_metrics_hold_one_object_a_step(run: Path) -> None:
    lines = metrics(run)
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    validated = {"valid/mel_distance", "valid/level_db", "valid/clipped_share"}
    assert set(lines[0]) - {"valid/pesq_wb"} == {"step", *validated}
    assert {"spectrum", "gradient_norm/generator", "learning_rate", "step_seconds", "data_share"} <= set(
        lines[1]
    )
    assert "discriminator/msd" not in lines[1], "adversarial_from is 1: the first step has no discriminator"
    adversarial = {"discriminator/msd", "adversarial/msd", "feature_matching/msd", "discriminator_wins/msd"}
    assert adversarial <= set(lines[2])
    assert "valid/mel_distance" in lines[3]
    assert "spectrum" in lines[3]
    assert all(isinstance(value, int | float) for line in lines for value in line.values())
    assert all(0 <= line["data_share"] <= 1 for line in lines[1:])


def test_tensorboard_holds_figures_sounds_and_pictures(run: Path) -> None:
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "audio": 0})
    board.Reload()
    tags = board.Tags()
    logged = {key for line in metrics(run) for key in line if key != "step"}
    assert set(tags["scalars"]) == logged
    spectrum = [(event.step, event.value) for event in board.Scalars("spectrum")]
    assert spectrum == [(line["step"], pytest.approx(line["spectrum"])) for line in metrics(run)[1:]]
    (picture,) = tags["images"]
    assert [event.step for event in board.Images(picture)] == [0, 3]
    assert board.Images(picture)[0].encoded_image_string.startswith(b"\x89PNG")
    real, generated = (
        next(tag for tag in tags["audio"] if tag.endswith(end)) for end in ("/real", "/generated")
    )
    assert [event.step for event in board.Audio(real)] == [0]
    assert [event.step for event in board.Audio(generated)] == [0, 3]
    assert board.Audio(generated)[0].sample_rate == 22050


def test_the_model_it_leaves_vocodes(run: Path, corpus: Path, tmp_path: Path) -> None:
    vocoder = Vocoder.from_pretrained(run / "model", device="cpu")
    assert vocoder.info["steps"] == 3
    assert set(vocoder.info["held_out"]) == {"valid", "test"}
    assert vocoder(torch.zeros(80, 7)).shape == (1, 7 * 256)
    out = tmp_path / "out.wav"
    assert main(["vocode", str(corpus / "clip00.wav"), "-o", str(out), "--model", str(run / "model")]) == 0
    # It is the average of the newest checkpoint that is shipped, not the generator itself.
    state = newest(run)
    average = {
        k.removeprefix("generator_average//module."): v for k, v in state.items() if "_average//module." in k
    }
    for name, value in vocoder.generator.state_dict().items():
        assert torch.equal(value, average[name]), name


def test_started_again_it_is_done(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train(corpus, run, **VALIDATED) == 0
    assert "all 3 steps are done; raise --steps" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    copy = shutil.copytree(run, tmp_path / "run")  # its recipe takes the steps that it is given
    assert train(corpus, copy, steps=2, **VALIDATED) == 0
    assert "all 2 steps are done; it is at step 3; raise" in capsys.readouterr().err


def test_a_run_in_place_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, own = tmp_path / "run", tmp_path / "run" / "recipe.yaml"
    run.mkdir()
    own.write_text("base: tiny_cpu\n")
    assert main(["train", str(run)]) == 2
    assert f"its recipe is {own}, and --run {run} goes on with it" in capsys.readouterr().err
    assert main(["train", "--run", str(run)]) == 2
    assert f"gansound train {own} --run {run}\n" in capsys.readouterr().err


def test_interrupted_and_resumed_by_the_same_command(
    run: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    observe = TrainingProgress._observe

    def ctrl_c(self: TrainingProgress, now: Any) -> None:
        if now.step == 3:
            raise KeyboardInterrupt
        observe(self, now)

    monkeypatch.setattr(TrainingProgress, "_observe", ctrl_c)
    folder = tmp_path / "run"
    assert train(corpus, folder, **VALIDATED) == 130
    err = capsys.readouterr().err
    assert f"the same command goes on from {folder / 'checkpoints' / 'step_00000002'}" in err
    assert err.endswith("error: interrupted\n")
    assert "Traceback" not in err
    monkeypatch.setattr(TrainingProgress, "_observe", observe)
    monkeypatch.chdir(corpus.parent)
    assert train(Path(corpus.name), folder, **VALIDATED) == 0, "the same corpus, seen from another folder"
    assert "resuming" in capsys.readouterr().err
    assert losses(folder) == losses(run)
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    shown = [event.step for event in board.Scalars("spectrum")]
    assert shown == [
        line["step"] for line in metrics(folder) if "spectrum" in line
    ]  # that it went on from too
    resumed, whole = newest(folder), newest(run)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_another_recipe_in_the_folder_is_refused(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus, run, batch_size="4", **VALIDATED) == 2
    assert "batch_size" in capsys.readouterr().err


def test_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny_cpu", "--keys"]) == 0
    out = capsys.readouterr().out
    for key in ("steps", "data.path", "batch_size", "generator_optimization.optimizer", "adversarial_from"):
        assert key in out
    rows = [line.split() for line in out.splitlines()]
    assert ["mel.sample_rate", "a", "whole", "number", "22050", "Hz."] in rows
    assert main(["train", "wavegan_tiny_cpu", "--keys"]) == 0
    assert "\nmel" not in capsys.readouterr().out


def test_without_a_recipe_the_shipped_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    told = capsys.readouterr().err
    assert main(["train", "--help"]) == 0
    helped = capsys.readouterr().out
    summaries = recipe_summaries()
    assert set(summaries) == set(recipe_names())
    for name, summary in summaries.items():
        assert 15 < len(summary) < 110
        for listed in (told, helped):
            assert [line.split(maxsplit=1) for line in listed.splitlines()].count([name, summary]) == 1
    assert summaries["melgan_ljspeech"] == (
        "MelGAN as published, for LJSpeech or any corpus of one speaker at 22.05 kHz"
    )


def test_overrides() -> None:
    assert overrides(["--steps", "3", "--data.gain_db=[-6, 6]", "--lr", "-1e-3", "--ema_decay", "null"]) == {
        "steps": "3", "data.gain_db": "[-6, 6]", "lr": "-1e-3", "ema_decay": "null",
    }  # fmt: skip
    assert overrides(["--a=x=y"]) == {"a": "x=y"}
    for wrong in (["steps"], ["--steps"], ["--steps", "--seed"], ["--steps", "1", "--steps=2"]):
        with pytest.raises(UsageError):
            overrides(wrong)


@pytest.mark.parametrize("name", ["a #1", "[x]", "1e3", "null.d", "a: b", "ü", 'quo"te'])
def test_a_path_is_taken_as_it_is_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("tiny_cpu", overrides(["--data.path", name]))
    assert recipe["data"]["path"] == str(tmp_path / name)


def test_quiet_says_nothing(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        "-q",
        "tiny_cpu",
        "--data.path",
        str(corpus),
        "--steps",
        "1",
        "--generator_optimization.schedule.warmup_steps",
        "0",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*command, *arguments()]) == 0
    assert capsys.readouterr() == ("", "")


def settle(name: str, changes: dict[str, str]) -> list[str]:
    return [part for key, value in (QUICK | changes).items() for part in (f"--{key}", value)]


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_trains_two_steps(name: str, corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    changes = {"log_every": "1", "validate_every": "null"} | SMALL.get(name, {})
    if recipe["generator"] is None:  # the model's that it starts from
        changes |= {"init_from": str(save_tiny_model(tmp_path / "theirs")), "patience": "null"}
    if recipe.get("adversarial_from"):
        changes["adversarial_from"] = "1"
    command = [
        "train",
        name,
        "--data.path",
        str(corpus),
        "--steps",
        "2",
        "--seed",
        "0",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*command, *settle(name, changes)]) == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2]
    for judge in recipe.get("discriminators") or {}:
        assert f"discriminator/{judge}" in lines[1]
    assert {f"{term}" for term in recipe.get("losses") or {}} <= set(lines[1])
    kind = Vocoder if recipe["task"].endswith("VocoderTask") else ClipGenerator
    kind.from_pretrained(tmp_path / "run" / "model", device="cpu")


@pytest.mark.slow
def test_the_published_melgan_trains_two_steps(corpus: Path, tmp_path: Path) -> None:
    command = [
        "train",
        "melgan_ljspeech",
        "--data.path",
        str(corpus),
        "--steps",
        "2",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*command, "--batch_size", "2", "--validate_every", "null", "--log_every", "1"]) == 0
    lines = metrics(tmp_path / "run")
    # Hinge of three scales starts where real and fake are told apart by nothing: at 2 each.
    assert lines[0]["discriminator/msd"] == pytest.approx(6.0, abs=0.5)
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert sum(value.numel() for value in weights.values()) == 4_260_257


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.9, 60, 3599, 3600, 11100)] == [
        "0s", "59s", "1m00s", "59m59s", "1h00m", "3h05m",
    ]  # fmt: skip
