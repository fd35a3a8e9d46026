"""Where the time of a step goes: marks that the engine and the tasks put around their parts.

`with section("generator forward"):` does nothing (half a microsecond) unless a `Stopwatch` runs in this thread. Time
is counted for the innermost section alone, and for "rest" outside all of them, so that the sections add up to the
whole by construction.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar

REST = "rest"

_NOT_TIMED = contextlib.nullcontext()


def section(name: str) -> AbstractContextManager[None]:
    """The part of a step that `name` says; sections nest."""
    watch = _running.get()
    return _NOT_TIMED if watch is None else watch.section(name)


class Stopwatch:
    """Seconds by section.

    Args:
        clock: in seconds.
        synchronize: waits until the device has done what it was given, at every border of a section.
        annotate: makes the context that names a section to a tracer.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], object] | None = None,
        annotate: Callable[[str], AbstractContextManager[object]] | None = None,
    ) -> None:
        self._clock = clock
        self._synchronize = synchronize
        self._annotate = annotate
        self._names = [REST]
        self._spent: dict[str, float] = {}
        self._since = self._now()

    @contextlib.contextmanager
    def running(self) -> Iterator["Stopwatch"]:
        """Inside, this thread's sections are timed by it, from now on."""
        token = _running.set(self)
        self.lap()
        try:
            yield self
        finally:
            _running.reset(token)

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count for `name` what passes inside and in no section within."""
        self._border()
        self._names.append(name)
        try:
            with contextlib.nullcontext() if self._annotate is None else self._annotate(name):
                yield
        finally:
            self._border()
            self._names.pop()

    def lap(self) -> dict[str, float]:
        """Seconds by section since the last lap; their sum is all the time that has passed."""
        self._border()
        spent, self._spent = self._spent, {}
        return spent

    def _border(self) -> None:
        now = self._now()
        self._spent[self._names[-1]] = self._spent.get(self._names[-1], 0.0) + now - self._since
        self._since = now

    def _now(self) -> float:
        if self._synchronize is not None:
            self._synchronize()
        return self._clock()


_running: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)
