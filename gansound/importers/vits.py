"""The decoder of a VITS: jaywalnut310/vits, Piper's voices, transformers' `VitsModel` (MMS-TTS), Coqui's `Vits`.

Of what speaks with the voice of a recording: GPT-SoVITS 1, 2 and 2 Pro, and OpenVoice's converter. And of what converts
voices by one: RVC and so-vits-svc, whose decoders are NSF-HiFiGANs, on a pitch beside the latent.

Kim et al., "Conditional Variational Autoencoder with Adversarial Learning for End-to-End Text-to-Speech", ICML 2021,
arXiv 2106.06103: HiFi-GAN's net, its last convolution without bias, on a latent in place of a mel. The other half of
the checkpoint, which makes that latent of text, is left aside. Where a net has several voices, the chosen one's
embedding adds the same to every frame behind the first convolution, and so goes into its bias; where it takes any, the
one that was given. OpenVoice's second version gives its decoder a row of zeros (`zero_g`) and no voice.
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
from gansound.importers.hifigan import net, notes_on, sizes_by_shape
from gansound.importers.project import SAME_NOISE, Described
from gansound.importers.voice import fold_voice, shown, voice_of

TITLE = (
    "VITS (jaywalnut310/vits, Piper, transformers' VitsModel, Coqui's Vits, GPT-SoVITS, OpenVoice, RVC, so-vits-svc), "
    "its decoder"
)
_DECODERS = ("dec.", "decoder.", "waveform_decoder.")
_EMBEDDINGS = ("emb_g.weight", "embed_speaker.weight")
_SPEAKERS = ("speaker_id_map", "spk", "speakers", "spk2id")


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
    if strides := checkpoint.config.get("strides"):  # of an ONNX file's graph
        stages = sum(re.fullmatch(r"ups\.\d+\.weight", name) is not None for name in weights)
        rates = [strides[f"{decoder}ups.{i}.weight"] for i in range(stages)]
        steps: dict[str, list[int]] = {}
        for name, step in checkpoint.config["dilations"].items():
            if found := re.fullmatch(rf"{re.escape(decoder)}(resblocks\.\d+)\.convs1?\.\d+\.weight", name):
                steps.setdefault(found[1], []).append(step)
        dilations = [steps[f"resblocks.{j}"] for j in range(len(steps) // stages)]
    else:
        rates = _setting(checkpoint, "upsample_rates", "upsample_rates_decoder")
        dilations = _setting(checkpoint, "resblock_dilation_sizes", "resblock_dilation_sizes_decoder")
    return sizes_by_shape(weights, rates, dilations)


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
    length = weights[f"{layer}.weight"].shape[1]
    speaker: str | None = None
    if next(_settings(checkpoint, "zero_g"), False):
        embedding = torch.zeros(length)
    elif checkpoint.voice is None and (table := _table(checkpoint.weights)) is not None:
        speaker, number = _speaker(checkpoint, table)
        embedding = table[number]
    else:
        embedding, speaker = voice_of(checkpoint, length)
    fold_voice(weights, {layer: "conv_pre"}, embedding)
    return speaker


def _table(weights: Mapping[str, Tensor]) -> Tensor | None:
    return next((weights[name] for name in _EMBEDDINGS if name in weights), None)


def _speaker(checkpoint: Checkpoint, table: Tensor) -> tuple[str, int]:
    """Whose voice of a table it is to be, as it was said and by its row."""
    names = next((found for found in _settings(checkpoint, *_SPEAKERS) if isinstance(found, Mapping)), {})
    of_rvc = checkpoint.config.get("f0") is not None  # whose table has 109, and one voice as a rule
    one = "0" if len(table) == 1 or of_rvc else None
    if len(names) == 1:
        (one,) = map(str, names)
    wanted = one if checkpoint.speaker is None else checkpoint.speaker
    number = names.get(wanted, int(wanted) if wanted is not None and wanted.isdecimal() else None)
    if not isinstance(number, int) or not 0 <= number < len(table):
        raise ImportFailed(
            f"{checkpoint.path}: has {len(table)} voices, got {wanted or 'none named'}, expected one by name or "
            f"number: --speaker 0 to {len(table) - 1}" + (f" ({shown(names)})" if names else "")
        )
    return str(wanted), number
