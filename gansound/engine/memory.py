"""In how many parts a batch is worked through, so that a step fits into so much memory.

A step's memory is a line in the segments of a part and, for what the discriminators found out about the real sounds and
the generator's phase then needs, in those of the whole batch; a batch in one part keeps the generator's graph besides,
and is a line of its own. So a few steps on one to three segments say what any split takes, and one at the split that
is chosen whether that is so.
"""

import copy
import json
import logging
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gansound import machine
from gansound.counts import counted
from gansound.draw import Draws
from gansound.engine.folder import write_beside
from gansound.engine.guards import NonFiniteLoss
from gansound.engine.own_files import read_own
from gansound.engine.settings import RunSettings
from gansound.engine.task import Task
from gansound.recipe import RecipeError

if TYPE_CHECKING:
    from gansound.engine.run import Run

log = logging.getLogger(__name__)

MICRO_BATCHES = "micro_batches.json"
HEAVIEST_STEP = 232_792_560 * 2**6 * 5**2
"""A step at which all is due that comes now and then: a multiple of 1 to 20, of powers of two up to 1,024, of 1,000."""
_ROOM = 1.2
"""For what isn't counted: fragments, CUDA's context, what a library takes by itself, the copies of a checkpoint."""

_HEAVIEST_NET = 25_000
"""Bytes of a generator's graph for each byte of its sound: BigVGAN's, the most of all."""

Measure = Callable[[int, int], float]
"""The bytes that a step takes on so many parts of so many segments."""


def check_room(task: Task, settings: RunSettings, processes: int, device: torch.device) -> None:
    """Refuse segments on which a vocoder's forward pass alone takes more than there is, before one is made.

    On a processor nothing else does: the system grants memory that isn't there, and ends the process at its use. Of a
    step it is the smallest part, known from a line through two short segments.

    Raises:
        RecipeError: it would take more.
    """
    there, samples = machine.memory_bytes(), settings.data.segment_samples
    if device.type != "cpu" or there is None or task.mel is None or settings.compile:
        return
    most, who = float(there), "the machine has"
    segments = settings.batch_size // processes // settings.micro_batches
    if settings.memory_gb is not None and settings.memory_gb * 1e9 < most:
        most, who = settings.memory_gb * 1e9, "memory_gb gives"
    if settings.memory_gb is not None:
        segments = 1
    if segments * samples * 4 * _HEAVIEST_NET < most:
        return
    hop = task.mel.hop_length
    generator = copy.deepcopy(task.generator)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)

    def taken(frames: int) -> float:
        draws = Draws(settings.seed, range(1))
        batch = {"audio": 0.1 * draws.normal("trial", frames * hop), "f0": torch.full((1, frames), 200.0)}
        inputs = task.generator_inputs(batch, draws)
        with torch.autocast("cpu", half, enabled=half is not None):
            return peak_bytes(device, lambda: generator(*inputs))

    try:
        with torch.random.fork_rng([]):
            bytes_ = (taken(32) - taken(16)) / (16 * hop) * samples * segments
    except Exception:  # whatever a net of one's own raises; a step will tell
        return
    if bytes_ > most:
        fewer = f", a smaller batch_size, or micro_batches, up to {settings.batch_size // processes}"
        raise RecipeError(
            f"data.segment_samples: the generator alone takes {bytes_ / 2**30:,.0f} GiB for "
            f"{counted(segments, 'segment')} of {samples} samples, {who} {most / 2**30:,.0f}; take shorter ones"
            + (fewer if segments > 1 else "")
        )


def fit_to_memory(run: "Run", start: int) -> None:
    """Let a run work through its batches in the parts that its memory_gb asks for: those chosen before, or measured.

    What it measures on is real, its next batch, and leaves nothing: the run goes on as with that split given.

    Raises:
        RecipeError: a step doesn't fit in any number of parts.
        ValueError: the corpus has gone bad, or the run's file of the choice has.
    """
    accelerator, device = run.accelerator, run.accelerator.device
    if (memory_gb := run.settings.memory_gb) is None:
        return
    ranks, on_gpu = accelerator.num_processes, device.type == "cuda"
    about = {
        "memory_gb": memory_gb,
        "processes": ranks,
        "device": device.type,
        "precision": run.settings.precision,
    }
    if (before := recorded(run.folder, about)) is not None:
        if (run.settings.batch_size // ranks) % before:
            raise ValueError(
                f"{run.folder / MICRO_BATCHES}: got {before}, which doesn't divide the batch. Delete it"
            )
        run.micro_batches = before
        return
    batches = run.feed.batches(start, accelerator.process_index, ranks, pin_memory=on_gpu)
    rounds = [next(batches) for _ in range(run.task.critic_steps)]
    del batches  # and with it the processes that load
    segments = len(rounds[0]["audio"])
    resident = 0.0
    state = run.kept.state.snapshot()

    def measure(parts: int, size: int) -> float:
        run.micro_batches = parts
        taken = [i % segments for i in range(parts * size)]
        few = [{name: value[taken] for name, value in batch.items()} for batch in rounds]

        def steps() -> None:
            for _ in range(2):  # an optimizer's moments are there in the second
                with suppress(NonFiniteLoss):
                    run.phases.step(
                        [run.parts(batch) for batch in few],
                        adversarial="discriminator" in run.plan.optimizers,
                        step=HEAVIEST_STEP,
                    )

        with torch.random.fork_rng([device] if on_gpu else []):  # by itself torch begins with all GPUs
            peak = resident + peak_bytes(device, steps)
        run.kept.state.go_back(copy.deepcopy(state))
        for optimizer in run.plan.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        if ranks > 1:  # all choose as the one that takes most
            peak = float(accelerator.gather(torch.tensor([peak], device=device)).max())
        return peak

    if not on_gpu:
        measure(1, 1)  # what a first step loads stays
        resident = resident_bytes()
    run.micro_batches, peak = choose(memory_gb * 1e9, segments, measure)
    log.info(
        "memory_gb %g: micro_batches %d, of %d segments in a process; a step takes %.2f GB",
        memory_gb, run.micro_batches, segments // run.micro_batches, peak / 1e9,
    )  # fmt: skip
    if accelerator.is_main_process:
        record(run.folder, about, run.micro_batches, peak)


def choose(memory_bytes: float, segments: int, measure: Measure) -> tuple[int, float]:
    """The fewest parts of so many segments with which a step fits, and the bytes it takes then.

    Raises:
        RecipeError: it doesn't with a segment a part.
    """
    most = memory_bytes / _ROOM
    one = measure(1, 1)
    if one > most:
        raise RecipeError(_too_small(memory_bytes, one, "one segment"))
    if segments == 1:
        return 1, one
    two, three = measure(2, 1), measure(3, 1)
    kept = three - two
    part = measure(2, 2) - two - 2 * kept
    expected = {1: one + (segments - 1) * (measure(1, 2) - one)}
    for parts in range(2, segments + 1):
        if segments % parts == 0:
            expected[parts] = two + (segments // parts - 1) * part + (segments - 2) * kept
    for parts, bytes_ in expected.items():
        if bytes_ <= most and (taken := measure(parts, segments // parts)) <= most:
            return parts, taken
    raise RecipeError(_too_small(memory_bytes, expected[segments], f"{segments} segments, one at a time,"))


def _too_small(memory_bytes: float, taken: float, what: str) -> str:
    return (
        f"memory_gb: got {memory_bytes / 1e9:g}, but a step on {what} takes {taken * _ROOM / 1e9:.2f} GB: "
        "give it more, or take a smaller batch_size, shorter data.segment_samples or a smaller net"
    )


def recorded(run: Path, about: dict[str, Any]) -> int | None:
    """The parts that a run chose before, where what it chose them for is still so; else None.

    Raises:
        ValueError: its file holds what no run writes.
    """
    try:
        found = json.loads(read_own(run / MICRO_BATCHES, 1 << 20))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{run / MICRO_BATCHES}: can't be read ({error}). Delete it") from error
    parts = found.get("micro_batches") if isinstance(found, dict) else None
    if type(parts) is not int or parts < 1:
        raise ValueError(
            f"{run / MICRO_BATCHES}: got {str(found)[:80]}, expected what a run chose. Delete it"
        )
    return parts if all(found.get(key) == value for key, value in about.items()) else None


def record(run: Path, about: dict[str, Any], parts: int, taken: float) -> None:
    """Remember a choice in the run's folder."""
    text = json.dumps({**about, "micro_batches": parts, "step_gb": round(taken / 1e9, 3)}, indent=1)
    write_beside(run / MICRO_BATCHES, f"{text}\n")


def peak_bytes(device: torch.device, work: Callable[[], None]) -> float:
    """The most memory that this process has while it works: on a GPU its tensors there, else all that is resident."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            work()
        except torch.OutOfMemoryError:
            return float("inf")
        return float(torch.cuda.max_memory_allocated(device))
    # What the system counts depends on when memory was given back; what is asked for doesn't.
    with _Asked() as asked:
        work()
    return float(asked.most)


class _Asked(TorchDispatchMode):
    """Counts the memory of tensors that are made in it, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._add(storage)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def resident_bytes() -> float:
    """Of this process: now where the system tells, else the most there was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        import resource  # not there on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
