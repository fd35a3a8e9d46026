"""What a recipe may say: every key with its type, default and a line of help, from the constructors' docstrings."""

import inspect
import re
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_origin

from gansound.recipe.build import ALLOWED, import_class, in_words, parameters


@dataclass(frozen=True)
class KeyHelp:
    """One dotted key of a recipe. `default` is None where the key must be given, else the value as text."""

    key: str
    type: str
    default: str | None
    help: str


def describe(
    node: Any, expected: Any, key: str = "", *, allow: Sequence[str] = (), context: Sequence[str] = ()
) -> list[KeyHelp]:
    """The keys at and below a node of a recipe, for the classes that this recipe names.

    Args:
        node: what the recipe says there; None describes what `expected` itself takes.
        expected: the annotation that `build` would be given.
        key: dotted, before the names.
        allow: packages of the user's own that may be imported.
        context: parameters that the program supplies, left out.
    """
    return list(_describe(node, expected, key, (*ALLOWED, *allow), frozenset(context)))


def _describe(
    node: Any, expected: Any, key: str, prefixes: tuple[str, ...], hidden: frozenset[str]
) -> Iterator[KeyHelp]:
    given = node if isinstance(node, Mapping) else {}
    cls, values = _class_of(given, expected, f"{key}.class_path", prefixes)
    if cls is not None:
        notes = argument_help(cls)
        for name, parameter in parameters(cls).items():
            if name == "**" or name in hidden:
                continue
            below = f"{key}.{name}" if key else name
            default = None if parameter.default is inspect.Parameter.empty else _text(parameter.default)
            if name in values and not isinstance(values[name], Mapping):
                default = _text(values[name])
            yield KeyHelp(below, in_words(parameter.annotation), default, notes.get(name, ""))
            yield from _describe(values.get(name), parameter.annotation, below, prefixes, hidden)
        return
    inner = _values_of(expected)
    if inner is not None:
        for name, value in given.items():
            below = f"{key}.{name}" if key else str(name)
            cls, _ = _class_of(value if isinstance(value, Mapping) else {}, inner, below, prefixes)
            yield KeyHelp(below, in_words(inner), None, _first_line(cls) if cls else "")
            yield from _describe(value, inner, below, prefixes, hidden)


def _class_of(
    given: Mapping[str, Any], expected: Any, key: str, prefixes: tuple[str, ...]
) -> tuple[type | None, Mapping[str, Any]]:
    if "class_path" in given:
        return import_class(given["class_path"], key, (), prefixes), given.get("init_args") or {}
    for option in (expected, *get_args(expected)):
        if isinstance(option, type) and is_dataclass(option):
            if get_origin(expected) in (dict, list, tuple, abc.Mapping, abc.Sequence):
                break
            return option, given
    return None, {}


def _values_of(expected: Any) -> Any:
    for option in (expected, *get_args(expected)):
        if get_origin(option) in (dict, abc.Mapping) and len(get_args(option)) == 2:
            return get_args(option)[1]
    return None


def argument_help(cls: type) -> dict[str, str]:
    """What the `Args:` section of a class's (or its constructor's) docstring says of each argument."""
    notes: dict[str, str] = {}
    for text in (cls.__doc__, cls.__init__.__doc__):  # type: ignore[misc]
        section = re.search(r"^Args:\n((?:[ \t]+\S.*\n?|\n)+)", inspect.cleandoc(text or ""), re.MULTILINE)
        if section is None:
            continue
        names: list[str] = []
        indent = len(section[1]) - len(section[1].lstrip())
        for line in section[1].splitlines():
            entry = re.match(r"\s*([\w*]+(?:, *[\w*]+)*)(?: *\([^)]*\))?: +(.*)", line)
            if entry and len(line) - len(line.lstrip()) == indent:
                names = [name.strip("* ") for name in entry[1].split(",")]
                notes.update(dict.fromkeys(names, entry[2].strip()))
            elif line.strip():
                notes.update({name: f"{notes[name]} {line.strip()}" for name in names})
    return notes


def _first_line(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0]


def _text(value: Any) -> str:
    """As one writes it in a recipe; nothing for a dataclass's default that is made anew each time."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    text = "null" if value is None else str(value)
    return "" if text == "<factory>" else text
