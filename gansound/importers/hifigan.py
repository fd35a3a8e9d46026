"""jik876/hifi-gan: `{"generator": …}` with its config.json; Kong et al., arXiv 2010.05646."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.project import Described
from gansound.mel import MelSpec

TITLE = "HiFi-GAN (jik876/hifi-gan)"


def recognises(names: Mapping[str, Tensor]) -> bool:
    """`conv_pre`, `ups.i`, `resblocks.j`, and no activations with weights (BigVGAN)."""
    return {"conv_pre.weight", "ups.0.weight", "conv_post.weight"} <= names.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By config.json."""
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
