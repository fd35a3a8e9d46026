"""Discriminators that look at spectra, each against a plain-torch reference of its published layout."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gansound.discriminators.multi_band import MultiBandDiscriminator
from gansound.discriminators.multi_resolution import MultiResolutionDiscriminator
from gansound.discriminators.sub_band_cqt import SubBandCQTDiscriminator
from gansound.mel import MelSpec
from gansound.nn.cqt import CQT

UNIVNET = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))
VOCOS = (((7, 5), (2, 2)), ((5, 3), (2, 1)), ((5, 3), (2, 2)), ((3, 3), (2, 1)), ((3, 3), (2, 2)))


def magnitudes(audio, resolution, design):
    """As UnivNet's and Vocos's code have it: no window named, which torch takes for a rectangular one."""
    n_fft, hop, win = resolution
    if design == "univnet":
        side = (n_fft - hop) // 2
        audio = F.pad(audio.unsqueeze(1), (side, side), mode="reflect").squeeze(1)
    window = torch.ones(win, dtype=audio.dtype)
    return torch.stft(audio, n_fft, hop, win, window, center=design == "vocos", return_complex=True).abs()


@pytest.mark.parametrize("design, layers", [("univnet", UNIVNET), ("vocos", VOCOS)])
def test_resolution_maps_are_the_published_ones(design, layers):
    resolutions = ((64, 12, 40), (128, 30, 128))
    net = MultiResolutionDiscriminator(resolutions, channels=3, design=design).double()
    audio = torch.randn(2, 300, dtype=torch.float64, requires_grad=True)
    twin = audio.detach().clone().requires_grad_()
    judged = net(audio)
    total = 0.0
    for maps, own, resolution in zip(judged, net.resolutions, resolutions, strict=True):
        x = magnitudes(twin, resolution, design).unsqueeze(1)
        for mine, layer, (kernel, stride) in zip(maps, own.layers, layers, strict=False):
            side = (kernel[0] // 2, kernel[1] // 2)
            x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride, side), 0.1)
            torch.testing.assert_close(mine, x)
            assert layer.weight.shape[2:] == kernel
            total = total + x.square().sum()
        x = F.conv2d(x, own.last.weight, own.last.bias, padding=1)
        torch.testing.assert_close(maps[-1], x)
        total = total + x.square().sum()
        assert len(maps) == 6
    total.backward()
    sum(m.square().sum() for maps in judged for m in maps).backward()
    torch.testing.assert_close(audio.grad, twin.grad)


def test_the_published_sizes():
    univnet, vocos = MultiResolutionDiscriminator(), MultiResolutionDiscriminator(design="vocos")
    assert [net.resolution for net in univnet.resolutions] == [
        (1024, 120, 600),
        (2048, 240, 1200),
        (512, 50, 240),
    ]
    assert [net.resolution for net in vocos.resolutions] == [
        (1024, 256, 1024),
        (2048, 512, 2048),
        (512, 128, 512),
    ]
    convolutions = 32 * (1 * 27 + 3 * 32 * 27 + 32 * 9) + 32 * 9
    assert sum(p.numel() for p in univnet.parameters()) == 3 * (
        convolutions + 2 * 5 * 32 + 2
    )  # length and bias
    convolutions = 64 * (35 + 64 * (15 + 15 + 9 + 9)) + 64 * 9
    assert sum(p.numel() for p in vocos.parameters()) == 3 * (convolutions + 2 * 5 * 64 + 2)


def test_silence_gives_finite_gradients_of_gradients():
    net = MultiResolutionDiscriminator(((64, 16, 64),), channels=2)
    audio = torch.zeros(1, 200, requires_grad=True)
    (slope,) = torch.autograd.grad(net(audio)[0][-1].sum(), audio, create_graph=True)
    slope.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert torch.isfinite(audio.grad).all()


@pytest.mark.parametrize("design, shortest", [("univnet", 49), ("vocos", 65)])
def test_audio_too_short_to_be_mirrored_is_refused(design, shortest):
    net = MultiResolutionDiscriminator(((128, 32, 100),), channels=2, design=design)
    assert net.shortest_samples == shortest
    net(torch.zeros(1, shortest))
    for shape in ((1, shortest - 1), (1, 1, 300), (300,)):
        with pytest.raises(ValueError, match=f"{shortest} or more samples"):
            net(torch.zeros(shape))
    both = MultiResolutionDiscriminator(((128, 32, 100), (64, 16, 64)), channels=2, design=design)
    assert both.shortest_samples == shortest, "the longest decides"
    # A hop longer than what is mirrored: one frame must fit.
    assert MultiResolutionDiscriminator(((64, 60, 64),), channels=2).shortest_samples == 60


@pytest.mark.parametrize(
    "arguments",
    [
        {"resolutions": ()},
        {"resolutions": ((64, 16, 100),)},
        {"resolutions": ((64, 0, 64),)},
        {"resolutions": ((64, 65, 64),)},
        {"channels": 0},
        {"design": "melgan"},
    ],
)
def test_resolutions_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        MultiResolutionDiscriminator(**arguments)


# --- several bands of a complex spectrum (DAC)


def test_dacs_sizes():
    """Five bands of 1025 bins from 0, 102, 256, 512 and 768 on, three strides of two in each; one logit."""
    net = MultiBandDiscriminator()
    maps = net(torch.randn(1, 4096))
    assert [m.shape[3] for m in maps[0][4::5]] == [math.ceil(n / 8) for n in (102, 154, 256, 256, 257)]
    assert [m[-1].shape[:3] for m in maps] == [(1, 1, 4096 // hop + 1) for hop in (512, 256, 128)]
    convolutions = 32 * (2 * 27 + 3 * 32 * 27 + 32 * 9)
    counted = 5 * (convolutions + 2 * 5 * 32) + 32 * 9 + 2  # length and bias
    assert sum(p.numel() for p in net.parameters()) == 3 * counted


def test_band_maps_are_the_published_ones():
    bands = ((0.0, 0.4), (0.4, 1.0))
    net = MultiBandDiscriminator((64,), channels=3, bands=bands).double()
    audio = torch.randn(2, 300, dtype=torch.float64) + 0.3
    (maps,) = net(audio)
    level = audio - audio.mean(1, keepdim=True)
    level = 0.8 * level / (level.abs().max(1, keepdim=True)[0] + 1e-9)
    spectrum = torch.stft(level, 64, 16, 64, torch.hann_window(64).double(), return_complex=True)
    image = torch.stack([spectrum.real, spectrum.imag], 1).transpose(2, 3)
    ends, number = [], 0
    own = net.windows[0]
    for (low, high), stack in zip(bands, own.stacks, strict=True):
        x = image[..., int(low * 33) : int(high * 33)]
        for layer, (kernel, stride) in zip(stack, UNIVNET, strict=True):
            side = (kernel[0] // 2, kernel[1] // 2)
            x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride, side), 0.1)
            torch.testing.assert_close(maps[number], x, rtol=1e-6, atol=1e-8)
            number += 1
        ends.append(x)
    torch.testing.assert_close(
        maps[-1], F.conv2d(torch.cat(ends, 3), own.last.weight, own.last.bias, padding=1)
    )
    assert len(maps) == number + 1 == 11
    # Whatever its level or its mean, a sound is judged alike; silence has no infinite slope.
    torch.testing.assert_close(net(0.01 * audio - 3)[0][-1], maps[-1], rtol=1e-5, atol=1e-8)
    silent = torch.zeros(1, 300, dtype=torch.float64, requires_grad=True)
    net(silent)[0][-1].sum().backward()
    assert silent.grad.abs().max() < 1e5


def test_bands_that_cannot_be_are_refused():
    assert MultiBandDiscriminator().shortest_samples == 1025
    for arguments in (
        {"windows": ()},
        {"windows": (66,)},
        {"channels": 0},
        {"bands": ()},
        {"bands": ((0.5, 0.4),)},
        {"windows": (64,), "bands": ((0.0, 0.1), (0.1, 1.0))},
    ):
        with pytest.raises(ValueError, match="got"):
            MultiBandDiscriminator(**arguments)
    with pytest.raises(ValueError, match="33 or more samples"):
        MultiBandDiscriminator((64,), bands=((0.0, 1.0),))(torch.zeros(1, 32))


# --- constant Q


def test_the_constant_q_transform_is_librosas():
    import librosa

    rate, lowest, bins = 22050, 130.8128, 12
    sound = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    cqt = CQT(rate, 256, octaves=5, bins_per_octave=bins, lowest_hz=lowest)
    real, imaginary = cqt(torch.from_numpy(sound)[None])[0]
    mine = torch.complex(real, imaginary).T.numpy()
    theirs = librosa.cqt(
        sound, sr=rate, hop_length=256, fmin=lowest, n_bins=60, bins_per_octave=bins, sparsity=0, scale=False,
        tuning=0.0,
    )  # fmt: skip
    assert mine.shape == theirs.shape
    lengths = rate / (2 ** (1 / bins) - 1) / np.array(cqt.frequencies_hz)
    mine, theirs = mine[:, 12:-12], theirs[:, 12:-12] / lengths[:, None]
    for row, other in zip(mine, theirs, strict=True):  # the windows are nearly the same, and as late
        assert np.vdot(row, other).real > 0.998 * np.linalg.norm(row) * np.linalg.norm(other)
        assert np.linalg.norm(row) == pytest.approx(np.linalg.norm(other), rel=0.05)


def test_a_sine_is_one_bin_of_half_its_amplitude_at_every_octave_and_at_twice_the_rate():
    cqt = CQT(16000, 64, octaves=5, bins_per_octave=12, lowest_hz=200.0)
    time = torch.arange(16000.0) / 16000
    for octave in range(5):
        number = 12 * octave + 4
        sound = 0.6 * torch.sin(2 * math.pi * cqt.frequencies_hz[number] * time)[None]
        spectrum = cqt(sound)
        assert spectrum.shape == (1, 2, 251, 60)
        moduli = spectrum.square().sum(1).sqrt()[0, 100:150].mean(0)
        assert moduli.argmax() == number
        assert moduli[number].item() == pytest.approx(0.3, rel=0.02)
        halved = 0.6 * torch.sin(2 * math.pi * cqt.frequencies_hz[number] * 2 * time[:8000])[None]
        if octave < 3:
            doubled = cqt.at_twice_the_rate(halved).square().sum(1).sqrt()[0, 100:150].mean(0)
            torch.testing.assert_close(doubled, moduli, rtol=0.02, atol=1e-3)


MEL = MelSpec.preset("bigvgan_24khz")


def test_constant_q_maps_are_the_published_ones():
    net = SubBandCQTDiscriminator(MEL, (32,), (6,), octaves=4, channels=3).double()
    (own,) = net.resolutions
    audio = torch.randn(2, 700, dtype=torch.float64)
    (maps,) = net(audio)
    z = own.cqt.at_twice_the_rate(audio)
    assert z.shape == (2, 2, 1 + 1400 // 32, 24)
    parts = [
        F.conv2d(part, conv.weight, conv.bias, padding=(1, 4))
        for part, conv in zip(z.split(6, 3), own.octaves, strict=True)
    ]
    x = torch.cat(parts, 3)
    how = [(1, (1, 4), 1), *(((1, 2), (d, 4), (d, 1)) for d in (1, 2, 4)), (1, (1, 1), 1)]
    for mine, layer, (stride, side, dilation) in zip(maps, own.layers, how, strict=False):
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride, side, dilation), 0.1)
        torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(
        maps[-1], F.conv2d(x, own.last.weight, own.last.bias, padding=1), rtol=1e-5, atol=1e-8
    )
    assert len(maps) == 6


def test_the_sizes_at_constant_q():
    """Nine octaves from C1 at twice the rate, one logit; each octave a convolution of its own."""
    net = SubBandCQTDiscriminator(MEL)
    assert [(own.cqt.hop_length, own.cqt.bins_per_octave) for own in net.resolutions] == [
        (512, 24), (256, 36), (256, 48),
    ]  # fmt: skip
    assert {own.cqt.octaves for own in net.resolutions} == {9}
    assert [m[-1].shape for m in net(torch.randn(1, 2048))] == [
        (1, 1, 9, 9 * 24 // 8), (1, 1, 17, math.ceil(9 * 36 / 8)), (1, 1, 17, 9 * 48 // 8),
    ]  # fmt: skip
    convolutions = 32 * (2 * 27 + 3 * 32 * 27 + 32 * 9) + 32 * 9
    lengths_and_biases = 32 + 2 * 4 * 32 + 2  # the first is no weight norm's
    counted = 9 * (2 * 2 * 27 + 2) + convolutions + lengths_and_biases
    assert sum(p.numel() for p in net.parameters()) == 3 * counted


def test_octaves_above_half_the_rate_are_refused_with_the_values():
    assert SubBandCQTDiscriminator(MEL, (256,), (12,), channels=1).octaves == 9
    low = replace(MelSpec.preset("hifigan"), sample_rate=8000, fmax=4000.0)
    assert SubBandCQTDiscriminator(low, (256,), (12,), channels=1).octaves == 7
    with pytest.raises(
        ValueError, match=r"highest of 8 octaves from 32.703 Hz begins at 4186 Hz, .* 8000 Hz"
    ):
        SubBandCQTDiscriminator(low, octaves=8)
    with pytest.raises(ValueError, match=r"ends at 6400 Hz, above half the rate of 12000 Hz"):
        CQT(12000, 64, octaves=5, lowest_hz=200.0)
    with pytest.raises(ValueError, match=r"multiple of 256, .* got 300"):
        SubBandCQTDiscriminator(MEL, (300,), (12,))
    for arguments in ({"hop_lengths": ()}, {"bins_per_octave": (24,)}, {"channels": 0}):
        with pytest.raises(ValueError, match="got"):
            SubBandCQTDiscriminator(MEL, **arguments)
    net = SubBandCQTDiscriminator(MEL, (256, 512), (12, 12), channels=1)
    with pytest.raises(ValueError, match="512 or more samples"):
        net(torch.zeros(1, 511))


def test_constant_q_of_the_published_sizes_is_differentiated_in_single_precision():
    """As a strided convolution it wrecks torch's memory."""
    net = SubBandCQTDiscriminator(MelSpec.preset("bigvgan_24khz"), (256,), (36,), channels=2)
    audio = torch.randn(2, 4096, requires_grad=True)
    for _ in range(3):
        sum(maps[-1].square().sum() for maps in net(audio)).backward()
    assert torch.isfinite(audio.grad).all()
    assert audio.grad.abs().sum(1).min() > 0
