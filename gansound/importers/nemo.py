"""NVIDIA's NeMo: the HiFi-GAN of a `.nemo` file, or of its `model_weights.ckpt` beside `model_config.yaml`.

The preprocessor that trains the vocoder pads exactly (`exact_pad`): frames as HiFi-GAN's own, by a symmetric window.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator

TITLE = "NeMo (NVIDIA/NeMo), HifiGanModel"
_PREFIX = "generator."


def recognises(checkpoint: Checkpoint) -> bool:
    """HiFi-GAN's names, after `generator.`."""
    return {
        f"{_PREFIX}{name}" for name in ("conv_pre.weight", "conv_post.weight")
    } <= checkpoint.weights.keys()


def describe(checkpoint: Checkpoint) -> Described:
    """By model_config.yaml: `generator` and `preprocessor`."""
    weights = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(_PREFIX)
    }
    spec = _mel(checkpoint)
    sizes = {
        "n_mels": spec.n_mels,
        "channels": checkpoint.setting("generator", "upsample_initial_channel"),
        "upsample_rates": checkpoint.setting("generator", "upsample_rates"),
        "upsample_kernel_sizes": checkpoint.setting("generator", "upsample_kernel_sizes"),
        "residual_kernel_sizes": checkpoint.setting("generator", "resblock_kernel_sizes"),
        "residual_dilations": checkpoint.setting("generator", "resblock_dilation_sizes"),
        "residual_block": int(checkpoint.setting("generator", "resblock")),
    }
    return Described(
        "gansound.generators.hifigan.HiFiGANGenerator", sizes, spec, _keys(weights), weights=weights
    )


def _keys(weights: Mapping[str, Tensor]) -> Any:
    """NeMo keeps chains by stage, `resblocks.i.j.…`, where jik876's code counts them through, and names `res`."""

    def keys(generator: StreamingGenerator) -> dict[str, str]:
        found = hifigan_keys(generator)
        if not any(name.startswith("resblocks.0.0.") for name in weights):
            return found
        chains = len({name.split(".")[2] for name in weights if name.startswith("resblocks.0.")})
        return {ours: _by_stage(theirs, chains) for ours, theirs in found.items()}

    return keys


def _by_stage(name: str, chains: int) -> str:
    first, _, rest = name.partition(".")
    if first != "resblocks":
        return name
    number, _, rest = rest.partition(".")
    return f"resblocks.{int(number) // chains}.{int(number) % chains}.{rest}"


def _mel(checkpoint: Checkpoint) -> MelSpec:
    """Its FilterbankFeatures, as far as a `MelSpec` can say it."""
    said: dict[str, Any] = dict(checkpoint.setting("preprocessor"))
    expected = {
        "log": True, "log_zero_guard_type": "clamp", "mag_power": 1.0, "preemph": None, "window": "hann",
        "frame_splicing": 1,
    }  # fmt: skip
    for name, value in expected.items():
        if said.get(name, value) != value:
            raise ImportFailed(
                f"{checkpoint.path}: preprocessor.{name} is {said[name]!r}, expected {value!r}"
            )
    if said.get("normalize") not in (None, "None", "null", ""):
        raise ImportFailed(
            f"{checkpoint.path}: preprocessor.normalize is {said['normalize']!r}, expected none"
        )
    rate = checkpoint.setting("preprocessor", "sample_rate")
    exact = said.get("exact_pad", False)
    fmax = said.get("highfreq")
    return MelSpec(
        sample_rate=rate,
        n_fft=checkpoint.setting("preprocessor", "n_fft"),
        hop_length=checkpoint.setting("preprocessor", "n_window_stride"),
        win_length=checkpoint.setting("preprocessor", "n_window_size"),
        n_mels=said.get("nfilt", said.get("features", 80)),
        fmin=said.get("lowfreq") or 0.0,
        fmax=rate / 2 if fmax is None else fmax,
        framing="same" if exact else "center",
        padding="zero",
        window="hann_symmetric",
        mel_norm="slaney" if said.get("mel_norm", "slaney") else "none",
        magnitude_eps=0.0,
        floor=float(said.get("log_zero_guard_value", 1e-5)),
    )
