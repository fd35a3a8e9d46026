"""A mel from a file that anyone may have made: nothing in it runs, and it takes no more memory than the file holds."""

import math
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

MEL_SUFFIXES = frozenset({".npy", ".npz", ".pt", ".safetensors"})
_MOST_PACKED = 100  # no mel, silence apart, gets so much smaller
_POINTER = b"version https://git-lfs.github.com/spec/"
_WHAT_TO_DO = "Save one array of numbers, bands x frames"


class _NotThere(ValueError):
    """What stands for a file that isn't there."""


def read_mel(path: str | os.PathLike[str]) -> Tensor | np.ndarray:
    """The one array of a file, by its suffix of :data:`MEL_SUFFIXES`; what it holds is checked by nobody yet.

    Raises:
        ValueError: not a file of one plain array or tensor, or it claims more than the file has room for.
        PermissionError: it may not be read.
    """
    path = Path(path)
    if path.suffix.lower() not in MEL_SUFFIXES:
        raise ValueError(
            f"{path}: expected a mel as {', '.join(sorted(MEL_SUFFIXES))}, got suffix {path.suffix!r}"
        )
    try:
        size = path.stat().st_size
        if size == 0:
            raise _NotThere("the file is empty (0 bytes)")
        if said := lfs_pointer(path):
            raise _NotThere(said)
        read = _READERS[path.suffix.lower()]
        return read(path, size)
    except pickle.UnpicklingError:
        # torch's own text advises to load it anyway, and so to run whatever the file says.
        raise ValueError(
            f"{path}: holds something else than plain tensors, and isn't unpickled: a pickle can run any code. "
            f"{_WHAT_TO_DO}, with torch.save(torch.as_tensor(mel), ...)"
        ) from None
    except _NotThere as error:
        raise ValueError(f"{path}: can't be read as a mel: {error}") from None
    except PermissionError:
        raise
    except Exception as error:  # each reader raises its own kinds
        detail = (
            str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        )
        raise ValueError(f"{path}: can't be read as a mel: {detail}. {_WHAT_TO_DO}") from None


def lfs_pointer(path: Path) -> str:
    """What to say of a file that is a pointer of Git LFS to what it should be; "" of any other. Raises OSError."""
    with path.open("rb") as file:
        found = file.read(len(_POINTER)) == _POINTER
    return "a pointer of Git LFS, not the file itself, which git lfs pull brings" if found else ""


def check_npy(file: BinaryIO, size: int) -> None:
    """Read a .npy file's header, and hold what it claims against the bytes that follow.

    Raises:
        ValueError: Python objects, or more than follows.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which isn't unpickled: a pickle can run any code")
    claimed, follow = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > follow or min(shape, default=0) < 0:
        raise ValueError(
            f"its header says {dtype} of shape {shape}, {claimed:,} bytes, but {follow:,} bytes follow it"
        )


def _npy(path: Path, size: int) -> np.ndarray:
    with path.open("rb") as file:
        check_npy(file, size)
        file.seek(0)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _npz(path: Path, size: int) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        named = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        entry = _only(named, lambda name: f"numpy.save('mel.npy', numpy.load({path.name!r})[{name!r}])")
        if entry.file_size > _MOST_PACKED * size:
            raise ValueError(f"it would unpack to {entry.file_size:,} bytes, of {size:,}")
        with archive.open(entry) as file:
            check_npy(file, entry.file_size)  # type: ignore[arg-type]
        with archive.open(entry) as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return array


def _pt(path: Path, size: int) -> Tensor:
    with path.open("rb") as file:
        if file.read(1) not in (b"\x80", b"P"):  # a pickle, a zip archive
            raise ValueError("it is no file of torch.save")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise ValueError(
                f"it would unpack to {unpacked:,} bytes, of {size:,}; torch.save compresses nothing"
            )
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    found = _only(loaded, lambda name: f"torch.save(torch.load({path.name!r})[{name!r}], 'mel.pt')")
    if not isinstance(found, Tensor):
        raise ValueError(f"it holds a {type(found).__name__}, expected a tensor")
    if found.layout != torch.strided or found.device.type != "cpu" or found.is_quantized:
        raise ValueError(
            f"it holds a tensor of {found.dtype}, layout {found.layout}, on {found.device}, expected a plain one"
        )
    claimed = found.numel() * found.element_size()
    if claimed > size:
        raise ValueError(
            f"it holds a tensor of shape {tuple(found.shape)}, {claimed:,} bytes, in a file of {size:,}: one that "
            "repeats its values (expanded). Save mel.contiguous()"
        )
    return found


def _safetensors(path: Path, size: int) -> Tensor:
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:  # holds shapes against the file by itself
        names = {name: name for name in file.keys()}  # noqa: SIM118 - it is no dict
        name = _only(
            names, lambda name: f"torch.save(safetensors.torch.load_file({path.name!r})[{name!r}], 'mel.pt')"
        )
        tensor: Tensor = file.get_tensor(name)
    return tensor


def _only(found: Any, take_out: Callable[[Any], str]) -> Any:
    """The one entry of a dict, or what isn't one; `take_out` is the Python that saves an entry alone, by its name."""
    if not isinstance(found, dict):
        return found
    if not found:
        raise ValueError("expected one array, got none")
    if len(found) != 1:
        likeliest = next((name for name in found if "mel" in str(name).lower()), next(iter(found)))
        names = ", ".join(map(str, list(found)[:5]))
        raise ValueError(
            f"expected one array, got {len(found)}: {names}. Take out the mel: {take_out(likeliest)}"
        )
    return next(iter(found.values()))


_READERS: dict[str, Callable[[Path, int], Tensor | np.ndarray]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".safetensors": _safetensors,
}
