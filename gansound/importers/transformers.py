"""Hugging Face transformers' HiFi-GANs: `SpeechT5HifiGan` and `FastSpeech2ConformerHifiGan`, by their config.json.

The net is HiFi-GAN's; with `normalize_before` it takes mean and scale of each band off the mel first, which here is
part of the mel's convention: `vocoder.mel_spec` then has them, and turns raw mels into its own exactly.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.hifigan import notes_on
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel
from gansound.nn.generator import StreamingGenerator

TITLE = "SpeechT5HifiGan, FastSpeech2ConformerHifiGan (transformers)"
# The mels of their acoustic models, by bands and rate: neither config says the convention.
_SPEECHT5 = MelSpec(
    sample_rate=16000, n_fft=1024, hop_length=256, win_length=1024, n_mels=80, fmin=80.0, fmax=7600.0,
    framing="center", magnitude_eps=0.0, log="log10", floor=1e-10,
)  # fmt: skip
_FASTSPEECH2 = MelSpec.preset("parallel_wavegan")
_UNKNOWN_MEL = "its configuration doesn't say how its mels are made; that of its acoustic model's is taken"
_MEL = "gansound_mel"  # in a config.json of ours, which transformers carries along unread


def recognises(checkpoint: Checkpoint) -> bool:
    """HiFi-GAN's names with `upsampler.i` for `ups.i`."""
    return {"conv_pre.weight", "upsampler.0.weight", "conv_post.weight"} <= checkpoint.weights.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By config.json and the buffers `mean` and `scale`.

    A `FastSpeech2ConformerWithHifiGan` has the vocoder's configuration in its own, and neither says the rate.
    """
    config = checkpoint.config
    if "FastSpeech2" in str(config.get("architectures")):
        rate = {"sampling_rate": _FASTSPEECH2.sample_rate}
        checkpoint = replace(checkpoint, config=rate | dict(config.get("vocoder_config", config)))
    if checkpoint.config.get("leaky_relu_slope", 0.1) != 0.1:
        raise ImportFailed(
            f"{checkpoint.path}: leaky_relu_slope {checkpoint.config['leaky_relu_slope']}, expected HiFi-GAN's 0.1"
        )
    rate = checkpoint.setting("sampling_rate")
    base = _SPEECHT5 if rate == _SPEECHT5.sample_rate else _FASTSPEECH2
    bands = checkpoint.setting("model_in_dim")
    hop = 1
    for factor in checkpoint.setting("upsample_rates"):
        hop *= factor
    mel = replace(base, sample_rate=rate, n_mels=bands, hop_length=hop)
    known = isinstance(checkpoint.config.get(_MEL), Mapping)
    if known:
        mel = MelSpec.from_dict(dict(checkpoint.config[_MEL]))
    elif checkpoint.setting("normalize_before"):
        mean, scale = (checkpoint.weights.get(name) for name in ("mean", "scale"))
        if mean is None or scale is None or not bool((scale > 0).all()):
            raise ImportFailed(
                f"{checkpoint.path}: normalizes its mels, but has no mean and scale above 0 for each band"
            )
        mel = replace(mel, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))
    sizes = {
        "n_mels": bands,
        "channels": checkpoint.setting("upsample_initial_channel"),
        "upsample_rates": checkpoint.setting("upsample_rates"),
        "upsample_kernel_sizes": checkpoint.setting("upsample_kernel_sizes"),
        "residual_kernel_sizes": checkpoint.setting("resblock_kernel_sizes"),
        "residual_dilations": checkpoint.setting("resblock_dilation_sizes"),
    }

    def keys(generator: StreamingGenerator) -> dict[str, str]:
        pairs = hifigan_keys(generator).items()
        return {ours: theirs.replace("ups.", "upsampler.", 1) for ours, theirs in pairs}

    return Described(
        "gansound.generators.hifigan.HiFiGANGenerator",
        sizes,
        mel,
        keys,
        constants=("mean", "scale"),
        notes=notes_on(sizes) + [_UNKNOWN_MEL] * (not known),
    )


def written(model: LoadedModel, sizes: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The way back: config.json and model.safetensors, mean and scale of the mels as `SpeechT5HifiGan` holds them.

    Raises:
        ValueError: residual blocks of the second kind.
    """
    if sizes["residual_block"] != 1:
        raise ValueError(
            f"{model.path}: has residual blocks without a second convolution, as HiFi-GAN's V3, and transformers holds "
            "the others only. Export it as hifigan or onnx"
        )
    spec = model.mel
    normalized = (spec.mean, spec.scale) != ((0.0,), (1.0,))
    config = {
        "architectures": ["SpeechT5HifiGan"],
        "model_type": "hifigan",
        "model_in_dim": spec.n_mels,
        "sampling_rate": spec.sample_rate,
        "upsample_initial_channel": sizes["channels"],
        "upsample_rates": sizes["upsample_rates"],
        "upsample_kernel_sizes": sizes["upsample_kernel_sizes"],
        "resblock_kernel_sizes": sizes["residual_kernel_sizes"],
        "resblock_dilation_sizes": sizes["residual_dilations"],
        "leaky_relu_slope": 0.1,
        "normalize_before": normalized,
        _MEL: spec.to_dict(),
    }
    weights = {name.replace("ups.", "upsampler.", 1): tensor for name, tensor in state.items()}
    for name, values in (("mean", spec.mean), ("scale", spec.scale)):
        weights[name] = torch.tensor(values).expand(spec.n_mels).contiguous()
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"}),
    }
