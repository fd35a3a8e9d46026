"""The judge of sounds hears what fills a band: noise given a sound's levels isn't taken for it, nor tones for noise."""

import itertools

import librosa
import numpy as np
import pytest
from scipy.signal import get_window, istft, stft

from gansound.metrics.sets import (
    HearingBackbone,
    LogMelBackbone,
    precision_recall_density_coverage,
    told_apart,
)
from gansound.metrics.sets.points import distances, distances_within
from gansound.metrics.sets.texture import band_edges, texture, tonality
from tests.test_sets import gaussian

RATE, SAMPLES, COUNT = 16000, 8192, 90
TIME = np.arange(SAMPLES) / RATE


def plucked(seed: int) -> np.ndarray:
    """Decaying harmonics of random pitch, decay and brightness."""
    rng = np.random.default_rng(seed)
    sounds = []
    for _ in range(COUNT):
        pitch, decay, bright = rng.uniform(80, 500), rng.uniform(0.05, 0.4), rng.uniform(0.5, 2)
        sound = sum(
            k**-bright * np.exp(-TIME * (1 + 0.2 * k) / decay) * np.sin(2 * np.pi * k * pitch * TIME)
            for k in range(1, int(RATE / 2 / pitch))
        )
        sounds.append(0.5 * sound / np.abs(sound).max())
    return np.stack(sounds).astype(np.float32)


def in_its_place(sounds: np.ndarray, source: np.ndarray) -> np.ndarray:
    """`source` with the levels of each sound in 24 bands and every 8 ms: all that log-mels hear of it."""
    made = []
    edges = band_edges(RATE, 257, 24)
    for sound, other in zip(sounds, source, strict=True):
        spectra = [stft(x, RATE, nperseg=512, noverlap=384)[2] for x in (sound, other)]
        powers = [np.add.reduceat(np.abs(s) ** 2, edges[:-1], axis=0) + 1e-12 for s in spectra]
        gain = np.repeat(np.sqrt(powers[0] / powers[1]), np.diff(edges), axis=0)
        again = istft(gain * spectra[1], RATE, nperseg=512, noverlap=384)[1][:SAMPLES]
        made.append(again)
    return np.stack(made).astype(np.float32)


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    return plucked(1)


@pytest.fixture(scope="module")
def trained() -> np.ndarray:
    return plucked(2)


@pytest.fixture(scope="module")
def hiss() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((COUNT, SAMPLES)).astype(np.float32)


def judged(backbone, real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    a, b = backbone.embed(real), backbone.embed(fake)
    apart = told_apart(distances_within(a), distances_within(b), distances(a, b))
    return {"apart": apart} | precision_recall_density_coverage(a, b)._asdict()


def test_noise_in_the_place_of_every_sound_is_told_from_them(held_out, trained, hiss):
    planted = in_its_place(trained, hiss)
    levels, hearing = LogMelBackbone(RATE), HearingBackbone(RATE)
    assert judged(levels, held_out, planted)["coverage"] > 0.6  # log-mels alone take it for the real thing
    real, fake = judged(hearing, held_out, trained), judged(hearing, held_out, planted)
    assert real["apart"] < 0.6
    assert real["coverage"] > 0.85
    assert fake["apart"] > 0.95
    assert fake["precision"] < 0.2
    assert fake["coverage"] < 0.2


def test_tones_in_the_place_of_noise_are_told_from_it(trained, hiss):
    """The other way round: bursts of noise, and tones with their levels."""
    other = np.random.default_rng(4).standard_normal((COUNT, SAMPLES)).astype(np.float32)
    bursts, others = in_its_place(trained, hiss), in_its_place(plucked(5), other)
    steady = np.stack(
        [sum(np.sin(2 * np.pi * (f * TIME + p)) for f, p in zip(np.linspace(90, 7600, 24), ph, strict=True))
         for ph in np.random.default_rng(6).random((COUNT, 24))]
    ).astype(np.float32)  # fmt: skip
    hearing = HearingBackbone(RATE)
    assert judged(hearing, bursts, others)["apart"] < 0.62
    assert judged(hearing, bursts, in_its_place(plucked(5), steady))["apart"] > 0.95


def test_flutter_is_told_from_what_holds_still(held_out, trained):
    fluttering = trained * (1 + 0.95 * np.sin(2 * np.pi * 70 * TIME)).astype(np.float32) / 1.4
    assert judged(HearingBackbone(RATE), held_out, fluttering)["apart"] > 0.9


def test_tonality_is_of_tones_wherever_they_lie_and_not_of_noise_however_loud():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1, RATE)).astype(np.float32)
    for level in (1e-3, 1e-1):
        assert tonality(level * noise, RATE).max() < 0.25
        assert tonality(level * noise, RATE).mean() < 0.03
    assert not tonality(np.zeros((1, RATE), np.float32), RATE).any()
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 25) / 2595) - 1)
    for band in (4, 11, 20):
        hertz = (edges[band] + edges[band + 1]) / 2
        tone = 0.1 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)[None].astype(np.float32)
        found = tonality(tone + 1e-4 * noise, RATE)[0]
        assert found[band // 2].min() >= 0.5  # one of the pair of bands holds it, wholly
        assert tonality(tone + 0.3 * noise, RATE)[0, band // 2].max() < 0.3  # drowned


def test_texture_is_the_change_of_slope_of_a_level():
    time = np.arange(RATE) / RATE
    sound = np.random.default_rng(1).standard_normal(RATE) * 0.1
    beating = sound * np.exp(1.5 * np.sin(2 * np.pi * 60 * time))  # ±13 dB, a period of four 4 ms frames
    steady, shaken = (texture(x[None].astype(np.float32), RATE)[0] for x in (sound, beating))
    assert (shaken[6:] > steady[6:] + 2).all()  # wide bands, whose own noise averages out
    fading = texture((sound * 10**-time)[None].astype(np.float32), RATE)[0]  # 20 dB on a straight line
    np.testing.assert_allclose(fading[6:], steady[6:], atol=0.2)
    assert not texture(np.zeros((1, RATE), np.float32), RATE).any()


def powers_of(sound: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """`(bins, frames)`; the peak of a full-scale sine, half of half the window long, is 1."""
    padded = np.pad(sound, n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop] * get_window("hann", n_fft)
    return np.square(np.abs(np.fft.rfft(frames)) / (n_fft / 4)).T


def bands_of(bins: int, bands: int) -> list[tuple[int, int]]:
    """First and last bin but one of bands as wide as each other in HTK's mel, for bands of more than a bin."""
    hertz = librosa.mel_frequencies(bands + 1, fmin=0, fmax=RATE / 2, htk=True)
    edges = [round(f / (RATE / 2) * (bins - 1)) for f in hertz]
    edges[-1] = bins
    assert min(b - a for a, b in itertools.pairwise(edges)) >= 1
    return list(itertools.pairwise(edges))


def cells_of(values: np.ndarray) -> np.ndarray:
    """Means over four stretches that end at the squares."""
    edges = [round(values.shape[1] * (i / 4) ** 2) for i in range(5)]
    return np.stack([values[:, a:b].mean(1) for a, b in itertools.pairwise(edges)], 1)


def mixed_sound() -> np.ndarray:
    """Decaying harmonics in hiss, with silence behind."""
    noise = np.random.default_rng(7).standard_normal(SAMPLES) * 10 ** (-TIME / 0.1) * 0.05
    sound = plucked(8)[0] + noise
    sound[6000:] = 0
    return sound.astype(np.float32)


def test_tonality_is_the_flatness_of_each_band_that_is_heard():
    """Gray and Markel's: decibels from the mean of a band's logarithms up to the logarithm of its mean."""
    sound = mixed_sound()
    power = powers_of(sound.astype(np.float64), 1024, 256) + 1e-9
    flat, loud = [], []
    for a, b in bands_of(513, 24):
        band = power[a:b]
        flat.append(10 * np.log10(band.mean(0)) - 10 * np.log10(band).mean(0))
        loud.append(np.clip((10 * np.log10(band.mean(0)) + 70) / 20, 0, 1))  # from -70 to -50 dB
    depth = cells_of(np.stack(flat) * np.stack(loud))
    expected = np.clip((depth - 3) / 6, 0, 1).reshape(12, 2, 4).mean(1)
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_allclose(tonality(sound[None], RATE)[0], expected, atol=1e-3)


def test_texture_is_half_the_second_difference_of_each_bands_decibels():
    sound = mixed_sound()
    power = powers_of(sound.astype(np.float64), 128, 64)
    level = np.stack([10 * np.log10(power[a:b].sum(0) + 1e-7) for a, b in bands_of(65, 12)])
    turned = np.abs(level[:, 2:] - 2 * level[:, 1:-1] + level[:, :-2]) / 2
    np.testing.assert_allclose(texture(sound[None], RATE)[0], cells_of(turned), atol=1e-3)


def test_tonality_counts_fourfold_and_texture_in_units_of_two_and_a_half_decibels():
    sound = mixed_sound()[None]
    point = HearingBackbone(RATE).embed(sound)[0]
    np.testing.assert_allclose(point[:192], LogMelBackbone(RATE).embed(sound)[0], atol=1e-6)
    np.testing.assert_allclose(point[192:240], 4 * tonality(sound, RATE).ravel())
    np.testing.assert_allclose(point[240:], texture(sound, RATE).ravel() / 2.5)


@pytest.mark.parametrize(
    "rate, samples", [(1000, 50), (8000, 300), (16000, 16000), (44100, 9000), (48000, 100)]
)
def test_any_rate_and_length_becomes_a_point_of_its_own_clip(rate, samples):
    clips = np.random.default_rng(2).standard_normal((70, samples)).astype(np.float32) / 10
    backbone = HearingBackbone(rate)
    points = backbone.embed(clips)
    assert points.shape == (70, 24 * 8 + 2 * 12 * 4)
    assert np.isfinite(points).all()
    np.testing.assert_allclose(backbone.embed(clips[66:67]), points[66:67], atol=1e-4)
    assert backbone.embed(0 * clips[:1]) == pytest.approx(0.0, abs=1e-6)


def test_told_apart_is_that_of_a_loop_and_of_the_larger_set_as_many_count():
    a, b = gaussian(1, 40, 3), gaussian(2, 20, 3, mean=0.8)
    kept = a[::2]
    right = 0
    for mine, others in ((kept, b), (b, kept)):
        for i, point in enumerate(mine):
            near = min(np.linalg.norm(point - p) for j, p in enumerate(mine) if j != i)
            right += near < min(np.linalg.norm(point - p) for p in others)
    blocks = distances_within(a), distances_within(b), distances(a, b)
    assert told_apart(*blocks) == pytest.approx(right / 40)
    assert told_apart(blocks[1], blocks[0], blocks[2].T) == pytest.approx(right / 40)


def test_told_apart_of_equals_copies_and_strangers():
    def of(a, b):
        return told_apart(distances_within(a), distances_within(b), distances(a, b))

    assert of(gaussian(1, 600, 4), gaussian(2, 600, 4)) == pytest.approx(0.5, abs=0.05)
    assert of(gaussian(1, 50, 4), gaussian(1, 50, 4) + 1e-6) == 0.0
    assert of(gaussian(1, 50, 4), gaussian(2, 50, 4, mean=9.0)) == 1.0
    # The ball of one real sound far off holds all of a strange set: precision is full, and it is told all the same.
    real = np.concatenate([gaussian(1, 60, 2, scale=0.1), [[40.0, 0.0]]])
    strange = gaussian(3, 60, 2, scale=0.1) + np.array([20.0, 0.0])
    assert precision_recall_density_coverage(real, strange).precision == 1.0
    assert of(real, strange) > 0.95
