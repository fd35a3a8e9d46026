"""Batches whatever happens to the processes that load them: one that is killed is replaced, a slow disk is named.

A batch is a function of its number, so new processes go on at the first that wasn't delivered, with the same bits.
"""

import contextlib
import copy
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

log = logging.getLogger(__name__)

SLOW_SECONDS = 60.0
_RESTARTS, _AMONG_BATCHES = 3, 1000
_NO_ROOM = (
    "/dev/shm, through which batches are sent, has no room, as a rule; give it more (docker run --shm-size=8g), "
    "or set data.workers: 0"
)
_NAMED = 5
_DYING_SECONDS = 10.0

Batch = dict[str, Any]


def unbroken(
    make: Callable[[int], DataLoader[Batch]], first: int, last: int, files: Callable[[int], Sequence[str]]
) -> Iterator[Batch]:
    """Batches `first` to `last` - 1.

    Args:
        make: a loader of the batches from a number on.
        first: number of the first.
        last: number after the last.
        files: those that a batch is drawn from, to be named while it is waited for.

    Raises:
        ValueError: a file can't be used, in a worker's words; or worker processes are killed again and again.
    """
    killed_at: list[int] = []
    number = first
    while number < last:
        others = set(multiprocessing.active_children())
        batches = _started(make(number))
        workers = [process for process in multiprocessing.active_children() if process not in others]
        try:
            while number < last:
                with _patience(number, files):
                    batch = next(batches)
                number += 1
                yield batch
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            if said := _said_by_worker(error):
                raise ValueError(said) from error
            if not (dead := _dead(workers)):
                raise
            killed_at = [at for at in killed_at if at > number - _AMONG_BATCHES] + [number]
            what = f"{_named(dead)} at batch {number}: {_advice(dead)}"
            if len(killed_at) > _RESTARTS:
                raise ValueError(
                    f"processes that load data were killed {len(killed_at)} times within {_AMONG_BATCHES} batches; the "
                    f"last was {what}. The command started again goes on from the last checkpoint"
                ) from error
            log.warning("%s. New processes load it again", what)
        del batches  # ends what is left of the processes


class _Flag:
    """An event without a lock, for two sides: one sets it, the others look."""

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue("b", 0)

    def set(self) -> None:
        self._value.value = 1

    def is_set(self) -> bool:
        return bool(self._value.value)


def worker_context() -> BaseContext:
    """The machine's way to start processes, for a `DataLoader` whose workers may be killed at any time.

    Its `Event`, by which a loader's processes are told to end, has no lock: one killed while it looks leaves
    `multiprocessing.Event`'s taken, and setting it then waits for ever.
    """
    context = copy.copy(multiprocessing.get_context())
    context.Event = lambda: _Flag(context)  # type: ignore[method-assign, assignment, return-value]
    return context


def _started(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Its iterator, without the handler by which torch raises wherever the main thread is when a worker dies.

    That would be in the middle of a step as a rule. `next` looks after its workers by itself, every five seconds.
    """
    if loader.num_workers == 0 or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if before is None or getattr(before, "__module__", "").startswith("torch."):
        before = signal.SIG_DFL  # set outside Python; or torch's, of a loader that others made
    signal.signal(signal.SIGCHLD, before)
    return batches


@contextlib.contextmanager
def _patience(number: int, files: Callable[[int], Sequence[str]]) -> Iterator[None]:
    """Says what is waited for, each time that `SLOW_SECONDS` have passed inside."""
    over = threading.Event()
    begun = time.monotonic()

    def watch() -> None:
        while not over.wait(SLOW_SECONDS):
            # In two messages, for the second may wait for the disk that hangs.
            log.warning(
                "waiting for batch %d for %.0f s: the disk is slow or hangs. Training goes on when it answers",
                number,
                time.monotonic() - begun,
            )
            try:
                names = list(dict.fromkeys(files(number)))
            except (OSError, ValueError) as error:
                names = [f"files that can't be named now ({error})"]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            log.warning("batch %d is drawn from %s%s", number, ", ".join(names[:_NAMED]), more)

    watcher = threading.Thread(target=watch, daemon=True, name="patience")
    watcher.start()
    try:
        yield
    finally:
        over.set()


def _dead(workers: Sequence[BaseProcess]) -> list[BaseProcess]:
    # What a process leaves half done may be noticed before its end is, which on a busy machine takes long.
    if workers:
        wait([process.sentinel for process in workers], timeout=_DYING_SECONDS)
    return [process for process in workers if process.exitcode not in (None, 0)]


def _named(dead: Sequence[BaseProcess]) -> str:
    named = []
    for process in dead:
        code = process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        named.append(f"a process that loads data (pid {process.pid}) was {how}")
    return ", ".join(named)


def _advice(dead: Sequence[BaseProcess]) -> str:
    codes = {process.exitcode for process in dead}
    if -signal.SIGBUS in codes:
        return _NO_ROOM
    if -signal.SIGKILL in codes:
        return "out of memory, as a rule; fewer data.workers or a smaller data.cache_gb need less"
    return "see what it wrote above"


def _said_by_worker(error: Exception) -> str | None:
    """The message of an error that a user can mend, without the traceback that torch puts into it."""
    lines = str(error).strip().splitlines()
    if len(lines) < 2 or "DataLoader worker" not in lines[0]:
        return None
    said = lines[-1].partition(": ")[2]
    if isinstance(error, RuntimeError):
        return f"{said}. {_NO_ROOM}" if "shared memory" in said else None
    return said
