"""The decoder of XTTS (coqui-ai/TTS, idiap/coqui-ai-TTS), `HifiDecoder`: out of its model.pth, or of a fine-tuned one.

Casanova et al., "XTTS: a Massively Multilingual Zero-Shot Text-to-Speech Model", Interspeech 2024, arXiv 2406.04904: a
HiFi-GAN on the last hidden states of a GPT, whose speaker's embedding is added before the first stage and behind the
upsampling of each. Frames are those latents interpolated in time, to `output_hop_length` and then to the sound's rate.
"""

from typing import Any

import torch

from gansound.frames import LatentSpec
from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.hifigan import sizes_by_shape
from gansound.importers.project import Described
from gansound.importers.voice import fold_voice, stages, voice_of

TITLE = "XTTS (coqui-ai/TTS, idiap/coqui-ai-TTS), its decoder"
_VOICES = "speakers_xtts.pth"
# Of HifiDecoder, which no configuration changes.
_RATES = (8, 8, 2, 2)
_DILATIONS = ((1, 3, 5),) * 3


def recognises(checkpoint: Checkpoint) -> bool:
    """HiFi-GAN's names, and an embedding behind its stages."""
    return _prefix(checkpoint) is not None


def describe(checkpoint: Checkpoint) -> Described:
    """Widths and kernels by the shapes; rates of the sound by `model_args` of config.json."""
    prefix = _prefix(checkpoint)
    assert prefix is not None
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(prefix)
    }
    embedding, speaker = voice_of(checkpoint, weights["cond_layer.weight"].shape[1], _VOICES)
    fold_voice(weights, stages(weights, "ups.{}"), embedding)
    weights.setdefault("conv_post.bias", torch.zeros(1))
    sizes = sizes_by_shape(weights, _RATES, _DILATIONS)
    args: dict[str, Any] = {
        name: checkpoint.setting("model_args", name)
        for name in ("input_sample_rate", "output_sample_rate", "output_hop_length", "gpt_code_stride_len")
    }
    factors = (
        args["gpt_code_stride_len"] / args["output_hop_length"],
        args["output_sample_rate"] / args["input_sample_rate"],
    )
    latent = LatentSpec(
        sizes["n_mels"],
        args["output_sample_rate"],
        args["output_hop_length"],
        tuple(factor for factor in factors if factor != 1),
    )
    return Described(
        "gansound.generators.hifigan.HiFiGANGenerator",
        sizes,
        latent,
        hifigan_keys,
        weights=weights,
        speaker=speaker,
        notes=[
            "takes the latents of XTTS's GPT, interpolated: frame_spec.interpolate(latents), or piece by piece "
            "frame_spec.interpolation(); no mel and no recording will do"
        ],
    )


def _prefix(checkpoint: Checkpoint) -> str | None:
    """What the decoder's names begin with."""
    first = "conds.0.weight"
    found = (name.removesuffix(first) for name in checkpoint.weights if name.endswith(first))
    return next((prefix for prefix in found if f"{prefix}ups.0.weight" in checkpoint.weights), None)
