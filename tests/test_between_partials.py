"""Phases between partials: what they depend on, and that they can be learnt."""

import math

import torch

from gansound.nn import streaming
from gansound.nn.between_partials import FRAMES, BetweenPartials

COLUMNS, BINS, TURNED, CYCLES = 40, 24, 17, 0.25
AHEAD = sum(frames // 2 for frames in FRAMES)


def layer(*, causal: bool = False, drawn: bool = True) -> BetweenPartials:
    torch.manual_seed(0)
    made = BetweenPartials(COLUMNS, BINS, TURNED, CYCLES, 8, causal=causal)
    if drawn:
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made.double()


def given(angle: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Amplitudes of any size, and those phases in radians."""
    amplitudes = torch.rand(*angle.shape[:2], COLUMNS, generator=torch.Generator().manual_seed(seed))
    return torch.cat([amplitudes.double(), angle.cos(), angle.sin()], dim=2)


def any_phases(frames: int = 15, batch: int = 2) -> torch.Tensor:
    drawn = torch.rand(batch, frames, BINS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 2 * math.pi * drawn


def as_complex(columns: torch.Tensor) -> torch.Tensor:
    return torch.complex(*columns.chunk(2, dim=2))


def test_at_first_phases_stay_as_they_are():
    angle = any_phases()
    told = layer(drawn=False)(given(angle))
    assert torch.allclose(as_complex(told), torch.polar(torch.ones_like(angle), angle), atol=1e-12)


def test_what_turns_all_phases_turns_what_is_told():
    net, angle = layer(), any_phases()
    turned = as_complex(net(given(angle + 1.3)))
    assert torch.allclose(
        turned, as_complex(net(given(angle))) * complex(math.cos(1.3), math.sin(1.3)), atol=1e-12
    )
    assert not torch.allclose(
        turned.angle(), torch.polar(torch.ones_like(angle), angle + 1.3).angle(), atol=0.1
    )


def test_a_tone_is_turned_alike_in_every_frame():
    """All bins' phases move on at its frequency: nothing tells one frame from another."""
    frames = torch.arange(20, dtype=torch.float64)[:, None]
    start = any_phases(1, 1)[0]
    angle = start + 2 * math.pi * CYCLES * 7.3 * frames
    steady = given(angle[None])
    steady[:, :, :COLUMNS] = steady[:, :1, :COLUMNS]
    turns = as_complex(layer()(steady))[0] / torch.polar(torch.ones_like(angle), angle)
    inside = turns[AHEAD + 1 : -AHEAD]
    assert torch.allclose(inside, inside[:1].expand_as(inside), atol=1e-12)
    assert (turns[0] - inside[0]).abs().max() > 1e-3


def test_it_looks_so_many_frames_ahead():
    for causal, ahead in ((False, AHEAD), (True, 0)):
        net, frames = layer(causal=causal), given(any_phases(batch=1))
        changed = frames.clone()
        changed[:, 10] = frames[:, 9]
        first = (net(frames) != net(changed)).any(2)[0].nonzero()[0]
        assert first == 10 - ahead
        field = streaming.receptive_field(net, frames[:, :1])
        assert field.lookahead_inputs == ahead
        assert field.lookback_inputs == 2 * AHEAD + 1 - ahead


def test_a_small_turn_is_faint_and_a_whole_one_is_not():
    """Where nothing is left of a turn there is no phase to tell, and nothing is told of rounding."""
    net = layer(drawn=False)
    net.layers[-1].bias.data[0] = -1.0
    angle = any_phases()
    told = as_complex(net(given(angle)))
    assert told[..., :TURNED].abs().max() < 1e-12
    assert torch.equal(told[..., TURNED:], torch.complex(angle.cos(), angle.sin())[..., TURNED:])
    net.layers[-1].bias.data[0] = 1.0
    assert (as_complex(net(given(angle))).abs() - 1).abs().max() < 0.01


def test_it_learns_where_two_partials_meet():
    """Two tones whose phases are known at their peaks; between them the phase of the nearest tells little."""
    torch.manual_seed(0)
    hop, n_fft = 64, 256
    net = BetweenPartials(n_fft // 2 + 1, BINS, BINS, hop / n_fft, 12, causal=False)
    window = torch.hann_window(n_fft)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        time = torch.arange(n_fft + 15 * hop)
        low = 6 + 2 * torch.rand(16, 1)
        high = low + 3.2 + 0.6 * torch.rand(16, 1)
        sound = sum((2 * math.pi * (f * time / n_fft + torch.rand(16, 1))).cos() for f in (low, high))
        spectra = torch.stft(sound, n_fft, hop, window=window, center=False, return_complex=True).transpose(
            1, 2
        )
        spectra = spectra * (-1.0) ** torch.arange(n_fft // 2 + 1)
        peak = torch.where(torch.arange(BINS) < (low + high) / 2, low.round(), high.round()).long()[:, None]
        angle = spectra.angle().gather(2, peak.expand(-1, spectra.shape[1], -1))
        return torch.cat([spectra.abs(), angle.cos(), angle.sin()], dim=2), spectra[:, :, :BINS]

    def wrong() -> torch.Tensor:
        frames, true = batch()
        near = slice(5, 14)
        told = as_complex(net(frames))[..., near]
        apart = 1 - (told * true[..., near].conj()).real / (told.abs() + 1e-3) / true[..., near].abs()
        return apart.mean()

    with torch.no_grad():
        before = sum(wrong() for _ in range(10)) / 10
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        wrong().backward()
        optimizer.step()
    with torch.no_grad():
        after = sum(wrong() for _ in range(10)) / 10
    assert after < 0.5 * before
