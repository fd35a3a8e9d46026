"""Typed construction: a constructor's signature is the schema of its `init_args`."""

import functools
import importlib
import inspect
import math
import re
import types
import typing
from collections import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from gansound.recipe.text import RecipeError, meant, show

ALLOWED = ("gansound", "torch.optim")

_NAME = re.compile(r"\w[\w-]*")
_LONGEST_PATH = 200  # characters of a class path
_LARGEST = 2**63  # what torch and numpy take for a whole number


def check_classes(
    node: Any, key: str = "", *, allow: Sequence[str] = (), roots: Sequence[str] = ALLOWED
) -> None:
    """Refuse each `class_path` below the node that lies neither in `roots` nor in `allow`. Imports nothing."""
    try:
        _check_classes(node, key, allow, roots)
    except RecursionError as error:
        raise RecipeError(f"{key or 'recipe'}: nested too deeply") from error


def _check_classes(node: Any, key: str, allow: Sequence[str], roots: Sequence[str]) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            below = f"{key}.{name}" if key else str(name)
            if name == "class_path":
                _check_class(value, below, allow, roots)
            arguments = name == "init_args" and "class_path" in node
            _check_classes(value, key if arguments else below, allow, roots)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            _check_classes(value, f"{key}.{i}" if key else str(i), allow, roots)


def _check_class(path: Any, key: str, allow: Sequence[str], roots: Sequence[str]) -> None:
    if (
        not isinstance(path, str)
        or len(path) > _LONGEST_PATH
        or not all(p.isidentifier() and p[0] != "_" for p in path.split("."))
    ):
        raise RecipeError(f"{key}: got {show(path)}, expected package.module.Class")
    if not _is_allowed(path, (*roots, *allow)):
        package = path.split(".")[0]
        raise RecipeError(
            f"{key}: {path} is refused and wasn't imported: only classes of {' and '.join(roots)} may be named. "
            f"If the package is yours, allow it (--allow {package}, allow=[{package!r}])"
        )


def _is_allowed(path: str, prefixes: Sequence[str]) -> bool:
    return any(path.startswith(f"{prefix}.") for prefix in prefixes)


def import_class(path: Any, key: str, allow: Sequence[str], roots: Sequence[str]) -> type:
    """The class that a `class_path` names; RecipeError where it is refused or doesn't exist."""
    _check_class(path, key, allow, roots)
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(f"{key}: {path}: {error}") from error
    except Exception as error:  # somebody's own module may fail in any way
        raise RecipeError(f"{key}: {path}: {_worded(error)}") from error
    found = getattr(module, name, None)
    if not isinstance(found, type) or not _is_allowed(f"{found.__module__}.{name}", (*roots, *allow)):
        classes = [
            n
            for n, c in vars(module).items()
            if isinstance(c, type) and _is_allowed(c.__module__ + ".", (*roots, *allow))
        ]
        raise RecipeError(f"{key}: {module_name} has no class {name!r}{meant(name, classes)}")
    return found


def build(
    node: Any,
    expected: Any,
    key: str,
    *,
    context: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    roots: Sequence[str] = ALLOWED,
) -> Any:
    """Make the object that a node of a recipe describes.

    Args:
        node: `{class_path, init_args}`, a mapping (for a dataclass), or a plain value.
        expected: a class or any annotation: `dict[str, X]`, `list[X]`, `X | None`, `Literal`, `Callable[..., X]`
            (a factory: the class with the given arguments, to be called with those that are missing).
            `None` drops an entry of a dict. A class with a `preset` classmethod takes a preset's name instead,
            or a mapping with `preset:` and what differs.
        key: dotted, for messages.
        context: arguments by name, for constructors that take them and weren't given them.
        allow: packages of the user's own whose classes may be named.
        roots: packages whose classes may be named without that.

    Raises:
        RecipeError: unknown key, missing key, wrong type, refused class, or a constructor's own ValueError.
    """
    check_classes(node, key, allow=allow, roots=roots)
    try:
        return _Builder(dict(context or {}), tuple(allow), tuple(roots)).convert(node, expected, key)
    except RecursionError as error:
        raise RecipeError(f"{key or 'recipe'}: nested too deeply") from error


@dataclass(frozen=True)
class _Builder:
    context: dict[str, Any]
    allow: tuple[str, ...]
    roots: tuple[str, ...]

    def convert(self, value: Any, expected: Any, key: str) -> Any:
        if type(value) is int and abs(value) >= _LARGEST:
            raise RecipeError(
                f"{key}: got a whole number of {value.bit_length()} bits, expected less than 64"
            )
        if type(value) is float and not math.isfinite(value):
            raise RecipeError(f"{key}: got {value}, expected a finite number")
        origin, args = get_origin(expected), get_args(expected)
        if origin is typing.Annotated:
            return self.convert(value, args[0], key)
        if expected in (Any, object, inspect.Parameter.empty) or isinstance(expected, typing.TypeVar):
            return (
                self.instance(value, object, key)
                if isinstance(value, dict) and "class_path" in value
                else value
            )
        if origin in (Union, types.UnionType):
            return self.union(value, args, expected, key)
        if origin is Literal:
            if any(value == a and type(value) is type(a) for a in args):
                return value
            raise _wrong(key, value, expected, meant(value, [a for a in args if isinstance(a, str)]))
        if origin is abc.Callable or expected is abc.Callable:
            result = args[1] if args else Any
            return self.instance(value, object if result is Any else result, key, partial=True)
        if origin in (dict, abc.Mapping, abc.MutableMapping) or expected is dict:
            if not isinstance(value, dict):
                raise _wrong(key, value, expected)
            inner = args[1] if args else Any
            if unfit := next((k for k in value if not _NAME.fullmatch(str(k))), None):
                raise RecipeError(
                    f"{key}: got the name {unfit!r}, expected letters, digits, _ and -, for it becomes part of others"
                )
            return {
                k: self.convert(v, inner, f"{key}.{k}")
                for k, v in value.items()
                if v is not None or _takes_none(inner)
            }
        if origin in (list, tuple, abc.Sequence, abc.Iterable) or expected in (list, tuple):
            return self.sequence(value, origin or expected, args, expected, key)
        return self.scalar_or_instance(value, origin or expected, key)

    def union(self, value: Any, args: tuple[Any, ...], expected: Any, key: str) -> Any:
        options = [a for a in args if a is not type(None)]
        if value is None and len(options) < len(args):
            return None
        if len(options) == 1:
            return self.convert(value, options[0], key)
        for exact in (True, False):  # 3 is an int in `float | int`
            for option in options:
                if exact is (option is type(value)):
                    try:
                        return self.convert(value, option, key)
                    except RecipeError as error:
                        if not str(error).startswith(f"{key}: got"):
                            raise  # it was this option; what is wrong lies deeper
        raise _wrong(key, value, expected)

    def sequence(self, value: Any, kind: Any, args: tuple[Any, ...], expected: Any, key: str) -> Any:
        if not isinstance(value, list | tuple):
            raise _wrong(key, value, expected)
        if kind is tuple and args and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise _wrong(key, value, expected, f" (got {len(value)} of {len(args)})")
            inner: Sequence[Any] = args
        else:
            inner = [args[0] if args else Any] * len(value)
        made = [self.convert(v, a, f"{key}.{i}") for i, (v, a) in enumerate(zip(value, inner, strict=True))]
        return tuple(made) if kind is tuple else made

    def scalar_or_instance(self, value: Any, expected: Any, key: str) -> Any:
        if expected in (bool, int, float, str, type(None), None):
            if type(value) is expected or (value is None and expected in (None, type(None))):
                return value
            if expected is float and type(value) is int:
                return float(value)
            hint = ""
            if expected is str and isinstance(value, int | float):
                hint = "; to mean the text, quote it twice on a command line ('\"…\"') and once in a file"
            if expected is int and isinstance(value, float) and value.is_integer():
                hint = f"; write {int(value)}"
            raise _wrong(key, value, expected, hint)
        if not isinstance(expected, type):
            return value
        if isinstance(value, str) and issubclass(Path, expected):
            return Path(value).expanduser()
        return self.instance(value, expected, key)

    def instance(self, value: Any, expected: type, key: str, partial: bool = False) -> Any:
        is_protocol = getattr(expected, "_is_protocol", False)
        if not isinstance(value, dict | str):
            if not is_protocol and isinstance(value, expected) and not partial:
                return value
            raise _wrong(key, value, expected)
        preset = getattr(expected, "preset", None)
        if callable(preset) and (isinstance(value, str) or "preset" in value):
            rest = {} if isinstance(value, str) else {k: v for k, v in value.items() if k != "preset"}
            given = self.arguments(rest, expected, key, missing_allowed=True, use_context=False)
            return _call(
                key, lambda: replace(preset(value if isinstance(value, str) else value["preset"]), **given)
            )
        if isinstance(value, str):
            raise _wrong(key, value, expected)
        if "class_path" in value:
            cls = import_class(value["class_path"], f"{key}.class_path", self.allow, self.roots)
            check_kind(cls, expected, f"{key}.class_path")
            if extra := sorted(set(value) - {"class_path", "init_args"}):
                raise RecipeError(
                    f"{key}.{extra[0]}: unknown key beside class_path{meant(extra[0], ['init_args'])}"
                )
            arguments = {} if value.get("init_args") is None else value["init_args"]
        elif is_dataclass(expected):
            cls, arguments = expected, value
        else:
            raise _wrong(key, value, expected)
        if not isinstance(arguments, dict):
            raise _wrong(f"{key}.init_args", arguments, dict)
        made = self.arguments(arguments, cls, key, missing_allowed=partial)
        return functools.partial(cls, **made) if partial else _call(key, lambda: cls(**made))

    def arguments(
        self,
        given: dict[str, Any],
        cls: type,
        key: str,
        *,
        missing_allowed: bool = False,
        use_context: bool = True,
    ) -> dict[str, Any]:
        schema = parameters(cls)
        made: dict[str, Any] = {}
        for name, value in given.items():
            below = f"{key}.{name}" if key else name
            if name in schema:
                made[name] = self.convert(value, schema[name].annotation, below)
            elif "**" in schema:
                made[name] = self.convert(value, schema["**"].annotation, below)
            else:
                raise RecipeError(
                    f"{below}: unknown key of {cls.__name__}{meant(name, schema)}; "
                    f"it takes {', '.join(schema) or 'none'}"
                )
        for name, parameter in schema.items():
            if name in made or name == "**":
                continue
            if use_context and name in self.context:
                made[name] = self.context[name]
            elif parameter.default is inspect.Parameter.empty and not missing_allowed:
                raise RecipeError(
                    f"{f'{key}.' if key else ''}{name}: missing; {cls.__name__} needs it: "
                    f"{in_words(parameter.annotation)}"
                )
        return made


def check_kind(cls: type, expected: type, key: str) -> None:
    """Raises RecipeError unless a class is of the kind that a place wants: a subclass, or what a protocol asks for."""
    if not getattr(expected, "_is_protocol", False):
        if not issubclass(cls, expected):
            raise RecipeError(f"{key}: got {cls.__module__}.{cls.__name__}, expected a {expected.__name__}")
    elif lacking := [name for name in _methods(expected) if not hasattr(cls, name)]:
        raise RecipeError(
            f"{key}: got {cls.__module__}.{cls.__name__}, expected a {expected.__name__}, which has "
            f"{', '.join(lacking)}"
        )


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters by name with their resolved annotations; `**` stands for `**kwargs`."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        hints = {}
    found = {}
    for p in inspect.signature(cls).parameters.values():
        if p.kind is not p.VAR_POSITIONAL:
            found["**" if p.kind is p.VAR_KEYWORD else p.name] = p.replace(annotation=hints.get(p.name, Any))
    return found


def _call(key: str, make: Any) -> Any:
    try:
        return make()
    except (RecipeError, RecursionError):
        raise
    except Exception as error:  # a constructor may fail in any way on values that nobody thought of
        raise RecipeError(f"{key}: {_worded(error)}" if key else _worded(error)) from error


def _worded(error: Exception) -> str:
    """Its message in a line: torch adds where in C++ it came from."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    first = text.splitlines()[0] if isinstance(error, RuntimeError) and text else text
    plain = isinstance(error, ValueError | ArithmeticError | RuntimeError | KeyError) and first
    return first if plain else f"{type(error).__name__}: {first or 'no message'}"


def _methods(protocol: type) -> list[str]:
    """What a protocol's classes must have: its methods and properties; its other members are of instances."""
    return [name for name, value in vars(protocol).items() if _is_method(name, value)]


def _is_method(name: str, value: Any) -> bool:
    public = not name.startswith("_") or name == "__call__"
    return public and (inspect.isfunction(value) or isinstance(value, property))


def _takes_none(annotation: Any) -> bool:
    return annotation is Any or type(None) in get_args(annotation)


def _wrong(key: str, value: Any, expected: Any, hint: str = "") -> RecipeError:
    return RecipeError(f"{key}: got {show(value)}, expected {in_words(expected)}{hint}")


_IN_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    dict: "keys",
}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}
_SHOWN_KEYS = 4


def in_words(annotation: Any) -> str:
    """What a place in a recipe takes, as one writes it there."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        said = [a for a in args if getattr(a, "__name__", "") != "Tensor"]  # no recipe can hold one
        return " or ".join(in_words(a) for a in said)
    if origin is tuple and args and args[-1] is not Ellipsis:
        each = _SEVERAL.get(args[0]) if len(set(args)) == 1 else None
        return f"a list of {len(args)} {each}" if each else f"a list: {', '.join(map(in_words, args))}"
    if origin in (list, tuple, abc.Sequence, abc.Iterable):
        return f"a list of {_SEVERAL.get(args[0]) or in_words(args[0]).replace('a list', 'lists', 1)}"
    if origin in (dict, abc.Mapping, abc.MutableMapping):
        return f"names, each with {in_words(args[1])}"
    if origin is abc.Callable or annotation is abc.Callable:
        return (
            f"class_path and init_args ({getattr(args[1], '__name__', 'any class') if args else 'any class'})"
        )
    if annotation in _IN_WORDS:
        return _IN_WORDS[annotation]
    if callable(getattr(annotation, "preset", None)):
        return "a preset's name, or keys"
    if is_dataclass(annotation) and isinstance(annotation, type):
        names = [name for name in parameters(annotation) if name != "**"]
        return f"keys ({', '.join(names[:_SHOWN_KEYS])}{', …' * (len(names) > _SHOWN_KEYS)})"
    if isinstance(annotation, type) and annotation is not object:
        return f"class_path and init_args ({annotation.__name__})"
    return "anything"
