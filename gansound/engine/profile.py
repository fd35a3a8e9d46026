"""Where the time of a training step goes, on the recipe's own nets and data: `gansound train RECIPE --profile`.

The steps are those of a run from its start, except that the discriminators take part from the first, but they are made
in a folder of their own that is deleted. On a GPU every border of a section waits for the device, which costs some of
the pace; so the pace is that of further steps without borders.
"""

import dataclasses
import itertools
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from gansound.engine.memory import fit_to_memory
from gansound.engine.plan import Plan
from gansound.engine.run import Run
from gansound.sections import REST, Stopwatch, section

log = logging.getLogger(__name__)

WARM_UP_STEPS = 5
TRACED_STEPS = 2
_TOP_OPERATORS = 12

_GRADIENTS = "gradients over processes"
_BACKWARDS = ("discriminator backward", "generator backward")
_GROUPS = {
    "data": ("data", "transfer"),
    "generator": (
        "conditioning",
        "generator forward",
        "discriminator forward, for the generator",
        "spectral losses",
        "feature matching",
        "adversarial losses",
        "generator backward",
        "generator optimizer",
        "average",
    ),
    "discriminators": (
        "augmentations and views",
        "discriminator forward",
        "discriminator losses",
        "penalties",
        "discriminator backward",
        "discriminator optimizer",
    ),
    "communication": ("waiting for other processes", _GRADIENTS, "figures over processes"),
    REST: ("bookkeeping", REST),
}

Laps = list[dict[str, float]]
Clock = Callable[[], float]


def profile(
    plan: Plan, steps: int, trace: Path | None = None, clock: Clock = time.perf_counter
) -> dict[str, Any]:
    """Train some steps and say where their time went; all processes of a run call it.

    Args:
        plan: the recipe as objects; its networks are trained, nothing is written.
        steps: that are timed, after `WARM_UP_STEPS`.
        trace: a file for a trace of `TRACED_STEPS` more, for https://ui.perfetto.dev; written by the main process.
        clock: in seconds.

    Returns:
        What `profile.json` holds: milliseconds a step by section, which add up to the step; pace, memory, the costliest
        operators, and the verdict in words.

    Raises:
        ValueError: no steps, or what `Run` raises.
        TrainingError: too many steps had gradients that weren't finite.
    """
    if steps < 1:
        raise ValueError(f"expected 1 step or more to profile, got {steps}")
    most = WARM_UP_STEPS + 3 * steps + TRACED_STEPS
    settings = dataclasses.replace(plan.settings, steps=max(plan.settings.steps, most), adversarial_from=0)
    with TemporaryDirectory(prefix="gansound-profile-") as folder:
        run = Run(dataclasses.replace(plan, settings=settings), Path(folder))
        record = _Profiler(run, steps, clock).measure(trace) | {
            "discriminators_join_at_step": plan.settings.adversarial_from
        }
        run.close()
        return record


class _Profiler:
    def __init__(self, run: Run, steps: int, clock: Clock) -> None:
        self.run = run
        self.steps = steps
        self.clock = clock
        self.device = run.accelerator.device
        self.numbers = itertools.count()
        self.batches = run.feed.batches(
            0,
            rank=run.accelerator.process_index,
            ranks=run.accelerator.num_processes,
            pin_memory=self.device.type == "cuda",
        )

    def measure(self, trace: Path | None) -> dict[str, Any]:
        fit_to_memory(self.run, 0)
        for _ in range(WARM_UP_STEPS):
            self.step()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        laps, apart = self.timed()
        pace = (
            self.pace() if self.device.type == "cuda" else float(np.mean([sum(lap.values()) for lap in laps]))
        )
        memory = self.peak_memory_mib()
        operators = self.traced(trace)
        record = self.about() | summary(laps, apart)
        segment_seconds = self.run.settings.data.segment_samples / self.run.task.sample_rate
        a_step = self.run.settings.batch_size * self.run.task.critic_steps
        record |= {
            "steps_per_second": 1 / pace,
            "audio_seconds_per_second": a_step * segment_seconds / pace,
            "peak_memory_mib": memory,
            "operators": operators,
        }
        return record | {"verdict": verdict(record)}

    def step(self) -> None:
        with section("data"):
            rounds = [next(self.batches) for _ in range(self.run.task.critic_steps)]
        if self.run.accelerator.num_processes > 1:
            with section("waiting for other processes"):
                self.run.accelerator.wait_for_everyone()
        self.run.step(next(self.numbers), rounds)

    def timed(self) -> tuple[Laps, Laps]:
        """Sections of steps, and between them of as many whose gradients stay in their process, to compare with.

        A sum over processes runs beside the backward pass that makes the gradients; what it costs is only what the
        two together take longer. Under fp16 processes that don't share gradients may disagree about an overflow.
        """
        accelerator, phases = self.run.accelerator, self.run.phases
        compares = accelerator.num_processes > 1 and self.run.settings.precision != "fp16"
        laps: Laps = []
        apart: Laps = []
        with Stopwatch(self.clock, self.synchronize).running() as watch:
            for _ in range(self.steps):
                self.step()
                laps.append(watch.lap())
                if compares:
                    with accelerator.no_sync(phases.generator), accelerator.no_sync(phases.judges):
                        self.step()
                    apart.append(watch.lap())
        return laps, apart

    def pace(self) -> float:
        """Seconds a step, without borders that wait for the device."""
        self.synchronize()
        begun = self.clock()
        for _ in range(self.steps):
            self.step()
        self.synchronize()
        return (self.clock() - begun) / self.steps

    def traced(self, trace: Path | None) -> list[dict[str, Any]]:
        """The operators that take most time by themselves; and the trace."""
        on_gpu = self.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU]
        if on_gpu:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        watch = Stopwatch(self.clock, annotate=torch.profiler.record_function)
        with torch.profiler.profile(activities=activities) as profiler, watch.running():
            for _ in range(TRACED_STEPS):
                self.step()
            self.synchronize()
        own = watch.lap().keys()
        if trace is not None and self.run.accelerator.is_main_process:
            beside = trace.with_name(f".writing.{trace.name}")  # torch looks at the name's end
            try:
                profiler.export_chrome_trace(str(beside))
                os.replace(beside, trace)
            finally:
                beside.unlink(missing_ok=True)
        time_of = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        found = {
            event.key: (getattr(event, time_of) / 1e3 / TRACED_STEPS, event.count / TRACED_STEPS)
            for event in profiler.key_averages()
            # The rest are ranges around operators: our own, the loader's, the profiler's.
            if event.key not in own and not event.key.startswith(("Profiler", "enumerate(", "Optimizer."))
        }
        whole = sum(ms for ms, _ in found.values()) or 1.0
        top = sorted(found.items(), key=lambda item: -item[1][0])[:_TOP_OPERATORS]
        return [
            {"operator": name, "calls_a_step": calls, "self_ms_a_step": ms, "share": ms / whole}
            for name, (ms, calls) in top
        ]

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory_mib(self) -> float:
        """Of the GPU, or resident in the main process without those that load."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource  # not there on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

    def about(self) -> dict[str, Any]:
        settings = self.run.settings
        on_gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if on_gpu else f"CPU, {platform.machine()}",
            "processes": self.run.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "precision": settings.precision,
            "compile": settings.compile,
            "batch_size": settings.batch_size,
            "micro_batches": self.run.micro_batches,
            "critic_steps": self.run.task.critic_steps,
            "data_workers": settings.data.workers,
            "sample_rate_hz": self.run.task.sample_rate,
            "warm_up_steps": WARM_UP_STEPS,
            "steps": self.steps,
        }


def summary(laps: Laps, apart: Laps) -> dict[str, Any]:
    """The sections of some steps, in milliseconds, by group.

    Args:
        laps: of each step its seconds by section.
        apart: the same of steps whose gradients stayed in their process; none with one process.
    """
    laps = [dict(lap) for lap in laps]
    for name in _BACKWARDS if apart else ():
        excess = _median(laps, name) - _median(apart, name)
        for lap in laps:
            moved = min(max(excess, 0.0), lap.get(name, 0.0))
            lap[name] = lap.get(name, 0.0) - moved
            lap[_GRADIENTS] = lap.get(_GRADIENTS, 0.0) + moved
    wholes = [sum(lap.values()) for lap in laps]
    groups = {name: group for group, names in _GROUPS.items() for name in names}
    there = {name for lap in laps for name in lap}
    ordered = [name for name in groups if name in there] + sorted(there - groups.keys())
    sections: list[dict[str, Any]] = [
        {
            "section": name,
            "group": groups.get(name, REST),
            **_figures([lap.get(name, 0.0) for lap in laps]),
            "share": sum(lap.get(name, 0.0) for lap in laps) / sum(wholes),
        }
        for name in ordered
    ]
    shares: dict[str, float] = {}
    for one in sections:
        shares[one["group"]] = shares.get(one["group"], 0.0) + one["share"]
    return {"step": _figures(wholes), "group_shares": shares, "sections": sections}


def verdict(record: dict[str, Any]) -> str:
    """What to do about it, in words: about the one thing that stands out most, or what the time is well spent on."""
    share = {one["section"]: one["share"] for one in record["sections"]}
    waits = share.get("data", 0.0)
    communicates = record["group_shares"].get("communication", 0.0)
    penalties = share.get("penalties", 0.0)
    rate = record["sample_rate_hz"]
    stands_out = {
        f"waiting for data {waits:.0%}: raise data.workers (now {record['data_workers']}) while there are cores to "
        f"spare, run `gansound data prepare ... --sample-rate {rate}` so that nothing is resampled, or raise "
        "data.cache_gb": waits / 0.1,
        f"communication {communicates:.0%}: give each process more to do between two sums, with a larger batch_size, "
        "worked through in micro_batches where memory is short": communicates / 0.1,
        f"the critic's penalties take {penalties:.0%}, and their part of the backward pass: with "
        "penalties.NAME.init_args.every they are evaluated in some steps only": penalties / 0.2,
    }
    advice, how_much = max(stands_out.items(), key=lambda item: item[1])
    if how_much >= 1:
        return advice
    largest = max(record["sections"], key=lambda one: one["share"])
    return (
        f"the loader keeps up: {waits:.0%} waiting; most goes to {largest['section']}, {largest['share']:.0%}"
    )


def _median(laps: Laps, name: str) -> float:
    return float(np.median([lap.get(name, 0.0) for lap in laps]))


def _figures(seconds: Sequence[float]) -> dict[str, float]:
    milliseconds = 1e3 * np.asarray(seconds)
    return {
        "ms_mean": float(milliseconds.mean()),
        "ms_median": float(np.median(milliseconds)),
        "ms_p95": float(np.percentile(milliseconds, 95)),
    }
