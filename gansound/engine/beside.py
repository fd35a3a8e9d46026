"""One piece of work at a time in a thread beside training: the writing of a checkpoint."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_WORTH_SAYING_SECONDS = 1.0


class Beside:
    """What is done while training goes on; what it raises, training is told of as soon as it asks."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._what = ""
        self._error: BaseException | None = None

    def take_turn(self) -> None:
        """Wait until what was begun before is done, and say so where that took long; raises as `check`."""
        begun = time.perf_counter()
        self.wait()
        if (waited := time.perf_counter() - begun) > _WORTH_SAYING_SECONDS:
            log.warning(
                "training waited %.1f s until %s was on the disk: make checkpoint_every larger",
                waited,
                self._what,
            )

    def start(self, what: str, work: Callable[[], object]) -> None:
        """Begin; nothing else is under way.

        Args:
            what: it is, for the log.
            work: in the thread.
        """
        assert self._thread is None

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._what = what
        self._thread = threading.Thread(target=run, daemon=True, name=what)
        self._thread.start()

    def check(self) -> None:
        """Raise what the work raised, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Until nothing is under way; raises as `check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def abandon(self) -> None:
        """As `wait`, where another error is the one to be told."""
        try:
            self.wait()
        except Exception as error:
            log.warning("%s: %s", self._what, error)
