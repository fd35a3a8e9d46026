"""The decoders of DAC and SNAC: descript-audio-codec's `weights.pth`, `snac`'s folders, transformers' `DacModel`.

Kumar et al., arXiv 2306.06546; Siuzdak et al., arXiv 2410.14411. Of the codec only what makes sound of codes is read,
not the encoder. Parler-TTS's DAC is found too, alone or in a whole Parler-TTS.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gansound.frames import CodeSpec
from gansound.generators.dac import dac_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import SAME_NOISE, Described

TITLE = "DAC or SNAC (descriptinc/descript-audio-codec, hubertsiuzdak/snac, transformers' DacModel)"
_FIRST = re.compile(r"(|.*\.)quantizer\.quantizers\.0\.codebook\.weight")
_BEGINS = ("decoder.model.0.weight", "decoder.conv1.weight")
# Where the settings lie besides the configuration itself: in the file of weights; of a whole Parler-TTS.
_WITHIN = ("kwargs", "audio_encoder")


def recognises(checkpoint: Checkpoint) -> bool:
    """Codebooks, and beside them a decoder that begins as DAC's."""
    codec = _codec(checkpoint.weights)
    return any(name in codec for name in _BEGINS)


def describe(checkpoint: Checkpoint) -> Described:
    """Sizes by the shapes; the rate, and how the codebooks' rates differ, by the configuration."""
    codec = _codec(checkpoint.weights)
    if any(".to_qkv." in name for name in codec):
        raise ImportFailed(
            f"{checkpoint.path}: has attention over windows of codes, as SNAC at 32 and 44 kHz, which isn't to be had "
            "here. Expected SNAC at 24 kHz, or a DAC"
        )
    weights, books = _sounding(checkpoint, codec)
    stages = sorted(  # in their order, which a file needn't have
        (name for name in weights if re.fullmatch(r"decoder\.model\.\d+\.block\.1\.weight", name)),
        key=lambda name: int(name.split(".")[2]),
    )
    taps = [weights[name].shape[-1] for name in stages]
    if not stages or any(count % 2 for count in taps):
        raise ImportFailed(
            f"{checkpoint.path}: upsamples by kernels of {', '.join(map(str, taps)) or 'no'} taps, expected two for "
            "each sample of a stage's rate"
        )
    first = weights.get("decoder.model.0.weight")
    if first is None or first.dim() != 3:
        raise ImportFailed(f"{checkpoint.path}: has no decoder.model.0.weight of three dimensions")
    depthwise = first.shape[1] == 1
    noise = any(name.endswith(".linear.weight") for name in weights)
    codebooks = _codebooks(checkpoint, books, depthwise or noise)
    sizes: dict[str, Any] = {
        "codebooks": codebooks,
        "codebook_size": len(weights["quantizer.codebook.tables"]) // books,
        "codebook_channels": weights["quantizer.codebook.tables"].shape[1],
        "latent_channels": len(weights["quantizer.out_proj.weight"]),
        "channels": weights[stages[0]].shape[0],
        "upsample_rates": tuple(count // 2 for count in taps),
        "depthwise": depthwise,
        "noise": noise,
    }
    takes = CodeSpec(
        codebooks,
        sizes["codebook_size"],
        sample_rate=_rate(checkpoint),
        hop_length=codebooks[-1] * math.prod(sizes["upsample_rates"]),
    )
    notes = ["takes the codes of this codec: no mel and no recording will do"]
    if noise:
        notes.append(SAME_NOISE)
    if any(rate % 2 for rate in sizes["upsample_rates"]):
        notes.append("its own code leaves out a few samples at an utterance's end, and these are there")
    return Described(
        "gansound.generators.dac.DACGenerator", sizes, takes, dac_keys, weights=weights, notes=notes
    )


def _codec(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Inside whatever holds it, by the names of its first codebook."""
    found = next(filter(None, map(_FIRST.fullmatch, weights)), None)
    if found is None:
        return {}
    within = found[1]
    return {name.removeprefix(within): tensor for name, tensor in weights.items() if name.startswith(within)}


def _sounding(checkpoint: Checkpoint, codec: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The decoder by DAC's names, with all codebooks' vectors and projections as one, and how many there are."""
    depth = 1 + max(
        (int(found[1]) for name in codec if (found := re.match(r"decoder\.block\.(\d+)\.", name))), default=0
    )
    weights = {
        _dac_name(name, depth): tensor for name, tensor in codec.items() if name.startswith("decoder.")
    }
    parts: dict[str, list[Tensor]] = {"codebook.weight": [], "out_proj.weight": [], "out_proj.bias": []}
    books = 0
    while f"quantizer.quantizers.{books}.codebook.weight" in codec:
        for part, tensors in parts.items():
            name = f"quantizer.quantizers.{books}.{part}"
            if name not in codec:
                raise ImportFailed(f"{checkpoint.path}: has no {name}, which each codebook has")
            tensors.append(codec[name])
        books += 1
    for part, tensors in parts.items():
        if shapes := {tuple(tensor.shape) for tensor in tensors} - {tuple(tensors[0].shape)}:
            raise ImportFailed(
                f"{checkpoint.path}: quantizer.quantizers have {part} of shapes {tuple(tensors[0].shape)} and "
                f"{min(shapes)}, expected codebooks of one size"
            )
    weights["quantizer.codebook.tables"] = torch.cat(parts["codebook.weight"])
    weights["quantizer.out_proj.weight"] = torch.cat(parts["out_proj.weight"], 1)
    weights["quantizer.out_proj.bias"] = torch.stack(parts["out_proj.bias"]).double().sum(0).float()
    return weights, books


def _dac_name(name: str, depth: int) -> str:
    """DAC's name of a weight of its decoder, by that of transformers; any other stays what it is."""
    _, *path, tensor = name.split(".")
    match path:
        case ["conv1"]:
            place = "0"
        case ["snake1"]:
            place = f"{depth + 1}"
        case ["conv2"]:
            place = f"{depth + 2}"
        case ["block", stage, ("snake1" | "conv_t1") as part]:
            place = f"{int(stage) + 1}.block.{('snake1', 'conv_t1').index(part)}"
        case ["block", stage, unit, part] if unit.startswith("res_unit"):
            inner = ("snake1", "conv1", "snake2", "conv2").index(part)
            place = f"{int(stage) + 1}.block.{int(unit.removeprefix('res_unit')) + 1}.block.{inner}"
        case _:
            return name
    return f"decoder.model.{place}.{tensor}"


def _settings(checkpoint: Checkpoint, name: str) -> Any:
    """What the configuration says, wherever it says it; None where nothing does."""
    config = checkpoint.config
    places = [config, *(config[inner] for inner in _WITHIN if isinstance(config.get(inner), Mapping))]
    return next((place[name] for place in places if name in place), None)


def _rate(checkpoint: Checkpoint) -> int:
    for name in ("sampling_rate", "sample_rate"):
        if (rate := _settings(checkpoint, name)) is not None:
            return int(rate)
    return int(checkpoint.setting("sampling_rate"))


def _codebooks(checkpoint: Checkpoint, books: int, several_rates: bool) -> tuple[int, ...]:
    """Codes of each codebook in a frame: one of DAC's, and of SNAC's as its strides tell."""
    strides = _settings(checkpoint, "vq_strides")
    if strides is None and not several_rates:
        return (1,) * books
    strides = checkpoint.setting("vq_strides") if strides is None else strides
    if len(strides) != books or min(strides) < 1 or any(strides[0] % stride for stride in strides):
        raise ImportFailed(
            f"{checkpoint.path}: vq_strides are {strides!r}, expected {books}, one for each codebook, each a divisor "
            "of the first"
        )
    if strides[-1] != 1:
        raise ImportFailed(
            f"{checkpoint.path}: vq_strides are {strides!r}, expected 1 of the finest codebook: nothing else can be "
            "had here"
        )
    return tuple(strides[0] // stride for stride in strides)
