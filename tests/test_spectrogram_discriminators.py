"""Discriminators that look at spectra, each against a plain-torch reference of its published layout."""

import pytest
import torch
from torch.nn import functional as F

from gansound.discriminators.multi_resolution import MultiResolutionDiscriminator

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
