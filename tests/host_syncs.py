"""Where the processor waits for the device in a training step, counted without a device.

Tensors on torch's `meta` device have shapes and no values: whatever asks for a value, or copies in a way that a GPU
would make the processor wait for, is seen by the modes here, which answer with something. Work that mixes a tensor of
the processor into the device's fails as it would on a GPU.
"""

import contextlib
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import gansound
from gansound.engine.phases import Phases
from gansound.engine.plan import Plan

DEVICE = torch.device("meta")
_PACKAGE = f"{Path(gansound.__file__).parent}{os.sep}"
_SIZES_DEPEND = ("nonzero", "masked_select", "unique", "repeat_interleave.Tensor", "bincount", "histc")


class HostSyncs(TorchDispatchMode):
    """Counts in `seen`, by the operation and the line of gansound that asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._values = _Values(self)

    def __enter__(self) -> Any:
        self._values.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._values.__exit__(*error)

    @property
    def count(self) -> int:
        return sum(self.seen.values())

    def add(self, what: str) -> None:
        # By the package's own place: the folder of a checkout is called gansound, too, and these tests lie in it.
        lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(_PACKAGE)]
        where = f"{lines[-1].filename.removeprefix(_PACKAGE)}:{lines[-1].lineno}" if lines else "?"
        self.seen[f"{what} at {where}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::")
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            if name == "_local_scalar_dense":
                self.add("a value")
                return _something(tensors[0])
            if name.startswith(_SIZES_DEPEND):
                self.add(name)
                return torch.zeros((1, tensors[0].dim()), dtype=torch.int64, device=DEVICE)
            if name.startswith("index") and any(mask.dtype == torch.bool for mask in _indices(args)):
                self.add("a boolean index")
                return tensors[0][:1]
        if name in ("_to_copy", "copy_"):
            source, target = (
                (args[0], kwargs.get("device")) if name == "_to_copy" else (args[1], args[0].device)
            )
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if target is not None and source.is_meta is not (torch.device(target) == DEVICE) and blocking:
                self.add(f"a copy to {'the device' if not source.is_meta else 'the processor'}")
            if source.is_meta and target is not None and torch.device(target) != DEVICE:
                return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        return _run(func, args, kwargs)


_given: dict[Any, Any] = {}


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What it gives; torch works shapes out in Python, for milliseconds, so once for inputs of the same."""
    schema = func._schema
    if any(value.alias_info is not None for value in (*schema.arguments, *schema.returns)):
        return func(*args, **kwargs)
    key = (func, _described(args), _described(kwargs))
    if key not in _given:
        out = func(*args, **kwargs)
        outs = out if isinstance(out, tuple | list) else [out]
        whole = all(isinstance(one, Tensor) and one.is_meta for one in outs)
        _given[key] = (type(out), [(one.shape, one.stride(), one.dtype) for one in outs]) if whole else None
        return out
    if _given[key] is None:
        return func(*args, **kwargs)
    kind, shapes = _given[key]
    made = [torch.empty_strided(size, stride, dtype=dtype, device=DEVICE) for size, stride, dtype in shapes]
    return kind(made) if issubclass(kind, tuple | list) else made[0]


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, tuple | list):
        return tuple(map(_described, value))
    if isinstance(value, dict):
        return tuple((name, _described(one)) for name, one in value.items())
    return type(value), value


class _Values(TorchFunctionMode):
    """Methods that read a tensor's memory without an operation that could be seen."""

    def __init__(self, counted: HostSyncs) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        if tensor is not None and tensor.is_meta:
            if func in (Tensor.tolist, Tensor.numpy):
                self._counted.add(func.__name__)
                made = torch.ones(tensor.shape, dtype=tensor.dtype)
                return getattr(made, func.__name__)()
            if func in (Tensor.item, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__):
                self._counted.add(func.__name__)
                return _something(tensor)
        if func is torch.tensor and torch.device((kwargs or {}).get("device") or "cpu") == DEVICE:
            self._counted.add("torch.tensor")
        return func(*args, **(kwargs or {}))


def _something(tensor: Tensor) -> Any:
    return True if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1


def _indices(args: Sequence[Any]) -> Iterator[Tensor]:
    for arg in args[1:]:
        for one in arg if isinstance(arg, list | tuple) else [arg]:
            if isinstance(one, Tensor):
                yield one


def on_the_device(plan: Plan, **settings: Any) -> Phases:
    """The plan's two phases on the device, as `Run` makes them."""
    plan.task.to(DEVICE)

    def place(module: nn.Module) -> nn.Module:
        return module.to(DEVICE)

    accelerator = SimpleNamespace(
        device=DEVICE,
        num_processes=1,
        prepare_model=place,
        backward=lambda loss: loss.backward(),
        no_sync=lambda module: contextlib.nullcontext(),
    )
    place(plan.task.generator), place(plan.task.discriminator)
    optimizers = {
        side: type(optimizer)(_parameters(plan, side), lr=1e-3) for side, optimizer in plan.optimizers.items()
    }
    for optimizer in optimizers.values():
        optimizer._step_supports_amp_scaling = (
            True  # as a fused one, whose kernels there are none of for this device
        )
        optimizer.step = lambda: None
    return Phases(plan.task, accelerator, optimizers, **settings)  # type: ignore[arg-type]


def _parameters(plan: Plan, side: str) -> list[nn.Parameter]:
    return list(getattr(plan.task, side).parameters())


@contextlib.contextmanager
def no_autocast() -> Iterator[None]:
    """The meta device has none."""
    with (
        mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()),
        mock.patch.object(torch, "is_autocast_enabled", return_value=False),
    ):
        yield
