"""A run that is killed again and again, at moments nobody chose, ends as one that never was. Minutes: `-m slow`."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gansound.recipe import to_yaml
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, losses, tiny

ROOT = Path(__file__).parents[1]
KILLS, STEPS = 20, 500


def start(recipe: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gansound", "train", str(recipe), "--run", str(run), "-q"]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def last_step(run: Path) -> int:
    """Of the metrics, whose last line may be half there."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return len(lines)


def whole_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of steps."""
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    return [line for line in map(json.loads, lines) if "step_seconds" in line]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_random_kills(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = tmp_path / "recipe.yaml"
    # A checkpoint every third step, so that many kills land inside one; a loading process, which must die as well.
    settings = {"checkpoint_every": 3, "data.workers": 1, "adversarial_from": 3, "validate_every": 50}
    recipe.write_text(to_yaml(tiny(corpus, STEPS, validate_utterances=1, **settings)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(recipe, whole).wait(1200) == 0
    rng = random.Random(5)
    inside = 0
    at: list[int] = []
    for kill in range(KILLS):
        process = start(recipe, killed)
        begun = None
        while begun is None or last_step(killed) < begun + 1 + rng.randrange(
            3
        ):  # it is live and has made steps
            assert process.poll() is None, (kill, process.stderr and process.stderr.read())
            if begun is None and last_step(killed):
                begun = last_step(killed)
            time.sleep(0.005)
        seconds = [line["step_seconds"] for line in whole_lines(killed)[-5:]]
        time.sleep(rng.uniform(0, 10) * sum(seconds) / 5)  # some steps, however quick the machine makes them
        assert process.poll() is None, "it was to be killed in a live step"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        at.append(last_step(killed))
        inside += bool(list((killed / "checkpoints").glob(".step_*.writing")))
    assert max(at) < STEPS
    assert inside, "of so many kills some land inside a checkpoint"
    print(f"killed at steps {at}, {inside} of them inside a checkpoint")
    assert start(recipe, killed).wait(1200) == 0
    assert len(losses(killed)) == STEPS + 1
    assert_same_run(killed, whole)
