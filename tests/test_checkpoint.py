"""Checkpoints: whole or not taken, kept by rule, good when the disk is full or the machine wants its time back."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gansound.engine.checkpoint import checkpoints, newest_whole, prune, step_of, torn, write
from gansound.engine.guards import StoppedError
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.engine.state import RunState
from gansound.recipe import RecipeError, to_yaml
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, losses, tiny


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    Run(plan(tiny(corpus, 6)), folder).fit()
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


TEARS: dict[str, Callable[[Path], object]] = {
    "a file cut": lambda c: os.truncate(c / "generator.safetensors", 100),
    "a bit turned": lambda c: flip(c / "generator_optimizer.safetensors"),
    "pages never written": lambda c: (c / "generator.safetensors").write_bytes(
        bytes((c / "generator.safetensors").stat().st_size)
    ),
    "a file lost": lambda c: (c / "discriminator.safetensors").unlink(),
    "the record cut": lambda c: os.truncate(c / "state.json", 40),
    "the record empty": lambda c: (c / "state.json").write_text("{}"),
    "the record lost": lambda c: (c / "state.json").unlink(),
}


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_checkpoint_is_never_picked(
    tear: str, corpus: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    older, newest = checkpoints(folder / "checkpoints")
    assert (torn(older), torn(newest)) == (None, None)
    TEARS[tear](newest)
    assert newest_whole(folder / "checkpoints") == older
    if tear != "the record lost":  # without its record it isn't even a candidate
        assert torn(newest)
        assert f"{newest}: " in caplog.text
    Run(plan(tiny(corpus, 6)), folder).fit()
    assert_same_run(folder, whole)
    assert torn(newest) is None, "written again"


def test_when_all_are_torn_the_run_starts_anew(corpus: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in checkpoints(folder / "checkpoints"):
        flip(path / "generator.safetensors")
    Run(plan(tiny(corpus, 6)), folder).fit()
    assert_same_run(folder, whole)
    assert len(list((folder / "checkpoints").glob("*.torn"))) == 2


def test_what_is_pruned_and_what_stays(tmp_path: Path) -> None:
    state = RunState()
    state.register("layer", torch.nn.Linear(2, 2))
    for step in range(10, 101, 10):
        write(state.stage(step), tmp_path)
    (tmp_path / ".step_00000110.writing").mkdir()
    prune(tmp_path, 2, always={30}, every=40)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [30, 40, 80, 90, 100]
    assert not (tmp_path / ".step_00000110.writing").exists()


def test_the_best_checkpoint_is_kept(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(
        corpus,
        8,
        validate_every=3,
        validate_utterances=1,
        checkpoint_every=2,
        keep_every=4,
        keep_checkpoints=1,
    )
    run = Run(plan(recipe), tmp_path / "run")
    scores = iter([9.0, 2.0, 1.0, 3.0])  # the first before any step
    run.task.score = lambda figures: next(scores)  # type: ignore[method-assign]
    run.fit()
    # Validated at 3, 6 and 8: the best is that of 6, whose weights are those of best/.
    assert [step_of(path) for path in checkpoints(tmp_path / "run" / "checkpoints")] == [4, 6, 8]
    best = json.loads((tmp_path / "run" / "best" / "config.json").read_text())["info"]
    assert best["steps"] == 6
    assert math.isfinite(best["validation"]["mel_distance"])
    resumed = Run(plan(recipe | {"steps": 9}), tmp_path / "run")
    resumed.task.score = lambda figures: 5.0  # type: ignore[method-assign]
    resumed.fit()
    assert [step_of(path) for path in checkpoints(tmp_path / "run" / "checkpoints")] == [4, 6, 8, 9]


def test_keep_every_must_meet_a_checkpoint(corpus: Path) -> None:
    with pytest.raises(RecipeError, match="keep_every must be a multiple of checkpoint_every 2, got 3"):
        plan(tiny(corpus, 4, keep_every=3))


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_in_the_middle_leaves_what_was_good(corpus: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Run(plan(tiny(corpus, 6)), folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: object) -> None:
        if progress.step == 3:  # type: ignore[attr-defined]
            run.kept._beside.wait()  # the checkpoint of step 2 is there
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))

    try:
        with pytest.raises(OSError, match="File too large") as caught:
            run.fit(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "step_00000004" in str(caught.value.filename)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000002"]
    assert torn(folder / "checkpoints" / "step_00000002") is None
    Run(plan(tiny(corpus, 6)), folder).fit()
    assert_same_run(folder, whole)


def test_asked_to_stop_it_writes_a_checkpoint_first(corpus: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Run(plan(tiny(corpus, 6)), folder)

    def asks(progress: object) -> None:
        if progress.step == 5:  # type: ignore[attr-defined]
            run.stop()

    with pytest.raises(StoppedError, match="step 5"):
        run.fit(asks)
    assert checkpoints(folder / "checkpoints")[-1].name == "step_00000005"
    Run(plan(tiny(corpus, 6)), folder).fit()
    assert_same_run(folder, whole)


def test_sigterm_stops_the_command_with_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(to_yaml(tiny(corpus, 100_000, checkpoint_every=100_000)))
    command = [sys.executable, "-m", "gansound", "train", str(recipe), "--run", str(folder)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            until = time.monotonic() + 240
            while not ((folder / "metrics.jsonl").exists() and losses(folder)):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=240)[1]
        finally:
            process.kill()
    assert process.returncode == 130, said
    (kept,) = checkpoints(folder / "checkpoints")
    assert f"stopped as asked at step {step_of(kept)}" in said
    assert torn(kept) is None
    assert losses(folder)[-1]["step"] == step_of(kept)
    assert (folder / "model" / "model.safetensors").exists()
