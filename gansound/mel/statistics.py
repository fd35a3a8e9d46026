"""Mean and scale of a mel's bands over a corpus, from the files in which projects keep them.

ParallelWaveGAN's stats.h5 (`mean`, `scale`) or stats.npy (two rows), ESPnet's feats_stats.npz (`count`, `sum`,
`sum_square`), Matcha-TTS's `mel_mean` and `mel_std` as JSON, or tensors of such names.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gansound.mel.files import lfs_pointer

STATISTICS_SUFFIXES = (".h5", ".npy", ".npz", ".json", ".pt")
_MOST_BYTES = 1 << 20
_MEAN, _SCALE, _VARIANCE = ("mean", "mel_mean"), ("scale", "std", "mel_std"), ("var", "variance")
_EXPECTED = (
    "Expected a mean and a scale (or std, or var), a number or one for each band, under these names; or two rows "
    "(.npy), or ESPnet's count, sum and sum_square (.npz)"
)

Numbers = tuple[float, ...]


def read_statistics(path: Path) -> tuple[Numbers, Numbers]:
    """Mean and scale of each band, or one of all: `MelSpec`'s, of the logarithms they were counted from.

    Raises:
        ValueError: it holds none, not as many means as scales, one that isn't finite, or a scale that isn't above 0.
        OSError: it can't be read.
    """
    size = path.stat().st_size
    if said := lfs_pointer(path) or ("is empty" if size == 0 else ""):
        raise ValueError(f"{path}: {said}")
    if path.suffix not in STATISTICS_SUFFIXES or size > _MOST_BYTES:
        raise ValueError(
            f"{path}: {size:,} bytes, can't be statistics: expected at most {_MOST_BYTES:,} in a file of "
            f"{', '.join(STATISTICS_SUFFIXES)}"
        )
    try:
        mean, scale = _mean_and_scale(_content(path))
    except ImportError:
        raise ValueError(
            f"{path}: needs h5py to be read: pip install h5py (or save it as .npy, two rows: mean and scale)"
        ) from None
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: holds more than tensors, a pickle, which isn't run here. {_EXPECTED}"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read as mean and scale: {error}. {_EXPECTED}") from error
    except (
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path}: can't be read as mean and scale: {said.rstrip('.')}. {_EXPECTED}"
        ) from error
    if mean.shape != scale.shape:
        raise ValueError(
            f"{path}: expected a mean and a scale for each band, got {mean.size} and {scale.size} of them"
        )
    if (bad := np.flatnonzero(~(np.isfinite(mean) & np.isfinite(scale) & (scale > 0)))).size:
        raise ValueError(
            f"{path}: expected a mean and a scale above 0 for each band, got {mean[bad[0]]:g} and "
            f"{scale[bad[0]]:g} for band {bad[0]} (of {bad.size} such)"
        )
    return tuple(map(float, mean)), tuple(map(float, scale))


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".pt":
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "r") as file:
            named = {name: file.get(name) for name in (*_MEAN, *_SCALE, *_VARIANCE)}
            found = {name: one for name, one in named.items() if isinstance(one, h5py.Dataset)}
            if (unpacked := sum(one.nbytes for one in found.values())) > _MOST_BYTES:
                raise ValueError(f"it would unpack to {unpacked:,} bytes")
            return {name: one[()] for name, one in found.items()}
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        if (unpacked := sum(entry.file_size for entry in archive.infolist())) > _MOST_BYTES:
            raise ValueError(f"it would unpack to {unpacked:,} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _mean_and_scale(content: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(content, Mapping):
        rows = np.asarray(content, np.float64)
        if rows.ndim != 2 or len(rows) != 2:
            raise ValueError(f"got an array of shape {rows.shape}")
        return rows[0], rows[1]
    if {"count", "sum", "sum_square"} <= set(content):
        count, total, squares = (_row(content[name]) for name in ("count", "sum", "sum_square"))
        mean = total / count
        return mean, np.sqrt(squares / count - mean**2)
    mean, scale = _named(content, _MEAN), _named(content, _SCALE)
    if scale is None and (variance := _named(content, _VARIANCE)) is not None:
        scale = np.sqrt(variance)
    if mean is None or scale is None:
        raise ValueError(f"got {', '.join(map(str, list(content)[:8])) or 'nothing'}")
    return mean, scale


def _named(content: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray | None:
    return next((_row(content[name]) for name in names if name in content), None)


def _row(value: Any) -> np.ndarray:
    return np.ravel(np.asarray(value, np.float64))
