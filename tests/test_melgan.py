"""MelGAN's two nets and their layers against a plain-torch reference, numpy and the published shapes."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gansound.discriminators import multi_scale
from gansound.discriminators.multi_scale import MultiScaleDiscriminator
from gansound.generators import melgan
from gansound.generators.melgan import MelGANGenerator
from gansound.losses.adversarial import hinge_discriminator, hinge_generator
from gansound.losses.feature_matching import feature_matching
from gansound.nn.conv import Conv1d, TransposedConv1d, reflect_pad
from gansound.nn.fold import fold_parametrizations
from tests.reference import melgan as reference


def relative(ours, theirs):
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def small_pair(seed=0, ratios=(3, 2)):
    """A small generator and its reference in double precision, equal weights, awake."""
    torch.manual_seed(seed)
    theirs = reference.Generator(bands=6, ngf=4, ratios=ratios, residuals=3).double()
    reference.awaken(theirs, torch.randn(2, 6, 20, dtype=torch.float64))
    ours = MelGANGenerator(6, 4 * 2 ** len(ratios), ratios).double()
    reference.bring_over(theirs, ours, melgan.melgan_neurips_keys(ours))
    return ours, theirs


def small_discriminators(seed=0, scales=3):
    torch.manual_seed(seed)
    theirs = reference.Discriminator(num_d=scales, ndf=8, n_layers=2, factor=4).double()
    ours = MultiScaleDiscriminator(scales=scales, channels=8, layers=2).double()
    reference.bring_over(theirs, ours, multi_scale.melgan_neurips_keys(ours))
    return ours, theirs


@pytest.fixture(scope="module")
def paper():
    """The reference generator at the paper's size, awake, and a mel to feed it."""
    torch.manual_seed(1)
    net = reference.Generator()
    mel = torch.randn(2, 80, 6)
    reference.awaken(net, mel)
    return net, mel


# --- the published definition


def test_shapes_are_the_published_ones_through_the_name_map(shared):
    for net, keys, name in (
        (MelGANGenerator(), melgan.melgan_neurips_keys, "generator"),
        (MultiScaleDiscriminator(), multi_scale.melgan_neurips_keys, "discriminator"),
    ):
        spec = json.loads((shared / "specs" / f"melgan_neurips_{name}.json").read_text())
        assert {keys(net)[key]: list(tensor.shape) for key, tensor in net.state_dict().items()} == spec[
            "state_dict"
        ]
        assert (
            sum(p.numel() for p in fold_parametrizations(net).parameters())
            == (spec["_meta"]["n_params_weight_norm_folded"])
        )


def test_published_parameter_counts_and_law():
    generator = fold_parametrizations(MelGANGenerator())
    assert sum(p.numel() for p in generator.parameters()) == 4_260_257
    assert sum(p.numel() for p in MultiScaleDiscriminator().parameters()) == 16_924_086
    assert (generator.n_mels, generator.hop_length) == (80, 256)


def test_equals_the_reference_on_its_weights(paper):
    theirs, mel = paper
    ours = MelGANGenerator()
    reference.bring_over(theirs, ours, melgan.melgan_neurips_keys(ours))
    with torch.no_grad():
        expected, got = theirs(mel).squeeze(1), ours(mel)
        deaf = theirs(mel.roll(1, dims=0)).squeeze(1)
    assert expected.square().mean().sqrt() > 0.1
    assert expected.abs().max() < 0.99
    assert relative(deaf, expected) > 0.5  # the output hears the mel, not only the biases
    assert got.shape == (2, 6 * 256)
    assert relative(got, expected) <= 1e-5


@pytest.mark.parametrize("fault", ["slope", "padding", "dilation", "shift"])
def test_the_comparison_sees_a_fault(paper, fault):
    """What the test above would catch: the reference, changed in one detail, is far from itself."""
    theirs, mel = paper
    wrong = copy.deepcopy(theirs)
    for module in wrong.modules():
        if fault == "slope" and isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1
        if isinstance(module, nn.Sequential):
            for index, layer in enumerate(module):
                if fault == "padding" and isinstance(layer, nn.ReflectionPad1d):
                    module[index] = nn.ConstantPad1d(layer.padding, 0.0)
        if isinstance(module, reference.ResnetBlock) and fault == "dilation":
            module.block[1] = nn.ReflectionPad1d(1)
            module.block[2].settings["dilation"] = 1
        if fault == "shift" and isinstance(module, reference.WNConv) and module.settings["stride"] == 2:
            module.settings |= {"padding": 2, "output_padding": 2 - 1}
    with torch.no_grad():
        expected, got = theirs(mel), wrong(mel)
    length = min(expected.shape[-1], got.shape[-1])
    assert relative(got[..., :length], expected[..., :length]) > 1e-2


def test_gradients_equal_the_reference():
    ours, theirs = small_pair(seed=2)
    mel = torch.randn(2, 6, 9, dtype=torch.float64, requires_grad=True)
    twin = mel.detach().clone().requires_grad_()
    weights = torch.randn(2, 9 * 6, dtype=torch.float64)
    (ours(mel) * weights).sum().backward()
    (theirs(twin).squeeze(1) * weights).sum().backward()
    assert relative(mel.grad, twin.grad) < 1e-12
    expected = dict(theirs.named_parameters())
    keys = melgan.melgan_neurips_keys(ours)
    for name, parameter in ours.named_parameters():
        assert expected[keys[name]].grad.norm() > 0
        assert relative(parameter.grad, expected[keys[name]].grad) < 1e-10, name


@settings(max_examples=15)
@given(
    ratios=st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple),
    frames=st.integers(10, 16),
    seed=st.integers(0, 99),
)
def test_any_rates_equal_the_reference(ratios, frames, seed):
    ours, theirs = small_pair(seed, ratios)
    mel = torch.randn(1, 6, frames, dtype=torch.float64)
    with torch.no_grad():
        got = ours(mel)
        assert got.shape == (1, frames * math.prod(ratios))
        assert relative(got, theirs(mel).squeeze(1)) < 1e-12


@settings(max_examples=15)
@given(samples=st.integers(64, 400), seed=st.integers(0, 99), scales=st.integers(1, 3))
def test_discriminator_maps_equal_the_reference(samples, seed, scales):
    ours, theirs = small_discriminators(seed, scales)
    audio = torch.randn(2, samples, dtype=torch.float64)
    with torch.no_grad():
        got, expected = ours(audio), theirs(audio.unsqueeze(1))
    assert [len(maps) for maps in got] == [5] * scales
    for ours_maps, theirs_maps in zip(got, expected, strict=True):
        for a, b in zip(ours_maps, theirs_maps, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_discriminator_of_paper_size_equals_the_reference_with_gradients():
    torch.manual_seed(3)
    theirs, ours = reference.Discriminator(), MultiScaleDiscriminator()
    keys = multi_scale.melgan_neurips_keys(ours)
    reference.bring_over(theirs, ours, keys)
    audio = torch.randn(1, 4096) * 0.3
    got, expected = ours(audio), theirs(audio.unsqueeze(1))
    for a, b in zip([m for maps in got for m in maps], [m for maps in expected for m in maps], strict=True):
        assert relative(a, b) < 1e-5
    sum(m.square().mean().sqrt() for maps in got for m in maps).backward()
    sum(m.square().mean().sqrt() for maps in expected for m in maps).backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    total = torch.cat([g.flatten() for g in grads.values()]).norm()
    difference = torch.cat([(p.grad - grads[keys[n]]).flatten() for n, p in ours.named_parameters()]).norm()
    assert total > 0.1
    assert difference < 1e-5 * total


def test_ten_steps_of_our_losses_equal_the_plain_loop():
    generator, plain_generator = small_pair(seed=4)
    discriminator, plain_discriminator = small_discriminators(seed=4)
    start = copy.deepcopy(generator.state_dict())
    batches = [
        (torch.randn(2, 6, 40, dtype=torch.float64), torch.randn(2, 240, dtype=torch.float64) * 0.3)
        for _ in range(10)
    ]
    expected_g, expected_d, losses = reference.plain_loop(batches, plain_generator, plain_discriminator)

    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    for mel, audio in batches:
        fake = generator(mel)
        real_maps = discriminator(audio)
        fake_logits = [maps[-1] for maps in discriminator(fake.detach())]
        optimizer_d.zero_grad()
        hinge_discriminator([maps[-1] for maps in real_maps], fake_logits).backward()
        optimizer_d.step()
        fake_maps = discriminator(fake)
        optimizer_g.zero_grad()
        (hinge_generator([m[-1] for m in fake_maps]) + 10 * feature_matching(real_maps, fake_maps)).backward()
        optimizer_g.step()

    assert len(losses) == 10
    for net, expected, keys in (
        (generator, expected_g, melgan.melgan_neurips_keys(generator)),
        (discriminator, expected_d, multi_scale.melgan_neurips_keys(discriminator)),
    ):
        for name, tensor in net.state_dict().items():
            torch.testing.assert_close(tensor, expected[keys[name]], rtol=1e-8, atol=1e-10)
    moved = max(float((generator.state_dict()[k] - start[k]).abs().max()) for k in start)
    assert 5e-4 < moved < 5e-3  # ten steps of Adam at 1e-4 were really taken


# --- the laws of the layers


@given(length=st.integers(1, 12), left=st.integers(0, 30), right=st.integers(0, 30))
def test_reflection_is_numpys_however_short(length, left, right):
    x = torch.arange(2 * 3 * length, dtype=torch.float64).reshape(2, 3, length)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (left, right)), mode="reflect")
    np.testing.assert_array_equal(reflect_pad(x, left, right).numpy(), expected)


@given(
    length=st.integers(1, 40),
    half=st.integers(0, 4),
    dilation=st.integers(1, 5),
    stride=st.integers(1, 4),
    groups=st.sampled_from([1, 2]),
    mode=st.sampled_from(["zeros", "reflect"]),
)
def test_convolution_is_a_sum_over_a_padded_signal(length, half, dilation, stride, groups, mode):
    torch.manual_seed(length)
    kernel = 2 * half + 1
    layer = Conv1d(4, 6, kernel, stride=stride, dilation=dilation, groups=groups, padding_mode=mode).double()
    x = torch.randn(2, 4, length, dtype=torch.float64)
    side = half * dilation
    padded = np.pad(
        x.numpy(), ((0, 0), (0, 0), (side, side)), mode="reflect" if mode == "reflect" else "constant"
    )
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = np.zeros((2, 6, -(-length // stride)))
    for column in range(expected.shape[2]):
        window = padded[:, :, column * stride : column * stride + 2 * side + 1 : dilation]
        for group in range(groups):
            ins = slice(4 // groups * group, 4 // groups * (group + 1))
            outs = slice(6 // groups * group, 6 // groups * (group + 1))
            expected[:, outs, column] = np.einsum("bik,oik->bo", window[:, ins], weight[outs]) + bias[outs]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


@given(length=st.integers(1, 9), rate=st.integers(2, 6), more=st.integers(0, 9))
def test_transposed_convolution_overlaps_and_adds(length, rate, more):
    torch.manual_seed(rate)
    layer = TransposedConv1d(3, 2, rate=rate, kernel_size=rate + more).double()
    x = torch.randn(1, 3, length, dtype=torch.float64)
    whole = np.zeros((2, length * rate + more + rate))
    for column in range(length):
        whole[:, column * rate : column * rate + rate + more] += np.einsum(
            "i,iok->ok", x[0, :, column].numpy(), layer.weight.detach().numpy()
        )
    cut = (more + 1) // 2
    expected = whole[:, cut : cut + length * rate] + layer.bias.detach().numpy()[:, None]
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


def test_folding_keeps_the_function_and_a_copy_is_independent():
    ours, _ = small_pair(seed=5)
    mel = torch.randn(1, 6, 7, dtype=torch.float64)
    folded = fold_parametrizations(copy.deepcopy(ours))
    with torch.no_grad():
        torch.testing.assert_close(folded(mel), ours(mel), rtol=1e-12, atol=1e-12)
        assert not [key for key in folded.state_dict() if "parametrizations" in key]
        for parameter in folded.parameters():
            parameter.zero_()
        assert ours(mel).abs().max() > 0.01
    assert set(melgan.melgan_neurips_keys(folded)) == set(folded.state_dict())


# --- utterances


class NumpyReflection(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, x):
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (self.side, self.side)), mode="reflect")
        return torch.from_numpy(padded)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_an_utterance_shorter_than_a_reflection_follows_numpys_rule(frames):
    ours, theirs = small_pair(seed=6)
    for module in list(theirs.modules()):
        if isinstance(module, nn.Sequential):
            for index, layer in enumerate(module):
                if isinstance(layer, nn.ReflectionPad1d):
                    module[index] = NumpyReflection(layer.padding[0])
    mel = torch.randn(2, 6, frames, dtype=torch.float64)
    with torch.no_grad():
        got, expected = ours(mel), theirs(mel).squeeze(1)
    assert got.shape == (2, frames * 6)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_an_item_does_not_depend_on_its_batch():
    ours, _ = small_pair(seed=7)
    mel = torch.randn(3, 6, 11, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(mel)[1:2], ours(mel[1:2]), rtol=1e-12, atol=1e-12)


def test_receptive_field_is_the_published_one():
    """REFERENCE, "Look-ahead": six frames each side, 1425 samples ahead. The width doesn't matter."""
    ours, _ = small_pair(8, ratios=(8, 8, 2, 2))
    mel = torch.randn(1, 6, 21, dtype=torch.float64)
    with torch.no_grad():
        before = ours(mel)
        mel[0, :, 10] += 1000  # the farthest sample hears it through seventeen small weights
        changed = (ours(mel) - before)[0].nonzero().flatten()
    first, last = int(changed.min()), int(changed.max())
    assert 10 * 256 - first == 1425
    assert (10 - first // 256, last // 256 - 10) == (6, 6)


# --- what a user can get wrong


@pytest.mark.parametrize(
    "shape, message",
    [
        ((80, 10), "80 bands.*got \\(80, 10\\)"),
        ((1, 100, 10), "80 bands.*got \\(1, 100, 10\\)"),
        ((1, 10, 80), "transposed"),
        ((1, 80, 0), "1 or more frames"),
    ],
)
def test_a_wrong_mel_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        MelGANGenerator(channels=16)(torch.zeros(shape))


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 24},
        {"channels": 8},
        {"upsample_rates": ()},
        {"upsample_rates": (8, 0)},
        {"upsample_rates": (8, 1)},
        {"residual_dilations": (1, -3)},
        {"n_mels": 0},
    ],
)
def test_a_generator_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        MelGANGenerator(**arguments)


def test_a_stage_without_residual_blocks_is_allowed():
    generator = MelGANGenerator(n_mels=3, channels=16, upsample_rates=(2,), residual_dilations=())
    assert generator(torch.zeros(1, 3, 5)).shape == (1, 10)
    assert set(melgan.melgan_neurips_keys(generator)) == set(generator.state_dict())


def test_discriminators_that_cannot_be_or_hear_nothing_are_refused():
    for arguments in ({"channels": 6}, {"max_channels": 100}, {"scales": 0}, {"downsampling": 0}):
        with pytest.raises(ValueError, match="got"):
            MultiScaleDiscriminator(**arguments)
    net = MultiScaleDiscriminator(channels=4, layers=1)
    assert len(net(torch.zeros(1, 4))) == 3
    for shape in ((1, 3), (1, 1, 8192), (8192,)):
        with pytest.raises(ValueError, match="4 or more samples"):
            net(torch.zeros(shape))


def test_layers_that_cannot_pad_are_refused():
    with pytest.raises(ValueError, match="zeros or reflect, got 'replicate'"):  # torch's own takes it
        Conv1d(4, 4, 3, padding_mode="replicate")
    with pytest.raises(ValueError, match="odd kernel_size"):
        Conv1d(1, 1, 4)
    with pytest.raises(ValueError, match="rate=4, kernel_size=3"):
        TransposedConv1d(1, 1, rate=4, kernel_size=3)
