"""Vocos against a plain-torch reference and the published shapes, in both framings."""

import json
from dataclasses import replace

import pytest
import torch

from gansound.generators.vocos import VocosGenerator, vocos_keys
from gansound.mel import MelSpec
from gansound.nn.istft import ISTFT, LOUDEST_BIN, Polar
from tests.reference import vocos as reference

PUBLISHED = MelSpec.preset("vocos_24khz")
SMALL = replace(PUBLISHED, n_fft=64, win_length=64, hop_length=16, n_mels=6)
SIZES = {"channels": 12, "hidden_channels": 20, "blocks": 3}


def relative(ours, theirs):
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def published_shape(tensor):
    """A convolution is one of images of height one here."""
    return list(tensor.squeeze(2).shape) if tensor.dim() == 4 else list(tensor.shape)


def pair(framing, n_fft=64, seed=0):
    """A small generator and its reference in double precision, equal weights, loud."""
    torch.manual_seed(seed)
    theirs = reference.Generator(6, 12, 20, 3, n_fft, 16, framing == "center").double()
    reference.awaken(theirs, torch.randn(2, 6, 20, dtype=torch.float64))
    ours = VocosGenerator(replace(SMALL, framing=framing), **SIZES, n_fft=n_fft).double()
    keys, state = vocos_keys(ours), theirs.state_dict()
    assert set(keys.values()) == set(state)
    own = ours.state_dict()
    ours.load_state_dict({key: state[keys[key]].reshape(own[key].shape) for key in own})
    return ours, theirs


def test_shapes_are_the_published_ones_through_the_name_map(shared):
    spec = json.loads((shared / "specs" / "vocos_mel_24khz_backbone_head.json").read_text())
    net = VocosGenerator(PUBLISHED)
    keys = vocos_keys(net)
    found = {keys[key]: published_shape(tensor) for key, tensor in net.state_dict().items()}
    window = {"head.istft.window": [1024]}
    assert found | window == spec["state_dict"]
    assert sum(p.numel() for p in net.parameters()) == spec["_meta"]["n_params_with_weight_norm"]


def test_published_parameter_count_and_law():
    net = VocosGenerator(PUBLISHED)
    assert sum(p.numel() for p in net.parameters()) == 13_531_650  # the published 13.5 M
    assert (net.n_mels, net.hop_length) == (100, 256)


@pytest.mark.parametrize("frames", [2, 3, 11])
@pytest.mark.parametrize("framing", ["center", "same"])
def test_it_equals_the_reference_with_gradients(framing, frames):
    ours, theirs = pair(framing, seed=frames)
    mel = torch.randn(2, 6, frames, dtype=torch.float64, requires_grad=True)
    twin = mel.detach().clone().requires_grad_()
    expected = theirs(twin)
    whole = ours(mel)
    assert whole.shape == (2, frames * 16)
    got = whole[:, : expected.shape[1]]
    assert expected.shape[1] == (frames - (framing == "center")) * 16
    assert float(expected.detach().square().mean().sqrt()) > 0.05
    assert relative(got, expected) < 1e-6  # our window is of single precision
    weights = torch.randn(got.shape, dtype=torch.float64)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert relative(mel.grad, twin.grad) < 1e-6
    grads, keys = dict(theirs.named_parameters()), vocos_keys(ours)
    for key, parameter in ours.named_parameters():
        assert relative(parameter.grad.reshape(grads[keys[key]].shape), grads[keys[key]].grad) < 1e-5, key


def test_the_last_hop_of_a_centred_one_is_made_of_the_frames_that_reach_it():
    """By hand, of the reference's spectrum: the overlapped frames over the overlapped squared windows."""
    ours, theirs = pair("center")
    mel = torch.randn(1, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        got = ours(mel)[0, -16:]
        frames = torch.fft.irfft(theirs.spectrum(mel)[0], n=64, dim=0)
        window = torch.hann_window(64).double()
        last = slice(4 * 16 + 32, 5 * 16 + 32)
        total, energy = torch.zeros(160, dtype=torch.float64), torch.zeros(160, dtype=torch.float64)
        for i in range(5):
            total[i * 16 : i * 16 + 64] += window * frames[:, i]
            energy[i * 16 : i * 16 + 64] += window**2
    torch.testing.assert_close(got, (total / energy)[last], rtol=0, atol=1e-7)


def test_its_stft_may_differ_from_the_mels():
    ours, theirs = pair("same", n_fft=32)
    mel = torch.randn(1, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        assert relative(ours(mel), theirs(mel)) < 1e-6


def test_polar():
    x = torch.tensor([[[0.5, 9.0, -1.0, 0.3, 7.0, -2.0]]], dtype=torch.float64)
    magnitude, phase = torch.tensor([0.5, 9.0, -1.0]).double().exp(), torch.tensor([0.3, 7.0, -2.0]).double()
    magnitude[1] = LOUDEST_BIN  # e^9 is beyond
    for polar, angle in ((Polar(), phase), (Polar(sine=3.0), 3 * phase.sin())):
        expected = magnitude * torch.exp(1j * angle)
        torch.testing.assert_close(polar(x)[0, 0], torch.cat([expected.real, expected.imag]))
    assert Polar()(x.to(torch.bfloat16)).dtype == torch.float32


def test_the_first_weights_are_the_published_draw():
    torch.manual_seed(0)
    net = VocosGenerator(PUBLISHED, channels=64, hidden_channels=64, blocks=4)
    for name, parameter in net.named_parameters():
        if name.endswith("scale"):
            assert bool((parameter == 0.25).all())
        elif parameter.dim() > 1:
            assert 0.018 < float(parameter.detach().std()) < 0.022, name
        elif name.endswith("bias"):
            assert not parameter.any()


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"kernel_size": 4}, "odd"),
        ({"blocks": 0}, "1 or more"),
        ({"hidden_channels": 0}, "1 or more"),
        ({"n_fft": 1000}, "n_fft 1000, hop_length 256"),
        ({"n_fft": 256}, "n_fft 256, hop_length 256"),
    ],
)
def test_what_cannot_be_is_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        VocosGenerator(PUBLISHED, **settings)


def test_centred_frames_of_an_odd_size_and_other_framings_are_refused():
    with pytest.raises(ValueError, match="and even; got n_fft 27"):
        ISTFT(27, 9, "center")
    with pytest.raises(ValueError, match="'same' or 'center', got 'centre'"):
        ISTFT(28, 7, "centre")
