"""Phases that go on from frame to frame, against tones and against the algorithm one frame and one bin at a time."""

import math

import numpy as np
import pytest
import torch

from gansound.nn import streaming
from gansound.nn.istft import ISTFT
from gansound.nn.single_pass import FLAT, GRID, ONSET, SinglePassPhases

N_FFT, HOP, BINS = 256, 64, 40


def layer(bins: int = BINS, *, lobes: bool = False) -> SinglePassPhases:
    return SinglePassPhases(N_FFT, HOP, bins, lobes=lobes)


def phases(amplitudes: torch.Tensor, bins: int = BINS, *, lobes: bool = False) -> torch.Tensor:
    """In cycles."""
    made = layer(bins, lobes=lobes)(amplitudes)[:, :, amplitudes.shape[2] :]
    cosine, sine = made.chunk(2, 2)
    return torch.atan2(sine, cosine) / (2 * math.pi)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The most that two phases differ by, in cycles."""
    return float(((a - b) - (a - b).round()).abs().max())


def voices(frames: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Amplitudes of gliding harmonics that begin anew now and then, above a floor that differs from bin to bin."""
    rng = np.random.default_rng(seed)
    bins = np.arange(N_FFT // 2 + 1)
    made = np.empty((batch, frames, len(bins)))
    for item in made:
        pitch, loud = rng.uniform(4, 9), 1.0
        for frame in item:
            pitch = np.clip(pitch + 0.3 * rng.standard_normal(), 3, 12)
            loud = rng.choice([loud, 1e-3, 1.0], p=[0.9, 0.03, 0.07])
            frame[:] = 1e-4 * rng.uniform(1, 2, len(bins))
            for partial in np.arange(pitch, len(bins), pitch):
                frame += loud * rng.uniform(0.5, 1) * np.exp(-((bins - partial) ** 2))
    return torch.from_numpy(made)


def one_by_one(amplitudes: torch.Tensor, bins: int, *, lobes: bool = False) -> torch.Tensor:
    """Beauregard, Harish and Wyse (2015) as in `gansound.nn.single_pass`, written down a bin at a time."""
    made = torch.zeros(*amplitudes.shape[:2], bins, dtype=torch.float64)
    window, time = np.hanning(N_FFT + 1), np.linspace(-0.5, 0.5, N_FFT + 1)
    late = window @ time**2 / window.sum() * N_FFT / HOP
    for item, out in zip(amplitudes.double().clamp_min(1e-7).log().numpy(), made, strict=True):
        before: list[tuple[float, float, float, int]] = []
        for number, frame in enumerate(item):
            now = []
            for bin_of in range(bins):
                top = bin_of
                while True:  # uphill
                    low, high = frame[abs(top - 1)], frame[top + 1]
                    if low > max(frame[top], high) and top > 0:
                        top -= 1
                    elif high > frame[top] and top + 1 < bins and low <= max(frame[top], high):
                        top += 1
                    else:
                        break
                low, high = frame[abs(top - 1)], frame[top + 1]
                curve = 2 * frame[top] - low - high
                frequency = top + min(max((high - low) / 2 / max(curve, FLAT), -0.5), 0.5)
                phase = 0.0
                if number and curve >= FLAT and frame[top] - before[top][2] <= ONSET:
                    was = before[top][0]
                    mean = (frequency + was) / 2 if abs(frequency - was) < 1.5 else frequency
                    phase = before[top][1] + mean * HOP / N_FFT
                now.append((frequency, phase, frame[bin_of], top))
            before = now
            out[number] = torch.tensor([phase for _, phase, _, _ in now])
            if lobes:
                silent = np.full_like(frame, np.log(1e-7))
                last, first = (item[number - i] if number >= i else silent for i in (1, 2))
                since, until = frame - last, last - first
                growth = np.clip(since + np.clip(since - until, -1, 1) / 2, -3, 3)
                for bin_of, (frequency, _, _, top) in enumerate(now):
                    risen = -growth[top] * (frequency - top)
                    for low in range(min(top, bin_of), max(top, bin_of)):
                        risen += np.sign(bin_of - top) * (growth[low] + growth[low + 1]) / 2
                    out[number, bin_of] -= late * risen
    return made


@pytest.mark.parametrize("lobes", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 64, 100])
def test_it_is_the_algorithm_of_one_frame_after_the_other(frames, lobes):
    drawn = voices(frames, seed=frames)
    assert apart(phases(drawn, lobes=lobes), one_by_one(drawn, BINS, lobes=lobes)) < 1e-5


def test_fewer_bins_have_the_peaks_below_them():
    drawn = voices(30)
    for bins in (2, 3, 17):
        assert apart(phases(drawn, bins), one_by_one(drawn, bins)) < 30 / GRID / 2  # half a step a frame


@pytest.mark.parametrize("hz", [5.0, 9.3, 14.5, 21.8])
def test_a_tone_goes_on(hz):
    """In bins: from its amplitudes alone an inverse STFT makes a tone of that frequency, without a seam."""
    frames = 60
    samples = torch.arange(N_FFT + HOP * (frames - 1), dtype=torch.float64)
    sound = torch.sin(2 * math.pi * hz / N_FFT * samples)
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    true = torch.stft(sound, N_FFT, HOP, window=window, center=False, return_complex=True).T[None]
    cycles = phases(true.abs())
    moved = cycles[:, 1:] - cycles[:, :-1]
    near = range(round(hz) - 1, round(hz) + 2)
    for bin_of in near:
        assert apart(moved[:, :, bin_of], torch.full_like(moved[:, :, bin_of], hz * HOP / N_FFT)) < 0.01
        assert apart(cycles[:, :, bin_of], cycles[:, :, round(hz)]) < 1e-12  # one peak, one phase
    made = torch.zeros_like(true)
    turn = 2 * math.pi * cycles - math.pi * torch.arange(BINS)  # from a frame's middle to its start
    made[:, :, :BINS] = torch.polar(true.abs()[:, :, :BINS], turn)
    tone = ISTFT(N_FFT, HOP).double()(torch.cat([made.real, made.imag], 2)).flatten()[N_FFT:-N_FFT]
    loudness = tone.unfold(0, N_FFT, HOP // 2).square().mean(1)
    assert loudness.min() > 0.9 * loudness.max()
    assert loudness.mean() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("nepers", [-0.3, 0.15, 0.4])
@pytest.mark.parametrize("hz", [9.3, 14.5, 21.8])
def test_phases_around_a_tone_go_as_it_grows(hz, nepers):
    """From frame to frame; in bins. Against those that such a tone has."""
    samples = torch.arange(N_FFT + HOP * 9, dtype=torch.float64)
    sound = (samples * nepers / HOP).exp() * torch.sin(2 * math.pi * hz / N_FFT * samples)
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    true = torch.stft(sound, N_FFT, HOP, window=window, center=False, return_complex=True).T[None]
    angle = true.angle()[:, :, :BINS] / (2 * math.pi) + torch.arange(BINS) / 2
    near = slice(round(hz) - 1, round(hz) + 2)
    off = {}
    for lobes in (False, True):
        made = phases(true.abs(), lobes=lobes)[:, 3:, near] - angle[:, 3:, near]
        beside = made - made[..., 1:2]
        off[lobes] = (beside - beside.round()).abs().max().item()
    assert off[True] < 0.5 * off[False]


def test_what_grows_suddenly_begins_anew():
    quiet = voices(1, batch=1)[:, :1].repeat(1, 10, 1)
    louder = quiet.clone()
    louder[:, 5:] *= math.exp(ONSET) * 1.01
    begun = phases(louder)
    assert bool((begun[:, 5] == 0).all())
    assert apart(begun[:, 5:], phases(quiet)[:, :5]) < 1e-9
    louder = quiet.clone()
    louder[:, 5:] *= math.exp(ONSET) * 0.99
    assert apart(phases(louder), phases(quiet)) < 1e-9


def test_what_has_no_partials_has_phase_0():
    """A click's or a hiss's frame, but not a tone beside it."""
    flat = torch.full((1, 6, N_FFT // 2 + 1), 0.1, dtype=torch.float64)
    flat[0, :, 8:13] *= torch.tensor([1.0, 1.02, 1.04, 1.02, 1.0])
    flat[0, :, 28:33] *= torch.tensor([1.0, 1.5, 2.0, 1.7, 1.0])
    made = phases(flat)
    assert bool((made[0, :, 8:13] == 0).all())
    assert bool((made[0, 1:, 28:33] != 0).all())


def test_nothing_is_learnt_through_phases_and_amplitudes_pass():
    drawn = voices(5).requires_grad_()
    made = layer()(drawn)
    assert torch.equal(made[:, :, : drawn.shape[2]], drawn)
    assert made.shape == (2, 5, N_FFT // 2 + 1 + 2 * BINS)
    made[:, :, drawn.shape[2] :].sum().backward()
    assert bool((drawn.grad == 0).all())


@pytest.mark.parametrize("lobes", [False, True])
@pytest.mark.parametrize("chunks", [[1] * 40, [7, 1, 9, 5, 18], [40]])
def test_a_stream_goes_on_from_its_own_phases(chunks, lobes):
    drawn = voices(40)
    net = layer(lobes=lobes)
    state = streaming.init_state(net, drawn[:, :1])
    made = []
    for chunk in drawn.split(chunks, 1):
        out, state = streaming.step(net, chunk, state, columns_dim=1)
        made.append(out)
    torch.testing.assert_close(torch.cat(made, 1), net(drawn), atol=1e-10, rtol=0)
    assert streaming.receptive_field(net, drawn[:1, :1]).remembers


def test_a_stream_has_the_very_phases_of_the_whole_in_single_precision():
    drawn = voices(300).float()
    net = layer()
    state = streaming.init_state(net, drawn[:, :1])
    made = []
    for frame in drawn.split(1, 1):
        out, state = streaming.step(net, frame, state, columns_dim=1)
        made.append(out)
    assert torch.equal(torch.cat(made, 1), net(drawn))


def test_items_begin_anew_apart_from_each_other():
    drawn = voices(30)
    net = layer()
    state = streaming.init_state(net, drawn[:, :1])
    _, state = streaming.step(net, drawn[:, :11], state, columns_dim=1)
    state = streaming.reset(state, torch.tensor([False, True]))
    made, _ = streaming.step(net, drawn[:, 11:], state, columns_dim=1)
    torch.testing.assert_close(made[0], net(drawn)[0, 11:], atol=1e-10, rtol=0)
    torch.testing.assert_close(made[1], net(drawn[:, 11:])[1], atol=1e-10, rtol=0)
    interior, _ = streaming.step(net, drawn[:, 11:], state, columns_dim=1, interior=True)
    torch.testing.assert_close(interior[0], made[0])


def test_phases_do_not_lose_themselves_in_rounding():
    """Ten minutes of a steady tone in single precision."""
    frame = torch.exp(-((torch.arange(BINS + 1) - 10.3) ** 2)).expand(1, 2**16, -1)
    begins = torch.arange(2**16)[None, :, None] == 0
    window = torch.nn.functional.pad(frame, (0, 0, 1, 0))
    cycles, _ = layer()._cycles(window, begins, torch.zeros(1, 1, BINS))
    found = cycles[0, :, 10].double()
    assert apart(found, found[1] * torch.arange(2**16)) < 1e-5


@pytest.mark.parametrize("lobes", [False, True])
def test_a_graph_follows_phases_as_far_back(lobes):
    net = layer(lobes=lobes).eval()
    frames = torch.export.Dim("frames")
    traced = torch.export.export(net, (voices(5),), dynamic_shapes=({1: frames},)).module()
    for count in (1, 2, 33, 300):
        drawn = voices(count)
        torch.testing.assert_close(traced(drawn), net(drawn), atol=1e-9, rtol=0)
