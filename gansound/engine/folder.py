"""The text files of a run's folder: whose recipe it holds, and how they are replaced."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansound.engine.checkpoint import sync
from gansound.recipe import RecipeError, parse_yaml, to_yaml

# What may differ between a run and its resumption without making it another run.
_MAY_CHANGE = frozenset(
    {
        "steps",
        "log_every",
        "validate_every",
        "validate_utterances",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_every",
        "guards",
        "compile",
        "threads",
        "trackers",
        "data.workers",
        "data.cache_gb",
        "data.max_bad_files",
    }
)


def check_same_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raises RecipeError when a run's folder holds another recipe than the one it is resumed with."""
    if not path.exists():
        return
    before, now = _fixed(parse_yaml(path.read_text(), str(path))), _fixed(recipe)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if to_yaml({"": before.get(key)}) != to_yaml({"": now.get(key)})
    ]
    if changed:
        raise RecipeError(
            f"{path.parent} holds a run of another recipe: {', '.join(changed)} differ. Give another --run, or the "
            f"recipe it was started with (gansound train {path})"
        )


def _fixed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {key: value for key, value in recipe.items() if key not in _MAY_CHANGE and key != "data"}
    data = recipe.get("data") or {}
    return fixed | {f"data.{key}": value for key, value in data.items() if f"data.{key}" not in _MAY_CHANGE}


def write_beside(path: Path, text: str) -> None:
    """Replace a text file in one move."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        beside.write_text(text)
        sync(beside)
        os.replace(beside, path)
    except OSError as error:  # that of a write names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
