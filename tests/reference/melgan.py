"""MelGAN in plain torch, written from the paper and the published layout: an oracle, and a rival for speed.

Kumar et al., "MelGAN", NeurIPS 2019, arXiv 1910.06711. State-dict keys are those of descriptinc/melgan-neurips
(`model.1.weight_g`, `model.disc_0.model.layer_1.0.weight_v`, ...), so a published checkpoint's shapes fit. Nothing
of gansound is imported here, on purpose: not a layer, not a loss.
"""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

SLOPE = 0.2


class WNConv(nn.Module):
    """Convolution, plain or transposed, with weight = g * v / ||v||, the norm taken over all but the first axis."""

    def __init__(
        self, ins, outs, kernel, *, transposed=False, stride=1, padding=0, dilation=1, groups=1, extra=0
    ):
        super().__init__()
        shape = (ins, outs, kernel) if transposed else (outs, ins // groups, kernel)
        # torch's default draw: uniform in +-1/sqrt(fan in), the fan being that of the second axis.
        bound = (shape[1] * kernel) ** -0.5
        self.bias = nn.Parameter(torch.empty(outs).uniform_(-bound, bound))
        v = torch.empty(shape).uniform_(-bound, bound)
        self.weight_g = nn.Parameter(v.pow(2).sum((1, 2), keepdim=True).sqrt())
        self.weight_v = nn.Parameter(v)
        self.transposed = transposed
        self.settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        if transposed:
            self.settings["output_padding"] = extra

    def forward(self, x):
        weight = self.weight_v * (self.weight_g / self.weight_v.pow(2).sum((1, 2), keepdim=True).sqrt())
        convolve = nn.functional.conv_transpose1d if self.transposed else nn.functional.conv1d
        return convolve(x, weight, self.bias, **self.settings)


class ResnetBlock(nn.Module):
    def __init__(self, width, dilation):
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.ReflectionPad1d(dilation),
            WNConv(width, width, 3, dilation=dilation),
            nn.LeakyReLU(SLOPE),
            WNConv(width, width, 1),
        )
        self.shortcut = WNConv(width, width, 1)

    def forward(self, x):
        return self.shortcut(x) + self.block(x)


class Generator(nn.Module):
    """mel (B, bands, F) → (B, 1, F * product of ratios)."""

    def __init__(self, bands=80, ngf=32, ratios=(8, 8, 2, 2), residuals=3):
        super().__init__()
        width = ngf * 2 ** len(ratios)
        layers = [nn.ReflectionPad1d(3), WNConv(bands, width, 7)]
        for r in ratios:
            layers += [
                nn.LeakyReLU(SLOPE),
                WNConv(
                    width, width // 2, 2 * r, transposed=True, stride=r, padding=r // 2 + r % 2, extra=r % 2
                ),
            ]
            width //= 2
            layers += [ResnetBlock(width, 3**i) for i in range(residuals)]
        layers += [nn.LeakyReLU(SLOPE), nn.ReflectionPad1d(3), WNConv(width, 1, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, mel):
        return self.model(mel)


class NLayerDiscriminator(nn.Module):
    def __init__(self, ndf, n_layers, factor, most):
        super().__init__()
        layers = OrderedDict()
        layers["layer_0"] = nn.Sequential(nn.ReflectionPad1d(7), WNConv(1, ndf, 15), nn.LeakyReLU(SLOPE))
        width = ndf
        for i in range(1, n_layers + 1):
            before, width = width, min(width * factor, most)
            layers[f"layer_{i}"] = nn.Sequential(
                WNConv(before, width, 10 * factor + 1, stride=factor, padding=5 * factor, groups=before // 4),
                nn.LeakyReLU(SLOPE),
            )
        before, width = width, min(width * 2, most)
        layers[f"layer_{n_layers + 1}"] = nn.Sequential(
            WNConv(before, width, 5, padding=2), nn.LeakyReLU(SLOPE)
        )
        layers[f"layer_{n_layers + 2}"] = WNConv(width, 1, 3, padding=1)
        self.model = nn.ModuleDict(layers)

    def forward(self, x):
        maps = []
        for layer in self.model.values():
            x = layer(x)
            maps.append(x)
        return maps


class Discriminator(nn.Module):
    """audio (B, 1, T) → for each scale a list of maps, the logits last."""

    def __init__(self, num_d=3, ndf=16, n_layers=4, factor=4, most=1024):
        super().__init__()
        self.model = nn.ModuleDict(
            {f"disc_{i}": NLayerDiscriminator(ndf, n_layers, factor, most) for i in range(num_d)}
        )
        self.halve = nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False)

    def forward(self, x):
        results = []
        for i, net in enumerate(self.model.values()):
            if i > 0:
                x = self.halve(x)
            results.append(net(x))
        return results


@torch.no_grad()
def awaken(generator: nn.Module, mel: Tensor, output_rms: float = 0.3) -> None:
    """Rescale every gain and bias, layer by layer, until activations on `mel` have unit variance.

    As drawn, a generator's signal dies on the way up and only biases are heard; an error in an early layer would not
    show in the output. The last convolution is set so that tanh gets `output_rms`, far from saturation.
    """
    convolutions = [m for m in generator.modules() if isinstance(m, WNConv)]
    for conv in convolutions:
        seen = []
        handle = conv.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out))
        generator(mel)
        handle.remove()
        (out,) = seen
        target = output_rms if conv is convolutions[-1] else 1.0
        factor = target / out.std()
        conv.weight_g *= factor
        conv.bias *= factor


def plain_train_step(
    generator: Generator,
    discriminator: Discriminator,
    optimizer_g: torch.optim.Optimizer,
    optimizer_d: torch.optim.Optimizer,
    mel: Tensor,
    audio: Tensor,
    feature_weight: float = 10.0,
) -> dict[str, float]:
    """One step as published: the discriminators learn, then the generator against the learned ones.

    mel (B, bands, F), audio (B, T) with T = F * hop. One generator forward serves both; the real batch's maps are
    those of the discriminators before their update.
    """
    real = audio.unsqueeze(1)
    fake = generator(mel)

    judged_fake = discriminator(fake.detach())
    judged_real = discriminator(real)
    loss_d = 0.0
    for maps in judged_fake:
        loss_d = loss_d + torch.relu(1 + maps[-1]).mean()
    for maps in judged_real:
        loss_d = loss_d + torch.relu(1 - maps[-1]).mean()
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()

    judged_fake = discriminator(fake)
    loss_adversarial, loss_features = 0.0, 0.0
    scales = len(judged_fake)
    for fake_maps, real_maps in zip(judged_fake, judged_real, strict=True):
        loss_adversarial = loss_adversarial - fake_maps[-1].mean()
        n_layers = len(fake_maps) - 3  # all but the first, the penultimate and the last downsample
        for a, b in zip(fake_maps[:-1], real_maps[:-1], strict=True):
            loss_features = (
                loss_features + (4.0 / (n_layers + 1)) * (1.0 / scales) * (a - b.detach()).abs().mean()
            )
    optimizer_g.zero_grad()
    (loss_adversarial + feature_weight * loss_features).backward()
    optimizer_g.step()
    return {
        "discriminator": float(loss_d.detach()),
        "adversarial": float(loss_adversarial.detach()),
        "feature_matching": float(loss_features.detach()),
    }


def plain_loop(
    batches: Iterable[tuple[Tensor, Tensor]],
    generator: Generator,
    discriminator: Discriminator,
    *,
    learning_rate: float = 1e-4,
    betas: tuple[float, float] = (0.5, 0.9),
    feature_weight: float = 10.0,
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, float]]]:
    """Train on `batches` of (mel (B, bands, F), audio (B, T)), a step each, changing the two nets in place.

    Returns their state dicts (published keys) and the losses of every step.
    """
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=learning_rate, betas=betas)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=learning_rate, betas=betas)
    losses = [
        plain_train_step(generator, discriminator, optimizer_g, optimizer_d, mel, audio, feature_weight)
        for mel, audio in batches
    ]
    return generator.state_dict(), discriminator.state_dict(), losses


def bring_over(reference: nn.Module, ours: nn.Module, keys: dict[str, str]) -> None:
    """Load the reference's weights into our module by name; `keys` maps our names to the published ones."""
    theirs = reference.state_dict()
    if set(keys.values()) != set(theirs):
        raise AssertionError(f"the name map misses {set(theirs) ^ set(keys.values())}")
    ours.load_state_dict({our: theirs[their] for our, their in keys.items()})
