"""Inverse short-time Fourier transform as the last layer of a generator.

Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984): the least-squares inverse,
overlap-add of windowed frames divided by the overlapped squared window. The framing is that of the GAN vocoders
(HiFi-GAN's, Vocos' "same"): frame f is centred on sample `(f + 1/2) * hop_length`, so F frames give exactly
`F * hop_length` samples.
"""

import torch
from torch import Tensor, nn


class ISTFT(nn.Module):
    """Spectrum to waveform.

    Shape: `(B, n_fft // 2 + 1, F)` complex -> `(B, F * hop_length)`.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        if n_fft % hop_length or n_fft // hop_length < 2 or (n_fft - hop_length) % 2:
            raise ValueError(
                f"n_fft must be a multiple of hop_length, at least twice it, with an even difference; "
                f"got n_fft {n_fft}, hop_length {hop_length}"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=1).transpose(1, 2) * self.window
        envelope = self.window.square().expand(1, frames.shape[1], -1)
        trim = (self.n_fft - self.hop_length) // 2
        audio = self._overlap_add(frames)[:, trim:-trim]
        return audio / self._overlap_add(envelope)[:, trim:-trim]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """`(B, F, n_fft)` -> `(B, F * hop_length + n_fft - hop_length)`."""
        batch, count, _ = frames.shape
        overlap = self.n_fft // self.hop_length
        blocks = frames.reshape(batch, count, overlap, self.hop_length)
        total = frames.new_zeros(batch, count + overlap - 1, self.hop_length)
        for i in range(overlap):
            total[:, i : i + count] += blocks[:, :, i]
        return total.reshape(batch, -1)
