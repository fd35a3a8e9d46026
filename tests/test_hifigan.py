"""HiFi-GAN's generator against a plain-torch reference, the published shapes and the recipe's builder."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import leaky_relu

from gansound.generators import hifigan
from gansound.generators.hifigan import HiFiGANGenerator, hifigan_keys
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder, save_model_folder
from gansound.nn.fold import fold_parametrizations
from gansound.recipe import build
from tests.reference import hifigan as reference
from tests.reference.melgan import awaken, bring_over

VERSIONS = {"v1": {}, "v2": hifigan.V2, "v3": hifigan.V3}
PARAMETERS = {"v1": 13_926_017, "v2": 925_985, "v3": 1_462_273}  # the published 13.9 M, 0.93 M, 1.46 M
# Narrow ones of either block: ours, and the reference's arguments.
SMALL = {
    1: {
        "n_mels": 6,
        "channels": 16,
        "upsample_rates": (4, 2),
        "upsample_kernel_sizes": (8, 4),
        "residual_kernel_sizes": (3, 7),
        "residual_dilations": ((1, 3, 5), (1, 3)),
    },
    2: {
        "n_mels": 6,
        "channels": 16,
        "upsample_rates": (3, 2),
        "upsample_kernel_sizes": (7, 2),
        "residual_kernel_sizes": (3, 5, 7),
        "residual_dilations": ((1, 2), (2, 6), (3, 12)),
        "residual_block": 2,
    },
}
BLOCKS = {1: reference.ResBlock1, 2: reference.ResBlock2}


def relative(ours, theirs):
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def small_pair(block, seed=0):
    """A small generator and its reference in double precision, equal weights, awake."""
    torch.manual_seed(seed)
    *sizes, kernels, dilations = list(SMALL[block].values())[:6]
    theirs = reference.Generator(*sizes, kernels, dilations, BLOCKS[block]).double()
    awaken(theirs, torch.randn(2, 6, 20, dtype=torch.float64))
    ours = HiFiGANGenerator(**SMALL[block]).double()
    bring_over(theirs, ours, hifigan_keys(ours))
    return ours, theirs


@pytest.mark.parametrize("version", VERSIONS)
def test_shapes_are_the_published_ones_through_the_name_map(shared, version):
    spec = json.loads((shared / "specs" / f"hifigan_{version}_generator.json").read_text())
    net = HiFiGANGenerator(**VERSIONS[version])
    keys = hifigan_keys(net)
    assert {keys[key]: list(tensor.shape) for key, tensor in net.state_dict().items()} == spec["state_dict"]
    assert net.hop_length == spec["_meta"]["config"]["hop_size"]
    folded = sum(p.numel() for p in fold_parametrizations(net).parameters())
    assert folded == spec["_meta"]["n_params_weight_norm_folded"] == PARAMETERS[version]
    assert hifigan_keys(net).keys() == net.state_dict().keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_published_parameter_counts_and_law(version):
    net = fold_parametrizations(HiFiGANGenerator(**VERSIONS[version]))
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[version]
    assert (net.n_mels, net.hop_length) == (80, 256)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_equals_the_reference_on_its_weights(version):
    torch.manual_seed(1)
    theirs = {
        "v2": lambda: reference.Generator(width=128),
        "v3": lambda: reference.Generator(
            80, 256, (8, 8, 4), (16, 16, 8), (3, 5, 7), ((1, 2), (2, 6), (3, 12)), reference.ResBlock2
        ),
    }[version]()
    mel = torch.randn(2, 80, 5)
    awaken(theirs, mel)
    ours = HiFiGANGenerator(**VERSIONS[version])
    bring_over(theirs, ours, hifigan_keys(ours))
    with torch.no_grad():
        expected, got = theirs(mel).squeeze(1), ours(mel)
        deaf = theirs(mel.roll(1, dims=0)).squeeze(1)
    assert expected.square().mean().sqrt() > 0.1
    assert expected.abs().max() < 0.99
    assert relative(deaf, expected) > 0.3  # the output hears the mel, not only the biases
    assert got.shape == (2, 5 * 256)
    assert relative(got, expected) <= 1e-5


@pytest.mark.parametrize("block", SMALL)
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_small_ones_equal_the_reference_with_gradients(block, frames):
    ours, theirs = small_pair(block, seed=frames)
    mel = torch.randn(2, 6, frames, dtype=torch.float64, requires_grad=True)
    twin = mel.detach().clone().requires_grad_()
    got, expected = ours(mel), theirs(twin).squeeze(1)
    assert got.shape == (2, frames * ours.hop_length)
    assert relative(got, expected) < 1e-12
    weights = torch.randn(got.shape, dtype=torch.float64)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert relative(mel.grad, twin.grad) < 1e-11
    grads = dict(theirs.named_parameters())
    keys = hifigan_keys(ours)
    for name, parameter in ours.named_parameters():
        assert relative(parameter.grad, grads[keys[name]].grad) < 1e-9, name


class WrongBlock(reference.ResBlock1):
    """The block with one fault."""

    fault = ""

    def forward(self, x):
        slope = 0.2 if self.fault == "slope" else 0.1
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = plain(leaky_relu(dilated(leaky_relu(x, slope)), 0.1))
            x = y if self.fault == "skip" else x + y
        return x


@pytest.mark.parametrize("fault", ["slope", "skip", "sum", "last slope", "dilation"])
def test_the_comparison_sees_a_fault(fault, monkeypatch):
    """What the test above would catch: the reference, changed in one detail, is far from itself."""
    _, theirs = small_pair(1)
    wrong = copy.deepcopy(theirs)
    for module in wrong.modules():
        if isinstance(module, reference.ResBlock1):
            module.__class__ = type("_", (WrongBlock,), {"fault": fault})
            if fault == "dilation":
                module.convs2[0].settings |= {
                    "dilation": 2,
                    "padding": module.convs2[0].settings["padding"] * 2,
                }
    mel = torch.randn(2, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(mel)
        if fault == "sum":
            monkeypatch.setattr(torch, "stack", lambda seen: sum(seen)[None])
        if fault == "last slope":
            monkeypatch.setattr(reference, "leaky_relu", lambda x, slope: leaky_relu(x, max(slope, 0.1)))
        assert relative(wrong(mel), expected) > 1e-2


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rate, kernel", [(2, 2), (2, 3), (3, 6), (5, 8)])
def test_samples_are_frames_times_hop_for_any_overlap(rate, kernel, causal):
    net = HiFiGANGenerator(4, 4, (rate, 2), (kernel, 4), (3,), ((1,),), causal=causal)
    for frames in (1, 2, 7):
        assert net(torch.randn(2, 4, frames)).shape == (2, frames * rate * 2)


def test_a_recipe_and_a_model_folder_build_it(tmp_path):
    as_yaml = {name: _lists(value) for name, value in SMALL[2].items()} | {
        "n_mels": 80, "upsample_rates": [16, 16], "upsample_kernel_sizes": [32, 32],
    }  # fmt: skip
    config = {"class_path": "gansound.generators.hifigan.HiFiGANGenerator", "init_args": as_yaml}
    torch.manual_seed(0)
    net = build(config, nn.Module, "generator")
    folder = save_model_folder(tmp_path / "model", net, MelSpec.preset("hifigan"), config=config)
    again = load_model_folder(folder).generator
    mel = torch.randn(1, 80, 4)
    with torch.no_grad():
        torch.testing.assert_close(again(mel), net(mel), rtol=1e-5, atol=1e-6)


def _lists(value):
    return [_lists(one) for one in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 24},
        {"channels": 8},
        {"n_mels": 0},
        {"upsample_rates": ()},
        {"upsample_rates": (8, 8, 4)},
        {"upsample_rates": (8, 8, 2, 1)},
        {"upsample_kernel_sizes": (16, 16, 4, 1)},
        {"residual_kernel_sizes": (3, 7)},
        {"residual_kernel_sizes": (3, 7, 8)},
        {"residual_kernel_sizes": (), "residual_dilations": ()},
        {"residual_dilations": ((1,), (1,), (0,))},
        {"residual_block": 3},
    ],
)
def test_a_generator_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        HiFiGANGenerator(**arguments)
