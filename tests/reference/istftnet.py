"""iSTFTNet in plain torch, written from the paper on top of the reference of HiFi-GAN: an oracle.

Kaneko et al., "iSTFTNet", arXiv 2203.02395. Nothing of gansound is imported here, on purpose.
"""

import torch
from torch.nn.functional import leaky_relu, pad

from tests.reference import hifigan, vocos
from tests.reference.melgan import WNConv


class Generator(hifigan.Generator):
    """mel (B, bands, F) → (B, F * product of rates * hop), a frame amid each hop.

    `centred` as rishikksh20/iSTFTNet-pytorch and the decoders of MB-iSTFT-VITS: the frames of torch.stft, `phase` times
    the sine (1, and pi).
    """

    def __init__(self, *sizes, n_fft=16, hop=4, centred=False, phase=1.0, **more):
        super().__init__(*sizes, **more)
        self.centred, self.phase = centred, phase
        width = self.ups[-1].bias.shape[0]
        self.conv_post = WNConv(width, n_fft + 2, 7, padding=3)
        self.n_fft, self.hop = n_fft, hop

    def forward(self, mel):
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up(leaky_relu(x, 0.1))
            x = sum(b(x) for b in self.resblocks[i * self.branches : (i + 1) * self.branches]) / self.branches
        x = leaky_relu(x, 0.01)
        x = self.conv_post(pad(x, (1, 0), mode="reflect") if self.centred else x)
        bins = self.n_fft // 2 + 1
        spectrum = torch.polar(torch.exp(x[:, :bins]), self.phase * torch.sin(x[:, bins:]))
        window = torch.hann_window(self.n_fft).to(mel.dtype)
        if self.centred:
            return torch.istft(spectrum, self.n_fft, self.hop, self.n_fft, window)
        frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=1) * window[:, None]
        return torch.stack([vocos.overlapped(one, window, self.hop) for one in frames])
