"""Checkpoints as folders: safetensors for tensors, JSON for the rest, written beside and then renamed.

`checkpoints/step_00001000/` holds one `NAME.safetensors` for each part of the run's state and a `state.json` with the
step, whatever of the parts isn't a tensor, and each file's size and CRC-32. Nothing is pickled. A folder appears under
its name only when every byte of it is on the disk; should a disk or a copy have lost some all the same, it isn't taken.

Of a large state each process writes a share, as torch.distributed.checkpoint has it for tensors that all processes
hold: `NAME.0.safetensors`, `NAME.1.safetensors` … Any number of processes reads either.
"""

import errno
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gansound.engine.own_files import is_own, open_own, read_own

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})")
_BLOCK_BYTES = 1 << 22

Gather = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""Gives each process what all of them gave it."""


@dataclass(frozen=True)
class Share:
    """What one process writes of a checkpoint: its files, and of all parts what isn't a tensor."""

    step: int
    run: str | None
    rank: int
    writers: int
    files: Mapping[str, Mapping[str, Tensor]]
    rest: Mapping[str, Any]
    dealt: int
    """The CRC-32 of what was dealt out, which is the same in all."""


def write(share: Share, folder: Path, gather: Gather | None = None) -> Path:
    """Write a share of `folder/step_NNNNNNNN`, which is there once the first process returns.

    Args:
        share: of this process.
        folder: of the checkpoints.
        gather: where several write; all processes call it then.

    Raises:
        OSError: the disk is full, in any process; what was there before is left.
    """
    target, beside = folder / f"step_{share.step:08d}", _beside(folder, share.step)
    said: dict[str, Any] = {"dealt": share.dealt, "sizes": {}, "crc32": {}}
    try:
        try:
            beside.mkdir(parents=True, exist_ok=True)
            for name, tensors in share.files.items():
                save_file(dict(tensors), beside / name)
                said["sizes"][name] = (beside / name).stat().st_size
                said["crc32"][name] = crc32(beside / name)
                sync(beside / name)
        except (OSError, SafetensorError) as error:
            said["error"] = [(whole := unwritten(error, target)).errno, whole.strerror]
        everyone = [said] if gather is None else gather(said)
        for rank, other in enumerate(everyone):
            if "error" in other:
                raise OSError(*other["error"])
            if other["dealt"] != share.dealt:
                raise ValueError(
                    f"process {rank} trains other networks than process {share.rank}: start all anew"
                )
        if share.rank > 0:
            return target
        record: dict[str, Any] = {"step": share.step, "run": share.run}
        for key in ("sizes", "crc32"):
            record[key] = {name: value for other in everyone for name, value in other[key].items()}
        record["rest"] = share.rest
        record["own_crc32"] = _crc32_of(record)
        (beside / "state.json").write_text(json.dumps(record, indent=1))
        sync(beside / "state.json")
        sync(beside)
        if target.exists():
            shutil.rmtree(target)
        os.replace(beside, target)
        sync(folder)
    except BaseException as error:
        if share.rank == 0:
            shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritten(error, target) from error
        raise
    return target


def tensors_of(checkpoint: Path, part: str) -> dict[str, Tensor]:
    """Of a network's state in a checkpoint that this run has written: by its names."""
    files = files_of(checkpoint, record_of(checkpoint), part)
    return {path.removeprefix("/"): tensor for file in files for path, tensor in load_file(file).items()}


def _beside(folder: Path, step: int) -> Path:
    return folder / f".step_{step:08d}.writing"


def files_of(checkpoint: Path, record: Mapping[str, Any], part: str) -> list[Path]:
    """Those that a part lies in."""
    shares = rf"{re.escape(part)}\.\d+\.safetensors"
    found = [checkpoint / name for name in record.get("sizes", ()) if re.fullmatch(shares, name)]
    return found or [checkpoint / f"{part}.safetensors"]


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
        record = record_of(checkpoint)
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


def record_of(checkpoint: Path) -> dict[str, Any]:
    """What its state.json holds. Raises ValueError or KeyError for what isn't a checkpoint's."""
    record = json.loads(read_own(checkpoint / "state.json"))
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("rest"), dict)
        or not isinstance(record.get("sizes", {}), dict)
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
    sweep(folder)


def sweep(folder: Path) -> None:
    """Delete what was begun and never became a checkpoint."""
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
