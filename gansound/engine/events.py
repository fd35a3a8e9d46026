"""What happened to a run besides its steps: `events.jsonl`, one object a line, for whoever reads the folder later."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from gansound.engine.folder import write_beside
from gansound.engine.history import EVENTS
from gansound.engine.own_files import open_own, read_own

log = logging.getLogger(__name__)


class Events:
    """The events of a run's folder; only one process writes them.

    Args:
        run: the folder.
        writes: whether this process does.
    """

    def __init__(self, run: Path, writes: bool) -> None:
        self._path = run / EVENTS
        self._writes = writes

    def resume(self, step: int) -> None:
        """Drop what happened after `step` and will happen again: all but the roll-backs, which a run remembers."""
        if not self._writes or not self._path.exists():
            return
        lines = read_own(self._path).decode(errors="replace").splitlines(keepends=True)
        write_beside(self._path, "".join(line for line in lines if _stays(line, step)))

    def add(self, step: int, event: str, message: str, **details: Any) -> None:
        """Log a warning and write it down: `event` is a word to count by (skipped, rollback, …)."""
        if not self._writes:
            return
        log.warning("step %d: %s", step, message)
        try:
            with os.fdopen(open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
                file.write(json.dumps({"step": step, "event": event, "message": message, **details}) + "\n")
        except OSError as error:  # that of a write names no file
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _stays(line: str, step: int) -> bool:
    try:
        event = json.loads(line)
        return bool(event["event"] == "rollback" or event["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False  # cut by a kill
