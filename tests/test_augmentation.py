"""Augmentation: each change against a loop in numpy, what an item sees is its own, and ADA as a control loop."""

import json

import numpy as np
import pytest
import torch

from gansound.discriminators.augmentation import Augmentation, Augmentations, InstanceNoise, mel, wave
from gansound.draw import Draws

WAVE = [
    wave.Polarity(),
    wave.Gain(),
    wave.TimeShift(),
    wave.TimeShift(circular=True),
    wave.Speed(),
    wave.Equaliser(),
    wave.CutOut(),
]
MEL = [
    mel.TimeShift(),
    mel.FrequencyShift(),
    mel.Gain(),
    mel.Tilt(),
    mel.TimeMask(),
    mel.FrequencyMask(),
]


def name_of(op):
    return f"{op.domain}-{type(op).__name__}"


def items(seed=0, *shape, dtype=torch.float32):
    return torch.randn(*(shape or (8, 2, 80)), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def chances(op, seed=1, count=8):
    return torch.rand(count, op.numbers, generator=torch.Generator().manual_seed(seed))


# --- each change


def shifted(row, by, circular=False):
    if circular:
        return np.roll(row, by)
    return np.array([row[i - by] if 0 <= i - by < len(row) else 0.0 for i in range(len(row))])


def test_polarity_turns_half_of_the_items():
    chance = torch.tensor([[0.2], [0.7]])
    x = items(0, 2, 1, 9)
    assert torch.equal(wave.Polarity()(x, chance), torch.stack([-x[0], x[1]]))


def test_gain_is_in_decibels():
    x = items(0, 3, 1, 9)
    got = wave.Gain(20.0)(x, torch.tensor([[0.0], [0.5], [0.75]]))
    torch.testing.assert_close(got, x * torch.tensor([0.1, 1.0, 10**0.5]).view(3, 1, 1))


@pytest.mark.parametrize("circular", [False, True])
def test_time_shift_moves_whole_samples(circular):
    op, x = wave.TimeShift(0.1, circular), items(0, 17, 2, 80)  # at most 8 samples: 17 shifts, one an item
    chance = (torch.arange(17) + 0.5).view(-1, 1) / 17
    got = op(x, chance).numpy()
    for i in range(17):
        for channel in range(2):
            np.testing.assert_array_equal(got[i, channel], shifted(x[i, channel].numpy(), i - 8, circular))


def test_speed_reads_between_samples():
    """Against numpy.interp; a faster clip ends in zeros."""
    x = items(0, 3, 1, 400)
    got = wave.Speed(12.0)(x, torch.tensor([[0.0], [0.5], [0.75]])).numpy()
    for i, length in enumerate((200, 400, round(400 * 2**0.5))):
        places = np.arange(length) * 399 / (length - 1)
        expected = np.zeros(max(400, length))
        expected[:length] = np.interp(places, np.arange(400), x[i, 0].numpy())
        np.testing.assert_allclose(got[i, 0], expected[:400], atol=1e-4)


@pytest.mark.parametrize("length", [40, 600])
def test_equaliser_is_the_sum_of_its_octaves(length):
    """The à trous recursion by np.convolve, nothing of the end heard at the beginning."""
    op, x = wave.Equaliser(6.0), items(0, 2, 1, length, dtype=torch.float64)
    chance = chances(op, count=2)
    got = op(x, chance).numpy()
    for i in range(2):
        gains = 10 ** (6 * (2 * chance[i].double().numpy() - 1) / 20)
        level, expected = np.pad(x[i, 0].numpy(), 64), 0.0
        for octave, gain in enumerate(gains[:-1]):
            taps = np.zeros(2 ** (octave + 1) + 1)
            taps[[0, 2**octave, -1]] = 0.25, 0.5, 0.25
            smoother = np.convolve(level, taps, mode="same")
            expected = expected + gain * (level - smoother)
            level = smoother
        expected = expected + gains[-1] * level
        np.testing.assert_allclose(got[i, 0], expected[64:-64], atol=1e-5)


def test_equaliser_stays_within_its_decibels():
    impulse = torch.zeros(200, 1, 512)
    impulse[:, 0, 256] = 1
    op = wave.Equaliser(6.0)
    response = torch.fft.rfft(op(impulse, chances(op, count=200))).abs()
    decibels = 20 * torch.log10(response)
    assert decibels.abs().max() <= 6.001
    assert decibels.std(0).min() > 0.5  # and every frequency is moved
    assert torch.allclose(op(impulse, torch.full((200, 7), 0.5)), impulse, atol=1e-6)


def test_cut_out_silences_one_stretch():
    op, x = wave.CutOut(0.25), items(0, 200, 1, 80)
    got = op(x, chances(op, count=200))
    gone = got[:, 0] == 0
    assert gone.sum(1).max() == 20
    assert gone.sum(1).min() == 0
    assert ((gone[:, 1:] & ~gone[:, :-1]).sum(1) <= 1).all()  # one beginning
    assert gone.any(0).all()  # anywhere
    assert torch.equal(got[:, 0][~gone], x[:, 0][~gone])


def test_mel_shifts_repeat_the_edge():
    x = items(0, 5, 6, 40)
    chance = (torch.arange(5) + 0.5).view(-1, 1) / 5
    in_time, in_bands = mel.TimeShift(0.05)(x, chance).numpy(), mel.FrequencyShift(2)(x, chance).numpy()
    for i in range(5):
        item, by = x[i].numpy(), i - 2
        padded = np.pad(item, 2, mode="edge")
        np.testing.assert_array_equal(in_time[i], padded[2:-2, 2 - by : 42 - by])
        np.testing.assert_array_equal(in_bands[i], padded[2 - by : 8 - by, 2:-2])


def test_mel_offsets():
    x = items(0, 2, 5, 7)
    chance = torch.tensor([[0.0], [0.75]])
    torch.testing.assert_close(
        mel.Gain(2.0)(x, chance) - x, torch.tensor([-2.0, 1.0]).view(2, 1, 1).expand_as(x)
    )
    tilt = mel.Tilt(2.0)(x, chance) - x
    slope = torch.linspace(-1, 1, 5).view(5, 1).expand(5, 7)
    torch.testing.assert_close(tilt, torch.stack([-2 * slope, slope]))


@pytest.mark.parametrize("op, axis", [(mel.TimeMask(0.25), 2), (mel.FrequencyMask(0.25), 1)])
def test_masks_take_the_mean(op, axis):
    x = items(0, 50, 16, 20)
    got = op(x, chances(op, count=50))
    masked = got != x
    widths = masked.any(3 - axis).sum(1)
    assert widths.max() == x.shape[axis] // 4
    assert torch.equal(masked.all(3 - axis), masked.any(3 - axis))  # whole frames, whole bands
    means = x.mean((1, 2), keepdim=True).expand_as(x)
    torch.testing.assert_close(got[masked], means[masked])


@pytest.mark.parametrize("op", [*WAVE, *MEL], ids=name_of)
def test_gradients_once_and_twice(op: Augmentation):
    x = items(2, 2, 4, 16, dtype=torch.float64).requires_grad_()  # each number takes two passes
    chance = chances(op, 5, 2)
    assert not torch.equal(op(x, chance), x)
    assert torch.autograd.gradcheck(lambda v: op(v, chance), x, atol=1e-5)
    assert torch.autograd.gradgradcheck(lambda v: op(v, chance).pow(3), x, atol=1e-4)
    assert torch.autograd.grad(op(x, chance).sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("op", [*WAVE, *MEL], ids=name_of)
def test_any_chance_keeps_the_shape(op: Augmentation):
    below_one = float(np.nextafter(np.float32(1), np.float32(0)))
    for value in (0.0, 0.5, below_one):
        for shape in ((2, 1, 16384), (2, 4, 3), (2, 1, 1)):
            got = op(items(4, *shape), torch.full((2, op.numbers), value))
            assert got.shape == shape
            assert torch.isfinite(got).all()


# --- the row of them


@pytest.mark.parametrize("ops", [WAVE, MEL], ids=["wave", "mel"])
def test_an_item_sees_its_own_draws_alone(ops):
    x = items(5, 6, 4, 64)
    augment = Augmentations(ops, 0.6, noise=InstanceNoise(0.1, 100))
    whole = augment(x, Draws(7, range(10, 16)), "real", step=50)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        part = augment(x[start:stop], Draws(7, range(10 + start, 10 + stop)), "real", step=50)
        torch.testing.assert_close(part, whole[start:stop], rtol=1e-5, atol=1e-5)
    assert torch.equal(whole, augment(x, Draws(7, range(10, 16)), "real", step=50))
    for other in (Draws(8, range(10, 16)), Draws(7, range(16, 22))):
        assert not torch.allclose(whole, augment(x, other, "real", step=50))
    assert not torch.allclose(whole, augment(x, Draws(7, range(10, 16)), "fake", step=50))


def test_nothing_happens_at_probability_zero():
    x = items().requires_grad_()
    got = Augmentations(WAVE, target=0.6)(x, Draws(0, range(8)), "real")
    assert torch.equal(got, x)
    assert torch.equal(torch.autograd.grad(got.sum(), x)[0], torch.ones_like(x))


@pytest.mark.parametrize("probability", [0.1, 0.7])
def test_each_change_falls_upon_its_share_of_items(probability):
    """The others come out bit for bit, and two changes fall independently."""
    x = torch.ones(2000, 1, 8)
    one, two = (Augmentations([op], probability) for op in (wave.Gain(), wave.Gain()))
    both = Augmentations([wave.Gain(), wave.Gain()], probability)
    draws = Draws(0, range(2000))
    share = (one(x, draws, "a") != x).any(2).float().mean().item()
    error = (probability * (1 - probability) / 2000) ** 0.5
    assert share == pytest.approx(probability, abs=4 * error)
    assert not torch.equal(one(x, draws, "a"), two(x, draws, "b"))
    untouched = (both(x, draws, "a") == x).all(2).float().mean().item()
    assert untouched == pytest.approx((1 - probability) ** 2, abs=4 * error)


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.8])
def test_gradients_flow_at_any_probability(probability):
    x = items().requires_grad_()
    augment = Augmentations(WAVE[:-1], probability, target=0.6)
    slopes = torch.autograd.grad(augment(x, Draws(0, range(8)), "fake").sum(), x)[0]
    assert (slopes.abs().sum((1, 2)) > 0).all()


def test_instance_noise_fades_on_a_line():
    x = torch.zeros(4, 1, 20_000)
    noise = Augmentations([], noise=InstanceNoise(0.2, steps=100))
    for step, std in ((0, 0.2), (25, 0.15), (99, 0.002)):
        assert noise(x, Draws(0, range(4)), "real", step).std().item() == pytest.approx(std, rel=0.02)
    assert torch.equal(noise(x, Draws(0, range(4)), "real", 100), x)


# --- adaptive


def settled(overfitting, probability, items_a_step=64, steps=3000):
    augment = Augmentations(WAVE, probability, target=0.6, ramp_items=50_000)
    for _ in range(steps):
        augment.observe(overfitting(augment.probability), items_a_step)
    return augment.probability


@pytest.mark.parametrize("start", [0.0, 0.8])
def test_the_probability_settles_where_the_target_is_met(start):
    assert settled(lambda p: 0.9 - p, start) == pytest.approx(0.3, abs=0.003)


def test_the_probability_stays_within_its_limits():
    assert settled(lambda p: 1.0, 0.0) == 0.8
    assert settled(lambda p: -1.0, 0.8) == 0.0


def test_the_ramp_counts_items_and_not_steps():
    fine, coarse = (Augmentations(WAVE, target=0.6, ramp_items=1000) for _ in range(2))
    for _ in range(10):
        fine.observe(0.9, 10)
    coarse.observe(0.9, 100)
    assert fine.probability == pytest.approx(coarse.probability) == pytest.approx(0.1)


def test_a_fixed_probability_stays():
    augment = Augmentations(WAVE, 0.3)
    augment.observe(1.0, 10_000)
    assert augment.probability == 0.3


def test_the_state_goes_on_where_it_was():
    first, second = (Augmentations(WAVE, target=0.6, ramp_items=997) for _ in range(2))
    for sign in (1.0, 0.9, 0.2, 0.8):
        first.observe(sign, 64)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for augment in (first, second):
        augment.observe(0.7, 64)
    assert first.probability == second.probability > 0


# --- what is refused


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ops": []}, "neither ops nor noise"),
        ({"ops": [wave.Gain(), mel.Gain()]}, r"Gain \(wave\), Gain \(mel\)"),
        ({"ops": WAVE}, "probability 0 without a target"),
        ({"ops": WAVE, "probability": 0.9}, "limit of 0.8, got 0.9"),
        ({"ops": WAVE, "target": 1.5}, "between -1 and 1"),
        ({"ops": WAVE, "target": 0.6, "ramp_items": 0}, "ramp_items"),
        ({"ops": WAVE, "target": 0.6, "limit": 0.0}, "limit"),
        ({"ops": [], "noise": InstanceNoise(), "target": 0.6}, "there are none"),
    ],
)
def test_impossible_rows_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augmentations(**arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: wave.Gain(0),
        lambda: wave.TimeShift(1.5),
        lambda: wave.Speed(13.0),
        lambda: wave.Equaliser(-1.0),
        lambda: wave.CutOut(0),
        lambda: mel.FrequencyShift(0),
        lambda: mel.Tilt(0),
        lambda: mel.TimeMask(1.1),
        lambda: InstanceNoise(std=0),
        lambda: InstanceNoise(steps=0),
    ],
)
def test_impossible_changes_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected 3 items of three dimensions"):
        Augmentations(WAVE, 0.5)(torch.zeros(3, 80), Draws(0, range(3)), "real")
    with pytest.raises(ValueError, match="expected 3 items"):
        Augmentations(WAVE, 0.5)(torch.zeros(2, 1, 80), Draws(0, range(3)), "real")
