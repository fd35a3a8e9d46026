"""Weights & Biases, MLflow and the like, through accelerate's trackers: the figures of metrics.jsonl go there too.

No tracker can stop a training: what goes wrong in one is told once, and the run's folder has everything anyway.
"""

import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from gansound.engine.folder import write_beside
from gansound.engine.history import flat
from gansound.engine.own_files import read_own
from gansound.recipe import RecipeError
from gansound.recipe.text import meant

log = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"  # ours: with sounds and pictures, which accelerate's has not
PROJECT = "gansound"
IDS = "trackers.json"
# Where their users name a project, which our argument would overrule.
_PROJECTS = {"wandb": "WANDB_PROJECT", "comet_ml": "COMET_PROJECT_NAME"}


def check_trackers(names: Sequence[str]) -> None:
    """Raises RecipeError for a tracker that accelerate doesn't know or whose package isn't installed.

    accelerate itself leaves such a one out without a word.
    """
    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    builtin = {str(kind) for kind in LoggerType}
    installed = {TENSORBOARD, *map(str, get_available_trackers()), *(set(known) - builtin)}
    for name in names:
        if name not in known:
            raise RecipeError(
                f"trackers: got {name!r}{meant(name, known)}, expected some of {', '.join(known)}; installed here: "
                f"{', '.join(n for n in known if n in installed)}"
            )
        if name not in installed:
            raise RecipeError(
                f"trackers: {name} isn't installed: pip install {name.replace('_', '-')}. Installed here: "
                f"{', '.join(n for n in known if n in installed)}"
            )
    if len(set(names)) < len(names):
        raise RecipeError(f"trackers: got {', '.join(names)}, expected each name once")


class Trackers:
    """The trackers of a run other than TensorBoard; a resumed run goes on in the same run of theirs where they can.

    Args:
        names: checked by `check_trackers`.
        run: the run's folder; its name is theirs too.
        recipe: becomes their configuration, by dotted keys.
    """

    def __init__(self, names: Sequence[str], run: Path, recipe: Mapping[str, Any]) -> None:
        self._open: dict[str, GeneralTracker] = {}
        self._told: set[str] = set()
        if not names:
            return
        ids = _ids(run)
        for name in names:
            self._guarded(name, self._start, name, run, recipe, ids)
        write_beside(run / IDS, json.dumps(ids, indent=1) + "\n")

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures of a step."""
        for name, tracker in self._open.items():
            self._guarded(name, tracker.log, dict(figures), step=step)

    def close(self) -> None:
        """Let each send what it still holds."""
        for name, tracker in self._open.items():
            self._guarded(name, tracker.finish)
        self._open = {}

    def _start(self, name: str, run: Path, recipe: Mapping[str, Any], ids: dict[str, str]) -> None:
        kind = LOGGER_TYPE_TO_CLASS[name]
        place = [str(run.parent)] if kind.requires_logging_directory else []
        options = _options(name, run, ids)
        tracker = kind(run.name if name == "aim" else _project(name), *place, **options)
        tracker.start()
        self._open[name] = tracker
        if name == "mlflow":
            ids["mlflow_run"] = tracker.tracker.info.run_id
        if "run_id" not in options:  # MLflow refuses a second value of a parameter
            self._guarded(name, tracker.store_init_configuration, flat(recipe))

    def _guarded(self, name: str, do: Callable[..., Any], *args: Any, **how: Any) -> None:
        try:
            do(*args, **how)
        except Exception as error:
            if name not in self._told:
                self._told.add(name)
                log.warning(
                    "tracker %s: %s: %s. Training goes on without what it would have kept; the run's folder has it",
                    name, type(error).__name__, str(error).strip() or "no message",
                )  # fmt: skip


def _project(name: str) -> str:
    return os.environ.get(_PROJECTS.get(name, ""), "") or PROJECT


def _ids(run: Path) -> dict[str, str]:
    """Under which names the trackers know this run; drawn once, for a folder may be moved."""
    try:
        ids = json.loads(read_own(run / IDS, 1 << 16))
        return {"run": uuid.uuid4().hex} | {str(name): str(value) for name, value in ids.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {"run": uuid.uuid4().hex}


def _options(name: str, run: Path, ids: Mapping[str, str]) -> dict[str, Any]:
    """How each is told the run's name, and to go on with a run that it knows."""
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": run.name, "id": ids["run"], "resume": "allow", "dir": str(run)},
        "trackio": {"name": run.name, "resume": "allow"},
        "mlflow": {"run_name": run.name} | ({"run_id": ids["mlflow_run"]} if "mlflow_run" in ids else {}),
        "comet_ml": {"experiment_key": ids["run"]},
        "clearml": {"task_name": run.name},
        "dvclive": {"dir": str(run / "dvclive"), "resume": True},
        "swanlab": {"experiment_name": run.name, "id": ids["run"][:21], "resume": "allow"},
    }
    return options.get(name, {})
