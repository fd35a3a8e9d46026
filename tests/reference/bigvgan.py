"""BigVGAN's generator in plain torch and scipy, written from the paper and the published layout: an oracle.

Lee et al., "BigVGAN", arXiv 2206.04658. State-dict keys are those of NVIDIA/BigVGAN (`ups.0.0.weight_g`,
`resblocks.3.activations.1.act.alpha`, ...), but for the filters. Nothing of gansound is imported here, on purpose.
"""

import math

import numpy as np
import scipy.signal
import torch
from torch import nn
from torch.nn import functional as F

from tests.reference.hifigan import same
from tests.reference.melgan import WNConv


def published_filter():
    """12 taps for a cut-off of a quarter of the rate and a transition of 0.6 of it either side, as float32."""
    beta = scipy.signal.kaiser_beta(2.285 * 5 * math.pi * 4 * 0.3 + 7.95)
    taps = scipy.signal.firwin(12, 0.25, fs=1.0, window=("kaiser", beta), scale=True)
    return torch.from_numpy(taps.astype(np.float32))


def doubled(x, taps):
    """Zeros between the samples of (B, C, T), and the filter; its delay of 5 1/2 samples is cut as published."""
    x = F.pad(x, (5, 5), mode="replicate")
    stuffed = torch.stack([x, torch.zeros_like(x)], -1).flatten(2)
    stuffed = F.pad(stuffed, (11, 11))
    filtered = stuffed.unfold(-1, 12, 1) @ taps.flip(0)
    length = 2 * (x.shape[-1] - 10)
    return 2 * filtered[..., 15 : 15 + length]


def halved(x, taps):
    x = F.pad(x, (5, 6), mode="replicate")
    return (x.unfold(-1, 12, 1) @ taps)[..., ::2]


class Act(nn.Module):
    def __init__(self, width, beta, log):
        super().__init__()
        start = torch.zeros if log else torch.ones
        self.alpha = nn.Parameter(start(width))
        if beta:
            self.beta = nn.Parameter(start(width))
        self.log = log

    def forward(self, x):
        alpha = self.alpha
        beta = getattr(self, "beta", alpha)
        if self.log:
            alpha, beta = torch.exp(alpha), torch.exp(beta)
        # sin² by its double angle
        return x + (1 - torch.cos(2 * alpha[:, None] * x)) / 2 / (beta[:, None] + 1e-9)


class Activation1d(nn.Module):
    def __init__(self, width, beta, log):
        super().__init__()
        self.act = Act(width, beta, log)
        self.taps = published_filter()

    def forward(self, x):
        taps = self.taps.to(x.dtype)
        return halved(self.act(doubled(x, taps)), taps)


class AMPBlock(nn.Module):
    """Published as AMPBlock1 (`paired`) and AMPBlock2."""

    def __init__(self, width, kernel, dilations, paired, beta, log):
        super().__init__()
        self.paired = paired
        if paired:
            self.convs1 = nn.ModuleList(same(width, kernel, d) for d in dilations)
            self.convs2 = nn.ModuleList(same(width, kernel, 1) for _ in dilations)
        else:
            self.convs = nn.ModuleList(same(width, kernel, d) for d in dilations)
        count = len(dilations) * (2 if paired else 1)
        self.activations = nn.ModuleList(Activation1d(width, beta, log) for _ in range(count))

    def forward(self, x):
        if self.paired:
            for i, (one, two) in enumerate(zip(self.convs1, self.convs2, strict=True)):
                y = one(self.activations[2 * i](x))
                x = x + two(self.activations[2 * i + 1](y))
            return x
        for conv, act in zip(self.convs, self.activations, strict=True):
            x = x + conv(act(x))
        return x


class Generator(nn.Module):
    """mel (B, bands, F) → (B, 1, F * product of rates)."""

    def __init__(
        self, bands, width, rates, kernels, block_kernels, block_dilations, paired=True,
        beta=True, log=True, tanh=True, bias=True,
    ):  # fmt: skip
        super().__init__()
        self.conv_pre = WNConv(bands, width, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        self.branches = len(block_kernels)
        for rate, kernel in zip(rates, kernels, strict=True):
            up = WNConv(width, width // 2, kernel, transposed=True, stride=rate, padding=(kernel - rate) // 2)
            self.ups.append(nn.ModuleList([up]))
            width //= 2
            for size, dilations in zip(block_kernels, block_dilations, strict=True):
                self.resblocks.append(AMPBlock(width, size, dilations, paired, beta, log))
        self.activation_post = Activation1d(width, beta, log)
        self.conv_post = WNConv(width, 1, 7, padding=3)
        if not bias:
            self.conv_post.bias = None
        self.tanh = tanh

    def forward(self, mel):
        x = self.conv_pre(mel)
        for i, (up,) in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[i * self.branches : (i + 1) * self.branches]
            x = sum(block(x) for block in blocks) / self.branches
        x = self.conv_post(self.activation_post(x))
        return torch.tanh(x) if self.tanh else torch.clamp(x, -1.0, 1.0)


# --- the multi-resolution discriminator (Jang et al., "UnivNet", arXiv 2106.07889, section 2.3)


class ImageConv(nn.Module):
    """A convolution over an image, as wide before as behind, with weight = g * v / ||v||."""

    def __init__(self, ins, outs, kernel, stride=1):
        super().__init__()
        v = torch.randn(outs, ins, *kernel) * (ins * math.prod(kernel)) ** -0.5
        self.bias = nn.Parameter(torch.randn(outs) / 10)
        self.weight_g = nn.Parameter(v.pow(2).sum((1, 2, 3), keepdim=True).sqrt())
        self.weight_v = nn.Parameter(v)
        self.stride, self.sides = (1, stride), tuple(width // 2 for width in kernel)

    def forward(self, x):
        weight = self.weight_v * (self.weight_g / self.weight_v.pow(2).sum((1, 2, 3), keepdim=True).sqrt())
        return F.conv2d(x, weight, self.bias, self.stride, self.sides)


class ResolutionNet(nn.Module):
    def __init__(self, n_fft, hop, window):
        super().__init__()
        self.n_fft, self.hop, self.window = n_fft, hop, window
        sizes = [(1, (3, 9), 1), (32, (3, 9), 2), (32, (3, 9), 2), (32, (3, 9), 2), (32, (3, 3), 1)]
        self.convs = nn.ModuleList(ImageConv(ins, 32, kernel, stride) for ins, kernel, stride in sizes)
        self.conv_post = ImageConv(32, 1, (3, 3))

    def forward(self, audio):
        side = (self.n_fft - self.hop) // 2
        padded = F.pad(audio[:, None], (side, side), mode="reflect")[:, 0]
        window = torch.ones(self.window)
        x = torch.stft(
            padded, self.n_fft, self.hop, self.window, window, center=False, return_complex=True
        ).abs()[:, None]
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
        return self.conv_post(x)


class ResolutionDiscriminators(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [(1024, 120, 600), (2048, 240, 1200), (512, 50, 240)]
        self.discriminators = nn.ModuleList(ResolutionNet(*size) for size in sizes)

    def forward(self, audio):
        return [net(audio) for net in self.discriminators]
