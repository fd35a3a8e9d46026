"""stdin, stdout and stderr: whatever state they come in, a command can work, and what it writes is fit to be read."""

import io
import os
import sys
from typing import TextIO

from gansound.visible import ENCODING_ERRORS, visible


class ClosedError(ValueError):
    """There is no stdout."""


def ready_streams() -> None:
    """Make the standard streams usable. Where stderr is closed, messages go nowhere, and all else as usual.

    Raises:
        ClosedError: stdout is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # or the next file opened would be written into by whoever writes to stdout
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as the process lasts
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)
    if sys.stdout is None:
        raise ClosedError("stdout is closed, expected a place for what is said there; > /dev/null is one")


def abandon_if_gone(stream: TextIO | None) -> None:
    """Keep the interpreter from failing a second time when it flushes a closed or full stream at its end."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except OSError:
            pass


def tell(line: object) -> None:
    """A result, on a line of stdout."""
    print(visible(line))
