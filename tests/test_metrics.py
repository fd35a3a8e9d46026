"""The measures against known answers and against what others computed."""

import warnings

import librosa
import numpy as np
import pytest
from scipy.stats import bootstrap

from gansound import extras
from gansound.extras import MissingPackage
from gansound.mel import MelSpec
from gansound.metrics import cepstral, judge, spectral
from gansound.metrics.griffin_lim import GriffinLim, griffin_lim
from gansound.metrics.pair import UndefinedMeasure, matched
from gansound.metrics.pesq import pesq_wb
from gansound.metrics.pitch import PitchTrack, compare_tracks, track_pitch
from gansound.metrics.quality import dnsmos
from gansound.metrics.stoi import stoi
from gansound.metrics.summary import Interval, mean_interval, paired_difference
from gansound.metrics.visqol import visqol
from gansound.metrics.words import count_errors, normalise, recognise

RATE = 22050


def vowel(f0_hz: float, seconds: float = 1.5, rate: int = RATE) -> np.ndarray:
    """Harmonics under three formants, the middle of the clip voiced, the ends silent."""
    times = np.arange(round(seconds * rate)) / rate
    audio = np.zeros_like(times)
    for harmonic in range(1, int(4000 / f0_hz)):
        hz = harmonic * f0_hz
        level = sum(np.exp(-(((hz - formant) / 150.0) ** 2)) for formant in (600, 1100, 2500)) + 0.05
        audio += level * np.sin(2 * np.pi * hz * times + harmonic**2)
    voiced = (times > 0.2) & (times < seconds - 0.2)
    return (0.3 * voiced * audio / np.abs(audio).max()).astype(np.float32)


def babble(seed: int, seconds: float = 2.5, rate: int = RATE) -> np.ndarray:
    """Noise in syllables: what PESQ and STOI take for speech."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    spectrum = np.fft.rfft(generator.standard_normal(times.size))
    spectrum /= 1.0 + (np.fft.rfftfreq(times.size, 1 / rate) / 800.0) ** 2
    noise = np.fft.irfft(spectrum, times.size)
    syllables = np.clip(np.sin(2 * np.pi * 3.0 * times), 0.0, 1.0)
    return (0.5 * syllables * noise / np.abs(noise).max()).astype(np.float32)


def noisy(audio: np.ndarray, snr_db: float, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(audio.size)
    noise *= np.sqrt(np.mean(audio**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return (audio + noise).astype(np.float32)


def test_pesq_of_identity_is_the_standards_maximum_and_falls_with_noise():
    clean = babble(0)
    scores = [pesq_wb(clean, noisy(clean, snr), RATE) for snr in (40, 20, 5)]
    assert pesq_wb(clean, clean, RATE) == pytest.approx(4.644, abs=0.001)
    assert 4.6 > scores[0] > scores[1] > scores[2] > 1.0


def test_pesq_listens_at_16_khz_whatever_the_rate():
    clean = babble(1, rate=16000)
    dirty = noisy(clean, 15)
    up = [librosa.resample(audio, orig_sr=16000, target_sr=44100) for audio in (clean, dirty)]
    assert pesq_wb(*up, 44100) == pytest.approx(pesq_wb(clean, dirty, 16000), abs=0.02)


def test_stoi_of_identity_is_one_and_falls_with_noise():
    clean = babble(2)
    assert stoi(clean, clean, RATE) == pytest.approx(1.0, abs=1e-6)
    assert 1.0 > stoi(clean, noisy(clean, 10), RATE) > stoi(clean, noisy(clean, -5), RATE)


@pytest.mark.parametrize("measure", [pesq_wb, stoi])
def test_silence_and_snippets_are_undefined_not_a_number(measure):
    for audio in (np.zeros(RATE, np.float32), babble(3)[:2000]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UndefinedMeasure):
                measure(audio, audio, RATE)


@pytest.mark.parametrize("measure, worst", [(pesq_wb, 1.0), (stoi, 0.0)])
def test_a_silent_recording_is_not_judged_and_a_silent_estimate_is_the_worst(measure, worst):
    # Levelled, as both measures do, the hiss of two quiet rooms would be compared like speech: PESQ says 2.1.
    voice = babble(3)
    room, other = (
        1e-4 * np.random.default_rng(seed).standard_normal(len(voice)).astype(np.float32) for seed in (1, 2)
    )
    with pytest.raises(UndefinedMeasure, match="the recording is silent"):
        measure(room, other, RATE)
    assert measure(voice, np.zeros_like(voice), RATE) == worst
    assert measure(voice, room, RATE) == worst
    faint = 0.01 * voice / np.abs(voice).max()  # peaks at -40 dB: a faint voice is one
    assert measure(faint, faint, RATE) == pytest.approx(measure(voice, voice, RATE), abs=0.01)


@pytest.mark.parametrize("n_fft, hop, win", spectral.STFT_RESOLUTIONS_SAMPLES)
@pytest.mark.parametrize("length", [3001, 5000])
def test_stft_equals_librosa(n_fft, hop, win, length):
    audio = babble(4)[:length]
    theirs = np.abs(librosa.stft(audio, n_fft=n_fft, hop_length=hop, win_length=win, pad_mode="reflect"))
    ours = spectral.magnitude_stft(audio, n_fft, hop, win)
    assert ours.shape == (1 + length // hop, n_fft // 2 + 1)
    np.testing.assert_allclose(ours.T, theirs, atol=2e-5)


@pytest.mark.parametrize(
    "rate, n_fft", [(8000, 512), (16000, 1024), (22050, 1024), (24000, 1024), (44100, 2048), (48000, 2048)]
)
def test_log_mel_is_the_stated_convention(rate, n_fft):
    audio = babble(5, 0.5, rate)
    theirs = librosa.feature.melspectrogram(
        y=audio, sr=rate, n_fft=n_fft, hop_length=n_fft // 4, n_mels=80, power=1.0, pad_mode="reflect"
    )
    np.testing.assert_allclose(spectral.log_mel(audio, rate).T, np.log(np.maximum(theirs, 1e-5)), atol=1e-3)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.3])
def test_distances_of_a_gain_are_known(gain):
    audio = 0.1 * np.random.default_rng(6).standard_normal(RATE).astype(np.float32)
    assert spectral.mel_distance(audio, gain * audio, RATE) == pytest.approx(abs(np.log(gain)), abs=1e-3)
    convergence, log_magnitude = spectral.stft_distance(audio, gain * audio, RATE)
    assert convergence == pytest.approx(abs(1 - gain), abs=1e-4)
    assert log_magnitude == pytest.approx(abs(np.log(gain)), abs=2e-3)


def test_mel_distance_floor_hides_what_lies_below_it():
    quiet = 1e-9 * babble(7)
    assert spectral.mel_distance(quiet, 3 * quiet, RATE) == 0.0


@pytest.mark.parametrize("f0_hz", [95.0, 210.0])
@pytest.mark.parametrize("cents", [0.0, 40.0, -130.0])
def test_pitch_error_of_a_known_shift(f0_hz, cents):
    shifted_hz = f0_hz * 2 ** (cents / 1200)
    error = compare_tracks(*(track_pitch(vowel(hz), RATE) for hz in (f0_hz, shifted_hz)))
    # The tracker's grid is 10 cents.
    assert error.f0_rmse_cents == pytest.approx(abs(cents), abs=6.0)
    assert error.f0_rmse_hz == pytest.approx(abs(shifted_hz - f0_hz), abs=0.005 * f0_hz)
    assert error.voicing_error < 0.03


def test_pitch_is_tracked_where_it_is():
    track = track_pitch(vowel(160.0), RATE)
    times = np.arange(track.voiced.size) * 0.01
    assert track.voiced[(times > 0.3) & (times < 1.2)].all()
    assert not track.voiced[(times < 0.1) | (times > 1.4)].any()
    assert np.median(track.f0_hz[track.voiced]) == pytest.approx(160.0, rel=0.004)


def test_voicing_error_counts_frames():
    f0 = np.full(10, 100.0)
    sure = np.linspace(0, 0.9, 10)
    one = PitchTrack(f0, np.arange(10) < 6, sure)
    other = PitchTrack(2 * f0, np.arange(10) < 3, sure + 0.1)
    error = compare_tracks(one, other)
    # Precision 1, recall a half.
    assert error.voicing_f1 == pytest.approx(2 / 3)
    assert error.periodicity_rmse == pytest.approx(0.1)
    assert error.voicing_error == pytest.approx(0.3)
    assert error.f0_rmse_cents == pytest.approx(1200.0)
    assert error.f0_rmse_hz == pytest.approx(100.0)
    with pytest.raises(UndefinedMeasure, match="no frame is voiced in both"):
        compare_tracks(one, PitchTrack(f0, np.arange(10) > 7, sure))


def test_mel_cepstral_distortion_is_the_rms_difference_of_smoothed_spectra(monkeypatch):
    # A ripple of a nepers over the mel axis is 20 / ln 10 · a / √2 dB RMS; level and what is finer than 13 don't count.
    bands = (np.arange(80) + 0.5) / 80
    ripple = 0.3 * np.cos(5 * np.pi * bands) + 0.4 * np.cos(11 * np.pi * bands)
    spectra = iter([np.zeros((7, 80)), np.ones((7, 1)) * (2.0 + ripple + 0.5 * np.cos(14 * np.pi * bands))])
    monkeypatch.setattr(cepstral, "log_mel", lambda audio, rate: next(spectra))
    expected = 20 / np.log(10) * np.sqrt(np.mean(ripple**2))
    audio = babble(8)
    assert cepstral.mel_cepstral_distortion_db(audio, audio, RATE) == pytest.approx(expected)


def test_mel_cepstral_distortion_of_a_gain_is_zero_and_grows_with_noise():
    audio = babble(8)[5000:15000]
    figures = [cepstral.mel_cepstral_distortion_db(audio, noisy(audio, snr), RATE) for snr in (40, 20, 0)]
    assert 0.0 < figures[0] < figures[1] < figures[2]
    with pytest.raises(UndefinedMeasure):
        cepstral.mel_cepstral_distortion_db(audio, 0 * audio, RATE)


def test_visqol_is_what_the_package_says_at_its_rates():
    package = pytest.importorskip("visqol")
    clean = babble(9, 0.96, 16000)  # the shortest that it takes
    dirty = noisy(clean, 15)
    scores = visqol(clean, dirty, 16000)
    theirs = package.VisqolApi()
    theirs.create(mode="speech", use_lattice_model=False)
    pair = (clean.astype(np.float64), dirty.astype(np.float64))
    assert scores.speech == pytest.approx(theirs.measure_from_arrays(*pair, 16000).moslqo, abs=1e-6)
    same = visqol(clean, clean, 16000)
    assert same.speech == pytest.approx(5.0, abs=0.01)
    assert same.audio == pytest.approx(4.73, abs=0.01)
    assert scores.speech < 4.9
    assert scores.audio < 4.5
    with pytest.raises(UndefinedMeasure, match=r"got 0\.95 s, expected 0\.96 s"):
        visqol(clean[:15200], clean[:15200], 16000)
    with pytest.raises(UndefinedMeasure, match="silent"):
        visqol(clean, 0 * clean, 16000)


def test_pitch_range_is_checked():
    with pytest.raises(ValueError, match="fmin_hz 10"):
        track_pitch(vowel(100.0), RATE, fmin_hz=10.0)


@pytest.mark.parametrize(
    "reference, estimate, said",
    [
        (np.zeros(RATE, np.float32), np.zeros(RATE + 2000, np.float32), "2000 apart"),
        (np.zeros((2, 100), np.float32), np.zeros(100, np.float32), r"\(2, 100\)"),
        (np.zeros(0, np.float32), np.zeros(0, np.float32), "empty"),
        (np.array([0.0, np.nan], np.float32), np.zeros(2, np.float32), "NaN"),
        (np.zeros(10, np.int16), np.zeros(10, np.float32), "int16"),
    ],
)
def test_pairs_that_no_measure_takes(reference, estimate, said):
    with pytest.raises(ValueError, match=said):
        matched(reference, estimate, RATE)


def test_lengths_are_cut_to_the_shorter_within_a_hop():
    first, second = matched(np.ones(1000, np.float32), np.ones(900, np.float32), RATE, tolerance_samples=100)
    assert first.size == second.size == 900
    with pytest.raises(ValueError, match="101 apart, expected 100 at most"):
        matched(np.ones(1001, np.float32), np.ones(900, np.float32), RATE, tolerance_samples=100)


@pytest.mark.parametrize(
    "text, heard, errors, words",
    [
        ("The cat sat.", "the cat sat", 0, 3),
        ("the cat sat on the mat", "the cat on a mat mat", 3, 6),
        ("one two", "", 2, 2),
        ("don’t -- STOP!", "don't stop", 0, 2),
        ("a", "a b c", 2, 1),
    ],
)
def test_word_errors_of_known_strings(text, heard, errors, words):
    pytest.importorskip("jiwer")
    assert count_errors(text, heard) == (errors, words)


def test_text_without_words_has_no_rate():
    pytest.importorskip("jiwer")
    with pytest.raises(UndefinedMeasure, match="no word"):
        count_errors(" ... ", "hello")


def test_normalised_text_stays_as_it_is():
    once = normalise("‘Twas the well-known  “PRINCE's” été_")
    assert once == "twas the well known prince's été"
    assert normalise(once) == once


def test_recogniser_and_dnsmos_on_real_speech(shared):
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("speechmos")
    import soundfile

    audio, rate = soundfile.read(
        shared / "data/prompts_en/en_US_f_Allison_conf-onlyperson.flac", dtype="float32"
    )
    first = recognise(audio, rate)
    recognise(audio[::-1].copy(), rate)
    assert recognise(audio, rate) == first  # nothing is kept from one utterance to the next
    assert count_errors("You are currently the only person in this conference.", first).rate < 0.4
    words = audio[: int(2.3 * rate)]  # repeated, it is one window of 9 s; all of it is four
    scores = dnsmos(words, rate)
    assert all(1.0 <= score <= 5.0 for score in scores)
    assert scores.p808 > dnsmos(noisy(words, 5), rate).p808 + 0.5


@pytest.mark.parametrize(
    "package, measure",
    [("speechmos", "dnsmos"), ("pocketsphinx", "words"), ("pesq", "pesq"), ("librosa", "pitch")],
)
def test_a_missing_extra_is_named_with_its_install_line(monkeypatch, package, measure):
    known = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else known(name))
    assert measure not in judge.available_measures()
    with pytest.raises(MissingPackage, match=rf"{package}.*pip install 'gansound\[eval\]'"):
        judge.check_measures([measure])


def test_dnsmos_itself_names_the_extra(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="speechmos"):
        dnsmos(babble(0), RATE)


def test_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(8).gamma(2.0, size=60)
    ours = mean_interval(values, seed=1)
    theirs = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2)
    )
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)
    assert mean_interval(values, seed=1) == ours
    assert mean_interval(values, seed=2) != ours


def test_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(10)
    hits = 0
    for trial in range(400):
        interval = mean_interval(generator.normal(3.0, 2.0, 40), seed=trial, resamples=400)
        hits += interval.low <= 3.0 <= interval.high
    # 95 % of 400 is 380; three standard deviations of the count are 13, and 40 values cost about a point.
    assert 360 <= hits <= 393


def test_weighted_mean_is_the_ratio_of_sums():
    errors, words = np.array([3.0, 0.0, 1.0]), np.array([10.0, 2.0, 4.0])
    assert mean_interval(errors / words, weights=words).mean == pytest.approx(4 / 16)


def test_pairing_takes_out_what_utterances_share():
    generator = np.random.default_rng(11)
    difficulty = generator.normal(0, 5.0, 50)
    better = difficulty + 0.5 + generator.normal(0, 0.1, 50)
    worse = difficulty + generator.normal(0, 0.1, 50)
    paired = paired_difference(list(better), list(worse))
    assert paired.mean == pytest.approx(float(np.mean(better - worse)))
    assert paired.clear_of_zero
    assert paired.high - paired.low < 0.1 * (mean_interval(better).high - mean_interval(better).low)


def test_pairs_with_an_undefined_side_are_left_out():
    assert paired_difference([1.0, None, 5.0], [0.0, 2.0, None]) == Interval(1.0, 1.0, 1.0, 1)
    with pytest.raises(ValueError, match="NaN"):
        mean_interval([1.0, float("nan")])
    with pytest.raises(ValueError, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2])


def chirp(seconds: float = 1.2) -> np.ndarray:
    """Short upward sweeps at irregular times: sharp in time at every frequency."""
    times = np.arange(round(seconds * RATE)) / RATE
    audio = np.zeros_like(times)
    for start in (0.11, 0.29, 0.42, 0.61, 0.78, 0.97):
        local = times - start
        inside = (local > 0) & (local < 0.08)
        audio += (
            inside
            * np.hanning(2001)[np.clip((local / 0.08 * 2000).astype(int), 0, 2000)]
            * np.sin(2 * np.pi * (500 * local + 30000 * local**2))
        )
    return (0.5 * audio).astype(np.float32)


def lag_samples(reference: np.ndarray, estimate: np.ndarray) -> int:
    """Samples by which the estimate is late, by cross-correlating magnitudes on a fine grid."""
    grid = 8
    real, fake = (spectral.magnitude_stft(audio, 512, grid, 512) for audio in (reference, estimate))
    lags = range(-48, 49)
    scores = [float(np.sum(real[60:-60] * fake[60 + lag : fake.shape[0] - 60 + lag])) for lag in lags]
    return grid * lags[int(np.argmax(scores))]


@pytest.mark.parametrize("preset", ["hifigan", "tacotron2", "nemo", "parallel_wavegan_24khz"])
def test_griffin_lim_lies_where_the_recording_does(preset):
    audio = chirp()
    spec = MelSpec.preset(preset)
    made = GriffinLim(spec, n_iter=20)(audio, spec.sample_rate)
    assert made.shape == audio.shape
    # Half a hop, the error of mistaking one framing for the other, is 128 samples.
    assert abs(lag_samples(audio, made)) <= 24
    assert lag_samples(audio, np.roll(audio, 128)) == 128


def test_griffin_lim_obeys_its_seed_and_its_length_law():
    spec = MelSpec.preset("hifigan")
    audio = chirp(0.5)
    import torch

    mel = spec.mel(torch.from_numpy(audio)).squeeze(0).numpy()
    first = griffin_lim(mel, spec, n_iter=2, seed=3)
    assert first.size == mel.shape[1] * spec.hop_length
    np.testing.assert_array_equal(first, griffin_lim(mel, spec, n_iter=2, seed=3))
    assert not np.allclose(first, griffin_lim(mel, spec, n_iter=2, seed=4))
    with pytest.raises(ValueError, match="24000 Hz, expected 22050"):
        GriffinLim(spec)(audio, 24000)


def test_griffin_lim_is_as_good_as_librosas_own_call():
    spec = MelSpec.preset("tacotron2")
    audio = babble(12, 1.2)
    import torch

    mel = spec.to_magnitude(spec.mel(torch.from_numpy(audio))).squeeze(0).numpy()
    theirs = librosa.feature.inverse.mel_to_audio(
        mel, sr=RATE, n_fft=1024, hop_length=256, power=1.0, n_iter=60, fmin=0, fmax=8000
    ).astype(np.float32)
    ours = GriffinLim(spec)(audio, RATE)[: theirs.size]
    wanted = spectral.mel_distance(audio[: theirs.size], theirs, RATE)
    assert spectral.mel_distance(audio[: theirs.size], ours, RATE) == pytest.approx(wanted, rel=0.1)
