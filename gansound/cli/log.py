"""Where the library's log goes when a command runs: stderr, coloured on a terminal, plain lines elsewhere."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gansound.visible import visible, visible_lines


class _Formatter(logging.Formatter):
    """The message, fit to be shown."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible_lines(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(map(visible, super().formatException(ei).split("\n")))


class _PlainFormatter(_Formatter):
    """``warning: text``; what is merely told has no prefix."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


@contextmanager
def logging_to_stderr(verbosity: int) -> Iterator[None]:
    """Send gansound's log to stderr for the duration.

    Args:
        verbosity: negative shows warnings only, 0 also what is being done, positive also details and the
            warnings of other libraries.
    """
    level = logging.WARNING if verbosity < 0 else logging.DEBUG if verbosity > 0 else logging.INFO
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        from gansound.cli.console import Console

        handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
        handler.setFormatter(_Formatter())
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_PlainFormatter())
    levels = {"gansound": level, "py.warnings": logging.WARNING if verbosity > 0 else logging.ERROR}
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in levels}
    logging.captureWarnings(True)
    for name in levels:
        logger = logging.getLogger(name)
        logger.setLevel(levels[name])
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for name, (old_level, old_propagate) in before.items():
            logger = logging.getLogger(name)
            logger.removeHandler(handler)
            logger.setLevel(old_level)
            logger.propagate = old_propagate
