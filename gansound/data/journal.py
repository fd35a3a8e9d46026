"""What `prepare` has made so far, a line a file, so that it never makes it twice."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gansound.data.corpus import Entry
from gansound.data.manifest import json_line
from gansound.data.process import Outcome, target
from gansound.data.slices import Slice

Stamp = Mapping[str, Any]


class Journal:
    """`OUT/journal.jsonl`: the outcome of each file, valid while file and settings are what they were.

    A slice of the work has a journal of its own beside it, which nobody else writes to; all are read.

    Lines are only ever added, the last one of a file counts, and one that a kill cut is no line.

    Args:
        out: the folder of the prepared corpus.
        key: of the settings.
        part: the slice that is done here; None for all.
    """

    def __init__(self, out: Path, key: str, part: Slice | None = None) -> None:
        self._out = out
        name = "journal" if part is None else f"journal-{part.number}-of-{part.count}"
        self._path = out / f"{name}.jsonl"
        self._key = key
        self._known: dict[str, dict[str, Any]] = {}
        self._cut = False
        for path in sorted(out.glob("journal*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        lines = path.read_bytes()
        if path == self._path:
            self._cut = bool(lines) and not lines.endswith(b"\n")
        for line in lines.splitlines():
            try:
                known = json.loads(line)
                self._known[known["name"]] = known
            except (ValueError, TypeError, KeyError):
                continue  # a kill cut it, or it is nothing of ours

    def __contains__(self, name: object) -> bool:
        """Whether a file of this name was ever done."""
        return name in self._known

    def outcome(self, entry: Entry, stamp: Stamp) -> Outcome | None:
        """What came of a file, where it and what was made of it are still the same."""
        known = self._known.get(entry.name)
        if known is None or {name: known.get(name) for name in stamp} != stamp:
            return None
        try:
            outcome = Outcome(**known["outcome"])
            there = not outcome.bytes or target(entry, self._out).stat().st_size == outcome.bytes
        except (OSError, KeyError, TypeError):
            return None
        return outcome if there else None

    def add(self, entry: Entry, stamp: Stamp, outcome: Outcome) -> None:
        """Remember what came of a file that had this stamp. Raises OSError with the journal's name."""
        line = json_line({"name": entry.name, **stamp, "outcome": asdict(outcome)})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(b"\n" * self._cut + line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._cut = False

    def stamp(self, entry: Entry) -> Stamp:
        """What tells a file from a changed one; to be taken before it is read."""
        try:
            stat = entry.path.stat()
        except OSError:
            return {"key": self._key, "size": -1, "mtime_ns": -1}
        return {"key": self._key, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
