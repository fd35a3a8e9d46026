"""A frame-rate vocoder that starts from the pseudo-inverse of its mel filter bank.

After FreeV (Lv et al., "FreeV: Free Lunch For Vocoders Through Pseudo Inversed Mel Filter", arXiv 2406.08196) and
APNet 2 (arXiv 2311.11545): the log-amplitude is the pseudo-inverse's plus a learned correction, the phase is the
angle of two learned maps, and the inverse STFT turns both into sound. Nothing runs above the frame rate but the
inverse FFT, which is what makes it fast on a CPU.

Departures from the paper: one ConvNeXt trunk serves both outputs (the paper has two networks), and global response
normalisation is left out, since it looks at the whole utterance and cannot stream.
"""

import torch
from torch import Tensor, nn

from gansound.mel import MelSpec
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.istft import ISTFT

MAGNITUDE_FLOOR = 1e-5


class FreeVGenerator(nn.Module):
    """Mel spectrogram to waveform.

    Args:
        mel: the convention of the mels it is given; its STFT is also the one that is inverted.
        channels: width of the trunk.
        hidden_channels: width inside each block.
        blocks: ConvNeXt blocks in the trunk.
        kernel_size: frames each block's depthwise convolution sees.

    Shape: `(B, n_mels, F)` -> `(B, F * hop_length)`.

    Raises:
        ValueError: the mel's framing is not "same" (one frame a hop), its STFT cannot be inverted hop by hop, a size
            isn't positive, or the kernel is even.
    """

    filter_bank_inverse: Tensor

    def __init__(
        self,
        mel: MelSpec,
        channels: int = 512,
        hidden_channels: int = 1536,
        blocks: int = 8,
        kernel_size: int = 7,
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
        self.mel = mel
        self.n_mels = mel.n_mels
        self.hop_length = mel.hop_length
        bins = mel.n_fft // 2 + 1
        # A constant of the convention, not a weight: derived again at construction, so it isn't stored.
        self.register_buffer("filter_bank_inverse", torch.linalg.pinv(mel.filter_bank()), persistent=False)
        self.embed = FrameConv(mel.n_mels, channels, kernel_size)
        self.embed_norm = nn.LayerNorm(channels, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(channels, hidden_channels, kernel_size, initial_scale=1 / blocks)
            for _ in range(blocks)
        )
        self.final_norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, 3 * bins)  # log-amplitude correction, real, imaginary
        self.istft = ISTFT(mel.n_fft, mel.hop_length)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def spectrum(self, mel: Tensor) -> Tensor:
        """The complex spectrum before its inversion, `(B, n_fft // 2 + 1, F)`."""
        magnitude = self.mel.to_magnitude(mel.float()).transpose(1, 2)
        prior = (magnitude @ self.filter_bank_inverse.T).abs().clamp_min(MAGNITUDE_FLOOR)
        # ln(mel) of speech lies around -5 with a spread of 3.
        x = self.embed_norm(self.embed((magnitude.clamp_min(MAGNITUDE_FLOOR).log() + 5) / 3))
        for block in self.blocks:
            x = block(x)
        correction, real, imaginary = self.head(self.final_norm(x)).float().chunk(3, dim=-1)
        # exp() of an untrained net may overflow; e^7 is louder than any full-scale frame of 2048 samples.
        amplitude = (prior.log() + correction).clamp(max=7.0).exp()
        scale = amplitude * torch.rsqrt(real.square() + imaginary.square() + 1e-12)
        return torch.complex(scale * real, scale * imaginary).transpose(1, 2)

    def forward(self, mel: Tensor) -> Tensor:
        """Synthesize.

        Raises:
            ValueError: the mel isn't `(B, n_mels, F)` with F >= 1.
        """
        if mel.dim() != 3 or mel.shape[1] != self.n_mels or mel.shape[2] < 1:
            turned = mel.dim() == 3 and mel.shape[2] == self.n_mels
            raise ValueError(
                f"expected a mel of shape (batch, {self.n_mels} bands, 1 or more frames), got {tuple(mel.shape)}"
                + ("; it looks transposed: pass mel.transpose(1, 2)" if turned else "")
            )
        return self.istft(self.spectrum(mel))
