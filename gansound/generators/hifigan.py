"""HiFi-GAN's generator: a mel spectrogram to a waveform, each stage seen by several receptive fields at once.

Kong et al., "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech Synthesis", NeurIPS
2020, arXiv 2010.05646, section 2.3 and appendix A.1; layers as published in jik876/hifi-gan.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from gansound.nn.conv import Conv1d, TransposedConv1d, published_keys, weight_norm
from gansound.nn.generator import StreamingGenerator
from gansound.nn.residual import Mean, Residual

NEGATIVE_SLOPE = 0.1
LAST_NEGATIVE_SLOPE = 0.01  # the published code's, torch's default; the paper names one slope only
END_KERNEL_SIZE = 7

# What differs from the defaults, which are the paper's V1.
V2: dict[str, Any] = {"channels": 128}
V3: dict[str, Any] = {
    "channels": 256,
    "upsample_rates": (8, 8, 4),
    "upsample_kernel_sizes": (16, 16, 8),
    "residual_kernel_sizes": (3, 5, 7),
    "residual_dilations": ((1, 2), (2, 6), (3, 12)),
    "residual_block": 2,
}


class HiFiGANGenerator(StreamingGenerator):
    """Mel frames to samples.

    A convolution widens the mel to `channels`; each stage upsamples by its rate, halves the width and takes the mean
    of several chains of residual blocks, each of its own kernel; a last convolution and tanh give the waveform.
    Every convolution pads with zeros. The weights start from torch's default draw: the published N(0, 0.01) has no
    effect under weight norm. The defaults are the paper's V1; `V2` and `V3` are the arguments of its smaller ones.

    Args:
        n_mels: mel bands of the input.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: samples out for each sample in, stage by stage, each 2 or more; their product is
            `hop_length`.
        upsample_kernel_sizes: taps of each stage's transposed convolution, at least its rate.
        residual_kernel_sizes: taps of the convolutions of each chain, odd.
        residual_dilations: for each chain, the dilation in samples of each of its blocks.
        residual_block: 1 follows each dilated convolution by one without dilation, 2 doesn't.
        causal: look at the past only; for streaming without any look-ahead.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)` in (-1, 1).

    Raises:
        ValueError: when a size isn't positive, a rate is below 2 or longer than its kernel, a residual kernel is
            even, lists that belong together differ in length, or `channels` can't be halved once a stage.
    """

    def __init__(
        self,
        n_mels: int = 80,
        channels: int = 512,
        upsample_rates: tuple[int, ...] = (8, 8, 2, 2),
        upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4),
        residual_kernel_sizes: tuple[int, ...] = (3, 7, 11),
        residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        residual_block: Literal[1, 2] = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.hop_length = math.prod(upsample_rates)
        body, width = hifigan_layers(
            n_mels, channels, upsample_rates, upsample_kernel_sizes, residual_kernel_sizes, residual_dilations,
            residual_block, causal,
        )  # fmt: skip
        last = weight_norm(Conv1d(width, 1, END_KERNEL_SIZE, causal=causal))
        self.layers = nn.Sequential(*body, nn.LeakyReLU(LAST_NEGATIVE_SLOPE), last, nn.Tanh())


def hifigan_layers(
    n_mels: int,
    channels: int,
    upsample_rates: tuple[int, ...],
    upsample_kernel_sizes: tuple[int, ...],
    residual_kernel_sizes: tuple[int, ...],
    residual_dilations: tuple[tuple[int, ...], ...],
    residual_block: int,
    causal: bool,
    activation: Callable[[int], nn.Module] | None = None,
) -> tuple[list[nn.Module], int]:
    """The layers of a HiFi-GAN before its last activation and convolution; the arguments are `HiFiGANGenerator`'s.

    `activation` makes one of so many channels for the residual blocks; there is then none before a transposed
    convolution, as in BigVGAN. Without it there are leaky ReLUs in both places.

    Returns:
        the layers, of which the first is the first convolution and each other one a stage, and the width after them.

    Shape:
        together, mel `(B, n_mels, F)` → `(B, width, F * prod(upsample_rates))`.
    """
    if n_mels < 1:
        raise ValueError(f"expected one or more mel bands, got n_mels={n_mels}")
    check_stages(
        channels,
        upsample_rates,
        upsample_kernel_sizes,
        residual_kernel_sizes,
        residual_dilations,
        residual_block,
    )
    inside = activation or (lambda width: nn.LeakyReLU(NEGATIVE_SLOPE))
    layers: list[nn.Module] = [weight_norm(Conv1d(n_mels, channels, END_KERNEL_SIZE, causal=causal))]
    for rate, kernel_size in zip(upsample_rates, upsample_kernel_sizes, strict=True):
        width = channels // 2
        up = TransposedConv1d(channels, width, rate=rate, kernel_size=kernel_size, causal=causal)
        chains = [
            residual_chain(width, size, chain, residual_block, causal, inside)
            for size, chain in zip(residual_kernel_sizes, residual_dilations, strict=True)
        ]
        before = nn.Identity() if activation else nn.LeakyReLU(NEGATIVE_SLOPE)
        layers.append(nn.Sequential(before, weight_norm(up), Mean(*chains)))
        channels = width
    return layers, channels


def check_stages(
    channels: int,
    upsample_rates: tuple[int, ...],
    upsample_kernel_sizes: tuple[int, ...],
    residual_kernel_sizes: tuple[int, ...],
    residual_dilations: tuple[tuple[int, ...], ...],
    residual_block: int = 1,
) -> None:
    """Raises ValueError for stages that `HiFiGANGenerator` couldn't have."""
    if not upsample_rates or len(upsample_rates) != len(upsample_kernel_sizes):
        raise ValueError(
            "expected one or more upsample_rates with a kernel size for each, got "
            f"upsample_rates={upsample_rates}, upsample_kernel_sizes={upsample_kernel_sizes}"
        )
    dilations = [dilation for chain in residual_dilations for dilation in chain]
    if (
        not residual_kernel_sizes
        or len(residual_kernel_sizes) != len(residual_dilations)
        or min(*residual_kernel_sizes, *dilations, 1) < 1
        or any(size % 2 == 0 for size in residual_kernel_sizes)
    ):
        raise ValueError(
            "expected one or more residual_kernel_sizes, odd, with a list of positive dilations for each, got "
            f"residual_kernel_sizes={residual_kernel_sizes}, residual_dilations={residual_dilations}"
        )
    if residual_block not in (1, 2):
        raise ValueError(f"residual_block is 1 or 2, got {residual_block}")
    halvings = 2 ** len(upsample_rates)
    if channels < halvings or channels % halvings:
        raise ValueError(
            f"channels is halved by each of {len(upsample_rates)} stages, so it must be a multiple of "
            f"{halvings}, got {channels}"
        )


def residual_chain(
    channels: int,
    kernel_size: int,
    dilations: tuple[int, ...],
    block: int,
    causal: bool,
    activation: Callable[[int], nn.Module],
) -> nn.Sequential:
    """One after the other, a residual block for each dilation. Shape: `(B, channels, T)` → the same."""
    return nn.Sequential(*(_residual(channels, kernel_size, d, block, causal, activation) for d in dilations))


def _residual(
    channels: int,
    kernel_size: int,
    dilation: int,
    block: int,
    causal: bool,
    activation: Callable[[int], nn.Module],
) -> Residual:
    """A dilated convolution, in block 1 another without dilation, beside the identity."""
    branch: list[nn.Module] = []
    for step in (dilation, 1)[: 3 - block]:
        conv = Conv1d(channels, channels, kernel_size, dilation=step, causal=causal)
        branch += [activation(channels), weight_norm(conv)]
    return Residual(nn.Identity(), nn.Sequential(*branch))


def hifigan_keys(generator: StreamingGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that jik876/hifi-gan uses for the same tensor.

    Theirs are `conv_pre`, `ups.i`, `resblocks.j.convs1.k` and `convs2.k` (block 1) or `convs.k` (block 2), where j
    counts the chains of all stages, and `conv_post`.
    """
    return published_keys(generator, hifigan_layer_names(generator))


def hifigan_layer_names(generator: StreamingGenerator) -> dict[str, str]:
    """Our names of a HiFi-GAN's convolutions and, for each, that of jik876/hifi-gan."""
    names = [
        name for name, layer in generator.named_modules() if isinstance(layer, Conv1d | TransposedConv1d)
    ]
    in_pairs = any(name.endswith(".branch.3") for name in names)
    ours_to_theirs = {names[0]: "conv_pre", names[-1]: "conv_post"}
    chains: dict[tuple[str, str], int] = {}
    for name in names:
        match name.split("."):
            case ["layers", stage, "1"]:
                ours_to_theirs[name] = f"ups.{int(stage) - 1}"
            case ["layers", stage, "2", "branches", chain, block, "branch", place]:
                number = chains.setdefault((stage, chain), len(chains))
                convs = {"1": "convs1", "3": "convs2"}[place] if in_pairs else "convs"
                ours_to_theirs[name] = f"resblocks.{number}.{convs}.{block}"
    return ours_to_theirs
