"""A frame-rate vocoder that starts from the pseudo-inverse of its mel filter bank.

After FreeV (Lv et al., "FreeV: Free Lunch For Vocoders Through Pseudo Inversed Mel Filter", arXiv 2406.08196) and
APNet 2 (arXiv 2311.11545): the log-amplitude is the pseudo-inverse's plus a learned correction, the phase is the
angle of two learned maps, and the inverse STFT turns both into sound. Nothing runs above the frame rate but the
inverse FFT, which is what makes it fast on a CPU.

Departures from the paper: one ConvNeXt trunk serves both outputs (the paper has two networks), and global response
normalisation is left out, since it looks at the whole utterance and cannot stream.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from gansound.mel import MelSpec
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.generator import StreamingGenerator
from gansound.nn.istft import ISTFT
from gansound.nn.residual import Parallel
from gansound.nn.streaming import Pointwise
from gansound.precision import full_precision, no_autocast

MAGNITUDE_FLOOR = 1e-5


class FreeVGenerator(StreamingGenerator):
    """Mel spectrogram to waveform.

    Args:
        mel: the convention of the mels it is given; its STFT is also the one that is inverted.
        channels: width of the trunk.
        hidden_channels: width inside each block.
        blocks: ConvNeXt blocks in the trunk.
        kernel_size: frames each block's depthwise convolution sees.
        causal: look at the past only; the inverse STFT still waits for `(n_fft - hop_length) / 2` samples.

    Shape: `(B, n_mels, F)` -> `(B, F * hop_length)`.

    Raises:
        ValueError: the mel's framing is not "same" (one frame a hop), its STFT cannot be inverted hop by hop, a size
            isn't positive, or the kernel is even and not causal.
    """

    def __init__(
        self,
        mel: MelSpec,
        channels: int = 512,
        hidden_channels: int = 1536,
        blocks: int = 8,
        kernel_size: int = 7,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, hidden_channels, blocks) < 1:
            raise ValueError(
                f"channels, hidden_channels and blocks must be 1 or more, got {channels}, {hidden_channels}, {blocks}"
            )
        if mel.framing != "same" or mel.win_length != mel.n_fft:
            raise ValueError(
                "FreeVGenerator inverts the mel's own STFT, so it needs framing 'same' and win_length == n_fft; "
                f"got framing {mel.framing!r}, win_length {mel.win_length}, n_fft {mel.n_fft}"
            )
        self.n_mels = mel.n_mels
        self.hop_length = mel.hop_length
        bins = mel.n_fft // 2 + 1
        convnext = [
            ConvNeXtBlock(channels, hidden_channels, kernel_size, initial_scale=1 / blocks, causal=causal)
            for _ in range(blocks)
        ]
        trunk = nn.Sequential(
            OrderedDict(
                input=_LogMagnitude(),
                embed=FrameConv(mel.n_mels, channels, kernel_size, causal=causal),
                embed_norm=nn.LayerNorm(channels, eps=1e-6),
                blocks=nn.Sequential(*convnext),
                final_norm=nn.LayerNorm(channels, eps=1e-6),
                head=nn.Linear(channels, 3 * bins),  # log-amplitude correction, real, imaginary
            )
        )
        self.layers = nn.Sequential(
            OrderedDict(
                magnitude=_Magnitude(mel),
                spectrum=_Spectrum(_Prior(mel), trunk),
                istft=ISTFT(mel.n_fft, mel.hop_length),
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _Magnitude(Pointwise):
    """The mel's log and affine undone. Shape: `(B, n_mels, F)` -> `(B, F, n_mels)`."""

    def __init__(self, mel: MelSpec) -> None:
        super().__init__()
        self.mel = mel

    def forward(self, mel: Tensor) -> Tensor:
        return self.mel.to_magnitude(full_precision(mel)).transpose(1, 2)


class _LogMagnitude(Pointwise):
    """What the trunk sees: ln(mel) of speech lies around -5 with a spread of 3."""

    def forward(self, magnitude: Tensor) -> Tensor:
        return (magnitude.clamp_min(MAGNITUDE_FLOOR).log() + 5) / 3


class _Prior(Pointwise):
    """Log-amplitude by the filter bank's pseudo-inverse. Shape: `(B, F, n_mels)` -> `(B, F, n_fft // 2 + 1)`."""

    filter_bank_inverse: Tensor

    def __init__(self, mel: MelSpec) -> None:
        super().__init__()
        # A constant of the convention, not a weight: derived again at construction, so it isn't stored.
        self.register_buffer("filter_bank_inverse", torch.linalg.pinv(mel.filter_bank()), persistent=False)

    def forward(self, magnitude: Tensor) -> Tensor:
        with no_autocast(magnitude):  # its sums cancel
            linear = magnitude @ self.filter_bank_inverse.T
        return linear.abs().clamp_min(MAGNITUDE_FLOOR).log()


class _Spectrum(Parallel):
    """The prior corrected by the trunk, with the trunk's phase.

    Shape: `(B, F, n_mels)` -> `(B, F, n_fft + 2)`, real parts before imaginary parts.
    """

    columns_dim = 1

    def __init__(self, prior: nn.Module, trunk: nn.Module) -> None:
        nn.Module.__init__(self)
        self.prior = prior
        self.trunk = trunk

    def paths(self) -> list[nn.Module]:
        return [self.prior, self.trunk]

    def combine(self, *outputs: Tensor) -> Tensor:
        prior, head = outputs
        correction, real, imaginary = full_precision(head).chunk(3, dim=-1)
        # exp() of an untrained net may overflow; e^7 is louder than any full-scale frame of 2048 samples.
        amplitude = (prior + correction).clamp(max=7.0).exp()
        scale = amplitude * torch.rsqrt(real.square() + imaginary.square() + 1e-12)
        return torch.cat([scale * real, scale * imaginary], dim=-1)
