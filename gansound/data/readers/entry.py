"""A file of a corpus before it is opened, and how a reader lists and reads files."""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a corpus before it is opened, with what its place and the metadata say of it."""

    path: Path
    name: str  # relative to the corpus, in POSIX form
    speaker: str | None = None
    text: str | None = None
    label: str | None = None
    split: str | None = None  # train, valid or test, where the corpus itself says it

    @property
    def known(self) -> dict[str, Any]:
        """What a record of it says besides its place and its samples."""
        return {"speaker": self.speaker, "text": self.text, "label": self.label, "split": self.split}


Found: TypeAlias = tuple[list[Entry], list[tuple[Path, str]]]
"""Entries in order of name, and (path, reason) of what the metadata names but the folder lacks."""


class Reader(Protocol):
    """What each module of this package is."""

    EXPECTED: str
    """The layout in words, for whoever forces it on a folder that has another."""

    def recognises(self, root: Path) -> bool:
        """Whether ``root`` has the layout, by a few names and lines: never by all its files."""

    def read(self, root: Path) -> Found:
        """All that the layout holds. Raises ValueError with the line of a table that can't be understood."""


def folders(root: Path) -> list[Path]:
    """The folders in a folder, in order of name, but the hidden ones."""
    with os.scandir(root) as found:
        return sorted(root / item.name for item in found if item.is_dir() and not item.name.startswith("."))


def names(folder: Path, first: int | None = None) -> list[str]:
    """What a folder holds, in order; of ``first`` things only, where a look must do. Empty for no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(item.name for item in itertools.islice(found, first))


def text_of(path: Path) -> str | None:
    """A text file as one line, None when it is empty. Raises ValueError when it isn't UTF-8."""
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split()) or None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 text ({error.reason}). Convert it, for example by iconv"
        ) from None


def in_order(found: Iterable[Entry]) -> list[Entry]:
    """Entries by name; splits that don't part training from anything are left to gansound's own rule."""
    ordered = sorted(found, key=lambda entry: entry.name)
    splits = {entry.split for entry in ordered}
    if "train" in splits and len(splits) > 1:
        return ordered
    return [replace(entry, split=None) for entry in ordered] if splits - {None} else ordered
