"""The text files of a run's folder: whose recipe it holds, and how they are replaced."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from gansound.data.settings import DataSettings
from gansound.engine.checkpoint import sync
from gansound.engine.own_files import open_own, read_own
from gansound.engine.settings import RunSettings
from gansound.recipe import RecipeError, parse_yaml, to_yaml
from gansound.recipe.text import show

# What may differ between a run and its resumption without making it another run.
_MAY_CHANGE = frozenset(
    {
        "steps",
        "log_every",
        "validate_every",
        "validate_utterances",
        "patience",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_every",
        "guards",
        "compile",
        "micro_batches",  # so many parts add up to the whole
        "memory_gb",
        "threads",
        "trackers",
        "data.path",  # the corpus is compared, not its place
        "data.mels",
        "data.f0",
        "data.workers",
        "data.cache_gb",
        "data.disk_cache",
        "data.max_bad_files",
    }
)


_NAMED = 5


def as_the_run_says_it(path: Path, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe with the defaults that the run's own names, and without those that it leaves out.

    So a resume that says `seed: 0` where the run was begun without a seed is the same run.

    Raises:
        RecipeError: the file holds no recipe.
    """
    there = _read(path)
    if there is None:
        return recipe
    said = _said_alike(there, recipe, RunSettings)
    if isinstance(there.get("data"), dict) and isinstance(recipe.get("data"), dict):
        said["data"] = _said_alike(there["data"], recipe["data"], DataSettings)
    return said


def _said_alike(there: Mapping[str, Any], here: Mapping[str, Any], settings: type) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}

    def is_default(key: str, value: Any) -> bool:
        # What is no setting of the engine is the task's, whose optional parts are null.
        default = defaults.get(key)
        return default is not dataclasses.MISSING and to_yaml({"": value}) == to_yaml({"": default})

    said = {key: value for key, value in here.items() if key in there or not is_default(key, value)}
    return said | {key: value for key, value in there.items() if key not in here and is_default(key, value)}


def check_same_recipe(path: Path, recipe: Mapping[str, Any]) -> str | None:
    """Where the corpus was when the run was last trained, if that is elsewhere than the recipe says.

    Raises:
        RecipeError: a run's folder holds another recipe than the one it is resumed with.
    """
    there = _read(path)
    if there is None:
        return None
    before, now = _fixed(there), _fixed(recipe)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if to_yaml({"": before.get(key)}) != to_yaml({"": now.get(key)})
    ]
    if changed:
        differences = [one for key in changed for one in _differences(key, before.get(key), now.get(key))]
        more = f"; and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
        again = f"gansound train {quote(str(path))} --run {quote(str(path.parent))}"
        raise RecipeError(
            f"{path.parent} holds a run of another recipe: {'; '.join(differences[:_NAMED])}{more}. Go on with "
            f"the recipe it was started with ({again}), or begin another run from "
            f"its weights (--init-from {path.parent} and another --run)"
        )
    was, now_at = _corpus(there), _corpus(recipe)
    return was if was != now_at else None


def _read(path: Path) -> dict[str, Any] | None:
    """The recipe of a run's folder, where it has one."""
    try:
        text = read_own(path).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: {error}. Put back what the run wrote") from error
    there = parse_yaml(text, str(path))
    if not isinstance(there, dict):
        raise RecipeError(
            f"{path}: got {show(there)}, expected the recipe of a run. Put back what the run wrote"
        )
    return there


def _differences(key: str, before: Any, now: Any) -> list[str]:
    """Where two values of a key differ, by the longest keys: what is there, and what is given."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        return [
            one for name in keys for one in _differences(f"{key}.{name}", before.get(name), now.get(name))
        ]
    return [f"{key} is {show(before)} there, got {show(now)}"]


def identity(recipe: Mapping[str, Any]) -> str:
    """The same for all recipes that are one run's."""
    text = to_yaml(dict(sorted(_fixed(recipe).items())))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _corpus(recipe: Mapping[str, Any]) -> str | None:
    data = recipe.get("data")
    path = data.get("path") if isinstance(data, dict) else None
    return None if path is None else str(path)


def _fixed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {key: value for key, value in recipe.items() if key not in _MAY_CHANGE and key != "data"}
    data = recipe.get("data")
    if not isinstance(data, dict):
        return fixed | {"data": data}
    return fixed | {f"data.{key}": value for key, value in data.items() if f"data.{key}" not in _MAY_CHANGE}


def write_beside(path: Path, text: str) -> None:
    """Replace a text file in one move."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(open_own(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            file.write(text)
        sync(beside)
        os.replace(beside, path)
    except OSError as error:  # that of a write names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
