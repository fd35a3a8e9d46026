"""The losses of a GAN against their definitions, divergences in closed form, and games whose end is known."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.spatial
import scipy.special
import scipy.stats
import torch
from torch import nn

from gansound.losses.adversarial import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    SoftLeastSquares,
    Wasserstein,
)
from gansound.losses.auxiliary import AuxiliaryClassification
from gansound.losses.divergences import (
    FDivergence,
    JensenShannon,
    KullbackLeibler,
    OriginalGAN,
    PearsonChiSquared,
    ReverseKullbackLeibler,
    SquaredHellinger,
)
from gansound.losses.mmd import MMD, RationalQuadratic, RBFMixture, squared_mmd
from gansound.losses.penalties import R1, GradientPenalty, WeightClipping

DIVERGENCES = {
    KullbackLeibler: lambda p, q: np.sum(p * np.log(p / q)),
    ReverseKullbackLeibler: lambda p, q: np.sum(q * np.log(q / p)),
    PearsonChiSquared: lambda p, q: np.sum((p - q) ** 2 / q),
    SquaredHellinger: lambda p, q: np.sum((np.sqrt(p) - np.sqrt(q)) ** 2),
    JensenShannon: lambda p, q: np.sum(p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))),
    OriginalGAN: lambda p, q: np.sum(p * np.log(p / (p + q)) + q * np.log(q / (p + q))),
}
PER_ITEM = [
    Hinge(),
    Hinge(clipped=True),
    LeastSquares(),
    SoftLeastSquares(),
    Minimax(),
    NonSaturating(),
    Wasserstein(),
    Relativistic(),
    *(FDivergence(divergence(), heuristic) for divergence in DIVERGENCES for heuristic in (False, True)),
]


def name_of(loss):
    inner = getattr(loss, "divergence", None)
    suffix = "-heuristic" if getattr(loss, "heuristic", False) else ""
    return type(loss).__name__ + (f"-{type(inner).__name__}{suffix}" if inner else "")


def logits_of(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(2 * rng.standard_normal(shape)) for shape in shapes]


# --- definitions


def test_logistic_losses_are_their_definitions():
    """Each sub-discriminator's mean, summed, from the probabilities of the papers."""
    real, fake = logits_of(0, (3, 1), (3, 1, 7)), logits_of(1, (3, 1), (3, 1, 7))
    d_real, d_fake = ([scipy.special.expit(x.numpy()) for x in side] for side in (real, fake))
    critic = sum(-np.mean(np.log(a)) - np.mean(np.log(1 - b)) for a, b in zip(d_real, d_fake, strict=True))
    for loss in (Minimax(), NonSaturating()):
        assert loss.discriminator(real, fake).item() == pytest.approx(critic, rel=1e-12)
    assert Minimax().generator(fake).item() == pytest.approx(sum(np.mean(np.log(1 - b)) for b in d_fake))
    assert NonSaturating().generator(fake).item() == pytest.approx(-sum(np.mean(np.log(b)) for b in d_fake))


def test_wasserstein_and_relativistic_are_their_definitions():
    real, fake = logits_of(2, (4, 1), (4, 1, 5)), logits_of(3, (4, 1), (4, 1, 5))
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(real, fake, strict=True)]
    assert Wasserstein().discriminator(real, fake).item() == pytest.approx(
        sum(np.mean(b) - np.mean(a) for a, b in pairs)
    )
    assert Wasserstein().generator(fake).item() == pytest.approx(-sum(np.mean(b) for _, b in pairs))
    wins = [scipy.special.expit(a - b) for a, b in pairs]  # P(the real item is the more real one)
    assert Relativistic().discriminator(real, fake).item() == pytest.approx(
        sum(-np.mean(np.log(win)) for win in wins)
    )
    assert Relativistic().generator(fake, real).item() == pytest.approx(
        sum(-np.mean(np.log(1 - win)) for win in wins)
    )


def test_hinges_and_least_squares_are_their_definitions():
    real, fake = logits_of(15, (4, 1), (4, 1, 5)), logits_of(16, (4, 1), (4, 1, 5))
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(real, fake, strict=True)]

    def total(of):
        return pytest.approx(sum(of(a, b) for a, b in pairs), rel=1e-12)

    def hinge(x):
        return np.mean(np.where(x > 0, x, 0))

    def soft(x):
        return np.mean(np.log(1 + np.exp(x)) ** 2)

    for loss in (Hinge(), Hinge(clipped=True)):
        assert loss.discriminator(real, fake).item() == total(lambda a, b: hinge(1 - a) + hinge(1 + b))
    assert Hinge().generator(fake).item() == total(lambda _, b: -np.mean(b))
    assert Hinge(clipped=True).generator(fake).item() == total(lambda _, b: hinge(1 - b))
    squares = LeastSquares()
    assert squares.discriminator(real, fake).item() == total(
        lambda a, b: np.mean((a - 1) ** 2) + np.mean(b**2)
    )
    assert squares.generator(fake).item() == total(lambda _, b: np.mean((b - 1) ** 2))
    assert SoftLeastSquares().discriminator(real, fake).item() == total(lambda a, b: soft(1 - a) + soft(b))
    assert SoftLeastSquares().generator(fake).item() == total(lambda _, b: soft(1 - b))


@pytest.mark.parametrize("loss", [*PER_ITEM, MMD()], ids=name_of)
def test_each_real_has_its_fake(loss: AdversarialLoss):
    """A sub-discriminator that judged one side alone would drop out of the loss without a word."""
    two, one = logits_of(17, (4, 1), (4, 3)), logits_of(18, (4, 1))
    for real, fake in ((two, one), (one, two)):
        with pytest.raises(ValueError, match="zip"):
            loss.discriminator(real, fake)
        if loss.needs_real:
            with pytest.raises(ValueError, match="zip"):
                loss.generator(fake, real)


@pytest.mark.parametrize("loss", PER_ITEM, ids=name_of)
def test_each_player_pulls_its_way(loss: AdversarialLoss):
    """At no confidence: the discriminator raises real and lowers fake logits, the generator raises its own."""
    at = loss.threshold or 0.0
    real, fake = (torch.full((2, 1, 3), at, requires_grad=True) for _ in range(2))
    d_real, d_fake = torch.autograd.grad(loss.discriminator([real], [fake]), (real, fake))
    assert (d_real < 0).all()
    assert (d_fake > 0).all()
    (g_fake,) = torch.autograd.grad(loss.generator([fake], [real]), fake)
    assert (g_fake < 0).all()


@pytest.mark.parametrize("loss", [*PER_ITEM, MMD()], ids=name_of)
def test_sixteen_bit_logits_are_worked_in_float32(loss: AdversarialLoss):
    real, fake = ([x.bfloat16() for x in logits_of(seed, (4, 1), (4, 3))] for seed in (4, 5))
    wide = [[x.float() for x in side] for side in (real, fake)]
    with torch.autocast("cpu", torch.bfloat16):
        got = loss.discriminator(real, fake), loss.generator(fake, real)
    assert got[0].dtype == got[1].dtype == torch.float32
    assert got[0].item() == loss.discriminator(*wide).item()
    assert got[1].item() == loss.generator(wide[1], wide[0]).item()


@pytest.mark.parametrize("loss", [Minimax(), NonSaturating(), Relativistic()], ids=name_of)
def test_logistic_losses_stay_finite_however_sure_the_discriminator(loss: AdversarialLoss):
    real, fake = torch.full((2, 1), 1e4), torch.full((2, 1), -1e4, requires_grad=True)
    for value in (loss.discriminator([-real], [-fake]), loss.generator([fake], [real])):
        assert math.isfinite(value.item())
        assert torch.isfinite(torch.autograd.grad(value, fake)[0]).all()


# --- the best discriminator finds the divergence

ATOMS = np.array([[4, 3, 2, 1], [1, 3, 1, 5]])  # tenths of P and of Q; the second atom tells nothing


def best_logits(loss: AdversarialLoss):
    """Logits per atom that minimise the discriminator's loss, and that loss."""
    real_atoms, fake_atoms = (torch.repeat_interleave(torch.arange(4), torch.tensor(n)) for n in ATOMS)

    def value_and_slope(values):
        logits = torch.tensor(values, requires_grad=True)
        value = loss.discriminator([logits[real_atoms]], [logits[fake_atoms]])
        return value.item(), torch.autograd.grad(value, logits)[0].numpy()

    found = scipy.optimize.minimize(value_and_slope, np.zeros(4), jac=True, tol=1e-12)
    return found.x, found.fun


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_tightest_bound_is_the_divergence(divergence):
    p, q = ATOMS / 10
    logits, value = best_logits(FDivergence(divergence()))
    assert -value == pytest.approx(DIVERGENCES[divergence](p, q), rel=1e-9)
    assert logits[1] == pytest.approx(divergence.threshold, abs=1e-5)
    assert logits[0] > divergence.threshold > logits[3]


def test_minimax_at_its_best_is_twice_jensen_shannon_less_log_four():
    p, q = ATOMS / 10
    js = scipy.spatial.distance.jensenshannon(p, q) ** 2
    assert -best_logits(Minimax())[1] == pytest.approx(2 * js - math.log(4), rel=1e-9)


def test_least_squares_threshold_is_where_real_and_fake_are_equally_probable():
    """And its best discriminator is p / (p + q) with targets 1 and 0 (arXiv 1611.04076, eq. 5)."""
    logits, _ = best_logits(LeastSquares())
    np.testing.assert_allclose(logits, ATOMS[0] / ATOMS.sum(0), atol=1e-6)
    assert logits[1] == pytest.approx(LeastSquares.threshold)


def test_the_bound_between_gaussians_is_the_closed_form():
    """KL(N(1, 1) || N(0, 2²)) by the best logits 1 + log p / q at a hundred thousand quantiles."""
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    p, q = scipy.stats.norm(1, 1), scipy.stats.norm(0, 2)
    real, fake = (
        torch.from_numpy(1 + p.logpdf(x) - q.logpdf(x)) for x in (p.ppf(quantiles), q.ppf(quantiles))
    )
    closed = math.log(2) + (1 + 1) / (2 * 4) - 0.5
    assert -FDivergence(KullbackLeibler()).discriminator([real], [fake]).item() == pytest.approx(
        closed, abs=2e-4
    )


def test_a_divergence_sums_its_sub_discriminators():
    """By the heuristic −mean(g(fake)) of each, which for Kullback-Leibler's g(x) = x is minus the logits' mean."""
    fake = logits_of(1, (3, 1), (3, 1, 7))
    expected = -sum(x.mean().item() for x in fake)
    assert abs(expected) > 1e-2
    loss = FDivergence(KullbackLeibler(), heuristic=True)
    assert loss.generator(fake).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [Minimax(), *(FDivergence(d()) for d in DIVERGENCES)], ids=name_of)
def test_what_the_generator_descends_is_what_the_discriminator_ascends(loss: AdversarialLoss):
    """Zero-sum: the sum of both players' losses doesn't know the fake."""
    (real,), (fake, other) = logits_of(6, (5, 1)), logits_of(7, (5, 1), (5, 1))
    sums = [(loss.discriminator([real], [f]) + loss.generator([f])).item() for f in (fake, other)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-9)


# --- maximum mean discrepancy


@pytest.mark.parametrize("kernel", [RBFMixture(), RationalQuadratic()])
def test_the_estimate_is_unbiased_for_shifted_gaussians(kernel):
    """Its mean over many batches of five is the population's MMD², by quadrature over the distance of two draws."""

    def expected(shift, variance):
        distance = np.linspace(shift - 12, shift + 12, 5001)
        values = kernel(torch.from_numpy(distance**2)).numpy()
        return np.trapezoid(scipy.stats.norm(shift, math.sqrt(variance)).pdf(distance) * values, distance)

    closed = expected(0, 2) + expected(0, 2 * 0.25) - 2 * expected(1.5, 1.25)
    if isinstance(kernel, RBFMixture):  # and where there is one, the closed form proper

        def gauss(s, v, m):
            return s / math.sqrt(s * s + v) * math.exp(-m * m / (2 * (s * s + v)))

        exact = sum(gauss(s, 2, 0) + gauss(s, 0.5, 0) - 2 * gauss(s, 1.25, 1.5) for s in kernel.bandwidths)
        assert closed == pytest.approx(exact, rel=1e-6)
    random = torch.Generator().manual_seed(8)
    draws = torch.randn(2, 3000, 5, 1, generator=random, dtype=torch.float64)
    estimates = torch.vmap(lambda a, b: squared_mmd(a, b, kernel))(draws[0], 1.5 + 0.5 * draws[1]).numpy()
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(closed, abs=3.5 * error)
    assert 3.5 * error < 0.1 * closed  # the biased estimate would be off by more


def test_kernels_are_those_of_their_papers():
    squares = np.array([0.0, 0.3, 1.0, 7.0, 400.0])
    d = torch.from_numpy(squares)
    rbf = sum(np.exp(-squares / (2 * s**2)) for s in (1, 2, 4, 8, 16))  # arXiv 1705.08584, section 5
    np.testing.assert_allclose(RBFMixture()(d), rbf, rtol=1e-12)
    np.testing.assert_allclose(RBFMixture([3.0])(d), np.exp(-squares / 18), rtol=1e-12)
    rational = sum((1 + squares / (2 * a)) ** -a for a in (0.2, 0.5, 1, 2, 5))  # arXiv 1801.01401, eq. 4
    np.testing.assert_allclose(RationalQuadratic()(d), rational, rtol=1e-12)
    np.testing.assert_allclose(RationalQuadratic([0.5])(d), 1 / np.sqrt(1 + squares), rtol=1e-12)
    assert RationalQuadratic([1e6])(d[:4]).numpy() == pytest.approx(np.exp(-squares[:4] / 2), rel=1e-4)


@pytest.mark.parametrize("loss", [MMD(), FDivergence(JensenShannon())], ids=name_of)
def test_what_the_discriminators_raise_is_summed_over_them(loss: AdversarialLoss):
    real, fake = logits_of(13, (4, 1), (4, 3)), logits_of(14, (4, 1), (4, 3))
    each = [loss.discriminator([r], [f]).item() for r, f in zip(real, fake, strict=True)]
    made = [loss.generator([f], [r]).item() for r, f in zip(real, fake, strict=True)]
    assert loss.discriminator(real, fake).item() == pytest.approx(sum(each), rel=1e-9)
    assert loss.generator(fake, real).item() == pytest.approx(sum(made), rel=1e-9)


def test_mmd_is_a_loop_over_pairs_of_vectors():
    real, fake = logits_of(9, (4, 2, 3))[0], logits_of(10, (6, 2, 3))[0]
    x, y = real.numpy().reshape(4, 6), fake.numpy().reshape(6, 6)

    def k(a, b):
        return math.exp(-np.sum((a - b) ** 2) / 8)

    def same(z):
        return np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])

    oracle = same(x) + same(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    loss = MMD(RBFMixture([2.0]))
    assert loss.generator([fake], [real]).item() == pytest.approx(oracle, rel=1e-9)
    assert loss.discriminator([real], [fake]).item() == pytest.approx(-oracle, rel=1e-9)


def test_mmd_wants_pairs():
    with pytest.raises(ValueError, match="at least 2 real and 2 fake"):
        MMD().discriminator([torch.zeros(1, 1)], [torch.zeros(1, 1)])
    for few in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="got {} and {}".format(*few)):
            MMD().discriminator(*([torch.zeros(n, 1)] for n in few))
    assert math.isfinite(MMD().discriminator(*([torch.zeros(2, 1)] for _ in range(2))).item())
    with pytest.raises(ValueError, match="bandwidths"):
        RBFMixture([])
    with pytest.raises(ValueError, match="alphas"):
        RationalQuadratic([0.5, 0.0])


@pytest.mark.parametrize("loss", [Relativistic(), MMD()], ids=name_of)
def test_the_generator_is_compared_with_real_logits_that_stay_put(loss: AdversarialLoss):
    real, fake = (
        torch.randn(4, 1, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in (0, 1)
    )
    with pytest.raises(ValueError, match="needs real_logits"):
        loss.generator([fake])
    loss.generator([fake], [real]).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None


def test_the_declarations():
    """What a configuration is refused by."""
    everything = [*PER_ITEM, MMD()]
    assert {type(x) for x in everything if x.needs_real} == {Relativistic, MMD}
    assert {type(x) for x in everything if x.needs_lipschitz} == {Wasserstein, MMD}
    assert {type(x) for x in everything if x.over_batch} == {MMD}
    assert {type(x) for x in everything if x.threshold is None} == {Wasserstein, Relativistic, MMD}


@pytest.mark.parametrize("loss", [loss for loss in PER_ITEM if loss.threshold is not None], ids=name_of)
def test_the_threshold_is_the_best_logit_of_what_is_as_often_real_as_not(loss: AdversarialLoss):
    logit = torch.tensor([loss.threshold], dtype=torch.float64, requires_grad=True)
    value = loss.discriminator([logit], [logit])
    assert abs(torch.autograd.grad(value, logit)[0].item()) < 1e-9
    around = torch.linspace(-3, 3, 61, dtype=torch.float64)
    assert all(loss.discriminator([x], [x]) >= value - 1e-12 for x in around[:, None])


@pytest.mark.parametrize("loss", PER_ITEM[:7], ids=name_of)
def test_those_of_which_it_is_said_fall_at_every_logit(loss: AdversarialLoss):
    logits = torch.linspace(-4, 4, 81, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss.generator([logits]), logits)
    assert loss.falls == bool((slope <= 0).all())


# --- the auxiliary classifier


def test_class_cross_entropy_is_minus_the_log_likelihood():
    real, fake = logits_of(11, (3, 4), (3, 4, 5)), logits_of(12, (3, 4), (3, 4, 5))
    real_labels, fake_labels = torch.tensor([0, 3, 1]), torch.tensor([2, 2, 0])

    def oracle(side, labels):
        total = 0.0
        for logits in side:
            log_p = scipy.special.log_softmax(logits.numpy().reshape(3, 4, -1), axis=1)
            total -= np.mean([log_p[i, label] for i, label in enumerate(labels)])
        return total

    loss = AuxiliaryClassification()
    assert loss.discriminator(real, fake, real_labels, fake_labels).item() == pytest.approx(
        oracle(real, real_labels) + oracle(fake, fake_labels)
    )
    assert loss.generator(fake, fake_labels).item() == pytest.approx(oracle(fake, fake_labels))
    narrow = [x.bfloat16() for x in fake]
    assert loss.generator(narrow, fake_labels).dtype == torch.float32


# --- games with a known end

MEAN, SPREAD = 2.0, 0.5
GAMES = [
    *(loss for loss in PER_ITEM if not isinstance(loss, FDivergence)),
    *(FDivergence(d()) for d in DIVERGENCES if d not in (OriginalGAN, JensenShannon)),  # minimax's gradients
    FDivergence(KullbackLeibler(), heuristic=True),
]
NORMAL = torch.from_numpy(scipy.stats.norm.ppf((np.arange(64) + 0.5) / 64)).float().unsqueeze(1)


class Quadratic(nn.Linear):
    """The log ratio of two Gaussians has this form."""

    def __init__(self):
        super().__init__(2, 1, bias=True)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x):
        return super().forward(torch.cat([x - 1, (x - 1) ** 2 / 2], dim=-1))


def play(loss: AdversarialLoss, penalty, steps=500, rates=(0.2, 0.1)):
    """A generator a·z + b against a critic, real being N(2, 0.5²): b and a, the mean over the last half.

    Deterministic: the quantiles of the normal stand for its draws. Plain gradients, in turns.
    """
    critic = Quadratic()
    generator = torch.tensor([1.0, 0.0], requires_grad=True)
    real = MEAN + SPREAD * NORMAL
    weights = list(critic.parameters())
    mix = (torch.arange(64) * 29 % 64) / 64
    kept = []
    for step in range(steps):
        fake = generator[0] * NORMAL + generator[1]
        apart = fake.detach()
        value = loss.discriminator([critic(real)], [critic(apart)])
        extra = penalty.loss(critic, critic, real, apart, mix) if penalty else None
        if extra is not None:
            value = value + penalty.weight * extra
        slopes = torch.autograd.grad(value, weights, allow_unused=True)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight -= rates[0] * slope
        if penalty:
            penalty.constrain(critic)
        made = loss.generator([critic(fake)], [critic(real)])
        (slope,) = torch.autograd.grad(made, generator)
        with torch.no_grad():
            generator -= rates[1] * slope
        if step >= steps // 2:
            kept.append(generator.tolist()[::-1])
    return tuple(np.mean(kept, axis=0))


@pytest.mark.parametrize("loss", GAMES, ids=name_of)
def test_a_generator_learns_a_gaussian(loss: AdversarialLoss):
    # The square's own curvature damps the game; R1 on top only slows it.
    penalty = None if isinstance(loss, LeastSquares) else R1(1.0, every=1)
    assert play(loss, penalty) == pytest.approx((MEAN, SPREAD), abs=0.15)


@pytest.mark.parametrize("penalty", [GradientPenalty(0.6, centre=0.0), WeightClipping(0.3)])
def test_a_bounded_critic_makes_the_wasserstein_game_converge(penalty):
    assert play(Wasserstein(), penalty) == pytest.approx((MEAN, SPREAD), abs=0.15)
