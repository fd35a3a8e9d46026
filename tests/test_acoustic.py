"""`samples/acoustic`: phones to mels in chunks, through the shipped vocoder; learning, and mels to fine-tune on."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gansound.data.manifest import read_manifest
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec

FOLDER = Path(__file__).resolve().parents[1] / "samples" / "acoustic"
SAID = "pau d oo b r ay j e uu t r a pau"  # good morning


@pytest.fixture(scope="module")
def script():
    """Its modules, which import each other as those of a folder of scripts do."""
    names = ("net", "corpus", "learn", "mels", "say")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield type("Scripts", (), {name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def model(script):
    return script.net.Acoustic.load(FOLDER / "ru.safetensors")


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder.from_pretrained("default", "cpu", backend="eager")


@pytest.fixture(scope="module")
def phones(script):
    return [script.net.PHONES.index(phone) for phone in SAID.split()]


@pytest.mark.parametrize("chunk_frames", [16, 50])
def test_chunks_are_the_whole(model, phones, chunk_frames):
    (whole,) = model.mels(phones, seed=3)
    chunks = list(model.mels(phones, chunk_frames, seed=3))
    assert {chunk.shape[1] for chunk in chunks[:-1]} == {chunk_frames}
    torch.testing.assert_close(torch.cat(chunks, 1), whole, rtol=0, atol=1e-4)  # of ln; speech spans 11
    (other,) = model.mels(phones, seed=4)
    assert (other - whole).abs().mean() > 0.01


def test_durations_and_pitches_may_be_given(model, phones):
    frames = torch.arange(5, 5 + len(phones))
    (mel,) = model.mels(phones, frames=frames, pitch=torch.zeros(len(phones)))
    assert mel.shape == (80, int(frames.sum()))
    (own,) = model.mels(phones)
    (slow,) = model.mels(phones, slower=2.0)
    assert slow.shape[1] == pytest.approx(2 * own.shape[1], abs=len(phones))


@pytest.mark.parametrize("octaves", [-0.3, 0.0, 0.3])
def test_the_sound_has_the_pitch_that_is_asked_for(model, script, vocoder, phones, octaves):
    frames = torch.tensor([20, 8, 8, 6, 4, 4, 5, 7, 12, 7, 6, 10, 20])
    (mel,) = model.mels(phones, frames=frames, pitch=torch.full((len(phones),), octaves))
    sound = vocoder(mel[None])[0].numpy()
    heard = script.corpus.phone_pitch(sound, vocoder.sample_rate, frames.cumsum(0))
    off = (heard[2:8] - octaves + 0.5) % 1 - 0.5  # what is tracked of a low voice is often an octave too high
    assert float(off.median()) == pytest.approx(0, abs=0.12)


def test_pauses_around_an_utterance_are_what_a_longer_one_is_padded_with(model, script, phones):
    alone = model.encode(torch.tensor([phones]))
    padded = model.encode(torch.tensor([phones + [script.net.PAUSE] * 30]))
    for one, other in zip(alone, padded, strict=True):
        torch.testing.assert_close(other[:, : len(phones)], one, rtol=0, atol=1e-4)


def test_the_stream_says_what_the_whole_mel_says(model, script, vocoder, phones):
    assert vocoder.mel_spec == script.corpus.SPEC
    mel = torch.cat(list(model.mels(phones, script.say.CHUNK_FRAMES)), 1)
    with vocoder.stream() as stream:
        pieces = list(script.say.spoken(model, stream, [phones], 1.0, 0))
    assert len(pieces) > 2
    sound = np.concatenate(pieces)
    np.testing.assert_allclose(sound, vocoder(mel[None])[0].numpy(), atol=1e-4)
    vowel = sound[: len(sound) // 2]
    assert 0.02 < np.sqrt((vowel**2).mean()) < 0.5


@pytest.mark.skipif(shutil.which("festival") is None, reason="needs festival and festvox-ru (Debian)")
def test_festival_has_the_phones(script):
    try:
        found = script.say.phones_of('Доброе утро! "Прядь вол+ос."')
    except ValueError as error:
        pytest.skip(str(error))
    said = [" ".join(script.net.PHONES[phone] for phone in sentence) for sentence in found]
    assert said[0].startswith("pau d oo b r ay j e uu t r a")
    assert "v a l oo s" in said[1]
    with pytest.raises(ValueError, match="no word in it"):
        script.say.phones_of("...")


def test_festival_is_named_where_it_is_missing(script, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get install festival"):
        script.say.phones_of("Да.")


def pulses(hz, seconds, rate=16000):
    """A voice of that pitch: pulses through two resonances."""
    import scipy.signal

    at = np.arange(round(seconds * rate)) * hz / rate
    sound = np.diff(np.floor(at), prepend=0.0)
    for middle in (500, 1500):
        pole = 0.97 * np.exp(2j * np.pi * middle / rate)
        sound = scipy.signal.lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], sound)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


@pytest.mark.parametrize("hz", [85.0, 120.0, 200.0])
def test_the_pitch_of_a_phone(script, hz):
    sound = np.concatenate([np.zeros(4800, np.float32), pulses(hz, 0.3), pulses(1.2 * hz, 0.3)])
    ends = (torch.tensor([0.3, 0.6, 0.9]) * 22050 / 256).round().long()
    octaves = script.corpus.phone_pitch(sound, 16000, ends)
    expected = np.log2([hz / 120, hz / 120, 1.2 * hz / 120])  # a pause has its neighbour's
    np.testing.assert_allclose(octaves.numpy(), expected, atol=0.03)


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """A folder as the package has it: sixteen short sentences to learn from, and one held out."""
    folder = tmp_path_factory.mktemp("voice")
    (folder / "wav").mkdir()
    (folder / "lab").mkdir()
    rng = np.random.default_rng(0)
    for number in range(50):
        seconds = 1.6 if number < 16 or number == 49 else 0.4  # those are too short to learn from
        said = np.concatenate([np.zeros(1600, np.float32), pulses(rng.uniform(90, 160), seconds - 0.1)])
        soundfile.write(folder / "wav" / f"ru_{number:04}.wav", said, 16000)
        lines = ["#", "0.10200 125 pau", f"{seconds / 2:.5f} 125 aa", f"{seconds - 0.04:.5f} 125 oo"]
        (folder / "lab" / f"ru_{number:04}.lab").write_text("\n".join(lines) + "\n")
    return folder


def test_labels_are_frames_of_the_mel(script, voice):
    one = next(script.corpus.utterances(voice))
    assert [script.net.PHONES[phone] for phone in one.phones] == ["pau", "aa", "oo"]
    assert one.frames.tolist() == [9, 60, 68]  # rounded(s * 22050 / 256); the last goes on to the end
    assert one.mel.shape == (80, 137)
    assert one.mel[:, 12:].mean() > one.mel[:, :7].mean() + 2
    (voice / "lab" / "bad").write_text("")
    longer = voice / "lab" / "ru_0000.lab"
    was = longer.read_text()
    longer.write_text(was.replace("0.80000", "0.05000"))
    try:
        with pytest.raises(ValueError, match="don't rise"):
            next(script.corpus.utterances(voice))
    finally:
        longer.write_text(was)


def test_it_learns_and_writes_mels_to_fine_tune_on(script, voice, tmp_path, monkeypatch, capsys):
    weights = tmp_path / "ru.safetensors"
    monkeypatch.setattr(sys, "argv", ["learn.py", str(voice), "-o", str(weights), "--steps", "3"])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    script.learn.main()
    assert "discriminator" in capsys.readouterr().out
    model = script.net.Acoustic.load(weights)
    one = next(script.corpus.utterances(voice))
    (mel,) = model.mels(one.phones, frames=one.frames, pitch=one.pitch)
    assert (mel - one.mel).abs().mean() < (one.mel - one.mel.mean()).abs().mean()  # the bands' means at least
    monkeypatch.setattr(
        sys, "argv", ["mels.py", str(voice), "-o", str(tmp_path / "pairs"), "--weights", str(weights)]
    )
    script.mels.main()
    records = read_manifest(tmp_path / "pairs" / "manifest.jsonl")
    assert [record.split for record in records].count("test") == 1
    np.testing.assert_allclose(np.load(records[0].mel), mel.numpy(), atol=1.0)
    assert np.load(records[0].mel).shape == mel.shape
    assert MelSpec.preset("hifigan") == script.corpus.SPEC
