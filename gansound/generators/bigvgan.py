"""BigVGAN's generator: HiFi-GAN's, with periodic activations at twice the rate that fold no overtone back.

Lee et al., "BigVGAN: A Universal Neural Vocoder with Large-Scale Training" (arXiv 2206.04658), section 3; layers and
sizes as published in NVIDIA/BigVGAN, whose second version (2024) ends without a tanh and without a bias.
"""

import math
from typing import Any, Literal

from torch import nn

from gansound.generators.hifigan import END_KERNEL_SIZE, hifigan_layer_names, hifigan_layers
from gansound.nn.anti_aliased import AntiAliased
from gansound.nn.conv import Conv1d, published_keys, weight_norm
from gansound.nn.generator import StreamingGenerator
from gansound.nn.snake import Snake, SnakeBeta

# What differs from the defaults, which are the paper's larger net, of 112 million parameters.
BASE: dict[str, Any] = {
    "channels": 512,
    "upsample_rates": (8, 8, 2, 2),
    "upsample_kernel_sizes": (16, 16, 4, 4),
}
V2: dict[str, Any] = {"use_tanh_at_final": False, "use_bias_at_final": False}


class BigVGANGenerator(StreamingGenerator):
    """Mel frames to samples.

    As `HiFiGANGenerator`, but every activation is a Snake between a twofold upsampling and a downsampling
    (`AntiAliased`), and there is none before a transposed convolution.

    Args:
        n_mels: mel bands of the input.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: samples out for each sample in, stage by stage, each 2 or more; their product is
            `hop_length`.
        upsample_kernel_sizes: taps of each stage's transposed convolution, at least its rate.
        residual_kernel_sizes: taps of the convolutions of each chain, odd.
        residual_dilations: for each chain, the dilation in samples of each of its blocks.
        residual_block: 1 follows each dilated convolution by one without dilation, 2 doesn't.
        activation: "snakebeta" has a magnitude of its own, in "snake" the frequency is also the magnitude's inverse.
        snake_logscale: keep the logarithms of both.
        use_tanh_at_final: bound the waveform by a tanh; otherwise it is clipped to -1 … 1.
        use_bias_at_final: a bias in the last convolution.
        causal: look at the past only; for streaming without any look-ahead.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)` in [-1, 1].

    Raises:
        ValueError: an activation of another name, and see `HiFiGANGenerator`.
    """

    def __init__(
        self,
        n_mels: int = 100,
        channels: int = 1536,
        upsample_rates: tuple[int, ...] = (4, 4, 2, 2, 2, 2),
        upsample_kernel_sizes: tuple[int, ...] = (8, 8, 4, 4, 4, 4),
        residual_kernel_sizes: tuple[int, ...] = (3, 7, 11),
        residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        residual_block: Literal[1, 2] = 1,
        activation: Literal["snakebeta", "snake"] = "snakebeta",
        snake_logscale: bool = True,
        use_tanh_at_final: bool = True,
        use_bias_at_final: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ("snakebeta", "snake"):
            raise ValueError(f"activation is 'snakebeta' or 'snake', got {activation!r}")
        self.n_mels = n_mels
        self.hop_length = math.prod(upsample_rates)
        kind = SnakeBeta if activation == "snakebeta" else Snake

        def anti_aliased(width: int) -> nn.Module:
            return AntiAliased(kind(width, log_scale=snake_logscale), causal=causal)

        body, width = hifigan_layers(
            n_mels, channels, upsample_rates, upsample_kernel_sizes, residual_kernel_sizes, residual_dilations,
            residual_block, causal, anti_aliased,
        )  # fmt: skip
        last = Conv1d(width, 1, END_KERNEL_SIZE, bias=use_bias_at_final, causal=causal)
        end = nn.Tanh() if use_tanh_at_final else nn.Hardtanh()
        self.layers = nn.Sequential(*body, anti_aliased(width), weight_norm(last), end)


def bigvgan_keys(generator: BigVGANGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that NVIDIA/BigVGAN uses for the same tensor.

    Theirs are HiFi-GAN's with `ups.i.0`, the parameters of activations as `resblocks.j.activations.k.act.alpha`, where
    k counts those of a chain, and `activation_post.act.alpha`. Their checkpoints also hold the filters, as
    `….upsample.filter` and `….downsample.lowpass.filter`, which are constants here.
    """
    names = hifigan_layer_names(generator)
    per_block = 2 if any(".convs2." in theirs for theirs in names.values()) else 1
    for name, layer in generator.named_modules():
        if not isinstance(layer, AntiAliased):
            continue
        match name.split("."):
            case ["layers", _]:
                theirs = "activation_post"
            case [*chain, block, "branch", place]:
                convolution = ".".join([*chain, block, "branch", str(int(place) + 1)])
                number = names[convolution].split(".")[1]
                theirs = f"resblocks.{number}.activations.{per_block * int(block) + int(place) // 2}"
        names[f"{name}.activation"] = f"{theirs}.act"
    ours = {name: f"{theirs}.0" if theirs.startswith("ups.") else theirs for name, theirs in names.items()}
    return published_keys(generator, ours)
