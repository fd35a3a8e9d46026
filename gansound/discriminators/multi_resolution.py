"""Discriminators that judge short-time spectra at several resolutions, frame by frame.

The idea is UnivNet's (Jang et al., "UnivNet: A Neural Vocoder with Multi-Resolution Spectrogram Discriminators",
arXiv 2106.07889) with the complex spectra of EnCodec's (arXiv 2210.13438). Theirs convolve over time and frequency
with few channels, which costs ten spectral steps on a CPU; here the bins are the channels of a convolution over time,
a matrix product that costs half of one.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gansound.nn.convnext import FrameConv

COMPRESSION = 0.3
POWER_FLOOR = 1e-5  # below it the compression would turn the noise of silence into the loudest gradient
SLOPE = 0.2


class MultiResolutionDiscriminator(nn.Module):
    """One frame-level discriminator for each resolution.

    Args:
        resolutions: (n_fft, hop_length) of each, in samples; Hann window of n_fft.
        channels: of each hidden layer.
        layers: hidden layers.

    Shape: `(B, T)` -> for each resolution a list of feature maps `(B, T // hop_length, channels)`, the logits last.
    """

    def __init__(
        self,
        resolutions: tuple[tuple[int, int], ...] = ((512, 128), (1024, 256), (2048, 512)),
        channels: int = 256,
        layers: int = 4,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            SpectrumDiscriminator(n_fft, hop_length, channels, layers) for n_fft, hop_length in resolutions
        )

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        return [network(audio) for network in self.networks]


class SpectrumDiscriminator(nn.Module):
    """Convolutions over the frames of one compressed complex spectrum.

    Shape: `(B, T)` -> feature maps `(B, T // hop_length, channels)`, then logits `(B, T // hop_length, 1)`.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int, channels: int, layers: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        sizes = [3 * (n_fft // 2 + 1)] + [channels] * layers
        self.convs = nn.ModuleList(FrameConv(a, b, 3) for a, b in itertools.pairwise(sizes))
        self.logits = FrameConv(channels, 1, 3)
        for conv in (*self.convs, self.logits):
            weight_norm(conv.conv)

    def forward(self, audio: Tensor) -> list[Tensor]:
        x = self._features(audio)
        maps = []
        for conv in self.convs:
            x = nn.functional.leaky_relu(conv(x), SLOPE)
            maps.append(x)
        return [*maps, self.logits(x)]

    def _features(self, audio: Tensor) -> Tensor:
        """Real part, imaginary part and modulus, the modulus raised to `COMPRESSION`, as channels."""
        pad = (self.n_fft - self.hop_length) // 2
        with torch.autocast(audio.device.type, enabled=False):
            padded = nn.functional.pad(audio.float().unsqueeze(1), (pad, pad), mode="reflect").squeeze(1)
            spectrum = torch.stft(
                padded, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True
            )
            power = spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR
            by = power.pow((COMPRESSION - 1) / 2)
            parts = torch.cat([spectrum.real * by, spectrum.imag * by, power.sqrt() * by], dim=1)
        return parts.transpose(1, 2)
