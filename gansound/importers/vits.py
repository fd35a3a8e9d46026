"""The decoder of a VITS: jaywalnut310/vits, Piper's voices, transformers' `VitsModel` (MMS-TTS), Coqui's `Vits`.

And of what converts voices by one: RVC and so-vits-svc, whose decoders are NSF-HiFiGANs, on a pitch beside the latent.

Kim et al., "Conditional Variational Autoencoder with Adversarial Learning for End-to-End Text-to-Speech", ICML 2021,
arXiv 2106.06103: HiFi-GAN's net, its last convolution without bias, on a latent in place of a mel. The other half of
the checkpoint, which makes that latent of text, is left aside. Where a net has several voices, the chosen one's
embedding adds the same to every frame behind the first convolution, and so goes into its bias.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gansound.frames import LatentSpec, PitchedSpec
from gansound.generators.hifigan import hifigan_keys
from gansound.generators.nsf_hifigan import nsf_hifigan_keys
from gansound.importers import nsf_hifigan
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.hifigan import net, notes_on, residual_blocks
from gansound.importers.project import SAME_NOISE, Described

TITLE = (
    "VITS (jaywalnut310/vits, Piper, transformers' VitsModel, Coqui's Vits, RVC, so-vits-svc), its decoder"
)
_DECODERS = ("dec.", "decoder.", "waveform_decoder.")
_EMBEDDINGS = ("emb_g.weight", "embed_speaker.weight")
_SPEAKERS = ("speaker_id_map", "spk", "speakers", "spk2id")
_SHOWN = 12


def recognises(checkpoint: Checkpoint) -> bool:
    """HiFi-GAN's names inside one of the decoders."""
    return _decoder(checkpoint.weights) is not None


def describe(checkpoint: Checkpoint) -> Described:
    """Widths and kernels by the shapes; rates and dilations by the configuration, or by the graph of an ONNX file."""
    decoder = _decoder(checkpoint.weights)
    assert decoder is not None
    if (slope := checkpoint.config.get("leaky_relu_slope", 0.1)) != 0.1:
        raise ImportFailed(f"{checkpoint.path}: leaky_relu_slope {slope}, expected HiFi-GAN's 0.1")
    weights = {
        re.sub(r"^upsampler\.", "ups.", name.removeprefix(decoder)): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(decoder)
    }
    speaker = _fold_speaker(checkpoint, weights)
    weights.setdefault("conv_post.bias", torch.zeros(len(weights["conv_post.weight"])))
    sizes = _sizes(checkpoint, decoder, weights)
    if any(name.startswith("m_source.") for name in weights):
        return _pitched(checkpoint, weights, sizes, speaker)
    name, more = net(weights["conv_post.weight"], lambda key: _setting(checkpoint, key), phase_range=math.pi)
    hop_length = math.prod(sizes["upsample_rates"]) * more.get("istft_hop_length", 1)
    latent = LatentSpec(
        channels=sizes["n_mels"],
        sample_rate=_setting(checkpoint, "sampling_rate", "sample_rate"),
        hop_length=next(_settings(checkpoint, "hop_length", "hop_size"), hop_length),
    )
    return Described(
        name,
        sizes | more,
        latent,
        hifigan_keys,
        weights=weights,
        speaker=speaker,
        notes=[
            "takes the latents of this VITS, which its own first half makes; no mel and no recording will do",
            *notes_on(sizes | more),
        ],
    )


def _pitched(
    checkpoint: Checkpoint, weights: dict[str, Tensor], sizes: dict[str, Any], speaker: str | None
) -> Described:
    """Of RVC and so-vits-svc."""
    source = nsf_hifigan.sourced(checkpoint, weights, sizes)
    latent = LatentSpec(
        channels=sizes["n_mels"],
        sample_rate=_setting(checkpoint, "sampling_rate", "sample_rate"),
        hop_length=next(_settings(checkpoint, "hop_length", "hop_size"), math.prod(sizes["upsample_rates"])),
    )
    return Described(
        nsf_hifigan.CLASS,
        sizes | source | {"n_mels": latent.channels + 1, "sample_rate": latent.sample_rate},
        PitchedSpec(latent),
        nsf_hifigan_keys,
        weights=weights,
        speaker=speaker,
        notes=[
            "takes the latents of this model, which its own first half makes, and a pitch beside them, Hz for each "
            "frame: vocoder(latent, f0=f0); no mel and no recording will do",
            SAME_NOISE,
            *notes_on(sizes),
        ],
    )


def _decoder(names: Mapping[str, Tensor]) -> str | None:
    for decoder in _DECODERS:
        if f"{decoder}conv_pre.weight" in names and any(
            f"{decoder}{ups}.0.weight" in names for ups in ("ups", "upsampler")
        ):
            return decoder
    return None


def _sizes(checkpoint: Checkpoint, decoder: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `HiFiGANGenerator`."""
    stages = sum(re.fullmatch(r"ups\.\d+\.weight", name) is not None for name in weights)
    block = 1 if "resblocks.0.convs1.0.weight" in weights else 2
    convs = "convs1" if block == 1 else "convs"
    firsts = [name for name in weights if re.fullmatch(rf"resblocks\.\d+\.{convs}\.0\.weight", name)]
    chains = len(firsts) // stages
    first = weights["conv_pre.weight"]
    if strides := checkpoint.config.get("strides"):  # of an ONNX file's graph
        rates = [strides[f"{decoder}ups.{i}.weight"] for i in range(stages)]
        pattern = rf"{re.escape(decoder)}resblocks\.{{}}\.{convs}\.\d+\.weight"
        dilations = [
            [
                step
                for name, step in checkpoint.config["dilations"].items()
                if re.fullmatch(pattern.format(j), name)
            ]
            for j in range(chains)
        ]
    else:
        rates = _setting(checkpoint, "upsample_rates", "upsample_rates_decoder")
        told = _setting(checkpoint, "resblock_dilation_sizes", "resblock_dilation_sizes_decoder")
        dilations = residual_blocks(weights, told)["residual_dilations"]
    return {
        "n_mels": first.shape[1],
        "channels": first.shape[0],
        "upsample_rates": list(rates),
        "upsample_kernel_sizes": [weights[f"ups.{i}.weight"].shape[2] for i in range(stages)],
        "residual_kernel_sizes": [weights[f"resblocks.{j}.{convs}.0.weight"].shape[2] for j in range(chains)],
        "residual_dilations": [list(chain) for chain in dilations],
        "residual_block": block,
    }


def _settings(checkpoint: Checkpoint, *names: str) -> Iterator[Any]:
    """What the configuration says, wherever one of these projects says it."""
    config = checkpoint.config
    inside = [config[place] for place in ("model", "data", "audio", "model_args") if place in config]
    for place in (config, *inside):
        if isinstance(place, Mapping):
            yield from (place[name] for name in names if name in place)


def _setting(checkpoint: Checkpoint, *names: str) -> Any:
    return next(_settings(checkpoint, *names), None) or checkpoint.setting(names[0])


def _fold_speaker(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> str | None:
    """Put a voice's embedding into the bias of the first convolution; the voice, or None where there is one only."""
    layer = next((name for name in ("cond", "cond_layer") if f"{name}.weight" in weights), None)
    if layer is None:
        return None
    table = next((checkpoint.weights[name] for name in _EMBEDDINGS if name in checkpoint.weights), None)
    if table is None:
        raise ImportFailed(
            f"{checkpoint.path}: speaks with the voice of an embedding from elsewhere, expected a table of voices in it"
        )
    names = next((found for found in _settings(checkpoint, *_SPEAKERS) if isinstance(found, Mapping)), {})
    known = ", ".join([*map(str, list(names)[:_SHOWN]), *(["…"] if len(names) > _SHOWN else [])])
    of_rvc = checkpoint.config.get("f0") is not None  # whose table has 109, and one voice as a rule
    one = "0" if len(table) == 1 or of_rvc else None
    if len(names) == 1:
        (one,) = map(str, names)
    wanted = one if checkpoint.speaker is None else checkpoint.speaker
    number = names.get(wanted, int(wanted) if wanted is not None and wanted.isdecimal() else None)
    if not isinstance(number, int) or not 0 <= number < len(table):
        raise ImportFailed(
            f"{checkpoint.path}: has {len(table)} voices, got {wanted or 'none named'}, expected one by name or "
            f"number: --speaker 0 to {len(table) - 1}" + (f" ({known})" if known else "")
        )
    weight, bias = weights.pop(f"{layer}.weight").double(), weights.pop(f"{layer}.bias").double()
    added = weight.flatten(1) @ table[number].double() + bias
    weights["conv_pre.bias"] = (weights["conv_pre.bias"].double() + added).float()
    return str(wanted)
