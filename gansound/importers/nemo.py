"""NVIDIA's NeMo: the HiFi-GAN of a `.nemo` file, or of its `model_weights.ckpt` beside `model_config.yaml`.

The preprocessor that trains the vocoder pads exactly (`exact_pad`): frames as HiFi-GAN's own, by a symmetric window.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.hifigan import notes_on
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator

TITLE = "NeMo (NVIDIA/NeMo), HifiGanModel"
# FilterbankFeatures' own, of what a configuration leaves out, and the values that a `MelSpec` can say.
_DEFAULTS = {
    "log": True, "log_zero_guard_type": "add", "log_zero_guard_value": 2**-24, "mag_power": 2.0, "preemph": 0.97,
    "window": "hann", "frame_splicing": 1, "normalize": "per_feature", "nfilt": 64, "exact_pad": False,
    "mel_norm": "slaney", "use_grads": False,
}  # fmt: skip
_EXPECTED = {
    "log": True, "log_zero_guard_type": "clamp", "mag_power": 1.0, "preemph": None, "window": "hann",
    "frame_splicing": 1, "normalize": None,
}  # fmt: skip
_ZERO_SINCE = (
    2,
    5,
)  # the version (#13827) from which on its frames are padded with zeros, where they were mirrored
_GUARD = 1e-5  # added to the power where gradients may pass


def recognises(checkpoint: Checkpoint) -> bool:
    """By the configuration; the names are jik876's."""
    return "preprocessor" in checkpoint.config and "conv_pre.weight" in checkpoint.weights


def describe(checkpoint: Checkpoint) -> Described:
    """By model_config.yaml: `generator` and `preprocessor`."""
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
        "gansound.generators.hifigan.HiFiGANGenerator",
        sizes,
        spec,
        _keys(checkpoint.weights),
        notes=notes_on(sizes),
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


def _version(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Of the NeMo that trained it; one from before version 1.7, which was the first to write it down, has none."""
    return tuple(int(n) for n in re.findall(r"\d+", str(checkpoint.config.get("nemo_version", "")))[:2])


def _mel(checkpoint: Checkpoint) -> MelSpec:
    """Its FilterbankFeatures, as far as a `MelSpec` can say it."""
    said: dict[str, Any] = _DEFAULTS | dict(checkpoint.setting("preprocessor"))
    if said["normalize"] in ("None", "null", ""):
        said["normalize"] = None
    checkpoint.expect(said, _EXPECTED, "preprocessor.")
    rate = checkpoint.setting("preprocessor", "sample_rate")
    fmax = said.get("highfreq")
    return MelSpec(
        sample_rate=rate,
        n_fft=checkpoint.setting("preprocessor", "n_fft"),
        hop_length=checkpoint.setting("preprocessor", "n_window_stride"),
        win_length=checkpoint.setting("preprocessor", "n_window_size"),
        n_mels=said.get("features", said["nfilt"]),
        fmin=said.get("lowfreq") or 0.0,
        fmax=rate / 2 if fmax is None else fmax,
        framing="same" if said["exact_pad"] else "center",
        padding="reflect" if _version(checkpoint) < _ZERO_SINCE else "zero",
        window="hann_symmetric",
        mel_norm="slaney" if said["mel_norm"] else "none",
        magnitude_eps=_GUARD if said["use_grads"] else 0.0,
        floor=float(said["log_zero_guard_value"]),
    )
