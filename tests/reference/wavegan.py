"""WaveGAN in plain torch, written from the paper and the published layout: an oracle, and a rival for speed.

Donahue et al., "Adversarial Audio Synthesis", ICLR 2019, arXiv 1802.04208, with the padding and initial weights of
TensorFlow's layers; WGAN-GP of Gulrajani et al., arXiv 1704.00028. Nothing of gansound is imported here, on purpose:
not a layer, not a loss.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
WIDTHS = {8192: 16, 16384: 16, 32768: 32, 65536: 32}  # of the widest layer, in multiples of d
STRIDES = {8192: [4] * 5, 16384: [4] * 5, 32768: [4] * 5 + [2], 65536: [4] * 6}


class Generator(nn.Module):
    """latents (B, 100) → (B, channels, samples)."""

    def __init__(self, samples=16384, channels=1, d=64, latent=100, kernel=25):
        super().__init__()
        self.strides = STRIDES[samples]
        width = d * WIDTHS[samples]
        self.width, self.kernel = width, kernel
        self.columns = 8 if samples == 8192 else 16
        self.dense = nn.Linear(latent, self.columns * width)
        widths = [width // 2**i for i in range(len(self.strides))] + [channels]
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(widths[i], widths[i + 1], kernel, stride)
            for i, stride in enumerate(self.strides)
        )
        start(self)

    def forward(self, z):
        x = self.dense(z).reshape(len(z), self.columns, self.width).transpose(1, 2)
        for layer, stride in zip(self.layers, self.strides, strict=True):
            cut = (self.kernel - stride) // 2
            x = layer(F.relu(x))[..., cut : cut + stride * x.shape[-1]]
        return torch.tanh(x)


class Discriminator(nn.Module):
    """clips (B, channels, samples), shifts (B, 4) or None → logits (B, 1)."""

    def __init__(self, samples=16384, channels=1, d=64, kernel=25, shuffle=2):
        super().__init__()
        self.strides, self.kernel, self.shuffle = STRIDES[samples], kernel, shuffle
        widths = [channels] + [d * 2**i for i in range(len(self.strides))]
        self.layers = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], kernel, stride) for i, stride in enumerate(self.strides)
        )
        self.dense = nn.Linear((8 if samples == 8192 else 16) * widths[-1], 1)
        start(self)

    def forward(self, x, shifts=None):
        for i, (layer, stride) in enumerate(zip(self.layers, self.strides, strict=True)):
            pad = self.kernel - stride
            x = F.leaky_relu(layer(F.pad(x, (pad // 2, pad - pad // 2))), SLOPE)
            if shifts is not None and i < 4:
                x = shuffled(x, shifts[:, i], self.shuffle)
        return self.dense(x.transpose(1, 2).flatten(1))


def shuffled(x: Tensor, shifts: Tensor, most: int) -> Tensor:
    """Every item delayed by its own shift, its end reflected: pad by the most on both sides, then slice."""
    length = x.shape[-1]
    padded = F.pad(x, (most, most), mode="reflect")
    return torch.stack(
        [p[:, most - s : most - s + length] for p, s in zip(padded, shifts.tolist(), strict=True)]
    )


def start(net: nn.Module) -> None:
    """Glorot's uniform draw and zero biases, as tf.layers have them."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def penalty(discriminator: Discriminator, real: Tensor, fake: Tensor, mix: Tensor, shifts: Tensor) -> Tensor:
    """Mean of (‖∇D‖ − 1)² between real and fake."""
    between = (real + mix[:, None, None] * (fake - real)).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(between, shifts).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def critic_loss(
    discriminator: Discriminator, real: Tensor, fake: Tensor, mix: Tensor, shifts: Tensor
) -> Tensor:
    """WGAN-GP with λ = 10; shifts `(3, B, 4)` for the real batch, the fake one, and what lies between."""
    loss = discriminator(fake, shifts[0]).mean() - discriminator(real, shifts[1]).mean()
    return loss + 10 * penalty(discriminator, real, fake, mix, shifts[2])


def plain_train_step(
    generator: Generator,
    discriminator: Discriminator,
    optimizer_g: torch.optim.Optimizer,
    optimizer_d: torch.optim.Optimizer,
    reals: list[Tensor],
) -> None:
    """A critic update for each batch of real clips, then one of the generator."""
    items, most = len(reals[0]), discriminator.shuffle
    for real in reals:
        with torch.no_grad():
            fake = generator(torch.rand(items, 100) * 2 - 1)
        shifts = torch.randint(-most, most + 1, (3, items, 4))
        optimizer_d.zero_grad()
        critic_loss(discriminator, real, fake, torch.rand(items), shifts).backward()
        optimizer_d.step()
    optimizer_g.zero_grad()
    discriminator.requires_grad_(False)
    fake = generator(torch.rand(items, 100) * 2 - 1)
    (-discriminator(fake, torch.randint(-most, most + 1, (items, 4))).mean()).backward()
    discriminator.requires_grad_(True)
    optimizer_g.step()
