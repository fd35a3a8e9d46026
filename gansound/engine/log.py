"""What a run writes down: figures (`metrics.jsonl`, trackers), sounds and pictures, how it began and ended."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from torch.utils.tensorboard import SummaryWriter

from gansound.engine.folder import write_beside
from gansound.engine.history import METRICS
from gansound.engine.own_files import open_own, read_own
from gansound.engine.session import Session
from gansound.engine.task import Example
from gansound.engine.trackers import TENSORBOARD, Trackers
from gansound.report.pictures import comparison

_MOST_BYTES = 1 << 32  # three million steps, each of them logged


class RunLog:
    """All that a run writes down while it trains; close it by leaving its `with`.

    Figures go to `metrics.jsonl`, one JSON object a line with its `step`, and to the trackers; how the run was started
    and how it ended to `sessions.jsonl`. A resumed run drops the lines of `metrics.jsonl` after the step it resumes
    from, so that the file is that of one whole run.

    Args:
        run: the run's folder.
        start: the step that it starts from.
        trackers: `tensorboard`, and names that accelerate knows (see `check_trackers`).
        recipe: told to the trackers.
        about: told to the session.

    Raises:
        OSError: a file can't be written; its name is in the message.
    """

    def __init__(
        self,
        run: Path,
        start: int,
        *,
        trackers: Sequence[str] = (TENSORBOARD,),
        recipe: Mapping[str, Any] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.step = start  # the last that is done, for the record of the end
        self._run = run
        self._metrics = run / METRICS
        # A run started anew validates at step 0 again.
        forget_after(self._metrics, start if start else -1)
        self._session = Session(run, start, about or {})
        self._file = self._opened()
        self._excepthook = threading.excepthook
        threading.excepthook = self._without_tensorboard
        self._board: SummaryWriter | None = None
        if TENSORBOARD in trackers:
            with self._naming("tensorboard"):
                self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1 if start else 0)
        self._trackers = Trackers([name for name in trackers if name != TENSORBOARD], run, recipe or {})

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._close()
        except OSError as failure:
            error = error or failure
            raise
        finally:
            self._session.end(self.step, error)
            self._trackers.close()

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the line of a step."""
        with self._naming(METRICS):
            self._file.write(json.dumps({"step": step, **figures}) + "\n")
        if self._board is not None:
            with self._naming("tensorboard"):
                for name, value in figures.items():
                    self._board.add_scalar(name, value, step)
        self._trackers.scalars(step, figures)

    def examples(self, step: int, examples: Sequence[Example]) -> None:
        """Pictures and sounds of a validation, for TensorBoard alone."""
        if self._board is None:
            return
        with self._naming("tensorboard"):
            for example in examples:
                tag = f"valid/{example.name}"
                sounds = {"generated": example.fake} | ({"real": example.real} if step == 0 else {})
                for (
                    name,
                    sound,
                ) in sounds.items():  # TensorBoard clips by itself, and warns of it without saying where
                    self._board.add_audio(
                        f"{tag}/{name}", sound.clip(-1.0, 1.0)[None], step, example.sample_rate
                    )
                picture = comparison({"real": example.real, "generated": example.fake}, example.sample_rate)
                self._board.add_figure(tag, picture, step)

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, to which the run has gone back."""
        self.step = step
        with self._naming(METRICS):
            self._file.close()
            forget_after(self._metrics, step)
            self._file = self._opened()
        if self._board is not None:
            with self._naming("tensorboard"):
                self._board.close()
                self._board = SummaryWriter(str(self._run / "tensorboard"), purge_step=step + 1)

    def _opened(self) -> IO[str]:
        return os.fdopen(open_own(self._metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", buffering=1)

    def _close(self) -> None:
        """Bring everything to the disk."""
        try:
            if self._board is not None:
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
    try:
        # A power cut may leave bytes that are no text.
        text = read_own(metrics, _MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    kept = "".join(f"{line}\n" for line in text.split("\n") if (at := _step(line)) is not None and at <= step)
    if kept != text:
        write_beside(metrics, kept)


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
