"""A recording of any length is vocoded in pieces: the sound of the whole, and nothing of the whole's length held."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from gansound import audio, cli
from gansound.inference.backends import available, make_runner
from gansound.inference.backends.runner import Runner
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.mel.pieces import mel_pieces
from tests.test_backends import generator_of
from tests.test_streaming_models import mels
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.usefixtures("traced_once")
BACKENDS = [backend for backend, precision in available() if precision == "fp32" and backend != "compile"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def cut(array: Any, seed: int, pieces: int = 7) -> Iterator[Any]:
    """The last axis in pieces of any length, empty ones among them."""
    length = array.shape[-1]
    inner = np.random.default_rng(seed).integers(0, length + 1, pieces - 1).tolist()
    for a, b in itertools.pairwise(sorted([0, length, *inner])):
        yield array[..., a:b]


@pytest.mark.parametrize("framing", ["same", "center"])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_the_mel_of_pieces_is_that_of_the_whole(framing: Any, padding: Any) -> None:
    for hop in (200, 256):
        spec = replace(MelSpec.preset("hifigan"), framing=framing, padding=padding, hop_length=hop)
        for length in (1, 100, 256, 5000, 12_800, 40_001, 130_000):
            sound = torch.from_numpy(noise(length, seed=length))
            frames = -(-length // hop)
            whole = spec.mel(torch.nn.functional.pad(sound, (0, frames * hop - length))[None])[..., :frames]
            pieces = list(mel_pieces(spec, cut(sound, seed=length), frames=50))
            assert all(piece.shape[-1] == 50 for piece in pieces[:-1])
            assert pieces[-1].shape[-1] < 50 + 3 * (1024 // hop + 1)
            torch.testing.assert_close(torch.cat(pieces, -1), whole, rtol=0, atol=1e-6)
    assert list(mel_pieces(spec, [torch.zeros(0)])) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [1, 3, 8, 9, 16, 31, 32, 33, 100])
def test_a_mel_in_pieces_sounds_as_the_whole(backend: Any, frames: int, runners: dict[str, Runner]) -> None:
    runner = runners[backend]
    mel = mels(frames, torch.float32, batch=2)
    with torch.no_grad():
        whole = runner.generator(mel)
    pieces = list(runner.pieces(cut(mel, seed=frames)))
    torch.testing.assert_close(torch.cat(pieces, -1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(runner.synthesize(mel), whole, rtol=0, atol=1e-5)
    assert list(runner.pieces([])) == []
    next(runner.pieces([mel]))
    assert torch.is_grad_enabled()  # while the sound is taken, and not inference mode either
    assert not torch.is_inference_mode_enabled()
    if frames == 100:
        longest = 8 + runner.lookahead_frames  # what is left is never cut once more
        assert max(piece.shape[-1] for piece in pieces) <= longest * runner.hop_length


@pytest.fixture(scope="module")
def runners() -> dict[str, Runner]:
    made = {backend: make_runner(generator_of("melgan"), backend) for backend in BACKENDS}
    for runner in made.values():
        runner.offline_frames = 8
    return made


@pytest.mark.parametrize("rate", [22050, 16000, 48000])
def test_a_recording_in_pieces_sounds_as_the_whole(folder: Path, rate: int, monkeypatch: Any) -> None:
    vocoder = Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    sound = noise(3 * rate + 17)
    whole = vocoder.vocode_audio(sound, rate)
    assert len(whole) == audio.resampled_frames(len(sound), rate, 22050)
    monkeypatch.setattr("gansound.inference.vocoder.mel_pieces", partial(mel_pieces, frames=32))
    vocoder.runner("whole").offline_frames = 8
    pieces = list(vocoder.vocode_blocks(cut(sound, seed=rate, pieces=40), rate))
    assert len(pieces) > 20
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-5)


def test_one_mel_in_pieces(folder: Path, monkeypatch: Any) -> None:
    vocoder = Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    mel = (np.random.default_rng(0).standard_normal((80, 300)) - 3).astype(np.float32)
    whole = vocoder(mel)[0].numpy()
    vocoder.runner("whole").offline_frames = 8
    monkeypatch.setattr("gansound.inference.vocoder.PIECE_FRAMES", 50)
    monkeypatch.setattr("gansound.inference.vocoder.JUDGED_FRAMES", 70)
    judged: list[int] = []
    monkeypatch.setattr(MelSpec, "suspicions", lambda spec, mel: judged.append(mel.shape[-1]) or [])
    pieces = list(vocoder.pieces(mel))
    assert judged == [70]  # which takes several times the memory of what is judged
    assert max(map(len, pieces)) <= (8 + vocoder.runner("whole").lookahead_frames) * 256
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="holds 2 mels"):
        next(vocoder.pieces(np.stack([mel, mel])))


@pytest.mark.parametrize("name", ["speech.wav", "speech.flac", "speech.ogg"])
def test_vocode_holds_nothing_of_the_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What is read, what a mel is made of, what the net is given and what is written: each is a piece."""
    seconds, rate = 20, 16000
    audio.write(tmp_path / name, noise(seconds * rate), rate)
    vocoder = Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    whole = vocoder.vocode_audio(*audio.read(tmp_path / name))
    sizes: dict[str, list[int]] = {"read": [], "mel": [], "net": [], "written": []}

    def noted(kind: str, function: Any, size: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            sizes[kind].append(size(*args))
            return function(*args, **kwargs)

        return call

    def no_reading(*_: object, **__: object) -> None:
        raise AssertionError("the whole is read at once")

    blocks = audio.blocks

    def small(path: Path, **given: Any) -> Iterable[np.ndarray]:
        for block in blocks(path, **{"block_samples": 4096} | given):
            sizes["read"].append(len(block))
            yield block

    monkeypatch.setattr(audio, "read", no_reading)
    monkeypatch.setattr(audio, "blocks", small)
    monkeypatch.setattr(MelSpec, "mel", noted("mel", MelSpec.mel, lambda spec, sound: sound.shape[-1]))
    monkeypatch.setattr("gansound.inference.vocoder.mel_pieces", partial(mel_pieces, frames=64))
    from gansound.inference.backends.eager import EagerRunner

    monkeypatch.setattr(EagerRunner, "offline_frames", 16)
    monkeypatch.setattr(
        EagerRunner, "_whole", noted("net", EagerRunner._whole, lambda self, mel, *_: mel.shape[-1])
    )
    append = noted("written", audio.Writer.append, lambda self, sound: len(sound))
    monkeypatch.setattr(audio.Writer, "append", append)
    line = ["vocode", str(tmp_path / name), "-o", str(tmp_path / "out.wav"), "--model", str(folder)]
    assert cli.main([*line, "--backend", "eager"]) == 0
    assert all(len(kind) > 10 for kind in sizes.values())
    assert max(sizes["read"]) <= 4096
    assert max(sizes["mel"]) <= (64 + 3 * 4) * 256 + 4096 * 22050 // rate
    field = vocoder.generator.receptive_field
    assert max(sizes["net"]) <= 16 + field.lookback_inputs + field.lookahead_inputs
    assert max(sizes["written"]) <= (16 + field.lookahead_inputs) * 256
    found, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert len(found) == len(whole) == seconds * 22050
    np.testing.assert_allclose(found, whole.clip(-1, 1), rtol=0, atol=1 / 32768)


def test_channels_that_cancel_are_not_vocoded_to_silence(folder: Path, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    sound = noise(22050)
    audio.write(tmp_path / "out_of_phase.wav", np.stack([sound, -sound]), 22050)
    vocoder = Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    from gansound.cli.vocode import opened, synthesise

    source = tmp_path / "out_of_phase.wav"
    synthesise(vocoder, source, opened(source), tmp_path / "out.wav")
    found, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    one = max(
        (vocoder.vocode_audio(sign * sound, 22050) for sign in (1, -1)),
        key=lambda o: -np.abs(o - found).max(),
    )
    np.testing.assert_allclose(found, one.clip(-1, 1), rtol=0, atol=1e-3)
    assert np.abs(found).max() > 0.01
    assert "cancel" in caplog.text


def test_of_a_long_mel_the_beginning_is_judged(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from gansound.cli import vocode as command

    judged = []
    monkeypatch.setattr(command, "JUDGED_FRAMES", 20)
    monkeypatch.setattr(MelSpec, "suspicions", lambda self, mel: judged.append(mel.shape[-1]) or [])
    np.save(tmp_path / "a.npy", np.full((80, 50), -3.0, np.float32))
    vocoder = Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    source = tmp_path / "a.npy"
    command.synthesise(vocoder, source, command.opened(source), tmp_path / "a.wav")
    assert judged == [20]
