"""One vocoder for every convention: the inverse of a mel, the net behind it, and how it is taught."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import gansound
from gansound.discriminators.augmentation.phase import PhaseAugmentation
from gansound.draw import Draws
from gansound.engine.plan import plan
from gansound.generators.freev import FreeVGenerator
from gansound.generators.universal import UniversalGenerator
from gansound.generators.universal_weights import _without_future
from gansound.losses.spectral import MelL1
from gansound.mel import MelSpec, presets
from gansound.mel.conventions import drawn_conventions
from gansound.mel.inverse import AMPLITUDE_FLOOR, MelInverse, Tones
from gansound.model_folder import load_model_folder, save_model_folder
from gansound.recipe import load_recipe
from gansound.tasks.adversary import Adversary
from gansound.tasks.universal import UniversalVocoderTask, below
from gansound.tasks.vocoder import WeightedLoss

OWN = MelSpec.preset("hifigan")
SMALL = {"channels": 16, "hidden_channels": 32, "blocks": 2, "kernel_size": 3}
OF_THE_RATE = [
    name for name in presets() if (s := MelSpec.preset(name)).sample_rate == 22050 and s.hop_length == 256
]


def voice(samples: int, seed: int = 0) -> torch.Tensor:
    """Gliding harmonics in noise, `(1, samples)`."""
    time = torch.arange(samples) / OWN.sample_rate
    phase = 2 * math.pi * (150 * time + 20 * torch.sin(2 * math.pi * 1.5 * time))
    harmonics = sum(torch.sin(k * phase) / k for k in range(1, 60))
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return (0.1 * harmonics + 0.02 * noise)[None]


def generator(mel: MelSpec = OWN, seed: int = 0, **settings: object) -> UniversalGenerator:
    torch.manual_seed(seed)
    net = UniversalGenerator(mel, **(SMALL | settings)).eval().requires_grad_(False)
    for parameter in net.parameters():  # as drawn, its trunk says almost nothing
        torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.mark.parametrize("name", ["hifigan", "amphion_24khz", "fish_44khz"])
def test_what_a_convention_adds_to_each_bin_is_no_hum_in_silence(name):
    spec = replace(MelSpec.preset(name), floor=1e-8)
    inverse = MelInverse(spec, spec.n_fft)
    silence = inverse(spec.mel(torch.zeros(1, 20 * spec.hop_length)))[..., inverse.seen.bool()]
    assert silence.mean() < max(1.1 * AMPLITUDE_FLOOR, spec.magnitude_eps**0.5 / 25)


@pytest.mark.parametrize("tones", [0, 96])
@pytest.mark.parametrize("name", OF_THE_RATE)
def test_the_amplitudes_of_any_convention_have_its_mel(name, tones):
    spec = replace(MelSpec.preset(name), clip=None)
    audio = voice(40 * 256)
    mel = spec.mel(audio)
    amplitudes = MelInverse(spec, 1024, tones)(mel)
    again = spec.filter_bank() @ amplitudes.transpose(1, 2)
    assert ((again - spec.to_magnitude(mel)).abs().sum() / again.sum()).item() < 0.03


@pytest.mark.parametrize("tones", [0, 96])
@pytest.mark.parametrize("name", OF_THE_RATE)
def test_a_bin_that_no_band_covers_is_zero_and_a_silent_one_is_the_floor(name, tones):
    spec = replace(MelSpec.preset(name), clip=None)
    inverse = MelInverse(spec, 1024, tones)
    hz = torch.linspace(0, spec.sample_rate / 2, 513)
    covered = (hz > spec.fmin + 15) & (hz < spec.fmax - 15)
    outside = (hz < spec.fmin) | (hz > spec.fmax)
    for audio in (voice(20 * 256), torch.zeros(1, 20 * 256)):
        amplitudes = inverse(spec.mel(audio))[0]
        assert bool((amplitudes[:, covered] >= AMPLITUDE_FLOOR).all())
        assert bool((amplitudes[:, outside] == 0).all())
    # Whatever a convention adds to the power of silence is taken off again; its floor is all that stays.
    assert amplitudes.max().item() <= 40 * max(spec.floor, AMPLITUDE_FLOOR)


@pytest.mark.parametrize(
    "changes",
    [
        {"mel_scale": "htk"},
        {"mel_norm": "none"},
        {"n_mels": 128, "fmax": 11025.0},
        {"n_fft": 2048, "win_length": 1200},
        {"n_fft": 2048, "win_length": 2048},
        {"win_length": 800},
        {"n_fft": 512, "win_length": 512, "n_mels": 64},
        {"magnitude_eps": 1e-4},
    ],
)
def test_every_convention_gives_the_level_of_noise_and_nearly_that_of_a_tone(changes):
    noise = 0.1 * torch.randn(1, 100 * 256, generator=torch.Generator().manual_seed(0))
    tone = 0.3 * torch.sin(2 * math.pi * 1500 / 22050 * torch.arange(40 * 256))[None]
    levels, heights, low = [], [], []
    for spec in (OWN, replace(OWN, **changes)):
        low.append(MelInverse(spec, 1024, 96)(spec.mel(noise))[0, 10:-10, 20:90].mean().item())
        inverse = MelInverse(spec, 1024)
        levels.append(inverse(spec.mel(noise))[0, 10:-10, 100:350].mean().item())
        heights.append(inverse(spec.mel(tone))[0, 10:-10].amax(1).mean().item())
    assert levels[1] == pytest.approx(levels[0], rel=0.03)
    assert 0.6 < heights[1] / heights[0] < 1.7  # narrower bands blur it less
    true = torch.stft(noise, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    assert levels[0] == pytest.approx(true[0, 100:350, 10:-10].mean().item(), rel=0.03)
    # As loud as a tone of that level: of noise a window of half the length gives a root of 2 less.
    level, shorter = true[0, 20:90, 10:-10].mean().item(), changes.get("win_length", 1024) / 1024
    assert low == pytest.approx([level, level * math.sqrt(shorter)], rel=0.05)


def harmonics(hz: float, spec: MelSpec, frames: int = 12) -> torch.Tensor:
    """`(1, frames * hop_length)`, the fourth and fifth fainter by 20 dB."""
    time = torch.arange(frames * spec.hop_length) / spec.sample_rate
    loud = [0.1 if k in (4, 5) else 1.0 for k in range(1, int(4000 / hz))]
    return 0.02 * sum(a * torch.sin(2 * math.pi * (k + 1) * hz * time) for k, a in enumerate(loud))[None]


@pytest.mark.parametrize("name", ["hifigan", "melgan_neurips"])
def test_voices_have_their_harmonics_where_their_lowest_bins_are_told_as_tones(name):
    spec = MelSpec.preset(name)
    off: dict[int, list[float]] = {0: [], 96: []}
    for hz in range(100, 230, 9):
        sound = harmonics(hz, spec)
        framed = torch.nn.functional.pad(sound, (384, 384), mode="reflect")
        window = torch.hann_window(1024)
        true = torch.stft(framed, 1024, 256, window=window, center=False, return_complex=True).abs()[0, :, 6]
        for tones, found in off.items():
            made = MelInverse(spec, 1024, tones)(spec.mel(sound))[0, 6]
            found.append(((made - true)[:48].norm() / true[:48].norm()).item())
    assert max(off[96]) < 0.22
    assert sum(off[0]) > 1.5 * sum(off[96])


def test_what_a_convention_hardly_hears_is_not_told_louder_than_it_is():
    spec = MelSpec.preset("parallel_wavegan")  # from 80 Hz on
    sound = harmonics(110.0, spec, frames=40)
    true = torch.stft(sound, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()[0, :48, 20]
    made = MelInverse(spec, 1024, 96)(spec.mel(sound))[0, 20, :48]
    assert bool((made < 1.2 * true + 0.2)[:8].all())


def test_tones_are_found_as_richardson_and_lucy_do():
    """Against the deconvolution written down, of main lobes that tones have by a Fourier transform."""
    for spec in (OWN, replace(OWN, n_fft=2048, win_length=1200), replace(OWN, fmin=80.0, n_mels=128)):
        hz = (
            np.arange(5 if spec.fmin else -1, 140) * 22050 / 1024
        )  # the first band's middle, or one below 0 Hz
        lobes = {}
        for n_fft, length in ((spec.n_fft, spec.win_length), (1024, 1024)):
            time = (np.arange(length) - length / 2) / 22050
            window = 0.5 + 0.5 * np.cos(2 * np.pi * time * 22050 / length)
            bins = np.arange(n_fft // 2 + 1) * 22050 / n_fft
            away = bins[:, None] - hz
            tones = np.exp(2j * np.pi * np.outer(time, hz)) * window[:, None] / window.sum()
            wave = (np.exp(-2j * np.pi * np.outer(bins, time)) @ tones).real
            lobes[n_fft, length] = np.where(abs(away) < 2 * 22050 / length, wave, 0)
        bank = spec.filter_bank().double().numpy()
        told = [
            band
            for band in range(len(bank))
            if bank[band, np.arange(bank.shape[1]) * 1024 <= 95 * spec.n_fft].any()
        ]
        bands_of = bank[: told[-1] + 1] @ lobes[spec.n_fft, spec.win_length]
        bands_of = bands_of[
            :, hz <= 22050 / spec.n_fft * bank[: told[-1] + 1].any(0).nonzero()[0].max() + 22050 / 1024
        ]
        mel = spec.mel(voice(10 * 256))
        wanted = spec.to_magnitude(mel)[0, : len(bands_of)].double().numpy()
        share, reach = bands_of.sum(0)[:, None].clip(1e-9), bands_of.sum(1)[:, None].clip(1e-9)
        loud = bands_of.T / share @ (wanted / reach)
        for _ in range(10):
            loud = loud * (bands_of.T / share @ (wanted / (bands_of @ loud).clip(1e-9))) ** 1.5
        expected = lobes[1024, 1024][:96, : len(loud)] @ loud * 1024 / spec.win_length
        made = Tones(spec, 1024, 96)(spec.to_magnitude(mel).transpose(1, 2))[0].T.numpy()
        np.testing.assert_allclose(made, expected, rtol=2e-3, atol=1e-5)


def test_a_net_of_tones_undoes_every_convention_so_and_learns_so():
    spec = MelSpec.preset("tacotron2")
    net = generator(tones=96)
    losses = {"mel": WeightedLoss(MelL1(OWN), 1.0)}
    teacher = UniversalVocoderTask(OWN, net, losses=losses, conventions=1)
    for mel, made in {
        OWN: [net.layers.inverse, teacher.views[0][1]],
        spec: [net.for_mel(spec).layers.inverse],
    }.items():
        given = mel.mel(voice(8 * 256))
        expected = MelInverse(mel, 1024, 96)(given)
        assert not torch.equal(MelInverse(mel, 1024)(given), expected)
        for inverse in made:
            assert torch.equal(inverse(given), expected)


@pytest.mark.parametrize("tones", [-1, 257])
def test_tones_beyond_the_lower_half_are_refused(tones):
    with pytest.raises(ValueError, match=f"tones: got {tones} bins, expected 0 to 256"):
        UniversalGenerator(OWN, **SMALL, tones=tones)


def test_a_window_too_different_is_refused():
    for changes in ({"n_fft": 4096, "win_length": 4096}, {"win_length": 400}):
        with pytest.raises(
            ValueError, match=f"win_length: got {changes['win_length']} samples, expected 512"
        ):
            MelInverse(replace(OWN, **changes), 1024)


def test_conventions_are_presets_first_and_each_can_be_inverted():
    specs = drawn_conventions(OWN, 40)
    assert len(specs) == 40
    assert specs == drawn_conventions(OWN, 40) != drawn_conventions(OWN, 40, seed=1)
    assert {s.framing for s in specs} == {"same"}
    for name in OF_THE_RATE:
        spec = replace(MelSpec.preset(name), framing="same", padding="reflect")
        assert (spec in specs) == (spec != OWN)
    assert len(set(specs)) == len(specs)
    assert {s.mel_scale for s in specs} == {"slaney", "htk"}
    assert len({s.n_mels for s in specs}) > 3
    for spec in specs:
        assert (spec.sample_rate, spec.hop_length) == (22050, 256)
        assert bool(torch.isfinite(MelInverse(spec, 1024)(spec.mel(voice(4096)))).all())


def test_a_convention_that_says_the_same_gives_the_same_sound():
    audio = voice(30 * 256)
    net = generator()
    log10 = replace(OWN, log="log10", mean=(-2.0,), scale=(1.5,))
    assert torch.equal(net.for_mel(OWN)(OWN.mel(audio)), net(OWN.mel(audio)))
    torch.testing.assert_close(net.for_mel(log10)(log10.mel(audio)), net(OWN.mel(audio)), atol=2e-4, rtol=0)
    htk = replace(OWN, mel_scale="htk", fmax=11025.0)
    assert (net.for_mel(htk)(htk.mel(audio)) - net(OWN.mel(audio))).abs().max() > 0.01


def test_another_convention_shares_the_weights_and_nothing_else():
    net = generator()
    spec = replace(MelSpec.preset("parallel_wavegan"), fmax=OWN.fmax)
    other = net.for_mel(spec)
    assert (other.n_mels, other.hop_length, other.mel) == (80, 256, spec)
    assert (net.mel, net.layers.core.istft.framing) == (OWN, "same")
    assert other.layers.core.istft.framing == "center"
    mine, theirs = dict(net.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys() == net.state_dict().keys()
    assert all(mine[name] is theirs[name] for name in mine)
    fresh = UniversalGenerator(spec, **SMALL)
    fresh.load_state_dict(net.state_dict())
    mel = spec.mel(voice(20 * 256))
    assert torch.equal(fresh.eval()(mel), other(mel))


@pytest.mark.parametrize("fmax, win_length", [(7600.0, 1024), (7000.0, 800), (7600.0, 2048)])
def test_what_a_convention_lacks_of_the_nets_own_is_as_loud_as_the_last_it_tells(fmax, win_length):
    """By 30 to 44 dB `default` had a gap between 7.6 and 8 kHz of mels that end there."""
    spec = replace(OWN, fmax=fmax, n_fft=max(1024, win_length), win_length=win_length)
    noise = torch.randn(1, 22050 * 4, generator=torch.Generator().manual_seed(0)) / 10

    def heard(net: UniversalGenerator, of: MelSpec) -> torch.Tensor:
        return net.layers.inverse(of.mel(noise))[0, 4:-4].square().mean(0).sqrt()

    net = generator()
    own, other = heard(net, OWN), heard(net.for_mel(spec), spec)
    assert torch.equal(own > 0, other > 0)
    between = slice(int(fmax * 1024 / 22050) - 4, 371)
    assert 0.7 < (other[between] / own[between]).mean() < 1.4
    assert (other[between] / own[between] - 1).abs().max() < 1
    assert heard(UniversalGenerator(spec, **SMALL), spec)[between].min() == 0
    assert torch.equal(heard(net.for_mel(spec).for_mel(OWN), OWN), own)
    higher = replace(spec, fmin=80.0)  # what is below stays unseen
    assert torch.equal(heard(net.for_mel(higher), higher)[:4] > 0, heard(generator(higher), higher)[:4] > 0)


def test_centred_frames_stand_half_a_hop_earlier():
    net = generator()
    centred = net.for_mel(replace(OWN, framing="center"))
    audio = voice(60 * 256)
    delayed = torch.nn.functional.pad(audio, (128, 0))[:, : audio.shape[1]]
    mel, late = centred.mel.mel(audio)[..., :60], OWN.mel(delayed)
    torch.testing.assert_close(mel[..., 5:-5], late[..., 5:-5], atol=1e-4, rtol=1e-4)
    made, made_late = centred(mel), net(late)
    assert made.shape == made_late.shape == audio.shape
    inside = slice(20 * 256, -20 * 256)
    torch.testing.assert_close(made[:, inside], torch.roll(made_late, -128, 1)[:, inside], atol=1e-4, rtol=0)


def test_rounding_stays_rounding_where_the_phase_is_of_nothing():
    """Maps of the phase near zero: a change of 1e-6 in them is a change of at most 1e-5 in the phasor."""
    net = generator()
    bins = 513
    given = torch.zeros(1, 1, bins)
    head = torch.zeros(1, 1, 3 * bins)
    before = net.layers.core.spectrum.combine(given, head)
    head[..., bins:] = 1e-6
    after = net.layers.core.spectrum.combine(given, head)
    assert 0 < (after - before).abs().max().item() <= 1.01e-5
    head[..., bins : 2 * bins], head[..., 2 * bins :] = 3.0, 4.0
    real, imaginary = net.layers.core.spectrum.combine(given, head).chunk(2, -1)
    torch.testing.assert_close(real, torch.full_like(real, 0.6), atol=1e-3, rtol=0)
    torch.testing.assert_close(imaginary, torch.full_like(real, 0.8), atol=1e-3, rtol=0)


def test_below_keeps_what_is_below_and_nothing_above():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 4096, generator=rng)
    cut = below(noise, torch.tensor([4000.0, 11025.0, 8000.0]), 22050)
    torch.testing.assert_close(cut[1], noise[1], atol=1e-5, rtol=0)
    hz = torch.fft.rfftfreq(4096, 1 / 22050)
    for row, limit in ((0, 0.97 * 4000), (2, 0.97 * 8000)):
        spectrum, whole = torch.fft.rfft(cut[row]), torch.fft.rfft(noise[row])
        torch.testing.assert_close(spectrum[hz < limit], whole[hz < limit], atol=1e-3, rtol=0)
        assert spectrum[hz >= limit].abs().max().item() < 1e-3


def task(conventions: int = 6, own_share: float = 0.5, mel: MelSpec = OWN) -> UniversalVocoderTask:
    torch.manual_seed(0)
    losses = {"mel": WeightedLoss(MelL1(mel, full_band=True), 1.0)}
    net = UniversalGenerator(mel, **SMALL)
    return UniversalVocoderTask(mel, net, losses=losses, conventions=conventions, own_share=own_share)


def batch(items: int, bandwidth: float = 11025.0) -> dict[str, torch.Tensor]:
    audio = torch.cat([voice(16 * 256, seed) for seed in range(items)])
    return {"audio": audio, "bandwidth_hz": torch.full((items,), bandwidth)}


def test_each_item_is_seen_through_a_convention_drawn_for_its_position():
    teacher, whole = task(), batch(12)
    (seen,) = teacher.generator_inputs(whole, Draws(0, range(12)))
    assert seen.shape == (12, 16, 513)
    own = teacher.condition(whole)
    is_own = [torch.equal(a, b) for a, b in zip(seen, own, strict=True)]
    assert 2 <= sum(is_own) <= 10
    # A position's convention doesn't depend on the batch it stands in.
    part = {name: value[5:9] for name, value in whole.items()}
    (again,) = teacher.generator_inputs(part, Draws(0, range(5, 9)))
    torch.testing.assert_close(again, seen[5:9])
    teacher.own_share = 0.0
    (others,) = teacher.generator_inputs(whole, Draws(0, range(12)))
    assert not any(torch.equal(a, b) for a, b in zip(others, own, strict=True))
    kinds = {tuple((item > 0).any(0).nonzero().flatten().tolist()) for item in others}
    assert len(kinds) > 1  # of those that tell of more than the own


@pytest.mark.parametrize(
    "bandwidth, top, teaches", [(11025.0, 8000.0, True), (8000.0, 8000.0, False), (8000.0, 11025.0, True)]
)
def test_nothing_is_learnt_above_what_a_recording_holds_unless_its_mel_tells_that_it_is_empty(
    bandwidth, top, teaches
):
    teacher = task(own_share=1.0, mel=replace(OWN, fmax=top))
    given = batch(2, bandwidth)
    fake = torch.randn(2, 16 * 256, generator=torch.Generator().manual_seed(1)).requires_grad_()
    losses = teacher.generator_phase(given, fake, None, Draws(0, range(2)), 0, torch.no_grad)
    losses["mel"].backward()
    gradient = torch.fft.rfft(fake.grad).abs()
    hz = torch.fft.rfftfreq(16 * 256, 1 / 22050)
    above, under = gradient[:, hz > 8000].max().item(), gradient[:, hz < 7000].max().item()
    assert under > 1e-6
    assert (above > 1e-2 * under) == teaches


def test_what_is_learnt_above_a_recording_goes_by_the_convention_drawn_for_the_item():
    teacher = task(conventions=6, own_share=0.5)
    draws = Draws(0, range(12))
    fake = torch.randn(12, 16 * 256, generator=torch.Generator().manual_seed(1)).requires_grad_()
    teacher.generator_phase(batch(12, 8000.0), fake, None, draws, 0, torch.no_grad)["mel"].backward()
    hz = torch.fft.rfftfreq(16 * 256, 1 / 22050)
    taught = torch.fft.rfft(fake.grad).abs()[:, hz > 9500].amax(1) > 1e-7
    (seen,) = teacher.generator_inputs(batch(12, 8000.0), draws)
    bins = torch.linspace(0, 11025, 513)
    told = (seen[:, :, bins > 9600] > 0).any(2).any(1)
    assert taught.tolist() == told.tolist()
    assert 0 < sum(taught.tolist()) < 12


def test_what_the_inverse_leaves_out_of_a_convention_isnt_taken_for_told():
    teacher = task(conventions=40)
    tops = [int(view[1].seen.nonzero().max()) * 22050 / 1024 for view in teacher.views]
    cut = 0
    for top, told, view in zip(tops, teacher.tops_hz, teacher.views, strict=True):
        assert told <= top + 22
        assert told == pytest.approx(min(view[1].mel.fmax, top), abs=22)
        cut += view[1].mel.fmax > top + 100
    assert cut > 5


class Listening(torch.nn.Module):
    """A discriminator that keeps what it was shown."""

    def forward(self, audio):
        self.heard = audio
        return [[audio, audio, audio]]


def test_discriminators_hear_no_more_than_a_recording_holds():
    judge = Listening()
    spectral = {"mel": WeightedLoss(MelL1(OWN, full_band=True), 1.0)}
    net = UniversalGenerator(OWN, **SMALL)
    turned = PhaseAugmentation()
    teacher = UniversalVocoderTask(
        OWN, net, {"one": Adversary(judge)}, losses=spectral, phase_augmentation=turned, conventions=2
    )
    assert teacher.phase_augmentation is turned
    teacher.phase_augmentation = None
    given = batch(2, 8000.0)
    fake = torch.randn(2, 16 * 256, generator=torch.Generator().manual_seed(1))
    hz = torch.fft.rfftfreq(16 * 256, 1 / 22050)
    verdict = teacher.discriminator_phase(given, fake, Draws(0, range(2)), 0, torch.no_grad)
    for phase in (0, 1):
        if phase:
            teacher.generator_phase(given, fake, verdict.kept, Draws(0, range(2)), 0, torch.no_grad)
        spectrum = torch.fft.rfft(judge.heard).abs()
        assert spectrum[:, hz < 7000].max() > 1
        assert spectrum[:, hz > 8000].max() < 1e-3


def test_a_trained_core_is_shipped_behind_its_convention(tmp_path):
    teacher = task()
    with torch.no_grad():
        teacher.generator.spectrum.trunk.head.bias.add_(0.1)
    config = {"class_path": "gansound.generators.universal.UniversalGenerator", "init_args": SMALL}
    whole, described = teacher.shipped(teacher.generator, config)
    save_model_folder(tmp_path / "model", whole, OWN, config=described)
    loaded = load_model_folder(tmp_path / "model").generator
    mel = OWN.mel(voice(12 * 256))
    with torch.no_grad():
        torch.testing.assert_close(loaded(mel), whole(mel))
        torch.testing.assert_close(
            whole(mel), teacher.generator(teacher.condition({"audio": voice(12 * 256)})).flatten(1)
        )
    learnt = teacher.learner(loaded).state_dict()
    assert all(torch.equal(value, learnt[name]) for name, value in loaded.layers.core.state_dict().items())
    with pytest.raises(ValueError, match="got a Linear, expected a UniversalGenerator or a FreeVGenerator"):
        teacher.learner(torch.nn.Linear(1, 1))


def test_its_bands_begin_as_the_filter_bank_of_its_mel():
    net = UniversalGenerator(OWN, **SMALL)
    trunk = net.layers.core.spectrum.trunk
    level = torch.tensor([1e-3, 0.02, 0.5])  # of a flat spectrum: a band's log is then that of its bins
    amplitudes = level[None, :, None].expand(1, 3, 513)
    bands = trunk.bands(trunk.input(amplitudes))
    mel = (amplitudes @ OWN.filter_bank().T).log()
    torch.testing.assert_close(bands, (mel + 5) / 3, atol=1e-4, rtol=0)


def test_a_net_of_one_convention_goes_on_as_a_universal_one():
    freev = FreeVGenerator(OWN, **SMALL)
    for name, parameter in freev.named_parameters():
        if "head" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():  # a phase that is far from nothing
        freev.layers.spectrum.trunk.head.bias[513:] = 2.0
    core = task().learner(freev)
    begun = UniversalGenerator(OWN, **SMALL).around(core)
    level = torch.tensor([0.01, 0.02, 0.04, 0.02, 0.05, 0.01, 0.03]).repeat(3)
    mel = OWN.from_magnitude((level[:, None] * OWN.filter_bank().sum(1)).T[None])
    with torch.no_grad():
        made, expected = begun(mel), freev(mel)
    assert (made - expected).abs().max() < 0.03 * expected.abs().max() > 0
    with pytest.raises(
        ValueError, match=r"embed.conv.weight: got \(8, 80, 1, 3\), expected \(16, 80, 1, 3\)"
    ):
        task().learner(FreeVGenerator(OWN, **(SMALL | {"channels": 8})))


def test_a_causal_net_begins_as_one_that_looks_ahead_at_what_stays():
    ahead = generator()
    causal = UniversalGenerator(OWN, **SMALL, causal=True)
    begun = causal.around(causal.begun_as(ahead)).eval()
    still = OWN.from_magnitude(torch.linspace(0.01, 0.3, 80)[None, :, None].expand(1, 80, 40))
    inside = slice(12 * 256, -12 * 256)
    with torch.no_grad():
        made, expected = begun(still)[:, inside], ahead(still)[:, inside]
    torch.testing.assert_close(made, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    kernel = torch.arange(5.0).reshape(1, 1, 1, 5)  # two frames back to two ahead; now: two back to itself
    assert _without_future(kernel, 2).flatten().tolist() == [0, 0, 0, 1, 2 + 3 + 4]
    moving = torch.randn(1, 80, 30, generator=torch.Generator().manual_seed(0))
    later = moving.clone()
    later[..., 20:] += 1
    with torch.no_grad():
        torch.testing.assert_close(begun(moving)[:, : 18 * 256], begun(later)[:, : 18 * 256])


def test_steps_of_griffin_lim_are_taken_over_where_both_have_the_same():
    taught = UniversalGenerator(OWN, **SMALL, griffin_lim=2)
    steps = taught.layers.core.griffin_lim.steps
    for step in steps:
        torch.nn.init.normal_(step.taps)
    begun = UniversalGenerator(OWN, **SMALL, griffin_lim=2).begun_as(taught)
    assert all(
        torch.equal(mine.taps, its.taps) for mine, its in zip(begun.griffin_lim.steps, steps, strict=True)
    )
    for other in ({"griffin_lim": 3}, {"griffin_lim": 2, "causal": True, "look_ahead": 1}, {}):
        fresh = UniversalGenerator(OWN, **SMALL, **other)
        kept = dict(fresh.layers.core.named_parameters(prefix=""))
        made = fresh.begun_as(taught)
        assert torch.equal(made.spectrum.trunk.head.weight, taught.layers.core.spectrum.trunk.head.weight)
        for name, taps in made.named_parameters():
            if "taps" in name:
                assert torch.equal(taps, kept[name])


def test_a_net_of_twice_the_rate_begins_as_the_other_does_below_its_nyquist():
    narrow = generator()
    mel = MelSpec.preset("bigvgan_44khz")
    wide = UniversalGenerator(mel, **(SMALL | {"n_fft": 2048, "bands": 100}))
    for parameter in wide.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    begun = wide.begun_as(narrow).eval()
    heard = torch.rand(1, 20, 513, generator=torch.Generator().manual_seed(0)) * 3
    heard[..., :4] = 0  # bins that a convention never saw
    more = torch.rand(1, 20, 1025, generator=torch.Generator().manual_seed(1))
    more[..., :513] = 2 * heard  # a window of twice as many samples
    with torch.no_grad():
        expected = torch.stack(narrow.layers.core.spectrum(heard).chunk(2, -1))
        made = torch.stack(begun.spectrum(more).chunk(2, -1))
    silent = torch.zeros(513)
    silent[:4] = math.log(2)  # of what isn't heard the level isn't known either
    scale = 2 * torch.exp(-silent)
    torch.testing.assert_close(
        made[..., :513], scale * expected, atol=1e-4 * expected.abs().max().item(), rtol=0
    )
    with pytest.raises(ValueError, match=r"bands\.weight: got"):
        UniversalGenerator(mel, **(SMALL | {"n_fft": 2048, "bands": 64})).begun_as(narrow)
    slower = replace(mel, hop_length=256)
    with pytest.raises(ValueError, match=r"bands\.weight: got"):
        UniversalGenerator(slower, **(SMALL | {"n_fft": 2048, "bands": 100})).begun_as(narrow)


def test_phases_of_its_own_turn_the_lowest_bins():
    """What the trunk says of a bin's phase is said of the phase that goes on; of the other bins, of none."""
    net = generator(single_pass_bins=20)
    core = net.layers.core
    heard = core.single_pass(torch.rand(1, 12, 513, generator=torch.Generator().manual_seed(0)))
    cosine, sine = heard[..., 513:].chunk(2, -1)
    still = torch.cat([heard[..., :513], torch.ones_like(cosine), torch.zeros_like(sine)], -1)
    for path in core.spectrum.paths()[:1]:  # amplitudes are of amplitudes alone
        assert torch.equal(path(heard), path(still))
    said = core.spectrum.trunk(heard)
    turned = torch.complex(
        *core.spectrum.combine(core.spectrum.given(heard), said, heard[..., 513:]).chunk(2, -1)
    )
    plain = torch.complex(
        *core.spectrum.combine(core.spectrum.given(heard), said, still[..., 513:]).chunk(2, -1)
    )
    torch.testing.assert_close(turned[..., 20:], plain[..., 20:], rtol=0, atol=0)
    torch.testing.assert_close(
        turned[..., :20], plain[..., :20] * torch.complex(cosine, sine), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(core.spectrum.trunk(still), said)  # which hears them too


def test_a_net_without_phases_goes_on_with_them():
    """The highest bins say what they said; the lowest have the phases handed in, at the starts of frames."""
    taught = generator(griffin_lim=1)
    begun = UniversalGenerator(OWN, **SMALL, griffin_lim=1, single_pass_bins=20).begun_as(taught)
    amplitudes = torch.rand(1, 12, 513, generator=torch.Generator().manual_seed(0)) + 0.1
    with torch.no_grad():
        expected = torch.complex(*taught.layers.core.spectrum(amplitudes).chunk(2, -1))
        handed = begun.single_pass(amplitudes)
        made = torch.complex(*begun.spectrum(handed).chunk(2, -1))
    torch.testing.assert_close(made[..., 20:], expected[..., 20:], rtol=1e-4, atol=1e-4)
    phase = torch.complex(*handed[..., 513:].chunk(2, -1)) * (-1.0) ** torch.arange(20)
    low = made[..., :20]
    torch.testing.assert_close(low / low.abs(), phase, rtol=0, atol=1e-4)
    assert torch.equal(begun.griffin_lim.steps[0].taps, taught.layers.core.griffin_lim.steps[0].taps)
    again = UniversalGenerator(OWN, **SMALL, griffin_lim=1, single_pass_bins=20)
    again = again.begun_as(again.around(begun))
    for mine, its in zip(again.parameters(), begun.parameters(), strict=True):
        assert torch.equal(mine, its)
    freev = FreeVGenerator(OWN, **SMALL)
    from_freev = UniversalGenerator(OWN, **SMALL, single_pass_bins=20).begun_as(freev)
    assert torch.equal(
        from_freev.spectrum.trunk.embed.conv.weight[:, :80], freev.layers.spectrum.trunk.embed.conv.weight
    )
    with pytest.raises(ValueError, match=r"bands\.weight: got"):
        UniversalGenerator(OWN, **SMALL).begun_as(generator(single_pass_bins=20))


def test_a_net_of_twice_the_rate_takes_phases_over_too():
    mel = MelSpec.preset("bigvgan_44khz")
    narrow = generator(single_pass_bins=20)
    wide = UniversalGenerator(mel, **(SMALL | {"n_fft": 2048, "bands": 100}), single_pass_bins=20)
    for parameter in wide.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    begun = wide.begun_as(narrow).eval()
    heard = torch.rand(1, 20, 513, generator=torch.Generator().manual_seed(0)) * 3 + 0.01
    more = torch.rand(1, 20, 1025, generator=torch.Generator().manual_seed(1))
    more[..., :513] = 2 * heard  # a window of twice as many samples
    with torch.no_grad():
        expected = torch.stack(
            narrow.layers.core.spectrum(narrow.layers.core.single_pass(heard)).chunk(2, -1)
        )
        made = torch.stack(begun.spectrum(begun.single_pass(more)).chunk(2, -1))
    torch.testing.assert_close(made[..., :513], 2 * expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    silent = UniversalGenerator(mel, **(SMALL | {"n_fft": 2048, "bands": 100}))
    with pytest.raises(ValueError, match=r"bands\.weight: got"):
        silent.begun_as(narrow)
    plain = UniversalGenerator(mel, **(SMALL | {"n_fft": 2048, "bands": 100}), single_pass_bins=20)
    from_silent = plain.begun_as(generator())
    assert from_silent.spectrum.trunk.head.bias[1025] == 0.5
    assert bool((from_silent.spectrum.trunk.embed.conv.weight[:, 100:] == 0).all())


def test_what_the_trunk_says_is_turned_to_the_moment():
    """A click is where it was, five parts of its own phase to one of what the trunk says of its frame."""
    net = generator(single_pass_bins=20, group_delay_bands=8).eval()
    core = net.layers.core
    sound = torch.zeros(8192)
    sound[4017] = 0.5
    frames = sound.unfold(0, 1024, 256) * torch.hann_window(1024)
    true = torch.fft.rfft(frames)[None]
    with torch.no_grad():
        head = core.spectrum.trunk.head
        head.weight.zero_()
        head.bias.zero_()
        head.bias[1026:] = (-1.0) ** torch.arange(513)
        heard = core.single_pass(true.abs())
        made = torch.complex(*core.spectrum(heard).chunk(2, -1))
    torch.testing.assert_close(made, true * complex(5, 1) / abs(complex(5, 1)), atol=2e-3, rtol=0)


def test_what_lasts_moves_from_8_khz_on():
    always = generator(group_delay_bands=8).layers.core.spectrum.delay.always
    assert always.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]  # of 11025 / 7 Hz
    mel = MelSpec.preset("bigvgan_44khz")
    wide = UniversalGenerator(mel, **(SMALL | {"n_fft": 2048, "bands": 100}), group_delay_bands=8)
    assert wide.layers.core.spectrum.delay.always.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("place", [4017, 4100, 4200])
def test_a_causal_net_has_a_click_in_its_place_for_what_griffin_lim_waits_for_anyway(place):
    """Whatever the net says of it; what lasts, it says alone."""
    causal = {"causal": True, "griffin_lim": 2, "look_ahead": 1}
    net, silent = (generator(**causal, group_delay_bands=bands).eval() for bands in (8, 0))
    silent.load_state_dict(net.state_dict())
    assert net.receptive_field.lookahead == silent.receptive_field.lookahead
    sound = torch.zeros(8192)
    sound[place] = 0.5
    window = torch.hann_window(1024)
    padded = torch.nn.functional.pad(sound, (384, 384))
    amplitudes = torch.stft(padded, 1024, 256, window=window, center=False, return_complex=True).abs().T[None]
    with torch.no_grad():
        made = net.layers.core(amplitudes)[0]
        torch.testing.assert_close(
            net.layers.core(torch.ones(1, 32, 513)), silent.layers.core(torch.ones(1, 32, 513))
        )
    assert int(made.abs().argmax()) == place
    assert float(made[: place - 66].square().mean()) < 1e-6 * float(made.abs().max()) ** 2


def test_a_net_without_group_delays_goes_on_with_them():
    taught = generator(single_pass_bins=20)
    begun = UniversalGenerator(OWN, **SMALL, single_pass_bins=20, group_delay_bands=8).begun_as(taught)
    lasting = torch.rand(1, 1, 513, generator=torch.Generator().manual_seed(0)).expand(1, 12, 513) + 0.1
    with torch.no_grad():
        expected = taught.layers.core(lasting)[:, 1024:-1024]
        torch.testing.assert_close(begun(lasting)[:, 1024:-1024], expected)  # by two bands
    with pytest.raises(ValueError, match="group_delay_bands must be 0, or 2 to 513 with n_fft 1024; got 1"):
        UniversalGenerator(OWN, **SMALL, group_delay_bands=1)


@pytest.mark.parametrize("bins", [1, -1, 512, 600])
def test_bins_that_have_no_phases_are_refused(bins):
    with pytest.raises(
        ValueError, match=rf"single_pass_bins must be 0, or 2 to 511 with n_fft 1024; got {bins}"
    ):
        UniversalGenerator(OWN, **SMALL, single_pass_bins=bins)


@pytest.mark.parametrize("width, bins", [(-1, 20), (8, 0)])
def test_phases_between_partials_are_refused_without_those_of_partials(width, bins):
    with pytest.raises(
        ValueError, match=f"between_partials must be 0, .* got {width} with single_pass_bins {bins}"
    ):
        UniversalGenerator(OWN, **SMALL, between_partials=width, single_pass_bins=bins)


def test_a_net_begins_to_learn_phases_between_partials_where_it_was():
    taught = generator(single_pass_bins=20)
    begun = UniversalGenerator(OWN, **SMALL, single_pass_bins=20, between_partials=8)
    begun = begun.around(begun.begun_as(taught))
    mel = OWN.mel(torch.randn(1, 8000, generator=torch.Generator().manual_seed(5)) / 10)
    assert torch.allclose(begun(mel), taught(mel), atol=1e-5)


def test_a_causal_net_takes_over_phases_between_partials_as_if_all_frames_to_come_were_the_last():
    """A steady sound's turns, where all that it sees is steady, are those of the net that looked ahead."""
    made = {"single_pass_bins": 20, "between_partials": 8}
    ahead = generator(**made)
    between = ahead.layers.core.spectrum.phases
    for parameter in between.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
    causal = UniversalGenerator(OWN, **SMALL, **made, causal=True).begun_as(ahead).spectrum.phases
    frame = torch.rand(1, 1, 513 + 40, generator=torch.Generator().manual_seed(4))
    steady = frame.expand(-1, 20, -1)
    with torch.no_grad():
        assert torch.allclose(causal(steady)[:, 12], between(steady)[:, 12], atol=1e-5)
        assert not torch.allclose(causal(steady)[:, 12], steady[:, 12, 513:], atol=0.1)
    assert (causal.ahead, between.ahead) == (0, 2)


@pytest.mark.parametrize("settings", [{"own_share": 1.5}, {"conventions": 0}])
def test_shares_that_leave_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="own_share"):
        task(**settings)


def test_a_vocoder_takes_another_convention_by_name(tmp_path):
    config = {"class_path": "gansound.generators.universal.UniversalGenerator", "init_args": SMALL}
    folder = save_model_folder(tmp_path / "any", generator(), OWN, config=config)
    vocoder = gansound.Vocoder.from_pretrained(folder, mel="tacotron2", backend="eager")
    spec = MelSpec.preset("tacotron2")
    assert vocoder.mel_spec == spec
    audio = voice(30 * 256)
    mel = spec.mel(audio)
    whole = vocoder(mel)
    assert whole.shape == (1, mel.shape[-1] * 256)
    with vocoder.stream() as stream:
        parts = [stream.push(mel[0, :, i : i + 7].numpy()) for i in range(0, mel.shape[-1], 7)]
        parts.append(stream.flush())
    np.testing.assert_allclose(np.concatenate(parts), whole[0].numpy(), atol=1e-5)
    again = gansound.Vocoder.from_pretrained(vocoder.save_pretrained(tmp_path / "own"), backend="eager")
    assert again.mel_spec == spec
    assert torch.equal(again(mel), whole)
    as_json = gansound.Vocoder.from_pretrained(folder, mel=OWN, backend="eager")
    assert as_json.mel_spec == OWN
    with pytest.raises(ValueError, match=r"preset 'vocos' isn't known .did you mean vocos_24khz"):
        gansound.Vocoder.from_pretrained(folder, mel="vocos")


def test_a_graph_takes_off_what_a_convention_added_to_silence():
    """An ONNX exporter leaves out the subtraction of a constant that is nearly nothing."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    inverse = MelInverse(OWN, 1024)
    faint = OWN.mel(2e-6 * voice(8 * 256))  # below the root of its epsilon, 3e-5
    file = io.BytesIO()
    torch.onnx.export(inverse, (faint,), dynamo=True, verbose=False).save(file)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: faint.numpy()})
    np.testing.assert_allclose(given, inverse(faint).numpy(), rtol=0.02, atol=1e-7)


def test_a_vocoder_of_one_convention_says_the_way_out(tmp_path):
    sizes = {"channels": 8, "hidden_channels": 8, "blocks": 1}
    config = {"class_path": "gansound.generators.freev.FreeVGenerator", "init_args": sizes}
    folder = save_model_folder(tmp_path / "one", FreeVGenerator(OWN, **sizes), OWN, config=config)
    with pytest.raises(ValueError, match=r"can't be converted exactly: fmin 80.0 → 0.*universal"):
        gansound.Vocoder.from_pretrained(folder, mel="parallel_wavegan")


def test_the_recipe_builds_the_universal_task():
    built = plan(load_recipe("universal_cpu", []))
    assert isinstance(built.task, UniversalVocoderTask)
