"""Vocos in plain torch, written from the paper and the published layout: an oracle.

Siuzdak, "Vocos", arXiv 2306.00814. State-dict keys are those of gemelo-ai/vocos (`backbone.convnext.0.gamma`,
`head.out.weight`, ...), but for the window. Nothing of gansound is imported here, on purpose.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, hidden, blocks):
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, hidden)
        self.pwconv2 = nn.Linear(hidden, width)
        self.gamma = nn.Parameter(torch.full((width,), 1 / blocks))

    def forward(self, x):
        y = self.norm(self.dwconv(x).transpose(1, 2))
        y = self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + (self.gamma * y).transpose(1, 2)


class Generator(nn.Module):
    """mel (B, bands, F) → audio: (F - 1) * hop samples where frames are centred, F * hop where they are not."""

    def __init__(self, bands=100, width=512, hidden=1536, blocks=8, n_fft=1024, hop=256, centred=True):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.embed = nn.Conv1d(bands, width, 7, padding=3)
        self.backbone.norm = nn.LayerNorm(width, eps=1e-6)
        self.backbone.convnext = nn.ModuleList(Block(width, hidden, blocks) for _ in range(blocks))
        self.backbone.final_layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Module()
        self.head.out = nn.Linear(width, n_fft + 2)
        self.n_fft, self.hop, self.centred = n_fft, hop, centred

    def spectrum(self, mel):
        b = self.backbone
        x = b.norm(b.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block in b.convnext:
            x = block(x)
        x = self.head.out(b.final_layer_norm(x.transpose(1, 2))).transpose(1, 2)
        magnitude, phase = x.chunk(2, dim=1)
        magnitude = torch.clip(torch.exp(magnitude), max=100.0)
        return magnitude * torch.exp(1j * phase)

    def forward(self, mel):
        spectrum = self.spectrum(mel)
        window = torch.hann_window(self.n_fft, dtype=torch.float32).to(mel.dtype)
        if self.centred:
            return torch.istft(spectrum, self.n_fft, self.hop, window=window, center=True)
        frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=1) * window[:, None]
        return torch.stack([overlapped(one, window, self.hop) for one in frames])


def overlapped(frames, window, hop):
    """(n_fft, F) frames added up in a loop, divided by the windows' energy, cut by (n_fft - hop) / 2 on both sides."""
    n_fft, count = frames.shape
    total = frames.new_zeros(n_fft + (count - 1) * hop)
    energy = torch.zeros_like(total)
    for i in range(count):
        piece = slice(i * hop, i * hop + n_fft)
        total = total + F.pad(frames[:, i], (i * hop, len(total) - i * hop - n_fft))
        energy[piece] += window**2
    cut = (n_fft - hop) // 2
    return total[cut : len(total) - cut] / energy[cut : len(total) - cut]


@torch.no_grad()
def awaken(net, mel, output_rms=0.3):
    """Weights drawn wide enough for every layer to be heard, as loud as speech."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    bins = net.n_fft // 2 + 1
    net.head.out.bias[:bins] += torch.log(output_rms / net(mel).square().mean().sqrt())
