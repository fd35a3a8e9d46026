"""HiFT: the vocoder of CosyVoice and Chatterbox, which hears a source of sines at the pitch that it reads in the mel.

Li, Han, Jiang and Mesgarani, "HiFTNet: A Fast High-Quality Neural Vocoder with Harmonic-plus-Noise Filter and Inverse
Short Time Fourier Transform" (arXiv 2309.09493): iSTFTNet's stages with Snakes, beside each of them the STFT of a
harmonic source. Layers and sizes as FunAudioLLM/CosyVoice and resemble-ai/chatterbox have them, which tell the pitch by
five convolutions and give the STFT as real and imaginary parts. The paper's own code, with a recurrent net for the one
and magnitudes and phases for the other, is another net.
"""

import math

from torch import Tensor, nn

from gansound.generators.hifigan import (
    END_KERNEL_SIZE,
    LAST_NEGATIVE_SLOPE,
    NEGATIVE_SLOPE,
    check_stages,
    residual_chain,
)
from gansound.mel import MelSpec
from gansound.nn.conv import (
    AheadConv1d,
    Conv1d,
    RepeatedConv1d,
    TransposedConv1d,
    published_keys,
    weight_norm,
)
from gansound.nn.exact import ExactConv1d
from gansound.nn.generator import StreamingGenerator
from gansound.nn.harmonic_source import HarmonicSource, Phases
from gansound.nn.istft import ISTFT, ChannelsLast, MirroredLead, Polar
from gansound.nn.residual import Mean, Sourced
from gansound.nn.snake import Snake
from gansound.nn.stft import STFT, DownConv1d
from gansound.nn.streaming import Pointwise

AUDIO_LIMIT = 0.99
LOOKAHEAD_FRAMES = 4
"""Of the causal net's first convolution, as CosyVoice 3 has it."""
PITCH_LOOKAHEAD_FRAMES = 3
"""And of the first of those that tell the pitch."""


class HiFTGenerator(StreamingGenerator):
    """Mel frames to samples.

    Training leaves the convolutions that tell the pitch as they are, for no gradient comes to them through the phase of
    a sine: a net that is to learn starts from one that has them, such as an import.

    Args:
        mel: the convention of the mels it is given; says their bands, the rate and the hop.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: frames of the inverse STFT for each column, stage by stage, each 2 or more; the mel's hop is
            their product times `istft_hop_length`.
        upsample_kernel_sizes: taps of each stage's upsampling, at least its rate.
        residual_kernel_sizes: taps of the convolutions of each chain, odd.
        residual_dilations: for each chain, the dilation of each of its blocks.
        source_kernel_sizes: of the chain that the source goes through to each stage, odd.
        source_dilations: for each of these, the dilation of each of its blocks.
        n_fft: samples of a frame of the STFT and of its inverse.
        istft_hop_length: samples from one of them to the next.
        harmonics: overtones of the source.
        phases: of the source, see `HarmonicSource`.
        pitch_channels: width of the convolutions that tell the pitch.
        causal: CosyVoice 3's: convolutions look at the past only, but the first by 4 frames and the pitch's by 3 ahead;
            columns are repeated and convolved where the other net has transposed convolutions.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)` in [-0.99, 0.99].

    Raises:
        ValueError: see `HiFiGANGenerator`, `ISTFT` and `HarmonicSource`; rates that don't make the hop, or a list for
            the source that isn't as long as the rates.
    """

    def __init__(
        self,
        mel: MelSpec,
        channels: int = 512,
        upsample_rates: tuple[int, ...] = (8, 5, 3),
        upsample_kernel_sizes: tuple[int, ...] = (16, 11, 7),
        residual_kernel_sizes: tuple[int, ...] = (3, 7, 11),
        residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        source_kernel_sizes: tuple[int, ...] = (7, 7, 11),
        source_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        n_fft: int = 16,
        istft_hop_length: int = 4,
        harmonics: int = 8,
        phases: Phases = "interpolated",
        pitch_channels: int = 512,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.n_mels = mel.n_mels
        self.hop_length = math.prod(upsample_rates) * istft_hop_length
        if self.hop_length != mel.hop_length:
            raise ValueError(
                f"upsample_rates {upsample_rates} times istft_hop_length {istft_hop_length} make {self.hop_length} "
                f"samples of a frame, but the mel's hop is {mel.hop_length}"
            )
        check_stages(
            channels, upsample_rates, upsample_kernel_sizes, residual_kernel_sizes, residual_dilations
        )
        check_stages(channels, upsample_rates, upsample_kernel_sizes, source_kernel_sizes, source_dilations)
        if len(source_kernel_sizes) != len(upsample_rates):
            raise ValueError(
                f"expected one of source_kernel_sizes for each stage, got {source_kernel_sizes} for upsample_rates "
                f"{upsample_rates}"
            )
        pitch = _pitch(mel.n_mels, pitch_channels, causal)
        source = HarmonicSource(mel.sample_rate, self.hop_length, harmonics, phases=phases)
        bands = n_fft + 2
        first = (
            AheadConv1d(mel.n_mels, channels, LOOKAHEAD_FRAMES + 1)
            if causal
            else Conv1d(mel.n_mels, channels, END_KERNEL_SIZE)
        )
        before: list[nn.Module] = [weight_norm(first)]
        ups, sides, chains = [], [], []
        frames = math.prod(upsample_rates)  # of the STFT for each column
        for stage, (rate, kernel_size) in enumerate(zip(upsample_rates, upsample_kernel_sizes, strict=True)):
            width, frames = channels // 2, frames // rate
            up = (
                RepeatedConv1d(channels, width, rate=rate, kernel_size=kernel_size)
                if causal
                else TransposedConv1d(channels, width, rate=rate, kernel_size=kernel_size)
            )
            last = [MirroredLead()] if frames == 1 else []
            ups.append(nn.Sequential(*before, nn.LeakyReLU(NEGATIVE_SLOPE), weight_norm(up), *last))
            down = (
                Conv1d(bands, width, 1)
                if frames == 1
                else DownConv1d(bands, width, stride=frames, causal=causal)
            )
            chain = residual_chain(
                width, source_kernel_sizes[stage], source_dilations[stage], 1, causal, _snake
            )
            sides.append(nn.Sequential(down, chain))
            chains.append(
                Mean(
                    *(
                        residual_chain(width, size, dilations, 1, causal, _snake)
                        for size, dilations in zip(residual_kernel_sizes, residual_dilations, strict=True)
                    )
                )
            )
            channels, before = width, []
        stages = Sourced(nn.Sequential(pitch, source, STFT(n_fft, istft_hop_length)), ups, sides, chains)
        self.layers = nn.Sequential(
            stages,
            nn.LeakyReLU(LAST_NEGATIVE_SLOPE),
            weight_norm(Conv1d(channels, bands, END_KERNEL_SIZE, causal=causal)),
            ChannelsLast(),
            Polar(sine=1.0),
            ISTFT(n_fft, istft_hop_length, "center", closed=True),
            nn.Hardtanh(-AUDIO_LIMIT, AUDIO_LIMIT),
        )


class Magnitude(Pointwise):
    """Without its sign."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


def _snake(channels: int) -> Snake:
    return Snake(channels, log_scale=False)


def _pitch(n_mels: int, channels: int, causal: bool) -> nn.Sequential:
    """A mel's fundamental frequency in Hz: five convolutions and a sum of channels."""
    first = {"left": 0, "right": PITCH_LOOKAHEAD_FRAMES} if causal else {"left": 1, "right": 1}
    others = {"left": 2, "right": 0} if causal else {"left": 1, "right": 1}
    return nn.Sequential(
        ExactConv1d(n_mels, channels, elu=True, **first),
        *(ExactConv1d(channels, channels, elu=True, **others) for _ in range(4)),
        ExactConv1d(channels, 1),
        Magnitude(),
    )


def hift_keys(generator: HiFTGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that CosyVoice uses for the same tensor.

    Theirs are HiFi-GAN's with `activations1.k.alpha` and `activations2.k.alpha` beside `convs1.k` and `convs2.k`,
    `source_downs.i`, `source_resblocks.i` like `resblocks.j`, `m_source.l_linear`, and the pitch's
    `f0_predictor.condnet.k`, with k twice the layer's number, and `f0_predictor.classifier`.
    """
    names = {"layers.2": "conv_post"}
    parts = {"0": "activations1", "1": "convs1", "2": "activations2", "3": "convs2"}
    stages = generator.layers[0]
    assert isinstance(stages, Sourced)
    for name, layer in generator.named_modules():
        if not isinstance(layer, Conv1d | TransposedConv1d | ExactConv1d | Snake | HarmonicSource):
            continue
        match name.split(".")[2:]:
            case ["source", "0", place]:
                names[name] = "f0_predictor." + (
                    "classifier" if place == "5" else f"condnet.{2 * int(place)}"
                )
            case ["source", _]:
                names[name] = "m_source.l_linear"
            case ["ups", stage, place]:
                first = stage == "0" and place == "0"
                names[name] = "conv_pre" if first else f"ups.{stage}"
            case ["sides", stage, "0"]:
                names[name] = f"source_downs.{stage}"
            case ["sides", stage, "1", block, "branch", part]:
                names[name] = f"source_resblocks.{stage}.{parts[part]}.{block}"
            case ["chains", stage, "branches", chain, block, "branch", part]:
                number = int(stage) * len(stages.chains[int(stage)].branches) + int(chain)  # type: ignore[arg-type]
                names[name] = f"resblocks.{number}.{parts[part]}.{block}"
    return published_keys(generator, names)
