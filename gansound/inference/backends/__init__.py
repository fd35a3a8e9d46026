"""What runs a generator: PyTorch as it is, compiled, ONNX Runtime or OpenVINO, behind one interface, `Runner`."""

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from gansound.inference.backends.runner import Precision, Runner
from gansound.nn.generator import StreamingGenerator

log = logging.getLogger(__name__)

Backend = Literal["auto", "eager", "compile", "onnxruntime", "openvino"]
Purpose = Literal["whole", "stream"]  # utterances at once, or a few frames at a time: the fastest may differ

BACKENDS: tuple[Backend, ...] = ("eager", "compile", "onnxruntime", "openvino")
# What each needs besides gansound's own dependencies, and the extra that brings it.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "eager": (),
    "compile": (),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "eager": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
}


class BackendUnavailable(ValueError):
    """This backend or precision isn't to be had here; the message says what to do."""


def available() -> list[tuple[Backend, Precision]]:
    """The backends installed here, each with the precisions that it has, on the CPU."""
    found: list[tuple[Backend, Precision]] = []
    for backend in BACKENDS:
        if not missing(backend):
            found += [(backend, precision) for precision in _PRECISIONS[backend]]
    return found


def missing(backend: Backend) -> list[str]:
    """The packages that a backend needs and this environment lacks."""
    return [name for name in _PACKAGES.get(backend, ()) if find_spec(name) is None]


def check_backend(backend: Backend, precision: Precision, device: torch.device) -> None:
    """Refuse what can't be run here, before anything is loaded.

    Raises:
        BackendUnavailable: (a ValueError) no such backend or precision, not installed, or not on that device.
    """
    if backend not in get_args(Backend):
        raise BackendUnavailable(f"got backend {backend!r}, expected one of {', '.join(get_args(Backend))}")
    if precision not in get_args(Precision):
        raise BackendUnavailable(
            f"got precision {precision!r}, expected one of {', '.join(get_args(Precision))}"
        )
    if backend == "auto":
        if not any(p == precision for _, p in available()):
            raise BackendUnavailable(
                f"no installed backend computes in {precision}; pip install 'gansound[fast]' brings those that do"
            )
        return
    if lacking := missing(backend):
        raise BackendUnavailable(
            f"backend {backend!r} needs {', '.join(lacking)}, not installed here: pip install 'gansound[{backend}]'"
        )
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
    environment variable GANSOUND_BACKEND names a backend to take instead of measuring.

    Args:
        generator: in eval mode; it is copied.
        backend: see the module.
        precision: never another than asked for.
        purpose: what `auto` measures: whole utterances, or a stream of single frames.

    Raises:
        BackendUnavailable: see `check_backend`.
    """
    device = next(generator.parameters()).device
    if backend == "auto":
        backend = named_by_environment()
    check_backend(backend, precision, device)
    if backend != "auto":
        return _make(generator, backend, precision)
    if device.type != "cpu":
        return _make(generator, "eager", precision)
    candidates = [b for b, p in available() if p == precision and b != "compile"]
    return _fastest(generator, candidates, precision, purpose)


def named_by_environment() -> Backend:
    """What GANSOUND_BACKEND says; `auto` where it says nothing."""
    named = os.environ.get("GANSOUND_BACKEND", "")
    if named and named not in get_args(Backend):
        raise BackendUnavailable(
            f"GANSOUND_BACKEND: got {named!r}, expected one of {', '.join(get_args(Backend))}"
        )
    return next((b for b in BACKENDS if b == named), "auto")


def _make(generator: StreamingGenerator, backend: Backend, precision: Precision) -> Runner:
    if backend in ("eager", "compile"):
        from gansound.inference.backends.eager import CompileRunner, EagerRunner

        return (EagerRunner if backend == "eager" else CompileRunner)(generator, precision)
    if backend == "onnxruntime":
        from gansound.inference.backends.onnx_runtime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(generator, precision)
    from gansound.inference.backends.open_vino import OpenVINORunner

    return OpenVINORunner(generator, precision)


def _fastest(
    generator: StreamingGenerator, candidates: Sequence[Backend], precision: Precision, purpose: Purpose
) -> Runner:
    if len(candidates) == 1:
        return _make(generator, candidates[0], precision)
    from gansound.inference.backends import choice
    from gansound.inference.backends.step_graph import cache_folder, fingerprint, keep

    path = cache_folder() / "choices" / f"{fingerprint(generator, weights=False)}_{precision}_{purpose}.json"
    if known := choice.remembered(path, candidates):
        log.debug("backend %s, measured before (%s)", known, path)
        return _make(generator, next(c for c in candidates if c == known), precision)
    log.info("measuring %s on this model, once; it takes up to a minute", ", ".join(candidates))
    runners: dict[str, Runner] = {}
    for candidate in candidates:
        try:
            runners[candidate] = _make(generator, candidate, precision)
        except Exception as error:  # whatever a runtime raises at a net that it can't take
            log.warning("backend %s can't run this model: %s", candidate, error)
    milliseconds = choice.measure(runners, streaming=purpose == "stream")
    if set(runners) == set(candidates):
        keep(path, choice.record(milliseconds))
    best = min(milliseconds, key=milliseconds.__getitem__)
    figures = ", ".join(
        f"{name} {ms:.2f} ms" for name, ms in sorted(milliseconds.items(), key=lambda i: i[1])
    )
    what = "a frame" if purpose == "stream" else f"{choice.WHOLE_FRAMES} frames"
    log.info("backend %s, the fastest here (%s: %s)", best, what, figures)
    return runners[best]
