"""NSF-HiFiGAN of singing synthesis: openvpi/vocoders, and what DiffSinger, DDSP-SVC and so-vits-svc make of it.

`{"generator": …}` with its config.json, as openvpi/SingingVocoders exports it. Kong et al., arXiv 2010.05646, and Wang
et al., arXiv 1904.12088. Where a mini-NSF is, whose source is another, the weights say. Its code has had an epsilon of
1e-9 in the root of a bin's power, and has none now: either is lost below the floor.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansound.frames import PitchedSpec
from gansound.generators.nsf_hifigan import MINI_STAGE, nsf_hifigan_keys
from gansound.importers import hifigan
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import SAME_NOISE, Described

TITLE = "NSF-HiFiGAN (openvpi/vocoders, DiffSinger, DDSP-SVC)"
CLASS = "gansound.generators.nsf_hifigan.NSFHiFiGANGenerator"
_FULL, _MINI = "noise_convs.0.weight", "source_conv.weight"
_HARMONICS = "m_source.l_linear.weight"


def recognises(checkpoint: Checkpoint) -> bool:
    """HiFi-GAN's names beside a convolution of a source, and none of a net that finds the pitch itself."""
    names = checkpoint.weights.keys()
    return hifigan.recognises(checkpoint) and not names.isdisjoint({_FULL, _MINI})


def describe(checkpoint: Checkpoint) -> Described:
    """By config.json; the kind of source by the names of the weights."""
    weights = checkpoint.weights
    if (sigma := checkpoint.config.get("noise_sigma") or 0.0) > 0:
        raise ImportFailed(
            f"{checkpoint.path}: noise_sigma {sigma}, expected 0 as of the published ones: noise within the net can't "
            "be had here. With 0 in its configuration it is imported, and sounds as its mean"
        )
    sizes = hifigan.sizes(checkpoint)
    source = sourced(checkpoint, weights, sizes)
    mel = hifigan.mel(checkpoint)
    if mel.n_fft != mel.win_length:
        raise ImportFailed(
            f"{checkpoint.path}: n_fft is {mel.n_fft} and win_size {mel.win_length}, expected the same: its code would "
            "begin such mels' frames earlier than any convention here"
        )
    notes = [
        "takes a pitch beside the mel, Hz for each frame: vocoder(mel, f0=f0). It was trained on one that goes on "
        "where there is none, from the last to the next; 0 is taken too"
    ]
    return Described(
        CLASS,
        sizes | source | {"n_mels": sizes["n_mels"] + 1, "sample_rate": mel.sample_rate},
        PitchedSpec(mel),
        nsf_hifigan_keys,
        notes=notes + ([] if source["mini"] else [SAME_NOISE]) + hifigan.notes_on(sizes),
    )


def sourced(
    checkpoint: Checkpoint, weights: Mapping[str, Tensor], sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """What the weights say of the source, as arguments of `NSFHiFiGANGenerator`.

    Args:
        checkpoint: for what is said where it is refused.
        weights: of the generator alone.
        sizes: of its stages.

    Raises:
        ImportFailed: a net with such a source, but another.
    """
    if other := next((name for name in weights if "snake" in name or "alpha" in name), None):
        raise ImportFailed(
            f"{checkpoint.path}: holds {other}: it is an NSF-HiFiGAN with Snakes, as so-vits-svc's nsf-snake-hifigan; "
            "expected one with leaky ReLUs"
        )
    if _MINI in weights:
        width = sizes["channels"] >> (MINI_STAGE + 1)
        if weights[_MINI].numel() != width:
            raise ImportFailed(
                f"{checkpoint.path}: source_conv.weight has shape {tuple(weights[_MINI].shape)}, expected that of a "
                f"pointwise convolution to {width} channels, a mini-NSF's"
            )
        return {"mini": True}
    if _HARMONICS not in weights:
        raise ImportFailed(
            f"{checkpoint.path}: has no {_HARMONICS}, which each NSF-HiFiGAN with noise_convs has"
        )
    rates = list(sizes["upsample_rates"])
    for stage in range(len(rates)):
        stride = math.prod(rates[stage + 1 :])
        weight = weights.get(f"noise_convs.{stage}.weight")
        taps = 1 if stride == 1 else 2 * stride
        if weight is None or weight.shape[-1] != taps:
            found = "isn't there" if weight is None else f"has {weight.shape[-1]} taps"
            raise ImportFailed(
                f"{checkpoint.path}: noise_convs.{stage} {found}, expected {taps} taps by upsample_rates {rates}. Is "
                "the configuration that of these weights?"
            )
    return {"mini": False, "harmonics": weights[_HARMONICS].numel() - 1}
