"""Training for the rest of the time: the shipped recipe on a folder of sounds, its weights and figures in OUT."""

import json
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gansound.engine.guards import StoppedError
from gansound.engine.plan import plan
from gansound.engine.run import Progress, Run
from gansound.machine import usable_cores
from gansound.model_folder import load_model_folder, save_model_folder
from gansound.recipe import load_recipe
from tests.gpu.absent import reads_sound
from tests.gpu.checks import Check, LeftOut, Settings
from tests.test_train_cli import QUICK, SMALL

MOST_BYTES = 16 * 2**20
END_SECONDS = 20.0
"""For the last checkpoint, validation and weights."""
STEPS = 1_000_000


def checks(settings: Settings) -> list[Check]:
    """One."""
    return [Check(f"training: {settings.recipe}", train, seconds=1 if settings.tiny else END_SECONDS + 10)]


def train(settings: Settings) -> dict[str, Any]:
    """From the newest checkpoint of the run's folder, if it holds one, until the time is over."""
    if not reads_sound():
        raise LeftOut("needs soundfile and soxr, to read sounds")
    from gansound.cli.train import overrides
    from tests.corpus import write_corpus

    with TemporaryDirectory() as folder:
        if settings.audio is None and not settings.tiny:
            raise LeftOut("--audio names no folder of sounds to train on")
        corpus = settings.audio or write_corpus(Path(folder) / "corpus", files=6)
        changes = {"data.path": str(corpus), "trackers": "[]", "log_every": "50"}
        if settings.tiny:
            changes |= (
                QUICK
                | SMALL.get(settings.recipe, {})
                | {"steps": "3", "log_every": "1", "validate_every": "3"}
            )
        else:
            changes |= {"steps": str(STEPS), "data.workers": str(max(1, min(8, usable_cores() - 2)))}
            changes |= {"checkpoint_every": "1000", "validate_every": "2000"}
        recipe = load_recipe(
            settings.recipe, overrides([part for k, v in changes.items() for part in (f"--{k}", v)])
        )
        run = Run(plan(recipe), settings.run or Path(folder) / "run")
        return _fit(run, settings)


def _fit(run: Run, settings: Settings) -> dict[str, Any]:
    first: list[Progress] = []
    begun = time.monotonic()

    def observe(progress: Progress) -> None:
        first[1:] = [progress]
        if not first:
            first.append(progress)
        if settings.seconds_left < (0 if settings.tiny else END_SECONDS):
            run.stop()

    try:
        run.fit(observe)
    except StoppedError:
        pass
    finally:
        run.close()
    assert first, "the run had no step left"
    last = first[-1]
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if not any(name.startswith("valid/") for name in line)] or lines
    spectral = [name for name in losses[-1] if name in run.task.weights]
    size = _ship(run, settings)
    return {
        "steps": last.step,
        "steps_this_time": last.step - first[0].step + 1,
        "seconds": time.monotonic() - begun,
        "audio_seconds_per_second": last.audio_seconds_per_second,
        "weights_bytes": size,
        "first": {name: losses[0].get(name) for name in spectral},
        "last": {name: losses[-1].get(name) for name in spectral},
        "valid": {k: v for line in lines for k, v in line.items() if k.startswith("valid/")},
    }


def _ship(run: Run, settings: Settings) -> int:
    """The generator in 16 bits, as two files in OUT."""
    model = load_model_folder(str(run.folder / "model"))
    with TemporaryDirectory() as folder:
        halved = save_model_folder(
            Path(folder) / "model",
            model.generator,
            model.mel,
            config=model.config,
            info=model.info,
            half=True,
        )
        size = 0
        for file in ("config.json", "model.safetensors"):
            size = (halved / file).stat().st_size
            assert size <= MOST_BYTES, f"{file} has {size / 2**20:.1f} MiB, at most 16 come back"
            shutil.copy(halved / file, settings.out / file)
    return size
