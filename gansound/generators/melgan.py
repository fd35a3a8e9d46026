"""MelGAN's generator: a mel spectrogram to a waveform through transposed convolutions.

Kumar et al., "MelGAN: Generative Adversarial Networks for Conditional Waveform Synthesis", NeurIPS 2019,
arXiv 1910.06711, section 2.1; widths and kernels as published in descriptinc/melgan-neurips.
"""

import math

from torch import nn

from gansound.nn.conv import Conv1d, TransposedConv1d, published_keys, weight_norm
from gansound.nn.generator import StreamingGenerator
from gansound.nn.residual import dilated_residual

NEGATIVE_SLOPE = 0.2
END_KERNEL_SIZE = 7


class MelGANGenerator(StreamingGenerator):
    """Mel frames to samples.

    A convolution widens the mel to `channels`; each stage upsamples by its rate, halves the width and
    refines with dilated residual blocks; a last convolution and tanh give the waveform. The weights start
    from torch's default draw: the published N(0, 0.02) has no effect under weight norm.

    Every convolution reflects at the ends of the utterance. Any utterance of one frame or more is taken:
    where it is shorter than a reflection, it is mirrored back and forth (`gansound.nn.conv.reflect_pad`).

    Args:
        n_mels: mel bands of the input.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: samples out for each sample in, stage by stage, each 2 or more; their product is
            `hop_length`.
        residual_dilations: dilation in samples of each residual block of a stage.
        causal: look at the past only, padded with zeros; for streaming without any look-ahead.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)` in (-1, 1).

    Raises:
        ValueError: when a size isn't positive, a rate is below 2, or `channels` can't be halved once a stage.
    """

    def __init__(
        self,
        n_mels: int = 80,
        channels: int = 512,
        upsample_rates: tuple[int, ...] = (8, 8, 2, 2),
        residual_dilations: tuple[int, ...] = (1, 3, 9),
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.layers = nn.Sequential(
            *melgan_layers(n_mels, channels, upsample_rates, residual_dilations, causal)
        )
        self.hop_length = math.prod(upsample_rates)


def melgan_layers(
    n_mels: int,
    channels: int,
    upsample_rates: tuple[int, ...],
    residual_dilations: tuple[int, ...],
    causal: bool,
    out_channels: int = 1,
) -> list[nn.Module]:
    """The layers of a MelGAN generator with any number of signals out; the arguments are `MelGANGenerator`'s.

    Shape:
        together, mel `(B, n_mels, F)` → `(B, out_channels, F * prod(upsample_rates))` in (-1, 1).
    """
    if n_mels < 1 or not upsample_rates or min(*upsample_rates, *residual_dilations, 1) < 1:
        raise ValueError(
            "n_mels, upsample_rates and residual_dilations must be positive, with one or more rates, got "
            f"n_mels={n_mels}, upsample_rates={upsample_rates}, residual_dilations={residual_dilations}"
        )
    halvings = 2 ** len(upsample_rates)
    if channels < halvings or channels % halvings:
        raise ValueError(
            f"channels is halved by each of {len(upsample_rates)} stages, so it must be a multiple of "
            f"{halvings}, got {channels}"
        )

    def end(width_in: int, width_out: int) -> nn.Module:
        return weight_norm(
            Conv1d(width_in, width_out, END_KERNEL_SIZE, padding_mode="reflect", causal=causal)
        )

    layers: list[nn.Module] = [end(n_mels, channels)]
    for rate in upsample_rates:
        layers.append(_stage(channels, rate, residual_dilations, causal))
        channels //= 2
    return [*layers, nn.LeakyReLU(NEGATIVE_SLOPE), end(channels, out_channels), nn.Tanh()]


def _stage(channels: int, rate: int, residual_dilations: tuple[int, ...], causal: bool) -> nn.Sequential:
    """Upsample, halve the width, refine. Shape: `(B, channels, T)` → `(B, channels // 2, T * rate)`."""
    width = channels // 2
    return nn.Sequential(
        nn.LeakyReLU(NEGATIVE_SLOPE),
        weight_norm(TransposedConv1d(channels, width, rate=rate, kernel_size=2 * rate, causal=causal)),
        *(
            dilated_residual(width, dilation=d, negative_slope=NEGATIVE_SLOPE, causal=causal)
            for d in residual_dilations
        ),
    )


def melgan_neurips_keys(generator: StreamingGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that descriptinc/melgan-neurips uses for the same tensor."""
    return _published_keys(generator, "model", "block", "shortcut")


def parallel_wavegan_keys(generator: StreamingGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that kan-bayashi/ParallelWaveGAN uses for the same tensor.

    Of its MelGAN, full-band MelGAN and multi-band MelGAN, which are all layers of `melgan_layers`.
    """
    return _published_keys(generator, "melgan", "stack", "skip_layer")


def _published_keys(generator: StreamingGenerator, root: str, branch: str, shortcut: str) -> dict[str, str]:
    """Theirs is one flat `nn.Sequential` that counts activations and paddings.

    `root.1` is the first convolution, then each stage takes one index for its activation, one for its transposed
    convolution and one for each residual block.
    """
    stages = [layer for layer in generator.layers if isinstance(layer, nn.Sequential)]
    ours_to_theirs = {"layers.0": f"{root}.1"}
    index = 2
    for number, stage in enumerate(stages, start=1):
        ours_to_theirs[f"layers.{number}.1"] = f"{root}.{index + 1}"
        for position in range(2, len(stage)):
            ours, theirs = f"layers.{number}.{position}", f"{root}.{index + position}"
            ours_to_theirs[f"{ours}.branch.1"] = f"{theirs}.{branch}.2"
            ours_to_theirs[f"{ours}.branch.3"] = f"{theirs}.{branch}.4"
            ours_to_theirs[f"{ours}.shortcut"] = f"{theirs}.{shortcut}"
        index += len(stage)
    ours_to_theirs[f"layers.{len(stages) + 2}"] = f"{root}.{index + 2}"
    return published_keys(generator, ours_to_theirs)
