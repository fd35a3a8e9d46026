"""Coqui's TTS (idiap/coqui-ai-TTS): HiFi-GANs and MelGANs of its `GAN` model, `model_g.…`, with config.json.

Its mel is librosa's, centred, and whatever its AudioProcessor is told: a gain, decibels shifted and scaled into a
range, or mean and scale of each band. At inference it repeats the first and the last frame five times over, two times
for a MelGAN, which makes its sound ten hops longer, or four; `docs/hosts.md` says how to have that.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from gansound.generators.hifigan import hifigan_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.hifigan import notes_on, residual_blocks
from gansound.importers.melgan import keys_of_stacks, sizes_of
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.mel.spec import Log

TITLE = "Coqui's TTS (idiap/coqui-ai-TTS)"
_FLOOR = 1e-8  # of its `amp_to_db`
# What its BaseAudioConfig takes where a configuration is silent.
_AUDIO = {
    "preemphasis": 0.0, "stft_pad_mode": "reflect", "do_amp_to_db_mel": True, "log_func": "np.log10", "spec_gain": 20.0,
    "signal_norm": True, "min_level_db": -100, "ref_level_db": 20, "symmetric_norm": True, "max_norm": 4.0,
    "clip_norm": True,
}  # fmt: skip
_MELGAN = {"layers.1.weight", "layers.3.weight", "layers.4.blocks.0.2.weight"}
_BANK = "pqmf_layer."
_LOGS: dict[str, Log] = {"np.log": "ln", "np.log10": "log10"}


def recognises(checkpoint: Checkpoint) -> bool:
    """A HiFi-GAN by the configuration, for its names are jik876's; a MelGAN by its names."""
    hifigan = "generator_model_params" in checkpoint.config and "conv_pre.weight" in checkpoint.weights
    return hifigan or checkpoint.weights.keys() >= _MELGAN


def describe(checkpoint: Checkpoint) -> Described:
    """By config.json: `generator_model_params` and `audio`."""
    audio = _AUDIO | checkpoint.setting("audio")
    spec = _mel(checkpoint, audio)
    if checkpoint.weights.keys() >= _MELGAN:
        return _melgan(checkpoint, spec)
    sizes = {
        "n_mels": checkpoint.weights["conv_pre.weight"].shape[1],
        "channels": checkpoint.setting("generator_model_params", "upsample_initial_channel"),
        "upsample_rates": checkpoint.setting("generator_model_params", "upsample_factors"),
        "upsample_kernel_sizes": checkpoint.setting("generator_model_params", "upsample_kernel_sizes"),
        "residual_kernel_sizes": checkpoint.setting("generator_model_params", "resblock_kernel_sizes"),
    } | residual_blocks(
        checkpoint.weights, checkpoint.setting("generator_model_params", "resblock_dilation_sizes")
    )
    return Described(
        "gansound.generators.hifigan.HiFiGANGenerator",
        sizes,
        spec,
        hifigan_keys,
        notes=[
            "Coqui's inference repeats five frames at both ends and is ten hops longer; here nothing is padded",
            *notes_on(sizes),
        ],
    )


def _melgan(checkpoint: Checkpoint, spec: MelSpec) -> Described:
    """Of one band, full-band ones among them, or of four; the sizes are told by the shapes."""
    sizes = sizes_of(checkpoint.weights, r"layers\.\d+\.weight", r"layers\.\d+\.blocks\.\d+\.2\.weight")
    name = "melgan.MelGANGenerator"
    if any(name.startswith(_BANK) for name in checkpoint.weights):
        name = "multi_band_melgan.MultiBandMelGANGenerator"
        sizes |= {"pqmf_cutoff_ratio": 0.15, "pqmf_coqui": True}  # of which it has one only
    return Described(
        f"gansound.generators.{name}",
        sizes,
        spec,
        partial(keys_of_stacks, "layers"),
        constants=(_BANK,),
        notes=[
            "Coqui's inference repeats two frames at both ends and is four hops longer; here nothing is padded"
        ],
    )


def _mel(checkpoint: Checkpoint, audio: Mapping[str, Any]) -> MelSpec:
    """What its AudioProcessor computes, as far as a `MelSpec` can say it."""
    refused = {
        "preemphasis": audio["preemphasis"] or None,
        "stft_pad_mode": None if audio["stft_pad_mode"] == "reflect" else audio["stft_pad_mode"],
        "do_amp_to_db_mel": None if audio["do_amp_to_db_mel"] else False,
    }
    for name, value in refused.items():
        if value is not None:
            raise ImportFailed(f"{checkpoint.path}: audio.{name} is {value}, which no mel here has")
    function, gain = audio["log_func"], float(audio["spec_gain"])
    if function not in _LOGS or gain <= 0:
        raise ImportFailed(
            f"{checkpoint.path}: audio.log_func {function!r} by spec_gain {gain:g}, expected np.log or np.log10 by a "
            "number above 0"
        )
    log: Log = "db" if (function, gain) == ("np.log10", 20.0) else _LOGS[function]
    unit = (
        1.0 if log == "db" else gain
    )  # its value is gain * logarithm; what isn't in `log` goes into mean and scale
    rate = checkpoint.setting("audio", "sample_rate")
    mean, scale, clip = _normalisation(checkpoint, audio)
    fmax = audio.get("mel_fmax")
    return MelSpec(
        sample_rate=rate,
        n_fft=checkpoint.setting("audio", "fft_size"),
        hop_length=checkpoint.setting("audio", "hop_length"),
        win_length=checkpoint.setting("audio", "win_length"),
        n_mels=checkpoint.setting("audio", "num_mels"),
        fmin=audio.get("mel_fmin") or 0.0,
        fmax=rate / 2 if fmax is None else fmax,
        framing="center",
        magnitude_eps=0.0,
        log=log,
        floor=_FLOOR,
        mean=tuple(value / unit for value in mean),
        scale=tuple(value / unit for value in scale),
        clip=clip,
    )


def _normalisation(
    checkpoint: Checkpoint, audio: Mapping[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, float] | None]:
    """Mean and scale of its decibels, and the range they are clipped to."""
    if not audio["signal_norm"]:
        return (0.0,), (1.0,), None
    if audio.get("stats_path"):
        if checkpoint.statistics is None:
            raise ImportFailed(
                f"{checkpoint.path}: its mels are normalised by {audio['stats_path']}, a pickle, which isn't run here. "
                "Save its mel_mean and mel_std as two rows of a stats.npy, and give that too"
            )
        return (*checkpoint.statistics, None)
    least, reference = float(audio["min_level_db"] or 0), float(audio["ref_level_db"] or 0)
    most = float(audio["max_norm"] or 1.0)
    if least >= 0:
        raise ImportFailed(f"{checkpoint.path}: audio.min_level_db is {least:g}, expected decibels below 0")
    low, span = (-most, 2 * most) if audio["symmetric_norm"] else (0.0, most)
    # value = low + span * (db - reference - least) / -least, so it is (db - mean) / scale:
    scale = -least / span
    mean = reference + least - low * scale
    return (mean,), (scale,), (low, most) if audio["clip_norm"] else None
