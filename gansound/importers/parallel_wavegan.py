"""kan-bayashi/ParallelWaveGAN: MelGAN, full-band, multi-band MelGAN and HiFi-GAN, with config.yml and stats.h5.

Its weights mean nothing without the statistics of the mels they were trained on, which here become the mean and the
scale of the convention.
"""

import re
from collections.abc import Mapping
from typing import Any

from gansound.generators import hifigan, melgan
from gansound.importers.checkpoint import Checkpoint, ImportFailed
from gansound.importers.project import Described
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator

# What a net here has, and what the project's code takes where config.yml is silent.
_NET = {"kernel_size": 7, "bias": True, "nonlinear_activation": "LeakyReLU", "use_causal_conv": False}
_MELGAN = _NET | {
    "stack_kernel_size": 3, "pad": "ReflectionPad1d", "pad_params": {}, "use_final_nonlinear_activation": True,
}  # fmt: skip

TITLE = "ParallelWaveGAN (kan-bayashi/ParallelWaveGAN): MelGAN, multi-band MelGAN, HiFi-GAN"


def recognises(checkpoint: Checkpoint) -> bool:
    """One Sequential called `melgan`, or HiFi-GAN's `input_conv`, `upsamples.i.1`; causal ones, to be refused."""
    some: tuple[set[str], ...] = (
        {"melgan.1.weight", "melgan.3.weight"},
        {"melgan.0.conv.weight"},
        {"input_conv.weight", "upsamples.0.1.weight", "output_conv.1.weight"},
        {"input_conv.conv.weight", "upsamples.0.1.deconv.weight"},
    )
    return any(names <= checkpoint.weights.keys() for names in some)


def describe(checkpoint: Checkpoint) -> Described:
    """By config.yml, where older versions spell kernel `kernal`."""
    arguments = _spelled(checkpoint.setting("generator_params"))
    if not any(name.startswith("melgan.") for name in checkpoint.weights):
        _check(checkpoint, arguments, _NET, hifigan.NEGATIVE_SLOPE)
        sizes = _hifigan(arguments)
        return Described(
            "gansound.generators.hifigan.HiFiGANGenerator", sizes, mel(checkpoint), _hifigan_keys
        )
    _check(checkpoint, arguments, _MELGAN, melgan.NEGATIVE_SLOPE)
    sizes = {
        "n_mels": arguments.get("in_channels", 80),
        "channels": arguments.get("channels", 512),
        "upsample_rates": arguments.get("upsample_scales", [8, 8, 2, 2]),
        "residual_dilations": [3**i for i in range(arguments.get("stacks", 3))],
    }
    bands = arguments.get("out_channels", 1)
    if bands == 1:
        return Described(
            "gansound.generators.melgan.MelGANGenerator", sizes, mel(checkpoint), melgan.parallel_wavegan_keys
        )
    pqmf = {"taps": 62, "cutoff_ratio": 0.142, "beta": 9.0}
    if "pqmf_params" in checkpoint.config:
        pqmf |= checkpoint.config["pqmf_params"]
    else:
        pqmf["cutoff_ratio"] = _cutoff(
            checkpoint.config.get("version", "0.1.0")
        )  # which the first didn't write
    more = {"bands": bands} | {f"pqmf_{name}": pqmf[name] for name in ("taps", "cutoff_ratio", "beta")}
    return Described(
        "gansound.generators.multi_band_melgan.MultiBandMelGANGenerator",
        sizes | more,
        mel(checkpoint),
        melgan.parallel_wavegan_keys,
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
    ours = {"window": "hann", "sampling_rate_for_feats": rate}
    checkpoint.expect(ours | config, ours)
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


def _check(
    checkpoint: Checkpoint, arguments: Mapping[str, Any], ours: Mapping[str, Any], slope: float
) -> None:
    """Refuse a net that isn't built here, by the generator's arguments. Raises ImportFailed."""
    checkpoint.expect({**ours, **arguments}, ours, "generator_params.")
    said = arguments.get("nonlinear_activation_params", {"negative_slope": slope})
    slopes = {"negative_slope": 0.01} | dict(said or {})  # torch's default
    checkpoint.expect(slopes, {"negative_slope": slope}, "generator_params.nonlinear_activation_params.")


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
    for ours, theirs in hifigan.hifigan_keys(generator).items():
        theirs = re.sub(r"^conv_pre\.", "input_conv.", theirs)
        theirs = re.sub(r"^conv_post\.", "output_conv.1.", theirs)
        theirs = re.sub(r"^ups\.(\d+)\.", r"upsamples.\1.1.", theirs)
        keys[ours] = re.sub(r"^resblocks\.(\d+)\.convs(\d?)\.(\d+)\.", _of_block, theirs)
    return keys


def _of_block(name: re.Match[str]) -> str:
    """A residual block's convolutions are `convs1` also where no `convs2` follow."""
    block, which, place = name.groups()
    return f"blocks.{block}.convs{which or 1}.{place}.1."


def _spelled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("kernal", "kernel"): value for name, value in arguments.items()}
