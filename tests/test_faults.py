"""Detectors of faults that PESQ doesn't hear: planted faults found, recordings let be."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from gansound import Vocoder
from gansound.audio import fade, read, resample
from gansound.metrics.evaluation import GROUND_TRUTH, Item, evaluate
from gansound.metrics.faults import (
    ALARM_ABOVE_DB,
    DETECTORS,
    above_band_db,
    level_drift_db,
    onset_smear_db,
    pause_tone_db,
    step_db,
)
from gansound.metrics.faults.steps import _running_max
from gansound.metrics.pair import UndefinedMeasure
from gansound.report.record import evaluation_record
from gansound.report.tables import alarm_lines
from tests import planted

RATE = 22050
SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def speech(path: Path) -> np.ndarray:
    audio, rate = read(path)
    # A recording that ends abruptly itself forgives the copy an abrupt end; FFTs of prime lengths take long.
    audio = fade(resample(audio, rate, RATE)[: 10 * RATE], RATE // 100, RATE // 100)
    return np.pad(audio, (0, -audio.size % 2048))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    paths = sorted((SAMPLES / "kathleen").glob("*.flac"))
    return [speech(path) for path in (paths[0], paths[2])]


def alarms(figure: str, clips: list[np.ndarray], change: planted.Change) -> tuple[int, int]:
    """Alarms, and clips on which the detector is defined."""
    found = counted = 0
    for number, clip in enumerate(clips):
        real = planted.banded(clip, RATE, 0, 8000) if figure == "above_band_db" else clip
        changed = change(real, RATE, np.random.default_rng(number)).astype(np.float32)
        try:
            found += DETECTORS[figure](real, changed, RATE) > ALARM_ABOVE_DB[figure]
        except UndefinedMeasure:
            continue
        counted += 1
    return found, counted


@pytest.mark.parametrize("figure", DETECTORS)
def test_planted_faults_are_found_and_harmless_changes_let_be(figure, clips):
    for change in planted.PLANTED[figure]:
        assert alarms(figure, clips, change) == (len(clips), len(clips)), change.__name__
    for change in planted.HARMLESS:
        assert alarms(figure, clips, change)[0] == 0, change.__name__


@pytest.mark.slow
@pytest.mark.parametrize("figure", DETECTORS)
def test_on_real_speech_95_of_100_are_found_and_1_in_100_is_a_false_alarm(figure, shared, capsys):
    clips = [speech(path) for path in _recordings(shared / "data")]
    lines = []
    for change in planted.PLANTED[figure]:
        found, counted = alarms(figure, clips, change)
        lines.append(f"{figure} {change.__name__}: found {found} of {counted}")
        assert found >= 0.95 * counted, lines[-1]
        assert counted >= 0.8 * len(clips), lines[-1]  # some have no onset, or one loud block
    # None on the recordings themselves, and one in a hundred on what nobody hears.
    false = [alarms(figure, clips, change) for change in planted.HARMLESS]
    lines.append(
        f"{figure} false alarms: "
        + ", ".join(f"{change.__name__} {n}" for change, (n, _) in zip(planted.HARMLESS, false, strict=True))
        + f" of {false[0][1]} each"
    )
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert false[0][0] == 0
    assert sum(n for n, _ in false) <= 0.01 * sum(counted for _, counted in false), lines[-1]


@pytest.mark.slow
def test_of_100_copies_by_the_shipped_vocoder_3_at_most_are_said_to_step_or_drift(shared, capsys):
    vocoder = Vocoder.from_pretrained("default", device="cpu")
    clips = [speech(path) for path in _recordings(shared / "data")]
    copies = [vocoder.vocode_audio(clip, RATE)[: clip.size] for clip in clips]
    for figure in ("step_db", "level_drift_db"):
        found = 0
        for clip, copy in zip(clips, copies, strict=True):
            try:
                found += DETECTORS[figure](clip, copy, RATE) > ALARM_ABOVE_DB[figure]
            except UndefinedMeasure:
                continue
        with capsys.disabled():
            print(f"\n{figure} on copies by default: {found} of {len(clips)}")
        assert found <= 0.03 * len(clips)


def _recordings(data: Path) -> Iterator[Path]:
    """Four of each voice, 30 of Kathleen, 30 telephone prompts."""
    folders = [folder for folder in sorted((data / "voices").iterdir()) if folder.is_dir()]
    for folder, most in [
        *((f, 4) for f in folders),
        (data / "kathleen" / "wavs", 30),
        (data / "prompts_en", 30),
    ]:
        paths = sorted(folder.rglob("*.flac"))
        count = min(most, len(paths))
        yield from (paths[index * len(paths) // count] for index in range(count))


def quiet_noise(seconds: float, level: float = 1e-3) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_a_tone_counts_where_the_recording_pauses_and_has_none():
    real = quiet_noise(2.0)
    real[:RATE] *= 100
    hum = (3e-3 * np.sin(2 * np.pi * 4000 * np.arange(real.size) / RATE)).astype(np.float32)
    assert pause_tone_db(real, real + hum, RATE) > 25
    assert pause_tone_db(real + hum, real + hum, RATE) == 0.0  # the room's own, as Kathleen's at 8 kHz
    sung = hum.copy()
    sung[RATE:] = 0
    assert pause_tone_db(real, real + sung, RATE) < 3
    faint = 1e-2 * real
    assert pause_tone_db(faint, faint + 1e-2 * hum, RATE) == 0.0  # under -80 dBFS
    with pytest.raises(UndefinedMeasure, match=r"0\.20 s"):
        pause_tone_db(real[:4410], real[:4410], RATE)


@pytest.mark.parametrize("place", [0, 9000, -1])
def test_a_jump_is_found_at_the_ends_and_between(place):
    times = np.arange(RATE) / RATE
    real = (0.1 * np.sin(2 * np.pi * 220 * times) * np.sin(np.pi * times)).astype(np.float32) + quiet_noise(
        1.0
    )
    fake = real.copy()
    fake[place] += 0.05
    assert step_db(real, fake, RATE) > 15
    assert step_db(fake, fake, RATE) == 0.0
    faint = real.copy()
    faint[place] += 0.0008  # below a thousandth, and in the noise
    assert step_db(real, faint, RATE) < 3


def pulsed(offset_seconds: float, decay_seconds: float) -> np.ndarray:
    """A low voice: 70 pulses a second through a formant, each with its energy spread over a decaying noise."""
    generator = np.random.default_rng(3)
    out = np.zeros(RATE)
    for start in np.arange(0.05, 0.9, 1 / 70):
        burst = generator.standard_normal(200) * np.exp(-np.arange(200) / RATE / decay_seconds)
        place = round((start + offset_seconds) * RATE)
        out[place : place + 200] += burst / np.sqrt(np.sum(burst**2))
    voice = lfilter([1.0], [1.0, -1.7, 0.9], out)
    return (0.2 * voice / np.abs(voice).max()).astype(np.float32) + quiet_noise(1.0, 2e-4)


@pytest.mark.parametrize("band_hz", [RATE / 2, 8000])
def test_a_pulse_that_is_packed_and_comes_beside_the_recordings_is_no_step(band_hz):
    real, copy = planted.banded(pulsed(0.0, 3e-4), RATE, 0, band_hz), pulsed(0.004, 1e-4)
    assert step_db(real, copy, RATE) < ALARM_ABOVE_DB["step_db"]
    for change in planted.PLANTED["step_db"]:
        faulty = (change(copy, RATE, np.random.default_rng(seed)).astype(np.float32) for seed in range(20))
        found = sum(step_db(real, one, RATE) > ALARM_ABOVE_DB["step_db"] for one in faulty)
        assert found >= 14, (change.__name__, found)  # a seam within a pulse is another pulse


def test_chunks_vocoded_apart_and_joined_step(clips):
    vocoder = Vocoder.from_pretrained("default", device="cpu")
    size = 20 * 256
    for clip in clips:
        apart = [
            vocoder.vocode_audio(clip[n : n + size], RATE)[:size] for n in range(0, clip.size - 2048, size)
        ]
        joined = np.concatenate(apart)
        assert step_db(clip[: joined.size], joined[: clip.size], RATE) > ALARM_ABOVE_DB["step_db"]


@pytest.mark.parametrize("fades", [(RATE // 50, 1), (1, RATE // 50)])
def test_a_recording_that_is_cut_forgives_a_copy_cut_elsewhere_in_its_wave(fades):
    times = np.arange(RATE) / RATE
    real, copy = (
        (0.1 * np.sin(2 * np.pi * 100 * times + phase)).astype(np.float32) + quiet_noise(1.0, 1e-4)
        for phase in (0.0, 1.5)
    )
    copy = fade(copy, *fades[::-1])
    assert step_db(real, copy, RATE) < 3
    assert step_db(fade(real, *fades), copy, RATE) > 12


def test_noise_that_sets_in_is_no_step():
    real = np.concatenate([np.zeros(RATE // 2, np.float32), quiet_noise(0.5, 0.05)])
    assert step_db(0 * real + quiet_noise(1.0, 1e-4), real, RATE) < ALARM_ABOVE_DB["step_db"]


@pytest.mark.parametrize("before, after", [(3, 0), (0, 7), (4, 4), (60, 2)])
def test_running_maximum(before, after):
    values = np.random.default_rng(1).standard_normal(53)
    naive = [values[max(0, n - before) : n + after + 1].max() for n in range(values.size)]
    np.testing.assert_array_equal(_running_max(values, before, after), naive)


def test_energy_above_the_band_has_the_level_that_was_added():
    real = fade(planted.banded(quiet_noise(2.0, 0.1), RATE, 0, 7000), 2000, 2000)
    added = planted.banded(np.random.default_rng(2).standard_normal(real.size), RATE, 7600, 10800)
    for level_db in (-20.0, -40.0, -60.0):
        fake = real + 10 ** (level_db / 20) * planted.rms(real) / planted.rms(added) * added
        assert above_band_db(real, fake, RATE) == pytest.approx(level_db, abs=0.3)
    with pytest.raises(UndefinedMeasure, match="reaches"):
        above_band_db(quiet_noise(2.0), real, RATE)


def test_smear_is_what_an_onset_lost_of_its_rise():
    real = quiet_noise(1.0, 1e-2)
    for place in (5000, 12000, 19000):
        real[place : place + 1000] *= 30  # 29.5 dB
    fake = real.copy()
    for place in (5000, 12000, 19000):
        fake[place - 500 : place] *= 10 ** (9 / 20)
    assert onset_smear_db(real, fake, RATE) == pytest.approx(9.0, abs=1.0)
    once = real.copy()
    once[4500:5000] = fake[4500:5000]
    assert onset_smear_db(real, once, RATE) == pytest.approx(0.0, abs=0.1)  # of three onsets
    assert onset_smear_db(real, np.roll(real, -RATE * 4 // 1000), RATE) == pytest.approx(
        0.0, abs=1.0
    )  # early, as steep
    # Deeper than 30 dB the onset masks what is before it.
    deeper = real.copy()
    for place in (5000, 12000, 19000):
        deeper[place - 500 : place] *= 0.01
    assert onset_smear_db(deeper, real, RATE) == pytest.approx(0.0, abs=1.0)
    with pytest.raises(UndefinedMeasure, match="no onset"):
        onset_smear_db(quiet_noise(1.0), quiet_noise(1.0), RATE)


def test_drift_is_the_range_of_the_level_difference():
    real = quiet_noise(4.0, 0.1)
    fake = real.copy()
    fake[2 * RATE :] *= 10 ** (-3 / 20)
    assert level_drift_db(real, fake, RATE) == pytest.approx(3.0, abs=1e-3)
    assert level_drift_db(real, 0.1 * real, RATE) == pytest.approx(0.0, abs=1e-4)
    paused = real.copy()
    paused[2 * RATE :] *= 10 ** (-26 / 20)
    assert level_drift_db(paused, np.where(np.arange(real.size) < 2.3 * RATE, paused, 0), RATE) < 0.5
    dull = real.copy()
    dull[RATE : 2 * RATE] = planted.banded(real, RATE, 0, 5000)[RATE : 2 * RATE]
    assert level_drift_db(real, dull, RATE) < 0.3  # a sibilant's own fault
    with pytest.raises(UndefinedMeasure, match=r"0\.50 s"):
        level_drift_db(real[: RATE // 2], real[: RATE // 2], RATE)


def test_an_evaluation_counts_alarms_and_names_their_limits(clips):
    def buzzing(audio, sample_rate):
        return planted.drift(audio, sample_rate, np.random.default_rng(0)).astype(np.float32)

    items = [Item(f"{n}", lambda clip=clip: (clip, RATE)) for n, clip in enumerate(clips[:2])]
    result = evaluate(items, {"v": buzzing}, RATE, measures=("faults",))
    assert result.alarms("v") == {"level_drift_db": ["0", "1"]}
    assert result.alarms(GROUND_TRUTH) == {}
    assert alarm_lines(result) == ["v: level drift in 2 of 2 utterances, 3.4 dB in 1 at most"]
    record = evaluation_record(result)
    assert record["alarm_counts"]["v"] == {"level_drift_db": 2}
    assert record["alarm_limits"]["level_drift_db"] == ALARM_ABOVE_DB["level_drift_db"]
    assert record["above_band_db_count"] == 0  # Kathleen fills her band
