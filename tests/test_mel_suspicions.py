"""The warnings about a mel's values: none on real speech, the right one where the convention is another."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gansound.mel import MelSpec, presets

DECIBEL = math.log(10.0) / 20.0
EIGHTY = [name for name in presets() if MelSpec.preset(name).n_mels == 80]


@functools.cache
def speech_like(sample_rate: int, seed: int, noise_db: float = -60.0, seconds: float = 1.5) -> np.ndarray:
    """A gliding harmonic source through moving formants, bursts of hiss and pauses, in room noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch = 140 * 2 ** (0.4 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formants = [(500, 120), (1500, 200), (2600, 300), (3600, 400)]
    voice = np.zeros_like(t)
    for k in range(1, 40):
        hz = k * pitch
        gain = sum(
            1 / (1 + ((hz - f * (1 + 0.2 * np.sin(2 * np.pi * 2 * t + f))) / w) ** 2) for f, w in formants
        )
        voice += np.where(hz < sample_rate / 2.2, gain / k**0.5, 0) * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t + rng.uniform(0, 6)), 0, 1) ** 0.5 * (
        np.sin(2 * np.pi * 0.5 * t) > -0.7
    )
    hiss = 0.15 * rng.standard_normal(len(t)) * np.clip(np.sin(2 * np.pi * 3.1 * t + 2.5), 0, 1) ** 4
    audio = voice * syllables / np.abs(voice).max() + hiss
    return (0.5 * audio / np.abs(audio).max() + 10 ** (noise_db / 20) * rng.standard_normal(len(t))).astype(
        np.float32
    )


@functools.cache
def mel_of(
    spec: MelSpec, seed: int, gain_db: float = 0.0, noise_db: float = -60.0, seconds: float = 1.5
) -> Tensor:
    audio = speech_like(spec.sample_rate, seed, noise_db, seconds) * 10 ** (gain_db / 20)
    return spec.mel(torch.from_numpy(audio.astype(np.float32)))


@pytest.mark.parametrize("name", presets())
def test_no_false_alarm_on_speech_like_sound(name):
    spec = MelSpec.preset(name)
    for seed, (gain, noise) in enumerate([(0, -60), (6, -70), (-20, -60), (0, -45)]):
        assert spec.suspicions(mel_of(spec, seed, gain, noise)) == []


@pytest.mark.parametrize("name", presets())
def test_zeros_at_the_end_are_told_where_they_are_no_silence(name):
    spec = MelSpec.preset(name)
    mel = mel_of(spec, 0)
    frames = mel.shape[-1]
    silence = spec.mel(torch.zeros(1, 30 * spec.hop_length))
    heard = name != "seungwonpark_melgan"  # whose 0 lies 91 dB below full scale
    assert spec.padded(mel) == spec.padded(torch.cat([mel, silence], -1)) == ""
    said = spec.padded(functional.pad(mel, (0, 30)))
    assert bool(said) == heard, said
    if heard:
        assert f"the last 30 of {frames + 30} frames are 0 in all bands" in said
        assert said == spec.padded(functional.pad(mel[0], (0, 30)))
        assert said == spec.padded(torch.cat([functional.pad(mel, (0, 30)), functional.pad(mel, (30, 0))]))
    assert spec.padded(functional.pad(mel, (0, 1))) == spec.padded(functional.pad(mel, (9, 0))) == ""
    assert spec.padded(torch.zeros_like(mel)) == spec.padded(mel[..., :0]) == ""


@pytest.mark.parametrize("name", ["hifigan", "coqui", "parallel_wavegan"])
def test_a_mel_is_judged_and_converted_on_its_own_device(name):
    spec, speech = MelSpec.preset(name), mel_of(MelSpec.preset(name), 0)
    higher_floor = dataclasses.replace(spec, floor=1e-3)
    other_floor = torch.cat([speech, torch.full_like(speech, float(speech.min()) + 3)], -1)
    for values in (speech, 2.3 * speech, other_floor):
        expected, converted = spec.suspicions(values), spec.convert(values, higher_floor)
        # What is made beside a mel without saying where is then elsewhere, as on the CPU beside a GPU's mel.
        with torch.device("meta"):
            assert spec.suspicions(values) == expected
            assert torch.equal(spec.convert(values, higher_floor), converted)


@pytest.mark.parametrize("declared", ["hifigan", "tacotron2", "nemo", "bigvgan_22khz"])
def test_log10_in_an_ln_model_is_named(declared):
    for seed in range(3):
        found = MelSpec.preset(declared).suspicions(mel_of(MelSpec.preset("melgan_neurips"), seed))
        assert len(found) == 1
        assert "base-10" in found[0]
        assert "this convention is ln" in found[0]


@pytest.mark.parametrize("declared", ["melgan_neurips", "parallel_wavegan"])
def test_ln_in_a_log10_model_is_named(declared):
    for seed in range(3):
        (found,) = MelSpec.preset(declared).suspicions(mel_of(MelSpec.preset("hifigan"), seed))
        assert "natural logarithms (ln)" in found
        assert "this convention is log10" in found


def test_other_readings_are_named():
    spec = MelSpec.preset("hifigan")
    mel = mel_of(spec, 5)
    standardised = (mel - mel.mean(-1, keepdim=True)) / mel.std(-1, keepdim=True)
    for values, words in [
        (mel / DECIBEL, "decibels"),
        (mel.exp(), "linear magnitudes"),
        (standardised, "Coqui"),
        (mel.transpose(1, 2), "transposed"),
        (mel[:, :60], "expected (B, 80, F)"),
    ]:
        found = spec.suspicions(values)
        assert len(found) == 1
        assert words in found[0] or (values is standardised and "normalised" in found[0])
    assert "ln + 5" in spec.suspicions((mel + 5) / 5)[0]
    assert "ln" in MelSpec.preset("seungwonpark_melgan").suspicions(mel_of(MelSpec.preset("tacotron2"), 5))[0]


@pytest.mark.parametrize("declared", ["hifigan", "coqui", "melgan_neurips"])
def test_a_mel_normalised_as_a_whole_is_not_taken_for_decibels(declared):
    for seed in range(3):
        mel = mel_of(MelSpec.preset("hifigan"), seed)
        (found,) = MelSpec.preset(declared).suspicions((mel - mel.mean()) / mel.std())
        assert "mean 0 and deviation 1 over all bands" in found


@pytest.mark.parametrize("declared", EIGHTY)
@pytest.mark.parametrize("other", EIGHTY)
def test_presets_against_each_other(declared, other):
    a, b = MelSpec.preset(declared), MelSpec.preset(other)
    seconds = (
        6.0 if b.hop_length / b.sample_rate > 0.016 else 1.5
    )  # at 50 frames a second 1.5 s tell too little
    hits = [bool(a.suspicions(mel_of(b, seed, seconds=seconds))) for seed in range(2)]
    same_values = (a.log, a.mean, a.scale) == (b.log, b.mean, b.scale)
    if same_values and a.floor == b.floor:
        assert not any(hits)
    elif not same_values and "coqui" not in (declared, other):
        assert all(hits)


def test_silence_at_another_level_is_seen():
    spec = MelSpec.preset("amphion_24khz")
    audio = torch.from_numpy(speech_like(24000, 3, -120.0))
    audio = torch.cat([torch.zeros(24000), audio])
    assert spec.suspicions(spec.mel(audio)) == []
    (found,) = MelSpec.preset("bigvgan_24khz").suspicions(spec.mel(audio))
    assert "silence lies at -10" in found
    assert "-11.51" in found


def test_too_little_to_judge_is_no_warning():
    spec = MelSpec.preset("hifigan")
    assert spec.suspicions(torch.full((1, 80, 100), math.log(1e-5))) == []
    assert spec.suspicions(mel_of(MelSpec.preset("melgan_neurips"), 0)[:, :, :40]) == []
    pause = 10 ** (-60 / 20) * torch.randn(22050, generator=torch.Generator().manual_seed(0))
    assert spec.suspicions(spec.mel(pause)) == []


def other_sounds(rate: int) -> dict[str, np.ndarray]:
    rng, t = np.random.default_rng(0), np.arange(int(1.5 * rate)) / rate
    white = rng.standard_normal(len(t))
    wander = np.cumsum(white)
    click = np.zeros(len(t))
    click[:: rate // 7] = 0.9
    return {
        "noise": 0.1 * white,
        "loud noise": (0.3 * white).clip(-1, 1),
        "faint noise": 2e-4 * white,
        "rumble": 0.5 * wander / np.abs(wander).max(),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * t),
        "tone in noise": 0.3 * np.sin(2 * np.pi * 440 * t) + 0.001 * white,
        "swelling tone": 0.25 * np.sin(2 * np.pi * 600 * t) * (1 + np.sin(2 * np.pi * 5 * t)),
        "chord": sum(0.1 * np.sin(2 * np.pi * hz * t) for hz in (220, 277, 330, 440, 880)),
        "vibrato": 0.5 * np.sign(np.sin(2 * np.pi * np.cumsum(200 * (1 + 0.03 * np.sin(30 * t))) / rate)),
        "silence": np.zeros(len(t)),
    }


@pytest.mark.parametrize("name", presets())
def test_no_false_alarm_on_noise_tones_and_silence(name):
    spec = MelSpec.preset(name)
    for sound, audio in other_sounds(spec.sample_rate).items():
        assert spec.suspicions(spec.mel(torch.from_numpy(audio.astype(np.float32)))) == [], sound


def power_mel(audio: Tensor, spec: MelSpec, power: float) -> Tensor:
    """As torchaudio's MelSpectrogram makes it by default: HTK's scale, filters of height one."""
    bank = dataclasses.replace(spec, mel_scale="htk", mel_norm="none").filter_bank()
    window = torch.hann_window(spec.win_length)
    spectrum = torch.stft(audio, spec.n_fft, spec.hop_length, spec.win_length, window, return_complex=True)
    return bank @ spectrum.abs() ** power


@pytest.mark.parametrize("seed", range(3))
def test_what_other_front_ends_make_is_named(seed):
    """Each made as its project makes it; Coqui's, which lies near some, is never named alone."""
    spec = MelSpec.preset("hifigan")
    audio = torch.from_numpy(speech_like(22050, seed))
    ln = spec.mel(audio)
    for values, words in [
        (power_mel(audio, spec, 1.0).clamp(min=1e-5).log(), "filters of height one"),
        (power_mel(audio, spec, 2.0).clamp(min=1e-5).log(), "of power (torchaudio"),
        (((power_mel(audio, spec, 2.0) + 1e-5).log() + 4) / 4, "StyleTTS 2"),
        ((ln + 4) / 4, "(ln + 4) / 4 of magnitudes"),
        (10 * power_mel(audio, spec, 2.0).clamp(min=1e-10).log10(), "decibels of power"),
        ((ln + 11.5129) / 6.9136 - 1, "Tortoise"),
        (((ln / DECIBEL + 80) / 100).clamp(0, 1), "Tacotron"),
        ((ln - ln.mean(-1, keepdim=True)) / ln.std(-1, keepdim=True), "mean 0 and deviation 1"),
        (spec.mel(audio * 2 / 32768), "divided by 32768 twice"),
    ]:
        (found,) = spec.suspicions(values)
        assert words in found
        assert "look like decibels normalised" not in found


@pytest.mark.parametrize("name", ["hifigan", "parallel_wavegan", "vocos_24khz"])
@pytest.mark.parametrize("gain_db", [5.0, 0.0, -3.0])
def test_sound_divided_twice_is_seen_however_loud_it_was(name, gain_db):
    """A shout lies above what no other sound reaches, and of a soft voice little is left above the floor."""
    spec = MelSpec.preset(name)
    audio = np.clip(speech_like(spec.sample_rate, 1) * 10 ** (gain_db / 20), -1, 1) / 32768
    (found,) = spec.suspicions(spec.mel(torch.from_numpy(audio.astype(np.float32))))
    assert "divided by 32768 twice" in found


def test_the_noise_or_hum_of_a_silence_is_no_sound_divided_twice():
    rng, t = np.random.default_rng(1), np.arange(3 * 22050) / 22050
    hiss, hum = rng.standard_normal(len(t)), np.sin(2 * np.pi * 50 * t) + 0.3 * np.sin(2 * np.pi * 150 * t)
    for name in ("hifigan", "nemo", "melgan_neurips", "parallel_wavegan"):
        spec = MelSpec.preset(name)
        for amplitude in (5e-6, 6e-6, 8e-6, 1e-5, 1.5e-5, 3e-5, 6e-5):
            for sound in (hiss, hum):
                audio = torch.from_numpy((amplitude * sound).astype(np.float32))
                assert spec.suspicions(spec.mel(audio)) == [], (name, amplitude)


def test_files_seen_wrong_before(shared):
    spec = MelSpec.preset("hifigan")
    for name, words in [
        ("ta_power1", "filters of height one"),
        ("ta_default_log1e-5", "of power (torchaudio"),
        ("styletts", "StyleTTS 2"),
        ("zscore", "mean 0 and deviation 1"),
        ("wav_over_32768", "divided by 32768 twice"),
    ]:
        (found,) = spec.suspicions(torch.from_numpy(np.load(shared / "cases" / "mels" / f"{name}.npy")))
        assert words in found
        assert "Coqui" not in found
    assert spec.suspicions(torch.from_numpy(np.load(shared / "cases" / "mels" / "right.npy"))) == []


def smoothed(mel: Tensor) -> Tensor:
    """As over-smooth as an acoustic model's: the mean of three frames."""
    return torch.nn.functional.avg_pool1d(mel, 3, 1)


@pytest.mark.parametrize(
    "name",
    ["melgan_neurips", "hifigan", "parallel_wavegan", "vocos_24khz", "amphion_24khz", "coqui", "fish_44khz"],
)
def test_no_false_alarm_on_real_speech(name, shared):
    import soundfile
    import soxr

    spec = MelSpec.preset(name)
    files = (
        sorted((shared / "data/kathleen/wavs").iterdir())[::500]
        + sorted((shared / "data/prompts_en").rglob("*.flac"))[::20]
    )
    assert len(files) >= 6
    wrong = dataclasses.replace(spec, log="log10" if spec.log == "ln" else "ln")
    named = []
    for path in files:
        audio, rate = soundfile.read(path, dtype="float32")
        audio = soxr.resample(audio, rate, spec.sample_rate)
        for scaled in (audio, audio / np.abs(audio).max(), audio / 16):
            mel = spec.mel(torch.from_numpy(scaled))
            assert spec.suspicions(mel) == [], path
            if name != "coqui":
                assert spec.suspicions(smoothed(mel)) == [], path
                named.append(bool(wrong.suspicions(mel)))
    assert not named or np.mean(named) > 0.9


@pytest.mark.parametrize("own", ["hifigan", "parallel_wavegan"])
@pytest.mark.parametrize("dim", [-1, (-2, -1)])
def test_statistics_of_a_corpus_are_among_what_is_named(own, dim):
    """And what is to be done; nothing else is asserted, for the values don't tell."""
    spec = MelSpec.preset(own)
    corpus = torch.cat([mel_of(spec, seed)[0] for seed in range(4, 10)], -1)
    deviation, mean = torch.std_mean(corpus, dim, keepdim=True)
    for seed in range(3):
        (found,) = MelSpec.preset("hifigan").suspicions((mel_of(spec, seed)[0] - mean) / deviation)
        assert "by the mean and deviation of a corpus" in found
        assert "--stats FILE" in found
        assert "may be" in found or "look like logarithms normalised by the mean" in found


def test_a_mel_scaled_by_its_corpus_to_one_is_told_so():
    mel = mel_of(MelSpec.preset("hifigan"), 1)[0]
    least, greatest = mel.amin(1, keepdim=True) - 0.5, mel.amax(1, keepdim=True) + 0.5
    (found,) = MelSpec.preset("hifigan").suspicions(2 * (mel - least) / (greatest - least) - 1)
    assert "scaled to -1 … 1" in found


def test_decibels_from_zero_with_long_pauses_are_no_magnitudes():
    spec = MelSpec.preset("hifigan")
    for seed in range(3):
        decibels = (((mel_of(spec, seed)[0] / DECIBEL) + 80) / 100).clamp(0, 1)
        (found,) = spec.suspicions(torch.nn.functional.pad(decibels, (60, 60)))
        assert "linear" not in found
        (found,) = spec.suspicions(torch.nn.functional.pad(mel_of(spec, seed)[0].exp(), (60, 60)))
        assert "linear magnitudes" in found


def latent(channels: int, seed: int, smooth: int = 3) -> Tensor:
    noise = torch.randn(channels, 300 + smooth, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool1d(noise, smooth, 1) * smooth**0.5


@pytest.mark.parametrize("name", ["hifigan", "vocos_24khz", "fish_44khz", "coqui"])
def test_latents_are_no_mel_however_they_are_scaled(name):
    spec = MelSpec.preset(name)
    for seed, (scale, offset) in enumerate([(1.0, 0.0), (2.0, -5.0), (0.5, 0.5)]):
        (found,) = spec.suspicions(scale * latent(spec.n_mels, seed) + offset)
        assert "latents" in found


def test_bands_out_of_order_are_seen():
    spec = MelSpec.preset("hifigan")
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    noise = 0.1 * torch.randn(30000, generator=torch.Generator().manual_seed(1))
    (found,) = spec.suspicions(spec.mel(noise)[0][order])
    assert "out of order" in found


@pytest.mark.parametrize("name", ["hifigan", "melgan_neurips", "bigvgan_24khz", "fish_44khz"])
def test_a_cymbal_that_fades_away_is_no_other_logarithm(name):
    """It moves as speech does by its trend alone, and spreads less."""
    spec = MelSpec.preset(name)
    t = torch.arange(int(1.5 * spec.sample_rate)) / spec.sample_rate
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    for rate in (1.5, 2.0, 3.0):
        assert spec.suspicions(spec.mel(0.2 * noise * (-rate * t).exp())) == [], rate


def test_speech_squeezed_into_a_range_that_no_reading_knows_is_not_taken():
    spec = MelSpec.preset("hifigan")
    for seed in range(3):
        (found,) = spec.suspicions(mel_of(spec, seed) / 30 + 0.7)
        assert "times too little" in found
