"""A universal vocoder takes mels of other rates and hops: the same frames, with as many samples as they last."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import gansound
from gansound.audio import resample
from gansound.generators.universal import UniversalGenerator
from gansound.mel import MelSpec
from gansound.mel.inverse import AMPLITUDE_FLOOR, MelInverse
from gansound.metrics.pesq import pesq_wb
from gansound.model_folder import save_model_folder
from gansound.nn.inference_form import InferenceForm
from gansound.nn.istft import ISTFT
from gansound.nn.istft_by_products import by_products
from gansound.nn.onsets import Beginnings
from tests.streams import error, of_generator, serve
from tests.test_universal import OWN, SMALL, generator, voice

CLASS_PATH = "gansound.generators.universal.UniversalGenerator"
# Samples a frame lasts at a rate, beside the net's own 1024 and 256 at 22050 Hz.
RATES = [(24000, 1200, 300), (16000, 640, 160), (16000, 800, 200), (16000, 1024, 256), (24000, 1024, 256)]


def of_rate(sample_rate: int, window: int, hop: int, **changes: object) -> MelSpec:
    more = {"n_fft": window, "win_length": window, "hop_length": hop, "fmax": min(sample_rate / 2, 10000.0)}
    return replace(OWN, sample_rate=sample_rate, **(more | changes))


def tone(hz: float, sample_rate: int, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz / sample_rate * torch.arange(int(seconds * sample_rate)))[None]


def parts(audio: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """Frames as `ISTFT` takes them, in framing `center`."""
    window = torch.hann_window(n_fft, dtype=audio.dtype)
    spectrum = torch.stft(audio, n_fft, hop, window=window, return_complex=True).transpose(1, 2)
    return torch.cat([spectrum.real, spectrum.imag], 2)


@pytest.mark.parametrize("n_fft, hop", [(1200, 300), (640, 160), (800, 200), (1024, 256)])
@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
def test_frames_of_another_rate_become_the_sound_at_this_one(n_fft, hop, graph):
    """A tone that both rates hold comes out as it is; one that only the frames' own holds is gone."""
    layer = ISTFT(n_fft, hop, "center", bins=513).double()
    layer.window = torch.hann_window(n_fft, dtype=torch.float64)
    made = by_products(layer) if graph else layer
    given, wanted = 22050, 22050 * n_fft / 1024  # a frame lasts as long at either
    for hz in (440.0, 5000.0):
        audio = torch.sin(2 * math.pi * hz / given * torch.arange(given, dtype=torch.float64))[None]
        sound = made(parts(audio, 1024, 256))[0]
        expected = torch.sin(2 * math.pi * hz / wanted * torch.arange(len(sound), dtype=torch.float64))
        inside = slice(2 * n_fft, -2 * n_fft)
        assert (sound - expected)[inside].abs().max() < 1e-6
    high = torch.sin(2 * math.pi * 9500.0 / given * torch.arange(given, dtype=torch.float64))[None]
    kept = made(parts(high, 1024, 256))[0][2 * n_fft : -2 * n_fft].square().mean()
    assert kept.item() == pytest.approx(0.5 if wanted > 19100 else 0.0, abs=1e-3)


@pytest.mark.parametrize("n_fft, hop", [(33, 11), (9, 3), (1024, 256)])
def test_frames_of_their_own_rate_are_as_loud_as_they_are(n_fft, hop):
    spectrum = torch.randn(1, 6, 2 * (n_fft // 2 + 1), generator=torch.Generator().manual_seed(0))
    frames = torch.fft.irfft(torch.complex(*spectrum.chunk(2, 2)), n=n_fft) * torch.hann_window(n_fft)
    layer = ISTFT(n_fft, hop)
    torch.testing.assert_close(layer._frames(spectrum), frames, atol=0, rtol=0)
    torch.testing.assert_close(by_products(layer)._frames(spectrum), frames, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate, window, hop", RATES)
@pytest.mark.parametrize("tones", [0, 96])
def test_amplitudes_are_those_of_the_sound_at_the_rate_of_the_net(rate, window, hop, tones):
    """Of noise and of a tone, those of a window of 1024 samples at a rate at which it lasts as long."""
    spec, at = of_rate(rate, window, hop), rate * 1024 / window
    inverse = MelInverse(spec, 1024, tones, lasting=window)
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * rate).astype(np.float32)
    low = 0.3 * tone(600.0, rate)[0].numpy()
    for sound, bins in ((noise, slice(20, 90)), (noise, slice(100, 280)), (low, slice(20, 40))):
        there = torch.from_numpy(resample(sound, rate, round(at)))[None]
        hann = torch.hann_window(1024)
        true = torch.stft(there, 1024, 256, window=hann, return_complex=True).abs()[0, bins, 10:-10]
        made = inverse(spec.mel(torch.from_numpy(sound)[None]))[0, 10:-10, bins]
        assert made.square().mean().sqrt().item() == pytest.approx(
            true.square().mean().sqrt().item(), rel=0.12
        )
        if sound is low and tones:
            assert int(made.mean(0).argmax()) == int(true.mean(1).argmax())
    above = torch.arange(513) * at / 1024 > rate / 2
    assert not inverse.seen[above].any()


@pytest.mark.parametrize("rate, window, hop", RATES)
def test_another_rate_shares_the_weights_and_hears_the_same_frames(rate, window, hop):
    net = generator(single_pass_bins=20, griffin_lim=2, tones=96, group_delay_bands=8)
    spec = of_rate(rate, window, hop)
    other = net.for_mel(spec)
    assert (other.hop_length, other.n_mels, other.mel, other.learnt_by) == (hop, 80, spec, OWN)
    mine, theirs = dict(net.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    amplitudes = net.layers.inverse(OWN.mel(voice(30 * 256)))
    spectra = []
    for one in (net, other):
        given = amplitudes
        for name, layer in one.layers.core.named_children():
            if name == "istft":
                break
            given = (layer.where(None) if name == "spectrum" else layer)(given)
        spectra.append(given)
    assert torch.equal(*spectra)
    assert other(spec.mel(voice(40 * hop))).shape == (1, 40 * hop)
    again = other.for_mel(OWN)
    assert torch.equal(again(OWN.mel(voice(30 * 256))), net(OWN.mel(voice(30 * 256))))


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
def test_streams_of_another_rate_are_the_whole(causal, graph):
    """Either rate with either of both."""
    rate, window, hop = (24000, 1200, 300) if causal == graph else (16000, 640, 160)
    more = {"causal": True, "look_ahead": 1} if causal else {}
    net = generator(griffin_lim=2, **more).for_mel(of_rate(rate, window, hop)).double()
    form = InferenceForm(net, graph=graph)
    mels = [of_rate(rate, window, hop).mel(voice(n * hop)).double()[0] for n in (40, 1, 7)]
    expected = [net(mel[None]) for mel in mels]
    assert error([form(mel[None]) for mel in mels], expected) < 1e-9
    got = serve(of_generator(form), mels, [audio.shape[1] for audio in expected], seed=1)
    assert error(got, expected) < 1e-9


def of_half_rate(sample_rate: int, window: int, hop: int, *, framing: str = "same", **more: object):
    """A net that knows frames half as long, before mels of so few."""
    net = generator(finer_frames=8, griffin_lim=2, **more)
    torch.nn.init.normal_(net.layers.core.finer.sharper[-1].weight, std=0.05)
    return net.for_mel(of_rate(sample_rate, window, hop, framing=framing))


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
@pytest.mark.parametrize("framing", ["same", "center"])
@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
def test_streams_of_half_as_many_frames_are_the_whole(causal, framing, graph):
    """Either rate with any two of the three."""
    own = causal ^ graph ^ (framing == "center")
    rate, window, hop = (22050, 2048, 512) if own else (24000, 1920, 480)
    more = {"causal": True, "look_ahead": 1} if causal else {}
    net = of_half_rate(rate, window, hop, framing=framing, **more).double()
    form = InferenceForm(net, graph=graph)
    mels = [net.mel.mel(voice(n * hop)).double()[0] for n in (40, 2, 7)]
    expected = [net(mel[None]) for mel in mels]
    assert [audio.shape[1] for audio in expected] == [mel.shape[1] * hop for mel in mels]
    assert error([form(mel[None]) for mel in mels], expected) < 1e-9
    got = serve(of_generator(form), mels, [audio.shape[1] for audio in expected], seed=1)
    assert error(got, expected) < 1e-9


@pytest.mark.parametrize("framing", ["same", "center"])
def test_half_as_many_frames_sound_when_they_should(framing):
    net = generator(finer_frames=8)
    net = net.for_mel(of_rate(24000, 1920, 480, framing=framing))
    torch.manual_seed(0)
    audio = torch.zeros(1, 60 * 480)
    audio[:, 12000:14400] = torch.randn(1, 2400) / 10
    with torch.no_grad():
        power = net(net.mel.mel(audio))[0, : 60 * 480].square()
    middle = (power * torch.arange(len(power))).sum() / power.sum()
    assert abs(middle - 13200) < 100  # a finer frame is 240


def test_half_as_many_frames_are_made_twice_as_many_before_a_core_that_is_shared():
    net = generator(finer_frames=8)
    before = net(OWN.mel(voice(20 * 256)))
    half = net.for_mel(of_rate(24000, 1920, 480))
    assert half.layers.core.spectrum.trunk is net.layers.core.spectrum.trunk
    assert half.layers.core.finer.needed
    assert not net.layers.core.finer.needed
    assert torch.equal(net(OWN.mel(voice(20 * 256))), before)
    back = half.for_mel(OWN)
    assert torch.equal(back(OWN.mel(voice(20 * 256))), before)
    assert not any("finer" in name for name, _ in net.for_inference().named_modules())


def test_finer_frames_learn_where_the_convention_has_half_as_many_alone():
    more = SMALL | {"finer_frames": 8, "single_pass_bins": 20, "group_delay_bands": 8}
    own, half = UniversalGenerator(OWN, **more), of_rate(24000, 1920, 480)
    fitted = UniversalGenerator(half, **more, learnt_by=OWN.to_dict())
    for net, learns in ((own, False), (fitted, True)):
        assert all(
            parameter.requires_grad == learns for parameter in net.layers.core.finer.sharper.parameters()
        )
    fitted(half.mel(voice(20 * 480))).square().sum().backward()
    learnt = fitted.layers.core.finer.sharper[-1].weight.grad.abs()
    assert 0 < learnt.max() < math.inf  # not that of roots of what nothing is known of
    assert own.layers.core.finer.sharper[-1].weight.abs().max() == 0  # begins as an interpolation


def test_finer_frames_are_taken_over_where_both_have_them():
    taught = generator(finer_frames=8)
    torch.nn.init.normal_(taught.layers.core.finer.sharper[-1].weight)
    state = generator(finer_frames=8, causal=True).begun_as(taught).state_dict()
    for name, value in taught.layers.core.finer.state_dict().items():
        assert torch.equal(state[f"finer.{name}"], value)
    assert not any(name.startswith("finer") for name in generator().begun_as(taught).state_dict())
    without = UniversalGenerator(OWN, **SMALL, finer_frames=8).begun_as(generator())
    assert without.finer.sharper[-1].weight.abs().max() == 0


@pytest.mark.parametrize("net, hop", [({}, 480), ({"finer_frames": 8}, 481), ({"finer_frames": 8}, 600)])
def test_too_few_frames_are_refused(net, hop):
    said = r"expected 59\.4 to 112, or 40\.9 to 56 with an even hop: " if net else r"expected 59\.4 to 112: "
    with pytest.raises(ValueError, match=said):
        generator(**net).for_mel(of_rate(24000, 4 * hop, hop))
    with pytest.raises(ValueError, match=r"finer_frames must be .* got -1"):
        generator(finer_frames=-1)


def test_what_begins_is_told_of_frames_of_another_rate_by_the_same_power():
    """The bound before an onset is a power of samples: of the same sound it is the same at either rate."""
    bounds = []
    for rate, n_fft, hop in ((22050, 1024, 256), (24000, 1024, 256), (24000, 1200, 300)):
        begun = tone(500.0, 22050, 0.5)
        begun[:, : 22050 // 4] *= 1e-4
        amplitudes = parts(begun, 1024, 256).unflatten(2, (2, 513)).square().sum(2).sqrt()
        istft = ISTFT(n_fft, hop, "center", bins=513)
        bound = Beginnings(istft, rate)(amplitudes)
        bounds.append((bound[0, 0].amax().item(), (bound[0, 0] > 1).float().mean().item()))
    assert bounds[0][0] > 100
    for bound in bounds[1:]:
        assert bound[0] == pytest.approx(bounds[0][0], rel=0.05)
        assert bound[1] == pytest.approx(bounds[0][1], rel=0.1)


@pytest.mark.parametrize("n_mels, fmax", [(1, 4000.0), (2, 7000.0), (128, 2000.0)])
def test_bands_wider_than_half_of_all_and_narrower_than_a_bin_make_amplitudes(n_mels, fmax):
    spec = replace(OWN, n_mels=n_mels, fmax=fmax)
    noise = torch.randn(1, 2 * spec.sample_rate, generator=torch.Generator().manual_seed(0)) / 10
    inverse = generator().for_mel(spec).layers.inverse
    heard, told = inverse(spec.mel(noise))[0], int(fmax * 1024 / spec.sample_rate)
    assert heard.isfinite().all()
    if told < 371:  # the last bins are taken for what the net lacks
        lacked = (
            heard[4:-4, told + 2 : told + 40].square().mean().sqrt()
            / heard[4:-4, told // 2 : told].square().mean().sqrt()
        )
        assert 0.3 < lacked < 1.5


@pytest.mark.parametrize(
    "changes, ends",
    [
        ({"fmax": 7000.0}, 371),  # filled
        ({"fmax": 8200.0}, 371),  # cut: the net made 23 dB too much of what was told beyond its own end
        ({"fmax": 9500.0}, 371),
        ({"fmax": 10600.0}, 511),  # nearly all is as all, and falls from there
        ({"fmax": 11025.0}, 511),
        ({"sample_rate": 16000, "hop_length": 200, "n_fft": 800, "win_length": 800, "fmax": 8000.0}, 511),
        ({"sample_rate": 24000, "hop_length": 300, "n_fft": 2048, "win_length": 1200, "fmax": 7600.0}, 371),
        ({"sample_rate": 16000, "fmax": 7600.0}, 511),
    ],
)
def test_a_convention_ends_where_the_nets_own_does_or_tells_of_all(changes, ends):
    net = generator()
    spec = replace(OWN, **changes)
    inverse = net.for_mel(spec).layers.inverse
    assert int(inverse.seen.nonzero().max()) == ends
    noise = torch.randn(1, 4 * spec.sample_rate, generator=torch.Generator().manual_seed(0)) / 10
    heard = inverse(spec.mel(noise))[0, 4:-4].square().mean(0).sqrt()
    told = min(ends, int(spec.fmax * 1024 * spec.hop_length / 256 / spec.sample_rate))
    near_the_end = heard[told - 40 : told - 8] / heard[100:200].mean()
    assert near_the_end.min() > 0.3
    assert near_the_end.max() < 1.6
    assert heard[ends + 1 :].max() == 0
    if told < 480 and ends == 511:  # for the net alone: the rate can't hold it
        beyond = heard[told + 10 : ends] / heard[100:200].mean()
        assert beyond.min() > 0.5
        assert beyond.max() < 1.6
    if told > 480 and ends - told > 10:  # as of a resampler
        assert (heard[told + 4 : ends].diff() < 0).all()
        assert heard[ends] / heard[told - 8] < 10 ** (-50 / 20)


TO_THE_END = replace(OWN, fmax=11025.0, floor=1e-4)


def logs_of(mel: torch.Tensor) -> torch.Tensor:
    """As the spectrum is given them."""
    return MelInverse(TO_THE_END, 1024, beyond=OWN)(mel).clamp_min(AMPLITUDE_FLOOR).log()


def test_the_top_is_as_loud_as_a_convention_says_that_tells_of_it():
    """`default` said -30 to -60 dB of a faint top that the mel told of, since its own convention told of none."""
    spectrum = generator().for_mel(TO_THE_END).layers.core.spectrum
    noise = torch.randn(1, 22050, generator=torch.Generator().manual_seed(0)) / 10
    given = logs_of(TO_THE_END.mel(noise))
    detail = torch.randn(513, generator=torch.Generator().manual_seed(1)) / 2
    first, whole = round(0.92 * 371), slice(round(0.92 * 371) + 32, -17)
    for level in (-5.0, 0.0, 3.0):
        said = given.mean((0, 1)) + level + detail.expand(given.shape)
        made = spectrum.top(given, said)
        assert torch.equal(made[..., :first], said[..., :first])
        loud, told = (logs.exp().unfold(2, 33, 1).mean(3)[..., whole] for logs in (made, given))
        # Louder by what an inverse STFT loses, within what both differ by from bin to bin.
        louder_db = 20 * (loud / told).log10()
        assert louder_db.mean() == pytest.approx(2.3, abs=0.2)
        assert louder_db.std() < 0.8
        # Beside each other bins lie as the net says.
        beside, own = (logs.diff(dim=2)[..., whole] for logs in (made, said))
        assert (beside - own).abs().max() < 0.2
        assert (made[..., first] - said[..., first]).abs().mean() < abs(level) / 8 + 0.1  # it begins softly


def test_below_the_floor_of_a_convention_the_top_is_as_faint_as_the_net_says():
    net = generator().for_mel(TO_THE_END)
    given = logs_of(TO_THE_END.mel(torch.zeros(1, 22050)))
    assert given[..., 450].mean() > -11  # the floor itself isn't silence
    made = [net.layers.core.spectrum.top(given, given + louder) - given for louder in (-3.0, 3.0)]
    assert (made[0] + 3).abs().max() < 0.01
    assert made[1][..., 400:].abs().max() < 0.01


@pytest.mark.parametrize(
    "changes, told",
    [({}, False), ({"fmax": 7000.0}, False), ({"fmax": 9500.0}, False), ({"fmax": 11025.0}, True)],
)
def test_the_net_says_the_top_where_a_convention_tells_of_none(changes, told):
    net = generator().for_mel(replace(OWN, **changes))
    assert (net.layers.core.spectrum.top is not None) == told
    assert net.for_mel(OWN).layers.core.spectrum.top is None


def test_noise_above_the_own_convention_comes_out_as_loud_as_it_was():
    """Through the sound: a head that says a tenth of what is told."""
    noise = torch.randn(1, 4 * 22050, generator=torch.Generator().manual_seed(0)) / 10
    levels = []
    for quieter in (0.0, 2.3):
        net = generator().for_mel(TO_THE_END)
        net.layers.core.spectrum.trunk.head.bias.data[340:513] -= quieter
        with torch.no_grad():
            made = net.eval()(TO_THE_END.mel(noise))
        top = parts(made, 1024, 256)[0].unflatten(1, (2, 513))[..., 380:500]
        levels.append(10 * top.square().sum(1).mean().log10().item())
    assert levels[1] == pytest.approx(levels[0], abs=0.1)


def test_what_a_convention_doesnt_tell_of_falls_by_two_decibels_a_kilohertz():
    """With a top of 16 kHz `default-44khz` had 8 to 17 dB too much at 19 to 22 kHz."""
    noise = torch.randn(1, 8 * 22050, generator=torch.Generator().manual_seed(0)) / 10
    net = generator()
    own, lower = (
        each.layers.inverse(spec.mel(noise))[0, 4:-4].square().mean(0).sqrt()
        for spec in (OWN, replace(OWN, fmax=6000.0))
        for each in [net.for_mel(spec)]
    )
    db = 20 * (lower / own).log10()
    near, far = db[290:310].mean(), db[340:360].mean()  # 50 bins, 1.08 kHz apart
    assert float(near - far) == pytest.approx(2.0 * 50 * 22.05 / 1024, abs=0.6)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"hop_length": 128}, "128, 172 frames a second, expected 59.4 to 112"),
        ({"sample_rate": 8000, "fmax": 4000.0}, "31.2 frames a second"),
        (
            {"sample_rate": 44100, "n_fft": 2048, "win_length": 2048, "hop_length": 512, "fmax": 22050.0},
            "fmax: got 22050 Hz, expected at most 13781 .* up to 11025 Hz of such frames.*default-44khz",
        ),
        ({"sample_rate": 24000, "n_fft": 4096, "win_length": 4096}, "win_length: got 4096"),
    ],
)
def test_frames_that_are_too_different_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        generator().for_mel(replace(OWN, **changes))


@pytest.mark.parametrize("hop", [255, 275])
@pytest.mark.parametrize("framing", ["same", "center"])
def test_an_odd_hop_stands_where_its_mel_does(hop, framing):
    """In framing `same` half a sample is rounded away by the mel's padding, and by the inverse STFT's."""
    spec = replace(OWN, n_fft=4 * hop, win_length=4 * hop, hop_length=hop, framing=framing)
    audio = voice(40 * hop)
    pad = (3 * hop // 2, 3 * hop - 3 * hop // 2) if framing == "same" else (2 * hop, 2 * hop)
    padded = torch.nn.functional.pad(audio[:, None], pad, mode="reflect")[:, 0]
    spectrum = torch.stft(
        padded, 4 * hop, hop, window=torch.hann_window(4 * hop), center=False, return_complex=True
    )
    assert spectrum.shape[-1] == spec.mel(audio).shape[-1]
    made = ISTFT(4 * hop, hop, framing)(torch.cat([spectrum.real, spectrum.imag], 1).transpose(1, 2))
    torch.testing.assert_close(made[:, : 40 * hop], audio, atol=1e-5, rtol=0)
    net = generator().for_mel(spec)
    assert net(spec.mel(audio)).shape == (1, spec.mel(audio).shape[-1] * hop)


def test_a_net_says_what_it_learnt_by_and_is_built_again_by_it():
    spec = of_rate(24000, 1200, 300)
    net = generator(single_pass_bins=20, group_delay_bands=8, between_partials=4)
    built = UniversalGenerator(
        spec, **SMALL, single_pass_bins=20, group_delay_bands=8, between_partials=4, learnt_by=OWN.to_dict()
    )
    built.load_state_dict(net.state_dict())
    mel = spec.mel(voice(30 * 300))
    with torch.no_grad():
        assert torch.equal(built.eval()(mel), net.for_mel(spec)(mel))


def test_a_vocoder_of_another_rate_is_written_and_read(tmp_path):
    config = {"class_path": CLASS_PATH, "init_args": SMALL}
    folder = save_model_folder(tmp_path / "own", generator(), OWN, config=config)
    vocoder = gansound.Vocoder.from_pretrained(folder, mel="parallel_wavegan_24khz", backend="eager")
    assert vocoder.sample_rate == 24000
    mel = vocoder.mel_spec.mel(voice(9000))
    again = gansound.Vocoder.from_pretrained(vocoder.save_pretrained(tmp_path / "it"), backend="eager")
    assert (again.sample_rate, again.mel_spec) == (24000, vocoder.mel_spec)
    assert torch.equal(again(mel), vocoder(mel))
    back = gansound.Vocoder.from_pretrained(tmp_path / "it", mel=OWN, backend="eager")
    own = OWN.mel(voice(9000))
    assert torch.equal(back(own), gansound.Vocoder.from_pretrained(folder, backend="eager")(own))
    with pytest.raises(ValueError, match=r"own: mel fmax: got 22050 Hz.*default-44khz"):
        gansound.Vocoder.from_pretrained(folder, mel="bigvgan_44khz")


def test_a_mel_of_other_bands_is_told_whose_it_may_be():
    vocoder = gansound.Vocoder.from_pretrained("default", backend="eager")
    with pytest.raises(
        ValueError, match=r"got 100 bands .* expected 80; so many have bigvgan_24khz, vocos_24khz"
    ):
        vocoder(torch.zeros(1, 100, 20))


@pytest.mark.parametrize("model", ["default", "default-live"])
@pytest.mark.parametrize(
    "name, least",
    [("vocos_24khz", 3.5), ("bigvgan_24khz", 3.5), ("parallel_wavegan_24khz", 3.2), ("speecht5", 2.9)],
)
def test_the_shipped_vocoders_speak_at_16_and_24_khz(model, name, least, samples):
    """Without the convention's own rate it would sound a semitone and a half lower or 5.6 higher."""
    speech, rate = samples
    vocoder = gansound.Vocoder.from_pretrained(model, mel=name, backend="eager")
    audio = resample(speech, rate, vocoder.sample_rate)
    made = vocoder.vocode_audio(audio, vocoder.sample_rate)
    assert len(made) == len(audio)
    assert pesq_wb(audio, made, vocoder.sample_rate) > least


def test_the_shipped_vocoder_speaks_of_half_as_many_frames(samples):
    """Interpolated alone they give a PESQ of 2.32, by Griffin-Lim 1.75."""
    speech, rate = samples
    vocoder = gansound.Vocoder.from_pretrained("default", mel="cosyvoice2", backend="eager")
    audio = resample(speech, rate, vocoder.sample_rate)
    assert pesq_wb(audio, vocoder.vocode_audio(audio, vocoder.sample_rate), vocoder.sample_rate) > 2.42


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, int]:
    import soundfile

    speech, rate = soundfile.read("samples/allison_hold.flac", dtype="float32")
    return speech, rate
