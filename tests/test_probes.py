"""Regression figures of vocoders on faults whose size is known: the top band, pitch pulses, noise, a click, silence."""

import numpy as np
import pytest

from gansound.metrics.evaluation import GROUND_TRUTH, Item, evaluate
from gansound.metrics.pair import UndefinedMeasure
from gansound.metrics.probes import FLOOR_DBFS, noise_lines_db, pre_echo_db, probe, silence_level_dbfs
from gansound.metrics.pulses import envelope, pitch_modulation_kept_percent
from gansound.metrics.top_band import empty_band_percent
from gansound.report.record import evaluation_record
from gansound.report.tables import figure_names

RATE, HOP = 22050, 256


def same(audio, sample_rate):
    return audio


def noise(seed: int, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def scaled(audio: np.ndarray, low_hz: float, high_hz: float, gain: float, rate: int = RATE) -> np.ndarray:
    spectrum = np.fft.rfft(audio)
    hertz = np.fft.rfftfreq(audio.size, 1 / rate)
    spectrum[(hertz >= low_hz) & (hertz < high_hz)] *= gain
    return np.fft.irfft(spectrum, audio.size).astype(np.float32)


def modulated(depth: float, hz: float = 150.0, carrier_hz: float = 5500.0, rate: int = RATE) -> np.ndarray:
    times = np.arange(rate) / rate
    wave = (1 + depth * np.sin(2 * np.pi * hz * times)) * np.sin(2 * np.pi * carrier_hz * times)
    return (0.1 * wave).astype(np.float32)


@pytest.mark.parametrize("rate, hop", [(22050, 256), (24000, 300), (44100, 512)])
def test_a_pulse_in_each_frame_is_a_line_of_known_height(rate, hop):
    frames = round(0.5 * rate / hop)
    # Over Gaussian noise a train of pulses A stands (A / hop)² · 2N / 3 times the noise's power in a bin.
    pulse = hop * 0.1 * np.sqrt(9 * 1.5 / (frames * hop))

    def buzzing(audio, sample_rate):
        out = audio.copy()
        out[::hop] += pulse
        return out

    assert noise_lines_db(buzzing, rate, hop) == pytest.approx(10.0, abs=0.4)
    assert noise_lines_db(same, rate, hop) == 0.0
    # Pulses at another rate are between the lines or in every other of them.
    assert noise_lines_db(buzzing, rate, hop + 7) < 1.5


@pytest.mark.parametrize("before_seconds, heard", [(0.010, True), (0.002, False), (0.022, False)])
def test_pre_echo_counts_3_to_20_ms_before_the_click(before_seconds, heard):
    shift = round(before_seconds * RATE)

    def echoing(audio, sample_rate):
        out = 0.5 * audio
        out[:-shift] += 0.05 * audio[shift:]
        return out

    expected = 20 * np.log10(0.1 / np.sqrt(round(0.020 * RATE) - round(0.003 * RATE)))
    assert pre_echo_db(echoing, RATE) == pytest.approx(expected if heard else FLOOR_DBFS, abs=1e-3)


def test_silence_has_the_level_of_what_it_became():
    assert silence_level_dbfs(lambda audio, rate: audio + np.float32(0.01), RATE) == pytest.approx(
        -40.0, abs=1e-3
    )
    assert silence_level_dbfs(same, RATE) == FLOOR_DBFS


def test_a_vocoder_that_makes_nothing_has_no_lines_and_no_echo(caplog):
    figures = probe(lambda audio, rate: 0 * audio, RATE, HOP)
    assert figures == {"noise_lines_db": None, "pre_echo_db": None, "silence_level_dbfs": FLOOR_DBFS}
    assert "silence of noise" in caplog.text
    assert probe(same, RATE, None)["noise_lines_db"] is None
    with pytest.raises(ValueError, match="hop_length 4000 at 22050 Hz"):
        noise_lines_db(same, RATE, 4000)
    with pytest.raises(ValueError, match="expected 551 at most"):
        pre_echo_db(lambda audio, rate: audio[:-1000], RATE)


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_empty_frames_of_the_top_band_are_counted(rate):
    real = noise(0, 2.0, rate)
    top = 0.8 * rate / 2
    fake = real.copy()
    fake[: rate // 2] = scaled(real, top, rate, 0.0, rate)[: rate // 2]
    assert empty_band_percent(real, real, rate) == 0.0
    assert empty_band_percent(real, fake, rate) == pytest.approx(25.0, abs=1.5)
    assert empty_band_percent(real, scaled(real, top, rate, 10 ** (-14 / 20), rate), rate) == 0.0
    assert empty_band_percent(real, scaled(real, top, rate, 10 ** (-16 / 20), rate), rate) == 100.0
    # Below the band nothing counts.
    assert empty_band_percent(real, scaled(real, 0.2 * rate, 0.8 * rate / 2, 0.0, rate), rate) == 0.0


def test_only_speech_that_holds_the_band_is_asked_for_it():
    real = noise(1, 2.0)
    real[RATE:] *= 10 ** (-45 / 20)  # a pause
    fake = real.copy()
    fake[RATE:] = 0
    assert empty_band_percent(real, fake, RATE) == 0.0
    low = scaled(real, 8000, RATE, 0.0)
    with pytest.raises(UndefinedMeasure, match=r"9\.5 to 10\.5 kHz"):
        empty_band_percent(low, real, RATE)
    with pytest.raises(UndefinedMeasure, match="silent"):
        empty_band_percent(0 * real, real, RATE)


def test_modulation_kept_is_the_ratio_of_depths():
    real = modulated(0.8)
    for kept in (1.0, 0.5, 0.25):
        figure = pitch_modulation_kept_percent(real, 0.3 * modulated(0.8 * kept), RATE)
        assert figure == pytest.approx(100 * kept, abs=0.5)
    assert pitch_modulation_kept_percent(0.01 * real, 0.01 * modulated(0.4), RATE) == pytest.approx(
        50, abs=0.5
    )
    # Neither slower nor faster modulation, nor another band, is pitch.
    for other in (modulated(0.8, hz=40.0), modulated(0.8, hz=460.0)):
        assert pitch_modulation_kept_percent(real, other, RATE) < 10
    low = modulated(0.8, carrier_hz=3000.0) + modulated(0.0)
    assert pitch_modulation_kept_percent(real, low, RATE) < 2


def test_noise_in_place_of_pulses_keeps_about_forty_percent_and_has_none_itself():
    pulsed = modulated(0.8)
    assert 25 < pitch_modulation_kept_percent(pulsed, noise(2), RATE) < 50
    # Nor does it count what is 40 dB below the rest.
    faint = np.concatenate([pulsed, 0.01 * pulsed])
    kept = pitch_modulation_kept_percent(faint, np.concatenate([pulsed, 0.01 * noise(2)]), RATE)
    assert kept == pytest.approx(100, abs=1)
    with pytest.raises(UndefinedMeasure, match="0 frames are pulsed"):
        pitch_modulation_kept_percent(noise(3, 4.0), noise(4, 4.0), RATE)
    with pytest.raises(UndefinedMeasure, match="12000 Hz"):
        pitch_modulation_kept_percent(noise(3), noise(3), 12000)
    with pytest.raises(UndefinedMeasure, match="silent"):
        pitch_modulation_kept_percent(pulsed, 0 * pulsed, RATE)
    with pytest.raises(UndefinedMeasure, match="0 frames"):
        pitch_modulation_kept_percent(pulsed[:1000], pulsed[:1000], RATE)


def test_the_envelope_is_scipys():
    from scipy.signal import hilbert

    audio = modulated(0.6, carrier_hz=5000.0)
    ours = envelope(audio, RATE, (4000.0, 7500.0))
    np.testing.assert_allclose(ours[500:-500], np.abs(hilbert(audio))[500:-500], atol=2e-3)


def test_an_evaluation_has_the_probes_of_each_system_in_summary_difference_and_record():
    def humming(audio, sample_rate):
        return audio + np.float32(0.01)

    result = evaluate(
        [Item("a", lambda: (noise(5), RATE)), Item("b", lambda: (noise(6), RATE))],
        {"humming": humming, "same": same},
        RATE,
        hop_length=HOP,
        measures=("band", "pulses", "probes"),
    )
    level = result.summary("humming")["silence_level_dbfs"]
    assert (level.mean, level.low, level.high, level.count) == (pytest.approx(-40.0, abs=1e-3),) * 3 + (1,)
    assert result.difference("humming", "same")["silence_level_dbfs"].mean == pytest.approx(-40 - FLOOR_DBFS)
    assert result.summary("same")["empty_band_percent"].count == 2
    assert "silence_level_dbfs" not in result.summary(GROUND_TRUTH)
    assert {"noise_lines_db", "pre_echo_db", "empty_band_percent"} <= set(figure_names(result))
    record = evaluation_record(result)
    assert record["silence_level_dbfs_mean"] == pytest.approx(-40.0, abs=1e-3)
    assert record["systems"]["same"]["noise_lines_db_mean"] == 0.0
    assert (record["pitch_modulation_kept_percent_mean"], record["pitch_modulation_kept_percent_count"]) == (
        None,
        0,
    )


def test_probes_alone_may_be_asked_for_and_no_others_run():
    result = evaluate([Item("a", lambda: (noise(7), RATE))], {"same": same}, RATE, measures=("mel",))
    assert result.probes == {}
