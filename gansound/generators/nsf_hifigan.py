"""NSF-HiFi-GAN: HiFi-GAN's stages, to which a source of sines at a pitch given beside the mel is added.

Of singing synthesis (openvpi/vocoders, DiffSinger, DDSP-SVC) and, on latents in place of mels, of voice conversion
(RVC, so-vits-svc). Kong et al., "HiFi-GAN" (arXiv 2010.05646), with the source of Wang, Takaki and Yamagishi, "Neural
source-filter waveform models" (arXiv 1904.12088); layers as openvpi/SingingVocoders has them, mini-NSF too. Nobody
published a paper of their combination.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from gansound.generators.hifigan import (
    END_KERNEL_SIZE,
    LAST_NEGATIVE_SLOPE,
    NEGATIVE_SLOPE,
    check_stages,
    residual_chain,
)
from gansound.nn.conv import Conv1d, StridedConv1d, TransposedConv1d, published_keys, weight_norm
from gansound.nn.generator import StreamingGenerator
from gansound.nn.harmonic_source import GlidingSine, HarmonicSource
from gansound.nn.residual import Mean, Sourced
from gansound.nn.streaming import Pointwise

MINI_STAGE = 1
"""To which the source of a mini-NSF is added, counted from 0, and to no other."""


class NSFHiFiGANGenerator(StreamingGenerator):
    """Frames, the last row of which is the pitch, to samples.

    Args:
        n_mels: rows of a frame: the mel's bands (or a latent's channels), and F0 in Hz, 0 where unvoiced.
        sample_rate: of the sound, in Hz.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: samples out for each sample in, stage by stage, each 2 or more; their product is `hop_length`.
        upsample_kernel_sizes: taps of each stage's transposed convolution, at least its rate.
        residual_kernel_sizes: taps of the convolutions of each chain, odd.
        residual_dilations: for each chain, the dilation in samples of each of its blocks.
        residual_block: 1 follows each dilated convolution by one without dilation, 2 doesn't.
        harmonics: overtones of the source, which comes to each stage by a convolution of its own.
        mini: in place of that source one sine of the second stage's rate, and there alone; it has no noise, and frames
            without a pitch have no source.
        causal: look at the past only, but for a mini-NSF's pitch, which glides towards the next frame's.

    Shape:
        frames `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)` in (-1, 1).

    Raises:
        ValueError: as of `HiFiGANGenerator`; fewer than two rows, or stages for a mini-NSF.
    """

    takes_pitch = True

    def __init__(
        self,
        n_mels: int = 129,
        sample_rate: int = 44100,
        channels: int = 512,
        upsample_rates: tuple[int, ...] = (8, 8, 2, 2, 2),
        upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4, 4),
        residual_kernel_sizes: tuple[int, ...] = (3, 7, 11),
        residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        residual_block: Literal[1, 2] = 1,
        harmonics: int = 8,
        mini: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if n_mels < 2:
            raise ValueError(f"expected a row or more beside the pitch's, got n_mels={n_mels}")
        check_stages(
            channels, upsample_rates, upsample_kernel_sizes, residual_kernel_sizes, residual_dilations,
            residual_block,
        )  # fmt: skip
        if mini and len(upsample_rates) <= MINI_STAGE:
            raise ValueError(
                f"a mini-NSF's source comes in at its second stage, got upsample_rates {upsample_rates}"
            )
        self.n_mels = n_mels
        self.sample_rate = sample_rate
        self.hop_length = math.prod(upsample_rates)
        widths = [channels >> stage for stage in range(len(upsample_rates) + 1)]
        chains = [
            Mean(
                *(
                    residual_chain(width, size, dilations, residual_block, causal, _activation)
                    for size, dilations in zip(residual_kernel_sizes, residual_dilations, strict=True)
                )
            )
            for width in widths[1:]
        ]
        sizes = zip(widths, widths[1:], upsample_rates, upsample_kernel_sizes, strict=False)
        ups = [
            [
                nn.LeakyReLU(NEGATIVE_SLOPE),
                weight_norm(TransposedConv1d(wide, narrow, rate=rate, kernel_size=taps, causal=causal)),
            ]
            for wide, narrow, rate, taps in sizes
        ]
        first = [
            Rows(0, n_mels - 1),
            weight_norm(Conv1d(n_mels - 1, channels, END_KERNEL_SIZE, causal=causal)),
        ]
        layers: list[nn.Module]
        if mini:
            beyond = math.prod(upsample_rates[MINI_STAGE + 1 :])
            sine = GlidingSine(sample_rate / beyond, self.hop_length // beyond)
            before = [
                *first,
                *(
                    layer
                    for up, chain in zip(ups, chains[:MINI_STAGE], strict=False)
                    for layer in (*up, chain)
                ),
                *ups[MINI_STAGE],
            ]
            side = Conv1d(1, widths[MINI_STAGE + 1], 1)
            layers = [_sourced(n_mels, sine, [before], [side], chains[MINI_STAGE : MINI_STAGE + 1])]
            rest = zip(ups[MINI_STAGE + 1 :], chains[MINI_STAGE + 1 :], strict=True)
            layers += [nn.Sequential(*up, chain) for up, chain in rest]
        else:
            source = HarmonicSource(sample_rate, self.hop_length, harmonics, unvoiced_hz=0.0)
            sides = []
            for stage, width in enumerate(widths[1:]):
                stride = math.prod(upsample_rates[stage + 1 :])
                sides.append(
                    Conv1d(1, width, 1)
                    if stride == 1
                    else StridedConv1d(1, width, stride=stride, causal=causal)
                )
            layers = [_sourced(n_mels, source, [first + ups[0], *ups[1:]], sides, chains)]
        last = weight_norm(Conv1d(widths[-1], 1, END_KERNEL_SIZE, causal=causal))
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(LAST_NEGATIVE_SLOPE), last, nn.Tanh())


class Rows(Pointwise):
    """Some of the rows of each frame.

    Args:
        first, end: the first of them, and the first behind them.

    Shape:
        `(B, C, T)` → `(B, end - first, T)`.
    """

    def __init__(self, first: int, end: int) -> None:
        super().__init__()
        self.first, self.end = first, end

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.first : self.end]


def _activation(channels: int) -> nn.Module:
    return nn.LeakyReLU(NEGATIVE_SLOPE)


def _sourced(
    rows: int,
    source: nn.Module,
    ups: Sequence[Sequence[nn.Module]],
    sides: Sequence[nn.Module],
    chains: Sequence[nn.Module],
) -> Sourced:
    pitched = nn.Sequential(Rows(rows - 1, rows), source)
    return Sourced(pitched, [nn.Sequential(*up) for up in ups], sides, chains)


def nsf_hifigan_keys(generator: NSFHiFiGANGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that openvpi/SingingVocoders uses for the same tensor.

    Theirs are HiFi-GAN's (see `hifigan_keys`), beside them `m_source.l_linear` and `noise_convs.i`, or `source_conv`.
    """
    layers = {
        name: layer
        for name, layer in generator.named_modules()
        if isinstance(layer, Conv1d | TransposedConv1d | HarmonicSource)
    }
    in_pairs = any(name.endswith(".branch.3") for name in layers)
    mini = not any(isinstance(layer, HarmonicSource) for layer in layers.values())
    names: dict[str, str] = {}
    ups = 0
    chains: dict[tuple[str, ...], int] = {}
    for name, layer in layers.items():
        match name.split("."):
            case [*mean, "branches", chain, block, "branch", place]:
                number = chains.setdefault((*mean, chain), len(chains))
                convs = {"1": "convs1", "3": "convs2"}[place] if in_pairs else "convs"
                names[name] = f"resblocks.{number}.{convs}.{block}"
            case ["layers", "0", "sides", stage]:
                names[name] = "source_conv" if mini else f"noise_convs.{stage}"
            case _ if isinstance(layer, TransposedConv1d):
                names[name] = f"ups.{ups}"
                ups += 1
            case _ if isinstance(layer, HarmonicSource):
                names[name] = "m_source.l_linear"
            case ["layers", "0", *_]:
                names[name] = "conv_pre"
            case _:
                names[name] = "conv_post"
    return published_keys(generator, names)
