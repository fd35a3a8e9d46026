"""The voice of a decoder that speaks with an embedding made elsewhere: of a recording, by another part of its project.

An embedding is the same for all of an utterance, so that what a pointwise convolution makes of it, added behind another
layer, is a bias of that layer.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansound.importers.checkpoint import Checkpoint, ImportFailed, read_plain

FILES = (".npy", ".pt", ".pth", ".safetensors")
_EMBEDDING = "speaker_embedding"  # XTTS's, beside the latents that its language model begins with
_SHOWN = 12


def voice_of(checkpoint: Checkpoint, length: int, beside: str | None = None) -> tuple[Tensor, str]:
    """The embedding that was given, and what to call it: the speaker, or the file's name.

    Args:
        checkpoint: with `voice`, a file of one embedding or, as XTTS's, of several by their speakers' names.
        length: numbers of an embedding.
        beside: the name of the project's own file of voices, which is taken where a speaker is named and no file.

    Shape:
        `(length,)`

    Raises:
        ImportFailed: none was given, the file holds none, or not of this speaker, or one of another length.
    """
    path = checkpoint.voice
    if path is None and beside is not None and checkpoint.speaker is not None:
        path = checkpoint.path.parent / beside
    if path is None or not path.exists():
        asked = f" (no {path.name} lies beside it)" if path is not None else ""
        raise ImportFailed(
            f"{checkpoint.path}: speaks with the voice of an embedding from elsewhere{asked}, expected a file of one, "
            f"{length} numbers: --voice FILE ({', '.join(FILES)})"
            + (f", or a speaker of {beside}: --speaker NAME" if beside is not None else "")
        )
    held = read_plain(path)
    if isinstance(held, Mapping) and any(isinstance(value, Mapping) for value in held.values()):
        if checkpoint.speaker not in held:
            raise ImportFailed(
                f"{path}: holds {len(held)} voices, got {checkpoint.speaker or 'none named'}, expected one by name: "
                f"--speaker NAME ({shown(held)})"
            )
        return _checked(path, held[checkpoint.speaker], length), str(checkpoint.speaker)
    if checkpoint.speaker is not None:
        raise ImportFailed(
            f"{path}: holds one voice, got speaker {checkpoint.speaker!r}, expected none named"
        )
    return _checked(path, held, length), path.name


def fold_voice(weights: dict[str, Tensor], layers: Mapping[str, str], embedding: Tensor) -> None:
    """Put an embedding into biases, and take out the convolutions that it went through.

    Args:
        weights: of a decoder, weight norm folded; changed.
        layers: names of pointwise convolutions of the embedding and, for each, of the layer behind which it is added.
        embedding: `(length,)`.
    """
    for layer, place in layers.items():
        weight, bias = weights.pop(f"{layer}.weight").double(), weights.pop(f"{layer}.bias").double()
        added = weight.flatten(1) @ embedding.double() + bias
        weights[f"{place}.bias"] = (weights[f"{place}.bias"].double() + added).float()


def stages(weights: Iterable[str], up: str) -> dict[str, str]:
    """Of an embedding that is added before the first stage and behind the upsampling of each, as `fold_voice` takes it.

    Args:
        weights: their names.
        up: the name of stage i's transposed convolution, with `{}` for i.
    """
    numbers = sorted(
        int(found[1]) for name in weights if (found := re.fullmatch(r"conds\.(\d+)\.weight", name))
    )
    return {"cond_layer": "conv_pre"} | {f"conds.{i}": up.format(i) for i in numbers}


def shown(names: Iterable[Any]) -> str:
    """The first of them, for a message."""
    listed = list(map(str, names))
    return ", ".join([*listed[:_SHOWN], *(["…"] if len(listed) > _SHOWN else [])])


def _checked(path: Path, held: Any, length: int) -> Tensor:
    if isinstance(held, Mapping):
        tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
        if _EMBEDDING not in tensors and len(tensors) != 1:
            raise ImportFailed(
                f"{path}: holds {shown(held) or 'nothing'}, expected one embedding, or one called {_EMBEDDING}"
            )
        held = tensors.get(_EMBEDDING, next(iter(tensors.values())))
    if not isinstance(held, Tensor):
        raise ImportFailed(f"{path}: holds a {type(held).__name__}, expected an embedding")
    if held.numel() != length or max(held.shape, default=1) != length:
        raise ImportFailed(
            f"{path}: got an embedding of shape {tuple(held.shape)}, expected {length} numbers, as this decoder was "
            "made for. Is it of the same project and version?"
        )
    embedding = held.flatten().double()
    if held.is_complex() or not bool(torch.isfinite(embedding).all()):
        raise ImportFailed(f"{path}: holds NaN or infinity, expected an embedding")
    return embedding
