"""A pitch beside the sounds that a vocoder learns from: where it lies, at which speed, found or brought, and used."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import gansound
from gansound import audio
from gansound.cli import main
from gansound.data import index, pitch
from gansound.data.items import collate
from gansound.data.manifest import Record
from gansound.data.pack import write_shards
from gansound.data.paired import PairedDataset
from gansound.data.pairs import Pair
from gansound.data.pitch import Pitches, open_pitches
from gansound.data.prepare import prepare
from gansound.data.segments import PositionSampler, SegmentDataset
from gansound.data.source import open_corpus
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.extras import MissingPackage, missing
from gansound.frames import LatentSpec, PitchedSpec
from gansound.generators.nsf_hifigan import NSFHiFiGANGenerator
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder, save_model_folder
from gansound.recipe import RecipeError, load_recipe
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, losses

RATE, HOP, SEGMENT = 8000, 64, 2048
FRAMES = SEGMENT // HOP
CLASS = "gansound.generators.nsf_hifigan.NSFHiFiGANGenerator"
SMALL = {
    "n_mels": 81, "sample_rate": 22050, "channels": 16, "upsample_rates": (8, 8, 4),
    "upsample_kernel_sizes": (16, 16, 8), "residual_kernel_sizes": (3,), "residual_dilations": ((1,),), "harmonics": 2,
}  # fmt: skip
SPEC = MelSpec.preset("hifigan")


def glides(folder, rates, seconds=2.0):
    """Sines that rise or fall by an octave a second, from files of several rates; and the pitch of each at frames."""
    records, tracks = [], []
    for number, rate in enumerate(rates):
        octaves = (-1) ** number

        def hertz(time, octaves=octaves):
            return 1000 * 2 ** (octaves * (time - 1))

        time = np.arange(int(seconds * rate)) / rate
        phase = 1000 * 2 ** (octaves * (time - 1)) / (octaves * np.log(2))  # the integral
        path = folder / f"glide_{number}.wav"
        audio.write(path, 0.5 * np.sin(2 * np.pi * phase), rate, subtype="FLOAT")
        records.append(Record(path, rate, len(time)))
        tracks.append(hertz(np.arange(-(-int(seconds * RATE) // HOP)) * HOP / RATE).astype(np.float32))
    return records, tracks


def heard_hz(samples):
    """The frequency of a sine at the beginning of each frame, from its analytic signal."""
    spectrum = np.fft.fft(samples)
    spectrum[len(samples) // 2 :] = 0
    phase = np.unwrap(np.angle(np.fft.ifft(spectrum)))
    return np.gradient(phase)[::HOP] * RATE / (2 * np.pi)


@pytest.mark.parametrize("settings", [{}, {"speed": 0.5}, {"speed": 0.5, "gain_db": (-12.0, 3.0)}])
def test_a_segments_pitch_is_what_is_heard_in_it(tmp_path, settings):
    """A frame is 9.6 cents of the glide; speeds are drawn up and, of files of twice the rate, down too."""
    records, tracks = glides(tmp_path, [RATE, 2 * RATE, RATE, 2 * RATE])
    how = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 1, "silence_db": None}
    data = SegmentDataset(records, **how, **settings, pitch=Pitches.of(tracks, HOP))
    ratios = []
    for position in range(60):
        item = {name: value.numpy() for name, value in data[position].items()}
        start = int(item["start"])
        assert start % HOP == 0
        assert item["f0"].shape == (FRAMES,)
        assert item["f0"].dtype == np.float32
        inside = slice(8, FRAMES - 8)  # the analytic signal ends where the segment does
        heard = heard_hz(item["audio"].astype(np.float64))[inside]
        cents = 1200 * np.log2(heard / item["f0"][inside])
        assert abs(np.median(cents)) < 2, (position, cents)
        track = tracks[int(item["record"])][start // HOP :][:FRAMES]
        ratios.append(item["f0"][0] / track[0])
        if ratios[-1] == 1:
            np.testing.assert_array_equal(item["f0"], track)
    assert ("speed" in settings) == (min(ratios) < 0.8 and max(ratios) > 1.25)
    assert sum(ratio == 1 for ratio in ratios) > 15


def test_a_pitch_changes_no_draw_but_where_segments_begin(tmp_path):
    records, tracks = glides(tmp_path, [RATE, 2 * RATE])
    how = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 0, "speed": 0.4, "gain_db": (-9.0, 3.0)}
    plain, pitched = (SegmentDataset(records, **how, pitch=p) for p in (None, Pitches.of(tracks, HOP)))
    for position in range(20):
        one, other = plain[position], pitched[position]
        assert other.keys() - one.keys() == {"f0"}
        assert one["record"] == other["record"]
        assert one["audio"].shape == other["audio"].shape


def test_workers_and_a_resume_give_the_same_pitch(tmp_path):
    records, tracks = glides(tmp_path, [RATE, 2 * RATE])
    how = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 0, "speed": 0.4}
    data = SegmentDataset(records, **how, pitch=Pitches.of(tracks, HOP))
    alone = list(DataLoader(data, batch_size=4, sampler=PositionSampler(0, 16), collate_fn=collate))
    workers = DataLoader(
        data, batch_size=4, sampler=PositionSampler(8, 16), collate_fn=collate, num_workers=2,
        multiprocessing_context="fork",
    )  # fmt: skip
    for one, other in zip(alone[2:], workers, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "first, speed, expected",
    [
        (0, 1, [200, 0, 0, 400, 800]),
        (3, 1, [400, 800, 800, 800, 800]),  # goes on behind the end
        (-2, 1, [200, 200, 200, 0, 0]),  # and stands before the beginning
        (0.4, 1, [200, 0, 0 + 0, 400 * 2**0.4, 800]),
        (2.6, 1, [400, 400 * 2**0.6, 800, 800, 800]),
        (3, 0.5, [200, 0.5 * 400 * 2**0.5, 400, 400, 400]),
        (0, 2, [400, 0, 1600, 1600, 1600]),
    ],
)
def test_between_frames_it_goes_between_logarithms_or_is_the_nearers(first, speed, expected):
    tracks = [np.array(track, np.float32) for track in ([50.0], [200, 0, 0, 400, 800], [90, 90])]
    found = Pitches.of(tracks, HOP).at(1, first, 5, speed)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_short_recording_has_its_pitch_too(tmp_path):
    """Beside zeros before and behind it."""
    path = tmp_path / "short.wav"
    audio.write(path, 0.3 * np.ones(500), RATE)
    track = 100 + np.arange(8, dtype=np.float32)
    how = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 0, "pad": "random"}
    data = SegmentDataset([Record(path, RATE, 500)], **how, pitch=Pitches.of([track], HOP))
    starts = set()
    for position in range(12):
        item = data[position]
        silent = -int(item["start"])
        starts.add(silent)
        assert silent % HOP == 0
        np.testing.assert_array_equal(item["f0"][silent // HOP :][:8], track)
        assert np.flatnonzero(item["audio"])[0] == silent
    assert len(starts) > 3


def test_an_acoustic_models_mel_has_the_pitch_of_its_frames(tmp_path):
    """The mel began two frames late."""
    rng = np.random.default_rng(0)
    path, samples = tmp_path / "one.wav", (0.1 * rng.standard_normal(40 * 256)).astype(np.float32)
    audio.write(path, samples, 22050, subtype="FLOAT")
    np.save(tmp_path / "mel.npy", SPEC.mel(torch.from_numpy(samples)[None])[0].numpy()[:, 2:])
    record = Record(path, 22050, len(samples), mel=tmp_path / "mel.npy")
    track = 100 + np.arange(40, dtype=np.float32)
    pair = Pair(record, 38, 2, False, 0.0)
    data = PairedDataset([pair], SPEC, segment_samples=2048, seed=0, pitch=Pitches.of([track], 256))
    for position in range(5):
        item = data[position]
        np.testing.assert_array_equal(item["f0"], track[int(item["start"]) // 256 :][:8])
    np.testing.assert_array_equal(data.whole(0)["f0"], track[2:])


# --- found once, and kept


@pytest.fixture
def found(monkeypatch, tmp_path):
    """In place of pYIN 100 Hz and a hundredth of the length; and what it was asked for."""
    asked = []

    def fake(samples, rate, hop):
        asked.append((len(samples), rate, hop))
        return np.full(-(-len(samples) // hop), 100 + len(samples) / 100, np.float32)

    monkeypatch.setattr(pitch, "pitch_of", fake)
    monkeypatch.setattr(index, "usable_cores", lambda: 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_a_pitch_is_found_once_and_kept(found, tmp_path, caplog):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    records, _ = glides(sounds, [RATE, 2 * RATE])
    with caplog.at_level(logging.INFO):
        first = open_pitches(records, None, RATE, HOP)
    assert found == [(16000, RATE, HOP)] * 2  # at the model's rate
    assert "finding the pitch of 2 recordings (0.00 h), once" in caplog.text
    np.testing.assert_array_equal(first.values, 260)
    assert first.ends.tolist() == [250, 500]
    again = open_pitches(records[::-1], None, RATE, HOP)
    assert len(found) == 2
    np.testing.assert_array_equal(again.values, first.values)
    open_pitches(records, None, RATE, 2 * HOP)
    assert [hop for *_, hop in found] == [HOP, HOP, 2 * HOP, 2 * HOP]
    shutil.move(sounds, tmp_path / "moved")
    moved = [Record(tmp_path / "moved" / r.path.name, r.sample_rate, r.frames) for r in records]
    open_pitches(moved, None, RATE, HOP)
    assert len(found) == 4
    for kept in (tmp_path / "cache").rglob("*.npy"):
        kept.write_bytes(kept.read_bytes()[:200])  # as a full disk leaves it
    open_pitches(moved, None, RATE, HOP)
    assert len(found) == 6
    audio.write(moved[0].path, np.full(16000, 0.25), RATE, subtype="FLOAT")
    open_pitches(moved, None, RATE, HOP)
    assert len(found) == 7


def test_a_cache_that_cannot_be_written_costs_only_time(found, tmp_path, monkeypatch):
    records, _ = glides(tmp_path, [RATE])
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    for times in (1, 2):
        assert open_pitches(records, None, RATE, HOP).ends.tolist() == [250]
        assert len(found) == times


def test_what_cannot_be_read_has_no_pitch_and_is_named(found, tmp_path, caplog):
    records, _ = glides(tmp_path, [RATE, RATE])
    records[0].path.unlink()
    made = open_pitches(records, None, RATE, HOP)
    assert set(made.values[:250]) == {0}
    assert set(made.values[250:]) == {260}
    assert "1 recording has no pitch, for it can't" in caplog.text
    assert "glide_0.wav" in caplog.text


def test_recordings_in_shards_have_the_pitch_of_the_files(found, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    glides(root, [RATE, RATE])
    prepare(root, tmp_path / "out", valid=0.0, test=0.0)
    write_shards(open_corpus(tmp_path / "out"), str(tmp_path / "shards"), names_below=[root])
    stored = open_corpus(str(tmp_path / "shards"))
    assert stored[0].stored is not None
    how = {"sample_rate": RATE, "segment_samples": SEGMENT, "seed": 0}
    items = [
        SegmentDataset(records, **how, pitch=open_pitches(records, None, RATE, HOP))[3]
        for records in (open_corpus(tmp_path / "out"), stored)
    ]
    assert items[0].keys() == items[1].keys()
    assert all(torch.equal(items[0][name], items[1][name]) for name in items[0])


@pytest.mark.skipif(bool(missing("librosa")), reason="needs librosa")
def test_a_long_recording_is_listened_to_in_pieces(monkeypatch):
    """And what is found is what one piece gave."""
    from gansound.frames import pitch as finder

    time = np.arange(3 * RATE // 2) / RATE
    hertz = 200 * 2 ** (0.5 * np.sin(2 * np.pi * time))
    tone = sum(np.sin(2 * np.pi * k * np.cumsum(hertz) / RATE) / k for k in range(1, 6)) / 4
    samples = tone.astype(np.float32) * (np.abs(time - 1.2) > 0.1)
    whole = finder.pitch_of(samples, RATE, 128)
    monkeypatch.setattr(finder, "_PIECE_FRAMES", 30)
    monkeypatch.setattr(finder, "_AROUND_FRAMES", 12)
    pieces = finder.pitch_of(samples, RATE, 128)
    assert whole.shape == pieces.shape == (94,)
    assert np.abs(1200 * np.log2(pieces / whole)).max() < 15
    assert np.abs(1200 * np.log2(whole / hertz[::128]))[3:66].max() < 25


# --- brought


def brought(folder, records, rate, hop, hertz=150.0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(records):
        frames = -(-int(audio.resampled_frames(record.frames, record.sample_rate, rate)) // hop)
        np.save(folder / f"{record.path.stem}.npy", np.full(frames, hertz + number, np.float32))
    return folder


def test_ones_own_pitch_is_taken_by_the_recordings_names(found, tmp_path):
    records, _ = glides(tmp_path, [RATE, 2 * RATE, RATE])
    folder = brought(tmp_path / "f0", records, RATE, HOP)
    (folder / "glide_1.npy").rename(folder / "f0-glide_1.npy")
    np.save(folder / "glide_2.npy", np.load(folder / "glide_2.npy")[None, :-3])
    made = open_pitches(records, folder, RATE, HOP)
    assert [made.at(index, 0, 2).tolist() for index in range(3)] == [[150, 150], [151, 151], [152, 152]]
    assert not found


@pytest.mark.parametrize(
    "values, said",
    [
        (None, "has no f0 of that name"),
        (np.full(400, 150.0), r"has 400 frames beside a recording of 250, expected one every 8.00 ms"),
        (np.log(np.full(250, 150.0)), "may be a logarithm of Hz"),
        (np.full(250, -1.0), "250 of 250 values are no pitch"),
        (np.full((250, 2), 150.0), r"got shape \(250, 2\)"),
        (np.zeros(0), "has 0 frames"),
    ],
)
def test_a_pitch_that_does_not_fit_is_refused(tmp_path, values, said):
    records, _ = glides(tmp_path, [RATE, RATE])
    folder = brought(tmp_path / "f0", records, RATE, HOP)
    (folder / "glide_1.npy").unlink()
    if values is not None:
        np.save(folder / "glide_1.npy", values)
    with pytest.raises(
        ValueError, match=rf"data.f0 .*: 1 of 2 recordings has no pitch.*{said}.*Without data.f0 it is found"
    ):
        open_pitches(records, folder, RATE, HOP)
    with pytest.raises(ValueError, match=r"data.f0 .*nowhere: no such folder"):
        open_pitches(records, tmp_path / "nowhere", RATE, HOP)


def test_without_librosa_it_is_said_what_brings_it(tmp_path, monkeypatch):
    records, _ = glides(tmp_path, [RATE])
    monkeypatch.setattr("gansound.extras.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"The pitch of recordings.* 'gansound\[eval\]'"):
        open_pitches(records, None, RATE, HOP)


# --- learnt with


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recordings, each with a pitch of its own beside it."""
    root = tmp_path_factory.mktemp("pitch")
    write_corpus(root / "sounds", files=6)
    brought(root / "f0", open_corpus(root / "sounds"), 22050, 256)
    return root


def recipe(corpus, **more):
    return {
        "task": "gansound.tasks.vocoder.VocoderTask",
        "mel": "hifigan",
        "generator": {"class_path": CLASS, "init_args": SMALL},
        "losses": {"mel": {"loss": {"class_path": "gansound.losses.spectral.MelL1"}, "weight": 1.0}},
        "data": {"path": str(corpus / "sounds"), "f0": str(corpus / "f0"), "segment_samples": 4096, "workers": 0,
                 "valid": 0.5, "speed": 0.3, "gain_db": [-6.0, 0.0]},
        "batch_size": 2,
        "steps": 4,
        "log_every": 1,
        "validate_every": 2,
        "validate_utterances": 1,
        "checkpoint_every": 2,
        "threads": 1,
        "generator_optimization": {"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}},
    } | more  # fmt: skip


def trained(made, folder):
    run = Run(plan(made), folder)
    run.fit()
    run.close()
    return run


def test_a_resumed_run_is_the_one_that_was_not_interrupted(corpus, tmp_path):
    trained(recipe(corpus), tmp_path / "one")
    trained(recipe(corpus, steps=2), tmp_path / "two")
    made = recipe(corpus)
    made["data"]["workers"] = 1
    trained(made, tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two")
    model = load_model_folder(tmp_path / "one" / "model")
    assert model.takes == PitchedSpec(SPEC)
    assert (
        gansound.Vocoder.from_pretrained(tmp_path / "one" / "best", "cpu", backend="eager").frame_spec
        == model.takes
    )


def test_what_is_learnt_and_validated_is_with_the_pitch_that_is_given(corpus, tmp_path):
    shifted = tmp_path / "shifted"
    shifted.mkdir()
    for file in (corpus / "f0").iterdir():
        np.save(shifted / file.name, 1.3 * np.load(file))
    figures = []
    for number, folder in enumerate((corpus / "f0", shifted)):
        made = recipe(corpus, steps=1, validate_utterances=2)
        made["data"]["f0"] = str(folder)
        run = trained(made, tmp_path / str(number))
        logged = losses(tmp_path / str(number))
        figures.append((logged[0]["valid/mel_distance"], logged[1]["mel"]))
        sounds, _, given = run.feed.held_out
        assert len(sounds) == len(given) == 2
        for (stem, sound), beside in zip(sounds, given, strict=True):
            np.testing.assert_array_equal(beside["f0"], np.load(folder / f"{stem}.npy")[: len(sound) // 256])
    assert figures[0][0] != pytest.approx(figures[1][0], rel=1e-4)
    assert figures[0][1] != pytest.approx(figures[1][1], rel=1e-5)
    vocoder = gansound.Vocoder.from_pretrained(tmp_path / "1" / "model", "cpu", backend="eager")
    frames = len(sound) // 256
    real = torch.from_numpy(sound[: frames * 256])[None]
    mel = SPEC.mel(real)[..., :frames]
    made = vocoder(mel, f0=beside["f0"], warn=False)
    figure, _ = run.task.validate(run.generator.eval(), sounds[1:], torch.device("cpu"), given=given[1:])
    expected = (SPEC.mel(made)[..., :frames] - mel).abs().mean().item()
    assert figure["mel_distance"] == pytest.approx(expected, rel=1e-3)


def test_an_imported_model_is_fine_tuned_from_the_command_line(corpus, tmp_path):
    torch.manual_seed(0)
    config = {"class_path": CLASS, "init_args": SMALL | {"mini": True}}
    generator = NSFHiFiGANGenerator(**config["init_args"])
    save_model_folder(tmp_path / "nsf", generator, PitchedSpec(SPEC), config=config)
    changes = {
        "data.path": corpus / "sounds", "data.f0": corpus / "f0", "data.segment_samples": 2048, "data.workers": 0,
        "data.valid": 0.2, "discriminators.mpd.network.init_args": {"periods": [2], "channels": 1},
        "discriminators.msd.network.init_args": {"scales": 1, "channels": 16}, "batch_size": 2, "threads": 1,
        "steps": 2, "log_every": 1, "validate_every": 1,
    }  # fmt: skip
    words = [part for key, value in changes.items() for part in (f"--{key}", value)]
    words = [word if isinstance(word, str) else json.dumps(word, default=str) for word in words]
    command = [
        "train",
        "finetune_vocoder",
        "--init-from",
        str(tmp_path / "nsf"),
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*command, *(word.strip('"') for word in words)]) == 0
    tuned = load_model_folder(tmp_path / "run" / "best")
    assert tuned.takes == PitchedSpec(SPEC)
    assert (
        tuned.generator.state_dict().keys()
        == load_model_folder(tmp_path / "nsf").generator.state_dict().keys()
    )
    assert "vocoder(mel, f0=f0)" in (tmp_path / "run" / "best" / "README.md").read_text()
    assert tuned.info["corpus"]["pitch"] == "given"


def test_what_cannot_be_trained_is_refused(corpus, tmp_path):
    made = recipe(corpus)
    made["generator"] = {"class_path": CLASS, "init_args": SMALL | {"n_mels": 80}}
    with pytest.raises(RecipeError, match=r"mel.n_mels is 80 .* is 80; it must be one more, for the pitch"):
        plan(made)
    made["generator"] = {"class_path": CLASS, "init_args": SMALL | {"sample_rate": 44100}}
    with pytest.raises(
        RecipeError, match=r"mel.sample_rate is 22050 but the generator's sample_rate is 44100"
    ):
        plan(made)
    plain = load_recipe("hifigan_v3_ljspeech", {"generator.init_args.channels": 16, "discriminators": None})
    plain["data"] |= {"path": str(corpus / "sounds"), "f0": str(corpus / "f0")}
    with pytest.raises(RecipeError, match=r"data.f0: .* this recipe's generator takes none; leave it out"):
        Run(plan(plain), tmp_path / "run")
    config = {"class_path": CLASS, "init_args": SMALL}
    save_model_folder(
        tmp_path / "rvc", NSFHiFiGANGenerator(**SMALL), PitchedSpec(LatentSpec(80, 22050, 256)), config=config
    )
    with pytest.raises(
        RecipeError, match=r"takes latents of 80 channels, .* can't be had here from a recording"
    ):
        plan(load_recipe("finetune_vocoder", {"init_from": str(tmp_path / "rvc")}))
