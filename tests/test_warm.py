"""What `tests.warm` starts is a Python as any other, but for its start."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is Python itself")


def ran(*arguments: str, **how: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([warm.python(), *arguments], capture_output=True, text=True, timeout=240, **how)


@pytest.mark.parametrize(
    "text, code, said",
    [
        ("pass", 0, ""),
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('too cold')", 1, "too cold\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os; os._exit(9)", 9, ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
        ("import atexit, os; atexit.register(os.write, 2, b'at the end')", 0, "at the end"),
    ],
)
def test_it_ends_as_python_does(text: str, code: int, said: str) -> None:
    for python in (warm.python(), sys.executable):
        done = subprocess.run([python, "-c", text], capture_output=True, text=True, timeout=240)
        assert done.returncode == code
        assert done.stderr.endswith(said)
        assert bool(done.stderr) == bool(said)


def test_it_is_where_it_was_started(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys\nprint(sys.argv[1:], input(), __name__, end='')\n")
    text = (
        "import os, sys; print(sys.argv, os.getcwd(), os.environ['A_WORD'], 'PATH' in os.environ); import own"
    )
    given = {"cwd": tmp_path, "env": {"A_WORD": "said"}, "input": "typed\n"}
    assert ran("-c", text, "a", **given).stdout == f"['-c', 'a'] {tmp_path} said False\n['a'] typed own"
    assert ran("-m", "own", "b c", **given).stdout == "['b c'] typed __main__"
    assert ran("own.py", "d", **given).stdout == "['d'] typed __main__"
    elsewhere = {"cwd": "/", "env": {"PYTHONPATH": str(tmp_path)}, "input": "typed\n"}
    assert ran("-m", "own", **elsewhere).stdout == "[] typed __main__"


def test_what_it_starts_is_warm_too_and_torch_is_there() -> None:
    inner = "import sys; print('torch' in sys.modules)"
    text = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    assert ran("-c", text).stdout == "True\n"


@pytest.mark.usefixtures("signals_end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_it(number: signal.Signals) -> None:
    text = (
        "import os, signal, time; signal.signal(signal.SIGINT, lambda *_: os._exit(5))\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([warm.python(), "-c", text], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(240) == (5 if number == signal.SIGINT else -number)
    until = time.monotonic() + 240
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.01)


@pytest.mark.usefixtures("signals_end")
def test_a_signal_that_comes_before_it_is_there_waits_for_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        client = [sys.executable, "-I", "-S", warm.__file__, str(tmp_path / "socket"), "-c", ""]
        with subprocess.Popen(client) as process, listener.accept()[0] as server:
            server.recv(1 << 16)
            process.send_signal(signal.SIGINT)
            with subprocess.Popen(["sleep", "600"]) as fork:
                server.sendall(fork.pid.to_bytes(8, "little"))
                assert fork.wait(240) == -signal.SIGINT
            server.sendall((5).to_bytes(8, "little", signed=True))
            assert process.wait(240) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_its_starter_ignores_it_ignores(number: signal.Signals) -> None:
    text = f"import signal; print(signal.getsignal({int(number)}) == signal.SIG_IGN)"
    for ignored in (True, False):
        before = signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        try:
            assert ran("-c", text).stdout == f"{ignored}\n"
        finally:
            signal.signal(number, before)


def test_descriptors_are_its_own(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        file.write("before ")
        file.flush()
        subprocess.run([warm.python(), "-c", "print('written')"], stdout=file, check=True)
    assert (tmp_path / "out").read_text() == "before written\n"
    line = f'"{warm.python()}" -c "import sys; print(sys.stderr)" 2>&-'
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout == "None\n"
    assert os.environ.get("A_WORD") is None
