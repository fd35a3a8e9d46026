"""Discriminators of stretches and of bands of a waveform, against plain-torch references."""

import pytest
import torch
from torch.nn import functional as F

from gansound.discriminators.multi_scale import HiFiGANMultiScaleDiscriminator, MultiScaleDiscriminator
from gansound.discriminators.random_window import RandomWindowDiscriminator
from gansound.discriminators.sub_band import SubBandDiscriminator
from gansound.mel import MelSpec
from gansound.nn.pqmf import PQMF
from gansound.recipe import build


def block(own, x, factor):
    y = F.conv1d(F.leaky_relu(x, 0.2), own.first.weight, own.first.bias, padding=1)
    y = F.conv1d(F.leaky_relu(y, 0.2), own.second.weight, own.second.bias, padding=2, dilation=2)
    y = y + F.conv1d(x, own.shortcut.weight, own.shortcut.bias)
    return F.avg_pool1d(y, factor) if factor > 1 else y


@pytest.mark.parametrize("fold", [1, 4])
def test_window_maps_are_those_of_the_paper(fold):
    net = RandomWindowDiscriminator(fold, channels=3, factors=(5, 3)).double()
    assert net.shortest_samples == 15 * fold
    audio = torch.randn(2, 120 * fold + fold - 1, dtype=torch.float64)
    (maps,) = net(audio)
    # Column t holds samples fold * t to fold * t + fold - 1, as channels.
    x = torch.stack([audio[:, first : 120 * fold : fold] for first in range(fold)], 1)
    for mine, own, factor in zip(maps, net.blocks, (1, 5, 3, 1), strict=False):
        x = block(own, x, factor)
        if own is net.blocks[-1]:
            x = F.leaky_relu(x, 0.2)
        torch.testing.assert_close(mine, x)
    torch.testing.assert_close(maps[-1], F.conv1d(x, net.last.weight, net.last.bias))
    assert [m.shape[1:] for m in maps] == [(3, 120), (6, 24), (12, 8), (12, 8), (1, 8)]


def test_windows_that_cannot_be_are_refused():
    for arguments in ({"fold": 0}, {"channels": 0}, {"factors": (5, 0)}):
        with pytest.raises(ValueError, match="got"):
            RandomWindowDiscriminator(**arguments)
    with pytest.raises(ValueError, match="30 or more samples"):
        RandomWindowDiscriminator(2)(torch.zeros(1, 29))


def test_each_band_is_judged_by_a_net_of_its_own():
    recipe = {
        "class_path": "gansound.discriminators.sub_band.SubBandDiscriminator",
        "init_args": {
            "network": {
                "class_path": "gansound.discriminators.multi_scale.MultiScaleDiscriminator",
                "init_args": {"scales": 2, "channels": 4, "layers": 1},
            },
        },
    }
    net = build(recipe, torch.nn.Module, "network", context={"mel": MelSpec.preset("hifigan")})
    assert net.shortest_samples == 8
    assert not net.judged_apart
    published = PQMF(4, taps=62, cutoff_ratio=0.142, beta=9.0)
    torch.testing.assert_close(net.filter_bank.filters, published.filters)
    audio = torch.randn(3, 400)
    with torch.no_grad():
        net.networks[1].scales[0].layers[0].bias += 1.0
        maps = net(audio)
        bands = net.filter_bank.analyze(audio[:, None])
        expected = [scale for number in range(4) for scale in net.networks[number](bands[:, number])]
    assert len(maps) == len(expected) == len(net.heads()) == 8
    for mine, theirs in zip(maps, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b)
    assert len({id(p) for p in net.parameters()}) == 4 * len(list(net.networks[0].parameters()))
    assert all(maps[i][-1].shape[0] == 3 for i in range(8))


def test_bands_are_judged_apart_where_their_net_is():
    """HiFi-GAN's by scales: its spectral norm takes a step of its own for the real and for the fake."""
    assert SubBandDiscriminator(HiFiGANMultiScaleDiscriminator(channels=16)).judged_apart


def test_bands_that_do_not_divide_the_hop_are_refused():
    network = MultiScaleDiscriminator(1, 4, 1)
    with pytest.raises(ValueError, match="hop_length 256, got 3 bands"):
        SubBandDiscriminator(network, bands=3, mel=MelSpec.preset("hifigan"))
    with pytest.raises(ValueError, match="8 or more samples"):
        SubBandDiscriminator(MultiScaleDiscriminator(2, 4, 1))(torch.zeros(1, 7))
    with pytest.raises(ValueError, match="Linear names no heads"):
        SubBandDiscriminator(torch.nn.Linear(1, 1)).heads()
