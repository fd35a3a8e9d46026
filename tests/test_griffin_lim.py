"""Steps of Griffin-Lim as a layer, against torch's own STFT and inverse."""

import math

import pytest
import torch

from gansound.generators.universal import UniversalGenerator
from gansound.mel import MelSpec
from gansound.nn import griffin_lim
from gansound.nn.frame_layers import MadeGriffinLimStep
from gansound.nn.griffin_lim import CONTRADICTION, GriffinLim
from gansound.nn.streaming import Cursor


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(frames: int, n_fft: int = 64) -> torch.Tensor:
    """Of no sound: each frame says something else."""
    drawn = noise(2, frames, n_fft + 2)
    drawn[..., n_fft // 2 + 1] = 0  # what a real frame can't have
    if n_fft % 2 == 0:
        drawn[..., n_fft + 1] = 0
    return drawn


def layer(steps: int = 1, look_ahead: int = 1, n_fft: int = 64, hop: int = 16) -> GriffinLim:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return GriffinLim(n_fft, hop, steps, look_ahead)
    finally:
        torch.set_default_dtype(default)


def as_complex(x: torch.Tensor) -> torch.Tensor:
    return torch.complex(*x.chunk(2, 2))


def near(given: torch.Tensor, n_fft: int, hop: int, before: int, after: int) -> torch.Tensor:
    """There and back again, of frame by frame: the others' samples added where they overlap it, through the window."""
    window = torch.hann_window(n_fft, dtype=torch.float64)
    power = window.square().unflatten(0, (-1, hop)).sum(0).repeat(n_fft // hop)
    frames = torch.fft.irfft(as_complex(given), n=n_fft) * window
    count = frames.shape[1]
    made = torch.zeros_like(frames)
    for frame in range(count):
        for other in range(max(frame - before, 0), min(frame + after, count - 1) + 1):
            shift = (other - frame) * hop
            into = slice(max(shift, 0), min(n_fft + shift, n_fft))
            out = slice(max(-shift, 0), min(n_fft - shift, n_fft))
            made[:, frame, into] += frames[:, other, out]
    return torch.fft.rfft(made * window / power)


@pytest.mark.parametrize("n_fft, hop", [(64, 16), (64, 8), (64, 32), (60, 20), (96, 12), (48, 16), (32, 16)])
@pytest.mark.parametrize("ahead", [0, 1])
def test_with_every_bin_in_reach_it_is_there_and_back_again(monkeypatch, n_fft, hop, ahead):
    """With as many taps as fit into the bins beside it, all of a window's leakage but what is above half of it."""
    reach = n_fft // hop * -(-8 // (n_fft // hop))
    monkeypatch.setattr(griffin_lim, "REACH_BINS", reach)
    given = spectrum(6, n_fft)
    net = layer(1, ahead, n_fft, hop)
    expected = near(given, n_fft, hop, before=1, after=ahead)
    wanted, left = as_complex(given).abs(), expected.abs()
    expected = wanted * expected / (left.square() + (CONTRADICTION * wanted).square()).sqrt()
    found = as_complex(net(given))
    # What is farther away than the reach leaks in less than 1 in 100, but where hardly a frame overlaps.
    assert (found - expected).abs().square().mean() < 1e-3 * expected.abs().square().mean()


def test_taps_are_the_spectrum_of_the_windows_product():
    window = torch.hann_window(64, dtype=torch.float64)
    step = layer(1, 1).steps[0]
    own = torch.fft.fft(window.square() / 1.5) / 64  # four windows a hop: their power is 1.5 everywhere
    torch.testing.assert_close(step.taps[1, 2:].detach(), own[:3].abs(), atol=1e-12, rtol=0)
    beside = torch.fft.fft(torch.cat([torch.zeros(16), window[16:] * window[:-16] / 1.5]), n=64) / 64
    torch.testing.assert_close(step.taps[2, 2:].detach().abs(), beside[:3].abs(), atol=1e-12, rtol=0)
    torch.testing.assert_close(step.taps[0], step.taps[2], atol=1e-12, rtol=0)
    assert bool((step.taps > 0).all())


def test_the_spectrum_of_a_sound_stays_nearly_as_it_is_and_of_no_sound_comes_nearer_to_one():
    sound = torch.sin(2 * math.pi * 0.1013 * torch.arange(64 * 10, dtype=torch.float64))[None]
    window = torch.hann_window(64, dtype=torch.float64)
    own = torch.view_as_real(torch.stft(sound, 64, 16, window=window, center=False, return_complex=True))
    own = own.permute(0, 2, 3, 1).flatten(2)
    inside = slice(3, -3)
    expected = own[:, inside] / (1 + CONTRADICTION**2) ** 0.5
    assert (layer()(own)[:, inside] - expected).norm() < 0.02 * expected.norm()

    def inconsistency(x: torch.Tensor) -> float:
        form = {"n_fft": 64, "hop_length": 16, "window": window, "center": True}
        target = as_complex(x).transpose(1, 2)
        back = torch.stft(torch.istft(target, **form), **form, return_complex=True)
        return float(((back - target)[..., 4:-4].norm() / target[..., 4:-4].norm()).detach())

    given = spectrum(40)
    shares = [inconsistency(layer(steps, steps)(given) if steps else given) for steps in (0, 1, 3)]
    assert shares[0] > 1.2 * shares[1] > 1.3 * shares[2]


def test_steps_look_ahead_by_a_frame_each_the_last_ones_if_not_all():
    given = spectrum(12)
    for steps, look_ahead in ((3, 3), (3, 1), (2, 0)):
        net = layer(steps, look_ahead)
        assert [step.ahead for step in net.steps] == [0] * (steps - look_ahead) + [1] * look_ahead
        cursor = Cursor(None, [])
        net.stream(given, cursor)
        assert (cursor.delay, cursor.lookback) == (look_ahead, steps)
        made = net(given)
        later = given.clone()
        later[:, 8:] += 1
        changed = (net(later) - made).abs().amax((0, 2)) > 0
        assert changed.tolist() == [False] * (8 - look_ahead) + [True] * (4 + look_ahead)
        earlier = given.clone()
        earlier[:, :2] += 1
        changed = (net(earlier) - made).abs().amax((0, 2)) > 0
        assert changed.tolist() == [True] * (2 + steps) + [False] * (10 - steps)


def test_taps_are_learnt():
    net = layer(2, 1)
    net(spectrum(6)).square().sum().backward()
    for step in net.steps:
        assert bool((step.taps.grad.abs() > 0).all())
    torch.nn.init.normal_(net.steps[0].taps, std=0.3)
    fixed = layer(2, 1)
    fixed.steps[0], fixed.steps[1] = MadeGriffinLimStep(net.steps[0]), MadeGriffinLimStep(net.steps[1])
    given = spectrum(6)
    torch.testing.assert_close(fixed.stream(given, Cursor(None, []))[:, 2:], net(given)[:, 1:-1])


def test_rounding_grows_by_no_more_than_the_share_of_contradiction_allows():
    given = spectrum(20)
    bent = given * (1 + 1e-7 * noise(*given.shape, seed=1))
    net = layer()
    change = (net(bent) - net(given)).abs().max()
    assert 0 < change < 1e-7 * given.abs().max() * 4 / CONTRADICTION
    silence = torch.zeros_like(given)
    assert net(silence).abs().max() == 0
    silence.requires_grad_()
    net(silence).sum().backward()
    assert bool(silence.grad.isfinite().all())


def test_sizes_that_do_not_overlap_evenly_and_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="n_fft must be a multiple of hop_length"):
        GriffinLim(64, 24, 1, 1)
    mel = MelSpec.preset("hifigan")
    with pytest.raises(ValueError, match="griffin_lim must be 0 or more steps, got -1"):
        UniversalGenerator(mel, griffin_lim=-1)
    for arguments in (
        {"griffin_lim": 2, "look_ahead": 1},
        {"griffin_lim": 2, "look_ahead": 3, "causal": True},
    ):
        with pytest.raises(ValueError, match=r"look_ahead must be 0 to griffin_lim of a causal net"):
            UniversalGenerator(mel, **arguments)
