"""Finding a recipe, merging it over its bases, and applying dotted overrides."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansound.recipe.build import check_classes
from gansound.recipe.text import RecipeError, meant, parse_yaml, show


def _shipped() -> Path:
    inside = Path(__file__).parents[1] / "recipes"  # in a wheel; in a checkout they lie beside the package
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def recipe_names() -> list[str]:
    """The recipes that are found by name."""
    return sorted(path.stem for path in _shipped().glob("*.yaml"))


def recipe_summaries() -> dict[str, str]:
    """What each shipped recipe's head says first, to a full stop or a colon, citations left out; by its name."""
    found = {}
    for name in recipe_names():
        head: list[str] = []
        for line in (_shipped() / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                break
            head.append(line.removeprefix("# "))
        said = re.sub(r"\s*\([^)]*\)", "", " ".join(head))
        found[name] = re.split(r"[.:;](?=\s|$)", said, maxsplit=1)[0]
    return found


def _find(name: str, beside: Path | None, key: str) -> Path:
    path = Path(name).expanduser()
    tries = [(beside or Path()) / path]
    if path.name == name and not path.suffix:
        tries += [tries[0].with_suffix(".yaml")] if beside else []
        tries.append(_shipped() / f"{name}.yaml")
    for candidate in tries:
        if candidate.is_file():
            return candidate.resolve()
    if (recipe := tries[0] / "recipe.yaml").is_file():
        raise RecipeError(
            f"{key}: {tries[0]} is a run's folder; its recipe is {recipe}, and --run {tries[0]} goes on with it"
        )
    raise RecipeError(
        f"{key}: no file {tries[0]} and no shipped recipe {name!r}{meant(name, recipe_names())}; "
        f"shipped: {', '.join(recipe_names()) or 'none'}"
    )


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path in above:
        raise RecipeError(f"base: {' → '.join(p.name for p in (*above, path))} goes round in a circle")
    try:
        recipe = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: can't be read as a recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"{path}: got {show(recipe)}, expected a mapping of keys")
    base = recipe.pop("base", None)
    if base is None:
        return recipe
    if not isinstance(base, str):
        raise RecipeError(f"base: got {show(base)}, expected the name or path of a recipe (in {path})")
    return _merge(_read(_find(base, path.parent, "base"), (*above, path)), recipe)


def _merge(base: Any, over: Any, name: str = "") -> Any:
    if isinstance(base, str) and isinstance(over, dict) and _is_preset(name):
        base = {"preset": base}
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if "class_path" in base and over.get("class_path", base["class_path"]) != base["class_path"]:
        base = {key: value for key, value in base.items() if key != "init_args"}
    if "preset" in over and over["preset"] != base.get("preset"):
        base = {}  # its values were changes of another
    return base | {
        key: _merge(base[key], value, key) if key in base else value for key, value in over.items()
    }


def _is_preset(name: str) -> bool:
    """Whether text under this name is a preset's, of which an overlay may change some values."""
    return name == "mel"


def _override(node: Any, parts: list[str], value: Any, key: str) -> Any:
    """A copy of the node with one value merged in; `init_args` may be left out of the key."""
    if not parts:
        return _merge(node, value, key.rpartition(".")[2])
    part, rest = parts[0], parts[1:]
    if isinstance(node, str) and _is_preset(key.split(".")[-len(parts) - 1]):
        node = {"preset": node}
    if isinstance(node, list):
        if not part.isdecimal() or int(part) >= len(node):
            raise RecipeError(f"{key}: got {part!r} for a list of {len(node)}, expected 0 to {len(node) - 1}")
        return [_override(n, rest, value, key) if i == int(part) else n for i, n in enumerate(node)]
    if node is not None and not isinstance(node, dict):
        raise RecipeError(f"{key}: there is nothing below {show(node)} to set {part!r} in")
    node = node or {}
    if "class_path" in node and part not in ("class_path", "init_args"):
        part, rest = "init_args", parts
    if part == "class_path":
        return _merge(node, {part: value})
    return node | {part: _override(node.get(part), rest, value, key)}


def load_recipe(
    name_or_path: str | Path, overrides: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a recipe, its bases and dotted overrides (`{"generator.width": "64"}`; text is parsed as YAML).

    Raises:
        RecipeError: not found, not valid YAML, or a `class_path` outside gansound, torch.optim and `allow`.
            Unknown keys and wrong types are found by `build`.
    """
    recipe: Any = _read(_find(str(name_or_path), None, "recipe"))
    # A class comes before its arguments, for it resets them, and a whole before its parts.
    ordered = sorted(overrides or {}, key=lambda key: (not key.endswith("class_path"), key.count(".")))
    for key, value in ((key, (overrides or {})[key]) for key in ordered):
        parsed = parse_yaml(value, key) if isinstance(value, str) else value
        if not all(key.split(".")):
            raise RecipeError(f"{key!r} isn't a dotted key")
        recipe = _override(recipe, key.split("."), parsed, key)
    check_classes(recipe, allow=allow)
    return recipe
