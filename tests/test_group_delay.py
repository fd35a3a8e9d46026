"""When within a frame its sound comes, and the phases that it means, against clicks whose place is known."""

import math

import pytest
import torch
from torch import Tensor

from gansound.nn import streaming
from gansound.nn.group_delay import GroupDelay

N_FFT, HOP, BANDS = 256, 64, 6
BINS = N_FFT // 2 + 1


def layer(*, alone: bool = False, hop_length: int = HOP) -> GroupDelay:
    return GroupDelay(N_FFT, hop_length, BANDS, alone=alone).double()


def spectrum(sound: Tensor, hop_length: int = HOP) -> Tensor:
    """`(1, F, BINS)`, frames from the first sample on."""
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    return torch.stft(sound, N_FFT, hop_length, window=window, center=False, return_complex=True).T[None]


def clicks(*places: int, samples: int = 2048) -> Tensor:
    sound = torch.zeros(samples, dtype=torch.float64)
    sound[list(places)] = 0.5
    return sound


@pytest.mark.parametrize("hop_length", [64, 32, 100])
@pytest.mark.parametrize("place", [1000, 1017, 1063])
def test_a_click_has_the_phases_of_its_place(place, hop_length):
    true = spectrum(clicks(place), hop_length)
    net = layer(hop_length=hop_length)
    moments = net(true.abs())
    delay, share = moments.chunk(2, -1)
    heard = 0
    for frame in range(true.shape[1]):
        within = place - frame * hop_length
        if 0 < within < N_FFT:
            heard += 1
            expected = torch.full((BANDS,), within / N_FFT - 0.5, dtype=torch.float64)
            torch.testing.assert_close(delay[0, frame], expected, atol=1e-6, rtol=0)
            assert bool((share[0, frame] == 1).all())
    assert heard >= 2
    shares, *turned = net.phases(moments)
    assert bool((shares[true.abs() > 1e-3] == 1).all())
    turns = torch.complex(*turned) * (-1.0) ** torch.arange(BINS)  # from the middle to the start
    torch.testing.assert_close(turns * true.abs(), true, atol=1e-4, rtol=0)


def test_what_is_no_click_alone_has_no_moment_where_only_those_are_told():
    place = 1017
    click = spectrum(clicks(place)).abs()
    net = layer(alone=True)
    frame = place // HOP - 1
    torch.testing.assert_close(net(click)[0, frame - 1 : frame + 2], layer()(click)[0, frame - 1 : frame + 2])
    begun = torch.zeros(2048, dtype=torch.float64)
    begun[place:] = torch.randn(2048 - place, generator=torch.Generator().manual_seed(0))
    ringing = click.clone()
    ringing[..., 20:24] = 4.0  # a tone beside it
    for other in (spectrum(begun).abs(), ringing):
        assert layer()(other)[0, frame, BANDS:].max() > 0.5
        assert not net(other)[0, frame].any()


def test_what_lasts_or_dies_away_or_is_silent_has_no_moment():
    steady = torch.rand(1, 1, BINS, dtype=torch.float64).expand(1, 9, BINS)
    for sound in (steady, steady * torch.exp(-0.8 * torch.arange(9.0, dtype=torch.float64))[:, None]):
        assert torch.equal(layer()(sound)[:, 1:-1], torch.zeros(1, 7, 2 * BANDS))
    silence = layer()(torch.zeros(1, 5, BINS, dtype=torch.float64))
    assert bool(silence.isfinite().all())
    share, cosine, sine = layer().phases(torch.zeros(1, 1, 2 * BANDS, dtype=torch.float64))
    assert torch.equal(share, torch.zeros_like(share))
    assert torch.equal(cosine, torch.ones_like(cosine))  # nothing is turned, to the bit
    assert torch.equal(sine.abs(), torch.zeros_like(sine))


def test_what_begins_comes_late_in_the_frames_that_hear_its_beginning():
    sound = torch.zeros(2048, dtype=torch.float64)
    sound[1000:] = torch.randn(1048, generator=torch.Generator().manual_seed(0))
    delay, share = layer()(spectrum(sound).abs()).chunk(2, -1)
    assert bool((delay[0, 12] > 0.15).all())  # 768 to 1024
    assert bool((share[0, 12] == 1).all())
    assert float(share[0, 18:-1].max()) < 0.2


def test_between_a_click_and_what_lasts_it_fades():
    """Three frames alike in all bins: one moment from a 15th of the way on, none from four 15ths."""
    net = layer()
    click = math.cos(math.pi * HOP / N_FFT) ** 4
    before = 0.6
    for way, share in ((-0.01, 1.0), (0.25, 0.75), (0.5, 0.5), (1.01, 0.0)):
        product = click + (1 + 3 * way) / 15 * (1 - click)
        frames = torch.tensor([before, 1.0, product / before], dtype=torch.float64)
        made = net(frames[None, :, None].expand(1, 3, BINS))[0, 1]
        torch.testing.assert_close(
            made[BANDS:], torch.full((BANDS,), share, dtype=torch.float64), atol=1e-6, rtol=0
        )
        if share == 1:
            whole = made[:BANDS]
        else:
            assert bool((made[:BANDS].abs() <= share * whole.abs().max() * 1.2).all())


def test_bands_have_moments_of_their_own():
    """A low burst and a high one, 40 samples apart."""
    early, late = 1000, 1040
    at = torch.arange(2048) - torch.tensor([[early], [late]])
    envelope = torch.exp(-((at / 6.0) ** 2)).double()
    carrier = torch.stack(
        [torch.cos(2 * math.pi * bin_of / N_FFT * torch.arange(2048)) for bin_of in (20, 110)]
    )
    true = spectrum((envelope * carrier).sum(0))
    moments = layer()(true.abs())
    delay = moments[..., :BANDS]
    frame = 13  # 832 to 1088
    low, high = (N_FFT * (0.5 + delay[0, frame, band]) + frame * HOP for band in (1, BANDS - 1))
    assert low == pytest.approx(early, abs=4)
    assert high == pytest.approx(late, abs=4)
    share, cosine, sine = layer().phases(moments)
    assert bool((share[0, frame, 18:30] > 0.99).all())
    angle = torch.atan2(sine, cosine)[0, frame]
    for bins, expected in ((slice(18, 30), low), (slice(115, 128), high)):
        turned = angle[bins].diff()
        turned = -(turned - 2 * math.pi * (turned / 2 / math.pi).round()) * N_FFT / 2 / math.pi
        within = turned + N_FFT / 2 + frame * HOP
        assert within.mean() == pytest.approx(float(expected), abs=3)


def test_what_no_band_has_seen_comes_with_what_is_heard_nearest():
    amplitudes = 1e-3 * spectrum(clicks(1017)).abs()
    unseen = amplitudes.clone()
    unseen[..., 60:] = 0
    torch.testing.assert_close(layer()(unseen), layer()(amplitudes), atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunks", [[1] * 29, [7, 1, 21]])
def test_a_stream_has_the_delays_of_the_whole(chunks):
    torch.manual_seed(0)
    amplitudes = torch.rand(2, 29, BINS, dtype=torch.float64)
    net = layer()
    state = streaming.init_state(net, amplitudes[:, :1])
    made = []
    for chunk in amplitudes.split(chunks, 1):
        out, state = streaming.step(net, chunk, state, columns_dim=1)
        made.append(out)
    state = streaming.finish(state)
    made.append(streaming.step(net, amplitudes[:, :1], state, columns_dim=1)[0])
    torch.testing.assert_close(torch.cat(made, 1)[:, 1:30], net(amplitudes), atol=1e-12, rtol=0)


def test_delays_are_of_full_precision_under_autocast():
    amplitudes = spectrum(clicks(1017)).abs().float()
    net = layer().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(amplitudes), layer().float()(amplitudes))


def test_between_bands_shares_are_linear_and_phases_add_up_delays():
    net = GroupDelay(N_FFT, HOP, 9).double()  # a band every 16 bins
    moments = torch.rand(1, 3, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments[..., :9] -= 0.5
    bins = torch.nn.functional.interpolate(moments.reshape(3, 2, 9), BINS, mode="linear", align_corners=True)
    delay, expected = bins.unbind(1)
    share, cosine, sine = net.phases(moments)
    torch.testing.assert_close(share[0], expected)
    angle = torch.zeros(3, BINS, dtype=torch.float64)
    angle[:, 1:] = -2 * math.pi * ((delay[:, 1:] + delay[:, :-1]) / 2).cumsum(1)
    found, expected = torch.complex(cosine, sine)[0], torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)  # its constants are single


def test_phases_are_single_precision_under_autocast():
    net = GroupDelay(N_FFT, HOP, 9)
    moments = torch.rand(1, 3, 18, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.autocast("cpu", torch.bfloat16):
        halved = net.phases(moments)
    torch.testing.assert_close(halved, net.phases(moments), atol=0, rtol=0)


def test_of_both_frames_beside_it_the_louder_counts_more():
    before, after = 0.09, 0.25
    frames = torch.tensor([before, 1.0, after], dtype=torch.float64)[None, :, None].expand(1, 3, BINS)
    x = [  # sin(x) / sin(x + pi / 4) is the root of the frames' amplitudes
        math.atan2(math.sin(math.pi / 4), math.sqrt(beside) - math.cos(math.pi / 4))
        for beside in (before, after)
    ]
    delay = (before * (x[0] / math.pi - 0.5) + after * (0.5 - x[1] / math.pi)) / (before + after)
    made = layer()(frames)[0, 1, :BANDS]
    torch.testing.assert_close(made, torch.full((BANDS,), delay, dtype=torch.float64))


def test_three_frames_are_heard():
    field = streaming.receptive_field(layer(), torch.zeros(1, 1, BINS, dtype=torch.float64))
    assert (field.lookback_inputs, field.lookahead_inputs) == (1, 1)


def test_from_a_bin_on_what_lasts_moves_with_the_amplitudes_around_it():
    torch.manual_seed(0)
    noise = spectrum(torch.randn(2048, dtype=torch.float64)).abs()
    still, moving = layer()(noise), GroupDelay(N_FFT, HOP, BANDS, noisy_bin=52).double()(noise)
    band = 3  # bins 25.6 apart: from 76.8 on
    assert torch.equal(moving[..., :band], still[..., :band])
    assert torch.equal(moving[..., BANDS:], still[..., BANDS:])
    inside = moving[0, 1:-1, band:BANDS]
    assert bool((inside.std(0) > 0.005).all())
    assert bool((inside.mean(0).abs() < 0.05).all())
    before, after = noise[:, :-2].sum(-1), noise[:, 2:].sum(-1)
    early = torch.corrcoef(torch.stack([moving[0, 1:-1, 4], (after - before)[0]]))[0, 1]
    assert early > 0.5  # towards the louder
