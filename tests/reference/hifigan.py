"""HiFi-GAN in plain torch, written from the paper and the published layout: an oracle, and a rival.

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


# --- the discriminators and the loop


class WNConv2d(nn.Module):
    """A convolution along the first axis of an image, with weight = g * v / ||v||."""

    def __init__(self, ins, outs, kernel, stride=1):
        super().__init__()
        bound = (ins * kernel) ** -0.5
        v = torch.empty(outs, ins, kernel, 1).uniform_(-bound, bound)
        self.bias = nn.Parameter(torch.empty(outs).uniform_(-bound, bound))
        self.weight_g = nn.Parameter(v.pow(2).sum((1, 2, 3), keepdim=True).sqrt())
        self.weight_v = nn.Parameter(v)
        self.stride, self.side = (stride, 1), (kernel // 2, 0)

    def forward(self, x):
        weight = self.weight_v * (self.weight_g / self.weight_v.pow(2).sum((1, 2, 3), keepdim=True).sqrt())
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.side)


class SNConv(nn.Module):
    """A convolution whose weight is divided by its largest singular value, after one power iteration a pass."""

    def __init__(self, ins, outs, kernel, *, stride=1, padding=0, groups=1):
        super().__init__()
        bound = (ins // groups * kernel) ** -0.5
        self.weight_orig = nn.Parameter(torch.empty(outs, ins // groups, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outs).uniform_(-bound, bound))
        self.register_buffer("weight_u", nn.functional.normalize(torch.randn(outs), dim=0))
        self.register_buffer("weight_v", nn.functional.normalize(torch.randn(ins // groups * kernel), dim=0))
        self.settings = {"stride": stride, "padding": padding, "groups": groups}

    def turn(self):
        matrix = self.weight_orig.detach().flatten(1)
        self.weight_v = nn.functional.normalize(matrix.T @ self.weight_u, dim=0)
        self.weight_u = nn.functional.normalize(matrix @ self.weight_v, dim=0)

    def forward(self, x):
        self.turn()
        largest = self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v
        return nn.functional.conv1d(x, self.weight_orig / largest, self.bias, **self.settings)


class PeriodNet(nn.Module):
    def __init__(self, period, width):
        super().__init__()
        widths = [1, width, 4 * width, 16 * width, 32 * width, 32 * width]
        self.period = period
        self.convs = nn.ModuleList(
            WNConv2d(widths[i], widths[i + 1], 5, stride=3 if i < 4 else 1) for i in range(5)
        )
        self.conv_post = WNConv2d(widths[-1], 1, 3)

    def forward(self, x):
        missing = -x.shape[-1] % self.period
        x = nn.functional.pad(x, (0, missing), mode="reflect")
        x = x.view(x.shape[0], 1, -1, self.period)
        maps = []
        for conv in self.convs:
            x = leaky_relu(conv(x), 0.1)
            maps.append(x)
        return [*maps, self.conv_post(x)]


class PeriodDiscriminators(nn.Module):
    def __init__(self, periods=(2, 3, 5, 7, 11), width=32):
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodNet(period, width) for period in periods)

    def forward(self, x):
        return [net(x) for net in self.discriminators]


class ScaleNet(nn.Module):
    def __init__(self, width, spectral):
        super().__init__()
        conv = SNConv if spectral else WNConv
        w = width
        self.convs = nn.ModuleList(
            [
                conv(1, w, 15, padding=7),
                conv(w, w, 41, stride=2, groups=4, padding=20),
                conv(w, 2 * w, 41, stride=2, groups=16, padding=20),
                conv(2 * w, 4 * w, 41, stride=4, groups=16, padding=20),
                conv(4 * w, 8 * w, 41, stride=4, groups=16, padding=20),
                conv(8 * w, 8 * w, 41, groups=16, padding=20),
                conv(8 * w, 8 * w, 5, padding=2),
            ]
        )
        self.conv_post = conv(8 * w, 1, 3, padding=1)

    def forward(self, x):
        maps = []
        for conv in self.convs:
            x = leaky_relu(conv(x), 0.1)
            maps.append(x)
        return [*maps, self.conv_post(x)]


class ScaleDiscriminators(nn.Module):
    def __init__(self, scales=3, width=128):
        super().__init__()
        self.discriminators = nn.ModuleList(ScaleNet(width, spectral=i == 0) for i in range(scales))

    def forward(self, x):
        results = []
        for i, net in enumerate(self.discriminators):
            if i > 0:
                x = nn.functional.avg_pool1d(x, 4, 2, padding=2)
            results.append(net(x))
        return results


def log_mel(audio, filters, n_fft=1024, hop=256):
    """(B, 1, T) → (B, bands, T / hop), by filters (bands, n_fft / 2 + 1)."""
    side = (n_fft - hop) // 2
    padded = nn.functional.pad(audio, (side, side), mode="reflect").squeeze(1)
    window = torch.hann_window(n_fft, dtype=audio.dtype)
    spectrum = torch.stft(padded, n_fft, hop, n_fft, window, center=False, return_complex=True)
    return (filters @ (spectrum.abs().square() + 1e-9).sqrt()).clamp(min=1e-5).log()


def plain_train_step(generator, judges, optimizer_g, optimizer_d, mel, audio, filters):
    """One step as published: real and fake are judged apart, and both again after the discriminators' update.

    mel (B, bands, F), audio (B, 1, T), filters of the loss's mel, which reach up to half the rate.
    """
    fake = generator(mel)
    loss_d = 0.0
    for judge in judges:
        for real_maps, fake_maps in zip(judge(audio), judge(fake.detach()), strict=True):
            loss_d = loss_d + (1 - real_maps[-1]).square().mean() + fake_maps[-1].square().mean()
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()

    loss_g = 45 * (log_mel(fake, filters) - log_mel(audio, filters)).abs().mean()
    for judge in judges:
        for real_maps, fake_maps in zip(judge(audio), judge(fake), strict=True):
            loss_g = loss_g + (1 - fake_maps[-1]).square().mean()
            for real_map, fake_map in zip(real_maps, fake_maps, strict=True):
                loss_g = loss_g + 2 * (real_map - fake_map).abs().mean()
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    return float(loss_d.detach()), float(loss_g.detach())
