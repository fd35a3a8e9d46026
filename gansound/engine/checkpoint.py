"""Checkpoints as folders: safetensors for tensors, JSON for the rest, written beside and then renamed.

`checkpoints/step_00001000/` holds one `NAME.safetensors` for each registered part and a `state.json` with the step,
whatever of the parts isn't a tensor, and each file's size and CRC-32. Nothing is pickled. A folder appears under its
name only when every byte of it is on the disk; should a disk or a copy have lost some all the same, it isn't taken.
"""

import errno
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gansound.engine.own_files import is_own, open_own, read_own
from gansound.engine.restoring import unfit

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})")
_BLOCK_BYTES = 1 << 22


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

    def register(self, name: str, part: Stateful) -> None:
        """Raises ValueError for a name that is taken."""
        if name in self._parts:
            raise ValueError(f"run state {name!r} is registered twice")
        self._parts[name] = part

    def save(self, folder: Path, step: int) -> Path:
        """Write `folder/step_NNNNNNNN`, or leave nothing but what was there."""
        target = folder / f"step_{step:08d}"
        beside = folder / f".{target.name}.writing"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            rest: dict[str, Any] = {}
            sizes: dict[str, int] = {}
            sums: dict[str, int] = {}
            for name, part in self._parts.items():
                tensors, rest[name] = split_tensors(part.state_dict())
                file = beside / f"{name}.safetensors"
                save_file(tensors, file)
                sizes[file.name], sums[file.name] = file.stat().st_size, crc32(file)
                sync(file)
            record = {"step": step, "run": self._run, "sizes": sizes, "crc32": sums, "rest": rest}
            record["own_crc32"] = _crc32_of(record)
            (beside / "state.json").write_text(json.dumps(record, indent=1))
            sync(beside / "state.json")
            sync(beside)
            if target.exists():
                shutil.rmtree(target)
            os.replace(beside, target)
            sync(folder)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, OSError | SafetensorError):
                raise unwritten(error, target) from error
            raise
        return target

    def load(self, checkpoint: Path) -> int:
        """Restore every part from a checkpoint that is whole; the step it was saved at.

        Raises:
            ValueError: the checkpoint is another run's, or something in it isn't what this run would have written.
        """
        record = _record(checkpoint)
        advice = "Resume with the recipe the run was started with, or give another --run"
        if self._run is not None and record.get("run") not in (None, self._run):
            raise ValueError(f"{checkpoint} is of another run, of another recipe. {advice}")
        differing = set(self._parts) ^ set(record["rest"])
        if differing:
            raise ValueError(f"{checkpoint} and this run differ in {', '.join(sorted(differing))}. {advice}")
        states = {}
        for name, part in self._parts.items():
            file = checkpoint / f"{name}.safetensors"
            try:
                if not is_own(file):
                    raise OSError("no regular file")
                tensors = load_file(file)
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


def checkpoints(folder: Path) -> list[Path]:
    """Those under a name of their own, oldest first."""
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.iterdir()
        if _NAME.fullmatch(path.name) and not path.is_symlink() and is_own(path / "state.json")
    ]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step_"))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint all of whose bytes are what was written; warns of newer ones that aren't."""
    for path in reversed(checkpoints(folder)):
        reason = torn(path)
        if reason is None:
            return path
        log.warning("%s: %s, so the one before is taken", path, reason)
    return None


def torn(checkpoint: Path) -> str | None:
    """What of a checkpoint isn't as it was written, or None; reads all of it."""
    try:
        record = _record(checkpoint)
        if record["step"] != step_of(checkpoint):
            return f"is of step {record['step']}, under the name of another"
        if record.pop("own_crc32", None) not in (None, _crc32_of(record)):
            return "state.json isn't as it was written"
        sizes, sums = record["sizes"], record.get("crc32", {})
        for name, size in sizes.items():
            file = checkpoint / name
            if not is_own(file):
                return f"{name} is no regular file"
            if (found := file.stat().st_size) != size:
                return f"{name} has {found} bytes, {size} were written"
            if name in sums and crc32(file) != sums[name]:
                return f"{name} holds other bytes than were written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"can't be read ({error})"
    return None


def _record(checkpoint: Path) -> dict[str, Any]:
    record = json.loads(read_own(checkpoint / "state.json"))
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("rest"), dict)
        or type(record["step"]) is not int
    ):
        raise ValueError(f"{checkpoint / 'state.json'}: isn't a checkpoint's")
    return record


def _crc32_of(record: Mapping[str, Any]) -> int:
    rest = {name: value for name, value in record.items() if name != "own_crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def set_aside(checkpoint: Path) -> None:
    """Rename a checkpoint so that it isn't one any more, for whoever wants to look at it."""
    aside = checkpoint.with_name(f"{checkpoint.name}.torn")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)


def prune(folder: Path, keep: int, always: Collection[int] = (), every: int | None = None) -> None:
    """Delete all but the newest `keep`, the steps of `always` and the multiples of `every`; and half-written ones."""
    for path in checkpoints(folder)[:-keep]:
        step = step_of(path)
        if step not in always and (every is None or step % every):
            shutil.rmtree(path)
    for path in folder.glob(".step_*.writing"):
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def crc32(path: Path) -> int:
    """Of a file's bytes."""
    total = 0
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            total = zlib.crc32(block, total)
    return total


def split_tensors(state: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Tensors of a nested state by their path, and the same nest with `{"tensor": path}` in their places."""
    if isinstance(state, Tensor):
        # Its own contiguous memory: safetensors refuses tensors that share.
        return {prefix: state.detach().cpu().contiguous().clone()}, {"tensor": prefix}
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


def unwritten(error: OSError | SafetensorError, path: Path) -> OSError:
    """The error of a write with the path that its message lacks; safetensors has its number only in the text."""
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, str(path))
    number = re.search(r"os error (\d+)|code: (\d+)", str(error))
    code = int(number[1] or number[2]) if number else errno.EIO
    return OSError(code, os.strerror(code), str(path))


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk before a rename promises them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
