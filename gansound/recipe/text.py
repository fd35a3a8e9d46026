"""The YAML of recipes: a safe subset that means what it looks like.

No tags, no aliases, no duplicate keys; `1e-4` is a number; `yes`, `no`, `on`, `off` and dates are text, for they
are labels of sounds.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


class RecipeError(ValueError):
    """A recipe, or an override of it, is wrong: exit code 2. The message begins with the dotted key."""


_TAGS = frozenset({"str", "int", "float", "bool", "null", "seq", "map"})
_LONGEST = 1 << 20  # characters of a recipe


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own name)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) aren't supported; use base:", self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        assert node is not None
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
            raise yaml.constructor.ConstructorError(
                None, None, f"tags ({node.tag}) aren't supported; write the value alone", node.start_mark
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} isn't text; quote it", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key.value!r}", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
        )
_Dumper.add_multi_representer(tuple, lambda dumper, value: dumper.represent_list(list(value)))
# PyYAML folds these line breaks of Unicode into spaces unless they stand in double quotes.
_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style='"' if re.search("[\x85\u2028\u2029\ufeff]", value) else None
    ),
)
_Dumper.add_multi_representer(Path, lambda dumper, value: dumper.represent_str(str(value)))


def parse_yaml(text: str, where: str) -> Any:
    """The value that the text says; `where` begins the message of a RecipeError."""
    if len(text) > _LONGEST:
        raise RecipeError(f"{where}: got {len(text):,} characters, expected a recipe of at most {_LONGEST:,}")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
        raise RecipeError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deeply") from error
    except (
        ValueError,
        KeyError,
        TypeError,
    ) as error:  # a tag that its text doesn't fit, or thousands of digits
        raise RecipeError(f"{where}: {error}") from error


def to_yaml(recipe: Mapping[str, Any], *, compact: bool = False) -> str:
    """The recipe as text that `load_recipe` reads back equal (tuples become lists, paths text).

    With `compact`, what holds nothing deeper stands on a line, as one would write it by hand.
    """
    flow = None if compact else False
    return yaml.dump(
        dict(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=flow
    )


_KINDS = {str: "text", int: "whole number", float: "number", list: "list", dict: "keys"}


def show(value: Any) -> str:
    """A value and what it is, short enough for a message."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    kind = _KINDS.get(type(value), type(value).__name__)
    return f"{text if len(text) < 80 else text[:77] + '…'} ({kind})"


def meant(name: Any, known: Any) -> str:
    """A "did you mean", where something known is close to the name; else nothing."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
