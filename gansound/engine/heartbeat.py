"""Of several processes the one that all others wait for, by name, within a minute.

In a step the processes wait for each other, and torch says nothing of it for ten minutes (NCCL) or thirty (gloo). So
each tells the others every few seconds, by way of the store at which they met, what it is at.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator

log = logging.getLogger(__name__)

_BEAT_SECONDS = 5.0
_SILENT_SECONDS = 20.0  # four beats
_WAITING_SECONDS = 30.0  # together less than a minute
_AGAIN_SECONDS = 60.0


class Heartbeat:
    """What this process is at, for the others. Without a store it is for nobody."""

    def __init__(self, rank: int = 0, ranks: int = 1, store: Any = None) -> None:
        self._rank, self._ranks, self._store = rank, ranks, store
        self._at = (0, False, time.monotonic())
        self._heard: dict[int, tuple[int, float]] = {}
        self._said = float("-inf")

    def at(self, step: int, *, waits_for_data: bool) -> None:
        """From now on it is at this step: not yet, where it waits for data."""
        self._at = (step, waits_for_data, time.monotonic())

    def beat(self, count: int) -> None:
        """Tell the others, and say which of them all wait for."""
        step, for_data, since = self._at
        now = time.monotonic()
        mine = {"count": count, "step": step, "for_data": for_data, "seconds": now - since}
        self._store.set(
            str(self._rank), json.dumps(mine | {"pid": os.getpid(), "host": socket.gethostname()})
        )
        others = {rank: self._read(rank, now) for rank in range(self._ranks) if rank != self._rank}
        if for_data or now - since < _WAITING_SECONDS or now - self._said < _AGAIN_SECONDS:
            return
        silent = {rank for rank in others if now - self._heard[rank][1] > _SILENT_SECONDS}
        waiting = [rank for rank, other in others.items() if rank not in silent and not other.get("for_data")]
        if waiting and min(waiting) < self._rank:
            return  # that one waits too, and says it
        for rank, other in others.items():
            name = f"process {rank} of {self._ranks}"
            if other:
                name += f" (pid {other['pid']} on {other['host']})"
            if rank in silent:
                seconds = now - self._heard[rank][1]
                why = f"hasn't been heard of for {seconds:.0f} s: stopped, or its machine or network is down"
            elif other.get("for_data") and other["step"] <= step and other["seconds"] > _SILENT_SECONDS:
                why = f"has waited {other['seconds']:.0f} s for its data of step {other['step']}"
            else:
                continue
            log.warning("all wait for %s, which %s", name, why)
            self._said = now

    def _read(self, rank: int, now: float) -> dict[str, Any]:
        """What another process said last, and note when that was new."""
        said = json.loads(self._store.get(str(rank))) if self._store.check([str(rank)]) else {}
        count = int(said.get("count", -1))
        if rank not in self._heard or self._heard[rank][0] != count:
            self._heard[rank] = (count, now)
        return said


@contextlib.contextmanager
def beating(accelerator: Accelerator) -> Iterator[Heartbeat]:
    """The heartbeat of this process, in a thread until the end of the block; of one alone there is none."""
    rank, ranks = accelerator.process_index, accelerator.num_processes
    store = _store() if ranks > 1 else None
    heartbeat = Heartbeat(rank, ranks, store)
    if store is None:
        yield heartbeat
        return
    over = threading.Event()

    def run() -> None:
        count = 0
        try:
            while not over.is_set():  # the first at once: one that stalls in its first steps has a name too
                count += 1
                heartbeat.beat(count)
                over.wait(_BEAT_SECONDS)
        except (RuntimeError, ValueError) as error:  # the store is gone, and with it the run, which says why
            log.debug("no more heartbeats: %s", error)

    thread = threading.Thread(target=run, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield heartbeat
    finally:
        over.set()


def _store() -> Any:
    """A connection of its own to the store at which the processes met; what a restart left there is another's."""
    incarnation = (
        f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}"
    )
    # Both are documented as torch.distributed's, whose types don't export them.
    tcp, prefixed = torch.distributed.TCPStore, torch.distributed.PrefixStore  # type: ignore[attr-defined]
    try:
        store = tcp(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
            timeout=timedelta(seconds=10),
        )  # fmt: skip
    except (KeyError, ValueError, RuntimeError) as error:
        log.info("a process that stalls will not be named: %s", error)
        return None
    return prefixed(f"gansound/heartbeat/{incarnation}", store)
