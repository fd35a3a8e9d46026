"""The mel conventions of the projects in this field, each read from that project's own code."""

from typing import Any


def _row(
    rate: int, n_fft: int, hop: int, bands: int, fmin: float, fmax: float, **more: Any
) -> dict[str, Any]:
    return {
        "sample_rate": rate,
        "n_fft": n_fft,
        "hop_length": hop,
        "win_length": n_fft,
        "n_mels": bands,
        "fmin": fmin,
        "fmax": fmax,
    } | more


_CENTRED: dict[str, Any] = {"framing": "center", "magnitude_eps": 0.0}
_PWG: dict[str, Any] = _CENTRED | {
    "log": "log10",
    "floor": 1e-10,
}  # the stats of stats.h5 go into mean and scale
PRESETS: dict[str, dict[str, Any]] = {
    "melgan_neurips": _row(22050, 1024, 256, 80, 0, 11025, magnitude_eps=0.0, log="log10"),
    "hifigan": _row(22050, 1024, 256, 80, 0, 8000),
    "bigvgan_22khz": _row(22050, 1024, 256, 80, 0, 8000),
    "bigvgan_24khz": _row(24000, 1024, 256, 100, 0, 12000),
    "bigvgan_44khz": _row(44100, 2048, 512, 128, 0, 22050),
    "tacotron2": _row(22050, 1024, 256, 80, 0, 8000, **_CENTRED),
    "seungwonpark_melgan": _row(22050, 1024, 256, 80, 0, 8000, **_CENTRED, mean=(-5.0,), scale=(5.0,)),
    "parallel_wavegan": _row(22050, 1024, 256, 80, 80, 7600, **_PWG),
    "parallel_wavegan_24khz": _row(24000, 2048, 300, 80, 80, 7600, **_PWG) | {"win_length": 1200},
    # transformers' SpeechT5FeatureExtractor: windows of 64 ms, a hop of 16.
    "speecht5": _row(16000, 1024, 256, 80, 80, 7600, **_PWG),
    "vocos_24khz": _row(
        24000, 1024, 256, 100, 0, 12000, **_CENTRED, floor=1e-7, mel_scale="htk", mel_norm="none"
    ),
    # 20 dB of reference and a range of 100 dB onto −4 … 4: 8 (dB − 20 + 100) / 100 − 4 = (dB + 30) / 12.5.
    "coqui": _row(
        22050,
        1024,
        256,
        80,
        0,
        11025,
        **_CENTRED,
        log="db",
        floor=1e-8,
        mean=(-30.0,),
        scale=(12.5,),
        clip=(-4.0, 4.0),
    ),
    "nemo": _row(22050, 1024, 256, 80, 0, 8000, **_CENTRED, padding="zero", window="hann_symmetric"),
    "amphion_24khz": _row(24000, 1024, 256, 100, 0, 12000, magnitude_eps=1e-6),
    "fish_44khz": _row(44100, 2048, 512, 128, 0, 22050, magnitude_eps=1e-6),
    # bigvgan_v2_22khz_80band_256x, behind Seed-VC and IndexTTS 2; bigvgan_v2_22khz_80band_fmax8k_256x is bigvgan_22khz.
    "bigvgan_v2_22khz": _row(22050, 1024, 256, 80, 0, 11025),
    # What Tortoise's diffusion gives its UnivNet, after `denormalize_tacotron_mel`.
    "tortoise": _row(24000, 1024, 256, 100, 0, 12000, **_CENTRED),
    # OpenVPI's NSF-HiFiGAN, with `mel_base: e`; older voices have log10.
    "diffsinger_44khz": _row(44100, 2048, 512, 128, 40, 16000),
    # New ones last: a training on many conventions draws the first of its rate and hop.
    # Chatterbox's too.
    "cosyvoice2": _row(24000, 1920, 480, 80, 0, 8000),
    "cosyvoice3": _row(24000, 1920, 480, 80, 0, 12000),
}


def presets() -> tuple[str, ...]:
    """The names that `MelSpec.preset` knows."""
    return tuple(PRESETS)
