"""Which commit a folder's checkout is of, and whether tracked files differ from it, without obeying what lies there.

A repository's configuration may name commands that git runs to look at it (core.fsmonitor, filters), and the folder
that training is started in may be anyone's. So git is never pointed at its configuration: we read which commit it is,
and git compares the files with an empty repository of ours that borrows the other's objects and index.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gansound.engine.own_files import NotOwnError, read_own

_SECONDS = 1.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_BYTES = 1 << 24  # of packed-refs


def git_states(folders: Sequence[Path]) -> list[dict[str, Any] | None]:
    """Commit of each folder's checkout, and whether tracked files differ from it.

    None where there is none; `dirty` is None where git isn't there, or doesn't say in a second.
    """
    with ExitStack() as stack:
        asked: list[tuple[str | None, subprocess.Popen[str] | None]] = []
        for folder in folders:
            found = _checkout(folder)
            commit = None if found is None else _head(found[1])
            if found is None or commit is None:
                asked.append((None, None))
                continue
            ours = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gansound_git_")))
            asked.append((commit, _ask(*found, commit, ours)))
        return [None if commit is None else {"commit": commit, "dirty": _dirty(p)} for commit, p in asked]


def _checkout(folder: Path) -> tuple[Path, Path] | None:
    """The top of the checkout that a folder lies in, and its git folder; in a work tree of git that is elsewhere."""
    for top in (folder, *folder.parents):
        inside = top / ".git"
        if inside.is_dir():
            return top, inside
        if inside.is_file():
            named = _text(inside).removeprefix("gitdir: ")
            return (top, (top / named).resolve()) if named and (top / named).is_dir() else None
    return None


def _common(git: Path) -> Path:
    """Where the objects and branches are: of a work tree elsewhere than its index."""
    return (git / named).resolve() if (named := _text(git / "commondir")) else git


def _head(git: Path) -> str | None:
    head = _text(git / "HEAD")
    for _ in range(5):  # a branch may stand for another
        if _COMMIT.fullmatch(head):
            return head
        name = head.removeprefix("ref: ")
        if name == head or not re.fullmatch(r"refs/[\w./@+-]+", name) or ".." in name:
            return None
        common = _common(git)
        head = _text(git / name) or _text(common / name) or _packed(common / "packed-refs", name)
    return None


def _packed(packed: Path, name: str) -> str:
    lines = _text(packed).splitlines()
    return next((line.split(" ", 1)[0] for line in lines if line.endswith(f" {name}")), "")


def _text(file: Path) -> str:
    try:
        return read_own(file, _MOST_BYTES).decode(errors="replace").strip()
    except (OSError, NotOwnError, ValueError):
        return ""


def _ask(top: Path, git: Path, commit: str, ours: Path) -> "subprocess.Popen[str] | None":
    """Have git compare the files with the commit."""
    objects = _common(git) / "objects"
    for name in ("objects/info", "refs"):
        (ours / name).mkdir(parents=True)
    (ours / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    (ours / "HEAD").write_text(f"{commit}\n")
    sha256 = "[extensions]\nobjectformat = sha256\n" if len(commit) == 64 else ""
    (ours / "config").write_text(
        f"[core]\nrepositoryformatversion = {int(bool(sha256))}\nbare = false\n{sha256}"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_DIR": str(ours),
        "GIT_WORK_TREE": str(top),
        "GIT_INDEX_FILE": str(git / "index"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
    }
    command = [
        "git",
        "--no-pager",
        "status",
        "--porcelain=v2",
        "--untracked-files=no",
        "--ignore-submodules=all",
    ]
    try:
        return subprocess.Popen(
            command,
            cwd=ours,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError:  # no git
        return None


def _dirty(process: "subprocess.Popen[str] | None") -> bool | None:
    if process is None:
        return None
    try:
        out, _ = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:  # a huge checkout, or a file system that hangs
        process.kill()
        process.wait()
        return None
    return bool(out.strip()) if process.returncode == 0 else None
