"""HiFi-GAN's generator in plain torch, written from the paper and the published layout: an oracle, and a rival.

Kong et al., "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646. State-dict keys are those of jik876/hifi-gan
(`ups.0.weight_g`, `resblocks.3.convs1.0.weight_v`, ...). Nothing of gansound is imported here, on purpose.
"""

import torch
from torch import nn
from torch.nn.functional import leaky_relu

from tests.reference.melgan import WNConv


def same(width, kernel, dilation):
    return WNConv(width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class ResBlock1(nn.Module):
    def __init__(self, width, kernel, dilations):
        super().__init__()
        self.convs1 = nn.ModuleList(same(width, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(same(width, kernel, 1) for _ in dilations)

    def forward(self, x):
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(leaky_relu(dilated(leaky_relu(x, 0.1)), 0.1))
        return x


class ResBlock2(nn.Module):
    def __init__(self, width, kernel, dilations):
        super().__init__()
        self.convs = nn.ModuleList(same(width, kernel, d) for d in dilations)

    def forward(self, x):
        for dilated in self.convs:
            x = x + dilated(leaky_relu(x, 0.1))
        return x


class Generator(nn.Module):
    """mel (B, bands, F) → (B, 1, F * product of rates). The defaults are the paper's V1."""

    def __init__(
        self,
        bands=80,
        width=512,
        rates=(8, 8, 2, 2),
        kernels=(16, 16, 4, 4),
        block_kernels=(3, 7, 11),
        block_dilations=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        block=ResBlock1,
    ):
        super().__init__()
        self.conv_pre = WNConv(bands, width, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        self.branches = len(block_kernels)
        for rate, kernel in zip(rates, kernels, strict=True):
            self.ups.append(
                WNConv(width, width // 2, kernel, transposed=True, stride=rate, padding=(kernel - rate) // 2)
            )
            width //= 2
            for size, dilations in zip(block_kernels, block_dilations, strict=True):
                self.resblocks.append(block(width, size, dilations))
        self.conv_post = WNConv(width, 1, 7, padding=3)

    def forward(self, mel):
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up(leaky_relu(x, 0.1))
            seen = [block(x) for block in self.resblocks[i * self.branches : (i + 1) * self.branches]]
            x = torch.stack(seen).mean(0)
        return torch.tanh(self.conv_post(leaky_relu(x, 0.01)))
