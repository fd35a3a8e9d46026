"""How far a command is, where nobody watches and where somebody does."""

import io
import logging

import pytest
from rich.console import Console

from gansound.cli import progress as module
from gansound.cli.progress import progress
from gansound.cli.training_progress import TrainingProgress
from gansound.engine.run import Progress as RunProgress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def said(caplog):
    return [record.getMessage() for record in caplog.records]


def test_without_a_terminal_it_is_a_line_a_minute(clock, caplog):
    with caplog.at_level(logging.INFO), progress("measuring", 100) as advance:
        for i in range(100):
            clock[0] += 3.0
            advance(f"{i}.wav")
    # After ten seconds the first, sixty later the next; the last item is not told of, the result is.
    assert said(caplog) == [
        "measuring: 4 of 100, 4m48s left",
        "measuring: 24 of 100, 3m48s left",
        "measuring: 44 of 100, 2m48s left",
        "measuring: 64 of 100, 1m48s left",
        "measuring: 84 of 100, 48s left",
    ]


def test_what_takes_a_moment_says_nothing(clock, caplog):
    with caplog.at_level(logging.INFO), progress("generating", 640) as advance:
        for _ in range(10):
            clock[0] += 0.5
            advance(count=64)
    assert said(caplog) == []


def test_several_at_once_are_counted(clock, caplog):
    with caplog.at_level(logging.INFO), progress("generating", 640) as advance:
        clock[0] += 20.0
        advance(count=64)
    assert said(caplog) == ["generating: 64 of 640, 3m00s left"]


def test_a_terminal_has_a_bar_that_names_the_file(monkeypatch, caplog):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(module, "Console", lambda stderr: terminal)
    with caplog.at_level(logging.INFO), progress("measuring", 3) as advance:
        advance("folder/[bold]one.wav")
    assert "[bold]one.wav" in terminal.file.getvalue()
    assert "1/3" in terminal.file.getvalue()
    assert said(caplog) == []


def test_the_first_steps_of_a_run_weigh_no_more_than_the_last(caplog):
    """The line of a short run is the mean of its steps, not what its first step was."""
    with caplog.at_level(logging.INFO), TrainingProgress(20) as observe:
        for step in range(1, 21):
            skipped = {"skipped_steps": step / 4} if step % 4 == 0 else {}
            observe(RunProgress(step, 20, {"loss": float(step)} | skipped, 1.0, 0.0))
    weights = [0.98 ** (20 - step) for step in range(1, 21)]
    mean = sum(w * step for w, step in zip(weights, range(1, 21), strict=True)) / sum(weights)
    assert f"step 20/20  loss {mean:.3g}  skipped_steps 5  " in said(caplog)[-1]
    assert mean > 10
