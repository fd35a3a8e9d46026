"""Segments: a pure function of seed and position, drawn fairly, cut rightly."""

import copy
import dataclasses
import functools
import logging
import operator
import pickle

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from gansound import audio
from gansound.data.items import collate
from gansound.data.manifest import Record
from gansound.data.segments import PositionSampler, SegmentDataset

RATE = 8000
SEGMENT = 512


def corpus(folder, lengths, rate=RATE, suffix="wav", scale=0.1):
    records = []
    for i, length in enumerate(lengths):
        path = folder / f"f{i}.{suffix}"
        audio.write(path, scale * np.random.default_rng(i).standard_normal(length), rate)
        records.append(Record(path, rate, length))
    return records


def dataset(records, **settings):
    return SegmentDataset(
        records, **({"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 0} | settings)
    )


def equal(one, other):
    return all(torch.equal(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in a)


def test_a_segment_is_where_it_says_in_the_file(tmp_path):
    data = dataset(corpus(tmp_path, [3000, 5000]), silence_db=None)
    for position in range(50):
        item = data[position]
        whole = soundfile.read(data.records[item["record"]].path, dtype="float32")[0]
        start = int(item["start"])
        np.testing.assert_array_equal(item["audio"], whole[start : start + SEGMENT])
        assert int(item["position"]) == position


def test_items_depend_on_seed_and_position_alone(tmp_path):
    records = corpus(tmp_path, [3000, 700, 100, 9000])
    settings = {"gain_db": (-12.0, 6.0), "pad": "random"}
    expected = [dataset(records, **settings)[p] for p in range(40)]
    backwards = dataset(records, **settings)
    assert equal([backwards[p] for p in range(39, -1, -1)][::-1], expected)
    uncached = dataset(records, cache_bytes=0, **settings)
    assert equal([uncached[p] for p in range(40)], expected)
    assert equal([copy.deepcopy(backwards)[p] for p in range(3)], expected[:3])
    assert not equal([dataset(records, **settings | {"seed": 1})[p] for p in range(40)], expected)


def test_workers_change_nothing_and_a_resume_goes_on(tmp_path):
    data = dataset(corpus(tmp_path, [3000, 700, 9000]), gain_db=(-6.0, 6.0))
    alone = list(DataLoader(data, batch_size=4, sampler=PositionSampler(0, 24), collate_fn=collate))
    workers = DataLoader(
        data,
        batch_size=4,
        sampler=PositionSampler(8, 24),
        collate_fn=collate,
        num_workers=2,
        multiprocessing_context="fork",
    )
    assert alone[0]["audio"].shape == (4, SEGMENT)
    assert equal(list(workers), alone[2:])
    sent = pickle.loads(pickle.dumps(data))  # as to a spawned worker
    assert equal([sent[p] for p in range(10)], [data[p] for p in range(10)])


def test_ranks_deal_out_the_same_global_batches(tmp_path):
    whole = list(PositionSampler(12, 48))
    assert whole == list(range(12, 48))
    for ranks, batch in ((2, 3), (3, 2), (1, 6)):
        parts = [list(PositionSampler(12, 48, rank=r, ranks=ranks, batch_size=batch)) for r in range(ranks)]
        assert all(
            len(part) == len(PositionSampler(12, 48, rank=0, ranks=ranks, batch_size=batch)) for part in parts
        )
        steps = [[p[i : i + batch] for i in range(0, len(p), batch)] for p in parts]
        assert [functools.reduce(operator.iadd, step, []) for step in zip(*steps, strict=True)] == [
            list(range(s, s + 6)) for s in range(12, 48, 6)
        ]
    for wrong in ((5, 3, {}), (-1, 3, {}), (0, 5, {"batch_size": 2}), (0, 4, {"rank": 2, "ranks": 2})):
        with pytest.raises(ValueError, match="expected"):
            PositionSampler(*wrong[:2], **wrong[2])


def test_files_are_drawn_by_their_length_and_crops_evenly(tmp_path):
    data = dataset(corpus(tmp_path, [SEGMENT * 30, SEGMENT * 10, SEGMENT // 2]), silence_db=None)
    items = [data[p] for p in range(4100)]
    counts = np.bincount([int(i["record"]) for i in items], minlength=3)
    expected = np.array([3000, 1000, 100])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # two degrees of freedom, p = 0.001
    starts = np.array([int(i["start"]) for i in items if i["record"] == 0]) / (SEGMENT * 29)
    ordered = np.sort(starts)
    distance = np.abs(ordered - np.arange(len(ordered)) / len(ordered)).max()
    assert distance < 1.95 / np.sqrt(len(ordered))  # Kolmogorov-Smirnov, p = 0.001
    assert ordered[0] >= 0
    assert ordered[-1] <= 1


@pytest.mark.parametrize("balance, share", [(1.0, 0.9), (0.5, 0.75), (0.0, 0.5)])
def test_speakers_are_drawn_by_a_power_of_their_hours(tmp_path, balance, share):
    """Nine times as much of one speaker: 9 to 1, 3 to 1, 1 to 1; within a speaker by length."""
    records = corpus(tmp_path, [SEGMENT * n for n in (60, 30, 10)])
    spoken = [dataclasses.replace(r, speaker=s) for r, s in zip(records, "aab", strict=True)]
    data = dataset(spoken, balance=balance)
    drawn = np.bincount([int(data[p]["record"]) for p in range(1500)], minlength=3) / 1500
    assert drawn[0] + drawn[1] == pytest.approx(share, abs=0.04)
    assert drawn[0] == pytest.approx(2 * drawn[1], rel=0.2)


def test_where_no_speaker_is_known_labels_are_balanced(tmp_path, caplog):
    records = corpus(tmp_path, [SEGMENT * n for n in (60, 30, 10)])
    labelled = [dataclasses.replace(r, label=s) for r, s in zip(records, "aab", strict=True)]
    data = dataset(labelled, balance=0.0)
    drawn = np.bincount([int(data[p]["record"]) for p in range(1500)], minlength=3) / 1500
    assert drawn[2] == pytest.approx(0.5, abs=0.04)
    assert "balance" not in caplog.text
    dataset(records, balance=0.0)
    assert "balance 0 does nothing: no file says its speaker" in caplog.text


def test_an_item_says_how_high_its_recording_reaches(tmp_path):
    for rate, reaches_hz in ((RATE // 2, RATE // 2 / 2), (RATE, RATE / 2), (RATE * 2, RATE / 2)):
        assert float(dataset(corpus(tmp_path, [9000], rate=rate))[0]["bandwidth_hz"]) == reaches_hz


def test_short_files_are_padded_at_the_end_or_around(tmp_path):
    records = corpus(tmp_path, [100])
    whole = soundfile.read(records[0].path, dtype="float32")[0]
    end = dataset(records)[0]["audio"].numpy()
    np.testing.assert_array_equal(end, np.concatenate([whole, np.zeros(SEGMENT - 100)]))
    around = dataset(records, pad="random")
    starts = set()
    for position in range(30):
        item = around[position]
        offset = -int(item["start"])
        np.testing.assert_array_equal(item["audio"][offset : offset + 100], whole)
        assert np.count_nonzero(item["audio"]) == np.count_nonzero(whole)
        starts.add(offset)
    assert len(starts) > 20


def test_one_shots_begin_at_their_beginning_and_count_alike(tmp_path):
    data = dataset(corpus(tmp_path, [SEGMENT * 30, 100]), crop="start")
    items = [data[p] for p in range(400)]
    assert {int(i["start"]) for i in items} == {0}
    assert abs(sum(int(i["record"]) for i in items) - 200) < 33


def test_silence_is_seldom_drawn(tmp_path):
    samples = np.zeros(SEGMENT * 40)
    samples[-SEGMENT * 20 :] = 0.1 * np.random.default_rng(0).standard_normal(SEGMENT * 20)
    audio.write(tmp_path / "a.wav", samples, RATE)
    records = [Record(tmp_path / "a.wav", RATE, len(samples))]

    def silent(**settings):
        data = dataset(records, **settings)
        return sum(not data[p]["audio"].any() for p in range(800)) / 800

    assert abs(silent(silence_db=None) - 0.5) < 0.06
    assert 0 < silent(silence_db=30.0) < 0.12  # 0.5 ** 4 = 0.06


def test_gain_varies_but_never_passes_the_limit(tmp_path):
    loud = corpus(tmp_path, [9000], scale=0.2)
    data, plain = dataset(loud, gain_db=(-10.0, 10.0)), dataset(loud)
    limited = 0
    gains = []
    for position in range(200):
        item, before = data[position], plain[position]["audio"]
        gain = float(item["gain_db"])
        torch.testing.assert_close(item["audio"], before * 10 ** (gain / 20))
        peak = float(item["audio"].abs().max())
        assert peak <= 0.99
        limited += peak > 0.9899
        gains.append(gain)
    assert limited > 20
    assert min(gains) < -9
    quiet = dataset(corpus(tmp_path, [9000], scale=0.01), gain_db=(-10.0, 10.0))
    drawn = np.array([float(quiet[p]["gain_db"]) for p in range(400)])
    assert abs(drawn.mean()) < 1.0
    assert drawn.std() == pytest.approx(20 / np.sqrt(12), rel=0.1)


def test_speed_is_a_function_of_position_and_changes_about_half(tmp_path):
    records = corpus(tmp_path, [9000, 3000, 700])
    settings = {"speed": 0.35, "gain_db": (-6.0, 6.0)}
    data, plain = dataset(records, **settings), dataset(records, gain_db=(-6.0, 6.0))
    items = [data[p] for p in range(600)]
    again = dataset(records, cache_bytes=0, **settings)
    assert equal([again[p] for p in range(99, -1, -1)][::-1], items[:100])
    assert not equal([dataset(records, **settings | {"seed": 1})[p] for p in range(20)], items[:20])
    before = [plain[p] for p in range(600)]
    assert [int(i["record"]) for i in items] == [int(i["record"]) for i in before]
    changed = sum(not torch.equal(a["audio"], b["audio"]) for a, b in zip(items, before, strict=True))
    assert abs(changed - 300) < 40  # 3.3 standard deviations of a fair coin
    assert all(item["audio"].shape == (SEGMENT,) for item in items)


def test_speed_moves_the_pitch_of_a_sine_by_its_factor(tmp_path):
    pitch_hz, length = 600.0, 4096
    own = 2 * RATE  # a file of the model's rate is never slowed
    audio.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * pitch_hz / own * np.arange(60000)), own)
    records = [Record(tmp_path / "a.wav", own, 60000)]
    data = dataset(records, segment_samples=length, speed=0.5)
    octaves = []
    for position in range(300):
        windowed = np.hanning(length) * data[position]["audio"].numpy()
        spectrum = np.abs(np.fft.rfft(windowed, 16 * length))
        found_hz = spectrum.argmax() * RATE / (16 * length)
        assert found_hz == pytest.approx(pitch_hz * data._rate(position, 0) / RATE, rel=2e-3)
        octaves.append(np.log2(found_hz / pitch_hz))
    moved = np.array([o for o in octaves if abs(o) > 0.003])
    assert moved.min() < -0.45
    assert moved.max() > 0.45
    assert np.abs(moved).max() < 0.505
    assert abs(moved.mean()) < 0.08  # as often up as down: uniform in octaves
    assert moved.std() == pytest.approx(1 / np.sqrt(12), rel=0.12)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_slowed_crop_of_a_file_shorter_than_a_segment(tmp_path, cache_bytes):
    # Slowed by up to an octave, a segment needs half its length of the file.
    records = corpus(tmp_path, [2 * SEGMENT - 80], rate=2 * RATE)
    data = dataset(records, speed=1.0, cache_bytes=cache_bytes, pad="random")
    for position in range(60):
        item = data[position]["audio"]
        assert item.shape == (SEGMENT,)
        assert torch.isfinite(item).all()
        assert item.any()
    assert np.isfinite(data._level(0))


def top_db(segment):
    """Level of the top tenth of the band to that of all, both for each hertz."""
    power = np.square(np.abs(np.fft.rfft(np.hanning(len(segment)) * segment)))
    return 10 * np.log10(power[int(0.9 * len(power)) : int(0.97 * len(power))].mean() / power.mean())


@pytest.mark.parametrize("rate, slowest", [(RATE, 1.0), (int(1.2 * RATE), 1 / 1.2), (4 * RATE, 0.5)])
def test_no_speed_empties_the_top_of_the_band(tmp_path, rate, slowest):
    records = corpus(tmp_path, [3 * rate, 2 * rate], rate=rate)  # white noise: full to half of its rate
    uncached = dataset(records, segment_samples=4096, speed=1.0, cache_bytes=0)
    data = dataset(records, segment_samples=4096, speed=1.0)
    rates = np.array([data._rate(p, 0) / RATE for p in range(200)])
    assert rates.max() > 1.8
    assert rates.min() == pytest.approx(slowest, abs=0.03)
    assert (rates < 1).mean() == pytest.approx(
        0.5 * np.log2(1 / slowest) / (1 + np.log2(1 / slowest)), abs=0.1
    )
    for position in range(120):
        item = data[position]
        assert equal([item], [uncached[position]])
        assert top_db(item["audio"].numpy()) > -3


@pytest.mark.parametrize("rate", [22050, 16000, 7350])
def test_another_rate_is_resampled_as_the_whole_file_would_be(tmp_path, caplog, rate):
    records = corpus(tmp_path, [rate * 3 + 17], rate=rate)
    caplog.set_level(logging.INFO)
    cached, uncached = dataset(records), dataset(records, cache_bytes=0)
    assert f"resampling {rate} Hz to 8000 Hz" in caplog.text
    assert (f"which leaves nothing above {rate // 2} Hz of some" in caplog.text) == (rate < RATE)
    whole = audio.resample(audio.read(records[0].path)[0], rate, RATE)
    for position in range(40):
        item = cached[position]
        assert equal([item], [uncached[position]])
        start = int(item["start"])
        np.testing.assert_allclose(item["audio"], whole[start : start + SEGMENT], atol=1e-6)


def test_stereo_float_and_24_bit_files_are_cached_without_loss(tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal((2, 4001))
    audio.write(tmp_path / "stereo.wav", samples, RATE)
    audio.write(tmp_path / "fine.flac", samples[0], RATE, subtype="PCM_24")
    audio.write(tmp_path / "float.wav", samples[0], RATE, subtype="FLOAT")
    audio.write(tmp_path / "plain.wav", samples[0], RATE)
    records = [Record(p, RATE, 4001) for p in sorted(tmp_path.iterdir())]
    cached = dataset(records)
    assert cached.source._cache is not None
    uncached = dataset(records, cache_bytes=4001 * 14 - 1)
    assert uncached.source._cache is None
    assert equal([cached[p] for p in range(60)], [uncached[p] for p in range(60)])


def test_a_file_that_changed_or_went_is_named(tmp_path):
    records = corpus(tmp_path, [3000, 3000])
    data = dataset(records, cache_bytes=0)
    records[0].path.unlink()
    audio.write(records[1].path, np.zeros(2000), RATE)
    for position in range(20):
        with pytest.raises(ValueError, match="16 draws in a row") as caught:
            data[position]
        assert "f0.wav: No such file" in str(caught.value)
        assert "f1.wav: holds 2000 samples at 8000 Hz, the manifest says 3000" in str(caught.value)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"records": []}, "no records"),
        ({"segment_samples": 0}, "segment_samples"),
        ({"gain_db": (3.0, -3.0)}, "lowest, highest"),
        ({"crop": "middle"}, "crop is"),
        ({"speed": 0.0}, "speed"),
        ({"speed": 1.5}, "octave"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, reason):
    records = corpus(tmp_path, [1000])
    with pytest.raises(ValueError, match=reason):
        dataset(**({"records": records} | settings))


def test_kathleen_cached_equals_decoded(shared):
    paths = sorted((shared / "data" / "kathleen" / "wavs").glob("*.flac"))[:20]
    records = [Record(i.path, i.sample_rate, i.frames) for i in map(audio.probe, paths)]
    settings = {"sample_rate": 22050, "segment_samples": 8192, "gain_db": (-6.0, 12.0)}
    cached, uncached = dataset(records, **settings), dataset(records, cache_bytes=0, **settings)
    assert equal([cached[p] for p in range(30)], [uncached[p] for p in range(30)])
