"""SIGTERM and SIGHUP end a command as Ctrl-C does: with one line, and nothing left behind."""

import contextlib
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansound import audio, cli
from gansound.cli.signals import Signalled, ended_by_signals, on_signals
from tests.test_stream_cli import HOP, as_bytes, some_mel
from tests.tiny import arguments, save_tiny_model

ROOT = Path(__file__).resolve().parents[1]
BOTH = [signal.SIGTERM, signal.SIGHUP]
pytestmark = pytest.mark.usefixtures("signals_end")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """Runs a function as the body of a command; gives its exit code."""

    def run(body: Callable[[], Any]) -> int:
        module = types.ModuleType("signalled_command")
        module.HELP, module.add_arguments = "x", lambda parser: None  # type: ignore[attr-defined]
        module.run = lambda args: body() or 0  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "signalled_command", module)
        monkeypatch.setitem(cli.COMMANDS, "signalled", ("signalled_command", "x"))
        return cli.main(["signalled"])

    return run


@pytest.mark.parametrize("number", BOTH)
def test_one_line_the_code_of_an_interruption_and_handlers_as_before(
    run: Callable, capsys: Any, number: signal.Signals
) -> None:
    before = [signal.getsignal(each) for each in BOTH]
    cleaned = []

    def body() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(240)
        finally:  # once it is told, another signal disturbs nothing
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            cleaned.append(True)

    assert run(body) == 130
    assert capsys.readouterr() == ("", f"error: interrupted by {number.name}\n")
    assert cleaned == [True]
    assert [signal.getsignal(each) for each in BOTH] == before


def test_what_is_ignored_stays_ignored(run: Callable) -> None:
    """As `nohup` starts a command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_may_act_otherwise() -> None:
    heard: list[str] = []
    with ended_by_signals():
        with on_signals(heard.append):
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["SIGTERM"]
        with pytest.raises(Signalled, match="SIGHUP"):
            os.kill(os.getpid(), signal.SIGHUP)


def wait(begun: Any) -> None:
    begun.set()
    time.sleep(240)


def test_a_worker_that_was_forked_ends() -> None:
    """A pool that breaks sends SIGTERM to the rest of its workers, and waits for them."""
    fork = multiprocessing.get_context("fork")
    with ended_by_signals():
        begun = fork.Event()  # Python forgets what comes between the fork and its first step
        worker = fork.Process(target=wait, args=(begun,))
        worker.start()
        assert begun.wait(240)
        worker.terminate()
        worker.join(240)
        assert worker.exitcode == -signal.SIGTERM


def write_sound(folder: Path, model: Path) -> None:
    audio.write(folder / "a.flac", np.zeros(1000, np.float32), 16000)


def write_export(folder: Path, model: Path) -> None:
    from gansound.inference.export.writing import beside

    with beside(folder / "a.onnx") as temporary:
        temporary.write_bytes(b"graph")


def write_picture(folder: Path, model: Path) -> None:
    from gansound.report.pictures import write_bytes

    write_bytes(folder / "a.png", b"picture")


def write_manifest(folder: Path, model: Path) -> None:
    from gansound.data.manifest import write_manifest

    write_manifest(folder / "manifest.jsonl", [])


def write_directions(folder: Path, model: Path) -> None:
    from gansound.inference.latent.directions import write_tensors

    write_tensors(folder / "a.safetensors", {"a": torch.zeros(3)}, {})


def write_cache(folder: Path, model: Path) -> None:
    from gansound.inference.backends.step_graph import keep

    keep(folder / "a.graph", b"graph")


def write_clips(folder: Path, model: Path) -> None:
    from gansound.inference.clip_folder import ClipFolder

    with ClipFolder(folder / "clips", 16000) as clips:
        clips.add("a.wav", np.zeros((1, 1000), np.float32), {"gansound": "0", "latent": [0.0]}, title="a")


def write_text(folder: Path, model: Path) -> None:
    from gansound.engine.folder import write_beside

    write_beside(folder / "recipe.yaml", "a: 1\n")


def write_model(folder: Path, model: Path) -> None:
    from gansound.inference.vocoder import Vocoder

    Vocoder.from_pretrained(model, "cpu", backend="eager").save_pretrained(folder / "model")


WRITERS = [
    write_sound, write_export, write_picture, write_manifest, write_directions, write_cache, write_clips, write_text,
    write_model,
]  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_writer_leaves_nothing(
    run: Callable, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, writer: Callable
) -> None:
    """The signal comes when all is written beside, and is about to be renamed."""
    there: list[str] = []

    def told(*_: object) -> None:
        if not there:  # what is renamed in clearing up isn't disturbed again
            there.extend(path.name for path in tmp_path.rglob("*"))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # in a thread of its own the main one is told meanwhile, and waits for this

    for owner, name in ((os, "replace"), (Path, "replace"), (Path, "rename")):
        monkeypatch.setattr(owner, name, told)
    assert run(lambda: writer(tmp_path, model)) == 130
    assert there
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


LAUNCH = [sys.executable, "-c", "import sys; from gansound import cli; sys.exit(cli.main())"]


def test_a_stream_into_a_file(model: Path, tmp_path: Path) -> None:
    line = [*LAUNCH, "stream", "--model", str(model), "--backend", "eager", "-o", str(tmp_path / "out.wav")]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(as_bytes(some_mel(400)))
        process.stdin.flush()
        while not any(path.stat().st_size > 50 * HOP for path in tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
    assert process.returncode == 130, error
    assert error.endswith(b"error: interrupted by SIGTERM\n")
    assert list(tmp_path.iterdir()) == []


def test_a_training_whose_terminal_is_closed(tmp_path: Path) -> None:
    """It writes a checkpoint, though nobody is left to be told."""
    data = tmp_path / "data"
    data.mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).standard_normal(22050).astype(np.float32)
        audio.write(data / f"{index}.wav", 0.1 * noise, 22050)
    run_folder = tmp_path / "run"
    line = [
        *LAUNCH,
        "train",
        "tiny_cpu",
        "--data.path",
        str(data),
        "--steps",
        "100000",
        "--run",
        str(run_folder),
    ]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvp(line[0], [*line, *arguments()])
    seen, metrics, status = b"", run_folder / "metrics.jsonl", None
    try:
        while not (metrics.exists() and metrics.stat().st_size > 500):
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), seen.decode()
            os.set_blocking(terminal, False)
            with contextlib.suppress(OSError):
                seen += os.read(terminal, 1 << 16)
            time.sleep(0.05)
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    finally:
        if status is None:  # or it would train for days
            os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(status) == 130, seen.decode()
    assert list((run_folder / "checkpoints").iterdir())
