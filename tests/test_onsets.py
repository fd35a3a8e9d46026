"""Quiet before onsets: what an inverse STFT would spread over what comes before them is held down, all else is left."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from gansound.generators.universal import UniversalGenerator
from gansound.mel import MelSpec
from gansound.nn import streaming
from gansound.nn.istft import ISTFT
from gansound.nn.onsets import Beginnings, SharpOnsets, TwoBands

RATE, N_FFT, HOP, FRAMES = 22050, 1024, 256, 60
MIDDLE = FRAMES * HOP // 2


class _Sound(nn.Module):
    """A sound instead of that of the amplitudes."""

    def __init__(self, sound: Tensor) -> None:
        super().__init__()
        self.sound = sound

    def forward(self, amplitudes: Tensor) -> Tensor:
        return self.sound


def noise(samples: int = FRAMES * HOP, seed: int = 0) -> Tensor:
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def amplitudes(sound: Tensor, istft: ISTFT) -> Tensor:
    before = istft.trim_samples
    padded = nn.functional.pad(sound, (before, istft.n_fft - istft.hop_length - before))
    window = torch.hann_window(istft.n_fft).to(sound)
    spectrum = torch.stft(
        padded, istft.n_fft, istft.hop_length, window=window, center=False, return_complex=True
    )
    return spectrum.abs().transpose(1, 2)


def held(recording: Tensor, made: Tensor, *, hop: int = HOP, framing: str = "same") -> Tensor:
    """What becomes of a sound that was made for the amplitudes of a recording."""
    istft = ISTFT(N_FFT, hop, framing)  # type: ignore[arg-type]
    beginnings = Beginnings(istft, RATE)
    layers = OrderedDict(sound=_Sound(made), bands=TwoBands(RATE), beginnings=beginnings)
    return SharpOnsets(layers)(amplitudes(recording, istft))


def level_db(sound: Tensor) -> float:
    return 10 * math.log10(float(sound.square().mean()) + 1e-20)


def begun(place: int, *, before_db: float = -200.0, hop: int = HOP) -> Tensor:
    sound = noise(FRAMES * hop)
    sound[:, :place] *= 10 ** (before_db / 20)
    return sound


@pytest.mark.parametrize("hop, framing", [(256, "same"), (256, "center"), (512, "same")])
@pytest.mark.parametrize("within", [0, 67, 128, 200])
def test_before_an_onset_it_is_quiet_and_from_there_on_untouched(within, hop, framing):
    place = MIDDLE + within
    recording = begun(place)
    made = recording + begun(place, before_db=-20) * (torch.arange(recording.shape[1]) < place)
    out = held(recording, made, hop=hop, framing=framing)
    assert level_db(made[:, place - 200 : place - 32]) > -22
    assert level_db(TwoBands(RATE)(out)[:, 1, place - 200 : place - 32]) < -38
    assert level_db(out[:, place - 400 : place - 350]) < -40  # its lows are let in earlier
    later = slice(place + 32, place + 1024)
    torch.testing.assert_close(out[:, later], made[:, later], atol=1e-5, rtol=0)
    assert float((out - made)[:, place:].square().sum()) < 0.01 * float(
        made[:, place : place + 64].square().sum()
    )


def test_what_was_there_before_stays():
    recording = begun(MIDDLE + 100, before_db=-40)
    out = held(recording, recording)
    before = slice(MIDDLE - 300, MIDDLE)
    assert level_db(out[:, before]) == pytest.approx(-40, abs=3)
    made = recording.clone()
    made[:, before] *= 10  # 20 dB of pre-echo
    assert level_db(held(recording, made)[:, before]) == pytest.approx(-38, abs=3)


def _steady() -> Tensor:
    return noise()


def _dying() -> Tensor:
    return noise() * torch.exp(-torch.arange(FRAMES * HOP) / 1000)


def _ending() -> Tensor:
    return begun(MIDDLE).flip(1)


def _rising() -> Tensor:
    return noise() * 10 ** (torch.arange(FRAMES * HOP) / HOP * 6 / 20 - 10)


@pytest.mark.parametrize("sound", [_steady, _dying, _ending, _rising])
def test_where_nothing_begins_nothing_changes(sound):
    recording = sound()
    torch.testing.assert_close(held(recording, recording), recording, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("within", range(0, 256, 37))
def test_no_attack_is_cut(within):
    """Of a click, and of what dies away in some milliseconds."""
    place = MIDDLE + within
    for seconds in (1e-5, 1e-3, 5e-3, 20e-3):
        recording = begun(place) * torch.exp(
            -(torch.arange(FRAMES * HOP) - place).clamp_min(0) / seconds / RATE
        )
        out = held(recording, recording)
        cut = (out - recording)[:, place:].square().sum()
        assert float(cut) < 0.03 * float(recording[:, place : place + 64].square().sum())


def test_a_low_tone_is_let_in_slowly():
    time = (torch.arange(FRAMES * HOP) - MIDDLE) / RATE
    tone = 0.3 * (2 * math.pi * 150 * time).cos()[None]
    out = held(tone * (200 * time).clamp(0, 1), tone * (time > -0.03))  # 30 ms early
    jumps = out.diff(n=2).abs()[:, MIDDLE - 256 : MIDDLE + 256].max()
    assert level_db(out[:, MIDDLE - 384 : MIDDLE - 256]) < -50
    assert float(jumps) < 0.03 * 0.3


def test_low_sounds_may_rise_faster_than_high_ones():
    rising = noise() * 10 ** (torch.arange(FRAMES * HOP) / HOP * 15 / 20 - 30)  # 15 dB from frame to frame
    istft = ISTFT(N_FFT, HOP)
    low, high = Beginnings(istft, RATE)(amplitudes(rising, istft))[0, :, HOP * 10 : -HOP * 4]
    assert not low.any()
    assert bool(high.any())


def test_bands_are_the_sound_and_the_low_one_half_of_it_at_its_edge():
    sound = noise()
    bands = TwoBands(RATE)
    torch.testing.assert_close(bands(sound).sum(1), sound)
    time = torch.arange(4096) / RATE
    for hertz, share in ((100, 1.0), (1700, 0.5), (5000, 0.0)):
        low = bands((2 * math.pi * hertz * time).sin()[None])[0, 0, 500:-500]
        assert float(low.abs().max()) == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize("hop, framing", [(256, "same"), (256, "center"), (64, "same"), (512, "same")])
@pytest.mark.parametrize("chunks", [[1] * FRAMES, [7, 1, 40, 12]])
def test_a_stream_is_held_as_the_whole(chunks, hop, framing):
    class Sounding(ISTFT):
        """The amplitudes as real parts."""

        def _frames(self, spectrum: Tensor) -> Tensor:
            return super()._frames(torch.cat([spectrum, 0.5 * spectrum], 2))

    istft = Sounding(N_FFT, hop, framing)
    net = SharpOnsets(
        OrderedDict(istft=istft, bands=TwoBands(RATE), beginnings=Beginnings(istft, RATE))
    ).double()
    onsets = torch.cat([begun(30 * hop + 30, hop=hop), begun(2 * hop - 12, before_db=-30, hop=hop)]).double()
    given = amplitudes(onsets, istft)
    whole = net(given)
    assert float((whole - istft(given)).abs().max()) > 1e-3
    late = streaming.receptive_field(net, given[:, :1]).lookahead
    state = streaming.init_state(net, given[:, :1])
    made = []
    for chunk in given.split(chunks, 1):
        out, state = streaming.step(net, chunk, state, columns_dim=1)
        made.append(out)
    state = streaming.finish(state)
    made.append(streaming.step(net, given[:, :20], state, columns_dim=1)[0])
    streamed = torch.cat(made, 1)[:, late : late + whole.shape[1]]
    torch.testing.assert_close(streamed, whole, atol=1e-9, rtol=0)


def test_bounds_are_single_precision_under_autocast():
    recording = begun(MIDDLE)
    with torch.autocast("cpu", torch.bfloat16):
        halved = held(recording, recording)
    torch.testing.assert_close(halved, held(recording, recording), atol=0, rtol=0)


def test_of_silence_and_of_bins_that_no_band_sees_nothing_is_held():
    istft = ISTFT(N_FFT, HOP)
    bound = Beginnings(istft, RATE)(torch.zeros(1, 9, N_FFT // 2 + 1))
    assert torch.equal(bound, torch.zeros(1, 2, 9 * HOP))


def test_a_vocoder_knows_onsets_in_every_convention():
    small = {"channels": 16, "hidden_channels": 32, "blocks": 1, "kernel_size": 3}
    net = UniversalGenerator(MelSpec.preset("hifigan"), **small)
    centred = net.for_mel(MelSpec.preset("tacotron2"))
    assert isinstance(centred.layers.core, SharpOnsets)
    assert (net.layers.core.beginnings.late_samples, centred.layers.core.beginnings.late_samples) == (
        384,
        256,
    )
    assert net.layers.core.state_dict().keys() == centred.layers.core.state_dict().keys()
    assert not any("beginnings" in name or "bands." in name for name in net.layers.core.istft.state_dict())


@pytest.mark.parametrize("steps", [0, 5])
def test_what_is_quiet_makes_a_causal_vocoder_wait_for_the_split_of_its_bands_alone(steps):
    net = UniversalGenerator(
        MelSpec.preset("hifigan"), channels=16, hidden_channels=32, blocks=1, kernel_size=3, causal=True,
        griffin_lim=steps, look_ahead=min(steps, 1),
    )  # fmt: skip
    waits = ISTFT(N_FFT, HOP).trim_samples + min(steps, 1) * HOP
    assert net.receptive_field.lookahead == waits + TwoBands(RATE).ahead
    assert TwoBands(RATE).ahead / RATE < 0.3e-3
