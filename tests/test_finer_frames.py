"""Two frames of one, in short: interpolated before anything is learnt, sharper after."""

import numpy as np
import pytest
import torch

from gansound.nn.finer_frames import FinerFrames

BINS = 5


def amplitudes(frames, seed=0):
    torch.manual_seed(seed)
    made = torch.randn(2, frames, BINS, dtype=torch.float64).exp()
    made[..., 2] = 0.0  # of which nothing is known
    return made


def test_untrained_it_interpolates_logarithms_a_quarter_of_a_frame_before_and_behind():
    given = amplitudes(9)
    finer = FinerFrames(BINS, 4).double()(given)
    places = (np.arange(18) + 0.5) / 2 - 0.5
    known = [0, 1, 3, 4]
    for item in range(2):
        for at in known:
            logs = np.interp(places, np.arange(9), given[item, :, at].log().numpy())
            np.testing.assert_allclose(finer[item, :, at].log().detach().numpy(), logs, atol=1e-12)
    assert finer[..., 2].abs().max() == 0


def test_what_is_learnt_is_added_to_the_logarithms_of_either_frame():
    finer = FinerFrames(BINS, 4).double()
    plain = finer(amplitudes(6))
    with torch.no_grad():
        finer.sharper[-1].bias.copy_(torch.arange(2.0 * BINS) / 10)
    ratio = (finer(amplitudes(6)) / plain).log()[..., [0, 1, 3, 4]]
    expected = torch.arange(2.0 * BINS).unflatten(0, (2, BINS))[:, [0, 1, 3, 4]] / 10
    torch.testing.assert_close(ratio, expected.double().repeat(6, 1).expand(2, -1, -1))


def test_where_frames_are_enough_it_hands_them_on_and_does_not_learn():
    enough = FinerFrames(BINS, 4, needed=False)
    given = amplitudes(3).float()
    assert enough(given) is given
    assert not any(parameter.requires_grad for parameter in enough.parameters())
    needed = enough.where(True)
    assert needed(given).shape == (2, 6, BINS)
    assert enough(given) is given
    assert next(needed.parameters()) is next(enough.parameters())


def test_it_learns_what_an_interpolation_lacks():
    torch.manual_seed(1)
    finer = FinerFrames(BINS, 16)
    assert all(parameter.requires_grad for parameter in finer.parameters())
    optimizer = torch.optim.Adam(finer.parameters(), 1e-2)

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        fine = (3.0 * (torch.rand(16, 24, 1, generator=generator) > 0.8)).exp().expand(-1, -1, BINS)  # bursts
        coarse = fine.unflatten(1, (12, 2)).mean(2)  # blurred
        coarse = torch.nn.functional.avg_pool1d(coarse.transpose(1, 2), 3, 1, 1).transpose(1, 2)
        return (finer(coarse).log() - fine.log()).abs().mean()

    before = loss(1000).item()
    for step in range(60):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert loss(1000).item() < 0.9 * before


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_stays_silence(level):
    finer = FinerFrames(BINS, 4)(torch.full((1, 4, BINS), level))
    assert finer.max() <= level * (1 + 1e-5)
