"""The loss that compares how the envelopes of bands beat."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gansound.losses.modulation import EnvelopeModulation
from gansound.mel import MelSpec

RATE = 22050


def beating(
    depth: float, rate_hz: float = 107.7, tone_hz: float = 3000.0, delay: float = 0.0
) -> torch.Tensor:
    """A tone whose amplitude is 0.3 (1 + depth cos), `(1, RATE)`."""
    time = torch.arange(RATE, dtype=torch.float64) / RATE - delay
    envelope = 1 + depth * torch.cos(2 * math.pi * rate_hz * time)
    return (0.3 * envelope * torch.sin(2 * math.pi * tone_hz * (time + delay)))[None]


def test_a_beat_counts_by_half_its_depth_at_its_rate_alone():
    loss = EnvelopeModulation(bands_hz=(2000.0, 4000.0))
    rates = torch.arange(loss.frames // 2 + 1)[loss.slowest :] * RATE / (loss.hop_length * loss.frames)
    for depth in (0.2, 0.5):
        magnitude, level = loss._modulation(beating(depth))
        middle = magnitude[0, 0].mean(0)
        assert rates[middle.argmax()].item() == pytest.approx(107.7, abs=0.2)
        # The window of 5.8 ms blurs a beat of 108 Hz by a sixth.
        assert middle.max().item() == pytest.approx(5 / 6 * depth / 2, rel=0.05)
        assert middle[rates > 150].max().item() < 0.1 * depth
        # Parseval: the power of a frame's bins is that of its samples.
        height = 0.3 / 2 * (loss.n_fft * loss.envelope_window.square().sum().item()) ** 0.5
        assert level.mean().item() == pytest.approx(height, rel=0.05)


def test_it_is_the_definition_by_hand():
    """Frame by frame and band by band in numpy, with the sizes of 22,050 Hz that the docstring states."""
    rng = np.random.default_rng(0)
    edges, waves = (1000.0, 2000.0, 5000.0), 0.1 * rng.standard_normal((2, 3000))
    hann = [0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size) for size in (128, 64)]
    hz = np.arange(65) * RATE / 128

    def modulation(wave: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        frames = np.stack([wave[start : start + 128] for start in range(0, len(wave) - 127, 32)])
        power = np.abs(np.fft.rfft(frames * hann[0])) ** 2
        envelope = np.sqrt(power[:, (hz >= low) & (hz < high)].sum(1) + 1e-10)
        windows = np.stack([envelope[start : start + 64] for start in range(0, len(envelope) - 63, 16)])
        level = (windows * hann[1]).sum(1) / hann[1].sum()
        beats = np.fft.rfft((windows / level[:, None] - 1) * hann[1] / hann[1].sum())
        return np.sqrt(np.abs(beats[:, 6:]) ** 2 + 1e-8), level  # rates of 10.8 Hz, from 60 on

    parts = []
    for low, high in itertools.pairwise(edges):
        (made, _), (true, level) = (modulation(wave, low, high) for wave in waves)
        parts.append((np.abs(made - true), np.sqrt(level)))
    weight = np.stack([weight for _, weight in parts])
    weight /= weight.mean()
    expected = (weight[..., None] * np.stack([error for error, _ in parts])).mean()
    fake, real = torch.from_numpy(waves)[:, None]
    assert EnvelopeModulation(edges).double()(fake, real).item() == pytest.approx(expected, rel=1e-6)


def test_bursts_may_move_and_levels_may_change_but_depth_and_rate_may_not():
    loss = EnvelopeModulation()
    real = beating(0.6)
    deaf = loss(beating(0.0), real).item()
    assert loss(beating(0.6, delay=0.003), real).item() < 0.05 * deaf
    assert loss(0.3 * real, real).item() < 0.01 * deaf
    assert loss(beating(0.6, rate_hz=215.0), real).item() > deaf
    assert 0.3 * deaf < loss(beating(0.3), real).item() < 0.7 * deaf
    assert loss(real, real).item() == 0


def test_windows_count_by_the_root_of_the_real_level():
    loss = EnvelopeModulation(bands_hz=(2000.0, 4000.0))
    loud = torch.where(torch.arange(RATE) < RATE // 2, 1.0, 0.01)
    real = beating(0.6) * loud
    swapped = torch.where(torch.arange(RATE) < RATE // 2, beating(0.0), beating(0.6)) * loud
    faint = torch.where(torch.arange(RATE) < RATE // 2, beating(0.6), beating(0.0)) * loud
    assert loss(swapped, real).item() / loss(faint, real).item() == pytest.approx(10, rel=0.2)


def test_a_level_that_stays_weighs_one():
    loss = EnvelopeModulation(bands_hz=(2000.0, 4000.0))
    fake, real = beating(0.2), beating(0.6)
    (made, _), (true, _) = loss._modulation(fake), loss._modulation(real)
    assert loss(fake, real).item() == pytest.approx((made - true).abs().mean().item(), rel=0.02)


def test_it_teaches_where_a_steady_tone_should_beat():
    loss = EnvelopeModulation(bands_hz=(2000.0, 4000.0)).double()
    real, fake = beating(0.5)[:, :4096], (beating(0.05) * 0.8)[:, :4096].requires_grad_()
    loss(fake, real).backward()
    assert 0 < fake.grad.norm().item() < math.inf
    with torch.no_grad():
        stepped = fake - 0.5 * fake.grad / fake.grad.norm()
        assert loss(stepped, real) < loss(fake, real)
    silent = torch.zeros(1, 4096, requires_grad=True)
    loss(silent, real.float()).backward()
    assert bool(torch.isfinite(silent.grad).all())


@pytest.mark.parametrize("edges", [(1000.0,), (4000.0, 2000.0), (12000.0, 13000.0)])
def test_edges_that_leave_no_band_are_refused(edges):
    with pytest.raises(ValueError, match=r"bands_hz: got .* rising edges up to 11025 Hz"):
        EnvelopeModulation(bands_hz=edges)


def test_sizes_follow_the_rate_and_short_or_unlike_sounds_are_refused():
    loss = EnvelopeModulation()
    assert (loss.n_fft, loss.hop_length, loss.frames, loss.shortest_samples) == (128, 32, 64, 2144)
    wide = replace(MelSpec.preset("hifigan"), sample_rate=44100)
    loss_at_44 = EnvelopeModulation(mel=wide)
    assert (loss_at_44.n_fft, loss_at_44.hop_length, loss_at_44.frames) == (256, 64, 64)
    for fake, real in ((torch.zeros(1, 2143),) * 2, (torch.zeros(2, 4000), torch.zeros(1, 4000))):
        with pytest.raises(ValueError, match="T >= 2144"):
            loss(fake, real)
