"""WaveGAN's nets against plain torch, the published counts, and TensorFlow's padding written out."""

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gansound.discriminators.wavegan import WaveGANDiscriminator
from gansound.generators.prior import Normal
from gansound.generators.wavegan import WaveGANGenerator
from gansound.nn import same_conv
from gansound.nn.same_conv import SameConv1d, SameTransposedConv1d, clip_strides
from tests import warm
from tests.reference import wavegan as plain
from tests.test_distributed import ended, started

pytestmark = pytest.mark.usefixtures("one_thread")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_published_parameter_counts() -> None:
    with torch.device("meta"):
        assert count(WaveGANGenerator()) == 19_065_345
        assert count(WaveGANDiscriminator()) == 17_427_969
        for samples in (8192, 16384, 32768, 65536):
            for channels in (1, 2):
                assert count(WaveGANGenerator(samples, channels)) == count(plain.Generator(samples, channels))
                ours, theirs = WaveGANDiscriminator(samples, channels), plain.Discriminator(samples, channels)
                assert count(ours) == count(theirs)


def same_padded(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's rule (tf.nn, "Notes on padding"), for x (C, T) and weight (O, C, k), written with loops."""
    kernel, length = weight.shape[2], x.shape[1]
    columns = -(-length // stride)
    total = max((columns - 1) * stride + kernel - length, 0)
    before = total // 2
    y = np.zeros((weight.shape[0], columns))
    for m in range(columns):
        for t in range(kernel):
            at = m * stride + t - before
            if 0 <= at < length:
                y[:, m] += weight[:, :, t] @ x[:, at]
    return y


@pytest.mark.parametrize(
    "kernel, stride", [(25, 4), (25, 2), (25, 1), (24, 4), (21, 4), (17, 4), (5, 4), (4, 4), (7, 3)]
)
def test_same_padding_and_its_adjoint(kernel: int, stride: int) -> None:
    torch.manual_seed(kernel * stride)
    conv = SameConv1d(3, 5, kernel, stride=stride).double()
    nn.init.normal_(conv.bias)
    x = torch.randn(4, 3, 6 * stride, dtype=torch.float64)
    with torch.no_grad():
        y = conv(x)
        expected = np.stack([same_padded(one.numpy(), conv.weight.numpy(), stride) for one in x])
        np.testing.assert_allclose(y - conv.bias[:, None], expected, atol=1e-12)
        # The transposed layer of the same weight is the adjoint: <conv(x), g> = <x, transposed(g)>.
        transposed = SameTransposedConv1d(5, 3, kernel, stride=stride).double()
        transposed.weight.copy_(conv.weight)
        g = torch.randn_like(y)
        assert transposed(g).shape == x.shape
        torch.testing.assert_close((transposed(g) * x).sum(), ((y - conv.bias[:, None]) * g).sum())
        # Elementwise too: each unit vector's image is a row of the matrix.
        matrix = torch.stack([same_input(e, conv) for e in torch.eye(3 * 6 * stride, dtype=torch.float64)], 1)
        torch.testing.assert_close(transposed(g[:1]).flatten(), matrix.T @ g[0].flatten())
    with pytest.raises(ValueError, match=f"kernel_size={stride - 1}, stride={stride}"):
        SameConv1d(1, 1, stride - 1, stride=stride)


def same_input(flat: Tensor, conv: SameConv1d) -> Tensor:
    x = flat.view(conv.in_channels, -1).numpy()
    return torch.from_numpy(same_padded(x, conv.weight.detach().numpy(), conv.stride[0])).flatten()


def twins(samples: int, channels: int, d: int, dtype: torch.dtype) -> tuple[nn.Module, ...]:
    """Ours and the plain nets of equal weights, biases awake."""
    torch.manual_seed(samples)
    nets = (
        WaveGANGenerator(samples, channels, d),
        plain.Generator(samples, channels, d),
        WaveGANDiscriminator(samples, channels, d),
        plain.Discriminator(samples, channels, d),
    )
    for ours, theirs in (nets[:2], nets[2:]):
        with torch.no_grad():
            for p in theirs.parameters():
                if p.dim() == 1:
                    p.normal_(std=0.1)
                else:
                    p.mul_(2)  # else the signal dies on the way, and errors with it
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                a.copy_(b)
    return tuple(net.to(dtype) for net in nets)


@pytest.mark.parametrize("samples, channels, d", [(8192, 1, 2), (16384, 2, 1), (32768, 1, 1), (65536, 1, 1)])
def test_outputs_losses_and_gradients_equal_the_plain_nets(samples: int, channels: int, d: int) -> None:
    generator, their_generator, critic, their_critic = twins(samples, channels, d, torch.float64)
    latents = torch.rand(4, 100, dtype=torch.float64) * 2 - 1
    real = torch.randn(4, channels, samples, dtype=torch.float64) * 0.3
    mix = torch.rand(4, dtype=torch.float64)
    shifts = torch.randint(-2, 3, (3, 4, 4))

    fake, their_fake = generator(latents), their_generator(latents)
    torch.testing.assert_close(fake, their_fake)
    assert fake.std() > 0.02
    adversary = (-critic(fake, None, shifts[0])[0][-1]).mean()
    their_adversary = (-their_critic(their_fake, shifts[0])).mean()
    torch.testing.assert_close(adversary, their_adversary)
    equal_gradients(adversary, generator, their_adversary, their_generator)

    real_logits = critic(real, None, shifts[1])[0][-1]
    loss = critic(fake.detach(), None, shifts[0])[0][-1].mean() - real_logits.mean()
    between = (real + mix[:, None, None] * (fake.detach() - real)).requires_grad_()
    judged = critic(between, None, shifts[2])[0][-1].sum()
    (slope,) = torch.autograd.grad(judged, between, create_graph=True)
    loss = loss + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    their_loss = plain.critic_loss(their_critic, real, their_fake.detach(), mix, shifts)
    torch.testing.assert_close(loss, their_loss)
    equal_gradients(loss, critic, their_loss, their_critic)


def equal_gradients(loss: Tensor, net: nn.Module, their_loss: Tensor, their_net: nn.Module) -> None:
    ours = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    theirs = torch.autograd.grad(their_loss, list(their_net.parameters()), retain_graph=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
        assert b.dim() == 1 or b.abs().max() > 1e-9, "else equal means little"
    net.zero_grad(), their_net.zero_grad()
    loss.backward(retain_graph=True)
    for p, b in zip(net.parameters(), theirs, strict=True):
        torch.testing.assert_close(p.grad, b)
    net.zero_grad()


def test_a_convolution_differentiates_three_times() -> None:
    torch.manual_seed(0)
    conv = SameConv1d(2, 2, 5, stride=2).double()
    x = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)

    def f(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x,)).tanh()

    def slope(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.autograd.grad(f(x, weight, bias).square().sum(), x, create_graph=True)[0]

    arguments = (x, conv.weight, conv.bias)
    assert torch.autograd.gradcheck(f, arguments)
    assert torch.autograd.gradgradcheck(slope, arguments)


@pytest.fixture
def correlations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each gradient of a kernel that is worked out."""
    done: list[int] = []
    correlate = same_conv._Correlation.apply
    monkeypatch.setattr(same_conv._Correlation, "apply", lambda *a: (done.append(1), correlate(*a))[1])
    return done


def test_a_penalty_works_out_no_gradients_that_are_dropped_or_zero(correlations: list[int]) -> None:
    critic = WaveGANDiscriminator(4096, dim=1)
    x = torch.randn(2, 1, 4096, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(x)[0][-1].sum(), x, create_graph=True)
    assert not correlations
    slope.square().sum().backward()
    assert len(correlations) == 5, (
        "a piecewise linear critic's slope depends on its weights by the slope alone"
    )
    assert all(layer.weight.grad.abs().sum() > 0 for layer in critic.layers)


def test_a_leaf_may_be_asked_for() -> None:
    critic = WaveGANDiscriminator(4096, dim=1)
    wanted = [critic.layers[0].bias, critic.layers[4].weight]
    asked = torch.autograd.grad(critic(torch.randn(2, 1, 4096))[0][-1].sum(), wanted)
    assert all(gradient.abs().sum() > 0 for gradient in asked)


@pytest.mark.parametrize(
    "samples, columns, strides",
    [
        (1024, 1, [4] * 5),
        (8192, 8, [4] * 5),
        (15360, 15, [4] * 5),
        (16384, 16, [4] * 5),
        (18432, 9, [4] * 5 + [2]),
        (32768, 16, [4] * 5 + [2]),
        (36864, 9, [4] * 6),
        (131072, 32, [4] * 6),
    ],
)
def test_lengths(samples: int, columns: int, strides: list[int]) -> None:
    assert clip_strides(samples) == tuple(strides)
    with torch.no_grad():
        critic = WaveGANDiscriminator(samples, channels=2, dim=1, phase_shuffle=0)
        maps = critic(torch.zeros(3, 2, samples))[0]
        assert WaveGANGenerator(samples, channels=2, dim=1)(torch.zeros(3, 100)).shape == (3, 2, samples)
    lengths = [samples // math.prod(strides[: i + 1]) for i in range(len(strides))]
    assert [m.shape for m in maps] == [(3, 2**i, n) for i, n in enumerate(lengths)] + [(3, 1)]
    assert lengths[-1] == columns


def test_what_cannot_be() -> None:
    for samples, column, near in (
        (16000, 1024, 16384),
        (0, 1024, 1024),
        (30000, 2048, 30720),
        (50000, 4096, 49152),
    ):
        said = re.escape(f"a multiple of {column} here, got {samples}; take {near}")
        for make in (WaveGANGenerator, WaveGANDiscriminator):
            with pytest.raises(ValueError, match=said):
                make(samples)
    for wrong in ({"dim": 0}, {"channels": 0}, {"sample_rate": 0}, {"post_filter_samples": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            WaveGANGenerator(**wrong)
    for wrong in ({"dim": 0}, {"channels": 0}, {"phase_shuffle": -1}):
        with pytest.raises(ValueError, match="must be positive and phase_shuffle 0 or more"):
            WaveGANDiscriminator(**wrong)
    with pytest.raises(ValueError, match="kernel_size=3, stride=4"):
        WaveGANGenerator(1024, dim=1, kernel_size=3)
    net = WaveGANDiscriminator(4096, dim=1)
    with pytest.raises(ValueError, match=re.escape("(batch, 1, 4096), got (2, 4096)")):
        net(torch.zeros(2, 4096))
    with pytest.raises(ValueError, match=re.escape("(batch, 100), got (2, 99)")):
        WaveGANGenerator(4096, dim=1)(torch.zeros(2, 99))


def test_weights_start_as_tensorflow_starts_them() -> None:
    torch.manual_seed(0)
    for net in (WaveGANGenerator(4096, dim=4), WaveGANDiscriminator(4096, dim=4)):
        for layer in net.modules():
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
                taps = layer.weight[0, 0].numel()
                bound = (6 / (taps * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
                assert layer.weight.abs().max() <= bound * (1 + 1e-6)
                assert layer.weight.abs().max() > 0.9 * bound
                assert not layer.bias.any()


def test_the_prior_and_the_post_filter() -> None:
    torch.manual_seed(0)
    net = WaveGANGenerator(4096, channels=2, dim=1, prior=Normal(7), post_filter_samples=512)
    latents = torch.randn(3, 7)
    sound = net(latents)
    taps, net.post_filter = net.post_filter.weight.detach().numpy(), None
    bare = net(latents).detach().numpy()
    for item in range(3):
        for channel in range(2):
            # TensorFlow correlates, with 255 zeros before and 256 behind.
            padded = np.pad(bare[item, channel], (255, 256))
            expected = np.correlate(padded, taps[channel, 0], mode="valid")
            np.testing.assert_allclose(sound[item, channel].detach(), expected, atol=1e-5)


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    net = WaveGANDiscriminator(4096, dim=2, labels=("a", "b", "c"), spectral_norm=True, attention=[3])
    assert net.bounds_lipschitz
    assert not WaveGANDiscriminator(4096, dim=2).bounds_lipschitz
    x, labels = torch.randn(2, 1, 4096), torch.tensor([0, 2])
    with torch.no_grad():
        for _ in range(100):
            net(x, labels)
        layers = [m for m in net.eval().modules() if isinstance(m, nn.Conv1d | nn.Linear | nn.Embedding)]
        assert len(layers) == 5 + 4 + 2
        for layer in layers:
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.02)


def test_bf16_penalties_are_near_full_precision() -> None:
    torch.manual_seed(0)
    critic = WaveGANDiscriminator(4096, dim=8)
    x, shifts = 0.3 * torch.randn(4, 1, 4096), torch.randint(-2, 3, (4, 4))

    def gradients(half: bool) -> Tensor:
        critic.zero_grad()
        between = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = critic(between, None, shifts)[0][-1]
            assert logits.dtype is (torch.bfloat16 if half else torch.float32)
            (slope,) = torch.autograd.grad(logits.float().sum(), between, create_graph=True)
            assert slope.dtype is torch.float32
            loss = (slope.flatten(1).norm(dim=1) - 1).square().mean() + logits.float().mean()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in critic.parameters()])

    exact, rough = gradients(False), gradients(True)
    assert torch.isfinite(rough).all()
    apart = (rough - exact).norm() / exact.norm()
    assert 0 < apart < 0.05


STEP = """
import os, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from gansound.discriminators.wavegan import WaveGANDiscriminator

class Critic(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = WaveGANDiscriminator(4096, dim=2)
    def forward(self, real, fake, mix, shifts):
        items = len(real)
        logits = self.net(torch.cat([real, fake]), None, torch.cat([shifts, shifts]))[0][-1]
        between = (real + mix[:, None, None] * (fake - real)).requires_grad_()
        (slope,) = torch.autograd.grad(self.net(between, None, shifts)[0][-1].sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return logits[items:].mean() - logits[:items].mean() + 10 * penalty

torch.set_num_threads(1)
rank, half = int(os.environ["RANK"]), os.environ["HALF"] == "1"
torch.manual_seed(1)
batch = [0.3 * torch.randn(4, 1, 4096), torch.randn(4, 1, 4096), torch.rand(4), torch.randint(-2, 3, (4, 4))]
whole = Critic()
with torch.autocast("cpu", torch.bfloat16, enabled=half):
    whole(*batch).backward()
dist.init_process_group("gloo")
parted = DistributedDataParallel(Critic(), broadcast_buffers=False)
with torch.autocast("cpu", torch.bfloat16, enabled=half):
    loss = parted(*(part[2 * rank : 2 * rank + 2] for part in batch))
loss.backward()
expected = torch.cat([p.grad.flatten() for p in whole.parameters()])
got = torch.cat([p.grad.flatten() for p in parted.module.net.parameters()])
print("apart", ((got - expected).norm() / expected.norm()).item(), "size", expected.norm().item())
dist.destroy_process_group()
"""


@pytest.mark.slow  # two processes, most of it imports
@pytest.mark.parametrize("half", [False, True])
def test_two_processes_sum_a_penalty_as_one_does(half: bool) -> None:
    with started([warm.python(), "-c", STEP], HALF=str(int(half))) as processes:
        done = ended(processes)
    for _, text in done:
        found = re.search(r"apart (\S+) size (\S+)", text)
        assert found, text
        assert float(found[1]) < (0.05 if half else 1e-5)
        assert float(found[2]) > 1e-3
