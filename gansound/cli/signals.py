"""What SIGTERM (systemd, docker stop, timeout) and SIGHUP (a terminal that closes) do: as a rule, what Ctrl-C does.

So the one way in which code cleans up after itself, `finally` and `with`, serves all of them.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Signalled(KeyboardInterrupt):
    """Told to end by a signal, whose name it carries."""


@contextmanager
def on_signals(act: Callable[[str], object], names: Sequence[str] = _NAMES) -> Iterator[None]:
    """Call `act` with the name of one of the signals when it comes. One that is ignored (`nohup`) stays ignored."""
    if threading.current_thread() is not threading.main_thread():  # where Python sets no handlers
        yield
        return
    before = {}
    for name in names:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_, name=name: act(name))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Signalled` where SIGTERM or SIGHUP comes, once: nothing disturbs the cleaning up behind it."""
    owner = os.getpid()
    told = False

    def end(name: str) -> None:
        nonlocal told
        if os.getpid() != owner:  # a forked worker has nothing to clean up, and must end when it is told
            number = getattr(signal, name)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not told:
            told = True
            raise Signalled(name)

    with on_signals(end):
        yield
