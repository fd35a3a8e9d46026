"""gemelo-ai/vocos on mels: a state dict with its config.yaml; Siuzdak, arXiv 2306.00814."""

from gansound.generators.vocos import vocos_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import Described
from gansound.mel import MelSpec

TITLE = "Vocos (gemelo-ai/vocos)"


def recognises(checkpoint: Checkpoint) -> bool:
    """A backbone and a head."""
    return {"backbone.embed.weight", "head.out.weight"} <= checkpoint.weights.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By config.yaml: `feature_extractor`, `backbone` and `head`, each a class with its arguments."""
    if "backbone.norm.scale.weight" in checkpoint.weights:
        raise ImportFailed(
            f"{checkpoint.path}: is the Vocos of EnCodec's codes, expected the one of mels: codes can't be vocoded here"
        )
    features = checkpoint.setting("feature_extractor", "init_args")
    head = checkpoint.setting("head", "init_args")
    for part, name in (("feature_extractor", "MelSpectrogramFeatures"), ("head", "ISTFTHead")):
        said = str(checkpoint.config[part].get("class_path", name))
        if said.rpartition(".")[2] != name:
            raise ImportFailed(f"{checkpoint.path}: {part}.class_path is {said}, expected Vocos's {name}")
    framing = head.get("padding", "same")
    if framing != features.get("padding", "center"):
        raise ImportFailed(
            f"{checkpoint.path}: its mel is framed {features.get('padding', 'center')!r} and its inverse STFT "
            f"{framing!r}, expected one framing for both"
        )
    hop = features.get("hop_length", 256)
    if head.get("hop_length", hop) != hop:
        raise ImportFailed(
            f"{checkpoint.path}: its mel has a hop of {hop} and its inverse STFT one of {head['hop_length']}, expected "
            "one hop for both. Is the configuration that of these weights?"
        )
    rate = features.get("sample_rate", 24000)
    mel = MelSpec(
        sample_rate=rate,
        n_fft=features.get("n_fft", 1024),
        hop_length=hop,
        win_length=features.get("n_fft", 1024),
        n_mels=features.get("n_mels", 100),
        fmin=0.0,
        fmax=rate / 2,
        framing=framing,
        magnitude_eps=0.0,
        floor=1e-7,
        mel_scale="htk",
        mel_norm="none",
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
        constants=("head.istft.window", "feature_extractor."),
    )
