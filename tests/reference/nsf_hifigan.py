"""NSF-HiFiGAN in plain torch, after what openvpi/SingingVocoders, so-vits-svc and RVC compute; its names are theirs.

Whole utterances alone, samples one by one, phases by `cumsum`. What they draw is handed in.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, taps, dilations):
        super().__init__()
        self.convs1, self.convs2 = (
            nn.ModuleList(
                nn.Conv1d(width, width, taps, dilation=d, padding=(taps - 1) * d // 2) for d in each
            )
            for each in (dilations, [1] * len(dilations))
        )

    def forward(self, x):
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Source(nn.Module):
    def __init__(self, rate, hop, harmonics):
        super().__init__()
        self.rate, self.hop = rate, hop
        self.l_linear = nn.Linear(harmonics + 1, 1)

    def forward(self, f0, noise, begins):
        """`(B, F)`, `(F * hop, harmonics + 1)` of unit variance, `(harmonics + 1,)` in turns → `(B, F * hop)`."""
        each = f0.repeat_interleave(self.hop, 1)[..., None]
        turns = (each * torch.arange(1, len(begins) + 1) / self.rate).cumsum(1) + begins
        voiced = (each > 0).to(each)
        waves = 0.1 * (2 * math.pi * turns).sin() * voiced + noise * (0.003 * voiced + 0.1 / 3 * (1 - voiced))
        return self.l_linear(waves).tanh()[..., 0]


def glide(f0, rate, hop):
    """A sine whose frequency goes from each frame's to the next. `(B, F)` → `(B, F * hop)`."""
    following = torch.cat([f0[:, 1:], f0[:, -1:]], 1)
    n = torch.arange(hop)
    each = f0[..., None] + (following - f0)[..., None] * n / hop
    return (2 * math.pi * (each.flatten(1) / rate).cumsum(1)).sin()


class Generator(nn.Module):
    def __init__(self, bands, rate, channels, rates, taps, harmonics=8, mini=False, speaker=0):
        super().__init__()
        self.rates, self.mini = rates, mini
        hop = math.prod(rates)
        self.beyond = math.prod(rates[2:])
        self.rate, self.hop = rate, hop
        self.conv_pre = nn.Conv1d(bands, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        if mini:
            self.source_conv = nn.Conv1d(1, channels // 4, 1)
        else:
            self.m_source, self.noise_convs = Source(rate, hop, harmonics), nn.ModuleList()
        if speaker:
            self.cond = nn.Conv1d(speaker, channels, 1)
        stride = hop
        for r, k in zip(rates, taps, strict=True):
            width, stride = channels // 2, stride // r
            self.ups.append(nn.ConvTranspose1d(channels, width, k, r, (k - r) // 2))
            self.resblocks.extend(Block(width, size, (1, 3, 5)) for size in (3, 7, 11))
            if not mini:
                size, pad = (1, 0) if stride == 1 else (2 * stride, stride // 2)
                self.noise_convs.append(nn.Conv1d(1, width, size, stride, pad))
            channels = width
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, mel, f0, noise=None, begins=None, speaker=None):
        x = self.conv_pre(mel)
        if speaker is not None:
            x = x + self.cond(speaker)
        if self.mini:
            source = glide(f0, self.rate / self.beyond, self.hop // self.beyond)[:, None]
        else:
            source = self.m_source(f0, noise, begins)[:, None]
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            if not self.mini:
                x = x + self.noise_convs[stage](source)
            elif stage == 1:
                x = x + self.source_conv(source)
            x = sum(block(x) for block in self.resblocks[3 * stage : 3 * stage + 3]) / 3
        return self.conv_post(F.leaky_relu(x, 0.01)).tanh()[:, 0]
