"""kan-bayashi/ParallelWaveGAN: MelGAN, full-band, multi-band MelGAN and HiFi-GAN, with config.yml and stats.h5.

Its weights mean nothing without the statistics of the mels they were trained on, which here become the mean and the
scale of the convention.
"""

import re
from collections.abc import Mapping
from typing import Any

from gansound.generators.hifigan import hifigan_keys
from gansound.generators.melgan import parallel_wavegan_keys
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator

TITLE = "ParallelWaveGAN (kan-bayashi/ParallelWaveGAN): MelGAN, multi-band MelGAN, HiFi-GAN"


def recognises(checkpoint: Checkpoint) -> bool:
    """One Sequential called `melgan`, or HiFi-GAN's `input_conv`, `upsamples.i.1`."""
    return {"melgan.1.weight", "melgan.3.weight"} <= checkpoint.weights.keys() or {
        "input_conv.weight", "upsamples.0.1.weight", "output_conv.1.weight",
    } <= checkpoint.weights.keys()  # fmt: skip


def describe(checkpoint: Checkpoint) -> Described:
    """By config.yml, where older versions spell kernel `kernal`."""
    arguments = _spelled(checkpoint.setting("generator_params"))
    if "melgan.1.weight" not in checkpoint.weights:
        sizes = _hifigan(arguments)
        return Described(
            "gansound.generators.hifigan.HiFiGANGenerator", sizes, mel(checkpoint), _hifigan_keys
        )
    sizes = {
        "n_mels": arguments.get("in_channels", 80),
        "channels": arguments.get("channels", 512),
        "upsample_rates": arguments.get("upsample_scales", [8, 8, 2, 2]),
        "residual_dilations": [
            arguments.get("stack_kernel_size", 3) ** i for i in range(arguments.get("stacks", 3))
        ],
    }
    bands = arguments.get("out_channels", 1)
    if bands == 1:
        return Described(
            "gansound.generators.melgan.MelGANGenerator", sizes, mel(checkpoint), parallel_wavegan_keys
        )
    pqmf = {"subbands": bands, "taps": 62, "beta": 9.0} | checkpoint.config.get("pqmf_params", {})
    cutoff = pqmf.get("cutoff_ratio", _cutoff(checkpoint.config.get("version", "0.5.0")))
    more = {"bands": bands, "pqmf_taps": pqmf["taps"], "pqmf_cutoff_ratio": cutoff, "pqmf_beta": pqmf["beta"]}
    return Described(
        "gansound.generators.multi_band_melgan.MultiBandMelGANGenerator",
        sizes | more,
        mel(checkpoint),
        parallel_wavegan_keys,
        constants=("pqmf.",),
    )


def mel(checkpoint: Checkpoint) -> MelSpec:
    """bin/preprocess.py's: librosa's mel, log10 floored at 1e-10, centred, normalised by stats."""
    if checkpoint.statistics is None:
        raise ImportFailed(
            f"{checkpoint.path}: no stats.h5 (or stats.npy) beside it, without which its weights mean nothing: they "
            "were trained on mels less their mean, over their scale. Give it too, beside checkpoint and config.yml"
        )
    config = checkpoint.config
    rate, n_fft = checkpoint.setting("sampling_rate"), checkpoint.setting("fft_size")
    mean, scale = checkpoint.statistics
    fmin, fmax = config.get("fmin"), config.get("fmax")
    return MelSpec(
        sample_rate=rate,
        n_fft=n_fft,
        hop_length=checkpoint.setting("hop_size"),
        win_length=config.get("win_length") or n_fft,
        n_mels=checkpoint.setting("num_mels"),
        fmin=0.0 if fmin is None else fmin,
        fmax=rate / 2 if fmax is None else fmax,
        framing="center",
        magnitude_eps=0.0,
        log="log10",
        floor=1e-10,
        mean=mean,
        scale=scale,
    )


def _cutoff(version: str) -> float:
    """PQMF's default cut-off was 0.15 up to version 0.4.2."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", str(version))[:3])
    return 0.15 if numbers and numbers <= (0, 4, 2) else 0.142


def _hifigan(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n_mels": arguments.get("in_channels", 80),
        "channels": arguments.get("channels", 512),
        "upsample_rates": arguments.get("upsample_scales", [8, 8, 2, 2]),
        "upsample_kernel_sizes": arguments.get("upsample_kernel_sizes", [16, 16, 4, 4]),
        "residual_kernel_sizes": arguments.get("resblock_kernel_sizes", [3, 7, 11]),
        "residual_dilations": arguments.get("resblock_dilations", [[1, 3, 5], [1, 3, 5], [1, 3, 5]]),
        "residual_block": 1 if arguments.get("use_additional_convs", True) else 2,
    }


def _hifigan_keys(generator: StreamingGenerator) -> dict[str, str]:
    keys = {}
    for ours, theirs in hifigan_keys(generator).items():
        theirs = re.sub(r"^conv_pre\.", "input_conv.", theirs)
        theirs = re.sub(r"^conv_post\.", "output_conv.1.", theirs)
        theirs = re.sub(r"^ups\.(\d+)\.", r"upsamples.\1.1.", theirs)
        keys[ours] = re.sub(r"^resblocks\.(\d+)\.(convs\d?)\.(\d+)\.", r"blocks.\1.\2.\3.1.", theirs)
    return keys


def _spelled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("kernal", "kernel"): value for name, value in arguments.items()}
