"""HiFT in plain torch, written after the papers and what CosyVoice and Chatterbox compute; its names are theirs.

Whole utterances alone, samples one by one, with `torch.stft`, `torch.istft` and `cumsum`. What they draw is handed in.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def conv(inside, outside, taps, dilation=1, *, causal=False, **more):
    padding = 0 if causal else (taps - 1) * dilation // 2
    return nn.Conv1d(inside, outside, taps, dilation=dilation, padding=padding, **more)


def before(layer, x):
    """A causal convolution: zeros in front."""
    return layer(F.pad(x, ((layer.kernel_size[0] - 1) * layer.dilation[0], 0)))


class Alpha(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(0.5 + torch.rand(width))

    def forward(self, x):
        alpha = self.alpha[:, None]
        return x + (x * alpha).sin() ** 2 / (alpha + 1e-9)


class Block(nn.Module):
    def __init__(self, width, taps, dilations, causal):
        super().__init__()
        self.causal = causal
        self.convs1 = nn.ModuleList(conv(width, width, taps, d, causal=causal) for d in dilations)
        self.convs2 = nn.ModuleList(conv(width, width, taps, causal=causal) for _ in dilations)
        self.activations1 = nn.ModuleList(Alpha(width) for _ in dilations)
        self.activations2 = nn.ModuleList(Alpha(width) for _ in dilations)

    def forward(self, x):
        run = before if self.causal else lambda layer, y: layer(y)
        for a, first, b, second in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + run(second, b(run(first, a(x))))
        return x


class Pitch(nn.Module):
    def __init__(self, bands, width, causal):
        super().__init__()
        self.causal = causal
        layers = []
        for place in range(5):
            taps = 4 if causal and place == 0 else 3
            layers += [conv(width if place else bands, width, taps, causal=causal), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, 1)

    def forward(self, x):
        for place, layer in enumerate(self.condnet):
            if not self.causal or isinstance(layer, nn.ELU):
                x = layer(x)
            else:
                x = layer(F.pad(x, (0, 3))) if place == 0 else before(layer, x)
        return self.classifier(x.transpose(1, 2)).abs()[..., 0]


class Source(nn.Module):
    def __init__(self, rate, hop, harmonics, phases):
        super().__init__()
        self.rate, self.hop, self.phases = rate, hop, phases
        self.l_linear = nn.Linear(harmonics + 1, 1)

    def forward(self, f0, noise, begins):
        """`(B, F)`, `(F * hop, harmonics + 1)` of unit variance, `(harmonics + 1,)` in radians → `(B, F * hop)`."""
        each = f0.repeat_interleave(self.hop, 1)[..., None]
        cycles = each * torch.arange(1, len(begins) + 1) / self.rate
        if self.phases == "summed":
            angle = 2 * math.pi * cycles.cumsum(1) + begins
        else:
            middles = 2 * math.pi * self.hop * (cycles % 1)[:, self.hop // 2 :: self.hop].cumsum(1)
            mode = {"interpolated": "linear", "held": "nearest"}[self.phases]
            angle = F.interpolate(middles.transpose(1, 2), scale_factor=self.hop, mode=mode).transpose(1, 2)
        voiced = (each > 10).to(each)
        if self.phases == "held":
            noise = 0.5 + noise / math.sqrt(12)
        waves = 0.1 * angle.sin() * voiced + noise * (0.003 * voiced + 0.1 / 3 * (1 - voiced))
        return self.l_linear(waves).tanh()[..., 0]


class Generator(nn.Module):
    def __init__(
        self, rate, bands, channels, rates, taps, kernels, dilations, source_kernels, source_dilations, pitch_channels,
        harmonics, phases, causal,
    ):  # fmt: skip
        super().__init__()
        self.rates, self.causal = rates, causal
        self.m_source = Source(rate, 4 * math.prod(rates), harmonics, phases)
        self.f0_predictor = Pitch(bands, pitch_channels, causal)
        self.conv_pre = conv(bands, channels, 5 if causal else 7, causal=causal)
        self.ups, self.source_downs, self.source_resblocks, self.resblocks = (
            nn.ModuleList() for _ in range(4)
        )
        stride = math.prod(rates)
        for stage, (r, k) in enumerate(zip(rates, taps, strict=True)):
            width, stride = channels // 2, stride // r
            up = (
                nn.Conv1d(channels, width, k)
                if causal
                else nn.ConvTranspose1d(channels, width, k, r, (k - r) // 2)
            )
            self.ups.append(up)
            size, pad = (1, 0) if stride == 1 else (2 * stride, 0 if causal else stride // 2)
            self.source_downs.append(nn.Conv1d(18, width, size, stride, pad))
            self.source_resblocks.append(Block(width, source_kernels[stage], source_dilations[stage], causal))
            self.resblocks.extend(
                Block(width, *chain, causal) for chain in zip(kernels, dilations, strict=True)
            )
            channels = width
        self.conv_post = conv(width, 18, 7, causal=causal)

    def forward(self, mel, noise, begins):
        source = self.m_source(self.f0_predictor(mel), noise, begins)
        window = torch.hann_window(16, dtype=mel.dtype)
        spectrum = torch.stft(source, 16, 4, window=window, return_complex=True)
        spectrum = torch.cat([spectrum.real, spectrum.imag], 1)
        x = self.conv_pre(F.pad(mel, (0, 4)) if self.causal else mel)
        chains = len(self.resblocks) // len(self.ups)
        for stage, up in enumerate(self.ups):
            x = F.leaky_relu(x, 0.1)
            x = before(up, x.repeat_interleave(self.rates[stage], 2)) if self.causal else up(x)
            if stage == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            down = self.source_downs[stage]
            stride = down.stride[0]
            side = down(F.pad(spectrum, (stride - 1, 0)) if self.causal and stride > 1 else spectrum)
            x = x + self.source_resblocks[stage](side)
            x = sum(block(x) for block in self.resblocks[stage * chains : (stage + 1) * chains]) / chains
        x = F.leaky_relu(x, 0.01)
        x = before(self.conv_post, x) if self.causal else self.conv_post(x)
        magnitude, phase = x[:, :9].exp().clamp(max=100), x[:, 9:].sin()
        return torch.istft(torch.polar(magnitude, phase), 16, 4, window=window).clamp(-0.99, 0.99)
