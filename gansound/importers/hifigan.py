"""jik876/hifi-gan: `{"generator": …}` with its config.json; Kong et al., arXiv 2010.05646.

And iSTFTNet as rishikksh20/iSTFTNet-pytorch makes it of that code: the same names, and more channels at the end.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel

TITLE = "HiFi-GAN (jik876/hifi-gan), iSTFTNet (rishikksh20/iSTFTNet-pytorch)"
# What its code reads of a configuration besides the net and the mel: the published training.
_TRAINING = {
    "num_gpus": 0, "batch_size": 16, "learning_rate": 0.0002, "adam_b1": 0.8, "adam_b2": 0.99, "lr_decay": 0.999,
    "seed": 1234, "segment_size": 8192, "fmax_for_loss": None, "num_workers": 4,
    "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321", "world_size": 1},
}  # fmt: skip


def recognises(checkpoint: Checkpoint) -> bool:
    """`conv_pre`, `ups.i`, `resblocks.j`, and no activations with weights (BigVGAN)."""
    return {"conv_pre.weight", "ups.0.weight", "conv_post.weight"} <= checkpoint.weights.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By config.json."""
    made = sizes(checkpoint)
    name, more = net(checkpoint.weights["conv_post.weight"], checkpoint.setting, phase_range=1.0)
    return Described(name, made | more, mel(checkpoint), hifigan_keys, notes=notes_on(made | more))


def net(last: Tensor, setting: Callable[[str], Any], phase_range: float) -> tuple[str, dict[str, Any]]:
    """The class of our generator, and its arguments besides HiFi-GAN's: an iSTFTNet where it has more than one channel.

    Args:
        last: weight of the last convolution.
        setting: a value of the configuration.
        phase_range: radians of the largest phase, if it is one.
    """
    if len(last) == 1:
        return "gansound.generators.hifigan.HiFiGANGenerator", {}
    return "gansound.generators.istftnet.ISTFTNetGenerator", {
        "n_fft": setting("gen_istft_n_fft"),
        "istft_hop_length": setting("gen_istft_hop_size"),
        "framing": "center",
        "phase_range": phase_range,
    }


def sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    """The generator's, as HiFi-GAN and BigVGAN name them."""
    return {
        "n_mels": checkpoint.setting("num_mels"),
        "channels": checkpoint.setting("upsample_initial_channel"),
        "upsample_rates": checkpoint.setting("upsample_rates"),
        "upsample_kernel_sizes": checkpoint.setting("upsample_kernel_sizes"),
        "residual_kernel_sizes": checkpoint.setting("resblock_kernel_sizes"),
    } | residual_blocks(checkpoint.weights, checkpoint.setting("resblock_dilation_sizes"))


def sizes_by_shape(
    weights: Mapping[str, Tensor], rates: Sequence[int], dilations: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The generator's, of weights by HiFi-GAN's names, with what their shapes don't tell.

    Args:
        weights: of the generator alone, weight norm folded.
        rates: of each stage.
        dilations: of each chain of residual blocks.
    """
    stages = sum(re.fullmatch(r"ups\.\d+\.weight", name) is not None for name in weights)
    blocks = residual_blocks(weights, dilations)
    convs = "convs1" if blocks["residual_block"] == 1 else "convs"
    firsts = [name for name in weights if re.fullmatch(rf"resblocks\.\d+\.{convs}\.0\.weight", name)]
    first = weights["conv_pre.weight"]
    return {
        "n_mels": first.shape[1],
        "channels": first.shape[0],
        "upsample_rates": list(rates),
        "upsample_kernel_sizes": [weights[f"ups.{i}.weight"].shape[2] for i in range(stages)],
        "residual_kernel_sizes": [
            weights[f"resblocks.{j}.{convs}.0.weight"].shape[2] for j in range(len(firsts) // stages)
        ],
    } | blocks


def residual_blocks(weights: Mapping[str, Tensor], dilations: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Kind and dilations of a HiFi-GAN's residual blocks, by the names of their convolutions.

    Its code takes a `resblock` of 1 for the second kind, where it isn't the text "1", and of a chain's dilations as
    many as a block has convolutions.
    """
    block = 1 if "resblocks.0.convs1.0.weight" in weights else 2
    counts = Counter(
        int(found[1])
        for name in weights
        if (found := re.fullmatch(r"resblocks\.(\d+)\.convs1?\.\d+\.weight", name))
    )
    chains = [list(chain[: counts[j] or None]) for j, chain in enumerate(dilations)]
    return {"residual_block": block, "residual_dilations": chains}


def notes_on(sizes: Mapping[str, Any]) -> list[str]:
    """What is otherwise than in the project's own code: where kernels overlap by an odd number of samples.

    That code cuts (kernel - rate) // 2 at both ends and makes one sample too many, which no training there gets
    through; code that was changed so that it does cuts the odd one off the start, as `TransposedConv1d`.
    """
    rates, kernels = list(sizes["upsample_rates"]), list(sizes["upsample_kernel_sizes"])
    more = 0
    for rate, kernel in zip(rates, kernels, strict=False):
        more = more * rate + (kernel - rate) % 2
    if not more:
        return []
    more *= sizes.get("istft_hop_length", 1)
    return [
        f"kernels of {kernels} at rates {rates} overlap by odd numbers of samples; here a frame is a hop of sound, "
        f"where the project's own code begins {more} samples earlier and makes {more} more"
    ]


def mel(checkpoint: Checkpoint) -> MelSpec:
    """meldataset.py's: Slaney's filters, natural log floored at 1e-5, mirrored by (n_fft − hop) / 2."""
    rate = checkpoint.setting("sampling_rate")
    fmax = checkpoint.config.get("fmax")
    return MelSpec(
        sample_rate=rate,
        n_fft=checkpoint.setting("n_fft"),
        hop_length=checkpoint.setting("hop_size"),
        win_length=checkpoint.setting("win_size"),
        n_mels=checkpoint.setting("num_mels"),
        fmin=checkpoint.setting("fmin"),
        fmax=rate / 2 if fmax is None else fmax,
    )


def written(model: LoadedModel, sizes: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The way back: `g_00000000` with weight norm, and config.json.

    Raises:
        ValueError: a mel that its configuration has no words for.
    """
    spec = model.mel
    theirs = MelSpec.preset("hifigan")
    names = ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "fmin", "fmax")
    theirs = replace(theirs, **{name: getattr(spec, name) for name in names})
    if different := spec.differences(theirs):
        raise ValueError(
            f"{model.path}: hifi-gan's code makes its mels its own way ({'; '.join(different)}). Export it as onnx"
        )
    dilations = {1: 3, 2: 2}[sizes["residual_block"]]
    if spec.n_mels != 80 or any(len(chain) != dilations for chain in sizes["residual_dilations"]):
        raise ValueError(
            f"{model.path}: has {spec.n_mels} mel bands and residual_dilations {sizes['residual_dilations']}, expected "
            f"80 and {dilations} in each chain, as hifi-gan's code is written for. Export it as onnx"
        )
    config = {
        "resblock": str(sizes["residual_block"]),
        "upsample_rates": sizes["upsample_rates"],
        "upsample_kernel_sizes": sizes["upsample_kernel_sizes"],
        "upsample_initial_channel": sizes["channels"],
        "resblock_kernel_sizes": sizes["residual_kernel_sizes"],
        "resblock_dilation_sizes": sizes["residual_dilations"],
        "num_mels": spec.n_mels,
        "num_freq": spec.n_fft // 2 + 1,
        "n_fft": spec.n_fft,
        "hop_size": spec.hop_length,
        "win_size": spec.win_length,
        "sampling_rate": spec.sample_rate,
        "fmin": spec.fmin,
        "fmax": spec.fmax,
    }
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight"):
            length = torch.linalg.vector_norm(
                tensor.double(), dim=tuple(range(1, tensor.dim())), keepdim=True
            )
            weights |= {f"{name}_g": length.float(), f"{name}_v": tensor}
        else:
            weights[name] = tensor
    file = io.BytesIO()
    torch.save({"generator": weights}, file)
    return {"g_00000000": file.getvalue(), "config.json": json.dumps(config | _TRAINING, indent=4).encode()}
