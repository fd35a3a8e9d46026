"""gemelo-ai/vocos on mels: a state dict with its config.yaml; Siuzdak, arXiv 2306.00814.

A checkpoint of its training holds discriminators and losses too, and its configuration the three parts under `model`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gansound.generators.vocos import vocos_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import Described
from gansound.mel import MelSpec

TITLE = "Vocos (gemelo-ai/vocos)"
_CLASSES = {
    "feature_extractor": "MelSpectrogramFeatures", "backbone": "VocosBackbone", "head": "ISTFTHead",
}  # fmt: skip
# What the mel's class takes; from `f_min` on in forks of it alone, whose mels are HiFi-GAN's.
_MEL: dict[str, Any] = {
    "sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100, "padding": "center",
    "f_min": 0.0, "f_max": None, "mel_scale": None, "norm": None,
}  # fmt: skip


def recognises(checkpoint: Checkpoint) -> bool:
    """A backbone and a head."""
    return {"backbone.embed.weight", "head.out.weight"} <= checkpoint.weights.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By config.yaml: `feature_extractor`, `backbone` and `head`, each a class with its arguments."""
    if "backbone.norm.scale.weight" in checkpoint.weights:
        raise ImportFailed(
            f"{checkpoint.path}: is the Vocos of EnCodec's codes, expected the one of mels: codes can't be vocoded here"
        )
    training = checkpoint.config.get("model")
    if isinstance(training, Mapping) and isinstance(training.get("init_args"), Mapping):
        checkpoint = replace(checkpoint, config=dict(training["init_args"]))
    for part, name in _CLASSES.items():
        checkpoint.setting(part, "init_args")
        said = str(checkpoint.config[part].get("class_path", name))
        if said.rpartition(".")[2] != name:
            raise ImportFailed(f"{checkpoint.path}: {part}.class_path is {said}, expected Vocos's {name}")
    mel, head = _mel(checkpoint), checkpoint.setting("head", "init_args")
    if head.get("padding", "same") != mel.framing:
        raise ImportFailed(
            f"{checkpoint.path}: its mel is framed {mel.framing!r} and its inverse STFT "
            f"{head.get('padding', 'same')!r}, expected one framing for both"
        )
    if head.get("hop_length", mel.hop_length) != mel.hop_length:
        raise ImportFailed(
            f"{checkpoint.path}: its mel has a hop of {mel.hop_length} and its inverse STFT one of "
            f"{head['hop_length']}, expected one hop for both. Is the configuration that of these weights?"
        )
    sizes = {
        "channels": checkpoint.setting("backbone", "init_args", "dim"),
        "hidden_channels": checkpoint.setting("backbone", "init_args", "intermediate_dim"),
        "blocks": checkpoint.setting("backbone", "init_args", "num_layers"),
        "n_fft": head.get("n_fft", mel.n_fft),
    }
    return Described(
        "gansound.generators.vocos.VocosGenerator",
        sizes,
        mel,
        vocos_keys,
        weights={
            name: tensor
            for name, tensor in checkpoint.weights.items()
            if name.startswith(("backbone.", "head.")) and name != "head.istft.window"
        },
    )


def _mel(checkpoint: Checkpoint) -> MelSpec:
    """torchaudio's, of magnitudes, as `feature_extractor` says it."""
    told: dict[str, Any] = checkpoint.setting("feature_extractor", "init_args")
    if unknown := [name for name in told if name not in _MEL]:
        raise ImportFailed(
            f"{checkpoint.path}: feature_extractor.init_args.{unknown[0]} is {told[unknown[0]]!r}, of a fork whose "
            f"mels aren't known; known are {', '.join(_MEL)}"
        )
    said = _MEL | told
    return MelSpec(
        sample_rate=said["sample_rate"],
        n_fft=said["n_fft"],
        hop_length=said["hop_length"],
        win_length=said["n_fft"],
        n_mels=said["n_mels"],
        fmin=said["f_min"] or 0.0,
        fmax=said["f_max"] or said["sample_rate"] / 2,
        framing=said["padding"],
        magnitude_eps=0.0,
        floor=1e-7,
        mel_scale=said["mel_scale"] or "htk",
        mel_norm=said["norm"] or "none",
    )
