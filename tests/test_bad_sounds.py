"""Sounds, recipes and model folders as strangers bring them: one clear message, its exit code, nothing half-written."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gansound.cli import main
from gansound.data.clips import ClipDataset
from gansound.data.corpus import scan
from tests.clip_models import save_tiny_clips
from tests.clips import SAMPLE_RATE, write_sounds

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    *(
        "--generator.init_args.clip_samples",
        1024,
        "--discriminators.wave.network.init_args.clip_samples",
        1024,
    ),
    *("--discriminators.wave.network.init_args.phase_shuffle", 1, "--data.segment_samples", 1024),
    *("--data.workers", 0, "--threads", 1, "--validate_every", "null"),
]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "kit", each=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clips(tmp_path_factory.mktemp("runs") / "drums" / "model")


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command that must fail with this code, and gives its one error; the folder is as it was."""
    monkeypatch.delenv("GANSOUND_DEBUG", raising=False)

    def run(code: int, *words: object) -> str:
        before = snapshot(tmp_path)
        assert main([str(word) for word in words]) == code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert "internal error" not in err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, err
        assert snapshot(tmp_path) == before
        return errors[0]

    return run


def train(path: Path, run: Path, *words: object) -> list[object]:
    """The command; a setting given in `words` replaces that of `SMALL`."""
    small = [word for i in range(0, len(SMALL), 2) if SMALL[i] not in words for word in SMALL[i : i + 2]]
    return ["train", "wavegan_tiny_cpu", "--data.path", path, "--run", run, *small, *words]


def silent(folder: Path) -> None:
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", np.zeros(1600, np.float32), SAMPLE_RATE)


def text(folder: Path) -> None:
    (folder / "a.wav").write_text("this is no sound\n" * 50)


@pytest.mark.parametrize("make, said", [(None, "no audio files"), (silent, "silent"), (text, "not audio")])
@pytest.mark.parametrize("labels", ["auto", "null"])
def test_a_folder_without_sounds(make: Any, said: str, labels: str, tmp_path: Path, refused: Any) -> None:
    folder = tmp_path / "kit"
    folder.mkdir()
    if make:
        make(folder)
    assert said in refused(1, *train(folder, tmp_path / "run", "--labels", labels))


@pytest.mark.parametrize("labels", ["auto", "null", "[kick]"])
def test_a_folder_that_is_not_there_is_known_beforehand(labels: str, tmp_path: Path, refused: Any) -> None:
    assert "no such" in refused(2, *train(tmp_path / "nowhere", tmp_path / "run", "--labels", labels))


@pytest.mark.parametrize("labels", ["[kick, nope]", "[bell, nope]"])
def test_labels_that_the_folder_lacks(labels: str, sounds: Path, tmp_path: Path, refused: Any) -> None:
    said = refused(1, *train(sounds, tmp_path / "run", "--labels", labels))
    assert "'nope'" in said
    assert "has bell, hiss, zap" in said


def test_a_label_whose_sounds_are_all_silent(tmp_path: Path, refused: Any) -> None:
    folder = write_sounds(tmp_path / "kit", each=2)
    for path in (folder / "zap").iterdir():
        soundfile.write(path, np.zeros(1600, np.float32), SAMPLE_RATE)
    said = refused(1, *train(folder, tmp_path / "run", "--labels", "auto"))
    assert "'zap'" in said


def test_one_sound_trains_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(1600) / 5).astype(np.float32), SAMPLE_RATE)
    words = train(tmp_path, tmp_path / "run", "--steps", 1, "--batch_size", 2, "--critic_steps", 1)
    assert main([str(word) for word in words]) == 0
    assert "1 sound to learn from, which a generator can only copy" in capsys.readouterr().err + caplog.text


IMPOSSIBLE = [
    (["--penalties", "null"], "error: adversarial: Wasserstein needs"),
    (["--labels", "[bell, bell]"], "each name once"),
    (["--labels", "bell"], "'auto' or a list of texts or null"),
    (["--data.segment_samples", 2048], "clip_samples 1024, got 2048"),
    (["--discriminators.wave.network.init_args.clip_samples", 2048], "clip_samples must be the generator's"),
    (["--generator.init_args.channels", 2], "channels must be the generator's"),
    (["--batch_size", 0], "error: batch_size must be at least 1"),
    (["--critic_steps", 0], "error: critic_steps must be at least 1"),
]


@pytest.mark.parametrize("words, said", IMPOSSIBLE)
def test_impossible_recipes(words: list[Any], said: str, sounds: Path, tmp_path: Path, refused: Any) -> None:
    assert said in refused(2, *train(sounds, tmp_path / "run", *words))


@pytest.mark.parametrize("words", [["--labels", "[bell, zap]"], ["--data.one_shots", "{}"]])
def test_a_vocoder_takes_no_one_shots(words: list[str], sounds: Path, tmp_path: Path, refused: Any) -> None:
    common = ["train", "tiny_cpu", "--data.path", sounds, "--run", tmp_path / "run", "--data.workers", 0]
    assert "a vocoder" in refused(2, *common, *words)


def test_a_runs_folder_is_pointed_to_its_model(model: Path, tmp_path: Path, refused: Any) -> None:
    said = refused(1, "generate", "--model", model.parent, "-n", 1, "-o", tmp_path / "s")
    assert str(model) in said
    (tmp_path / "recipe.yaml").touch()
    assert "no model yet" in refused(1, "generate", "--model", tmp_path, "-n", 1, "-o", tmp_path / "s")


def test_an_output_below_a_file(model: Path, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "f").write_text("mine")
    assert "not a folder" in refused(2, "generate", "--model", model, "-n", 1, "-o", tmp_path / "f" / "s")


EDITED = [
    ({"class_path": "os.system"}, "refused"),
    ({"labels": ["a", "b", "c", "d"]}, "don't fit"),
    ({"prior": {"class_path": "gansound.generators.prior.Normal", "init_args": {"dim": 7}}}, "don't fit"),
    ({"prior": {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}}, "refused"),
    ({"sample_rate": 0}, "must be positive"),
    ({"nonsense": 1}, "unknown key"),
]


@pytest.mark.parametrize("changes, said", EDITED)
def test_a_config_edited_by_a_stranger(
    changes: dict[str, Any], said: str, model: Path, tmp_path: Path, refused: Any
) -> None:
    edited = tmp_path / "model"
    shutil.copytree(model, edited)
    config = json.loads((edited / "config.json").read_text())
    place = config["generator"] if "class_path" in changes else config["generator"]["init_args"]
    place.update(changes)
    (edited / "config.json").write_text(json.dumps(config))
    assert said in refused(1, "generate", "--model", edited, "-n", 1, "-o", tmp_path / "s")


@pytest.mark.parametrize("words", [["bench"], ["vocode", "{kit}/bell/take00.wav", "-o", "{tmp}/x.wav"]])
def test_a_generator_of_clips_is_no_vocoder(
    words: list[str], model: Path, sounds: Path, tmp_path: Path, refused: Any
) -> None:
    filled = [word.format(kit=sounds, tmp=tmp_path) for word in words]
    assert "gansound generate" in refused(1, *filled, "--model", model)


@pytest.mark.parametrize("words, code, said", [
    (["directions", "--count", 0, "--file", "{tmp}/d.safetensors"], 2, "--count 0"),
    (["directions", "--file", "{tmp}/d.safetensors", "--page", "{tmp}/p", "--from", "0:0:kik"], 1, "kik"),
    (["attribute", "--name", "", "--liked", "0:0", "--others", "0:1"], 2, "--name"),
    (["attribute", "--name", "x", "--liked", "0:0", "--others", "0:0"], 1, "Give other sounds"),
    (["invert", "no.wav", "--steps", 0, "-o", "{tmp}/v"], 2, "--steps 0"),
    (["invert", "no.wav", "--starts", 9, "--candidates", 8, "-o", "{tmp}/v"], 2, "--candidates 8"),
])  # fmt: skip
def test_latent_tools(
    words: list[Any], code: int, said: str, model: Path, tmp_path: Path, refused: Any
) -> None:
    filled = [str(word).format(tmp=tmp_path) for word in words]
    assert said in refused(code, "latent", *filled, "--model", model)


def test_inversion_goes_on_past_a_bad_recording_and_keeps_two_of_one_name(
    model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    three = [sounds / "bell" / "take00.wav", tmp_path / "bad.wav", sounds / "zap" / "take00.wav"]
    quick = ["--steps", 1, "--candidates", 4, "--starts", 1, "--label", "kick"]
    words = ["-q", "latent", "invert", *three, "--model", model, *quick, "-o", tmp_path / "v"]
    assert main([str(word) for word in words]) == 1
    assert "1 of 3 recordings" in capsys.readouterr().err
    assert len(list((tmp_path / "v").glob("*_inverted.wav"))) == 2


def test_a_folder_with_none_of_the_models_labels(sounds: Path) -> None:
    with pytest.raises(ValueError, match=r"none of 6 files .* label 'bell' is none of the model's"):
        ClipDataset(scan(sounds).records, sample_rate=SAMPLE_RATE, clip_samples=1024, seed=0, labels=["kick"])
