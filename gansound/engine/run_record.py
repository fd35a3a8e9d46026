"""A run as one JSON object with named, unit-suffixed figures, to be compared by a program."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansound.engine.history import BETTER, RunHistory
from gansound.engine.own_files import is_own, read_own

_LAST_EVENTS = 5
_CHECKPOINT = re.compile(r"step_(\d+)")  # `gansound.engine.checkpoint` names them, and imports torch


def run_record(name: str, run: RunHistory, figures: Sequence[str]) -> dict[str, Any]:
    """What `gansound runs --json` has for a run.

    Args:
        name: that tells it from the others listed.
        run: as read.
        figures: those to give the last and the best value of; what the run hasn't got is left out.
    """
    state, why = run.state
    first, last = (run.sessions[0], run.sessions[-1]) if run.sessions else ({}, {})
    checkpoints = _checkpoints(run.folder / "checkpoints")
    return {
        "name": name,
        "folder": str(run.folder),
        # A resume may have been given the run's own recipe.
        "recipe": _recipe_name(first.get("command"), first.get("working_directory")),
        "task": _class_name(run.recipe.get("task")),
        "generator": _class_name(_get(run.recipe, "generator", "class_path")),
        "state": state,
        "why": why,
        "step": run.step,
        "steps": run.steps,
        "checkpoint_step": max(_steps(checkpoints), default=None),
        "figures": {key: _figure(run, key) for key in figures if run.curve(key)},
        "step_seconds_median": run.step_seconds,
        # A run that was stopped before its first logged line trained for a time that nothing tells.
        "training_hours": None if run.step_seconds is None else run.hours[-1],
        "started": first.get("started"),
        "resumes": max(0, len(run.sessions) - 1),
        "gansound": last.get("gansound"),
        "commit": _get(last, "gansound_git", "commit"),
        "dirty": _get(last, "gansound_git", "dirty"),
        "checkpoints": checkpoints,
        "best_model": _best_model(run.folder / "best"),
        "events": {
            "counts": dict(Counter(str(event.get("event", "?")) for event in run.events)),
            "last": list(run.events[-_LAST_EVENTS:]),
        },
        "sessions": list(run.sessions),
        "problems": list(run.problems),
    }


def _figure(run: RunHistory, key: str) -> dict[str, Any]:
    curve = run.curve(key)
    step, value = curve[-1]
    better = BETTER.get(key)
    best_step, best = None, None
    if better is not None:
        trained = [point for point in curve if point[0] > 0]  # the model of step 0 is kept nowhere
        # The first of equals.
        best_step, best = min(
            trained, key=lambda point: point[1] if better == "lower" else -point[1], default=(None, None)
        )
    return {"last": value, "last_step": step, "best": best, "best_step": best_step, "better": better}


def _recipe_name(command: Any, working_directory: Any) -> str | None:
    """What was given to `gansound train`, where that is how the run was started; of a run's own recipe, the run."""
    if not isinstance(command, list) or "train" not in command[:-1]:
        return None
    given = str(command[command.index("train") + 1])
    if given.startswith("-"):
        return None
    path = Path(str(working_directory or "")) / given
    return path.parent.name or path.stem if path.name == "recipe.yaml" else path.stem


def _class_name(path: Any) -> str | None:
    return path.rpartition(".")[2] if isinstance(path, str) else None


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _checkpoints(folder: Path) -> list[dict[str, Any]]:
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.name[0] != "." and not path.is_symlink() and is_own(path / "state.json")
        )
        return [
            {"name": path.name, "mib": sum(file.lstat().st_size for file in path.iterdir()) / 2**20}
            for path in found
        ]
    except OSError:  # none yet, or one that the running training deletes meanwhile
        return []


def _steps(checkpoints: Sequence[Mapping[str, Any]]) -> list[int]:
    """Of those that a run can go on from; one that was torn and set aside has another name."""
    found = [_CHECKPOINT.fullmatch(checkpoint["name"]) for checkpoint in checkpoints]
    return [int(match[1]) for match in found if match]


def _best_model(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(read_own(folder / "config.json"))["info"]
        figures = about.get("validation", {}).items()
        known = {name: value for name, value in figures if math.isfinite(value)}
        return {"folder": str(folder), "step": about["steps"], "validation": known}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
