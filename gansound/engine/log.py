"""What a run writes down: `metrics.jsonl`, TensorBoard, pictures and sounds of validation."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from gansound.engine.folder import write_beside
from gansound.engine.task import Example
from gansound.report.pictures import comparison

METRICS = "metrics.jsonl"


class RunLog:
    """Figures of a run, one JSON object a line with its `step`, and the same in TensorBoard.

    A resumed run drops the lines after the step it resumes from, so that the file is that of one whole run.
    """

    def __init__(self, run: Path, start: int) -> None:
        self._run = run
        self._metrics = run / METRICS
        # A run started anew validates at step 0 again.
        forget_after(self._metrics, start if start else -1)
        self._file = self._metrics.open("a", buffering=1)
        self._excepthook = threading.excepthook
        threading.excepthook = self._without_tensorboard
        with self._naming("tensorboard"):
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start)

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the line of a step."""
        with self._naming(METRICS):
            self._file.write(json.dumps({"step": step, **figures}) + "\n")
        with self._naming("tensorboard"):
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def examples(self, step: int, examples: Sequence[Example]) -> None:
        """Pictures and sounds of a validation."""
        with self._naming("tensorboard"):
            for example in examples:
                tag = f"valid/{example.name}"
                self._board.add_audio(f"{tag}/generated", example.fake[None], step, example.sample_rate)
                if step == 0:
                    self._board.add_audio(f"{tag}/real", example.real[None], step, example.sample_rate)
                picture = comparison({"real": example.real, "generated": example.fake}, example.sample_rate)
                self._board.add_figure(tag, picture, step)

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, to which the run has gone back."""
        with self._naming(METRICS):
            self._file.close()
            forget_after(self._metrics, step)
            self._file = self._metrics.open("a", buffering=1)
        with self._naming("tensorboard"):
            self._board.close()
            self._board = SummaryWriter(str(self._run / "tensorboard"), purge_step=step + 1)

    def close(self) -> None:
        """Bring everything to the disk."""
        try:
            with self._naming("tensorboard"):
                self._board.close()
        finally:
            threading.excepthook = self._excepthook
            with self._naming(METRICS):
                self._file.close()

    @contextlib.contextmanager
    def _naming(self, file: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self._run / file)) from error

    def _without_tensorboard(self, crash: Any) -> None:
        # Its writing thread hands the error to us and then prints it as well.
        if not type(crash.thread).__module__.startswith("tensorboard."):
            self._excepthook(crash)


def forget_after(metrics: Path, step: int) -> None:
    """Drop the lines of `metrics` past `step`, and a last line that a kill cut."""
    if not metrics.exists():
        return
    kept = [
        line for line in metrics.read_text().splitlines() if (at := _step(line)) is not None and at <= step
    ]
    write_beside(metrics, "".join(line + "\n" for line in kept))


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return None
