"""Bad input, end to end through the commands: one clear message, DESIGN's exit code, nothing half-written.

2: knowable from the command line and the recipe. 1: everything later. A batch goes on past a bad item and ends with 1.
"""

import errno
import json
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from gansound import audio
from gansound.cli import main
from gansound.mel import MelSpec
from tests import warm
from tests.corpus import SAMPLE_RATE, write_corpus
from tests.tiny import arguments, save_tiny_model

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), files=6)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Two seconds of something that a mel's values are judged as natural sound by."""
    rng = np.random.default_rng(0)
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(130 * (1 + 0.2 * np.sin(5 * time))) / SAMPLE_RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 40)) * (0.05 + np.sin(2 * np.pi * time) ** 2)
    return (0.2 * voice + 0.002 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def mel(sound: np.ndarray) -> np.ndarray:
    return MelSpec.preset("hifigan").mel(torch.from_numpy(sound)[None])[0].numpy()


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANSOUND_DEBUG", raising=False)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


class Refused:
    """Runs a command that must fail: the code, one error on stderr, no traceback, the folder as it was."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, code: int, *argv: object) -> str:
        before = snapshot(self.folder)
        self.capsys.readouterr()
        assert main([str(part) for part in argv]) == code
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, err
        assert snapshot(self.folder) == before
        return errors[0]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(tmp_path, capsys)


def text_file(path: Path) -> None:
    path.write_text("this is no sound\n" * 100)


def zero_length(path: Path) -> None:
    path.touch()


def header_only(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), SAMPLE_RATE)


def not_a_number(path: Path) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    samples[5000:5010] = np.nan
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")


BAD_FILES = {
    text_file: "not audio that can be read",
    zero_length: "0 bytes",
    header_only: "no samples",
    not_a_number: "NaN",
}


@pytest.mark.parametrize("make", BAD_FILES)
class TestACorpusOfOneBadFile:
    @pytest.fixture
    def folder(self, make: Callable[[Path], None], tmp_path: Path) -> Path:
        folder = tmp_path / "corpus"
        folder.mkdir()
        make(folder / "bad.wav")
        return folder

    def test_data_check(self, make: Any, folder: Path, refused: Refused, capsys: Any) -> None:
        assert "none of 1 file can be used" in refused(1, "data", "check", folder)

    def test_data_check_says_why(self, make: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(["data", "check", str(folder)])
        assert BAD_FILES[make] in " ".join(capsys.readouterr().out.split())

    def test_data_prepare(self, make: Any, folder: Path, refused: Refused, tmp_path: Path) -> None:
        for rate in ([], ["--sample-rate", 8000]):
            said = refused(1, "data", "prepare", folder, "-o", tmp_path / "out", *rate)
            assert "bad.wav" in said
            assert BAD_FILES[make] in said

    def test_vocode(self, make: Any, folder: Path, refused: Refused, tmp_path: Path, model: Path) -> None:
        for source in (folder, folder / "bad.wav"):
            said = refused(1, "vocode", source, "-o", tmp_path / "out", "--model", model)
            assert "bad.wav" in said
            assert BAD_FILES[make] in said

    def test_demo(self, make: Any, folder: Path, refused: Refused, tmp_path: Path, model: Path) -> None:
        said = refused(1, "demo", "--input", folder / "bad.wav", "-o", tmp_path / "out", "--model", model)
        assert "bad.wav" in said
        assert BAD_FILES[make] in said

    @pytest.mark.parametrize("workers", [0, 1])
    def test_train(self, make: Any, folder: Path, capsys: Any, tmp_path: Path, workers: int) -> None:
        if workers and make is not not_a_number:
            pytest.skip("found before any worker starts")
        command = [
            "train",
            "tiny_cpu",
            "--data.path",
            str(folder),
            "--steps",
            "2",
            "--run",
            str(tmp_path / "run"),
        ]
        assert main([*command, *arguments(data__workers=str(workers))]) == 1
        err = capsys.readouterr().err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "bad.wav" in errors[0]
        assert BAD_FILES[make] in errors[0]
        assert "Traceback" not in err
        if make is not not_a_number:  # that one is found when it is drawn
            assert not (tmp_path / "run").exists()
        assert not list((tmp_path).rglob("checkpoints/*"))

    def test_evaluate(self, make: Any, folder: Path, capsys: Any, tmp_path: Path, model: Path) -> None:
        figures = tmp_path / "figures.json"
        command = ["evaluate", "--model", model, "--data", folder, "--split", "all", "--measures", "mel"]
        assert main([str(part) for part in (*command, "--json", figures)]) == 1
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        said = [line for line in err.splitlines() if "bad.wav" in line]
        assert len(said) == 1
        assert BAD_FILES[make] in said[0]
        # An item that fails when it is measured is a failure in the figures; nothing measurable is no figures.
        assert figures.exists() == (make is not_a_number)
        if figures.exists():
            assert json.loads(figures.read_text())["failure_count"] == 1


def test_an_empty_folder(refused: Refused, tmp_path: Path, model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no sound here")
    out = tmp_path / "out"
    for command in (
        ["data", "check", empty],
        ["data", "prepare", empty, "-o", out],
        ["vocode", empty, "-o", out, "--model", model],
        ["evaluate", "--model", model, "--data", empty, "--json", tmp_path / "f.json"],
        ["train", "tiny_cpu", "--data.path", empty, "--run", out, *arguments()],
    ):
        said = refused(1, *command)
        assert str(empty) in said
        assert "no " in said


def test_what_does_not_exist_is_known_from_the_command_line(
    refused: Refused, tmp_path: Path, model: Path
) -> None:
    gone, out = tmp_path / "gone", tmp_path / "out"
    for command in (
        ["data", "check", gone],
        ["data", "prepare", gone, "-o", out],
        ["vocode", gone, "-o", out, "--model", model],
        ["evaluate", "--model", model, "--data", gone],
        ["train", "tiny_cpu", "--data.path", gone, "--run", out],
        ["train", gone, "--data.path", tmp_path, "--run", out],
        ["demo", "--input", gone, "-o", out, "--model", model],
    ):
        assert str(gone) in refused(2, *command)


def test_a_run_is_not_begun_in_a_models_folder(refused: Refused, tmp_path: Path, model: Path) -> None:
    there = sorted(model.iterdir())
    said = refused(2, "train", "tiny_cpu", "--data.path", tmp_path, "--run", model)
    assert f"holds a model, expected a run's folder or a new one; --init-from {model}" in said
    assert sorted(model.iterdir()) == there


@pytest.mark.parametrize("channels, rate", [(8, SAMPLE_RATE), (1, 16000), (2, 44100)])
def test_other_channels_and_rates_are_used_and_said(
    channels: int, rate: int, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        samples = 0.1 * rng.standard_normal((rate // 2, channels)).astype(np.float32)
        soundfile.write(folder / f"clip{i}.wav", samples, rate)
    assert main(["data", "check", str(folder)]) == 0
    assert main(["data", "prepare", str(folder), "-o", str(tmp_path / "out"), "--sample-rate", "22050"]) == 0
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 4
    capsys.readouterr()
    assert main(["vocode", str(folder), "-o", str(tmp_path / "sound"), "--model", str(model)]) == 0
    said = capsys.readouterr().err
    assert ("mixed 8 channels to one" in said) == (channels == 8)
    assert (f"resampled from {rate} Hz to the model's 22050 Hz" in said) == (rate != SAMPLE_RATE)
    assert said.count("\n") == 1, "what is done to all is said once"
    for path in sorted((tmp_path / "sound").iterdir()):
        info = audio.probe(path)
        assert (info.sample_rate, info.channels, info.frames) == (
            SAMPLE_RATE,
            1,
            round(rate // 2 * 22050 / rate),
        )
    command = [
        "train",
        "tiny_cpu",
        "--data.path",
        str(folder),
        "--steps",
        "1",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*command, *arguments()]) == 0


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_mels_that_do_not_fit(refused: Refused, tmp_path: Path, model: Path, mel: np.ndarray) -> None:
    mark = tmp_path.parent / f"{tmp_path.name}-mark"
    cases: dict[str, tuple[Any, list[str]]] = {
        "bands.npy": (np.zeros((100, 50), np.float32), ["100 bands", "expected 80"]),
        "transposed.npy": (np.ascontiguousarray(mel.T), ["transposed", "swap"]),
        "object.npy": (np.array([Evil(mark)], dtype=object), ["isn't unpickled"]),
        "nan.npy": (np.full((80, 30), np.nan, np.float32), ["NaN"]),
        "flat.npy": (np.zeros(80, np.float32), ["shape (80,)"]),
        "number.npy": (np.float32(3), ["shape ()"]),
        "empty.npy": (np.zeros((80, 0), np.float32), ["no frames"]),
        "batch.npy": (np.zeros((3, 80, 9), np.float32), ["3 mels", "one a file"]),
        "text.npy": (np.array([["a"] * 9] * 80), ["numbers"]),
        "class.pt": (Evil(mark), ["isn't unpickled", "torch.save"]),
        "two.pt": ({"a": torch.zeros(80, 9), "b": torch.zeros(80, 9)}, ["expected one array", "a, b"]),
        "list.pt": ([1, 2], ["list"]),
        "bands.pt": (torch.zeros(100, 9), ["100 bands"]),
    }
    for name, (value, _) in cases.items():
        path = tmp_path / name
        torch.save(value, path) if path.suffix == ".pt" else np.save(path, value, allow_pickle=True)
    for name in ("zero.npy", "zero.pt", "zero.safetensors"):
        (tmp_path / name).touch()
        cases[name] = (None, ["can't be read as a mel"])
    for name in ("words.npy", "words.pt", "words.safetensors"):
        text_file(tmp_path / name)
        cases[name] = (None, [name])
    for name, (_, words) in cases.items():
        said = refused(1, "vocode", tmp_path / name, "-o", tmp_path / "out.wav", "--model", model)
        assert all(word in said for word in [str(tmp_path / name), *words]), said
    assert not mark.exists(), "something was unpickled"


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("log10", lambda ln: ln / np.log(10), ["log10", "takes|is ln"]),
        ("db", lambda ln: ln * 20 / np.log(10), ["decibels"]),
        ("linear", np.exp, ["linear magnitudes"]),
    ],
)
def test_another_log_base_is_warned_of_by_name(
    name: str, change: Any, words: list[str], tmp_path: Path, model: Path, mel: np.ndarray, capsys: Any
) -> None:
    np.save(tmp_path / "right.npy", mel)
    np.save(tmp_path / "other.npy", change(mel).astype(np.float32))
    out = str(tmp_path / "out")
    assert main(["vocode", str(tmp_path / "right.npy"), "-o", out, "--model", str(model)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["vocode", str(tmp_path / "other.npy"), "-o", out, "--model", str(model)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len([line for line in warnings if "other.npy" in line]) == 1
    assert any(option in warnings[0] for word in words for option in word.split("|"))


def test_a_padded_mel_is_told(tmp_path: Path, model: Path, mel: np.ndarray, capsys: Any) -> None:
    np.save(tmp_path / "padded.npy", np.pad(mel, ((0, 0), (0, 5))))
    assert main(["vocode", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(model)]) == 0
    assert "padded.npy: the last 5 of" in capsys.readouterr().err


def test_what_all_mels_look_like_is_told_once(
    tmp_path: Path, model: Path, mel: np.ndarray, capsys: Any
) -> None:
    for name, scale in (("a", 1.0), ("b", 1.1)):
        np.save(tmp_path / f"{name}.npy", (scale * mel / np.log(10)).astype(np.float32))
    assert main(["vocode", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(model)]) == 0
    said = capsys.readouterr().err
    assert said.count("base-10 logarithms") == 1
    assert f"warning: {tmp_path / 'b.npy'}: looks as {tmp_path / 'a.npy'} does" in said


@pytest.mark.parametrize("peak, code", [(0.0, 1), (9e-4, 1), (2e-3, 0)])
def test_a_silent_corpus_is_not_trained_on(tmp_path: Path, capsys: Any, peak: float, code: int) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    for name in "abc":
        audio.write(folder / f"{name}.wav", np.full(SAMPLE_RATE, peak, np.float32), SAMPLE_RATE)
    command = ["train", "tiny_cpu", "--data.path", str(folder), "--run", str(tmp_path / "run")]
    assert main([*command, *arguments(steps="1", data__gain_db="null")]) == code
    assert ("segments are silent" in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize("segment_samples, told", [(35072, False), (35840, True)])
def test_segments_of_mostly_zeros_are_warned_of(
    segment_samples: int, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", files=3, seconds=0.8)  # 17640 samples
    settings = ["--data.path", str(corpus), *arguments(steps="1", data__segment_samples=str(segment_samples))]
    assert main(["train", "tiny_cpu", *settings, "--run", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert ("recordings of 0.8 s in the mean, and segments of 1.6 s: most of them is zeros" in said) == told


@pytest.mark.parametrize(
    "setting, words",
    [
        (["--optimiser", "1"], ["optimiser", "unknown key"]),
        (["--batchsize", "4"], ["batchsize", "did you mean 'batch_size'"]),
        (["--data.segment_sample", "2048"], ["data.segment_sample", "did you mean 'segment_samples'"]),
        (["--generator.chanels", "4"], ["generator.chanels", "did you mean 'channels'"]),
        (
            ["--generator", "{class_path: os.system, init_args: {command: touch MARK}}"],
            ["os.system", "refused"],
        ),
        (["--task", "subprocess.Popen"], ["subprocess.Popen", "refused"]),
        (["--mel", "{preset: hifigan, hop_length: 200}"], ["hop"]),
        (["--mel", "{preset: hifigann}"], ["hifigann"]),
        (["--data.segment_samples", "2000"], ["segment_samples", "multiple", "256"]),
        (["--data.segment_samples", "256"], ["data.segment_samples", "at least 512", "losses.spectrum.loss"]),
        (["--losses.mel_512.loss.mel", "bigvgan_24khz"], ["losses.mel_512.loss", "24000", "22050"]),
        (["--steps", "many"], ["steps", "many", "a whole number"]),
        (["--steps", "0"], ["steps", "at least 1"]),
        (["--steps"], ["--steps", "value"]),
        (["--steps", "1", "--steps", "2"], ["--steps", "twice"]),
        (["--generator_optimization.optimizer.init_args.lr", "fast"], ["lr", "fast"]),
        (["--data.gain_db", "[1"], ["data.gain_db"]),
    ],
)
def test_a_wrong_recipe_is_two(
    setting: list[str], words: list[str], refused: Refused, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    given = [part.replace("MARK", str(mark)) for part in setting]
    command = ["train", "tiny_cpu", "--data.path", tmp_path, "--run", tmp_path / "run"]
    said = refused(2, *command, *given)
    assert all(word in said for word in words), said
    assert not mark.exists()


def test_a_hop_that_is_not_the_product_of_the_rates(refused: Refused, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: melgan_ljspeech\ngenerator: {init_args: {upsample_rates: [8, 8, 2]}}\n")
    said = refused(2, "train", recipe, "--data.path", tmp_path, "--run", tmp_path / "run")
    assert all(word in said for word in ("hop_length", "256", "128", "upsample_rates"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("base: tiny_cpu\nstepz: 3\n", ["stepz", "did you mean 'steps'"]),
        ("base: tiny_cpu\ngenerator: {class_path: os.system}\n", ["os.system"]),
        ("steps: [1\nseed: 2\n", ["mine.yaml, line 2"]),
        ("just words", ["mine.yaml", "mapping"]),
        ("steps: 3\n", ["task", "missing"]),
        ("!!python/object/apply:os.system ['true']", ["mine.yaml"]),
    ],
)
def test_a_wrong_recipe_file_is_two(text: str, words: list[str], refused: Refused, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    said = refused(2, "train", recipe, "--data.path", tmp_path, "--run", tmp_path / "run")
    assert all(word in said for word in words), said


def test_a_model_folder_that_names_os_system(
    refused: Refused, tmp_path: Path, model: Path, corpus: Path
) -> None:
    import shutil

    evil = tmp_path / "evil"
    shutil.copytree(model, evil)
    described = json.loads((evil / "config.json").read_text())
    described["generator"] = {
        "class_path": "os.system",
        "init_args": {"command": f"touch {tmp_path / 'mark'}"},
    }
    (evil / "config.json").write_text(json.dumps(described))
    clip = corpus / "clip00.wav"
    for command in (
        ["vocode", clip, "-o", tmp_path / "out.wav", "--model", evil],
        ["evaluate", "--data", corpus, "--model", evil],
        ["demo", "--input", clip, "-o", tmp_path / "out", "--model", evil],
    ):
        assert "os.system" in refused(1, *command)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["{clip}", "-o", "{tmp}/out.txt"], ["-o", ".txt", ".wav"]),
        (["{clip}", "{npy}", "-o", "{tmp}/out.wav"], ["-o", "folder"]),
        (["{tmp}/in", "-o", "{tmp}/in"], ["overwrite"]),
        (["{clip}", "-o", "{clip}"], ["overwrite"]),
        (["{clip}", "-o", "{tmp}/in"], ["overwrite"]),
        (["{clip}", "{npy}", "-o", "{tmp}/out"], ["both", "one kind"]),
        (["{clip}", "{other}", "-o", "{npy}"], ["folder"]),
        (["{clip}", "-o", "{tmp}/out", "--device", "cpuu"], ["--device", "cpuu"]),
        (["-o", "{tmp}/out"], ["INPUT"]),
        (["{clip}"], ["-o"]),
    ],
)
def test_vocode_knows_from_its_command_line(
    arguments: list[str], words: list[str], refused: Refused, tmp_path: Path, corpus: Path, model: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    places = {"tmp": tmp_path, "clip": folder / "a.wav", "npy": folder / "a.npy", "other": folder / "b.wav"}
    for name in ("clip", "other"):
        places[name].write_bytes((corpus / "clip00.wav").read_bytes())
    if "{npy}" in arguments:
        np.save(places["npy"], np.zeros((80, 9), np.float32))
    said = refused(2, "vocode", *(part.format(**places) for part in arguments), "--model", model)
    assert all(word in said for word in words), said


def test_a_batch_goes_on_past_bad_items(
    tmp_path: Path, corpus: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "z"):
        (folder / f"{name}.wav").write_bytes((corpus / "clip00.wav").read_bytes())
    text_file(folder / "b.wav")
    not_a_number(folder / "c.wav")
    np.save(folder / "d.npy", np.zeros((100, 9), np.float32))
    out = tmp_path / "out"
    assert main(["vocode", str(folder), "-o", str(out), "--model", str(model)]) == 1
    told, err = capsys.readouterr()
    assert sorted(path.name for path in out.rglob("*")) == ["a.wav", "z.wav"]
    assert told.split() == [str(out / "a.wav"), str(out / "z.wav")]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 4
    for line, name in zip(lines, ("b.wav", "c.wav", "d.npy"), strict=False):
        assert name in line
    assert "3 of 5 failed" in lines[3]


def test_a_full_disk_ends_a_batch(
    tmp_path: Path,
    corpus: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(writer: audio.Writer, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(writer.path))

    monkeypatch.setattr(audio.Writer, "append", full)
    assert main(["vocode", str(corpus), "-o", str(tmp_path / "a" / "b"), "--model", str(model)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "disk is full" in lines[0]
    assert "1 of 6 failed" in lines[1]
    assert lines[1].endswith("; 5 weren't tried")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device of Linux")
def test_dev_full(refused: Refused, tmp_path: Path, corpus: Path, model: Path) -> None:
    evaluate = [
        "evaluate",
        "--model",
        model,
        "--data",
        corpus,
        "--split",
        "all",
        "--limit",
        1,
        "--measures",
        "mel",
    ]
    assert "disk is full" in refused(1, *evaluate, "--json", "/dev/full")
    assert "disk is full" in refused(1, "data", "check", corpus, "--json", "/dev/full")
    link = tmp_path / "out.wav"
    link.symlink_to("/dev/full")
    assert "not a regular file" in refused(2, "vocode", corpus / "clip00.wav", "-o", link, "--model", model)
    assert link.is_symlink()
    assert "folder" in refused(2, "vocode", corpus, "-o", "/dev/full", "--model", model)


LIMITED = """
import contextlib, io, json, os, resource, sys
from pathlib import Path
from gansound.cli import main
results = []
for case in json.load(sys.stdin):
    Path(case["root"]).mkdir(parents=True)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (case["limit"], hard))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(case["argv"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    results.append({"code": code, "err": err.getvalue()})
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, corpus: Path, model: Path) -> dict[str, dict[str, Any]]:
    """Each command under a file-size limit that what it writes is larger than, in one process."""
    top = tmp_path_factory.mktemp("limited")
    cases: dict[str, tuple[int, list[Any]]] = {
        "vocode": (8192, ["vocode", corpus / "clip00.wav", "-o", "{root}/out.wav", "--model", model]),
        "vocode folder": (8192, ["vocode", corpus, "-o", "{root}/out", "--model", model]),
        "check": (512, ["data", "check", corpus, "--json", "{root}/report.json"]),
        "prepare": (128, ["data", "prepare", corpus, "-o", "{root}/out"]),
        "copies": (4096, ["data", "prepare", corpus, "-o", "{root}/out", "--sample-rate", 8000]),
        "evaluate": (
            512,
            ["evaluate", "--model", model, "--data", corpus, "--split", "all", "--limit", 1, "--measures", "mel",
             "--json", "{root}/figures.json"],
        ),
        "checkpoint": (
            16384,
            ["train", "tiny_cpu", "--data.path", corpus, "--steps", 2, "--run", "{root}/run", *arguments()],
        ),
        "tensorboard": (
            16384,
            ["train", "tiny_cpu", "--data.path", corpus, "--steps", 2, "--run", "{root}/run",
             *arguments(validate_every="1", validate_utterances="1")],
        ),
        "recipe": (
            64,
            ["train", "tiny_cpu", "--data.path", corpus, "--steps", 2, "--run", "{root}/run", *arguments()],
        ),
    }  # fmt: skip
    work = [
        {
            "root": str(top / name),
            "limit": limit,
            "argv": [str(part).replace("{root}", str(top / name)) for part in argv],
        }
        for name, (limit, argv) in cases.items()
    ]
    done = subprocess.run(
        [warm.python(), "-c", LIMITED],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=800,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = json.loads(done.stdout.splitlines()[-1])
    return {name: result | {"root": top / name} for name, result in zip(cases, results, strict=True)}


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX")
@pytest.mark.parametrize(
    "name, left",
    [
        ("vocode", []),
        ("vocode folder", []),
        ("check", []),
        ("prepare", ["out", "out/journal.jsonl"]),
        ("copies", ["out", "out/audio", "out/journal.jsonl"]),
        ("evaluate", []),
        ("recipe", ["run"]),
    ],
)
def test_a_file_size_limit(limited: dict[str, dict[str, Any]], name: str, left: list[str]) -> None:
    result = limited[name]
    lines = [line for line in result["err"].splitlines() if line.startswith("error: ")]
    assert result["code"] == 1, result
    said = [line for line in lines if " failed: " not in line]
    assert all("file-size limit" in line and str(result["root"]) in line for line in said), lines
    assert len(lines) == (7 if name == "vocode folder" else 1), lines
    assert "Traceback" not in result["err"]
    assert set(snapshot(result["root"])) <= set(left), "only empty folders may stay"


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX")
@pytest.mark.parametrize("name", ["checkpoint", "tensorboard"])
def test_a_file_size_limit_in_training(limited: dict[str, dict[str, Any]], name: str) -> None:
    result = limited[name]
    errors = [line for line in result["err"].splitlines() if line.startswith("error: ")]
    assert result["code"] == 1, result
    assert len(errors) == 1, result["err"]
    assert "file-size limit" in errors[0]
    assert "Traceback" not in result["err"]
    assert str(result["root"] / "run") in errors[0]
    run = result["root"] / "run"
    assert not (run / "model").exists()
    assert not (run / "checkpoints").exists() or list((run / "checkpoints").iterdir()) == []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_debug_shows_where(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.zeros((100, 9), np.float32))
    command = ["vocode", str(tmp_path / "a.npy"), "-o", str(tmp_path / "out"), "--model", str(model)]
    assert main([*command, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert logging.getLogger("gansound").handlers == []
