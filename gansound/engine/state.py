"""All that a run must remember, by name: what a checkpoint is made of."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gansound.engine.checkpoint import Share, files_of, record_of
from gansound.engine.own_files import is_own
from gansound.engine.restoring import unfit

LEAST_SHARE_BYTES = 1 << 26
"""That a process writes of a state: less is written sooner by one than it is dealt out."""


Snapshot = dict[str, tuple[dict[str, Tensor], Any]]


class Stateful(Protocol):
    """What torch's modules and optimizers can do."""

    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class RunState:
    """All that a run must remember, registered by name in one place, so that a resume forgets nothing.

    Args:
        run: which run it is; a checkpoint of another isn't taken.
    """

    def __init__(self, run: str | None = None) -> None:
        self._run = run
        self._parts: dict[str, Stateful] = {}
        self._staged: dict[str, Tensor] = {}

    def register(self, name: str, part: Stateful) -> None:
        """Raises ValueError for a name that is taken."""
        if name in self._parts:
            raise ValueError(f"run state {name!r} is registered twice")
        self._parts[name] = part

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def stage(self, step: int, rank: int = 0, ranks: int = 1) -> Share:
        """Copy what this process is to write of a checkpoint, so that training may go on meanwhile.

        Networks and optimizers are the same in all processes and are dealt out by bytes; all else is the first one's.
        The copies' memory is used again the next time: the last share must be on the disk by then.
        """
        tensors: dict[str, dict[str, Tensor]] = {}
        rest: dict[str, Any] = {}
        for name, part in self._parts.items():
            tensors[name], rest[name] = split_tensors(part.state_dict())
        dealt = [
            (name, path, tensor)
            for name, part in self._parts.items()
            if isinstance(part, nn.Module | Optimizer)
            for path, tensor in tensors[name].items()
        ]
        whole = sum(tensor.nbytes for *_, tensor in dealt)
        writers = max(1, min(ranks, whole // LEAST_SHARE_BYTES))
        mine = {name: dict[str, Tensor]() for name in tensors}
        if rank == 0:
            alone = [
                name for name, part in self._parts.items() if not isinstance(part, nn.Module | Optimizer)
            ]
            mine |= {name: self._copies(name, tensors[name]) for name in alone}
        before = 0
        for name, path, tensor in dealt:
            if min((2 * before + tensor.nbytes) * writers // max(2 * whole, 1), writers - 1) == rank:
                mine[name] |= self._copies(name, {path: tensor})
            before += tensor.nbytes
        number = f".{rank}" * (writers > 1)
        return Share(
            step=step,
            run=self._run,
            rank=rank,
            writers=writers,
            files={f"{name}{number}.safetensors": own for name, own in mine.items() if own or rank == 0},
            rest=rest,
            dealt=zlib.crc32(repr([(n, p, t.dtype, tuple(t.shape)) for n, p, t in dealt]).encode()),
        )

    def _copies(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for path, tensor in tensors.items():
            copy = self._staged.get(f"{name}{path}")
            if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
                # Memory that was never written to costs several times the copy. Contiguous, as safetensors wants it.
                copy = self._staged[f"{name}{path}"] = torch.empty(tensor.shape, dtype=tensor.dtype)
            found[path] = copy.copy_(tensor)
        return found

    def snapshot(self) -> Snapshot:
        """All of it, in the computer's memory."""
        split = {name: split_tensors(part.state_dict()) for name, part in self._parts.items()}
        return {
            name: ({path: tensor.cpu().clone() for path, tensor in tensors.items()}, rest)
            for name, (tensors, rest) in split.items()
        }

    def go_back(self, snapshot: Snapshot) -> None:
        """Be as a snapshot says, which isn't used again: an optimizer makes its tensors its own."""
        for name, (tensors, rest) in snapshot.items():
            self._parts[name].load_state_dict(join_tensors(tensors, rest))

    def load(self, checkpoint: Path) -> int:
        """Restore every part from a checkpoint that is whole; the step it was saved at.

        Raises:
            ValueError: the checkpoint is another run's, or something in it isn't what this run would have written.
        """
        record = record_of(checkpoint)
        advice = "Resume with the recipe the run was started with, or give another --run"
        if self._run is not None and record.get("run") not in (None, self._run):
            raise ValueError(f"{checkpoint} is of another run, of another recipe. {advice}")
        differing = set(self._parts) ^ set(record["rest"])
        if differing:
            raise ValueError(f"{checkpoint} and this run differ in {', '.join(sorted(differing))}. {advice}")
        states = {}
        for name, part in self._parts.items():
            file, tensors = checkpoint / f"{name}.safetensors", dict[str, Tensor]()
            for file in files_of(checkpoint, record, name):
                try:
                    if not is_own(file):
                        raise OSError("no regular file")
                    tensors |= load_file(file)
                except (SafetensorError, OSError) as error:
                    raise ValueError(
                        f"{file} is missing or cut ({error}); move {checkpoint} away to resume from the one before"
                    ) from error
            try:
                states[name] = join_tensors(tensors, record["rest"][name])
                wrong = unfit(part, tensors, states[name])
            except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
                wrong = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            if wrong is not None:
                raise ValueError(f"{file}: {wrong}, which this run wouldn't have written. {advice}")
        for name, state in states.items():
            try:
                self._parts[name].load_state_dict(state)
            except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
                raise ValueError(
                    f"{checkpoint}: the state of {name} isn't one that this run would have written ({error}). {advice}"
                ) from error
        return int(record["step"])


def split_tensors(state: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Tensors of a nested state by their path, and the same nest with `{"tensor": path}` in their places."""
    if isinstance(state, Tensor):
        return {prefix: state.detach()}, {"tensor": prefix}
    if isinstance(state, Mapping):
        tensors: dict[str, Tensor] = {}
        items = []
        for key, value in state.items():
            if not isinstance(key, str | int):
                raise TypeError(f"state key {key!r} is neither text nor a whole number")
            inner, rest = split_tensors(value, f"{prefix}/{key}")
            tensors |= inner
            items.append([key, rest])
        return tensors, {"items": items}
    if isinstance(state, list | tuple):
        tensors = {}
        values = []
        for i, value in enumerate(state):
            inner, rest = split_tensors(value, f"{prefix}/{i}")
            tensors |= inner
            values.append(rest)
        return tensors, {"tuple" if isinstance(state, tuple) else "list": values}
    if state is None or isinstance(state, bool | int | float | str):
        return {}, {"value": state}
    raise TypeError(
        f"state at {prefix or 'its root'} holds a {type(state).__name__}, which a checkpoint can't keep"
    )


def join_tensors(tensors: Mapping[str, Tensor], rest: Any) -> Any:
    """The inverse of `split_tensors`."""
    ((kind, value),) = rest.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "items":
        return {key: join_tensors(tensors, inner) for key, inner in value}
    if kind == "list":
        return [join_tensors(tensors, inner) for inner in value]
    if kind == "tuple":
        return tuple(join_tensors(tensors, inner) for inner in value)
    return value
