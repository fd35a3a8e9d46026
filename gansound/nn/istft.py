"""Inverse short-time Fourier transform as the last layer of a generator.

Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984): the least-squares inverse,
overlap-add of windowed frames divided by the overlapped squared window. The framing is that of the GAN vocoders
(HiFi-GAN's, Vocos' "same"): frame f is centred on sample `(f + 1/2) * hop_length`, so F frames give exactly
`F * hop_length` samples.
"""

import torch
from torch import Tensor, nn

from gansound.nn.streaming import Cursor


class ISTFT(nn.Module):
    """Spectrum to waveform.

    Streaming, a sample waits for the frames that overlap it: `(n_fft - hop_length) / 2` samples of look-ahead.

    Spectra are channels last, a frame's real parts before its imaginary parts: complex tensors are what exported
    graphs and integer runtimes don't know.

    Shape: `(B, F, n_fft + 2)` -> `(B, F * hop_length)`.
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
        self.overlap_frames = n_fft // hop_length
        self.trim_samples = (n_fft - hop_length) // 2
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        frames = self._frames(spectrum)
        envelope = self.window.square().expand(1, frames.shape[1], -1)
        return self._trimmed(frames) / self._trimmed(envelope)

    def stream(self, spectrum: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, n_fft + 2)` -> `(B, n * hop_length)`."""
        context = self.overlap_frames - 1
        frames = cursor.window(self._frames(spectrum), context, dim=1)
        inside = cursor.inside(frames.shape[1], context)
        if inside is None:
            inside = frames.new_ones(1, frames.shape[1], dtype=torch.bool)
        norm = self._overlap_add(torch.where(inside[:, :, None], self.window.square(), 0.0))
        cursor.upsample(self.hop_length)
        cursor.late(self.trim_samples, self.n_fft - 1 - self.trim_samples)
        # Before the first frame and after the last there is nothing to divide.
        return self._overlap_add(frames) / norm.clamp_min(torch.finfo(norm.dtype).tiny)

    def _frames(self, spectrum: Tensor) -> Tensor:
        """`(B, F, n_fft + 2)` -> windowed frames `(B, F, n_fft)`."""
        real, imaginary = spectrum.chunk(2, dim=2)
        return torch.fft.irfft(torch.complex(real, imaginary), n=self.n_fft, dim=2) * self.window

    def _trimmed(self, frames: Tensor) -> Tensor:
        """`(B, F, n_fft)` -> `(B, F * hop_length)`."""
        end = self.overlap_frames - 1
        whole = self._overlap_add(nn.functional.pad(frames, (0, 0, end, end)))
        return whole[:, self.trim_samples : -self.trim_samples]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """The hops to which all overlapping frames are there: `(B, overlap - 1 + F, n_fft)` -> `(B, F * hop_length)`.

        The blocks of a hop are added, not scattered: `forward` and `stream` add the same numbers in the same order.
        """
        overlap = self.overlap_frames
        count = frames.shape[1] - overlap + 1
        blocks = frames.unflatten(2, (overlap, self.hop_length))
        total = blocks[:, overlap - 1 : overlap - 1 + count, 0]
        for i in range(1, overlap):
            total = total + blocks[:, overlap - 1 - i : overlap - 1 - i + count, i]
        return total.flatten(1)
