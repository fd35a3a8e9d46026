"""The files of a run's folder are its own: regular ones, opened without following a link.

A folder may come from anyone. A link in it would have the run write to, or copy, a file elsewhere; a pipe or a device
in a file's place would hang whoever reads it.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

MOST_BYTES = 1 << 28
FILES = (
    "recipe.yaml", "metrics.jsonl", "sessions.jsonl", "events.jsonl", "rollbacks.json", "trackers.json", "running.json",
    "micro_batches.json",
)  # fmt: skip
FOLDERS = ("checkpoints", "model", "best", "tensorboard", "failures")
_MODEL_FILES = ("config.json", "model.safetensors", "discriminators.safetensors")
_ADVICE = "A run's folder holds what the run wrote and nothing else in its place: move it away, or give another --run"


class NotOwnError(ValueError):
    """Something else is where a run's own file or folder would be."""


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a regular file; `flags` as of `os.open`.

    Raises:
        NotOwnError: a link, a pipe, a device or a folder is there.
        OSError: it isn't there, or can't be opened.
    """
    quick = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags | quick, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotOwnError(f"{path}: is {_kind(path)}. {_ADVICE}") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotOwnError(f"{path}: is {_kind(path)}. {_ADVICE}")
    return descriptor


def read_own(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a regular file. Raises as `open_own`, and ValueError for one that is larger than `most_bytes`."""
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise ValueError(f"{path}: has {size:,} bytes, expected at most {most_bytes:,}")
        return file.read(most_bytes)


def is_own(path: Path) -> bool:
    """Whether a regular file is there, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def check_own(run: Path) -> None:
    """Look at all that a run would open, before it opens any of it; what isn't its own is left alone.

    Raises:
        NotOwnError: see there.
    """
    files = [run / name for name in FILES]
    folders = [run / name for name in FOLDERS]
    for folder in folders:
        _expect(folder, stat.S_ISDIR, "a folder")
    if (run / "checkpoints").is_dir():
        steps = [path for path in (run / "checkpoints").iterdir() if path.name.startswith("step_")]
        for step in steps:
            _expect(step, stat.S_ISDIR, "a folder")
            files += step.iterdir()
    for model in (run / "model", run / "best"):
        if model.is_dir() and (inside := {path.name for path in model.iterdir()}):
            if not inside.intersection(_MODEL_FILES):
                raise NotOwnError(f"{model}: is a folder that is no model's. {_ADVICE}")
            files += [model / name for name in _MODEL_FILES]
    for file in files:
        _expect(file, stat.S_ISREG, "a file")


def _expect(path: Path, is_right: Callable[[int], bool], what: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        raise NotOwnError(f"{path}: is {_kind(path)}, expected {what}. {_ADVICE}")


def _kind(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return "gone"
    kinds = {
        stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file",
        stat.S_IFSOCK: "a socket",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "a device")
