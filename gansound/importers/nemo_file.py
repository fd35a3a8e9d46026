"""A `.nemo` file: a tar, gzipped by older versions, of a configuration and a state dict."""

import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
_MOST_CONFIG_BYTES = 1 << 20
_MOST_GROWTH = 16  # of weights that were gzipped; numbers hardly shrink


def read_nemo(path: Path) -> dict[str, Any]:
    """As a checkpoint of PyTorch would hold it: `state_dict` and `config`.

    Nothing is unpacked to the disk, and nothing larger than the file could hold is read.

    Raises:
        ValueError: one of the two isn't in it, or is larger than it can be.
        pickle.UnpicklingError: the state dict holds more than tensors.
    """
    found: dict[str, bytes] = {}
    most = {CONFIG: _MOST_CONFIG_BYTES, WEIGHTS: _MOST_GROWTH * path.stat().st_size}
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name not in most or not member.isreg():
                continue
            if member.size > most[name]:
                raise ValueError(
                    f"{name} in it claims {member.size:,} bytes, expected at most {most[name]:,}"
                )
            file = archive.extractfile(member)
            assert file is not None
            found[name] = file.read(most[name])
    if missing := [name for name in most if name not in found]:
        raise ValueError(f"holds no {missing[0]}, expected NeMo's archive of {CONFIG} and {WEIGHTS}")
    state = torch.load(io.BytesIO(found[WEIGHTS]), map_location="cpu", weights_only=True)
    return {"state_dict": state, "config": yaml.safe_load(found[CONFIG])}
