"""Self-attention against the paper's formula in loops."""

import math

import pytest
import torch
from torch import Tensor

from gansound.discriminators.wavegan import WaveGANDiscriminator
from gansound.generators.wavegan import WaveGANGenerator
from gansound.nn.attention import SelfAttention

pytestmark = pytest.mark.usefixtures("one_thread")


def test_with_its_gate_closed_it_is_the_identity() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(8), torch.randn(2, 8, 10)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gate.grad.abs() > 0, "but it can open"


def by_loops(layer: SelfAttention, x: Tensor, window: int) -> Tensor:
    """SAGAN's equations 1 to 3 for one item `(C, N)`, keys and values the largest of each window."""
    positions = x.shape[1]

    def pooled(rows: Tensor) -> list[Tensor]:
        return [rows[:, i : i + window].max(dim=1).values for i in range(0, positions, window)]

    keys, values = pooled(layer.key.weight @ x), pooled(layer.value.weight @ x)
    y = x.clone()
    for j in range(positions):
        query = layer.query.weight @ x[:, j]
        weights = torch.tensor([math.exp(query @ key) for key in keys], dtype=x.dtype)
        attended = sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True))
        y[:, j] = x[:, j] + layer.gate * (layer.output.weight @ attended)
    return y


@pytest.mark.parametrize("positions, keys, window", [(10, 256, 1), (12, 6, 2), (13, 6, 3)])
def test_it_is_the_papers_formula(positions: int, keys: int, window: int) -> None:
    torch.manual_seed(positions)
    layer = SelfAttention(16, keys).double().requires_grad_(False)
    layer.gate.fill_(0.7)
    x = torch.randn(2, 16, positions, dtype=torch.float64)
    y = layer(x)
    for one, got in zip(x, y, strict=True):
        torch.testing.assert_close(got, by_loops(layer, one, window))
    torch.testing.assert_close(layer(x.unflatten(2, (-1, 1))).flatten(2), y)  # images too
    torch.testing.assert_close(layer.float()(x.float()).double(), y, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="8 channels and 1 key, got channels=4"):
        SelfAttention(4)


def test_scores_beyond_half_precision_are_none_that_is_not_a_number() -> None:
    """One key stands out, by more than fp16 holds."""
    layer = SelfAttention(8).requires_grad_(False)
    for linear in (layer.query, layer.key, layer.value):
        linear.weight.fill_(1.0)
    layer.gate.fill_(1.0)
    x = torch.ones(1, 8, 5)
    x[..., 3] = 50.0  # times itself, in sums of 8: 160000
    with torch.autocast("cpu", torch.float16):
        y = layer(x)
    torch.testing.assert_close(y, layer(x), rtol=1e-2, atol=0.0)


def test_it_differentiates_twice() -> None:
    torch.manual_seed(1)
    layer = SelfAttention(8, 3).double()
    layer.gate.data.fill_(0.5)
    x = torch.randn(1, 8, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)


def test_it_stands_where_it_is_asked_to() -> None:
    torch.manual_seed(2)
    net = WaveGANDiscriminator(4096, dim=4, attention=[2, 5]).eval()
    x = torch.randn(2, 1, 4096)
    before = [m.detach() for m in net(x)[0]]
    net.attention["2"].gate.data.fill_(1.0)
    after = net(x)[0]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True] + [False] * 5
    generator = WaveGANGenerator(4096, dim=4, attention=[3])
    assert generator.attention["3"].query.in_features == 8
    z = torch.randn(2, 100)
    still = generator(z)
    generator.attention["3"].gate.data.fill_(3.0)
    assert not torch.allclose(generator(z), still)
    for make, most in ((WaveGANGenerator, 4), (WaveGANDiscriminator, 5)):
        for wrong in ([0], [most + 1], [2, 2]):
            with pytest.raises(ValueError, match=rf"layers 1 to {most} once, got"):
                make(4096, dim=4, attention=wrong)
