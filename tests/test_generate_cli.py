"""`gansound generate` and `gansound latent`: files that hold what Python gives, and say how they are made again."""

import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from gansound import audio, cli
from gansound.audio.files import read_tags
from gansound.cli import clip_files
from gansound.cli import progress as cli_progress
from gansound.cli.clip_files import finishing
from gansound.data.clips import one_clip
from gansound.data.settings import OneShotSettings
from gansound.inference.clips import ClipGenerator
from gansound.inference.latent.directions import Directions
from tests.clip_models import DRUMS, save_tiny_clips

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_clips(tmp_path_factory.mktemp("runs") / "drums" / "model")


@pytest.fixture(autouse=True)
def commands(monkeypatch):
    for name in ("generate", "latent"):
        monkeypatch.setitem(cli.COMMANDS, name, (f"gansound.cli.{name}", name))


def gansound(*words):
    return cli.main([str(word) for word in words])


def sound(path):
    return audio.read(path, mono=False)[0]


def listed(folder):
    return {entry["file"]: entry for entry in json.loads((folder / "generated.json").read_text())["clips"]}


class Links(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.players = 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.players += tag == "audio"
        self.found += [value for name, value in attributes if name in ("src", "href")]


@pytest.mark.parametrize("form, bits", [("wav", 16), ("flac", 24)])
def test_files_hold_what_python_gives_to_the_bit(model, tmp_path, form, bits, capsys):
    words = ["--seed", 5, "--format", form, "--bits", bits, "--truncation", 0.7]
    assert gansound("generate", "--model", model, "-n", 20, *words, "-o", tmp_path / "s") == 0
    assert "20 sounds" in capsys.readouterr().out
    expected = ClipGenerator.from_pretrained(model, "cpu").generate(20, seed=5, truncation=0.7)
    for index, clip in enumerate(expected):
        name = f"drums_{DRUMS[index % 3]}_seed5_{index:04d}_t0.7.{form}"
        scale = 2.0 ** (bits - 1)
        whole = np.rint(clip.astype(np.float64) * scale).clip(-scale, scale - 1) / scale
        np.testing.assert_array_equal(sound(tmp_path / "s" / name), whole.astype(np.float32))
        assert audio.probe(tmp_path / "s" / name).subtype == f"PCM_{bits}"
        told = json.loads(read_tags(tmp_path / "s" / name)["comment"])
        assert (told["seed"], told["index"], told["label"], told["steps"]) == (5, index, DRUMS[index % 3], 7)
        assert listed(tmp_path / "s")[name].items() >= told.items()
    assert len(list((tmp_path / "s").iterdir())) == 21


FORM = ["--sample-rate", 11025, "--bits", 32, "--trim", "--peak", -3.21]


@pytest.mark.parametrize("form", [[], FORM])
def test_its_own_command_makes_a_favourite_again(model, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    assert gansound("-q", "generate", "--model", model, "-n", 20, "-o", "s", "--fade-out-ms", 20, *form) == 0
    name, entry = list(listed(tmp_path / "s").items())[17]
    program, *words = shlex.split(entry["command"])
    assert program == "gansound"
    assert gansound("-q", *words) == 0
    assert [path.name for path in (tmp_path / "again").glob("*.wav")] == [name]
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "s" / name).read_bytes()
    form = [*form, "--fade-out-ms", 20]
    assert gansound("-q", "generate", "--model", model, "--latent", f"s/{name}", "-o", "t", *form) == 0
    np.testing.assert_array_equal(sound(tmp_path / "t" / name), sound(tmp_path / "s" / name))


def test_files_have_the_rate_and_the_peak_that_were_asked_for(model, tmp_path):
    assert gansound("-q", "generate", "--model", model, "-n", 3, *FORM, "-o", tmp_path, "--page") == 0
    clips = ClipGenerator.from_pretrained(model, "cpu").generate(3)
    for clip, (name, entry) in zip(
        clips, sorted(listed(tmp_path).items(), key=lambda one: one[1]["index"]), strict=True
    ):
        info = audio.probe(tmp_path / name)
        assert (info.sample_rate, info.subtype, entry["sample_rate"]) == (11025, "FLOAT", 11025)
        written = sound(tmp_path / name)
        assert abs(audio.peak_db(written) + 3.21) < 1e-4
        assert (written[..., 0] == 0).all()
        assert (written[..., -1] == 0).all()
        ours = audio.resample(clip, 8000, 11025)  # untrained: it has no silent end
        inner = slice(1, min(written.shape[-1], ours.shape[-1]) - 300)  # trimming may have faded the end
        gain = np.abs(ours).max() / 10 ** (-3.21 / 20)
        np.testing.assert_allclose(written[..., inner] * gain, ours[..., inner], atol=1e-5)
    assert "0 to 5.5125 kHz upwards" in (tmp_path / "index.html").read_text()
    assert gansound("-q", "generate", "--model", model, "-n", 1, "--seed", 1, "-o", tmp_path, "--page") == 0
    assert "0 to half its sample rate upwards" in (tmp_path / "index.html").read_text()


def test_resampled_no_sound_clips():
    loud = np.sign(np.sin(np.arange(4000) / 3.3)).astype(np.float32)[None]  # between its samples it is louder
    args = SimpleNamespace(sample_rate=44100, trim=False, peak=None)
    clips = SimpleNamespace(sample_rate=8000, fade_out_ms=10.0)
    assert np.abs(audio.resample(loud, 8000, 44100)).max() > 1.1
    assert np.abs(finishing(args, clips)(loud)).max() <= 1


@pytest.mark.parametrize("channels", [1, 2])
def test_trim_cuts_the_silent_end_alone(channels):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, 44100)).astype(np.float32)
    seconds = np.arange(44100) / 44100
    heard = noise * 10 ** (-seconds / 0.1).astype(np.float32)  # 60 dB down after 0.3 s
    heard[:, :4410] = 0  # silence at the start stays: the attack would move
    args = SimpleNamespace(sample_rate=None, trim=True, peak=None)
    finish = finishing(args, SimpleNamespace(sample_rate=44100, fade_out_ms=10.0))
    cut = finish(heard)
    assert 0.38 < cut.shape[1] / 44100 < 0.5
    np.testing.assert_array_equal(cut[:, :-441], heard[:, : cut.shape[1] - 441])
    assert (cut[:, -1] == 0).all()
    np.testing.assert_array_equal(finish(noise), noise)
    np.testing.assert_array_equal(finish(0 * noise), 0 * noise)


def test_every_digit_of_a_number_is_recorded_and_named(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directions = ["latent", "directions", "--model", model, "--count", 1, "--file", "d.safetensors"]
    assert gansound("-q", *directions) == 0
    moved = ["--slider", "0=-2", "--directions", "d.safetensors"]
    for truncation in ("0.123456789", "0.12345678"):
        words = ["-n", 1, "--bits", 24, "--truncation", truncation, *moved]
        assert gansound("-q", "generate", "--model", model, "-o", "s", *words) == 0
    first, second = listed(tmp_path / "s").values()
    assert second["file"] == "drums_hat_seed0_0000_t0.123456789_0=-2.wav"
    assert first["file"] == "drums_hat_seed0_0000_t0.12345678_0=-2.wav"
    for entry in (first, second):
        assert gansound("-q", *shlex.split(entry["command"])[1:]) == 0
        np.testing.assert_array_equal(
            sound(tmp_path / "again" / entry["file"]), sound(tmp_path / "s" / entry["file"])
        )
    assert gansound("-q", "generate", "--model", model, "--latent", "0:0", "-o", "t", "--slider", "0=0.1234567",
                    "--directions", "d.safetensors") == 0  # fmt: skip
    assert (tmp_path / "t" / "drums_seed0_0000_0=+0.1234567.wav").exists()


def test_what_begins_with_a_dash_is_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny_clips(Path("-drums/model"), ("-hats", "kick"))
    words = ["--model=-drums/model", "--label=-hats", "-n", 1]
    assert gansound("-q", "generate", *words, "-o", "s") == 0
    ((name, entry),) = listed(Path("s")).items()
    assert gansound("-q", *shlex.split(entry["command"])[1:]) == 0
    assert (Path("again") / name).read_bytes() == (Path("s") / name).read_bytes()
    words = [f"--latent=s/{name}", "--model=-drums/model", "--output=-t"]
    assert gansound("-q", "generate", *words) == 0
    entry = listed(Path("-t"))[name]
    assert gansound("-q", *shlex.split(entry["command"])[1:], "--force") == 0
    np.testing.assert_array_equal(sound(Path("again") / name), sound(Path("s") / name))


def test_sounds_gather_in_a_folder_and_none_is_overwritten_unasked(model, tmp_path, capsys):
    common = ["-q", "generate", "--model", model, "-o", tmp_path / "s", "-n", 2, "--label", "kick"]
    assert gansound(*common) == 0
    assert gansound(*common, "--seed", 1) == 0
    assert len(listed(tmp_path / "s")) == 4
    before = {path: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    assert gansound(*common, "--fade-in-ms", 50) == 2
    assert "2 of 2 files are there" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
    assert gansound(*common, "--fade-in-ms", 50, "--force") == 0
    assert len(listed(tmp_path / "s")) == 4
    assert (tmp_path / "s" / "drums_kick_seed0_0000.wav").read_bytes() not in before.values()


def test_the_page_shows_every_sound_and_its_links_resolve(model, tmp_path, capsys):
    assert gansound("generate", "--model", model, "-n", 7, "-o", tmp_path / "a b", "--page") == 0
    assert capsys.readouterr().out.endswith("index.html\n")
    assert gansound("-q", "generate", "--model", model, "-n", 2, "--seed", 1, "-o", tmp_path / "a b") == 0
    assert (
        gansound("-q", "generate", "--model", model, "-n", 1, "--seed", 2, "-o", tmp_path / "a b", "--page")
        == 0
    )
    text = (tmp_path / "a b" / "index.html").read_text()
    links = Links(text)
    assert links.players == 10
    for link in links.found:
        if not link.startswith("#"):
            assert not re.match(r"[a-z]+:|/", link)
            assert (tmp_path / "a b" / unquote(link)).is_file()
        else:
            assert f'id="{link[1:]}"' in text
    assert all(f"<h2>{label}</h2>" in text for label in DRUMS)
    assert "<script" not in text
    for picture in (tmp_path / "a b").rglob("*.png"):
        from matplotlib.image import imread

        assert imread(picture).shape[:2] == (96, 192) or picture.name == "grid.png"


def test_a_page_shows_its_own_models_sounds(model, tmp_path):
    other = save_tiny_clips(tmp_path / "runs" / "bells" / "model", ("bell",))
    for one in (model, other):
        assert gansound("-q", "generate", "--model", one, "-n", 2, "-o", tmp_path / "s", "--page") == 0
    text = (tmp_path / "s" / "index.html").read_text()
    assert "Sounds of bells" in text
    assert "<dt>not shown</dt><dd>2 of drums</dd>" in text
    assert Links(text).players == 2
    assert "drums_" not in text
    assert len(listed(tmp_path / "s")) == 4


def test_a_page_of_somebody_elses_stays(model, tmp_path, capsys):
    (tmp_path / "index.html").write_text("mine")
    assert gansound("generate", "--model", model, "-n", 1, "-o", tmp_path, "--page") == 2
    assert "index.html" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["-n", 0], 2, "-n 0"),
        (["--truncation", 0], 2, "--truncation 0"),
        (["--truncation", "nan"], 2, "--truncation"),
        (["--first", -1], 2, "--first"),
        (["--first", 2**64 - 1, "-n", 2], 2, "2**64"),
        (["--seed", -1], 2, "--seed -1: expected 0 or more"),
        (["--latent=-1:3:kick"], 1, "not SEED:INDEX"),
        (["--label", "kik"], 2, "did you mean 'kick'"),
        (["--slider", "0"], 2, "NAME=VALUE"),
        (["--slider", "0=1"], 2, "gansound latent directions"),
        (["--latent", "0:1", "-n", 3], 2, "-n"),
        (["--latent", "0:1:kik"], 1, "kick"),
        (["--latent", "no.wav"], 1, "no such file"),
        (["--latent", "."], 1, "is a folder. Give the sounds in it, such as *.wav"),
        (["--model", "default"], 1, "gansound vocode"),
        (["-n", 10**9], 1, "the disk has"),
        (["--fade-in-ms", 1e6], 1, "fade_in_ms"),
        (["--sample-rate", 0], 2, "1000 to 384000"),
        (["--peak", 1], 2, "--peak 1"),
        (["--peak", "nan"], 2, "--peak nan"),
        (["--bits", 32, "--format", "flac"], 2, "Write WAV"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_message_and_writes_nothing(model, tmp_path, capsys, words, code, said):
    assert gansound("generate", "--model", model, "-o", tmp_path / "s", *words) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(model, tmp_path, capsys):
    (tmp_path / "s").write_text("mine")
    assert gansound("generate", "--model", model, "-n", 1, "-o", tmp_path / "s") == 2
    assert "not a folder" in capsys.readouterr().err
    assert (tmp_path / "s").read_text() == "mine"


def test_a_disk_that_fills_up_keeps_what_is_whole_and_lists_it(model, tmp_path, capsys, monkeypatch):
    write = audio.write

    def full(path, *args, **kwargs):
        if "0005" in Path(path).name:
            raise OSError(28, "No space left on device", str(path))
        return write(path, *args, **kwargs)

    monkeypatch.setattr(audio, "write", full)
    assert gansound("generate", "--model", model, "-n", 9, "-o", tmp_path / "s") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "disk is full" in err
    there = {path.name for path in (tmp_path / "s").iterdir()}
    assert there - {"generated.json"} == set(listed(tmp_path / "s"))
    assert len(there) == 9


def test_nothing_written_leaves_no_folder(model, tmp_path, monkeypatch):
    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(audio, "write", full)
    assert gansound("generate", "--model", model, "-n", 2, "-o", tmp_path / "a" / "b") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_not_gansounds_is_left_alone(model, tmp_path, capsys):
    (tmp_path / "generated.json").write_text("[]")
    assert gansound("generate", "--model", model, "-n", 1, "-o", tmp_path) == 1
    assert "generated.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["generated.json"]


def test_interpolation_ends_at_the_given_sounds(model, tmp_path):
    assert gansound("-q", "generate", "--model", model, "-n", 2, "-o", tmp_path / "s") == 0
    first, last = sorted((tmp_path / "s").glob("*.wav"))
    words = ["latent", "interpolate", first, last, "--model", model, "--steps", 4, "-o", tmp_path / "between"]
    assert gansound("-q", *words) == 0
    between = sorted((tmp_path / "between").glob("*.wav"))
    assert len(between) == 4
    np.testing.assert_array_equal(sound(between[0]), sound(first))
    np.testing.assert_array_equal(sound(between[-1]), sound(last))
    assert Links((tmp_path / "between" / "index.html").read_text()).players == 4
    (kept,) = (tmp_path / "between").glob("*.safetensors")
    again = ["generate", "--model", model, "--latent", f"{kept}#2", "-o", tmp_path / "t"]
    assert gansound("-q", *again) == 0
    assert gansound("-q", "generate", "--model", model, "--latent", between[2], "-o", tmp_path / "u") == 0
    assert gansound("-q", "generate", "--model", model, "--latent", *between[:2], "-o", tmp_path / "kit") == 0
    for one in between[:2]:
        np.testing.assert_array_equal(sound(tmp_path / "kit" / one.name), sound(one))
    for folder in ("t", "u"):
        np.testing.assert_array_equal(sound(next((tmp_path / folder).glob("*.wav"))), sound(between[2]))


def test_what_lies_between_and_what_is_found_have_the_form_of_drawn_sounds(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gansound("-q", "generate", "--model", model, "-n", 1, "-o", "s", *FORM) == 0
    drawn = next(Path("s").glob("*.wav"))
    between = ["interpolate", drawn, "0:5:snare", "--steps", 3]
    found = ["invert", drawn, "--starts", 1, "--candidates", 2, "--steps", 1]
    for folder, words in (("b", between), ("v", found)):
        assert gansound("-q", "latent", *words, "--model", model, "-o", folder, *FORM) == 0
        assert "0 to 5.5125 kHz upwards" in (Path(folder) / "index.html").read_text()
        for name, entry in listed(Path(folder)).items():
            info = audio.probe(f"{folder}/{name}")
            assert (info.sample_rate, info.subtype, entry["sample_rate"]) == (11025, "FLOAT", 11025)
            assert abs(audio.peak_db(sound(f"{folder}/{name}")) + 3.21) < 1e-4
            if entry["command"]:
                assert gansound("-q", *shlex.split(entry["command"])[1:], "--force") == 0
                np.testing.assert_array_equal(sound(f"again/{name}"), sound(f"{folder}/{name}"))
    first = min(Path("b").glob("*.wav"))
    np.testing.assert_array_equal(sound(first), sound(drawn))
    refused = ["latent", "interpolate", "0:1", "0:2", "--model", model, "-o", "x"]
    for words in (["--sample-rate", 0], ["--peak", 1]):
        assert gansound(*refused, *words) == 2
    assert not Path("x").exists()


def test_names_stay_short_through_generations(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    between = ["0:1:kick", "0:2:snare"]
    for generation in range(6):
        words = ["latent", "interpolate", *between, "--model", model, "--steps", 3, "-o", f"{generation}"]
        assert gansound("-q", *words) == 0
        between = sorted(Path(f"{generation}").glob("*.wav"))[1:]
        assert len(between) == 2
    (kept,) = Path("5").glob("*.safetensors")
    assert len(kept.name) < 220
    entry = listed(Path("5"))[between[0].name]
    assert gansound("-q", *shlex.split(entry["command"])[1:]) == 0
    np.testing.assert_array_equal(sound(Path("again") / between[0].name), sound(between[0]))


def test_a_slider_is_overwritten_when_asked_to_and_labels_tell_nothing_apart(tmp_path, capsys):
    model = save_tiny_clips(tmp_path / "drums" / "model")
    words = ["latent", "attribute", "--name", "punchy", "--model", model, "--liked", "0:0", "0:1", "--others"]
    assert gansound("-q", *words, "0:2") == 0
    assert gansound("-q", *words, "0:3") == 2
    assert "--force overwrites it" in capsys.readouterr().err
    assert gansound("-q", *words, "0:3", "--force") == 0
    clips = ClipGenerator.from_pretrained(model, "cpu")
    (vector,) = Directions.load(model / "directions.safetensors", clips).vectors
    latents = clips.latents(4)
    np.testing.assert_allclose(vector, latents[:2].mean(0) - latents[3], atol=1e-6)
    words = [
        "latent",
        "attribute",
        "--name",
        "x",
        "--model",
        model,
        "--liked",
        "0:1:kick",
        "--others",
        "0:1:snare",
    ]
    assert gansound("-q", *words) == 1
    assert "labels don't count" in capsys.readouterr().err


def test_sliders_that_somebody_made_stay_when_directions_are_found(tmp_path, capsys):
    model = save_tiny_clips(tmp_path / "drums" / "model")
    file = tmp_path / "d.safetensors"
    common = ["--model", model, "--file", file]
    assert (
        gansound(
            "-q", "latent", "attribute", "--name", "punchy", *common, "--liked", "0:0", "--others", "0:2"
        )
        == 0
    )
    clips = ClipGenerator.from_pretrained(model, "cpu")
    (punchy,) = Directions.load(file, clips).vectors
    find = ["latent", "directions", "--count", 2, *common]
    assert gansound(*find) == 0  # nothing is overwritten
    assert "beside punchy" in capsys.readouterr().out
    assert gansound(*find) == 2
    assert "--force overwrites it, but for punchy;" in capsys.readouterr().err
    assert gansound("-q", *find, "--force", "--pca", "--count", 3) == 0
    found = Directions.load(file, clips)
    assert found.names == ("0", "1", "2", "punchy")
    np.testing.assert_array_equal(found.vectors[3], punchy)
    assert found.strengths[3] == pytest.approx(float(punchy.norm()))
    assert found.method.startswith("PCA")
    assert found.method.endswith("; punchy: mean of 1 sound minus that of 1")
    save_tiny_clips(tmp_path / "other" / "model", labels=("a", "b"))
    other = ["latent", "directions", "--count", 2, "--model", tmp_path / "other" / "model", "--file", file]
    assert gansound(*other) == 2
    assert "--force overwrites it; --file" in capsys.readouterr().err
    assert gansound("-q", *other, "--force") == 0  # those of other weights mean nothing here
    assert Directions.load(
        file, ClipGenerator.from_pretrained(tmp_path / "other" / "model", "cpu")
    ).names == ("0", "1")


def test_sliders_of_a_shipped_model_go_into_a_file_of_the_users(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    attribute = ["--liked", "0:0", "--others", "0:1", "--name", "bright"]
    for words in (["directions"], ["attribute", *attribute]):
        assert gansound("latent", *words, "--model", "drums") == 2
        assert "--file drums_sliders.safetensors" in capsys.readouterr().err
    words = ["generate", "--model", "drums", "-n", 1, "-o", "s", "--slider", "bright=1"]
    assert gansound(*words) == 2
    assert "--directions FILE" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    mine = ["--model", "drums", "--file", "drums_sliders.safetensors"]
    assert gansound("latent", "attribute", *attribute, *mine) == 0
    assert gansound(*words, "--directions", "drums_sliders.safetensors") == 0


def test_sliders_are_found_shown_and_used(tmp_path, capsys):
    model = save_tiny_clips(tmp_path / "drums" / "model")
    page = tmp_path / "sliders"
    words = ["latent", "directions", "--model", model, "--count", 2, "--page", page, "--from", "0:4:kick"]
    assert gansound(*words) == 0
    assert "2 directions by SeFa" in capsys.readouterr().out
    assert gansound(*words) == 2
    assert "--force" in capsys.readouterr().err
    assert Links((page / "index.html").read_text()).players == 14
    attribute = ["--liked", "0:0", "0:1", "--others", "0:2", "--name", "punchy"]
    assert gansound("-q", "latent", "attribute", *attribute, "--model", model) == 0
    common = ["-q", "generate", "--model", model, "--label", "kick", "--first", 4, "-n", 1]
    assert gansound(*common, "--slider", "1=+2", "-o", tmp_path / "s") == 0
    moved = next((tmp_path / "s").glob("*.wav"))
    assert moved.name == "drums_kick_seed0_0004_1=+2.wav"
    shown = next(page.glob("*_1=+2.wav"))
    assert {path.stem.rpartition("=")[2] for path in page.glob("*_1=*.wav")} == {
        f"{v:+d}" for v in range(-3, 4)
    }
    np.testing.assert_array_equal(sound(moved), sound(shown))
    assert gansound(*common, "--slider", "punchy=1", "-o", tmp_path / "s") == 0
    assert gansound(*common, "--slider", "dull=1", "-o", tmp_path / "s") == 2
    assert "punchy" in capsys.readouterr().err


def test_a_recording_is_inverted_and_can_be_made_again(model, tmp_path, capsys):
    assert gansound("-q", "generate", "--model", model, "-n", 1, "--label", "kick", "-o", tmp_path / "s") == 0
    recording = next((tmp_path / "s").glob("*.wav"))
    words = ["--label", "kick", "--starts", 2, "--candidates", 16, "--steps", 8]
    assert gansound("latent", "invert", recording, "--model", model, *words, "-o", tmp_path / "v") == 0
    assert "nepers" in capsys.readouterr().out
    made = tmp_path / "v" / "drums_kick_seed0_0000_inverted.wav"
    assert gansound("-q", "generate", "--model", model, "--latent", made, "-o", tmp_path / "w") == 0
    np.testing.assert_array_equal(sound(tmp_path / "w" / made.name), sound(made))
    assert {path.suffix for path in (tmp_path / "v").iterdir()} >= {".wav", ".safetensors", ".png", ".html"}
    assert (
        gansound("latent", "invert", recording, "--model", model, *words, "--seed", -1, "-o", tmp_path) == 2
    )
    assert "--seed -1: expected 0 or more" in capsys.readouterr().err


def test_how_far_an_inversion_is_stands_in_the_log(model, tmp_path, monkeypatch, capsys):
    assert gansound("-q", "generate", "--model", model, "-n", 1, "-o", tmp_path / "s") == 0
    clock = itertools.count(0.0, 15.0)
    monkeypatch.setattr(cli_progress, "time", SimpleNamespace(monotonic=clock.__next__))
    few = ["--starts", 1, "--candidates", 2, "--steps", 4, "-o", tmp_path / "v"]
    nothing = tmp_path / "nothing.wav"
    words = ["latent", "invert", nothing, next((tmp_path / "s").glob("*.wav")), "--model", model, *few]
    assert gansound(*words) == 1  # of what can't be read nothing is left to do
    assert "steps: 4 of 8, 15s left" in capsys.readouterr().err


def test_a_recording_is_prepared_as_what_was_trained_on_and_heard_beside_its_inversion(tmp_path, capsys):
    settings = {"trim_db": None, "fade_out_ms": 20.0}
    model = save_tiny_clips(tmp_path / "drums" / "model", info={"data": {"one_shots": settings}})
    time = np.arange(1500) / 8000
    late = np.concatenate([np.zeros(9000), np.exp(-time / 0.05) * np.cos(2 * np.pi * 300 * time)])
    recordings = [
        tmp_path / name for name in ("a/late.wav", "a/late_2.wav", "b/late.wav", "b/la te.wav", "b/la-te.wav")
    ]
    for path in recordings:
        path.parent.mkdir(exist_ok=True)
        audio.write(path, 0.5 * late, 8000)
    words = ["--label", "kick", "--starts", 1, "--candidates", 2, "--steps", 1, "-o", tmp_path / "v"]
    assert gansound("latent", "invert", *recordings, "--model", model, *words) == 0
    captured = capsys.readouterr()
    assert "late.wav: took 1.123 to 1.312 s of 1.312 s" in captured.out
    assert "warning" not in captured.err
    form = {"sample_rate": 8000, "clip_samples": 2048, "settings": OneShotSettings(**settings)}
    for name in ("late", "late_2", "late_1", "la-te", "la-te_1"):
        heard = sound(tmp_path / "v" / f"drums_{name}_recording.wav")
        np.testing.assert_allclose(heard, one_clip(recordings[0], **form)[0], atol=2**-16)
        assert (tmp_path / "v" / f"drums_{name}_inverted.wav").exists()
    page = (tmp_path / "v" / "index.html").read_text()
    assert Links(page).players == 10
    assert page.count("make it again") == 5
    assert page.index("drums_late_recording.wav") < page.index("drums_late_inverted.wav")
    latent = ["--latent", tmp_path / "v" / "drums_late_recording.wav", "-o", tmp_path / "w"]
    assert gansound("generate", "--model", model, *latent) == 1
    assert "doesn't say which latent" in capsys.readouterr().err
    assert gansound("latent", "invert", *recordings, "--model", model, *words) == 2
    assert "10 of 10 files are there already" in capsys.readouterr().err


def test_a_model_whose_preparation_cannot_be_is_refused(tmp_path, capsys):
    model = save_tiny_clips(tmp_path / "drums" / "model", info={"data": {"one_shots": {"lead": 2}}})
    audio.write(tmp_path / "a.wav", np.ones(100), 8000)
    assert gansound("latent", "invert", tmp_path / "a.wav", "--model", model, "-o", tmp_path / "v") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "how its sounds were prepared" in err


def test_a_pace_under_real_time_is_a_number(model, tmp_path, monkeypatch, capsys):
    for seconds, said in ((10.0, "0.1 times"), (0.1, "10 times")):  # for 1.0 s of sound
        clock = iter((0.0, seconds))
        monkeypatch.setattr(clip_files, "time", SimpleNamespace(perf_counter=clock.__next__))
        assert gansound("generate", "--model", model, "-n", 4, "-o", tmp_path / said) == 0
        assert f"1.0 s, {said} real time" in capsys.readouterr().out
