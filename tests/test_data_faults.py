"""What goes wrong while a run lasts: files that vanish and change, workers that are killed, a disk that hangs."""

import dataclasses
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gansound import audio
from gansound.data.clips import ClipDataset
from gansound.data.manifest import Record, write_manifest
from gansound.data.segments import SegmentDataset
from gansound.data.settings import OneShotSettings
from gansound.engine import loading
from gansound.engine.feed import Feed
from gansound.engine.plan import plan
from gansound.engine.run import Run
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, tiny

RATE = 8000
SEGMENT = 512
FRAMES = 6000


def samples(seed, frames=FRAMES):
    return (0.1 * np.random.default_rng(seed).standard_normal(frames)).astype(np.float32)


def corpus(folder, count=6, suffix="wav", subtype=None):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        audio.write(folder / f"f{i}.{suffix}", samples(i), RATE, subtype=subtype)
    return [Record(folder / f"f{i}.{suffix}", RATE, FRAMES) for i in range(count)]


def segments(records, **settings):
    given = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 0, "cache_bytes": 0, "silence_db": None}
    return SegmentDataset(records, **(given | settings))


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def replaced(path, sound, rate=RATE):
    audio.write(path, sound, rate)


def as_floats(path, value):
    """The same file with one sample of 32 bits that is no number."""
    sound = audio.read(path)[0]
    sound[FRAMES // 2] = value
    soundfile.write(path, sound, RATE, subtype="FLOAT", format="WAV")


FAULTS = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "only a header": lambda path: path.write_bytes(path.read_bytes()[:44]),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "truncated by a byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "shorter": lambda path: replaced(path, samples(9, FRAMES - 1)),
    "longer": lambda path: replaced(path, samples(9, 2 * FRAMES)),
    "another rate": lambda path: replaced(path, samples(9), RATE * 2),
    "garbage": lambda path: path.write_bytes(np.random.default_rng(9).bytes(path.stat().st_size)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "not a number": lambda path: as_floats(path, np.nan),
    "infinite": lambda path: as_floats(path, np.inf),
    "forbidden": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_position_whose_file_went_bad_is_drawn_anew(tmp_path, suffix, fault):
    if fault == "forbidden" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    if suffix == "flac" and fault in ("not a number", "infinite"):
        pytest.skip("FLAC holds whole numbers")
    records = corpus(tmp_path, suffix=suffix)
    data = segments(records)
    before = [data[p] for p in range(80)]
    wrong = records[2]
    pristine = [audio.read(r.path)[0] for r in records]
    FAULTS[fault](wrong.path)
    after = [data[p] for p in range(80)]
    redrawn = 0
    for position, (one, other) in enumerate(zip(before, after, strict=True)):
        assert int(other["position"]) == position
        record, start = int(other["record"]), int(other["start"])
        np.testing.assert_array_equal(other["audio"], pristine[record][start : start + SEGMENT])
        if int(other["retries"]):
            redrawn += 1
            assert int(one["record"]) == 2
            assert record != 2
        else:
            assert equal(one, other)
    drawn = sum(int(item["record"]) == 2 for item in before)
    assert drawn > 10
    if fault in ("truncated", "truncated by a byte", "not a number", "infinite", "only a header"):
        assert 0 < redrawn <= drawn  # what comes before the damage is whole
    else:
        assert redrawn == drawn
    anew = segments(records)  # as after a resume
    assert all(equal(anew[p], after[p]) for p in range(79, -1, -1))
    items = data.__getitems__(range(80))
    for item, other in zip(items, after, strict=True):
        bad = item.get("bad", ())
        assert len(bad) == item["retries"] == int(other["retries"])
        assert all(record == 2 and str(wrong.path) in reason for record, reason in bad)


@pytest.mark.parametrize("seed", range(6))
def test_a_flac_file_with_overwritten_bytes_gives_its_own_samples_or_none(tmp_path, seed):
    records = corpus(tmp_path, count=3, suffix="flac")
    pristine = [audio.read(r.path)[0] for r in records]
    rng = np.random.default_rng(seed)
    content = bytearray(records[0].path.read_bytes())
    at = int(rng.integers(200, len(content) - 64))
    content[at : at + 64] = rng.bytes(64)
    records[0].path.write_bytes(content)
    data = segments(records)
    for position in range(60):
        item = data[position]
        start = int(item["start"])
        np.testing.assert_array_equal(item["audio"], pristine[int(item["record"])][start : start + SEGMENT])


def test_what_is_in_memory_stays_and_what_went_before_is_drawn_past(tmp_path):
    records = corpus(tmp_path)
    data = segments(records, cache_bytes=2**30, silence_db=30.0)
    before = [data[p] for p in range(60)]
    assert data.source._cache.filled.all()
    for record in records:
        record.path.unlink()
    assert all(equal(data[p], before[p]) for p in range(60))
    records = corpus(tmp_path)
    records[1].path.unlink()
    late = segments(records, cache_bytes=2**30, silence_db=30.0)
    items = [late[p] for p in range(60)]
    assert {int(i["record"]) for i in items} == {0, 2, 3, 4, 5}
    assert {int(i["record"]) for i in before} == set(range(6))
    assert all(equal(a, b) for a, b in zip(before, items, strict=True) if int(a["record"]) != 1)


def test_a_file_that_became_finer_than_its_place_in_memory_is_drawn_past(tmp_path):
    records = corpus(tmp_path, count=3)
    data = segments(records, cache_bytes=2**30)
    pristine = [audio.read(r.path)[0] for r in records]
    loud = samples(1)
    loud[100] = 1.5  # would wrap around in 16 bits
    for record, sound in ((records[1], loud), (records[2], samples(2))):
        soundfile.write(record.path, sound, RATE, subtype="FLOAT", format="WAV")
    items = data.__getitems__(range(60))
    for item in items:
        assert item["record"] == 0
        np.testing.assert_array_equal(item["audio"], pristine[0][item["start"] : item["start"] + SEGMENT])
    assert any("is finer now" in reason for item in items for _, reason in item.get("bad", ()))


def test_no_draw_goes_on_for_ever(tmp_path):
    records = corpus(tmp_path)
    data = segments(records)
    for record in records:
        record.path.unlink()
    with pytest.raises(
        ValueError, match=r"16 draws in a row.*f\d.wav: No such file.*prepare the corpus again"
    ):
        data[0]


def test_clips_go_past_a_file_that_went_bad(tmp_path, caplog):
    records = corpus(tmp_path)
    records[5].path.unlink()
    data = ClipDataset(records, sample_rate=RATE, clip_samples=2048, seed=0, cache_bytes=0)
    assert "skipped 1 file:" in caplog.text
    assert "f5.wav: No such file" in caplog.text
    before = [data[p] for p in range(80)]
    records[0].path.unlink()
    replaced(records[1].path, samples(9, 99))
    after = [data[p] for p in range(80)]
    for one, other in zip(before, after, strict=True):
        assert int(other["record"]) in (2, 3, 4)
        assert equal(one, other) or (int(one["record"]) in (0, 1) and int(other["retries"]) > 0)
    assert sum(int(item["retries"]) > 0 for item in after) == sum(int(i["record"]) in (0, 1) for i in before)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"), files=12)


@pytest.fixture(scope="module")
def planned(sounds):
    return plan(tiny(sounds, 40))


def feed(planned, path, **data):
    given = {"path": str(path), "cache_gb": 0.0, "valid": 0.0, "test": 0.0}
    settings = dataclasses.replace(planned.settings.data, **(given | data))
    return Feed(dataclasses.replace(planned.settings, data=settings), planned.task)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_named_once_and_counted(planned, sounds, tmp_path, caplog, workers):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    fed = feed(planned, folder, workers=workers)
    expected = [fed.dataset[p] for p in range(80)]
    (folder / "clip03.wav").unlink()
    os.truncate(folder / "clip07.wav", 1000)
    batches = list(fed.batches(0, 0, 1, pin_memory=False))
    retries = torch.cat([batch["retries"] for batch in batches])
    hit = [Path(fed.file(int(item["record"]))).stem in ("clip03", "clip07") for item in expected]
    assert (retries > 0).tolist() == hit
    assert sum(hit) > 5
    assert all("bad" not in batch for batch in batches)
    assert torch.equal(torch.cat([batch["position"] for batch in batches]), torch.arange(80))
    for name, reason in (
        ("clip03.wav", "No such file"),
        ("clip07.wav", "cut: header says 0.80 s, file holds 0.02 s"),
    ):
        assert caplog.text.count(f"{name}: ") == 1
        assert any(name in text and reason in text for text in fed.bad.values())


def test_too_many_bad_files_end_a_run_by_their_names(planned, sounds, tmp_path):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    fed = feed(planned, folder, workers=1, max_bad_files=2)
    for i in range(3):
        (folder / f"clip{i:02d}.wav").unlink()
    with pytest.raises(ValueError, match=r"3 of 12 files can't be used any more, more than 2: ") as caught:
        list(fed.batches(0, 0, 1, pin_memory=False))
    for words in ("clip00.wav", "clip01.wav", "clip02.wav", "No such file", "data.max_bad_files"):
        assert words in str(caught.value)
    half = feed(planned, folder, workers=0)
    for i in range(3, 8):
        (folder / f"clip{i:02d}.wav").unlink()
    assert len(half.train_records) == 9
    with pytest.raises(ValueError, match="5 of 9 files can't be used any more, more than 4"):
        list(half.batches(0, 0, 1, pin_memory=False))


def test_a_manifest_edited_during_a_run_changes_nothing(planned, sounds, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    records = [
        Record(i.path, i.sample_rate, i.frames, split="train")
        for i in map(audio.probe, sorted(sounds.glob("*.wav")))
    ]
    write_manifest(manifest, records)
    expected = list(feed(planned, manifest, workers=0).batches(0, 0, 1, pin_memory=False))
    fed = feed(planned, manifest, workers=2)
    batches = fed.batches(0, 0, 1, pin_memory=False)
    got = [next(batches)]
    before = fed.fingerprint
    write_manifest(manifest, records[:2])
    got += [next(batches)]
    manifest.write_text("{")
    got += list(batches)
    assert all(equal(a, b) for a, b in zip(expected, got, strict=True))
    assert fed.fingerprint == before
    write_manifest(manifest, records[:2])
    assert feed(planned, manifest).fingerprint != before


def workers_now(others):
    return [process for process in multiprocessing.active_children() if process not in others]


def killed(process, how=signal.SIGKILL):
    """Kill a process that lives, and see it die of it."""
    assert process.is_alive()
    os.kill(process.pid, how)
    process.join(240)
    assert process.exitcode == -how


@pytest.mark.parametrize("how, advice", [("SIGKILL", "out of memory"), ("SIGBUS", "/dev/shm")])
def test_a_killed_worker_is_replaced_and_no_batch_changes(planned, sounds, caplog, how, advice):
    expected = list(feed(planned, sounds, workers=0).batches(3, 0, 1, pin_memory=False))
    others = set(multiprocessing.active_children())
    batches = feed(planned, sounds, workers=2).batches(3, 0, 1, pin_memory=False)
    got = [next(batches) for _ in range(4)]
    first = workers_now(others)
    assert len(first) == 2
    killed(first[1], signal.Signals[how])
    got += [next(batches) for _ in range(12)]
    second = workers_now(others)
    assert not set(second) & set(first)
    for process in second:
        killed(process, signal.Signals[how])
    got += list(batches)
    assert len(got) == len(expected) == 37
    assert all(equal(a, b) for a, b in zip(expected, got, strict=True))
    assert f"pid {first[1].pid}) was killed by {how}" in caplog.text
    assert advice in caplog.text
    assert not workers_now(others)


def test_workers_that_are_killed_again_and_again_end_a_run(planned, sounds, caplog, monkeypatch):
    monkeypatch.setattr(loading, "_RESTARTS", 1)
    others = set(multiprocessing.active_children())
    batches = feed(planned, sounds, workers=1).batches(0, 0, 1, pin_memory=False)

    def go_on():
        next(batches)
        while True:
            killed(*workers_now(others))
            for _ in range(4):  # two of them may have been loaded before
                next(batches)

    with pytest.raises(
        ValueError, match=r"killed 2 times .* by SIGKILL at batch .*: out of memory, .* checkpoint"
    ):
        go_on()
    assert caplog.text.count("New processes load it again") == 1
    assert not workers_now(others)


def look_at(event):
    while True:
        event.is_set()


def test_a_worker_killed_while_it_looks_whether_to_end_holds_up_no_end():
    context = loading.worker_context()
    event = context.Event()
    assert not event.is_set()
    for _ in range(30):  # of multiprocessing's own events nearly every one is left locked by then
        process = context.Process(target=look_at, args=(event,), daemon=True)
        process.start()
        time.sleep(0.01)
        killed(process)
    end = threading.Thread(target=event.set, daemon=True)
    end.start()
    end.join(60)
    assert not end.is_alive()
    assert event.is_set()


def test_a_run_whose_worker_is_killed_ends_as_one_left_alone(sounds, tmp_path, caplog):
    recipe = tiny(sounds, 6, **{"data.workers": 1})
    Run(plan(recipe), tmp_path / "alone").fit()
    others = set(multiprocessing.active_children())
    hit = []

    def kill(progress):  # in the main thread, where torch's own handler would raise
        if progress.step == 2:
            killed(*workers_now(others))
            hit.append(progress.step)
            time.sleep(0.05)

    Run(plan(recipe), tmp_path / "killed").fit(kill)
    assert hit == [2]
    assert "killed by SIGKILL" in caplog.text
    assert_same_run(tmp_path / "alone", tmp_path / "killed")


_FULL = """
import numpy, soundfile, sys
from pathlib import Path
from torch.utils.data import DataLoader
from gansound.data.items import collate
from gansound.data.manifest import Record
from gansound.data.segments import SegmentDataset
from gansound.data.settings import OneShotSettings
from gansound.engine.loading import unbroken

path = Path(sys.argv[1])
soundfile.write(path, numpy.zeros(10**6), 8000)
data = SegmentDataset([Record(path, 8000, 10**6)], sample_rate=8000, segment_samples=2**17, seed=0)
make = lambda n: DataLoader(data, batch_size=4, sampler=range(n * 4, 20), num_workers=1, collate_fn=collate)
held = list(unbroken(make, 0, 5, lambda n: []))  # 10 MB
"""


@pytest.mark.slow
def test_shared_memory_without_room_ends_a_run(tmp_path):
    def run(size):
        shell = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$0" "$@"'
        command = ["unshare", "-m", "sh", "-c", shell, sys.executable, "-c", _FULL, str(tmp_path / "a.wav")]
        return subprocess.run(command, capture_output=True, text=True, timeout=240)

    if shutil.which("unshare") is None or run("64m").returncode:
        pytest.skip("needs the right to mount a /dev/shm of its own")
    error = run("8m").stderr.strip().splitlines()[-1]
    assert error.startswith("ValueError: unable to allocate shared memory")
    assert "--shm-size" in error


def test_a_hung_worker_is_waited_for_by_name(planned, sounds, caplog, monkeypatch):
    monkeypatch.setattr(loading, "SLOW_SECONDS", 0.3)
    expected = list(feed(planned, sounds, workers=0).batches(0, 0, 1, pin_memory=False))
    fed = feed(planned, sounds, workers=1)
    others = set(multiprocessing.active_children())
    batches = fed.batches(0, 0, 1, pin_memory=False)
    got = [next(batches)]
    (worker,) = workers_now(others)
    os.kill(worker.pid, signal.SIGSTOP)  # as in a read that doesn't return

    def wake():
        deadline = time.monotonic() + 240
        while caplog.text.count("is drawn from") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(worker.pid, signal.SIGCONT)

    waker = threading.Thread(target=wake)
    waker.start()
    got += list(batches)
    waker.join()
    assert all(equal(a, b) for a, b in zip(expected, got, strict=True))
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    waiting = [text for text in said if "waiting for batch" in text]
    named = [text for text in said if "is drawn from" in text]
    assert "the disk is slow or hangs" in waiting[0]
    assert len(named) >= 2
    number = int(named[0].split()[1])
    for position in expected[number]["position"].tolist():
        assert str(fed.dataset.file(position)) in named[0]


def test_a_validation_goes_without_a_file_that_went_bad(planned, sounds, tmp_path, caplog):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    fed = feed(planned, folder, valid=0.4)
    first, *others = [record.path for record in fed.valid_records]
    assert others
    first.unlink()
    names = [name for name, _ in fed.held_out[0]]
    assert set(names) <= {path.stem for path in others}
    assert names
    assert f"{first}: No such file" in caplog.text
    gone = feed(planned, folder, valid=0.4)
    for record in gone.valid_records:
        record.path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="files to validate on can be used"):
        _ = gone.held_out


@pytest.mark.parametrize("one_shots", [None, OneShotSettings()], ids=["recordings", "one-shots"])
def test_what_is_validated_on_is_spread_over_all_that_is_held_out(planned, tmp_path, one_shots):
    # By speaker in the order of their names: the first few would all be of the first.
    folder = write_corpus(tmp_path / "corpus", files=20)
    fed = feed(planned, folder, valid=0.8, test=0.0, one_shots=one_shots)
    held_out = [Path(record.path).stem for record in fed.valid_records]
    assert len(held_out) in (16, 17)
    assert fed.settings.validate_utterances == 4
    assert [name for name, _ in fed.held_out[0]] == held_out[:16:4]
