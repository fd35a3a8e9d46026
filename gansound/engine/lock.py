"""A run's folder is one process's: `running.json` says whose, since when, and is touched while it is.

The file is made with O_EXCL, which is atomic on a network file system too (NFS from version 3 on). Its owner touches it
every few seconds. A crash leaves it behind; then whoever comes next decides whether the owner lives: on the same
machine by its process, elsewhere by whether the file is touched while it is watched. No clocks are compared.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from gansound.engine.guards import TrainingError
from gansound.engine.history import process_started
from gansound.engine.own_files import open_own, read_own

log = logging.getLogger(__name__)

RUNNING = "running.json"
TOUCHED_EVERY_SECONDS, WATCHED_SECONDS = 10.0, 60.0


class RunLock:
    """Within it the folder is this process's.

    Args:
        run: the folder, which exists.

    Raises:
        ValueError: another process trains there.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / RUNNING
        self._token = uuid.uuid4().hex
        self._over = threading.Event()

    def __enter__(self) -> "RunLock":
        while not self._taken():
            self._wait_for_its_end()
        threading.Thread(target=self._touch, daemon=True, name="run lock").start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._is_mine():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def check(self) -> None:
        """Raises TrainingError where another process has taken the folder, since this one was silent for long."""
        if not self._is_mine():
            raise TrainingError(
                f"{self._path.parent}: this process was silent for so long that {_described(_read(self._path))} took "
                "the run over; it stops without writing anything more"
            )

    def _taken(self) -> bool:
        owner = {
            "token": self._token,
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "pid_started": process_started(os.getpid()),
        }
        try:
            descriptor = open_own(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(owner) + "\n")
        except OSError as error:  # that of a write names no file
            self._path.unlink()
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        return True

    def _wait_for_its_end(self) -> None:
        """Take the file away when its owner is gone. Raises ValueError when it isn't."""
        owner, touched = _read(self._path), _touched(self._path)
        if owner.get("machine") == _machine():
            if process_started(owner.get("pid")) == owner.get("pid_started"):
                raise ValueError(self._refusal(owner))
        else:
            log.info(
                "%s: %s trained here. Watching for %.0f s whether it still does",
                self._path.parent,
                _described(owner),
                WATCHED_SECONDS,
            )
            until = time.monotonic() + WATCHED_SECONDS
            while time.monotonic() < until:
                time.sleep(min(1.0, WATCHED_SECONDS / 5))
                now = _read(self._path)
                if now.get("token") != owner.get("token"):
                    return  # it has ended, or has written who it is
                if _touched(self._path) != touched:
                    raise ValueError(self._refusal(owner))
        # Renamed, and not just deleted: of two that come to this at once, one finds that it took the other's.
        aside = self._path.with_name(f".{RUNNING}.{self._token}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(aside)
            if _read(aside).get("token") != owner.get("token"):
                with contextlib.suppress(OSError):
                    os.link(aside, self._path)
            else:
                log.warning("%s: %s is gone without a word; going on", self._path.parent, _described(owner))
            aside.unlink()

    def _refusal(self, owner: dict[str, Any]) -> str:
        return (
            f"{self._path.parent}: this run is being trained since {owner.get('since', 'some time')} by "
            f"{_described(owner)}. Wait for its end, stop it, or give another --run"
        )

    def _is_mine(self) -> bool:
        return bool(_read(self._path).get("token") == self._token)

    def _touch(self) -> None:
        while not self._over.wait(TOUCHED_EVERY_SECONDS):
            if self._is_mine():
                with contextlib.suppress(OSError):
                    os.utime(self._path)


def _read(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none, or none that was written whole."""
    try:
        found = json.loads(read_own(path, 1 << 16))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _touched(path: Path) -> int:
    """When, by the file system's own clock; opened for it, or a network file system may tell what it remembers."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _machine() -> str:
    """This start of this machine, and within it the container: where a process's number means the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _described(owner: dict[str, Any]) -> str:
    if "pid" not in owner:
        return "a process that hasn't said which"
    return f"process {owner['pid']} on {owner.get('host', 'an unknown machine')}"
