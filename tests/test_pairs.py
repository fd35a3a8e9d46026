"""Recordings with an acoustic model's mels: which belong together, at which offset, and what is learnt from them."""

import json
import logging
import sys

import numpy as np
import pytest
import soundfile
import torch

from gansound.cli import main
from gansound.data.manifest import Record, read_manifest, write_manifest
from gansound.data.paired import PairedDataset
from gansound.data.pairs import checked, open_pairs, with_mels
from gansound.data.settings import DataSettings
from gansound.data.source import open_corpus
from gansound.engine.card import write_card
from gansound.engine.feed import Feed
from gansound.engine.kept import Best
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.mel import MelSpec
from gansound.mel.files import read_mel
from gansound.recipe import RecipeError, load_recipe
from tests.test_distributed import ended, two
from tests.test_engine import losses
from tests.test_mel_suspicions import speech_like
from tests.tiny import save_tiny_model

SPEC = MelSpec.preset("hifigan")
HOP = SPEC.hop_length


def blurred(mel: torch.Tensor) -> torch.Tensor:
    """As smooth as an acoustic model's: the mean of three frames and three bands."""
    return torch.nn.functional.avg_pool2d(mel[:, None], 3, 1, 1, count_include_pad=False)[:, 0]


def own_mel(seed: int, spec: MelSpec = SPEC) -> np.ndarray:
    return blurred(spec.mel(torch.from_numpy(speech_like(22050, seed))[None]))[0].numpy()


def write_recordings(folder, count: int) -> list[Record]:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        soundfile.write(folder / f"take_{seed}.wav", speech_like(22050, seed), 22050, subtype="PCM_16")
    return [Record(folder / f"take_{n}.wav", 22050, len(speech_like(22050, n))) for n in range(count)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six takes; of each mel the first two frames are cut."""
    root = tmp_path_factory.mktemp("pairs")
    records = write_recordings(root / "wavs", 6)
    (root / "mels").mkdir()
    for seed in range(6):
        np.save(root / "mels" / f"take_{seed}.npy", own_mel(seed)[:, 2:])
    return root, records


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_pairs_are_found_by_name_and_their_offset_by_sound(corpus, caplog):
    root, records = corpus
    with caplog.at_level(logging.INFO):
        pairs, left_out = open_pairs(records, root / "mels", SPEC)
    assert [pair.record.mel.name for pair in pairs] == [f"take_{n}.npy" for n in range(6)]
    assert {pair.offset_frames for pair in pairs} == {2}
    assert not left_out
    assert "6 mels belong to their recordings, offset in frames +2 (6)" in caplog.text


@pytest.mark.parametrize("shift", [-7, 5, 16, 17, -17, -20, -24, -199])
def test_an_offset_is_found_to_the_frame(shift, tmp_path):
    (record,) = write_recordings(tmp_path, 1)
    mel = own_mel(0)
    mel = mel[:, shift:] if shift > 0 else np.pad(mel, ((0, 0), (-shift, 0)), constant_values=mel.min())
    np.save(tmp_path / "take_0.npy", mel)
    (pair,), _ = open_pairs([record], tmp_path, SPEC)
    assert pair.offset_frames == shift


def test_the_last_offset_that_is_looked_at_is_none(tmp_path):
    """The truth may lie beyond."""
    (record,) = write_recordings(tmp_path, 1)
    mel = own_mel(0)
    np.save(tmp_path / "take_0.npy", np.concatenate([mel[:, :1].repeat(200, 1), mel], 1))
    with pytest.raises(ValueError, match=r"-200 frames, and may lie nearer beyond: cut the silence"):
        open_pairs([record], tmp_path, SPEC)


def test_an_offset_far_off_is_taken_for_more_than_a_near_one(tmp_path):
    """One of hundreds comes as near by chance as this noise lets the right one."""
    (record,) = write_recordings(tmp_path, 1)
    mel = own_mel(0)
    mel = mel + np.random.default_rng(0).normal(0, 1.9, mel.shape).astype(np.float32)
    np.save(tmp_path / "take_0.npy", mel)
    (pair,), _ = open_pairs([record], tmp_path, SPEC)
    assert (pair.offset_frames, pair.distance > 1.2) == (0, True)
    np.save(tmp_path / "take_0.npy", np.concatenate([own_mel(0)[:, :1].repeat(60, 1), mel], 1))
    with pytest.raises(ValueError, match="no nearer than by chance"):
        open_pairs([record], tmp_path, SPEC)


def test_silence_has_no_offset(tmp_path):
    soundfile.write(tmp_path / "still.wav", np.zeros(22050, np.float32), 22050)
    np.save(tmp_path / "still.npy", SPEC.mel(torch.zeros(1, 22050))[0].numpy())
    (pair,), _ = open_pairs([Record(tmp_path / "still.wav", 22050, 22050)], tmp_path, SPEC)
    assert pair.offset_frames == 0


def test_what_does_not_belong_together_is_named(tmp_path, caplog):
    records = write_recordings(tmp_path / "wavs", 6)
    mels = tmp_path / "mels"
    mels.mkdir()
    for seed, mel in enumerate(
        [own_mel(0), own_mel(4), own_mel(2)[:, :60], np.full((80, 130), np.nan, np.float32), own_mel(4)[:60]]
    ):
        np.save(mels / f"take_{seed}.npy", mel)
    pairs, left_out = open_pairs(records, mels, SPEC)
    assert [pair.record.path.stem for pair in pairs] == ["take_0"]
    reasons = {path.stem: reason for path, reason in left_out}
    assert "no nearer than by chance" in reasons["take_1"]
    assert "has 60 frames from frame 0" in reasons["take_2"]
    assert "NaN" in reasons["take_3"]
    assert "60 bands" in reasons["take_4"]
    assert "has no mel of that name" in reasons["take_5"]
    for stem in reasons:
        assert f"{stem}." in caplog.text


def test_mels_of_another_convention_are_named_with_it(tmp_path):
    records = write_recordings(tmp_path, 2)
    for seed in range(2):
        np.save(tmp_path / f"take_{seed}.npy", own_mel(seed, MelSpec.preset("seungwonpark_melgan")))
    with pytest.raises(ValueError, match=r"none of 2 mels.*recording's mel in seungwonpark_melgan.*framing"):
        open_pairs(records, tmp_path, SPEC)


def test_mels_that_are_hardly_the_models_are_said_to_be(corpus, tmp_path, caplog):
    root, records = corpus
    open_pairs(records, root / "mels", SPEC)
    assert "convention" not in caplog.text
    assert "lie further" not in caplog.text
    centred = MelSpec.preset("tacotron2")
    for name in ("centred", "louder"):
        (tmp_path / name).mkdir()
    for seed in range(6):
        mel = centred.mel(torch.from_numpy(speech_like(22050, seed))[None])[0].numpy()
        np.save(tmp_path / "centred" / f"take_{seed}.npy", mel)
        np.save(tmp_path / "louder" / f"take_{seed}.npy", own_mel(seed) + 0.9)
    pairs, _ = open_pairs(records, tmp_path / "centred", SPEC)
    assert len(pairs) == 6
    assert (
        "take_0.npy is the recording's mel in tacotron2, and the model takes another: framing" in caplog.text
    )
    caplog.clear()
    pairs, _ = open_pairs(records, tmp_path / "louder", SPEC)
    assert f"{len(pairs)} of {len(pairs)} mels lie further than 0.4 from their recordings' own" in caplog.text


def test_none_at_all_says_where_mels_are_looked_for(corpus, tmp_path):
    _, records = corpus
    with pytest.raises(ValueError, match=r"none of 6 recordings has a mel.*recording\|mel"):
        open_pairs(records, tmp_path, SPEC)
    with pytest.raises(ValueError, match="no such folder or list"):
        open_pairs(records, tmp_path / "nowhere", SPEC)


def test_names_that_projects_give_and_folders_that_tell_two_apart(tmp_path):
    records = [Record(tmp_path / "wavs" / speaker / "001.wav", 22050, 9000) for speaker in ("ann", "bob")]
    records += [Record(tmp_path / "wavs" / f"{name}.wav", 22050, 9000) for name in ("x", "y", "z", "twice")]
    for name in (
        "ann/001.npy",
        "bob/001.npy",
        "mel-x.pt",
        "y-feats.npy",
        "z.mel.npz",
        "a/twice.npy",
        "b/twice.npy",
    ):
        (tmp_path / "mels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mels" / name).touch()
    paired, without = with_mels(records, tmp_path / "mels")
    named = [record.mel.relative_to(tmp_path / "mels").as_posix() for record in paired]
    assert named == ["ann/001.npy", "bob/001.npy", "mel-x.pt", "y-feats.npy", "z.mel.npz"]
    assert [path.stem for path, _ in without] == ["twice"]
    assert "2 mels are called so" in without[0][1]


def test_the_copies_of_a_prepared_corpus_have_the_mels_of_their_recordings(tmp_path):
    records = [
        Record(tmp_path / "audio" / name, 22050, 9000) for name in ("a.wav.flac", "b.flac.flac", "v1.2.flac")
    ]
    for name in ("a.npy", "mel-b.npy", "v1.2.npy"):
        (tmp_path / name).touch()
    paired, without = with_mels(records, tmp_path)
    assert [record.mel.name for record in paired] == ["a.npy", "mel-b.npy", "v1.2.npy"]
    assert not without
    (tmp_path / "list.txt").write_text("wavs/a.wav|a.npy\nb|mel-b.npy\nv1.2|v1.2.npy\n")
    paired, _ = with_mels(records, tmp_path / "list.txt")
    assert [record.mel.name for record in paired] == ["a.npy", "mel-b.npy", "v1.2.npy"]


def test_held_out_recordings_without_mels_are_missed(corpus, model, tmp_path, caplog):
    root, _ = corpus
    data, kept = root / "wavs", tmp_path / "mels"
    kept.mkdir()
    held_out = {r.path.stem for r in open_corpus(data, valid=0.3) if r.split == "valid"}
    for path in (root / "mels").iterdir():
        if path.stem not in held_out:
            (kept / path.name).write_bytes(path.read_bytes())
    given = {"init_from": str(model), "data.path": str(data), "data.mels": str(kept), "data.valid": 0.3}
    planned = plan(load_recipe("finetune_cpu", given | {"data.segment_samples": 2048, "data.workers": 0}))
    Feed(planned.settings, planned.task)
    assert (
        f"none of {len(held_out)} held-out recordings has a mel of its own, so nothing is validated"
        in caplog.text
    )


def test_a_list_names_mels_in_any_column(tmp_path):
    records = [Record(tmp_path / f"{name}.wav", 22050, 9000) for name in ("a", "b", "c")]
    table = tmp_path / "pairs.txt"
    table.write_text("a|some text|mels/1.npy\nwavs/b.wav|mels/2.npy\n\n")
    paired, without = with_mels(records, table)
    assert [record.mel for record in paired] == [tmp_path / "mels/1.npy", tmp_path / "mels/2.npy"]
    assert [path.stem for path, _ in without] == ["c"]
    table.write_text("a,mels/1.npy\nwavs/b.wav,with text,mels/2.npy\nc|mels/3,4.npy\n")
    paired, _ = with_mels(records, table)
    assert [record.mel for record in paired] == [
        tmp_path / "mels" / name for name in ("1.npy", "2.npy", "3,4.npy")
    ]
    table.write_text("a|b\n")
    with pytest.raises(ValueError, match=r"pairs.txt:1: got 'a\|b', expected recording\|mel.npy"):
        with_mels(records, table)
    table.write_text("a|1.npy\na|2.npy\n")
    with pytest.raises(ValueError, match="a second time"):
        with_mels(records, table)


def test_a_manifest_names_mels_and_moves_with_them(tmp_path):
    record = Record(tmp_path / "a.wav", 22050, 9000, mel=tmp_path / "mels" / "a.npy")
    write_manifest(tmp_path / "manifest.jsonl", [record])
    assert json.loads((tmp_path / "manifest.jsonl").read_text())["mel"] == "mels/a.npy"
    assert read_manifest(tmp_path / "manifest.jsonl") == [record]
    paired, without = with_mels([record, Record(tmp_path / "b.wav", 22050, 9000)], None)
    assert paired == [record]
    assert "no mel" in without[0][1]


def test_npz_is_read_and_a_bomb_is_not(tmp_path):
    mel = own_mel(0)
    np.savez_compressed(tmp_path / "one.npz", mel=mel)
    np.testing.assert_array_equal(read_mel(tmp_path / "one.npz"), mel)
    np.savez(tmp_path / "two.npz", mel=mel, other=mel)
    with pytest.raises(ValueError, match="expected one array, got 2"):
        read_mel(tmp_path / "two.npz")
    np.savez_compressed(tmp_path / "bomb.npz", mel=np.zeros((80, 100_000), np.float32))
    with pytest.raises(ValueError, match="would unpack to"):
        read_mel(tmp_path / "bomb.npz")
    np.savez(tmp_path / "objects.npz", mel=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        read_mel(tmp_path / "objects.npz")


def test_a_segment_is_the_sound_of_its_mel(corpus):
    """The mel of a segment's own audio, away from its ends, is the mel it comes with, but for the blur."""
    root, records = corpus
    pairs, _ = checked(with_mels(records, root / "mels")[0], SPEC)
    data = PairedDataset(pairs, SPEC, segment_samples=24 * HOP, seed=3)
    for position in range(6):
        item = data[position]
        assert item["audio"].shape == (24 * HOP,)
        assert item["mel"].shape == (80, 24)
        record, start = int(item["record"]), int(item["start"])
        assert start % HOP == 0
        whole = np.load(pairs[record].record.mel)
        np.testing.assert_array_equal(item["mel"], whole[:, start // HOP - 2 :][:, :24])
        again = blurred(SPEC.mel(item["audio"][None]))[0]
        torch.testing.assert_close(again[:, 4:-4], item["mel"][:, 4:-4], atol=0.1, rtol=0)
    torch.testing.assert_close(data[4], data[4])


def test_a_segment_of_a_mel_with_silence_in_front_is_the_sound_of_it(tmp_path):
    (record,) = write_recordings(tmp_path, 1)
    mel = own_mel(0)
    np.save(tmp_path / "take_0.npy", np.concatenate([mel[:, :1].repeat(20, 1), mel], 1))
    pairs, _ = open_pairs([record], tmp_path, SPEC)
    item = PairedDataset(pairs, SPEC, segment_samples=24 * HOP, seed=3)[0]
    np.testing.assert_array_equal(item["mel"], mel[:, int(item["start"]) // HOP :][:, :24])


def test_a_segment_longer_than_its_pair_ends_in_silence(corpus):
    root, records = corpus
    pairs, _ = checked(with_mels(records[:1], root / "mels")[0], SPEC)
    data = PairedDataset(pairs, SPEC, segment_samples=400 * HOP, seed=0)
    frames = records[0].frames // HOP - 2
    item = data[0]
    assert int(item["start"]) == 2 * HOP
    assert not item["audio"][frames * HOP :].any()
    silence = SPEC.mel(torch.zeros(1, 22050))[0, :, 40:41]
    torch.testing.assert_close(item["mel"][:, frames:], silence.expand(-1, 400 - frames))
    whole = data.whole(0)
    sound, mel = whole["audio"], whole["mel"]
    assert (len(sound), mel.shape) == (frames * HOP, (80, frames))


def test_a_mel_that_changes_while_a_run_lasts_is_drawn_past(corpus, tmp_path):
    _, records = corpus
    for seed in range(2):
        np.save(tmp_path / f"take_{seed}.npy", own_mel(seed))
    pairs, _ = open_pairs(records[:2], tmp_path, SPEC)
    data = PairedDataset(pairs, SPEC, segment_samples=16 * HOP, seed=0)
    np.save(tmp_path / "take_0.npy", own_mel(0)[:, :50])
    items = data.__getitems__(range(12))
    assert {item["record"] for item in items} == {1}
    assert any("holds 50 frames" in reason for item in items for _, reason in item.get("bad", ()))


def test_what_would_part_a_recording_from_its_mel_is_refused():
    for wrong in ({"speed": 0.3}, {"gain_db": (-3.0, 3.0)}, {"crop": "start"}):
        with pytest.raises(ValueError, match="mels"):
            DataSettings(segment_samples=2048, mels="somewhere", **wrong)


SMALL = {
    "discriminators.mpd.network.init_args": {"periods": [2], "channels": 1},
    "discriminators.msd.network.init_args": {"scales": 1, "channels": 16},
    "discriminators.mpd.teaches_from": 0,
    "discriminators.msd.teaches_from": 0,
    "data.segment_samples": 2000,
    "data.workers": 0,
    "data.valid": 0.2,
    "batch_size": 2,
    "threads": 1,
    "log_every": 1,
    "validate_utterances": 1,
}


def settings(corpus, model, **more):
    root, _ = corpus
    about = {"init_from": str(model), "data.path": str(root / "wavs"), "data.mels": str(root / "mels")}
    return load_recipe("finetune_vocoder", SMALL | about | more)


def test_the_recipe_takes_generator_and_mel_of_the_model(corpus, model):
    made = plan(settings(corpus, model))
    assert type(made.task.generator).__name__ == "FreeVGenerator"
    assert made.task.mel == SPEC
    assert made.settings.data.segment_samples == 2048  # 2000 rounded up to whole hops
    with pytest.raises(RecipeError, match="--init-from MODEL"):
        plan(load_recipe("finetune_vocoder", {"data.path": "."}))
    with pytest.raises(RecipeError, match=r"init_from: .*no such model"):
        plan(settings(corpus, "nowhere"))


def test_a_model_is_fine_tuned_on_mels_from_the_command_line(corpus, model, tmp_path):
    root, _ = corpus
    changes = [part for key, value in SMALL.items() for part in (f"--{key}", json.dumps(value))]
    run = ["--run", str(tmp_path / "run"), "--steps", "3", "--validate_every", "1"]
    pairs = ["--data.path", str(root / "wavs"), "--data.mels", str(root / "mels")]
    assert main(["train", "finetune_vocoder", "--init-from", str(model), *pairs, *changes, *run]) == 0
    said = (tmp_path / "run" / "best" / "README.md").read_text()
    for words in (
        "an acoustic model's mels (offset +2 frames)",
        str(model),
        "CC0-1.0",
        "held-out mel distance before",
    ):
        assert words in said
    about = json.loads((tmp_path / "run" / "best" / "config.json").read_text())["info"]
    assert about["corpus"]["recordings"] in (4, 5)
    assert about["licence"] == "CC0-1.0"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert max(rates) <= 5e-5


def test_the_held_out_figure_is_of_the_mels_that_are_given(corpus, model, tmp_path):
    with_them = Run(plan(settings(corpus, model, steps=1)), tmp_path / "a")
    without = Run(plan(settings(corpus, model, steps=1, **{"data.mels": None})), tmp_path / "b")
    figures = []
    for run in (with_them, without):
        sounds, labels, given = run.feed.held_out
        assert len(given) == (len(sounds) if run is with_them else 0)
        found, _ = run.task.validate(run.task.generator, sounds, torch.device("cpu"), labels, given)
        figures.append(found["mel_distance"])
    assert figures[0] != pytest.approx(figures[1], rel=1e-3)


def test_a_run_ends_when_nothing_gets_better(corpus, model, tmp_path, monkeypatch, caplog):
    """Best at the second validation; two more without a better one, and it ends; a resume ends at once."""
    figures = iter([9.0, 3.0, 2.0, 2.5, 2.2, 1.0])
    monkeypatch.setattr("gansound.tasks.vocoder.VocoderTask.score", lambda self, found: next(figures))
    given = settings(corpus, model, steps=9, validate_every=1, patience=2)
    with caplog.at_level(logging.INFO):
        Run(plan(given), tmp_path / "run").fit()
    steps = [line["step"] for line in losses(tmp_path / "run")]
    assert steps[-1] == 4
    assert "nothing better than best/, of step 2: the run ends at 4" in caplog.text
    with caplog.at_level(logging.INFO):
        Run(plan(given), tmp_path / "run").fit()
    assert "as its patience says" in caplog.text
    assert [line["step"] for line in losses(tmp_path / "run")][-1] == 4


def test_a_resume_by_other_mels_is_not_compared_with_the_best_by_the_first(
    corpus, model, tmp_path, monkeypatch, caplog
):
    root, _ = corpus
    folders = {"as torch's": tmp_path / "torch", "other": tmp_path / "mels"}
    for folder in folders.values():
        folder.mkdir()
    for path in (root / "mels").iterdir():
        np.save(folders["other"] / path.name, np.load(path) - 0.3)
        torch.save(torch.from_numpy(np.load(path)), folders["as torch's"] / f"mel-{path.stem}.pt")
    for name, mels in folders.items():
        (tmp_path / name).mkdir()
        run = tmp_path / name / "run"
        figures = iter([9.0, 2.0, 3.0])
        monkeypatch.setattr(
            "gansound.tasks.vocoder.VocoderTask.score", lambda self, found, f=figures: next(f)
        )
        Run(plan(settings(corpus, model, steps=1, validate_every=1)), run).fit()
        caplog.clear()
        Run(plan(settings(corpus, model, steps=2, validate_every=1, **{"data.mels": str(mels)})), run).fit()
        anew = name == "other"
        assert ("best/, of step 1, is compared no more" in caplog.text) == anew
        best = json.loads((run / "best" / "config.json").read_text())["info"]["steps"]
        assert best == (2 if anew else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="two processes that are forked")
@pytest.mark.parametrize("there", [True, False])
def test_of_two_processes_one_checks_the_mels_and_says_what_both_would(corpus, model, tmp_path, there):
    root, _ = corpus
    given = settings(corpus, model, steps=1, validate_every=1)
    if not there:
        (tmp_path / "none").mkdir()
        given["data"]["mels"] = str(tmp_path / "none")
    with two(given, tmp_path / "run") as processes:
        done = ended(processes)
    assert [code for code, _ in done] == [1 - there] * 2, done
    said = "\n".join(text for _, text in done)
    once = ["starting from", f"{root / 'wavs'}: split by"]
    once += ["belong to their recordings"] if there else ["none of 5 recordings has", "stops with the first"]
    assert [said.count(words) for words in once] == [1] * len(once), said


def test_a_card_that_a_person_wrote_stays(tmp_path):
    best = Best()
    best.before, best.score, best.step = 0.5, 0.25, 7
    about = {"init_from": "a|b", "steps": 9, "corpus": {"recordings": 3, "hours": 0.5}}
    write_card(tmp_path, about, SPEC, best)
    written = (tmp_path / "README.md").read_text()
    for words in ("a\\|b", "3 recordings, 0.50 h |", "0.5000", "0.2500, at step 7", "22050 Hz, 80 bands"):
        assert words in written
    write_card(tmp_path, about | {"steps": 10, "corpus": {"recordings": 13100, "hours": 24}}, SPEC, best)
    assert "| steps | 10 |" in (tmp_path / "README.md").read_text()
    assert "13,100 recordings, 24.00 h |" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine\n")
    write_card(tmp_path, about, SPEC, best)
    assert (tmp_path / "README.md").read_text() == "mine\n"
