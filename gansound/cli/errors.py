"""What the command line refuses, and how it words whatever went wrong: one message and an exit code.

2 is knowable from the command line and the recipe, 1 is everything later, 130 is an interruption.
"""

import errno
import sys
from collections.abc import Iterator

from gansound.extras import explained

INTERRUPTED = 130
_FULL = {errno.ENOSPC: "the disk is full", errno.EFBIG: "a file-size limit was reached"}
_FULL[errno.EDQUOT] = "the disk quota is used up"
# What reaches us from Rust (safetensors), C++ (torch) and libsndfile as text only.
_FULL_WORDS = {"No space left on device": errno.ENOSPC, "os error 28": errno.ENOSPC, "code: 28": errno.ENOSPC}
_FULL_WORDS |= {"File too large": errno.EFBIG, "os error 27": errno.EFBIG, "code: 27": errno.EFBIG}
_OF_USERS = (ValueError, OSError, RuntimeError)
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")


class UsageError(ValueError):
    """Something knowable from the command line alone is wrong: exit code 2."""


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the one message for an error that ended a command; an empty message says nothing."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, " by ".join(["interrupted", *map(str, error.args)])  # Ctrl-C, or a signal's name
    if isinstance(error, BrokenPipeError):  # the reader had enough: `gansound ... | head`
        return 1, ""
    if isinstance(error, UsageError) or _is_recipe_error(error):
        return 2, str(error)
    if full := _full_disk(error):
        return 1, full
    text = str(error).strip()
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text.lower() for words in _MEMORY_WORDS)
    ):
        return 1, (
            f"out of memory: {text.splitlines()[0] if text else 'the machine refused an allocation'}. "
            "Make the batch or the segments smaller, or use a device with more memory"
        )
    if isinstance(error, OSError) and error.strerror:
        return 1, f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, ImportError):
        return 1, explained(error, "this command")
    if text and isinstance(error, _OF_USERS) and not isinstance(error, NotImplementedError | RecursionError):
        return 1, text
    kind = type(error).__name__
    return 1, f"internal error, {kind}: {text or 'no message'}. Run again with --debug and report it"


def _is_recipe_error(error: BaseException) -> bool:
    # An instance exists only if its module is loaded: looking it up here would load it for every command.
    recipe = sys.modules.get("gansound.recipe")
    return recipe is not None and isinstance(error, recipe.RecipeError)


def _full_disk(error: BaseException) -> str | None:
    for link in _chain(error):
        if isinstance(link, OSError):
            number, name = link.errno, link.filename
        else:  # only a library's own exception hides the number in its text
            number, name = next((n for words, n in _FULL_WORDS.items() if words in str(link)), None), None
        if number in _FULL:
            where = f"{name}: " if name is not None else ""
            what = str(error).strip()
            said = f" ({what.splitlines()[0]})" if what and not isinstance(error, OSError) else ""
            return f"{where}could not write, {_FULL[number]}{said}. Free some space or write elsewhere"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
