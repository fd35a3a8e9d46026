"""Phase shuffle against a loop, and that a discriminator does it."""

import numpy as np
import pytest
import torch

from gansound.discriminators.wavegan import WaveGANDiscriminator
from gansound.nn.phase_shuffle import draw_shifts, phase_shuffle

pytestmark = pytest.mark.usefixtures("one_thread")


def shifted(x: np.ndarray, shift: int) -> np.ndarray:
    """As chrisdonahue/wavegan pads and slices: by the shift on the left, or by its opposite on the right."""
    padded = np.pad(x, ((0, 0), (max(shift, 0), max(-shift, 0))), mode="reflect")
    return padded[:, max(-shift, 0) :][:, : x.shape[1]]


@pytest.mark.parametrize("length", [3, 4, 7])
def test_each_item_moves_by_its_own_shift_and_its_end_is_mirrored(length: int) -> None:
    torch.manual_seed(length)
    x = torch.randn(5, 3, length, dtype=torch.float64, requires_grad=True)
    shifts = torch.tensor([-2, -1, 0, 1, 2])
    y = phase_shuffle(x, shifts)
    expected = np.stack([shifted(one, int(s)) for one, s in zip(x.detach().numpy(), shifts, strict=True)])
    np.testing.assert_array_equal(y.detach(), expected)
    assert torch.autograd.gradgradcheck(lambda x: phase_shuffle(x, shifts).tanh(), x)


def test_drawn_shifts_are_uniform() -> None:
    torch.manual_seed(0)
    counts = torch.bincount(draw_shifts(5000, 4, 2).flatten() + 2, minlength=5)
    assert len(counts) == 5
    assert ((counts - 4000).abs() < 5 * 57).all(), counts  # five standard deviations of a binomial


@pytest.mark.parametrize("samples, layers", [(4096, 5), (20480, 6)])
def test_the_discriminator_shuffles_after_each_of_its_first_four_layers(samples: int, layers: int) -> None:
    torch.manual_seed(1)
    net = WaveGANDiscriminator(samples, dim=2).eval()
    x = torch.randn(3, 1, samples)
    still = net(x)[0]
    assert len(still) == layers + 1
    assert net.shuffle_layers == 4
    for layer in range(4):
        shifts = torch.zeros(3, 4, dtype=torch.int64)
        shifts[1, layer] = 1
        moved = net(x, None, shifts)[0]
        for number, (a, b) in enumerate(zip(still, moved, strict=True)):
            assert torch.equal(a[0], b[0]), "another item's shift"
            assert torch.equal(a[1], b[1]) is (number <= layer), (number, layer)
        after = net.layers[layer + 1](torch.from_numpy(shifted(still[layer][1].detach().numpy(), 1))[None])
        torch.testing.assert_close(torch.nn.functional.leaky_relu(after, 0.2)[0], moved[layer + 1][1])


def test_training_draws_shifts_and_evaluation_does_not() -> None:
    torch.manual_seed(2)
    net = WaveGANDiscriminator(4096, dim=2)
    x = torch.randn(1, 1, 4096).expand(8, -1, -1)
    trained = net(x)[0][-1]
    assert trained.unique().numel() > 1, "each item its own shifts"
    torch.manual_seed(3)
    shifts = draw_shifts(8, 4, 2)
    torch.manual_seed(3)
    torch.testing.assert_close(net(x)[0][-1], net(x, None, shifts)[0][-1])
    assert torch.equal(net.eval()(x)[0][-1], net(x, None, torch.zeros_like(shifts))[0][-1])
    none = WaveGANDiscriminator(4096, dim=2, phase_shuffle=0)
    assert none.shuffle_layers == 0
    assert none(x)[0][-1].unique().numel() == 1
    with pytest.raises(ValueError, match=r"shape \(8, 4\), got \(8, 3\)"):
        net(x, None, shifts[:, :3])
    with pytest.raises(ValueError, match="less than the 4 samples"):
        WaveGANDiscriminator(1024, phase_shuffle=4)
