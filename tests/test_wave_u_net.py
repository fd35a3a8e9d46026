"""The Wave-U-Net discriminator against a plain-torch reference of the paper's figures 2 and 3."""

import pytest
import torch
from torch.nn import functional as F

from gansound.discriminators.wave_u_net import WaveUNetDiscriminator, global_norm


def norm(x):
    return x / (x.square().mean((1, 2), keepdim=True) + 1e-8).sqrt()


def down(block, x):
    pooled, active = F.avg_pool1d(x, 3), F.leaky_relu(x, 0.1)
    skip = torch.cat([F.conv1d(pooled, block.shortcut.weight, block.shortcut.bias), pooled], 1)
    inner = F.conv1d(F.pad(active, (1, 2)), block.strided.weight, block.strided.bias, stride=3)
    inner = inner + F.avg_pool1d(active, 3).repeat(1, inner.shape[1] // x.shape[1], 1)
    inner = F.conv1d(F.leaky_relu(inner, 0.1), block.plain.weight, block.plain.bias, padding=2)
    return norm(skip + 0.4 * inner)


def up(block, x):
    active = F.leaky_relu(x, 0.1)
    skip = F.conv1d(x, block.shortcut.weight, block.shortcut.bias).repeat_interleave(3, 2)
    inner = F.conv_transpose1d(active, block.strided.weight, block.strided.bias, stride=3)
    inner = inner[..., 1 : 1 + 3 * x.shape[2]]
    inner = inner + active.repeat_interleave(3, 2)[:, : inner.shape[1]]
    inner = F.conv1d(F.leaky_relu(inner, 0.1), block.plain.weight, block.plain.bias, padding=2)
    return norm(skip + 0.4 * inner)


@pytest.mark.parametrize("samples", [27, 100])
def test_maps_are_those_of_the_figures(samples):
    net = WaveUNetDiscriminator(channels=4, levels=3).double()
    audio = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    twin = audio.detach().clone().requires_grad_()
    (maps,) = net(audio)
    x = F.pad(twin, (0, -samples % 27)).unsqueeze(1)
    expected = []
    for block in net.down:
        x = down(block, x)
        expected.append(x)
    one, two, _ = expected
    for block, beside in zip(net.up, (None, two, one), strict=True):
        x = up(block, x if beside is None else torch.cat([x, beside], 1))
        expected.append(x)
    expected.append(F.conv1d(x, net.last.weight, net.last.bias, padding=2)[..., :samples])
    assert [m.shape[1] for m in maps] == [4, 8, 16, 8, 4, 4, 1]
    assert maps[-1].shape == (2, 1, samples)
    for mine, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    sum(m.sin().sum() for m in maps).backward()
    sum(m.sin().sum() for m in expected).backward()
    torch.testing.assert_close(audio.grad, twin.grad)


def test_it_is_a_fourteenth_of_hifigans_discriminators():
    parameters = sum(p.numel() for p in WaveUNetDiscriminator().parameters())
    hifigans = 41_105_770 + 29_618_821
    assert hifigans / parameters == pytest.approx(14.5, abs=0.1)  # the paper's figure


def test_features_of_each_item_have_mean_square_one_whatever_the_others():
    x = torch.tensor([0.001, 1.0, 300.0]).view(3, 1, 1) * torch.randn(3, 5, 7)
    made = global_norm(x)
    torch.testing.assert_close(made.square().mean((1, 2)), torch.ones(3), rtol=0.02, atol=0)
    torch.testing.assert_close(made[1], global_norm(x[1:2])[0])
    assert global_norm(x.bfloat16()).dtype == torch.bfloat16


def test_before_anything_is_learnt_it_is_undecided():
    """Features of mean square 1 through 160 weights of 0.01 each: logits of a standard deviation of 0.13."""
    torch.manual_seed(0)
    net = WaveUNetDiscriminator()
    assert net.last.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert net(torch.randn(4, 2000))[0][-1].std() < 0.2


@pytest.mark.parametrize("level", [0.0, 1e-7, 1e-5])
def test_before_anything_is_learnt_silence_has_a_gradient_as_sound_has(level):
    net = WaveUNetDiscriminator(channels=4)
    audio = 0.1 * torch.randn(2, 8192)
    lengths = []
    for audio[1] in (0.1 * torch.randn(8192), level * torch.randn(8192)):
        net.zero_grad()
        (net(audio)[0][-1] - 1).square().mean().backward()
        lengths.append(torch.nn.utils.get_total_norm([p.grad for p in net.parameters()]).item())
    assert 0 < lengths[1] < 3 * lengths[0]


def test_what_it_cannot_judge_or_be_is_refused():
    net = WaveUNetDiscriminator(channels=2, levels=2)
    assert net.shortest_samples == 9
    net(torch.zeros(1, 9))
    for shape in ((1, 8), (1, 1, 90), (90,)):
        with pytest.raises(ValueError, match="9 or more samples"):
            net(torch.zeros(shape))
    for arguments in ({"channels": 1}, {"levels": 0}):
        with pytest.raises(ValueError, match="got"):
            WaveUNetDiscriminator(**arguments)
