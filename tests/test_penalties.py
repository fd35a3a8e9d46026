"""Penalties against closed forms and finite differences, under autocast and DDP, and on the Dirac-GAN."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from gansound.losses.adversarial import NonSaturating, Wasserstein
from gansound.losses.penalties import R1, R2, GradientPenalty, Orthogonal, WeightClipping

SLOPES = [GradientPenalty(), GradientPenalty(centre=0.0), R1(), R2()]


def name_of(penalty):
    return f"{type(penalty).__name__}{'-zero' if getattr(penalty, 'centre', 1) == 0 else ''}"


def noise(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def critic(dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Conv1d(2, 4, 5, 2, 2), nn.Tanh(), nn.Conv1d(4, 3, 3, 2, 1), nn.Tanh(), nn.Conv1d(3, 1, 3)
    return nn.Sequential(*layers).to(dtype)


def batch(dtype=torch.float64):
    real, fake = noise(1, 6, 2, 24, dtype=dtype), noise(2, 6, 2, 24, dtype=dtype)
    return real, fake, torch.rand(6, generator=torch.Generator().manual_seed(3))


# --- closed forms


@pytest.mark.parametrize("centre", [0.0, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_critic(centre):
    """D(x) = w·x has slope w everywhere: (|w| − c)², and 2 (|w| − c) w / |w| by w."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 1, dtype=torch.float64))
    w = network[1].weight
    value = GradientPenalty(centre=centre).loss(network, network, *batch())
    assert value.item() == pytest.approx((w.norm().item() - centre) ** 2)
    (slope,) = torch.autograd.grad(value, w)
    torch.testing.assert_close(slope, 2 * (w.norm() - centre) * w.detach() / w.norm())


def test_gradient_penalty_looks_between_real_and_fake():
    """D(x) = |x|² / 2 has slope x: mix 1 is the real, 0 the fake, and the rest on the line between."""
    real, fake, mix = batch()

    def half(x):
        return x.square().flatten(1).sum(1) / 2

    for share in (torch.ones(6), torch.zeros(6), mix):
        points = share.view(-1, 1, 1).double() * real + (1 - share.view(-1, 1, 1).double()) * fake
        expected = ((points.flatten(1).norm(dim=1) - 1) ** 2).mean()
        got = GradientPenalty().loss(half, nn.Identity(), real, fake, share)
        assert got.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("penalty, side", [(R1(), 0), (R2(), 1)])
def test_r1_and_r2_of_a_quadratic(penalty, side):
    """D(x) = xᵀAx / 2 with A symmetric has slope Ax: half its mean square, on real and on fake."""
    a = noise(4, 48, 48)
    a = a + a.T

    def judge(x):
        return (x.flatten(1) @ a * x.flatten(1)).sum(1, keepdim=True) / 2

    given = batch()
    expected = (given[side].flatten(1) @ a).square().sum(1).mean() / 2
    assert penalty.loss(judge, nn.Identity(), *given).item() == pytest.approx(expected.item())
    assert not any(items.requires_grad for items in given)  # the caller's batch stays what it was


def test_the_score_of_an_item_is_the_mean_of_its_logits():
    """Two patches of slopes u and v weigh as one of slope (u + v) / 2, which is what the losses average."""
    u, v = noise(5, 48), noise(6, 48)

    def judge(x):
        return torch.stack([x.flatten(1) @ u, x.flatten(1) @ v], dim=1).unsqueeze(1)

    expected = ((u + v) / 2).square().sum() / 2
    assert R1().loss(judge, nn.Identity(), *batch()).item() == pytest.approx(expected.item())


def test_a_flat_critic_has_a_finite_gradient():
    """At slope 0 the norm has a corner: no NaN may come of it."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 1, dtype=torch.float64))
    nn.init.zeros_(network[1].weight)
    value = GradientPenalty().loss(network, network, *batch())
    value.backward()
    assert value.item() == pytest.approx(1)
    assert torch.isfinite(network[1].weight.grad).all()


# --- orthogonal, clipping


def test_orthogonal_is_the_loop_over_pairs_of_filters():
    """BigGAN's eq. 4 and its gradient 4 (W Wᵀ ⊙ (1 − I)) W; grouped filters only within their group."""
    network = nn.Sequential(
        nn.Conv1d(4, 6, 3, groups=2), nn.ReLU(), nn.Linear(5, 3), nn.ConvTranspose1d(2, 3, 4)
    ).double()
    grouped, linear, transposed = network[0].weight, network[2].weight, network[3].weight
    stacks = [grouped[:3], grouped[3:], linear, transposed.transpose(0, 1)]
    expected = 0.0
    for stack in stacks:
        rows = stack.detach().flatten(1).numpy()
        expected += sum((a @ b) ** 2 for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j)
    value = Orthogonal().loss(network, network, *batch())
    assert value.item() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(value, linear)
    w = linear.detach()
    torch.testing.assert_close(slope, 4 * (w @ w.T * (1 - torch.eye(3, dtype=w.dtype))) @ w)


def test_orthogonal_filters_of_any_length_cost_nothing():
    network = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.diag(torch.tensor([1.0, 20.0, 0.3, 1.0]))[:3])
    assert Orthogonal().loss(network, network, *batch()).item() == 0


def test_clipping_holds_every_parameter_and_adds_no_loss():
    network, before = critic(), critic()
    penalty = WeightClipping(0.05)
    assert penalty.loss(network, network, *batch()) is None
    penalty.constrain(network)
    for after, old in zip(network.parameters(), before.parameters(), strict=True):
        np.testing.assert_array_equal(after.detach().numpy(), np.clip(old.detach().numpy(), -0.05, 0.05))


# --- differentiated twice


@pytest.mark.parametrize("penalty", SLOPES, ids=name_of)
def test_double_backward_is_the_finite_difference(penalty):
    network = critic()
    parameters = list(network.parameters())
    slopes = torch.autograd.grad(penalty.loss(network, network, *batch()), parameters, allow_unused=True)
    direction = [noise(10 + i, *p.shape) for i, p in enumerate(parameters)]
    along = sum((s * d).sum().item() for s, d in zip(slopes, direction, strict=True) if s is not None)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * 1e-5 * d
        values.append(penalty.loss(network, network, *batch()).item())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * 1e-5 * d
    assert abs(along) > 1e-4
    assert along == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("penalty", SLOPES, ids=name_of)
def test_items_are_penalised_each_alone(penalty):
    network, (real, fake, mix) = critic(), batch()
    whole = penalty.loss(network, network, real, fake, mix).item()
    parts = [
        penalty.loss(network, network, real[i : i + 2], fake[i : i + 2], mix[i : i + 2]).item()
        for i in (0, 2, 4)
    ]
    assert whole == pytest.approx(np.mean(parts), rel=1e-12)


@pytest.mark.parametrize("penalty", [*SLOPES, Orthogonal()], ids=name_of)
def test_autocast_around_it_changes_nothing(penalty):
    found = []
    for enabled in (False, True):
        network = critic(torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = penalty.loss(network, network, *batch(torch.float32))
        value.backward()
        found.append([value.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for plain, cast in zip(*found, strict=True):
        assert cast.dtype == torch.float32
        assert torch.equal(plain, cast)
    wide = critic(torch.float32).double()
    exact = penalty.loss(wide, wide, *(x.double() for x in batch(torch.float32)))
    assert found[0][0].item() == pytest.approx(exact.item(), rel=1e-5)


class Judged(nn.Module):
    """What a DDP wrapper holds: logits and penalty in one forward pass."""

    def __init__(self, network, penalty):
        super().__init__()
        self.network, self.penalty = network, penalty

    def forward(self, real, fake, mix):
        logits = self.network(torch.cat([real, fake]))
        return logits, self.penalty.loss(self.network, self.network, real, fake, mix)


@pytest.mark.parametrize("penalty", SLOPES, ids=name_of)
def test_inside_ddp_one_backward_serves_loss_and_penalty(penalty, tmp_path):
    def gradients(module):
        logits, value = module(*batch())
        real, fake = logits.chunk(2)
        (Wasserstein().discriminator([real], [fake]) + 10 * value).backward()
        return [p.grad for p in module.parameters()]

    plain = gradients(Judged(critic(), penalty))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = gradients(nn.parallel.DistributedDataParallel(Judged(critic(), penalty)))
    finally:
        dist.destroy_process_group()
    for a, b in zip(plain, wrapped, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# --- a game with a known end


def dirac(loss, penalty, steps=150, rate=0.2):
    """Dirac-GAN of arXiv 1801.04406: D(x) = ψx, real at 0, fake at θ, in turns; the distance from (0, 0) at the end."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(network.weight, 1.0)
    theta = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    real = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(steps):
        value = loss.discriminator([network(real)], [network(theta.detach())])
        if penalty:
            extra = penalty.loss(network, network, real, theta.detach(), torch.full((1,), 0.5))
            value = value + penalty.weight * extra
        (slope,) = torch.autograd.grad(value, network.weight)
        with torch.no_grad():
            network.weight -= rate * slope
        (slope,) = torch.autograd.grad(loss.generator([network(theta)]), theta)
        with torch.no_grad():
            theta -= rate * slope
    return math.hypot(theta.item(), network.weight.item())


@pytest.mark.parametrize("loss", [NonSaturating(), Wasserstein()])
def test_the_dirac_gan_circles_unless_its_slope_is_penalised(loss):
    """Theorem 4.1, and lemma 2.3 (no convergence without); WGAN-GP doesn't converge either (lemma 2.4)."""
    assert dirac(loss, None) > 0.2
    for penalty in (R1(1.0), R2(1.0), GradientPenalty(0.5, centre=0.0)):
        assert dirac(loss, penalty) < 1e-3
    assert dirac(Wasserstein(), GradientPenalty(1.0)) > 0.1


# --- what is refused, what is declared


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GradientPenalty(weight=0), "weight of GradientPenalty must be above 0, got 0"),
        (lambda: R1(every=0), "every of R1 counts steps from 1 on, got 0"),
        (lambda: GradientPenalty(centre=-1), "centre"),
        (lambda: WeightClipping(limit=0), "limit"),
        (lambda: Orthogonal(weight=float("nan")), "weight of Orthogonal"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_defaults_are_those_of_the_papers():
    """Gulrajani's λ at every step, StyleGAN2's γ each 16th, BigGAN's β, and Arjovsky's limit."""
    wanted = {GradientPenalty: (10.0, 1), R1: (10.0, 16), R2: (10.0, 16), Orthogonal: (1e-4, 1)}
    assert {kind: (kind().weight, kind().every) for kind in wanted} == wanted
    assert (GradientPenalty().centre, WeightClipping().limit, WeightClipping().every) == (1.0, 0.01, 1)


def test_what_is_differentiated_twice():
    twice = [p.differentiates_twice for p in (*SLOPES, WeightClipping(), Orthogonal())]
    assert twice == [True] * 4 + [False] * 2


def test_what_bounds_a_critic():
    assert [p.bounds_lipschitz for p in (*SLOPES, WeightClipping(), Orthogonal())] == [True] * 5 + [False]
