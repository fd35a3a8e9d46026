"""BigVGAN: its filters and activations against scipy, its nets against a plain-torch reference and published shapes."""

import json
import math

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn
from torch.nn import functional as F

from gansound.generators import bigvgan
from gansound.generators.bigvgan import BigVGANGenerator, bigvgan_keys
from gansound.nn.anti_aliased import TAPS, AntiAliased, kaiser_sinc, minimum_phase
from gansound.nn.fold import fold_parametrizations
from gansound.nn.snake import Snake, SnakeBeta
from tests.reference import bigvgan as reference
from tests.reference.melgan import awaken, bring_over

PUBLISHED = {
    "base_22khz_80band": {"n_mels": 80, **bigvgan.BASE},
    "v2_22khz_80band_fmax8k_256x": {"n_mels": 80, **bigvgan.V2},
    "v2_24khz_100band_256x": bigvgan.V2,
    "v2_44khz_128band_512x": {
        "n_mels": 128,
        "upsample_rates": (8, 4, 2, 2, 2, 2),
        "upsample_kernel_sizes": (16, 8, 4, 4, 4, 4),
        **bigvgan.V2,
    },
}
SIZES = {
    "n_mels": 6,
    "channels": 16,
    "upsample_rates": (4, 2),
    "upsample_kernel_sizes": (8, 4),
    "residual_kernel_sizes": (3, 7),
    "residual_dilations": ((1, 3), (1, 5)),
}
# name: (ours, the reference's)
SMALL = {
    "v1": ({}, {}),
    "v2": (bigvgan.V2, {"tanh": False, "bias": False}),
    "block 2": ({"residual_block": 2}, {"paired": False}),
    "snake": ({"activation": "snake"}, {"beta": False}),
    "linear scale": ({"snake_logscale": False}, {"log": False}),
}


def relative(ours, theirs):
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def pair(name, seed=0):
    """A small generator and its reference in double precision, equal weights, awake, their frequencies moved."""
    torch.manual_seed(seed)
    own, others = SMALL[name]
    theirs = reference.Generator(*SIZES.values(), **others).double()
    for key, parameter in theirs.named_parameters():
        if "act." in key:
            with torch.no_grad():
                parameter += 0.3 * torch.randn_like(parameter)
    if not others.get("bias", True):
        theirs.conv_post.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    awaken(theirs, torch.randn(2, 6, 20, dtype=torch.float64))
    if not others.get("bias", True):
        theirs.conv_post.bias = None
    ours = BigVGANGenerator(**SIZES, **own).double()
    bring_over(theirs, ours, bigvgan_keys(ours))
    return ours, theirs


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_the_published_ones_through_the_name_map(shared, name):
    spec = json.loads((shared / "specs" / f"bigvgan_{name}_generator.json").read_text())
    with torch.device("meta"):  # a hundred million weights, of which the shapes are enough
        net = BigVGANGenerator(**PUBLISHED[name])
    keys = bigvgan_keys(net)
    filters = {key: shape for key, shape in spec["state_dict"].items() if key.endswith(".filter")}
    assert set(map(tuple, filters.values())) == {(1, 1, TAPS)}
    found = {keys[key]: list(tensor.shape) for key, tensor in net.state_dict().items()}
    assert found == {key: shape for key, shape in spec["state_dict"].items() if key not in filters}
    assert net.hop_length == spec["_meta"]["config"]["hop_size"]
    assert sum(p.numel() for p in net.parameters()) == spec["_meta"]["n_params_with_weight_norm"]
    folded = fold_parametrizations(net)
    assert bigvgan_keys(folded).keys() == folded.state_dict().keys()
    # Where weights are folded the filters were counted, too.
    expected = spec["_meta"]["n_params_weight_norm_folded"] - TAPS * len(filters)
    assert sum(p.numel() for p in folded.parameters()) == expected


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_small_ones_equal_the_reference_with_gradients(name, frames):
    ours, theirs = pair(name, seed=frames)
    mel = torch.randn(2, 6, frames, dtype=torch.float64, requires_grad=True)
    twin = mel.detach().clone().requires_grad_()
    got, expected = ours(mel), theirs(twin).squeeze(1)
    assert got.shape == (2, frames * ours.hop_length)
    assert float(expected.detach().square().mean().sqrt()) > 0.01
    assert relative(got, expected) < 1e-9
    weights = torch.randn(got.shape, dtype=torch.float64)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert relative(mel.grad, twin.grad) < 1e-8
    grads = dict(theirs.named_parameters())
    keys = bigvgan_keys(ours)
    for key, parameter in ours.named_parameters():
        assert relative(parameter.grad, grads[keys[key]].grad) < 1e-7, key


@pytest.mark.parametrize("tanh", [True, False])
def test_the_end_bounds_the_waveform(tanh):
    ours, _ = pair("v1" if tanh else "v2")
    last = ours.layers[-2].parametrizations.weight
    last.original0.data *= 8
    audio = ours(torch.randn(1, 6, 9, dtype=torch.float64))
    assert audio.abs().max() <= 1
    assert bool((audio.abs() == 1).any()) is not tanh


def test_samples_are_frames_times_hop_for_any_overlap():
    for causal in (False, True):
        for rate, kernel in ((2, 2), (2, 3), (3, 6), (5, 8)):
            net = BigVGANGenerator(4, 4, (rate, 2), (kernel, 4), (3,), ((1,),), causal=causal)
            for frames in (1, 2, 7):
                assert net(torch.randn(2, 4, frames)).shape == (2, frames * rate * 2)


@pytest.mark.parametrize("arguments", [{"activation": "relu"}, {"channels": 100}, {"upsample_rates": (4, 4)}])
def test_a_generator_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        BigVGANGenerator(**arguments)


# --- the layers


def test_the_filter_is_the_published_one():
    """scipy's window method; two values of the filter that the published checkpoints hold."""
    ours = kaiser_sinc(12, 0.25, 0.3).float()
    torch.testing.assert_close(ours, reference.published_filter(), rtol=0, atol=1e-7)
    assert ours[5].item() == pytest.approx(0.44323, abs=1e-4)
    assert ours[4].item() == pytest.approx(0.12858, abs=1e-4)


@pytest.mark.parametrize(
    "taps, cutoff, half_width", [(12, 0.25, 0.3), (65, 0.25, 0.03), (128, 0.05, 0.012), (6, 0.2, 0.05)]
)
def test_a_filter_of_any_transition_is_scipys(taps, cutoff, half_width):
    """Of the three ranges of Kaiser's rule: those of activations, of a constant-Q transform's halving, of neither."""
    attenuation_db = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    window = ("kaiser", scipy.signal.kaiser_beta(attenuation_db))
    expected = scipy.signal.firwin(taps, cutoff, window=window, fs=1.0)
    np.testing.assert_allclose(kaiser_sinc(taps, cutoff, half_width).numpy(), expected, rtol=0, atol=1e-12)


def test_the_causal_filter_has_the_same_magnitude_and_answers_sooner():
    even = kaiser_sinc(12, 0.25, 0.3)
    soonest = minimum_phase(even)
    torch.testing.assert_close(torch.fft.rfft(soonest, 256).abs(), torch.fft.rfft(even, 256).abs())
    assert np.abs(np.roots(soonest.numpy())).max() < 1 + 1e-9
    energy, before = soonest.square().cumsum(0), even.square().cumsum(0)
    assert bool(
        (energy + 1e-12 >= before).all()
    )  # no filter of that magnitude has more energy in its first taps
    assert energy[2] > 0.8 * energy[-1]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 40])
def test_the_causal_activation_is_its_definition(length):
    """Upsample by a transposed convolution, the activation, every second sample of a convolution; all of the past."""
    snake = SnakeBeta(3).double()
    nn.init.normal_(snake.alpha)
    layer = AntiAliased(snake, causal=True).double()
    taps = minimum_phase(kaiser_sinc(12, 0.25, 0.3)).float().double().expand(3, 1, 12)
    x = torch.randn(2, 3, length, dtype=torch.float64)
    past = F.pad(x, (5, 0), mode="replicate")
    double = 2 * F.conv_transpose1d(past, taps, stride=2, groups=3)[..., 10 : 10 + 2 * length]
    after = F.pad(snake(double), (10, 0), mode="replicate")
    expected = F.conv1d(after, taps.flip(2), stride=2, groups=3)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_what_the_activation_adds_above_half_the_rate_is_not_folded_back(causal):
    """A tone at 0.2 of the rate to the fourth power has an overtone at 0.8, which would be heard at 0.2 again.

    Nearer to half the rate the published twelve taps let much through: 0.14 of 0.5 at 0.35 squared.
    """
    time = torch.arange(4000, dtype=torch.float64)
    tone = 0.5 * torch.cos(2 * torch.pi * 0.2 * time)[None, None]

    class FourthPower(nn.Module):
        def forward(self, x):
            return x**4

    def level(y):
        spectrum = torch.fft.rfft(y[0, 0, 1000:3000] * torch.hann_window(2000, dtype=torch.float64)).abs()
        return float(spectrum[390:411].max() / spectrum[0])

    plain, filtered = level(tone**4), level(AntiAliased(FourthPower(), causal=causal).double()(tone))
    assert plain > 0.15
    assert filtered < 0.01 * plain


def test_snakes():
    x = torch.linspace(-3, 3, 50, dtype=torch.float64).expand(1, 2, 50)
    alpha, beta = torch.tensor([[0.7, 3.0], [2.0, 0.5]], dtype=torch.float64)
    expected = x + (torch.sin(alpha[:, None] * x) ** 2) / beta[:, None]
    for log_scale in (True, False):
        snake, two = Snake(2, log_scale=log_scale).double(), SnakeBeta(2, log_scale=log_scale).double()
        torch.testing.assert_close(snake(x), x + torch.sin(x) ** 2)  # as it starts
        torch.testing.assert_close(two(x), snake(x))
        for parameter, value in ((two.alpha, alpha), (two.beta, beta)):
            parameter.data = value.log() if log_scale else value
        torch.testing.assert_close(two(x), expected, rtol=0, atol=1e-8)
        snake.alpha.data = two.alpha.data
        torch.testing.assert_close(
            snake(x),
            x + torch.sin(alpha[:, None] * x) ** 2 / alpha[:, None],
            rtol=0,
            atol=1e-8,
        )
        torch.testing.assert_close(snake(x[:, :, None]), snake(x)[:, :, None])  # as an image
