"""The console of a command's tables and bars."""

from collections.abc import Iterable
from typing import IO, Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from gansound.visible import visible


class Console(rich.console.Console):
    """rich's, which shows what is in the names of files instead of obeying it, and speaks to nobody without a word."""

    @property
    def file(self) -> IO[str]:
        """As rich's."""
        file = super().file
        return _Forgiving(file) if self.stderr else file  # type: ignore[return-value]

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich's; its own moves and colours are no text, and pass."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_shown(segment.text), segment.style)


class _Forgiving:
    """A stderr that may be gone: a terminal that was closed is no reason to end a training without a checkpoint."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _shown(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))
