"""What a run writes down beside its figures: how it was started, how it ended, and what trackers are told."""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import numpy
import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

import gansound
from gansound.cli import main
from gansound.cli.training_progress import TrainingProgress
from gansound.engine import checkout as git_checkout
from gansound.engine import trackers
from gansound.engine.checkout import git_states
from gansound.engine.history import flat
from gansound.engine.log import forget_after
from gansound.engine.session import Session
from gansound.recipe import load_recipe
from tests.corpus import write_corpus
from tests.tiny import arguments

CHECKPOINTS = {"checkpoint_every": "2"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("made") / "corpus")


def train(corpus: Path, run: Path, steps: int = 3, **changes: str) -> int:
    command = [
        "train",
        "-q",
        "tiny_cpu",
        "--data.path",
        str(corpus),
        "--steps",
        str(steps),
        "--run",
        str(run),
    ]
    return main([*command, *arguments(**(CHECKPOINTS | changes))])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def losses(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("step_seconds", "data_share")}
        for line in lines(run / "metrics.jsonl")
    ]


def git(folder: Path, *what: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *who, *what], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(git_checkout, "_SECONDS", 240)  # what a busy machine may take
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path / "a checkout é"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "recipe.yaml").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "First")
    return folder


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_start_and_an_end_are_written_down(
    corpus: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("sys.argv", ["gansound", "train", "tiny_cpu", "--note", "a b"])
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    secrets = {"WANDB_API_KEY": "s3cret-a", "NCCL_AUTH_TOKEN": "s3cret-b", "MY_HOME": "s3cret-c"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    run = checkout / "run"
    assert train(corpus, run, 2) == 0
    assert train(corpus, run, 3, trackers="[]") == 0
    text = (run / "sessions.jsonl").read_text()
    assert "s3cret" not in text
    first, its_end, second, _ = lines(run / "sessions.jsonl")
    assert (first["step"], its_end["step"], second["step"]) == (0, 2, 2)
    assert first["session"] == its_end["session"] != second["session"]
    assert its_end["how"] == "finished"
    assert first["started"] <= its_end["ended"] <= second["started"]
    assert first["command"] == ["gansound", "train", "tiny_cpu", "--note", "a b"]
    assert first["working_directory"] == str(checkout)
    assert first["environment"]["NCCL_DEBUG"] == "INFO"
    assert first["git"] == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert (first["gansound"], first["torch"]) == (gansound.__version__, torch.__version__)
    assert first["packages"]["numpy"] == numpy.__version__
    assert first["packages"]["accelerate"] == accelerate.__version__
    assert (first["processes"], first["precision"], first["threads"]) == (1, "fp32", 1)
    assert first["pid"] == os.getpid()


def test_commits_and_changes(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "new.txt").write_text("untracked files change nothing of what was committed\n")
    commit = git(checkout, "rev-parse", "HEAD")
    elsewhere, unborn = tmp_path / "elsewhere", tmp_path / "unborn"
    elsewhere.mkdir()
    unborn.mkdir()
    git(unborn, "init", "-q")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert git_states([checkout, elsewhere, unborn, tmp_path / "gone"]) == [
        {"commit": commit, "dirty": False}, None, None, None,
    ]  # fmt: skip
    (checkout / "recipe.yaml").write_text("two\n")
    (checkout / "deeper").mkdir()
    assert git_states([checkout / "deeper"]) == [{"commit": commit, "dirty": True}]


def test_without_git_or_with_one_that_hangs(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    without = [{"commit": git(checkout, "rev-parse", "HEAD"), "dirty": None}]
    monkeypatch.setenv("PATH", str(programs))
    assert git_states([checkout]) == without
    witness = tmp_path / "asked"
    (programs / "git").write_text(f"#!/bin/sh\n: > '{witness}'\nexec /bin/sleep 250\n")
    (programs / "git").chmod(0o755)
    real = git_checkout._dirty

    def dirty(process: Any) -> bool | None:
        while not witness.exists():
            time.sleep(0.01)
        return real(process)

    monkeypatch.setattr(git_checkout, "_dirty", dirty)
    monkeypatch.setattr(git_checkout, "_SECONDS", 0.05)
    assert git_states([checkout]) == without


def test_a_strangers_checkout_runs_nothing(checkout: Path, tmp_path: Path) -> None:
    """Its configuration may name programs that git would run for a status: a monitor, a filter of a changed file."""
    mark, program = tmp_path / "mark", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat\n")
    program.chmod(0o755)
    (checkout / ".gitattributes").write_text("* filter=evil\n")
    git(checkout, "add", ".gitattributes")
    git(checkout, "commit", "-qm", "two")
    (checkout / "recipe.yaml").write_text("ond\n")  # as long as before
    git(checkout, "config", "core.fsmonitor", str(program))
    git(checkout, "config", "filter.evil.clean", str(program))
    subprocess.run(["git", "-C", checkout, "status"], capture_output=True, check=True)
    assert mark.exists()  # what git alone does
    mark.unlink()
    commit = (checkout / ".git" / "HEAD").read_text().removeprefix("ref: ").strip()
    expected = (checkout / ".git" / commit).read_text().strip()
    assert git_states([checkout]) == [{"commit": expected, "dirty": True}]
    assert not mark.exists()
    # Branches that were packed, a second work tree, and a pipe where the branch is said.
    git(checkout, "config", "--unset", "core.fsmonitor")
    git(checkout, "config", "--unset", "filter.evil.clean")
    git(checkout, "checkout", "-q", ".")
    git(checkout, "pack-refs", "--all")
    git(checkout, "worktree", "add", "-q", str(tmp_path / "second"))
    clean = {"commit": expected, "dirty": False}
    assert git_states([checkout, tmp_path / "second"]) == [clean, clean]
    (checkout / ".git" / "HEAD").unlink()
    os.mkfifo(checkout / ".git" / "HEAD")
    assert git_states([checkout]) == [None]


def raise_at(step: int, error: BaseException) -> Callable[..., None]:
    def observe(self: TrainingProgress, now: Any) -> None:
        if now.step == step:
            raise error

    return observe


@pytest.mark.parametrize(
    "error, code, how",
    [(KeyboardInterrupt(), 130, "interrupted"), (RuntimeError("the cable\nis out"), 1, "error")],
)
def test_how_it_ended_otherwise(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    how: str,
) -> None:
    monkeypatch.setattr(TrainingProgress, "_observe", raise_at(2, error))
    assert train(corpus, tmp_path / "run", 3) == code
    _, end = lines(tmp_path / "run" / "sessions.jsonl")
    assert (end["how"], end["step"]) == (how, 2)
    assert end["message"] == (
        "KeyboardInterrupt" if how == "interrupted" else "RuntimeError: the cable\nis out"
    )


@pytest.mark.usefixtures("signals_end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_told_to_end(
    number: signal.Signals, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(self: TrainingProgress, now: Any) -> None:
        if now.step == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainingProgress, "_observe", observe)
    assert train(corpus, tmp_path / "run", 4) == 130
    _, end = lines(tmp_path / "run" / "sessions.jsonl")
    assert (end["how"], end["step"]) == ("interrupted", 2)
    assert "stopped as asked at step 2" in end["message"]
    assert (tmp_path / "run" / "checkpoints" / "step_00000002").is_dir()


@pytest.mark.usefixtures("signals_end")
def test_a_second_interruption_ends_it_at_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def observe(self: TrainingProgress, now: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingProgress, "_observe", observe)
    assert train(corpus, tmp_path / "run", 4) == 130
    assert "stopping after this step, with a checkpoint; Ctrl-C again" in capsys.readouterr().err
    _, end = lines(tmp_path / "run" / "sessions.jsonl")
    assert (end["how"], end["message"]) == ("interrupted", "KeyboardInterrupt")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match=r"sessions\.jsonl"), no_file_longer_than(64):
        Session(tmp_path, 0, {})
    assert (tmp_path / "sessions.jsonl").stat().st_size == 64, "the limit was to cut the line"
    started = Session(tmp_path, 5, {})
    _, whole = (tmp_path / "sessions.jsonl").read_text().splitlines()
    assert json.loads(whole)["step"] == 5, "a cut line stays by itself"
    with no_file_longer_than((tmp_path / "sessions.jsonl").stat().st_size):
        started.end(7, None)  # the training is over: nothing to raise for
    assert "isn't written down" in caplog.text


@pytest.mark.parametrize(
    "tail",
    [b'{"step": 4, "spec', b'{"step": 4, "spectrum": 1.0}', b"\0\0\0\0\0", b"\xff\xfe\n", b"17\n", b"\n"],
)
def test_what_a_kill_or_a_power_cut_left_is_dropped(tmp_path: Path, tail: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    whole = b"".join(b'{"step": %d, "spectrum": 0.5}\n' % step for step in range(1, 4))
    file.write_bytes(whole + tail)
    forget_after(file, 3)
    assert file.read_bytes() == whole
    kept = file.stat()
    forget_after(file, 3)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    forget_after(file, 2)
    assert [line["step"] for line in lines(file)] == [1, 2]


class Heard(GeneralTracker):
    """A tracker that remembers what it was told, and fails at what it is asked to."""

    name = "heard"
    requires_logging_directory = False
    told: list[tuple[str, Any]]
    fails: str | None

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self._tell("made", (project, options))

    def _tell(self, what: str, value: Any = None) -> None:
        if type(self).fails == what:
            raise ConnectionError("the network is down")
        type(self).told.append((what, value))

    @property
    def tracker(self) -> None:
        return None

    def start(self) -> None:
        self._tell("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._tell("recipe", values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._tell("log", {"step": step, **values})

    def finish(self) -> None:
        self._tell("finish")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> type[Heard]:
    kind = type("Fresh", (Heard,), {"told": [], "fails": None})
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "heard", kind)
    return kind


def test_a_tracker_is_told_what_the_log_holds(corpus: Path, tmp_path: Path, heard: type[Heard]) -> None:
    run = tmp_path / "run"
    assert train(corpus, run, trackers="[heard]", validate_every="2", validate_utterances="1") == 0
    told = heard.told
    assert [what for what, _ in told][:3] == ["made", "start", "recipe"]
    assert told[0][1] == ("gansound", {})
    assert told[2][1] == flat(load_recipe(run / "recipe.yaml"))
    assert told[2][1]["generator.init_args.channels"] == 16
    assert [value for what, value in told if what == "log"] == lines(run / "metrics.jsonl")
    assert told[-1] == ("finish", None)
    assert not (run / "tensorboard").exists(), "it wasn't asked for"


@pytest.mark.parametrize("fails", ["made", "start", "recipe", "log", "finish"])
def test_a_tracker_that_fails_stops_nothing(
    corpus: Path, tmp_path: Path, heard: type[Heard], fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard.fails = fails
    with caplog.at_level(logging.WARNING, "gansound"):
        names = trackers.Trackers(["heard"], tmp_path, {"steps": 2})
        for step in range(3):
            names.scalars(step, {"spectrum": 1.0})
        names.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "heard" in said
    assert "the network is down" in said
    assert ("log", {"step": 2, "spectrum": 1.0}) in heard.told or fails in ("made", "start", "log")


def test_training_is_the_same_with_one_that_fails(corpus: Path, tmp_path: Path, heard: type[Heard]) -> None:
    heard.fails = "log"
    assert train(corpus, tmp_path / "with", trackers="[heard, tensorboard]") == 0
    assert train(corpus, tmp_path / "without", trackers="[]") == 0
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert len(losses(tmp_path / "with")) == 3
    assert (tmp_path / "with" / "tensorboard").is_dir()


def test_a_resumed_run_goes_on_in_the_same_run_of_wandb(
    corpus: Path, tmp_path: Path, heard: type[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", heard)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["wandb"])
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert train(corpus, tmp_path / "run", 2, trackers="[]") == 0
    assert train(corpus, tmp_path / "run", 3, trackers="[wandb]") == 0
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert train(corpus, tmp_path / "moved", 4, trackers="[wandb]") == 0
    (project, first), (_, second) = (value for what, value in heard.told if what == "made")
    assert project == "mine"
    assert first["id"] == second["id"]
    assert first["resume"] == second["resume"] == "allow"
    assert (first["name"], second["name"]) == ("run", "moved")
    assert [value["step"] for what, value in heard.told if what == "log"] == [3, 4]


@pytest.mark.parametrize(
    "names, says",
    [
        ("[wanb]", "did you mean 'wandb'"),
        ("[aim]", "pip install aim"),
        ("[comet_ml]", "pip install comet-ml"),
        ("[tensorboard, tensorboard]", "each name once"),
        ("wandb", "trackers"),
    ],
)
def test_trackers_that_cannot_be(
    corpus: Path,
    tmp_path: Path,
    names: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [])
    assert train(corpus, tmp_path / "run", trackers=names) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
