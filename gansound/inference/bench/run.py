"""Carries a plan out: one process for each number of threads, then one for the memory of each contestant."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gansound.counts import counted
from gansound.inference.bench.contestants import OFFLINE_RIVAL, Contestant, Contestants
from gansound.inference.bench.machine import describe_machine
from gansound.inference.bench.plan import Plan
from gansound.inference.bench.timing import cases
from gansound.model_folder import load_model_folder

_ROOT = Path(__file__).parents[3]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def steps(plan: Plan) -> int:
    """How often `run_bench` tells of its progress."""
    return len(plan.threads) * cases(plan) + len(_remembered(plan))


def run_bench(plan: Plan, on_step: Callable[[str], None]) -> dict[str, Any]:
    """Measure, as one object that JSON holds: lists of records with named, unit-suffixed figures.

    Args:
        plan: what.
        on_step: told what is measured next; `steps(plan)` times.

    Raises:
        ValueError: the model can't be loaded or doesn't stream.
        RuntimeError: a measuring process died.
    """
    model = load_model_folder(plan.model, allow=plan.allow)
    _ = model.frame_spec  # what is wrong with the model is said here, by name: it may be no vocoder
    Contestants(model, ())
    result: dict[str, Any] = {
        "model": plan.model,
        "machine": describe_machine(),
        "plan": dataclasses.asdict(plan),
        "generator": {},
        "limits": [],
        "offline": [],
        "streaming": [],
        "whole_stream": [],
        "memory": [],
        "not_measured": [],
    }
    for threads in plan.threads:
        name = counted(threads, "thread")
        said = _measure(plan, threads, None, partial(_prefixed, on_step, name))
        for failed in said["not_measured"]:
            failed["what"] += f", {name}"
        _merge(result, said)
    for contestant in _remembered(plan):
        on_step(f"memory: {' '.join(contestant)}")
        try:
            _merge(result, _measure(plan, 1, contestant, lambda _: None))
        except RuntimeError as error:  # out of memory, most likely: the figures so far are worth keeping
            result["not_measured"].append({"what": f"memory, {' '.join(contestant)}", "reason": str(error)})
    return result


def _prefixed(on_step: Callable[[str], None], name: str, case: str) -> None:
    on_step(f"{name}: {case}")


def _remembered(plan: Plan) -> list[Contestant]:
    return [OFFLINE_RIVAL, *plan.contestants] if plan.memory_seconds else []


def _merge(result: dict[str, Any], said: dict[str, Any]) -> None:
    for name, value in said.items():
        if isinstance(value, list):
            result[name] += value
        else:
            result[name] = value


def _measure(
    plan: Plan, threads: int, memory_of: Contestant | None, on_case: Callable[[str], None]
) -> dict[str, Any]:
    job = {"plan": dataclasses.asdict(plan), "threads": threads, "memory_of": memory_of}
    environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdin as stdin:
                json.dump(job, stdin)
            for line in process.stdout:
                said = json.loads(line)
                if "result" in said:
                    process.wait()
                    result: dict[str, Any] = said["result"]
                    return result
                on_case(said["case"])
            process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        raise RuntimeError(_why(process.returncode, errors.read()))


def _why(code: int, errors: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
        return f"the measuring process was ended by {name}{hint}"
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return f"the measuring process ended with {code}: {lines[-1] if lines else 'no message'}"
