"""The check of a GPU (`python -m tests.gpu`), on a processor: it runs whole, and finds what is planted."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gansound.data.segments import SegmentDataset
from gansound.losses import adversarial
from gansound.recipe import load_recipe
from gansound.tasks.vocoder import VocoderTask
from tests import warm
from tests.gpu import __main__ as check
from tests.gpu import absent, fast, models, right
from tests.gpu.checks import Check, LeftOut, Settings, perform

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("right", "fast", "inference", "train")


def settings(out: Path, seconds: float = 600.0) -> Settings:
    return Settings(out, torch.device("cpu"), tiny=True, until=time.monotonic() + seconds)


def states(part: str, checks: list[Check], out: Path) -> dict[str, str]:
    record = perform(part, checks, settings(out))
    assert json.loads((out / f"{part}.json").read_text()) == record
    return {entry["check"]: entry["state"] for entry in record["checks"]}


def chosen(module: Any, out: Path, *words: str) -> list[Check]:
    found = [one for one in module.checks(settings(out)) if any(word in one.name for word in words)]
    assert found
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Exit code, what was printed, and the records of the whole check at its least."""
    out = tmp_path_factory.mktemp("check")
    command = [
        warm.python(),
        "-m",
        "tests.gpu",
        str(out),
        "--device",
        "cpu",
        "--scale",
        "tiny",
        "--threads",
        "1",
    ]
    told = subprocess.run(
        [*command, "--seconds", "3000"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, timeout=1700, check=False,
    )  # fmt: skip
    return told.returncode, told.stdout + told.stderr, out


@pytest.mark.timeout(1800)  # half a minute of a core, ten times that on a busy machine
def test_the_whole_check_goes_well_and_every_part_reports(whole: tuple[int, str, Path]) -> None:
    code, told, out = whole
    assert code == 0, told
    assert "all went well" in told
    checked = {}
    for part in PARTS:
        record = json.loads((out / f"{part}.json").read_text())
        for entry in record["checks"]:
            assert entry["state"] in ("passed", "left out"), entry
            assert entry["check"] in told
            checked[entry["check"]] = entry
        assert any(entry["state"] == "passed" for entry in record["checks"]), part
    for name in models.generators():
        assert checked[f"forward: {name}"]["figures"]["error_fp32"] < 1e-5
        assert f"streaming: {name}" in checked
    for name in models.one_of_each(tiny=True):
        assert checked[f"two steps: {name}"]["state"] == "passed"
    assert checked["host syncs of a step"]["figures"] == {"tiny_cpu": 1, "wavegan_tiny_cpu": 1}
    assert checked["steps: melgan_ljspeech"]["figures"]["fp32"]["times_the_plain_loop"] > 0
    trained = checked["training: tiny_cpu"]["figures"]
    assert trained["steps"] == 3
    assert (out / "model.safetensors").stat().st_size == trained["weights_bytes"] <= 16 * 2**20
    assert json.loads((out / "summary.json").read_text())["parts"].keys() == set(PARTS)
    assert all(file.suffix in (".json", ".safetensors") for file in out.iterdir()), list(out.iterdir())
    assert len(list(out.iterdir())) <= 8  # as many files as come back from a lent machine


def test_every_discriminator_that_a_recipe_names_is_judged_and_every_generator_trained() -> None:
    recipes = {name: load_recipe(name) for name in models.RECIPES}
    judges = {
        judge["network"]["class_path"]
        for recipe in recipes.values()
        for judge in (recipe.get("discriminators") or {}).values()
    }
    assert judges <= {f"{cls.__module__}.{name}" for name, cls in models.discriminators().items()}
    generators = {recipe["generator"]["class_path"] for recipe in recipes.values()}
    for tiny in (False, True):
        chosen = models.one_of_each(tiny=tiny)
        assert {recipes[name]["generator"]["class_path"] for name in chosen} == generators
    assert len(chosen) == len(generators)
    assert "ScaleDiscriminator" not in models.discriminators(), "a part of another"


def wrong_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 alone, and by a thousandth, as TF32 would err."""
    real = F.conv1d

    def conv1d(x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        y = real(x, *rest, **more)
        return y * (1 + 1e-3 * torch.cos(torch.arange(y.shape[-1]))) if y.dtype == torch.float32 else y

    monkeypatch.setattr(F, "conv1d", conv1d)
    from gansound.nn import images

    monkeypatch.setattr(images, "quick_on", lambda device: False)


def wrong_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    real = F.leaky_relu

    def leaky_relu(x: torch.Tensor, slope: float = 0.01, *rest: Any, **more: Any) -> torch.Tensor:
        return real(x, slope + 2e-3 * (x.dtype == torch.float32), *rest, **more)

    monkeypatch.setattr(F, "leaky_relu", leaky_relu)


@pytest.mark.parametrize(
    "plant, words",
    [
        (wrong_convolution, ("forward: melgan", "streaming: melgan", "gradients: melgan")),
        (wrong_activation, ("forward: hifigan v1", "judging: MultiScale", "two steps: melgan")),
    ],
)
def test_a_planted_wrong_result_of_a_kernel_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plant: Callable[..., None], words: tuple[str, ...]
) -> None:
    checks = chosen(right, tmp_path, *words)
    assert set(states("right", checks, tmp_path).values()) == {"passed"}
    plant(monkeypatch)
    assert set(states("right", checks, tmp_path).values()) == {"failed"}


def test_a_planted_wrong_loss_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = adversarial.LeastSquares.generator

    def generator(self: Any, fake: list[torch.Tensor], real_logits: Any = None) -> torch.Tensor:
        loss = real(self, fake, real_logits)
        return loss * 1.01 if fake[0].dtype == torch.float32 else loss

    monkeypatch.setattr(adversarial.LeastSquares, "generator", generator)
    assert states("right", chosen(right, tmp_path, "two steps: multi_band_melgan_v2_ljspeech"), tmp_path) == {
        "two steps: multi_band_melgan_v2_ljspeech": "failed"
    }


def test_a_planted_host_sync_is_found_with_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = VocoderTask.generator_phase

    def generator_phase(self: VocoderTask, batch: Any, fake: torch.Tensor, *rest: Any) -> Any:
        fake.mean().item()
        return real(self, batch, fake, *rest)

    monkeypatch.setattr(VocoderTask, "generator_phase", generator_phase)
    (entry,) = perform("right", chosen(right, tmp_path, "host syncs"), settings(tmp_path))["checks"]
    assert entry["state"] == "failed"
    assert "tiny_cpu" in entry["said"]
    assert "phases.py" in entry["said"]


def test_a_planted_slow_loader_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A step that takes what we say, for what the loader takes is up to the machine.
    monkeypatch.setattr(fast, "_seconds", lambda step, settings: 600.0)
    checks = chosen(fast, tmp_path, "loader")
    assert set(states("fast", checks, tmp_path).values()) == {"passed"}
    real = SegmentDataset._make

    def make(self: SegmentDataset, *drawn: Any) -> Any:
        time.sleep(0.2)
        return real(self, *drawn)

    monkeypatch.setattr(SegmentDataset, "_make", make)
    monkeypatch.setattr(fast, "_seconds", lambda step, settings: 0.01)
    (entry,) = perform("fast", checks, settings(tmp_path))["checks"]
    assert entry["state"] == "failed"
    assert "training waits for the loader" in entry["said"]


def test_a_check_that_fails_breaks_or_lacks_something_does_not_stop_the_others(tmp_path: Path) -> None:
    def fails(settings: Settings) -> dict[str, Any]:
        raise AssertionError("off by 3")

    def breaks(settings: Settings) -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def lacks(settings: Settings) -> dict[str, Any]:
        raise LeftOut("needs a sousaphone")

    checks = [
        Check("one", fails), Check("two", breaks), Check("three", lacks), Check("four", lambda settings: {"x": 1.0}),
        Check("five", lambda settings: {}, seconds=1e6),
    ]  # fmt: skip
    record = perform("some", checks, settings(tmp_path))
    assert [entry["state"] for entry in record["checks"]] == ["failed", "broken", "left out", "passed", "cut"]
    assert record["checks"][0]["said"] == "off by 3"
    assert "illegal memory access" in record["checks"][1]["said"]
    assert record["checks"][3]["figures"] == {"x": 1.0}


def test_parts_that_are_cut_or_die_are_said_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", warm.python())
    monkeypatch.setattr(check, "PARTS", {"no_such_part": 0.5, "inference": 0.5})
    monkeypatch.setattr(check, "GRACE_SECONDS", 240.0)
    arguments = [str(tmp_path), "--device", "cpu", "--scale", "tiny", "--threads", "1"]
    assert check.main([*arguments, "--seconds", "0"]) == 1
    told = capfd.readouterr().out
    assert "BROKEN: no_such_part, (beginning): its process ended with exit code 1" in told
    assert "CUT: inference, latency of a push" in told
    assert "not all went well" in told
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(check, "GRACE_SECONDS", 0.1)
    assert check.main([*arguments, "--seconds", "0", "--only", "inference"]) == 1
    assert "its process was ended after 0 s" in capfd.readouterr().out


def test_a_missing_gpu_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as ended:
        check.main([str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "sees no GPU here; --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_stands_in_for_soundfile_can_be_imported_and_says_that_it_lacks() -> None:
    module = absent.Absent("soundfile")
    assert issubclass(module.LibsndfileError, Exception)
    assert module.LibsndfileError is module.LibsndfileError
    with pytest.raises(RuntimeError, match=r"soundfile isn't installed here, and read was asked of it"):
        module.read("a.wav")
    assert absent.reads_sound()
