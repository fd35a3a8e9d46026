"""NVIDIA/BigVGAN, 1 and 2: `{"generator": …}` with its config.json; Lee et al., arXiv 2206.04658."""

from typing import Any

from gansound.generators.bigvgan import bigvgan_keys
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.hifigan import mel, notes_on, sizes
from gansound.importers.project import Described

TITLE = "BigVGAN (NVIDIA/BigVGAN)"
CLASS = "gansound.generators.bigvgan.BigVGANGenerator"
CONSTANTS = (".upsample.filter", ".downsample.lowpass.filter")


def recognises(checkpoint: Checkpoint) -> bool:
    """`ups.i.0` and activations with weights."""
    return {"conv_pre.weight", "ups.0.0.weight", "activation_post.act.alpha"} <= checkpoint.weights.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By config.json."""
    made = arguments(checkpoint)
    return Described(CLASS, made, mel(checkpoint), bigvgan_keys, constants=CONSTANTS, notes=notes_on(made))


def arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of `BigVGANGenerator`, by a configuration in which version 1 leaves out what version 2 added."""
    config = checkpoint.config
    return sizes(checkpoint) | {
        "activation": checkpoint.setting("activation"),
        "snake_logscale": checkpoint.setting("snake_logscale"),
        "use_tanh_at_final": config.get("use_tanh_at_final", True),
        "use_bias_at_final": config.get("use_bias_at_final", True),
    }
