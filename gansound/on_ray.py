"""A job's items on a Ray cluster: the function that a thread would call for each, called in its processes, in order.

Ray's tasks and actors, not Ray Data: there a file that kills the process which reads it fails a block of files, or the
job, and here it is tried again by itself, named and left out. Several items are a task, since a task costs a
millisecond. The nodes share a file system, on which the files lie.
"""

import collections
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gansound.extras import require
from gansound.machine import usable_cores

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Lost = Callable[[Any, str], Any]
"""Of an item whose process died each time, and the reason: what stands in its place in the results."""

LOCAL = "local"
_ITEMS_OF_A_TASK = 8
_TASKS_AHEAD = 4  # for each processor
_TRIES = 2  # of a task whose process died, and then of each of its items by itself
_MOST_LOST = 100
_ANSWER_SECONDS = 10.0


class Pool:
    """The processes of a cluster, while :func:`connected` lasts.

    ``gpus``: models are on GPUs, one each, and what comes before and after them is done on processors.
    """

    def __init__(self, ray: Any, gpus: bool) -> None:
        self._ray = ray
        there = ray.cluster_resources()
        self.cores = max(1, int(there.get("CPU", 1)))
        self.gpus = int(there.get("GPU", 0)) if gpus else 0
        if gpus and not self.gpus:
            raise ValueError(f"this Ray has {self.cores} processors and no GPU. Leave --device out")

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        progress: Callable[[int, int], None] | None = None,
        *,
        lost: Lost,
    ) -> Iterator[Result]:
        """Results in order, as `gansound.data.corpus.in_threads` gives them."""
        for done, result in enumerate(self._results(items, [self._task(function)], lost), start=1):
            if progress is not None:
                progress(done, len(items))
            yield result

    def through(
        self,
        make: Callable[[], Callable[[Any], Any]],
        items: Sequence[Item],
        *,
        before: Callable[[Item], Any],
        after: Callable[[Any], Result],
        lost: Lost,
    ) -> Iterator[Result]:
        """Results, in order, of items that go through a model, which ``make`` opens once in each of its processes.

        On processors each of them has a model and does all three; of GPUs each has one, fed by the processors.
        """
        if not self.gpus:
            whole = partial(_Whole, make, before, after)
            yield from self._results(
                items, [self._actors(whole, min(self.cores, len(items)), num_cpus=1)], lost
            )
            return
        stages = [
            self._task(before),
            self._actors(make, min(self.gpus, len(items)), num_cpus=0, num_gpus=1),
            self._task(after),
        ]
        yield from self._results(items, stages, lost)

    def _results(
        self, items: Sequence[Any], stages: Sequence[Callable[[Any], Any]], lost: Lost
    ) -> Iterator[Any]:
        def begun(group: list[Any]) -> Any:
            reference: Any = group
            for stage in stages:
                reference = stage(reference)
            return reference

        died = 0
        waiting: collections.deque[tuple[list[Any], Any]] = collections.deque()
        # As many as make a task worth its while, where there are enough for all.
        groups = _groups(items, min(_ITEMS_OF_A_TASK, max(1, len(items) // self._ahead)))
        while True:
            waiting += [
                (group, begun(group)) for group in itertools.islice(groups, self._ahead - len(waiting))
            ]
            if not waiting:
                return
            group, reference = waiting.popleft()
            found, reason = self._got(reference)
            if reason is None:
                yield from found
                continue
            for item in group:
                found, reason = self._got(begun([item]))
                if reason is not None:
                    died += 1
                    if died > _MOST_LOST:
                        raise ValueError(
                            f"{died} items each ended the process that worked on them, the last: {reason}"
                        )
                    found = [lost(item, reason)]
                yield from found

    @property
    def _ahead(self) -> int:
        return _TASKS_AHEAD * (self.cores + self.gpus)

    def _got(self, reference: Any) -> tuple[list[Any], str | None]:
        """Results, or why their process died; what a function raised is raised here."""
        try:
            return self._ray.get(reference), None
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, self._died):
                return [], _reason(error.cause)
            raise error.cause from None
        except self._died as error:
            if "creation task" in str(error):  # what it said is its last line
                raise ValueError(f"no model could be opened: {_last_line(error)}") from None
            return [], _reason(error)
        except self._ray.exceptions.RayError as error:
            raise ValueError(f"Ray: {_last_line(error)}") from error

    @property
    def _died(self) -> tuple[type[BaseException], ...]:
        known = self._ray.exceptions
        return (
            known.WorkerCrashedError,
            known.OutOfMemoryError,
            known.ActorDiedError,
            known.ActorUnavailableError,
        )

    def _task(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        remote = self._ray.remote(_each).options(num_cpus=1, max_retries=_TRIES - 1)
        sent = self._ray.put(function)  # once, however large
        folder = str(Path.cwd())
        return lambda group: remote.remote(folder, sent, group)

    def _actors(
        self, make: Callable[[], Callable[[Any], Any]], count: int, **resources: float
    ) -> Callable[[Any], Any]:
        kind = self._ray.remote(_Actor).options(max_restarts=-1, max_task_retries=_TRIES - 1, **resources)
        turns = itertools.cycle([kind.remote(str(Path.cwd()), make) for _ in range(count)])
        return lambda group: next(turns).each.remote(group)


class _Whole:
    def __init__(
        self,
        make: Callable[[], Callable[[Any], Any]],
        before: Callable[[Any], Any],
        after: Callable[[Any], Any],
    ) -> None:
        self._before, self._model, self._after = before, make(), after

    def __call__(self, item: Any) -> Any:
        return self._after(self._model(self._before(item)))


class _Actor:
    def __init__(self, folder: str, make: Callable[[], Callable[[Any], Any]]) -> None:
        _enter(folder)
        self._function = make()

    def each(self, group: list[Any]) -> list[Any]:
        return [self._function(item) for item in group]


def _each(folder: str, function: Callable[[Any], Any], group: list[Any]) -> list[Any]:
    _enter(folder)
    return [function(item) for item in group]


def _enter(folder: str) -> None:
    """Work where the command was given: paths are those of its command line."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise ValueError(
            f"{socket.gethostname()}, a node of the Ray cluster, has no folder {folder} ({error.strerror}). All nodes "
            "need the file system of the one that the command is given on"
        ) from None


def _groups(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    for first in range(0, len(items), size):
        yield list(items[first : first + size])


@contextlib.contextmanager
def connected(address: str, *, jobs: int | None = None, gpus: bool = False) -> Iterator[Pool]:
    """The Ray of an address (``HOST:PORT``, or ``auto`` on a node of a cluster), or one of this machine's own.

    Args:
        address: ``local`` starts one, with ``jobs`` processes (all cores by default), and ends it with the block.
        jobs: only of a local one.
        gpus: models run on GPUs.

    Raises:
        MissingPackage: Ray isn't installed.
        ValueError: nothing answers there, this machine isn't of that cluster, or no GPU is.
    """
    require("--ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # a local one works as its command does
    import ray

    if address not in (LOCAL, "auto"):
        _reach(address)
    more = {"num_cpus": jobs or usable_cores(), "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=True, logging_level=logging.ERROR, **more)
    except Exception as error:  # of many kinds, by what isn't there
        raise ValueError(
            f"--ray {address}: {_last_line(error)}. Give the command on a node of the cluster (`ray start --address` "
            "makes this machine one, with the same versions of Ray and Python), or leave the address out"
        ) from None
    try:
        yield Pool(ray, gpus)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            pass
    except OSError as error:
        raise ValueError(
            f"--ray {address}: nothing answers there ({error.strerror or error}). Is the cluster up (`ray start "
            "--head`), and is this the address that it said?"
        ) from None


def _reason(error: BaseException) -> str:
    memory = "OutOfMemory" in type(error).__name__ or "memory pressure" in str(error)
    return "the process that worked on it " + (
        "was ended for lack of memory"
        if memory
        else "died (killed, for lack of memory as a rule, or crashed)"
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
