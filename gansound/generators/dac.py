"""The decoders of DAC and SNAC: a codec's codes to samples.

Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (arXiv 2306.06546), as descriptinc's
descript-audio-codec has it: stages of a transposed convolution and three residual units, with Snakes. Siuzdak et al.,
"SNAC: Multi-Scale Neural Audio Codec" (arXiv 2410.14411), as hubertsiuzdak/snac has it, makes the long convolutions
depthwise, adds noise to each stage, and has codebooks of several rates.

Departures: SNAC draws its noise anew for each utterance, which here is a constant (see `NoiseProduct`). Where a rate is
odd, as in DAC at 16 and 24 kHz, descript-audio-codec 1.0.0 and transformers leave out a column at the end of that stage
and so give 8 samples fewer of an utterance, the last 18 ms or so of which are others (428 samples at 24 kHz); here, as
in SNAC, a frame is always `hop_length` samples. The codebooks' projections are one convolution, which sums them.
"""

import math

from torch import nn

from gansound.frames.codes import check_codebooks
from gansound.nn.codes import CodeEmbedding
from gansound.nn.conv import Conv1d, TransposedConv1d, published_keys, weight_norm
from gansound.nn.generator import StreamingGenerator
from gansound.nn.noise import NoiseProduct
from gansound.nn.residual import Residual
from gansound.nn.snake import Snake

KERNEL_SIZE = 7
DILATIONS = (1, 3, 9)


class DACGenerator(StreamingGenerator):
    """Frames of codes to samples.

    Args:
        codebooks: codes of each codebook in a frame, the coarsest first, see `CodeSpec`; there is a column for each of
            the finest.
        codebook_size: vectors of a codebook.
        codebook_channels: of such a vector.
        latent_channels: of a column, in which the codebooks are summed.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: of each stage, 2 or more; a column becomes as many samples as their product.
        depthwise: convolutions of seven taps see one channel each, as in SNAC.
        noise: each stage adds noise, as loud as a projection of its signal says, as in SNAC.
        causal: look at the past only; no published net does.

    Shape:
        codes `(B, sum(codebooks), F)`, F >= 1, whole numbers below `codebook_size` as floats → audio `(B, F *
        hop_length)` in (-1, 1), `hop_length` being the rates' product times `codebooks[-1]`.

    Raises:
        ValueError: codebooks that don't become finer, or channels that can't be halved so often.
    """

    def __init__(
        self,
        codebooks: tuple[int, ...] = (1,) * 9,
        codebook_size: int = 1024,
        codebook_channels: int = 8,
        latent_channels: int = 1024,
        channels: int = 1536,
        upsample_rates: tuple[int, ...] = (8, 8, 4, 2),
        depthwise: bool = False,
        noise: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        check_codebooks(codebooks)
        if channels % 2 ** len(upsample_rates):
            raise ValueError(
                f"channels {channels} can't be halved by each of {len(upsample_rates)} stages (upsample_rates "
                f"{upsample_rates}); take a multiple of {2 ** len(upsample_rates)}"
            )
        self.n_mels = sum(codebooks)
        self.hop_length = codebooks[-1] * math.prod(upsample_rates)
        stages = []
        width = channels
        for number, rate in enumerate(upsample_rates):
            up = TransposedConv1d(width, width // 2, rate=rate, kernel_size=2 * rate, causal=causal)
            width //= 2
            groups = width if depthwise else 1
            stages.append(
                nn.Sequential(
                    _snake(2 * width),
                    weight_norm(up),
                    *([_noise(width, number)] if noise else []),
                    *(_unit(width, dilation, groups, causal) for dilation in DILATIONS),
                )
            )
        self.layers = nn.Sequential(
            CodeEmbedding(codebooks, codebook_size, codebook_channels),
            Conv1d(len(codebooks) * codebook_channels, latent_channels, 1),
            *_entry(latent_channels, channels, depthwise, causal),
            *stages,
            _snake(width),
            weight_norm(Conv1d(width, 1, KERNEL_SIZE, causal=causal)),
            nn.Tanh(),
        )


def _entry(latent_channels: int, channels: int, depthwise: bool, causal: bool) -> list[nn.Module]:
    if not depthwise:
        return [weight_norm(Conv1d(latent_channels, channels, KERNEL_SIZE, causal=causal))]
    along = Conv1d(latent_channels, latent_channels, KERNEL_SIZE, groups=latent_channels, causal=causal)
    return [weight_norm(along), weight_norm(Conv1d(latent_channels, channels, 1))]


def _snake(channels: int) -> Snake:
    return Snake(channels, log_scale=False)


def _noise(channels: int, seed: int) -> Residual:
    """X + n W x, a noise n of unit variance for all channels."""
    loudness = weight_norm(Conv1d(channels, channels, 1, bias=False))
    return Residual(nn.Identity(), nn.Sequential(loudness, NoiseProduct(seed)))


def _unit(channels: int, dilation: int, groups: int, causal: bool) -> Residual:
    along = Conv1d(channels, channels, KERNEL_SIZE, dilation=dilation, groups=groups, causal=causal)
    branch = nn.Sequential(
        _snake(channels), weight_norm(along), _snake(channels), weight_norm(Conv1d(channels, channels, 1))
    )
    return Residual(nn.Identity(), branch)


def dac_keys(generator: DACGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that DAC and SNAC use for the same tensor.

    Theirs are `decoder.model.i`, inside a stage `block.j`, and in that `block.k` of a residual unit or `linear` of the
    noise. `quantizer.codebook` and `quantizer.out_proj` stand for those of all `quantizer.quantizers.i`.
    """
    names = {}
    for name, layer in generator.named_modules():
        if not isinstance(layer, CodeEmbedding | Conv1d | TransposedConv1d | Snake):
            continue
        _, place, *inside = name.split(".")
        theirs = f"decoder.model.{int(place) - 2}"
        match inside:
            case []:
                names[name] = {"0": "quantizer.codebook", "1": "quantizer.out_proj"}.get(place, theirs)
            case [part]:
                names[name] = f"{theirs}.block.{part}"
            case [part, "branch", inner]:
                noisy = isinstance(generator.get_submodule(f"layers.{place}.{part}.branch.1"), NoiseProduct)
                names[name] = f"{theirs}.block.{part}." + ("linear" if noisy else f"block.{inner}")
    return published_keys(generator, names)
