"""`Vocoder` and `gansound vocode`: length laws, round trips, conventions, and files of every kind."""

import argparse
import importlib
import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

import gansound
from gansound.cli import COMMANDS, main
from gansound.generators.melgan import MelGANGenerator
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.model_folder import save_model_folder
from tests.corpus import write_corpus
from tests.tiny import save_tiny_model

HOP, BANDS = 256, 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def vocoder(folder: Path) -> Vocoder:
    return Vocoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def centred(tmp_path_factory: pytest.TempPathFactory) -> Vocoder:
    """A model of a convention with one frame more than there are hops."""
    spec = MelSpec.preset("tacotron2")
    assert spec.framing == "center"
    torch.manual_seed(0)
    sizes = {"channels": 16}
    config = {"class_path": "gansound.generators.melgan.MelGANGenerator", "init_args": sizes}
    path = tmp_path_factory.mktemp("models") / "centred"
    save_model_folder(path, MelGANGenerator(**sizes), spec, config=config)
    return Vocoder.from_pretrained(path, device="cpu")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def some_mel(frames: int, seed: int = 0) -> torch.Tensor:
    return MelSpec.preset("hifigan").mel(torch.from_numpy(noise(frames * HOP, seed))[None])


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_frame_is_a_hop(vocoder: Vocoder, frames: int, batch: int | None) -> None:
    mel = torch.cat([some_mel(frames, seed) for seed in range(batch or 1)])
    given = mel[0] if batch is None else mel
    audio = vocoder(given)
    assert audio.shape == (batch or 1, frames * HOP)
    assert audio.dtype == torch.float32
    assert not audio.requires_grad
    assert torch.isfinite(audio).all()
    # numpy, float64 and another memory order are the same mel.
    for same in (given.numpy(), given.double(), np.asfortranarray(given.numpy())):
        assert torch.equal(vocoder(same), audio)


def test_items_of_a_batch_do_not_touch(vocoder: Vocoder) -> None:
    mels = [some_mel(20, seed) for seed in range(3)]
    together = vocoder(torch.cat(mels))
    for mel, audio in zip(mels, together, strict=True):
        torch.testing.assert_close(vocoder(mel)[0], audio, rtol=0, atol=1e-5)


def test_items_of_several_lengths_sound_as_they_do_alone(
    vocoder: Vocoder, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [70, 12, 90]
    batch = torch.zeros(3, BANDS, 95)  # zeros are near full scale: what was padded with must not be judged
    for item, n in enumerate(frames):
        batch[item, :, :n] = some_mel(n, item)[0]
    together = vocoder(batch, lengths=frames)
    valid = torch.cat([batch[item, :, :n] for item, n in enumerate(frames)], -1)
    assert caplog.messages == vocoder.mel_spec.suspicions(valid)
    assert together.shape == (3, 95 * HOP)
    assert not together[2, 90 * HOP :].any()
    for item, n in enumerate(frames):
        alone = vocoder(batch[item, :, :n])[0]
        torch.testing.assert_close(together[item, : n * HOP], alone, rtol=0, atol=1e-5)
    for same in (np.array(frames), torch.tensor(frames, dtype=torch.int32)):
        assert torch.equal(vocoder(batch.numpy(), lengths=same), together)
    torch.testing.assert_close(vocoder(batch[1], lengths=[12])[0], together[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "lengths, message",
    [
        ([5, 6], r"got shape \(2,\), expected \(3,\)"),
        ([[5, 6, 7]], r"got shape \(1, 3\)"),
        ([5, 11, 7], "got 11 frames of 10, expected 1 to 10"),
        ([5, 0, 7], "got 0 frames"),
        ([5, -2, 7], "got -2 frames"),
        ([0.5, 0.6, 1.0], "expected whole numbers of frames"),
        ([True, True, True], "expected whole numbers"),
        (["5", "6", "7"], "expected whole numbers"),
    ],
)
def test_lengths_that_cannot_be(vocoder: Vocoder, lengths: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"lengths: .*{message}"):
        vocoder(torch.zeros(3, BANDS, 10), lengths=lengths)


def test_lengths_do_not_hide_what_is_wrong_with_the_mel(vocoder: Vocoder) -> None:
    with pytest.raises(ValueError, match="got 7 bands"):
        vocoder(torch.zeros(3, 7, 10), lengths=[1, 2, 3])
    with pytest.raises(ValueError, match=r"got shape \(10,\)"):
        vocoder(torch.zeros(10), lengths=[1])
    with pytest.raises(ValueError, match="looks transposed"):
        vocoder(torch.zeros(2, 200, BANDS), lengths=[200, 3])
    with pytest.raises(ValueError, match="holds no frames"):
        vocoder(torch.zeros(2, BANDS, 0), lengths=[1, 1])
    bad = torch.zeros(2, BANDS, 10)
    bad[1, 0, 3] = float("nan")
    vocoder(bad, lengths=[10, 3], warn=False)  # behind its end
    with pytest.raises(ValueError, match="NaN"):
        vocoder(bad, lengths=[10, 4])


def test_saved_and_loaded_it_sounds_the_same(vocoder: Vocoder, tmp_path: Path) -> None:
    path = vocoder.save_pretrained(tmp_path / "copy")
    again = gansound.Vocoder.from_pretrained(str(path), device="cpu")
    assert again.mel_spec == vocoder.mel_spec
    assert again.info == vocoder.info == {"licence": "CC0-1.0"}
    assert again.sample_rate == 22050
    mel = some_mel(12)
    assert torch.equal(again(mel), vocoder(mel))
    for path_ in (tmp_path / "copy").iterdir():
        assert path_.suffix in (".json", ".safetensors")


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("samples", [1, 255, 256, 257, 5000, 16000])
@pytest.mark.parametrize("kind", ["vocoder", "centred"])
def test_copy_synthesis_keeps_the_length(
    kind: str, rate: int, samples: int, request: pytest.FixtureRequest
) -> None:
    model: Vocoder = request.getfixturevalue(kind)
    audio = model.vocode_audio(noise(samples), rate)
    assert abs(audio.size - samples * 22050 / rate) <= 0.5
    assert audio.dtype == np.float32
    assert np.isfinite(audio).all()


@pytest.mark.parametrize("kind", ["vocoder", "centred"])
def test_copy_synthesis_is_what_one_does_by_hand(kind: str, request: pytest.FixtureRequest) -> None:
    model: Vocoder = request.getfixturevalue(kind)
    audio = noise(30 * HOP)
    mel = model.mel_spec.mel(torch.from_numpy(audio)[None])
    assert mel.shape == (1, BANDS, 30 + (kind == "centred"))
    # As in training: frame i makes hop i, so a centred convention's last frame has no hop of its own.
    by_hand = model.generator(mel[..., :30])[0].numpy()
    np.testing.assert_allclose(model.vocode_audio(audio, 22050), by_hand, atol=1e-6)
    assert model(mel).shape == (1, mel.shape[-1] * HOP)


def test_a_last_hop_that_is_not_full_is_completed_with_silence(vocoder: Vocoder) -> None:
    audio = noise(10 * HOP + 100)
    completed = np.concatenate([audio, np.zeros(HOP - 100, np.float32)])
    whole = vocoder.vocode_audio(completed, 22050)
    assert np.array_equal(vocoder.vocode_audio(audio, 22050), whole[: audio.size])


def test_another_rate_is_resampled(vocoder: Vocoder) -> None:
    """A tone of 1 kHz at 44.1 kHz comes out as the model's version of 1 kHz at 22.05 kHz."""

    def tone(rate: int) -> np.ndarray:
        return (0.3 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)).astype(np.float32)

    inner = slice(2000, -2000)
    high, own = vocoder.vocode_audio(tone(44100), 44100), vocoder.vocode_audio(tone(22050), 22050)
    assert np.abs(high - own)[inner].max() < 1e-2 * np.abs(own).max()


@pytest.mark.parametrize(
    "audio, words",
    [
        (np.zeros((2, 100), np.float32), "(2, 100).*mean"),
        (np.zeros(0, np.float32), "T >= 1"),
        (np.zeros(100, np.int16), "int16"),
        (np.full(100, np.nan, np.float32), "NaN.*sample 0"),
        (np.array([0.0, np.inf]), "infinite.*sample 1"),
        (np.array([0.0, 1e300]), "infinite.*sample 1"),
    ],
)
def test_audio_that_is_none(vocoder: Vocoder, audio: np.ndarray, words: str) -> None:
    words = words.replace("(2, 100)", r"\(2, 100\)")
    with pytest.raises(ValueError, match=words):
        vocoder.vocode_audio(audio, 22050)
    before = noise(50)
    for rate in (22050, 16000):
        if audio.size:  # a block may hold none
            with pytest.raises(ValueError, match=words.replace("sample ", "sample 5")):
                list(vocoder.vocode_blocks([before, audio], rate))


def test_a_sample_of_a_high_rate_is_nothing(vocoder: Vocoder) -> None:
    with pytest.raises(ValueError, match="1 sample at 96000 Hz is none"):
        vocoder.vocode_audio(noise(1), 96000)
    with pytest.raises(ValueError, match="positive"):
        vocoder.vocode_audio(noise(100), 0)


def test_a_convention_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="mel: got dict, expected a preset's name or a MelSpec"):
        Vocoder.from_pretrained(folder, mel={"sample_rate": 22050})  # type: ignore[arg-type]


def test_it_says_what_it_is(vocoder: Vocoder) -> None:
    words = f"<Vocoder {vocoder._path}: {vocoder.mel_spec.in_words()}; backend auto, fp32, on cpu>"
    assert repr(vocoder) == words


@pytest.mark.parametrize(
    "mel, words",
    [
        (torch.zeros(1, 100, 9), "100 bands.*expected 80"),
        (torch.zeros(1, 9, 80), "transposed"),
        (torch.zeros(80), r"a frame alone is frame\[:, None\]"),
        (torch.zeros(1, 80, 0), "no frames"),
        (torch.full((80, 9), torch.nan), "NaN"),
        (np.array([[None] * 9] * 80), "object"),
        ([[0.0] * 9] * 80, "list"),
        (torch.zeros(80, 9, dtype=torch.complex64), "complex"),
    ],
)
def test_a_mel_that_is_none(vocoder: Vocoder, mel: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        vocoder(mel)  # type: ignore[arg-type]


def test_values_of_another_convention_are_warned_of(
    vocoder: Vocoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    speech = soundfile.read(write_corpus(tmp_path, files=1, seconds=2.0) / "clip00.wav", dtype="float32")[0]
    mel = vocoder.mel_spec.mel(torch.from_numpy(speech)[None])
    with caplog.at_level(logging.WARNING):
        vocoder(mel)
        assert caplog.text == ""
        vocoder(mel.exp(), warn=False)
        assert caplog.text == ""
        vocoder(mel.exp())
        assert "linear magnitudes" in caplog.text
        caplog.clear()
        vocoder(torch.nn.functional.pad(mel, (0, 9)))
        assert "the last 9 of" in caplog.text


@pytest.mark.parametrize("device", ["cuppa", "cuda:99", "meta"])
def test_a_device_that_is_not_here(folder: Path, device: str) -> None:
    with pytest.raises(ValueError, match=device.partition(":")[0]):
        Vocoder.from_pretrained(folder, device=device)


def test_files_of_every_kind_in_nested_folders(
    vocoder: Vocoder, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "ein Ordner, [é]"
    (top / "deep" / "er").mkdir(parents=True)
    (top / ".hidden").mkdir()
    mel = some_mel(11)
    np.save(top / "a.npy", mel[0].numpy())
    np.save(top / "deep" / "a.npy", mel.double().numpy())
    torch.save(mel[0], top / "b.pt")
    torch.save({"mel": mel.half().float()}, top / "deep" / "er" / "c.pt")
    save_file({"mel": mel[0].contiguous()}, top / "d.safetensors")
    soundfile.write(top / "e.FLAC", noise(5000), 22050, format="FLAC")
    stereo = np.stack([noise(5000), noise(5000, 1)], axis=1)
    soundfile.write(top / "deep" / "f.ogg", stereo, 44100)
    (top / "notes.txt").write_text("not a sound")
    (top / ".hidden" / "g.npy").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["vocode", str(top), "-o", str(out), "--model", str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    names = ["a.wav", "b.wav", "d.wav", "deep/a.wav", "deep/er/c.wav", "deep/f.wav", "e.wav"]
    assert sorted(printed) == sorted(str(out / name) for name in names)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == sorted(names)
    expected = np.clip(vocoder(mel)[0].numpy(), -1, 1)
    for name in ("a.wav", "b.wav", "d.wav", "deep/a.wav"):
        sound, rate = soundfile.read(out / name, dtype="float32")
        assert rate == 22050
        np.testing.assert_allclose(sound, expected, atol=0.6 / 32768)
    mixed = vocoder.vocode_audio(
        soundfile.read(top / "deep" / "f.ogg", dtype="float32")[0].mean(axis=1), 44100
    )
    sound = soundfile.read(out / "deep" / "f.wav", dtype="float32")[0]
    np.testing.assert_allclose(sound, np.clip(mixed, -1, 1), atol=1e-4)


def test_one_file_to_one_file(vocoder: Vocoder, folder: Path, tmp_path: Path) -> None:
    clip = write_corpus(tmp_path / "in", files=1) / "clip00.wav"
    model = ["--model", str(folder)]
    places = {
        "new/sub/out.flac": "new/sub/out.flac",  # a file by its suffix, in a folder that isn't there yet
        "folder": "folder/clip00.wav",
    }
    for given, written in places.items():
        assert main(["vocode", str(clip), "-o", str(tmp_path / given), *model]) == 0
        assert (tmp_path / written).is_file()
    (tmp_path / "odd.wav").mkdir()
    assert main(["vocode", str(clip), "-o", str(tmp_path / "odd.wav"), *model]) == 0
    assert (tmp_path / "odd.wav" / "clip00.wav").is_file()
    a = soundfile.read(tmp_path / "new/sub/out.flac", dtype="int16")[0]
    b = soundfile.read(tmp_path / "folder" / "clip00.wav", dtype="int16")[0]
    assert np.array_equal(a, b)
    recording = soundfile.read(clip, dtype="float32")[0]
    by_hand = vocoder.vocode_audio(recording, 22050)
    np.testing.assert_allclose(a / 32768, np.clip(by_hand, -1, 1), atol=0.6 / 32768)
    # What is there already is replaced, once it is whole.
    assert main(["vocode", str(clip), "-o", str(tmp_path / "new/sub/out.flac"), *model]) == 0
    assert [path.name for path in (tmp_path / "new/sub").iterdir()] == ["out.flac"]


def test_what_passes_full_scale_can_be_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "in", files=2)
    loud = np.linspace(-1.6, 1.6, 4096, dtype=np.float32)
    monkeypatch.setattr(Vocoder, "vocode_blocks", lambda *_: iter([loud]))
    for bits, subtype, kept in ((16, "PCM_16", 1.0), (24, "PCM_24", 1.0), (32, "FLOAT", 1.6)):
        out = tmp_path / str(bits)
        words = ["--bits", str(bits)] if bits != 16 else []
        assert main(["vocode", str(corpus), "-o", str(out), "--model", str(folder), *words]) == 0
        assert capsys.readouterr().err.count("--bits 32") == (bits != 32)  # once for both files
        assert soundfile.info(out / "clip00.wav").subtype == subtype
        sound = soundfile.read(out / "clip00.wav", dtype="float32")[0]
        np.testing.assert_allclose(sound, loud.clip(-kept, kept), rtol=0, atol=1.01 / 32768)


@pytest.mark.parametrize("bits, name", [(32, "out.flac"), (24, "out.ogg"), (16, "out.mp3")])
def test_bits_that_a_format_has_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: int, name: str
) -> None:
    clip = write_corpus(tmp_path / "in", files=1) / "clip00.wav"
    words = ["--model", str(folder), "--bits", str(bits)]
    assert main(["vocode", str(clip), "-o", str(tmp_path / name), *words]) == 2
    said = capsys.readouterr().err
    assert all(words in said for words in (f"--bits {bits}", Path(name).suffix, "Write .wav"))
    assert not (tmp_path / name).exists()


def test_an_input_given_twice_is_vocoded_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(write_corpus(tmp_path / "in", files=1) / "clip00.wav")
    assert main(["vocode", clip, clip, "-o", str(tmp_path / "out"), "--model", str(folder)]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_quiet_prints_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "in", files=2)
    assert main(["vocode", "-q", str(corpus), "-o", str(tmp_path / "out"), "--model", str(folder)]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_demo_writes_what_it_names(
    vocoder: Vocoder, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_corpus(tmp_path / "in", files=1, seconds=1.0) / "clip00.wav"
    out = tmp_path / "listen [1]"
    out.mkdir()
    (out / "other.txt").touch()
    assert main(["demo", "--input", str(clip), "-o", str(out), "--model", str(folder)]) == 0
    said = capsys.readouterr().out
    written = ["gansound.wav", "griffin-lim.wav", "ground-truth.wav", "spectrograms.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*written, "other.txt"])
    assert all(str(out / name) in said for name in written)
    assert "other.txt" not in said
    sounds = {name: soundfile.read(out / name, dtype="float32")[0] for name in written[:3]}
    recording = soundfile.read(clip, dtype="float32")[0]
    np.testing.assert_allclose(sounds["ground-truth.wav"], recording, atol=0.6 / 32768)
    by_hand = np.clip(vocoder.vocode_audio(recording, 22050), -1, 1)
    np.testing.assert_allclose(sounds["gansound.wav"], by_hand, atol=0.6 / 32768)
    assert (out / "spectrograms.png").read_bytes().startswith(b"\x89PNG")


def test_every_command_that_takes_a_model_takes_the_packages_that_it_may_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (module, _) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        inner = [a.choices.values() for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for one in (parser, *itertools.chain(*inner)):
            said = one.format_help()
            assert ("--model MODEL" not in said) or ("--allow PACKAGE" in said), name

    def refused(*_: object, allow: object, **__: object) -> None:
        raise ValueError(f"asked for {allow}")

    monkeypatch.setattr(Vocoder, "from_pretrained", refused)
    assert main(["demo", "--model", str(folder), "--allow", "mine", "-o", str(tmp_path / "out")]) == 1
    assert "asked for ['mine']" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_callers_default_dtype_and_autocast_change_nothing(dtype: torch.dtype) -> None:
    vocoder = Vocoder.from_pretrained("default", device="cpu", backend="eager")
    mel = vocoder.mel_spec.mel(torch.randn(1, 40 * 256, generator=torch.Generator().manual_seed(0)) / 10)

    def made() -> list[torch.Tensor]:
        with vocoder.stream() as stream:
            streamed = np.concatenate([stream.push(mel[0].numpy()), stream.flush()])
        ragged = vocoder(torch.cat([mel, mel]), lengths=[40, 30])
        return [vocoder(mel), ragged, torch.from_numpy(streamed)]

    expected = made()
    try:
        torch.set_default_dtype(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            found = made()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
