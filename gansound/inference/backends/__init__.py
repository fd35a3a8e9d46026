"""What runs a generator: PyTorch as it is, compiled, ONNX Runtime or OpenVINO, behind one interface, `Runner`."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from gansound import extras
from gansound.inference.backends.runner import BackendUnavailable, Precision, Runner, computes_its_model
from gansound.nn.generator import StreamingGenerator

__all__ = [
    "BACKENDS", "Backend", "BackendUnavailable", "Precision", "Purpose", "Runner",
    "available", "check_backend", "make_runner", "missing", "would_measure",
]  # fmt: skip

log = logging.getLogger(__name__)

Backend = Literal["auto", "eager", "compile", "onnxruntime", "openvino"]
# Utterances at once, those of fewer than three seconds, or a few frames at a time: the fastest may differ.
Purpose = Literal["whole", "short", "stream"]

BACKENDS: tuple[Backend, ...] = ("eager", "compile", "onnxruntime", "openvino")
_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "eager": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
}


def available() -> list[tuple[Backend, Precision]]:
    """The backends installed here, each with the precisions that it has, on the CPU."""
    found: list[tuple[Backend, Precision]] = []
    for backend in BACKENDS:
        if not missing(backend):
            found += [(backend, precision) for precision in _PRECISIONS[backend]]
    return found


def missing(backend: Backend) -> list[str]:
    """The packages that a backend needs, those of the extra of its name, and this environment lacks."""
    return extras.missing(*extras.EXTRAS.get(backend, ()))


def check_backend(backend: Backend, precision: Precision, device: torch.device) -> None:
    """Refuse what can't be run here, before anything is loaded. `auto` is what `make_runner` makes of it.

    Raises:
        BackendUnavailable: (a ValueError) no such backend or precision, not installed, or not on that device.
    """
    if backend not in get_args(Backend):
        raise BackendUnavailable(f"got backend {backend!r}, expected one of {', '.join(get_args(Backend))}")
    if precision not in get_args(Precision):
        raise BackendUnavailable(
            f"got precision {precision!r}, expected one of {', '.join(get_args(Precision))}"
        )
    backend = _settled(backend, device)
    if backend == "auto":
        if not any(p == precision for _, p in available()):
            raise BackendUnavailable(
                f"no installed backend computes in {precision}; pip install 'gansound[fast]' brings those that do"
            )
        return
    if lacking := missing(backend):
        raise BackendUnavailable(extras.lacks(f"backend {backend!r}", *lacking, extra=backend))
    if precision not in _PRECISIONS[backend]:
        raise BackendUnavailable(
            f"backend {backend!r} computes in {' or '.join(_PRECISIONS[backend])}, got precision {precision!r}"
        )
    if device.type != "cpu" and backend not in ("eager", "compile"):
        raise BackendUnavailable(
            f"backend {backend!r} runs on the CPU here, got device {device}. Take eager, or device='cpu'"
        )


def make_runner(
    generator: StreamingGenerator,
    backend: Backend = "auto",
    precision: Precision = "fp32",
    *,
    purpose: Purpose = "stream",
) -> Runner:
    """A generator on a backend, where its weights are.

    `auto` on a CPU measures the installed backends that have the precision, all but `compile`, whose compiling takes
    longer than the measuring; what it took is logged, and kept in the user's cache. Elsewhere it is `eager`. The
    environment variable GANSOUND_BACKEND names a backend for `auto` to take instead of measuring.

    Args:
        generator: in eval mode; it is copied.
        backend: see the module.
        precision: never another than asked for.
        purpose: what `auto` measures: whole utterances, short ones, or a stream of single frames.

    Raises:
        BackendUnavailable: see `check_backend`; or `auto` found none that runs this generator.
    """
    device = next(generator.parameters()).device
    check_backend(backend, precision, device)
    backend = _settled(backend, device)
    if backend != "auto":
        return _make(generator, backend, precision)
    return _fastest(generator, _candidates(precision), precision, purpose)


def would_measure(generator: StreamingGenerator, precision: Precision, purpose: Purpose) -> bool:
    """Whether `auto` has several backends to choose from here and hasn't measured this model on them before."""
    device = next(generator.parameters()).device
    candidates = _candidates(precision)
    if _settled("auto", device) != "auto" or len(candidates) < 2:
        return False
    from gansound.inference.backends import choice

    return choice.remembered(_choice_file(generator, precision, purpose), candidates) is None


def _candidates(precision: Precision) -> list[Backend]:
    """What `auto` chooses from on a CPU."""
    return [b for b, p in available() if p == precision and b != "compile"]


def _choice_file(generator: StreamingGenerator, precision: Precision, purpose: Purpose) -> Path:
    from gansound.inference.backends.step_graph import cache_folder, fingerprint

    return cache_folder() / "choices" / f"{fingerprint(generator, weights=False)}_{precision}_{purpose}.json"


def _settled(backend: Backend, device: torch.device) -> Backend:
    """What was asked for, `auto` replaced where there is nothing to measure: by the environment, or off the CPU."""
    named = os.environ.get("GANSOUND_BACKEND", "")
    if named and named not in get_args(Backend):
        raise BackendUnavailable(
            f"GANSOUND_BACKEND: got {named!r}, expected one of {', '.join(get_args(Backend))}"
        )
    if backend != "auto":
        return backend
    wanted: Backend = next((b for b in BACKENDS if b == named), "auto")
    return "eager" if wanted == "auto" and device.type != "cpu" else wanted


def _make(generator: StreamingGenerator, backend: Backend, precision: Precision) -> Runner:
    if backend in ("eager", "compile"):
        from gansound.inference.backends.eager import CompileRunner, EagerRunner

        return (EagerRunner if backend == "eager" else CompileRunner)(generator, precision)
    from gansound.inference.backends.step_graph import from_cache

    kind: Callable[[StreamingGenerator, Precision], Runner]
    if backend == "onnxruntime":
        from gansound.inference.backends.onnx_runtime import OnnxRuntimeRunner

        kind = OnnxRuntimeRunner
    else:
        from gansound.inference.backends.open_vino import OpenVINORunner

        kind = OpenVINORunner

    def is_right_in_fp32() -> bool:  # a net may be no sound in a coarser precision, of the right graphs
        return precision != "fp32" and computes_its_model(kind(generator, "fp32"))

    return from_cache(lambda: kind(generator, precision), computes_its_model, is_right_in_fp32)


def _fastest(
    generator: StreamingGenerator, candidates: Sequence[Backend], precision: Precision, purpose: Purpose
) -> Runner:
    if len(candidates) == 1:
        return _make(generator, candidates[0], precision)
    from gansound.inference.backends import choice
    from gansound.inference.backends.step_graph import keep

    path = _choice_file(generator, precision, purpose)
    if known := choice.remembered(path, candidates):
        try:
            runner = _make(generator, next(c for c in candidates if c == known), precision)
            log.debug("backend %s, measured before (%s)", known, path)
            return runner
        except Exception as error:  # such as too little memory now
            log.warning("backend %s, measured as the fastest before, fails now: %s", known, error)
    log.info("measuring %s on this model, once; it takes a minute or more", ", ".join(candidates))
    runners: dict[str, Runner] = {}
    failures: dict[str, Exception] = {}
    for candidate in candidates:
        try:
            runners[candidate] = _make(generator, candidate, precision)
        except Exception as error:  # whatever a runtime raises at a net that it can't take
            failures[candidate] = error
    milliseconds = choice.measure(runners, failures, purpose)
    for name, failure in failures.items():
        log.warning("backend %s can't run this model, and is left out: %s", name, failure)
    if not milliseconds:
        reasons = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
        raise BackendUnavailable(f"no backend installed here runs this model in {precision}: {reasons}")
    keep(path, choice.record(milliseconds, candidates))
    best = min(milliseconds, key=milliseconds.__getitem__)
    figures = ", ".join(
        f"{name} {ms:.2f} ms" for name, ms in sorted(milliseconds.items(), key=lambda i: i[1])
    )
    what = "a frame" if purpose == "stream" else f"{choice.FRAMES[purpose]} frames"
    log.info("backend %s, the fastest here (%s: %s)", best, what, figures)
    return runners[best]
