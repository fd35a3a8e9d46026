"""iSTFTNet: HiFi-GAN's first stages, and a small inverse STFT in place of the others.

Kaneko et al., "iSTFTNet: Fast and Lightweight Mel-Spectrogram Vocoder Incorporating Inverse Short-Time Fourier
Transform" (arXiv 2203.02395), whose C8C8I the defaults are: upsampled twice by 8, then frames of 16 samples every 4.

The paper's own code isn't public. In what is about (rishikksh20/iSTFTNet-pytorch, and as the decoder of a VITS,
MasayaKawamura/MB-iSTFT-VITS) frames are those of `torch.stft`, one more than columns, which one mirrored column gives:
framing "center". In framing "same" frames stand amid their hops, one a column.
"""

import math
from typing import Literal

from torch import nn

from gansound.generators.hifigan import END_KERNEL_SIZE, LAST_NEGATIVE_SLOPE, hifigan_layers
from gansound.nn.conv import Conv1d, weight_norm
from gansound.nn.generator import StreamingGenerator
from gansound.nn.istft import ISTFT, ChannelsLast, MirroredLead, Polar


class ISTFTNetGenerator(StreamingGenerator):
    """Mel frames to samples.

    The stages are `HiFiGANGenerator`'s; the last convolution gives the log-magnitudes and the sines of which the
    phases are, of frames of `n_fft` samples.

    Args:
        n_mels: mel bands of the input.
        channels: width after the first convolution, halved by each stage.
        upsample_rates: frames of the inverse STFT for each column, stage by stage, each 2 or more; `hop_length` is
            their product times `istft_hop_length`.
        upsample_kernel_sizes: taps of each stage's transposed convolution, at least its rate.
        residual_kernel_sizes: taps of the convolutions of each chain, odd.
        residual_dilations: for each chain, the dilation of each of its blocks.
        residual_block: 1 follows each dilated convolution by one without dilation, 2 doesn't.
        n_fft: samples of a frame of the inverse STFT.
        istft_hop_length: samples from one of them to the next.
        framing: of those frames, see above.
        phase_range: radians of the largest phase, of which the sine is a share.
        causal: look at the past only; the inverse STFT still waits for `(n_fft - istft_hop_length) / 2` samples, in
            framing "center" for half a frame and a column.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)`.

    Raises:
        ValueError: see `HiFiGANGenerator` and `ISTFT`.
    """

    def __init__(
        self,
        n_mels: int = 80,
        channels: int = 512,
        upsample_rates: tuple[int, ...] = (8, 8),
        upsample_kernel_sizes: tuple[int, ...] = (16, 16),
        residual_kernel_sizes: tuple[int, ...] = (3, 7, 11),
        residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        residual_block: Literal[1, 2] = 1,
        n_fft: int = 16,
        istft_hop_length: int = 4,
        framing: Literal["same", "center"] = "same",
        phase_range: float = 1.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.hop_length = math.prod(upsample_rates) * istft_hop_length
        body, width = hifigan_layers(
            n_mels, channels, upsample_rates, upsample_kernel_sizes, residual_kernel_sizes, residual_dilations,
            residual_block, causal,
        )  # fmt: skip
        istft = ISTFT(n_fft, istft_hop_length, framing, closed=framing == "center")
        last = weight_norm(Conv1d(width, n_fft + 2, END_KERNEL_SIZE, causal=causal))
        lead = [MirroredLead()] if framing == "center" else []
        self.layers = nn.Sequential(
            *body,
            nn.LeakyReLU(LAST_NEGATIVE_SLOPE),
            *lead,
            last,
            ChannelsLast(),
            Polar(sine=phase_range),
            istft,
        )
