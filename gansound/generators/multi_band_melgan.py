"""Multi-band MelGAN's generator: MelGAN makes bands at a fraction of the rate, a filter bank makes the waveform.

Yang et al., "Multi-band MelGAN: Faster Waveform Generation for High-Quality Text-to-Speech", arXiv 2005.05106; sizes
as in kan-bayashi/ParallelWaveGAN's `multi_band_melgan.v2`.
"""

import math

from torch import nn

from gansound.generators.melgan import melgan_layers
from gansound.nn.generator import StreamingGenerator
from gansound.nn.pqmf import PQMF


class MultiBandMelGANGenerator(StreamingGenerator):
    """Mel frames to samples.

    Args:
        n_mels: mel bands of the input.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: of a band, stage by stage, each 2 or more; `hop_length` is their product times `bands`.
        residual_dilations: dilation in samples of a band of each residual block of a stage.
        bands: sub-bands of the waveform.
        pqmf_taps, pqmf_cutoff_ratio, pqmf_beta: of the filter bank, see `PQMF`. It is not in a checkpoint:
            ParallelWaveGAN up to 0.4.2 trained with a cut-off of 0.15.
        pqmf_coqui: it is that of Coqui's multi-band MelGAN.
        causal: look at the past only, padded with zeros; the filter bank still waits for `pqmf_taps / 2` samples.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)`, about in (-1, 1).

    Raises:
        ValueError: see `MelGANGenerator` and `PQMF`.
    """

    def __init__(
        self,
        n_mels: int = 80,
        channels: int = 384,
        upsample_rates: tuple[int, ...] = (8, 4, 2),
        residual_dilations: tuple[int, ...] = (1, 3, 9, 27),
        bands: int = 4,
        pqmf_taps: int = 62,
        pqmf_cutoff_ratio: float = 0.142,
        pqmf_beta: float = 9.0,
        causal: bool = False,
        pqmf_coqui: bool = False,
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.layers = nn.Sequential(
            *melgan_layers(n_mels, channels, upsample_rates, residual_dilations, causal, out_channels=bands),
            PQMF(bands, pqmf_taps, pqmf_cutoff_ratio, pqmf_beta, pqmf_coqui),
        )
        self.hop_length = math.prod(upsample_rates) * bands
