"""Which backend is the fastest here: measured once, and remembered for this model and this machine."""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gansound.inference.backends.runner import Runner
from gansound.machine import cpu_name, cpuinfo, package_version, usable_cores

ROUNDS, STEPS_IN_A_ROW = 7, 8
FRAMES = {"stream": 1, "short": 43, "whole": 256}  # that are measured, by purpose
SHORTER = 256  # an utterance of fewer frames is a short one


def remembered(path: Path, backends: Sequence[str]) -> str | None:
    """The choice made before among the same backends in the same versions, threads and machine; None if none was."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if (
        not isinstance(found, dict)
        or found.get("here") != _here(backends)
        or found.get("backend") not in backends
    ):
        return None
    return str(found["backend"])


def record(milliseconds: dict[str, float], backends: Sequence[str]) -> bytes:
    """What `remembered` reads: the fastest of the backends, with what was measured of those that run."""
    best = min(milliseconds, key=milliseconds.__getitem__)
    return json.dumps({"backend": best, "ms": milliseconds, "here": _here(backends)}, indent=2).encode()


def measure(runners: dict[str, Runner], failures: dict[str, Exception], purpose: str) -> dict[str, float]:
    """Median milliseconds of each runner, rounds interleaved: a frame a step, or half a second or three in one go.

    One that raises is put among the failures, and has no figure.
    """
    streaming = purpose == "stream"
    took: dict[str, list[float]] = {name: [] for name in runners}
    runs = {name: _run(runner, purpose) for name, runner in runners.items()}
    for round_ in range(ROUNDS + 1):
        for name in list(runs):
            # The first is for compiling and warming, and several steps in a row are what a stream does.
            for _ in range(STEPS_IN_A_ROW if streaming else 1):
                try:
                    start = time.perf_counter()
                    next(runs[name])
                except Exception as error:
                    failures[name] = error
                    del runs[name], took[name]
                    break
                if round_ > 0:
                    took[name].append(1000 * (time.perf_counter() - start))
            runners[name].settle()
    return {name: statistics.median(times) for name, times in took.items()}


def _run(runner: Runner, purpose: str) -> Iterator[None]:
    mel = torch.randn(1, runner.n_mels, FRAMES[purpose], generator=torch.Generator().manual_seed(0)) - 4
    state = runner.init_state()
    while True:
        if purpose == "stream":
            _, state = runner.step(mel, state, interior=True)
        else:
            runner.synthesize(mel)
        yield


def _here(backends: Sequence[str]) -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "versions": {name: package_version(name) for name in ("gansound", "torch", *sorted(backends))},
    }


def _cpu() -> str:
    flags = cpuinfo().get("flags", "")
    return f"{cpu_name()} {'avx512' if 'avx512f' in flags else ''}{' bf16' if 'bf16' in flags else ''}"
