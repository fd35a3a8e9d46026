"""The vocoder of CosyVoice 1 to 3 and of Chatterbox: `hift.pt`, or the `mel2wav` of Chatterbox's `s3gen`.

Li et al., "HiFTNet", arXiv 2309.09493, as FunAudioLLM/CosyVoice and resemble-ai/chatterbox have it. Their files hold no
configuration; the published nets are told by the shapes of the weights.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansound.generators.hift import hift_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import SAME_NOISE, Described
from gansound.mel import MelSpec

TITLE = "HiFT (FunAudioLLM/CosyVoice, resemble-ai/chatterbox)"
_INSIDE_CHATTERBOX = "mel2wav."
_OWN = "f0_predictor.condnet.0.weight"
_RATES: Mapping[tuple[int, ...], tuple[str, tuple[int, ...]]] = {
    (16, 16): ("hifigan", (8, 8)),
    (16, 11, 7): ("cosyvoice2", (8, 5, 3)),
}
"""By the taps of its upsampling: the convention of the mels, and the rates, which no weight's shape tells."""


def recognises(checkpoint: Checkpoint) -> bool:
    """HiFi-GAN's names beside those of a net that tells the pitch."""
    return {"conv_pre.weight", "ups.0.weight", _OWN} <= _vocoder(checkpoint).keys()


def describe(checkpoint: Checkpoint) -> Described:
    """Widths and taps by the shapes; rates, mels and the phases of the source by which of the published nets it is."""
    weights = _vocoder(checkpoint)
    within = _INSIDE_CHATTERBOX if weights is not checkpoint.weights else ""
    for name in ("conv_pre.weight", "conv_post.weight", "ups.0.weight", _OWN, "m_source.l_linear.weight"):
        if name not in weights:
            raise ImportFailed(f"{checkpoint.path}: has no {within}{name}, which each HiFT has")
    stages = _count(weights, "ups.{}.weight")
    taps = tuple(_taps(weights, f"ups.{stage}") for stage in range(stages))
    if taps not in _RATES:
        raise ImportFailed(
            f"{checkpoint.path}: upsamples by kernels of {', '.join(map(str, taps))} taps, expected those of CosyVoice "
            "1 (16, 16) or of CosyVoice 2, 3 and Chatterbox (16, 11, 7): the file says neither its rates nor its mels"
        )
    preset, rates = _RATES[taps]
    causal = _taps(weights, "conv_pre") == 5
    if causal:
        preset = "cosyvoice3"
    chains = _count(weights, "resblocks.{}.convs1.0.weight") // stages
    kernels = tuple(_taps(weights, f"resblocks.{chain}.convs1.0") for chain in range(chains))
    sides = tuple(_taps(weights, f"source_resblocks.{stage}.convs1.0") for stage in range(stages))
    if within or preset == "hifigan":
        phases = "summed"
    else:
        phases = "held" if causal else "interpolated"
    sizes: dict[str, Any] = {
        "channels": len(weights["conv_pre.weight"]),
        "upsample_rates": rates,
        "upsample_kernel_sizes": taps,
        "residual_kernel_sizes": kernels,
        "residual_dilations": tuple(_dilations(weights, f"resblocks.{chain}") for chain in range(chains)),
        "source_kernel_sizes": sides,
        "source_dilations": tuple(
            _dilations(weights, f"source_resblocks.{stage}") for stage in range(stages)
        ),
        "n_fft": len(weights["conv_post.weight"]) - 2,
        "harmonics": weights["m_source.l_linear.weight"].numel() - 1,
        "phases": phases,
        "pitch_channels": len(weights[_OWN]),
        "causal": causal,
    }
    notes = [SAME_NOISE]
    if phases == "interpolated":
        notes.append(
            "its source is CosyVoice 2's since May 2025, with phases interpolated from frame to frame; until then, and "
            'in Chatterbox, the same weights had `"phases": "summed"` (config.json)'
        )
    return Described(
        "gansound.generators.hift.HiFTGenerator",
        sizes,
        MelSpec.preset(preset),
        hift_keys,
        weights=weights,
        notes=notes,
    )


def _vocoder(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """Of Chatterbox's whole second half, the vocoder."""
    inside = {
        name.removeprefix(_INSIDE_CHATTERBOX): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(_INSIDE_CHATTERBOX)
    }
    return inside or checkpoint.weights


def _count(weights: Mapping[str, Tensor], name: str) -> int:
    """How many there are of a numbered layer."""
    return next(number for number in range(len(weights) + 1) if name.format(number) not in weights)


def _taps(weights: Mapping[str, Tensor], layer: str) -> int:
    weight = weights.get(f"{layer}.weight")
    return weight.shape[-1] if weight is not None and weight.dim() else 0


def _dilations(weights: Mapping[str, Tensor], chain: str) -> tuple[int, ...]:
    """1, 3, 5: no weight tells them, and all published nets have those."""
    return tuple(range(1, 2 * _count(weights, chain + ".convs1.{}.weight"), 2))
