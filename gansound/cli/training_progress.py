"""What one sees of a run: a live line on a terminal, a line a minute elsewhere."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn

from gansound.cli.console import Console

if TYPE_CHECKING:
    from gansound.engine.run import Progress as RunProgress

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 60.0
_SMOOTHING = 0.98


class TrainingProgress:
    """Context manager that gives an observer of a run.

    Args:
        steps: of the run, in all.
        quiet: shows no bar; lines are up to the log's level.
    """

    def __init__(self, steps: int, *, quiet: bool = False) -> None:
        self._steps = steps
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._last_line = 0.0
        console = Console(stderr=True)
        self._bar = (
            Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
                console=console,
            )
            if console.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> "Callable[[RunProgress], None]":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("train", total=self._steps, text="")
        return self._observe

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _observe(self, now: "RunProgress") -> None:
        for name, value in now.figures.items():
            if name == "skipped_steps":  # so many until now
                self._sums[name], self._counts[name] = value, 1.0
            elif not name.startswith(("gradient_norm", "learning_rate")):
                self._sums[name] = _SMOOTHING * self._sums.get(name, 0.0) + value
                self._counts[name] = _SMOOTHING * self._counts.get(name, 0.0) + 1
        losses = "  ".join(f"{name} {total / self._counts[name]:.3g}" for name, total in self._sums.items())
        text = f"{losses}  {now.audio_seconds_per_second:.1f} s of audio/s  {duration(now.seconds_left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=now.step, text=text)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES or now.step == now.steps:
            self._last_line = time.monotonic()
            log.info("step %d/%d  %s", now.step, now.steps, text)


def duration(seconds: float) -> str:
    """As 3h05m, 12m30s or 8s."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
