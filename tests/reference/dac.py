"""DAC's and SNAC's codebooks and decoder in plain torch, written after the papers and what their code computes.

Its names are theirs. Whole utterances alone; a codebook at a time. What SNAC draws is handed in.
"""

import math

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class Alpha(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(0.5 + torch.rand(1, width, 1))

    def forward(self, x):
        return x + (self.alpha * x).sin() ** 2 / (self.alpha + 1e-9)


class Unit(nn.Module):
    def __init__(self, width, dilation, groups):
        super().__init__()
        along = nn.Conv1d(width, width, 7, dilation=dilation, padding=3 * dilation, groups=groups)
        self.block = nn.Sequential(
            Alpha(width), weight_norm(along), Alpha(width), weight_norm(nn.Conv1d(width, width, 1))
        )

    def forward(self, x):
        return x + self.block(x)


class Noise(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = weight_norm(nn.Conv1d(width, width, 1, bias=False))
        self.drawn = None  # (T,)

    def forward(self, x):
        return x + self.drawn[: x.shape[-1]] * self.linear(x)


class Stage(nn.Module):
    def __init__(self, inside, outside, rate, depthwise, noise):
        super().__init__()
        cut = math.ceil(rate / 2)
        up = nn.ConvTranspose1d(
            inside, outside, 2 * rate, rate, padding=cut, output_padding=2 * cut - rate
        )  # a rate's samples for each column
        units = [Unit(outside, dilation, outside if depthwise else 1) for dilation in (1, 3, 9)]
        self.block = nn.Sequential(
            Alpha(inside), weight_norm(up), *([Noise(outside)] if noise else []), *units
        )

    def forward(self, x):
        return self.block(x)


class Decoder(nn.Module):
    def __init__(self, latent, width, rates, depthwise, noise):
        super().__init__()
        layers = [weight_norm(nn.Conv1d(latent, width, 7, padding=3))]
        if depthwise:
            layers = [
                weight_norm(nn.Conv1d(latent, latent, 7, padding=3, groups=latent)),
                weight_norm(nn.Conv1d(latent, width, 1)),
            ]
        for rate in rates:
            layers.append(Stage(width, width // 2, rate, depthwise, noise))
            width //= 2
        layers += [Alpha(width), weight_norm(nn.Conv1d(width, 1, 7, padding=3)), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Codebook(nn.Module):
    def __init__(self, latent, size, width, stride):
        super().__init__()
        self.stride = stride
        self.in_proj = weight_norm(nn.Conv1d(latent, width, 1))  # of the encoder's half
        self.out_proj = weight_norm(nn.Conv1d(width, latent, 1))
        self.codebook = nn.Embedding(size, width)

    def forward(self, codes):
        return self.out_proj(self.codebook(codes).transpose(1, 2)).repeat_interleave(self.stride, -1)


class Quantizer(nn.Module):
    def __init__(self, latent, size, width, strides):
        super().__init__()
        self.quantizers = nn.ModuleList(Codebook(latent, size, width, stride) for stride in strides)

    def forward(self, codes):
        return sum(book(one) for book, one in zip(self.quantizers, codes, strict=True))


class Codec(nn.Module):
    """`strides` as SNAC's `vq_strides`, of DAC 1 for each codebook."""

    def __init__(
        self, strides, rates, size=32, width=4, latent=12, channels=16, depthwise=False, noise=False
    ):
        super().__init__()
        self.encoder = nn.Sequential(
            weight_norm(nn.Conv1d(1, latent, 7))
        )  # of another shape than theirs: unread
        self.quantizer = Quantizer(latent, size, width, strides)
        self.decoder = Decoder(latent, channels, rates, depthwise, noise)

    def forward(self, codes):
        """Codes of each codebook, `(B, T / stride)` → `(B, T * product of the rates)`."""
        return self.decoder(self.quantizer(codes))[:, 0]
