"""jik876/hifi-gan: `{"generator": …}` with its config.json; Kong et al., arXiv 2010.05646."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel

TITLE = "HiFi-GAN (jik876/hifi-gan)"
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
    last = checkpoint.weights.get("conv_post.weight")
    if last is not None and len(last) > 1:
        raise ImportFailed(
            f"{checkpoint.path}: conv_post has {len(last)} channels, expected HiFi-GAN's one. It looks like an "
            "iSTFTNet's, whose frames stand elsewhere than those of the iSTFTNet here, so that it can't be imported"
        )
    return Described(
        "gansound.generators.hifigan.HiFiGANGenerator", sizes(checkpoint), mel(checkpoint), hifigan_keys
    )


def sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    """The generator's, as HiFi-GAN and BigVGAN name them."""
    return {
        "n_mels": checkpoint.setting("num_mels"),
        "channels": checkpoint.setting("upsample_initial_channel"),
        "upsample_rates": checkpoint.setting("upsample_rates"),
        "upsample_kernel_sizes": checkpoint.setting("upsample_kernel_sizes"),
        "residual_kernel_sizes": checkpoint.setting("resblock_kernel_sizes"),
        "residual_dilations": checkpoint.setting("resblock_dilation_sizes"),
        "residual_block": int(checkpoint.setting("resblock")),
    }


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
