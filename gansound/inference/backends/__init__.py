"""What runs a generator: PyTorch as it is, compiled, ONNX Runtime or OpenVINO, behind one interface, `Runner`."""

from importlib.util import find_spec
from typing import Literal, get_args

import torch

from gansound.inference.backends.runner import Precision, Runner
from gansound.nn.generator import StreamingGenerator

Backend = Literal["auto", "eager", "compile", "onnxruntime", "openvino"]
Purpose = Literal["whole", "stream"]  # utterances at once, or a few frames at a time: the fastest may differ

BACKENDS: tuple[Backend, ...] = ("eager", "compile", "onnxruntime", "openvino")
# What each needs besides gansound's own dependencies, and the extra that brings it.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "eager": (),
    "compile": (),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
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

    Raises:
        BackendUnavailable: see `check_backend`.
    """
    device = next(generator.parameters()).device
    check_backend(backend, precision, device)
    from gansound.inference.backends.eager import EagerRunner

    return EagerRunner(generator, precision)
