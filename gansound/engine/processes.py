"""The processes of a run: how they are set up, and how one that fails stops the others with its message.

`torchrun` or `accelerate launch` start the same command in each; the folder of the run is one that all of them see.
"""

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from gansound.engine.guards import StoppedError, TrainingError
from gansound.engine.own_files import NotOwnError, open_own, read_own
from gansound.engine.settings import RunSettings
from gansound.engine.task import Task
from gansound.recipe import RecipeError

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST = timedelta(days=1)
"""That the processes wait for what one of them does for all."""
_TOLD_WITHIN_SECONDS = 10.0
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "Gloo",
    "gloo",
    "Socket",
)


def set_up(settings: RunSettings, task: Task) -> Accelerator:
    """This process's place among the others, and its precision and threads.

    Raises:
        RecipeError: a batch can't be dealt to so many processes, or the device has no such precision.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # torch's own default lets convolutions round to TF32 and products not: here fp32 means fp32, and tf32 both.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    # Autocast is ours to enter (phases), whatever `accelerate launch` was told. Buffers are constants, and
    # broadcasting them would change in place what a backward pass has yet to read. No static_graph: DDP would look for
    # tensors in what the discriminators' phase returns, find none in a Verdict, and silently sum no gradients of it.
    _meet_again()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=task.takes_turns)
        ],
    )
    ranks, parts = accelerator.num_processes, settings.micro_batches
    if settings.batch_size % (ranks * parts):
        raise RecipeError(
            f"batch_size {settings.batch_size} must be a multiple of {ranks} processes times "
            f"micro_batches {parts}"
        )
    if task.over_batch and ranks > 1:
        raise RecipeError(
            f"adversarial: its loss or a discriminator compares all items of a batch, which {ranks} processes "
            "don't see together; train on one"
        )
    return accelerator


def _meet_again() -> None:
    """Where torchrun has started the processes again, meet under keys that the last time's haven't left addresses in.

    It keeps the store over its restarts (`--max-restarts`), and a process would call another that is dead.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0":
        return
    store, rank, ranks = next(iter(torch.distributed.rendezvous("env://")))  # type: ignore[attr-defined]
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=torch.distributed.PrefixStore(f"restart_{restarts}", store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=ranks,
    )


def speaks() -> bool:
    """Whether this process is the one that speaks for all: the first, or the only one, also before it is set up."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def said_by_one() -> Iterator[None]:
    """What is logged inside is the same in all processes, and the first one says it; errors all do."""
    logger = logging.getLogger("gansound")
    before = logger.level
    if not speaks():
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def done_by_one(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What work comes to in the main process, in all of them, whose call waits for it.

    Raises:
        TrainingError: it failed there, where the error itself is raised.
    """
    if accelerator.num_processes == 1:
        return work()
    group = torch.distributed.new_group(backend="gloo", timeout=_MOST)
    said: list[Any] = [False, None]
    failure: Exception | None = None
    if accelerator.is_main_process:
        try:
            said = [True, work()]
        except Exception as error:
            failure = error
    torch.distributed.broadcast_object_list(said, 0, group)
    if failure is not None:
        raise failure
    done, result = said
    if not done:
        raise TrainingError(f"process {accelerator.process_index} stops with the first, which says why")
    came_to: T = result
    return came_to


def leave(accelerator: Accelerator) -> None:
    """End the connections when all processes are done with them: torch's threads don't survive an exit without it.

    Nobody else may still hold a network that `accelerator` prepared. DDP would be the last to hold the connections and
    take them apart under the interpreter's lock, waiting for a thread of gloo's that may wait for that lock: for ever.
    """
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        gc.collect()  # of what those networks are held by in a circle
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def failing_together(accelerator: Accelerator, run: Path) -> Iterator[None]:
    """An error of one process ends all of them with its message, which it leaves in `RUN/failures/` for them.

    What the others get by themselves is that a connection was closed. Of a process that was killed there is no
    message; they say so.

    Raises:
        TrainingError: another process failed.
    """
    rank, ranks = accelerator.process_index, accelerator.num_processes
    folder = run / "failures"
    mine = folder / f"process_{rank}.txt"
    if ranks > 1:
        mine.unlink(missing_ok=True)
        accelerator.wait_for_everyone()  # or one that fails at once could be told off by an old message
    try:
        yield
    except Exception as error:
        if ranks == 1 or isinstance(error, StoppedError):
            raise
        if not isinstance(error, RuntimeError) or isinstance(error, TrainingError) or not _is_lost(error):
            with contextlib.suppress(OSError, NotOwnError):  # a full disk may be the very failure
                folder.mkdir(parents=True, exist_ok=True)
                with os.fdopen(open_own(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
                    file.write(f"{error}\n")
            raise
        raise TrainingError(
            f"process {rank} of {ranks} stops: {_other_failure(folder, mine)}. The last checkpoint is good; start the "
            "command again to go on from it"
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    distributed = getattr(torch.distributed, "DistError", ())
    return isinstance(error, distributed) or any(word in str(error) for word in _LOST)


def _other_failure(folder: Path, mine: Path) -> str:
    until = time.monotonic() + _TOLD_WITHIN_SECONDS
    while True:
        for file in sorted(folder.glob("process_*.txt")) if folder.is_dir() else []:
            if file != mine and (text := read_own(file).decode(errors="replace").strip()):
                return f"{file.stem.replace('_', ' ')} failed: {text}"
        if time.monotonic() > until:
            return "another process is gone without a message; it was killed, or its machine was lost"
        time.sleep(0.2)
