"""iSTFTNet against a plain-torch reference and the paper's size."""

import pytest
import torch

from gansound.generators.hifigan import hifigan_keys
from gansound.generators.istftnet import ISTFTNetGenerator
from gansound.nn import streaming
from gansound.nn.fold import fold_parametrizations
from gansound.nn.istft import MirroredLead
from tests.reference import istftnet as reference
from tests.reference.hifigan import ResBlock1, ResBlock2
from tests.reference.melgan import awaken, bring_over

SMALL = {
    "n_mels": 6,
    "channels": 16,
    "upsample_rates": (4, 2),
    "upsample_kernel_sizes": (8, 4),
    "residual_kernel_sizes": (3, 7),
    "residual_dilations": ((1, 3), (1,)),
}


def relative(ours, theirs):
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def test_published_parameter_count_and_law():
    """The paper's table 1: V1-C8C8I has 13.26 million."""
    with torch.device("meta"):
        net = fold_parametrizations(ISTFTNetGenerator())
    assert sum(p.numel() for p in net.parameters()) == 13_254_034
    assert (net.n_mels, net.hop_length) == (80, 256)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("n_fft, hop", [(16, 4), (12, 6)])
def test_it_equals_the_reference_with_gradients(n_fft, hop, block):
    torch.manual_seed(block)
    kind = ResBlock1 if block == 1 else ResBlock2
    theirs = reference.Generator(*SMALL.values(), kind, n_fft=n_fft, hop=hop).double()
    awaken(theirs, torch.randn(2, 6, 20, dtype=torch.float64))
    ours = ISTFTNetGenerator(**SMALL, residual_block=block, n_fft=n_fft, istft_hop_length=hop).double()
    bring_over(theirs, ours, hifigan_keys(ours))
    for frames in (1, 2, 9):
        mel = torch.randn(2, 6, frames, dtype=torch.float64, requires_grad=True)
        twin = mel.detach().clone().requires_grad_()
        got, expected = ours(mel), theirs(twin)
        assert got.shape == (2, frames * 8 * hop)
        assert float(expected.detach().square().mean().sqrt()) > 0.01
        assert relative(got, expected) < 1e-6  # our window is of single precision
        weights = torch.randn(got.shape, dtype=torch.float64)
        ours.zero_grad()
        theirs.zero_grad()
        (got * weights).sum().backward()
        (expected * weights).sum().backward()
        assert relative(mel.grad, twin.grad) < 1e-6
        grads, keys = dict(theirs.named_parameters()), hifigan_keys(ours)
        for key, parameter in ours.named_parameters():
            assert relative(parameter.grad, grads[keys[key]].grad) < 1e-5, key


@pytest.mark.parametrize("n_fft, hop", [(16, 4), (12, 6)])
def test_centred_it_equals_torchs_own_inverse(n_fft, hop):
    torch.manual_seed(0)
    theirs = reference.Generator(*SMALL.values(), n_fft=n_fft, hop=hop, centred=True, phase=3.0).double()
    awaken(theirs, torch.randn(2, 6, 20, dtype=torch.float64))
    ours = ISTFTNetGenerator(
        **SMALL, n_fft=n_fft, istft_hop_length=hop, framing="center", phase_range=3.0
    ).double()
    bring_over(theirs, ours, hifigan_keys(ours))
    for frames in (1, 2, 9):
        mel = torch.randn(2, 6, frames, dtype=torch.float64)
        with torch.no_grad():
            got, expected = ours(mel), theirs(mel)
        assert got.shape == (2, frames * 8 * hop)
        assert float(expected.square().mean().sqrt()) > 0.01
        assert relative(got, expected) < 1e-6


@pytest.mark.parametrize("columns, step", [(1, 1), (2, 1), (2, 4), (9, 1), (9, 4), (9, 20)])
def test_a_mirrored_lead_streams(columns, step):
    """One column more comes out than went in, and a single one repeats."""
    x = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(0))
    layer = MirroredLead()
    whole = layer(x)
    second = 1 if columns > 1 else 0
    torch.testing.assert_close(whole, torch.cat([x[..., second : second + 1], x], -1))
    state, out = streaming.init_state(layer, x[..., :1]), []
    for i in range(0, columns, step):
        y, state = streaming.step(layer, x[..., i : i + step], state)
        out.append(y)
    for _ in range(2):
        y, state = streaming.step(
            layer, torch.full((2, 3, 1), 9.0), streaming.finish(state) if _ == 0 else state
        )
        out.append(y)
    torch.testing.assert_close(torch.cat(out, -1)[..., 1 : columns + 2], whole)


@pytest.mark.parametrize("arguments", [{"n_fft": 18}, {"n_fft": 4}, {"upsample_rates": (8, 8, 2)}])
def test_a_generator_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        ISTFTNetGenerator(**arguments)
