"""How far a command is that works through many things: a bar on a terminal, lines in the log elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gansound.cli.console import Console
from gansound.cli.training_progress import duration

log = logging.getLogger(__name__)

_SECONDS_TO_FIRST_LINE, _SECONDS_BETWEEN_LINES = 10.0, 60.0


class Advance(Protocol):
    """Called when `count` more are done, the last of them a file of this name, if it has one."""

    def __call__(self, name: str = "", count: int = 1) -> None: ...


@contextmanager
def progress(doing: str, total: int, *, quiet: bool = False) -> Iterator[Advance]:
    """A context that shows how many of `total` are done and how long the others take.

    Without a terminal it is a line in the log after ten seconds and each minute from then on.
    """
    console = Console(stderr=True)
    if console.is_terminal and not quiet:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(doing, total=total)

            def show(name: str = "", count: int = 1) -> None:
                bar.update(task, advance=count, description=escape(Path(name).name) or doing)

            yield show
        return
    begun = time.monotonic()
    done, due = 0, begun + _SECONDS_TO_FIRST_LINE

    def tell(name: str = "", count: int = 1) -> None:
        nonlocal done, due
        done += count
        if (now := time.monotonic()) >= due and 0 < done < total:
            due = now + _SECONDS_BETWEEN_LINES
            log.info(
                "%s: %d of %d, %s left", doing, done, total, duration((now - begun) / done * (total - done))
            )

    yield tell
