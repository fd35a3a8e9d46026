"""MelGAN of descriptinc/melgan-neurips and of seungwonpark/melgan.

Kumar et al., arXiv 1910.06711. Neither writes its sizes down beside the weights, whose shapes tell them.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from gansound.generators.melgan import melgan_neurips_keys
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator

TITLE = "MelGAN (descriptinc/melgan-neurips, seungwonpark/melgan)"
_CLASS = "gansound.generators.melgan.MelGANGenerator"
_SEUNGWONPARK_AUDIO = {
    "sample_rate": "sampling_rate", "n_fft": "filter_length", "hop_length": "hop_length", "win_length": "win_length",
    "n_mels": "n_mel_channels", "fmin": "mel_fmin", "fmax": "mel_fmax",
}  # fmt: skip


def recognises(checkpoint: Checkpoint) -> bool:
    """One Sequential called `model` or `generator`, whose second layer is the first convolution."""
    return _is_neurips(checkpoint.weights) or _is_seungwonpark(checkpoint.weights)


def describe(checkpoint: Checkpoint) -> Described:
    """Sizes by the shapes; the mel is the one that each project computes, seungwonpark's as its settings say."""
    if _is_neurips(checkpoint.weights):
        sizes = sizes_of(checkpoint.weights, r"model\.\d+\.weight", r"model\.\d+\.block\.2\.weight")
        return Described(_CLASS, sizes, MelSpec.preset("melgan_neurips"), melgan_neurips_keys)
    sizes = sizes_of(checkpoint.weights, r"generator\.\d+\.weight", r"generator\.\d+\.blocks\.\d+\.2\.weight")
    return Described(
        _CLASS,
        sizes,
        _seungwonpark_mel(checkpoint),
        partial(keys_of_stacks, "generator"),
        notes=["its inference pads ten frames at the end and cuts them off; here nothing is padded"],
    )


def sizes_of(weights: Mapping[str, Tensor], convolutions: str, blocks: str) -> dict[str, Any]:
    """The sizes of a MelGAN by its shapes.

    Args:
        weights: by their names.
        convolutions: pattern of the names of the first, of the transposed and of the last convolution, in order.
        blocks: pattern of the names of the residual blocks' dilated convolutions.
    """
    ordered = sorted(
        (name for name in weights if re.fullmatch(convolutions, name)),
        key=lambda name: [int(n) for n in re.findall(r"\d+", name)],
    )
    first, *ups, _ = (weights[name] for name in ordered)
    count = sum(bool(re.fullmatch(blocks, name)) for name in weights) // max(1, len(ups))
    return {
        "n_mels": first.shape[1],
        "channels": first.shape[0],
        "upsample_rates": [up.shape[2] // 2 for up in ups],  # a kernel is twice its rate
        "residual_dilations": [3**i for i in range(count)],
    }


def _is_neurips(names: Mapping[str, Tensor]) -> bool:
    return {"model.1.weight", "model.3.weight", "model.4.block.2.weight"} <= names.keys()


def _is_seungwonpark(names: Mapping[str, Tensor]) -> bool:
    return {"generator.1.weight", "generator.3.weight", "generator.4.blocks.0.2.weight"} <= names.keys()


def _seungwonpark_mel(checkpoint: Checkpoint) -> MelSpec:
    """By `audio` of its settings, which lie in a checkpoint of its training; else that of its default.yaml."""
    said = checkpoint.config.get("audio") or {}
    changed = {ours: said[theirs] for ours, theirs in _SEUNGWONPARK_AUDIO.items() if theirs in said}
    return replace(MelSpec.preset("seungwonpark_melgan"), **changed)


def keys_of_stacks(root: str, generator: StreamingGenerator) -> dict[str, str]:
    """Where a stage's blocks are one layer, as in seungwonpark's and Coqui's: our names, and for each theirs.

    Stage i is `root.3+3i`, its blocks `root.4+3i`.blocks and `.shortcuts`.
    """
    stages = sum(key.count(".") == 3 and key.endswith(".1.weight") for key in generator.state_dict())
    keys = {}
    for ours in generator.state_dict():
        match ours.split("."):
            case ["layers", stage, "1", tensor]:
                theirs = f"{3 * int(stage)}.{tensor}"
            case ["layers", stage, place, "branch", index, tensor]:
                theirs = f"{3 * int(stage) + 1}.blocks.{int(place) - 2}.{int(index) + 1}.{tensor}"
            case ["layers", stage, place, "shortcut", tensor]:
                theirs = f"{3 * int(stage) + 1}.shortcuts.{int(place) - 2}.{tensor}"
            case ["layers", layer, tensor]:
                theirs = f"{1 if layer == '0' else 3 * stages + 4}.{tensor}"
            case _:
                raise AssertionError(ours)
        keys[ours] = f"{root}.{theirs}"
    return keys
