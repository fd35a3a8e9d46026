"""A Python that starts in milliseconds, for tests that start many: each is a fork of one that has imported torch.

`python()` is used in place of `sys.executable`, and what such a process starts by its own `sys.executable` is warm too.
It is a process of its own, with the signals, the exit code, the folder, the environment and the files of whoever
started it. What it isn't is fresh: modules are there that nobody imported, and variables that Python or a library reads
as it starts (`PYTHONPATH` aside) aren't heard. Where that, limits or kills are what is tested, a test takes
`sys.executable`.

Run as a script this file is the client, which stands for the fork: it passes signals on and ends as the fork ends; or,
with `--serve`, the process that forks.
"""

import json
import os
import signal
import socket
import sys
from functools import cache
from typing import Any

PRELOADED = (
    "numpy torch torch._dynamo torch.utils.data torch.distributed.elastic.multiprocessing "
    "torch.distributed.launcher.api multiprocessing.spawn scipy.signal soundfile soxr safetensors.torch yaml "
    "rich.progress rich.table accelerate gansound.engine.run gansound.engine.plan gansound.tasks.vocoder "
    "gansound.cli.train gansound.cli.data gansound.inference.vocoder gansound.inference.clips gansound.report "
    "matplotlib.figure matplotlib.backends.backend_agg"
)
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@cache
def python() -> str:
    """A program that is to be called as Python is: `-c TEXT`, `-m MODULE` or a script, and arguments."""
    if sys.platform != "linux":
        return sys.executable
    import atexit
    import shutil
    import subprocess
    import tempfile
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    folder = Path(tempfile.mkdtemp(prefix="gansound-warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "python"
    client = f'"{sys.executable}" -I -S "{__file__}" "{folder / "socket"}"'
    program.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
    program.chmod(0o755)
    # It ends when its standard input does, which is when this process does, however that ends.
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder / "socket"), str(program)],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the process that forks didn't start"
    return str(program)


def client(path: str, arguments: list[str]) -> None:
    """Have a fork run them, and end as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # those that come before there is a fork wait for it
    files = [
        number for number in range(3) if _is_open(number)
    ]  # before a socket takes the place of one that isn't
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = {
            "arguments": arguments,
            "folder": os.getcwd(),  # noqa: PTH109 (pathlib takes longer than all else)
            "environment": dict(os.environ),
            "files": files,
            "ignored": [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN],
        }
        data = json.dumps(request).encode()
        socket.send_fds(server, [len(data).to_bytes(8, "little")], files)
        server.sendall(data)
        pid = int.from_bytes(_receive(server, 8), "little")
        for number in PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: _pass_on(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        code = int.from_bytes(_receive(server, 8), "little", signed=True)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(path: str) -> dict[str, Any]:
    """Fork for every client until standard input ends; returns in the forks only, with what is asked of them."""
    import contextlib
    import gc
    import importlib
    import selectors
    from pathlib import Path

    gc.disable()
    for name in PRELOADED.split():
        with contextlib.suppress(ModuleNotFoundError):  # an environment of a host lacks what judges
            importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"an import started {threads - 1} threads, which a fork would lack"
    gc.freeze()  # or each fork would copy what it counts
    gc.enable()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for source in (0, listener, woken):
        selector.register(source, selectors.EVENT_READ)
    clients: dict[int, socket.socket] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                for pid in clients:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif key.fileobj == woken:
                os.read(woken, 4096)
                for pid in [
                    pid for pid in clients if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                ]:
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with clients.pop(pid) as one:
                        if one in selector.get_map():
                            selector.unregister(one)
                        _tell(one, code)
            elif key.fileobj == listener:
                one = listener.accept()[0]
                length, files, _, _ = socket.recv_fds(one, 8, 3)
                asked = json.loads(_receive(one, int.from_bytes(length, "little")))
                pid = os.fork()
                if not pid:
                    selector.close()
                    for other in (*clients.values(), one, listener):
                        other.close()
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    _take_files(asked["files"], files)
                    return asked
                for file in files:
                    os.close(file)
                clients[pid] = one
                selector.register(one, selectors.EVENT_READ)
                _tell(one, pid)
            else:  # nobody sends more: the client was killed
                (pid,) = (pid for pid, one in clients.items() if one is key.fileobj)
                selector.unregister(key.fileobj)
                os.kill(pid, signal.SIGKILL)


def _take_files(numbers: list[int], files: list[int]) -> None:
    """Those of the client as standard input, output and error."""
    for number, (name, mode, errors) in enumerate(
        [("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace")]
    ):
        if number in numbers:
            os.dup2(files[numbers.index(number)], number)
            made = open(number, mode, errors=errors, closefd=False)  # noqa: SIM115
            if name == "stderr":
                made.reconfigure(line_buffering=True)  # type: ignore[attr-defined]
        else:
            os.close(number)
            made = None
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)
    for file in files:
        os.close(file)


def _tell(client: socket.socket, number: int) -> None:
    try:
        client.sendall(number.to_bytes(8, "little", signed=True))
    except OSError:
        pass  # it was killed


def _pass_on(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has just ended


def _receive(sender: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sender.recv(size - len(data))
        if not part:
            os._exit(70)
        data += part
    return data


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def run(asked: dict[str, Any], program: str) -> int:
    """Be the Python that was asked for; its exit code."""
    import runpy
    import types
    from pathlib import Path

    for number in PASSED_ON:  # the process that forks may have been started otherwise than who asks
        ends = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else ends)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.executable = program
    arguments = asked["arguments"]
    while arguments[:1] == ["-u"]:
        arguments.pop(0)
        sys.stdout.reconfigure(write_through=True)
    kind = arguments.pop(0) if arguments[0] in ("-c", "-m") else ""
    first = {"-c": "", "-m": asked["folder"]}.get(kind, str(Path(arguments[0]).absolute().parent))
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [first, *(folder for folder in given if folder and folder not in sys.path)]
    sys.argv = [kind, *arguments[1:]] if kind == "-c" else arguments
    try:
        if kind == "-c":
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(arguments[0], "<string>", "exec"), vars(main))
        elif kind == "-m":
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(code: int) -> None:
    """As the interpreter does, but for taking itself apart, which takes as long as some commands."""
    import atexit
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = code or 120
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        end(run(serve(sys.argv[2]), sys.argv[3]))
    client(sys.argv[1], sys.argv[2:])
