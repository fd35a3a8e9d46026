"""What makes a vocoder's discriminators pay: slicing heads, penalties on relativistic pairs, turned phases, balance."""

import math

import pytest
import torch
from torch import Tensor, nn

from gansound.discriminators.augmentation.phase import PhaseAugmentation
from gansound.discriminators.multi_period import MultiPeriodDiscriminator
from gansound.discriminators.multi_resolution import MultiResolutionDiscriminator
from gansound.discriminators.multi_scale import HiFiGANMultiScaleDiscriminator, MultiScaleDiscriminator
from gansound.discriminators.slicing import sliced_logits
from gansound.discriminators.wave_u_net import WaveUNetDiscriminator
from gansound.draw import Draws
from gansound.losses.adversarial import Hinge, LeastSquares, Relativistic, SoftLeastSquares, Wasserstein
from gansound.losses.penalties import R1, R2, GradientPenalty, WeightClipping
from gansound.losses.spectral import MelL1, MultiScaleMel, SubBandSTFT
from gansound.nn.conv import weight_norm
from gansound.tasks.balance import LossBalance
from gansound.tasks.vocoder import Adversary, WeightedFeatureMatching, WeightedLoss
from tests.test_adversaries import Seen, phases
from tests.test_task import SPEC, Constant, Judge, audio, task, whole

# --- slicing heads


class Line(nn.Module):
    """Two features of a sound, its mean and its mean square, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.head = weight_norm(nn.Linear(2, 1))

    def heads(self) -> list[nn.Module]:
        return [self.head]

    def forward(self, sound: Tensor) -> list[list[Tensor]]:
        features = self.gain * torch.stack([sound.mean(1), sound.square().mean(1)], 1)
        return [[features, features, self.head(features)]]


def test_a_slicing_head_learns_its_direction_from_the_gap_alone_and_all_else_without_it() -> None:
    net = Line().double()
    length, direction = net.head.parametrizations.weight.original0, net.head.parametrizations.weight.original1
    real, fake = torch.randn(6, 50, dtype=torch.float64) + 0.5, torch.randn(6, 50, dtype=torch.float64)
    maps = net(real), net(fake)
    (real_logits, real_ways), (fake_logits, fake_ways) = (sliced_logits(net, m) for m in maps)
    for ways, values, own in ((real_ways, real_logits, maps[0]), (fake_ways, fake_logits, maps[1])):
        torch.testing.assert_close(ways[0], own[0][-1])  # the same numbers, three times
        torch.testing.assert_close(values[0], own[0][-1])
    hinge = Hinge()
    parameters = [net.gain, length, direction, net.head.bias]
    learnt = torch.autograd.grad(hinge.discriminator(real_logits, fake_logits), parameters, allow_unused=True)
    assert learnt[2] is None
    assert all(gradient.abs().max() > 0 for gradient in learnt[:2])
    loss = hinge.generator(real_ways) - hinge.generator(fake_ways)
    gap = maps[0][0][-2].mean(0) - maps[1][0][-2].mean(
        0
    )  # of the features: what the direction should point along
    torch.testing.assert_close(loss, -(gap @ net.head.weight[0]))
    slope = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert slope[0] is slope[1] is slope[3] is None
    unit = direction[0] / direction[0].norm()
    along = -length[0, 0].detach() / direction[0].norm() * (gap - (gap @ unit) * unit)
    torch.testing.assert_close(slope[2][0], along.detach())  # towards the gap, along the sphere


NETWORKS = {
    "melgan": lambda: MultiScaleDiscriminator(2, 4, 2, max_channels=16),
    "period": lambda: MultiPeriodDiscriminator((2, 3), channels=2),
    "resolution": lambda: MultiResolutionDiscriminator(((64, 16, 64),), channels=2),
    "wave_u_net": lambda: WaveUNetDiscriminator(2, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_discriminator_takes_one(name: str) -> None:
    net = NETWORKS[name]()
    maps = net(audio())
    values, ways = sliced_logits(net, maps)
    for own, value, way in zip(maps, values, ways, strict=True):
        torch.testing.assert_close(value, own[-1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(way, own[-1], rtol=1e-4, atol=1e-6)
    made = task(discriminators={"a": Adversary(net, slicing=True)}, adversarial=SoftLeastSquares())
    figures = phases(made, 1e-3).step([[whole(audio())]], adversarial=True)
    assert math.isfinite(figures["direction/a"])


def test_what_cannot_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="Judge names no heads"):
        Adversary(Judge(), slicing=True)
    with pytest.raises(ValueError, match="weight-normed"):
        Adversary(HiFiGANMultiScaleDiscriminator(1, 16), slicing=True)
    for loss in (LeastSquares(), Relativistic()):
        with pytest.raises(ValueError, match=rf"discriminators\.a\.slicing: .* got {type(loss).__name__}"):
            task(discriminators={"a": Adversary(Line(), slicing=True)}, adversarial=loss)


def test_soft_least_squares_is_its_formula() -> None:
    real, fake = torch.randn(5), torch.randn(5)
    soft = torch.nn.functional.softplus
    loss = SoftLeastSquares()
    expected = (soft(1 - real) ** 2).mean() + (soft(fake) ** 2).mean()
    torch.testing.assert_close(loss.discriminator([real], [fake]), expected)
    torch.testing.assert_close(loss.generator([fake]), (soft(1 - fake) ** 2).mean())
    clipped = Hinge(clipped=True)
    torch.testing.assert_close(clipped.generator([fake]), (1 - fake).clamp(min=0).mean())


# --- penalties


class Square(nn.Module):
    """Its logit is a times the mean square of a sound of T samples: its slope is 2 a x / T."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7))

    def forward(self, sound: Tensor) -> list[list[Tensor]]:
        return [[sound, sound, self.a * sound.square().mean(1, keepdim=True)]]


def test_penalties_are_of_what_the_discriminator_is_shown_and_of_the_steps_it_takes() -> None:
    net = Square()
    made = task(
        discriminators={"a": Adversary(net, every=2, crop_samples=500)},
        adversarial=Relativistic(),
        penalties={"r1": R1(weight=3.0, every=3), "r2": R2(weight=5.0, every=1)},
    )
    assert made.weights["r1/a"] == 9.0  # of the discriminator's steps every third has it
    assert made.weights["r2/a"] == 5.0
    assert made.twice_differentiated == ("a",)
    batch = whole(audio())
    draws = Draws(0, range(2))
    fake = 0.5 * audio(3)
    (real, shown) = made.discriminators["a"].shown("a", (batch["audio"], fake), draws)
    for step, due in ((0, {"r1/a", "r2/a"}), (2, {"r2/a"}), (6, {"r1/a", "r2/a"})):
        losses = made.discriminator_phase(batch, fake, draws, step, torch.enable_grad).losses
        assert set(losses) == {"discriminator/a"} | due
        slope = 2 * 0.7 / 500
        torch.testing.assert_close(losses["r2/a"], (slope * shown).square().sum(1).mean() / 2)
    torch.testing.assert_close(losses["r1/a"], (slope * real).square().sum(1).mean() / 2)
    assert not made.discriminator_phase(batch, fake, draws, 3, torch.enable_grad).losses
    losses["r1/a"].backward()
    assert net.a.grad.item() == pytest.approx(2 * losses["r1/a"].item() / 0.7, rel=1e-4)


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"adversarial": Wasserstein()}, "critics of bounded slope"),
        ({"penalties": {"a": R1(), "b": R1()}}, "R1 is there twice"),
        ({"penalties": {"direction": R1()}}, r"penalties\.direction: there is a loss"),
        ({"discriminators": {}, "penalties": {"r1": R1()}}, "leave those out"),
        (
            {"discriminators": {"a": Adversary(Line())}, "penalties": {"clip": WeightClipping()}},
            "bounds nothing",
        ),
    ],
)
def test_penalties_that_make_no_sense_are_refused(changed: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        task(**changed)
    task(adversarial=Wasserstein(), penalties={"gradient": GradientPenalty()})


# --- turned phases


def test_without_noise_a_turn_is_a_shift_and_real_and_generated_are_turned_alike() -> None:
    turning = PhaseAugmentation(n_fft=256, hop_length=64, variance=0.0, most_shift=4.0, taps=2, cutoff=0.25)
    time = torch.arange(2048.0)
    cycles = 20  # of 256 samples: a bin of its own
    sound = torch.sin(2 * math.pi * cycles / 256 * time).expand(3, -1)
    draws = Draws(0, [4, 5, 6])
    turned, other = turning((sound, 2 * sound), draws)
    torch.testing.assert_close(other, 2 * turned, rtol=1e-4, atol=1e-5)
    shift = 4.0 * (2 * draws.uniform("phase augmentation shift", 1) - 1)
    expected = torch.sin(2 * math.pi * cycles / 256 * (time + shift))
    torch.testing.assert_close(turned[:, 256:-256], expected[:, 256:-256], rtol=0, atol=2e-3)
    assert turned.shape == sound.shape
    assert len({round(float(s), 4) for s in shift}) == 3


def test_angles_have_the_published_spread() -> None:
    turning = PhaseAugmentation()
    shifts = turning.angles(Draws(0, range(300)))[:, 100:-100] / turning.turn[100:-100]
    taps = turning.filter.flatten()
    # White noise through the filter, and a number for all bins, uniform in ±2.
    expected = 6.0 * taps.square().sum() + 2.0**2 / 3
    assert shifts.var(0).mean().item() == pytest.approx(expected.item(), rel=0.15)
    assert (turning.angles(Draws(0, range(2)))[:, 0] == 0).all()  # a constant has no phase


def test_all_discriminators_see_the_same_turned_sounds_in_both_phases() -> None:
    nets = {"a": Seen(), "b": Seen()}
    turning = PhaseAugmentation(n_fft=256, hop_length=64)
    made = task(discriminators={k: Adversary(net) for k, net in nets.items()}, phase_augmentation=turning)
    batch, fake, draws = whole(audio()), audio(5), Draws(0, range(2))
    kept = made.discriminator_phase(batch, fake, draws, 0, torch.no_grad).kept
    made.generator_phase(batch, fake, kept, draws, 0, torch.no_grad)
    (real, made_sound) = turning((batch["audio"], fake), draws)
    assert (real - batch["audio"]).abs().max() > 0.01
    for net in nets.values():
        torch.testing.assert_close(net.sounds[0], torch.cat([real, made_sound]))
        torch.testing.assert_close(net.sounds[1], made_sound)
    with pytest.raises(ValueError, match=r"phase_augmentation takes no fewer than 129"):
        task(phase_augmentation=turning, discriminators={"a": Adversary(Seen())}).check_segment(100)
    for arguments in ({"n_fft": 3}, {"hop_length": 600}, {"variance": -1.0}, {"cutoff": 0.6}, {"taps": 3}):
        with pytest.raises(ValueError, match="got"):
            PhaseAugmentation(**arguments)


def test_the_generator_learns_through_a_turn() -> None:
    turning = PhaseAugmentation(n_fft=64, hop_length=16).double()
    sound = torch.randn(1, 200, dtype=torch.float64, requires_grad=True)
    # A linear map: its slope along a direction is the map of that direction.
    direction = torch.randn(1, 200, dtype=torch.float64)
    draws = Draws(3, [1])
    weights = torch.randn(1, 200, dtype=torch.float64)
    (turning((sound,), draws)[0] * weights).sum().backward()
    expected = (turning((direction,), draws)[0] * weights).sum()
    torch.testing.assert_close((sound.grad * direction).sum(), expected, rtol=1e-5, atol=1e-8)


# --- balance


def test_balanced_losses_pull_by_their_shares_whatever_their_scale() -> None:
    balance = LossBalance(decay=0.5, total=2.0)
    fake = torch.randn(3, 40, requires_grad=True)
    target = torch.randn(3, 40)
    weights = {"small": 1.0, "huge": 3.0}

    def terms() -> dict[str, Tensor]:
        return {"small": 1e-4 * (fake * target).mean(), "huge": 1e4 * (fake - target).square().mean()}

    first = balance(terms(), weights, fake)
    (nothing,) = torch.autograd.grad(first["small"] + first["huge"], fake)
    assert not nothing.any()  # only measured
    torch.testing.assert_close(first["huge"], terms()["huge"])
    balance.observe({name: value.item() for name, value in first.items()})
    second = balance(terms(), weights, fake)
    for name, share in (("small", 0.25), ("huge", 0.75)):
        (alone,) = torch.autograd.grad(terms()[name], fake)
        (pull,) = torch.autograd.grad(weights[name] * second[name], fake, retain_graph=True)
        torch.testing.assert_close(pull / pull.norm(), alone / alone.norm())
        assert pull.norm(dim=1).mean() * 3 == pytest.approx(2.0 * share, rel=1e-4)
        torch.testing.assert_close(second[name], terms()[name])
    # The running mean follows, and is the same after a resume.
    balance.observe({"gradient_size/small": 4 * float(first["gradient_size/small"])})
    again = LossBalance(decay=0.5, total=2.0)
    again.load_state_dict(balance.state_dict())
    third = again(terms(), weights, fake)
    (pull,) = torch.autograd.grad(third["small"], fake)
    usual = (0.5 * 1 + 4) / 1.5  # debiased
    assert pull.norm(dim=1).mean() * 3 == pytest.approx(2.0 * 0.25 / usual, rel=1e-4)


def test_a_gradient_that_fp16_cannot_hold_is_measured() -> None:
    layer, fake = torch.nn.Linear(64, 4), torch.randn(2, 64, requires_grad=True)
    sizes = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            made = layer(fake)
        terms = {"small": 3e-7 * made.float().mean()}  # 4e-8 of each value, where 6e-8 is the least
        sizes.append(LossBalance()(terms, {"small": 1.0}, fake)["gradient_size/small"].item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


def test_a_balanced_task_trains_and_its_parts_add_up() -> None:
    gains = []
    for parts in (1, 2):
        made = task(balance=LossBalance(), losses={"one": WeightedLoss(MelL1(SPEC), 7.0)})
        run = phases(made, 1e-3)
        sound = audio(1, batch=4)
        for step in range(3):
            batch = [whole(part) for part in sound.chunk(parts)]
            figures = run.step([batch], adversarial=True, step=step)
            made.observe(figures, 4)
        assert {"gradient_size/one", "gradient_size/adversarial/a"} <= set(figures)
        gains.append(made.generator.gain.item())
    assert gains[0] == pytest.approx(gains[1], rel=1e-4)
    assert gains[0] != 0.5
    for arguments in ({"decay": 1.0}, {"total": 0.0}):
        with pytest.raises(ValueError, match="got"):
            LossBalance(**arguments)
    fake = torch.ones(1, 4, requires_grad=True)
    with pytest.raises(ValueError, match="a weight above 0 among those of a, b"):
        LossBalance()({"a": fake.sum(), "b": fake.mean()}, {"a": 0.0, "b": 0.0}, fake)


# --- losses


def test_feature_matching_of_weight_nothing_is_left_out() -> None:
    made = task(
        feature_matching=WeightedFeatureMatching(weight=0.0), losses={"one": WeightedLoss(Constant(1.0), 1.0)}
    )
    figures = phases(made, 1e-3).step([[whole(audio())]], adversarial=True)
    assert not [name for name in figures if name.startswith("feature_matching")]
    assert "adversarial/a" in figures


def test_sub_band_distance_is_of_each_band() -> None:
    loss = SubBandSTFT(bands=4, resolutions=((32, 8, 32), (65, 16, 60)))
    fake, real = audio(1), audio(2)
    bands = [[loss.filter_bank.analyze(x[:, None])[:, band] for band in range(4)] for x in (fake, real)]
    apart = torch.stack([loss.stft(a, b) for a, b in zip(*bands, strict=True)]).mean()
    torch.testing.assert_close(loss(fake, real), apart, rtol=1e-4, atol=1e-6)
    assert loss.shortest_samples == 4 * 33
    # A tone is in one band only: the others don't see it go.
    time = torch.arange(4096.0)
    tone = torch.sin(2 * math.pi * 0.3 * time)[None]  # 0.6 of the half rate: band 2
    noise = 0.01 * torch.randn(1, 4096)
    powers = (
        (loss.filter_bank.analyze((tone + noise)[:, None]) - loss.filter_bank.analyze(noise[:, None]))
        .square()
        .mean(2)
    )
    assert powers.argmax() == 2
    assert powers[0, 2] > 100 * powers[0, [0, 1, 3]].max()
    with pytest.raises(ValueError, match="hop_length 256, got 3 bands"):
        SubBandSTFT(SPEC, bands=3)


def test_multi_scale_mel_is_librosas_at_each_window() -> None:
    import librosa

    windows, bands = (64, 256, 1024), (5, 20, 80)
    loss = MultiScaleMel(SPEC, windows, bands)
    fake, real = audio(1), audio(2)
    expected = 0.0
    for window, count in zip(windows, bands, strict=True):
        mels = [
            librosa.feature.melspectrogram(
                y=x.numpy(), sr=SPEC.sample_rate, n_fft=window, hop_length=window // 4, n_mels=count, power=1.0,
                pad_mode="reflect",
            )
            for x in (fake, real)
        ]  # fmt: skip
        logs = [torch.from_numpy(mel).clamp(min=1e-5).log10() for mel in mels]
        expected = expected + (logs[0] - logs[1]).abs().mean()
    assert loss(fake, real).item() == pytest.approx(float(expected), rel=1e-4)
    assert loss.shortest_samples == 513
    published = MultiScaleMel(SPEC)
    assert [mel.spec.n_mels for mel in published.front_ends] == [5, 10, 20, 40, 80, 160, 320]
    assert [mel.spec.n_fft for mel in published.front_ends] == [32, 64, 128, 256, 512, 1024, 2048]
    with pytest.raises(ValueError, match="n_mels for each"):
        MultiScaleMel(SPEC, (64, 128), (5,))
