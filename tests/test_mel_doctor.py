"""`gansound mel`: the convention and the offset found from sound and values, and exact conversions alone."""

import dataclasses
import json
import re

import numpy as np
import pytest
import soundfile
import torch

from gansound.audio import resample
from gansound.cli import main
from gansound.generators.freev import FreeVGenerator
from gansound.mel import MelSpec, presets
from gansound.mel.doctor import ALIKE, alike, conventions, distance, fitting, matches, nearest
from gansound.mel.statistics import read_statistics
from gansound.model_folder import save_model_folder
from tests.test_converted import save_melgan
from tests.test_mel_suspicions import latent, speech_like
from tests.tiny import save_tiny_model

HIFIGAN = MelSpec.preset("hifigan")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def sound(rate: int, seed: int = 0):
    """As one recording at one rate, resampled where another is asked for."""
    audio = speech_like(rate, seed)
    return audio, lambda wanted: torch.from_numpy(resample(audio, rate, wanted))


# Each by its own frames, and by those of one of the other offsets.
@pytest.mark.parametrize(
    "name, shift",
    [(name, shift) for number, name in enumerate(presets()) for shift in (0, (3, -5, -20)[number % 3])],
)
def test_beside_its_sound_every_preset_is_found_with_its_offset(name, shift):
    spec = MelSpec.preset(name)
    audio, at_rate = sound(spec.sample_rate, abs(shift))
    mel = spec.mel(torch.from_numpy(audio))[0]
    mel = mel[:, shift:] if shift > 0 else torch.nn.functional.pad(mel, (-shift, 0), value=float(mel.min()))
    best, *others = matches(mel, at_rate)
    assert name in best.names
    assert best.offset_frames == shift
    assert best.distance < (1e-3 if shift >= 0 else 0.2)
    assert all(other.distance > best.distance for other in others)


def test_a_mel_that_may_begin_further_off_is_in_no_preset():
    audio, at_rate = sound(22050)
    mel = HIFIGAN.mel(torch.from_numpy(audio))[0]
    for lead, found in ((199, True), (200, False)):
        best = matches(torch.cat([mel[:, :1].expand(-1, lead), mel], 1), at_rate)[0]
        assert (best.distance < ALIKE) is found


def test_an_offset_just_beyond_the_nearest_is_not_taken_for_the_last_of_those():
    """Slow speech is alike a frame beside."""
    slow = speech_like(66150, 0)
    mel = HIFIGAN.mel(torch.from_numpy(slow))[0]
    lead = torch.cat([mel[:, :1].expand(-1, 17), mel], 1)
    assert distance(lead, mel, -16) < ALIKE
    found = matches(lead, lambda wanted: torch.from_numpy(resample(slow, 22050, wanted)))
    assert found[0].offset_frames == -17


@pytest.mark.parametrize("beyond, offset", [(0.9, 0), (0.5, 120)])
def test_an_offset_far_off_must_be_much_nearer_than_one_of_a_few_frames(beyond, offset):
    given = torch.randn(80, 100, generator=torch.Generator().manual_seed(0)).double()
    made = torch.cat([given + 1.0, torch.zeros(80, 20).double(), given + beyond], 1)
    assert nearest(given, made) == (pytest.approx(beyond if offset else 1.0), offset)


def test_two_silences_are_no_offset():
    """Where only they are in both; the one is the end of a recording, the other the beginning of another's mel."""
    mel = HIFIGAN.mel(torch.from_numpy(speech_like(22050, 1)))[0]
    still = HIFIGAN.mel(torch.zeros(1, 256 * 30))[0]
    audio, _ = sound(22050, 4)
    audio = np.concatenate([audio, np.zeros(256 * 40, np.float32)])
    found = matches(
        torch.cat([still, mel], 1), lambda wanted: torch.from_numpy(resample(audio, 22050, wanted))
    )
    assert found[0].distance > ALIKE


def test_conventions_that_a_blurred_mel_can_not_tell_apart_are_named_together(model, tmp_path, capsys):
    """A symmetric window and a periodic one."""
    spec = MelSpec.preset("nemo")
    audio, at_rate = sound(22050)
    mel = spec.mel(torch.from_numpy(audio))
    blurred = torch.nn.functional.avg_pool2d(mel[:, None], 3, 1, 1, count_include_pad=False)[0, 0]
    found = alike(matches(blurred, at_rate))
    assert {"nemo", "tacotron2"} == {name for match in found for name in match.names}
    assert [match.names for match in alike(matches(mel[0], at_rate))] == [("nemo",)]
    np.save(tmp_path / "one.npy", blurred.numpy())
    soundfile.write(tmp_path / "one.wav", audio, 22050, subtype="FLOAT")
    assert main(["mel", str(tmp_path / "one.npy"), "--model", model]) == 0
    said = capsys.readouterr().out
    assert "tacotron2 or nemo" in said or "nemo or tacotron2" in said


def test_values_alone_promise_nothing(model, tmp_path, capsys):
    """They fit Tacotron 2's as well, which lies half a hop beside."""
    audio, _ = sound(22050)
    np.save(tmp_path / "one.npy", HIFIGAN.mel(torch.from_numpy(audio))[0])
    assert main(["mel", str(tmp_path / "one.npy"), "--model", model]) == 0
    said = capsys.readouterr().out
    assert "may be hifigan" in said
    assert "if it is the model's" in said
    soundfile.write(tmp_path / "one.wav", audio, 22050, subtype="FLOAT")
    assert main(["mel", str(tmp_path / "one.npy"), "--model", model]) == 0
    assert "it is the model's convention: nothing to convert" in capsys.readouterr().out


def test_a_mel_of_other_bands_than_it_is_said_to_have_is_refused(model, tmp_path, capsys):
    np.save(tmp_path / "one.npy", MelSpec.preset("vocos_24khz").mel(torch.from_numpy(sound(24000)[0]))[0])
    told = ["mel", str(tmp_path / "one.npy"), "--model", model, "--mel", "hifigan"]
    assert main(told) == 1
    said = capsys.readouterr()
    assert "has 100 bands x" in said.err
    assert "expected the 80 bands of --mel" in said.err
    assert "nothing to convert" not in said.out


def test_another_sound_is_not_its_own():
    mel = HIFIGAN.mel(torch.from_numpy(speech_like(22050, 0)))[0]
    _, other = sound(22050, 3)
    assert matches(mel, other)[0].distance > ALIKE


def test_one_convention_of_two_names_is_one():
    assert ("hifigan", "bigvgan_22khz") in conventions(80).values()


def test_values_alone_leave_open_what_they_do_not_show():
    audio = torch.from_numpy(speech_like(22050, 1))
    names = {name for found in fitting(HIFIGAN.mel(audio)[0]).values() for name in found}
    assert {"hifigan", "tacotron2", "nemo"} <= names
    assert not names & {"melgan_neurips", "parallel_wavegan", "seungwonpark_melgan"}


@pytest.mark.parametrize("name", presets())
def test_its_own_convention_is_never_ruled_out_by_values(name):
    spec = MelSpec.preset(name)
    for seed in range(3):
        assert spec in fitting(spec.mel(torch.from_numpy(speech_like(spec.sample_rate, seed)))[0])


def test_an_unusual_sound_is_not_given_to_a_project_that_never_makes_such_values():
    """A scream varies as little as StyleTTS 2's scale would have it, but reaches below all that StyleTTS 2 writes."""
    coqui = MelSpec.preset("coqui")
    for seed in (1, 3):
        mel = coqui.mel(torch.from_numpy(speech_like(22050, seed)))[0]
        scream = mel.max() + 0.7 * (mel - mel.max())
        assert scream.min() < (np.log(1e-5) + 4) / 4 - 0.1
        assert coqui in fitting(scream)


def test_no_preset_is_named_for_what_is_in_none(shared):
    for name in ("ta_power1", "styletts", "zscore", "ta_default_log1e-5"):
        assert fitting(torch.from_numpy(np.load(shared / "cases" / "mels" / f"{name}.npy"))) == {}


def test_sound_beside_the_mel_decides(model, tmp_path, capsys):
    audio, _ = sound(22050)
    spec = MelSpec.preset("tacotron2")
    np.save(tmp_path / "one.npy", spec.mel(torch.from_numpy(audio))[0].T.numpy())  # frames x bands
    soundfile.write(tmp_path / "one.wav", audio, 22050, subtype="FLOAT")
    assert main(["mel", str(tmp_path / "one.npy"), "--model", model]) == 0
    said = capsys.readouterr().out
    assert "turned round here; vocode takes bands x frames" in said
    assert "one.wav in tacotron2, offset +0 frames" in said
    assert "can't be converted exactly: framing center → same" in said
    assert main(["mel", str(tmp_path / "one.npy")]) == 0  # the shipped model
    said = capsys.readouterr().out
    assert "takes it as it is, told by --mel" in said
    assert "can't be converted" not in said


@pytest.fixture
def beside(tmp_path):
    """A mel of Tacotron 2's less a corpus's mean over its deviation, its statistics and its recording."""
    audio, _ = sound(22050)
    mel = MelSpec.preset("tacotron2").mel(torch.from_numpy(audio))[0].numpy()
    mean, scale = mel.mean(1), mel.std(1)
    np.save(tmp_path / "stats.npy", np.stack([mean, scale]))
    np.save(tmp_path / "plain.npy", mel)
    np.save(tmp_path / "normalised.npy", (mel - mean[:, None]) / scale[:, None])
    np.save(tmp_path / "power.npy", 2 * HIFIGAN.mel(torch.from_numpy(audio))[0].numpy())
    soundfile.write(tmp_path / "one.wav", audio, 22050, subtype="FLOAT")
    return tmp_path


def test_what_is_said_is_held_against_the_recording(beside, model, capsys):
    recording = ["--audio", str(beside / "one.wav"), "--model", model]
    told = ["--mel", "tacotron2", "--stats", str(beside / "stats.npy")]
    assert main(["mel", str(beside / "normalised.npy"), *recording, *told]) == 0
    assert "in that of --mel, offset +0 frames (0.0000 apart" in capsys.readouterr().out
    theirs = dataclasses.replace(HIFIGAN, log="log10", hop_length=300, win_length=900)
    (beside / "theirs.json").write_text(json.dumps(theirs.to_dict()))
    np.save(beside / "theirs.npy", theirs.mel(torch.from_numpy(sound(22050)[0]))[0])
    assert main(["mel", str(beside / "theirs.npy"), *recording, "--mel", str(beside / "theirs.json")]) == 0
    assert "in that of --mel, offset +0 frames (0.0000 apart" in capsys.readouterr().out
    assert (
        main(["mel", str(beside / "plain.npy"), *recording, "--mel", "nemo"]) == 0
    )  # nobody tells them apart
    assert "in nemo, offset +0 frames" in capsys.readouterr().out
    plain = torch.from_numpy(np.load(beside / "plain.npy"))[None]
    blurred = torch.nn.functional.avg_pool2d(plain, 3, 1, 1, count_include_pad=False)[0]
    np.save(beside / "blurred.npy", blurred.numpy())
    for told in ("nemo", "tacotron2"):
        assert main(["mel", str(beside / "blurred.npy"), *recording, "--mel", told]) == 0
        assert f"is most like the mel of {beside / 'one.wav'} in {told} or " in capsys.readouterr().out


@pytest.mark.parametrize(
    "mel, said, what",
    [
        ("normalised", "tacotron2", "Give all of its convention (fields in a JSON file, --stats)"),
        ("plain", "parallel_wavegan", "Say --mel tacotron2"),
        ("plain", "hifigan", "Say --mel tacotron2"),
        ("plain", "vocos_24khz", "Say --mel tacotron2"),
    ],
)
def test_what_a_recording_refutes_is_not_written(beside, tmp_path, capsys, mel, said, what):
    centred = str(save_melgan(tmp_path / "model", MelSpec.preset("tacotron2")))
    command = ["mel", str(beside / f"{mel}.npy"), "--audio", str(beside / "one.wav"), "--model", centred]
    assert main([*command, "--mel", said, "-o", str(beside / "out")]) == 1
    told = capsys.readouterr().err
    assert "nothing is written: in the convention of --mel it isn't the mel of" in told
    assert what in told
    assert not (beside / "out").exists()
    assert main([*command, "--mel", said]) == 1


def test_where_no_preset_matches_a_recording_the_values_tell(beside, model, capsys):
    assert main(["mel", str(beside / "power.npy"), "--audio", str(beside / "one.wav"), "--model", model]) == 0
    said = capsys.readouterr().out
    assert "in no preset, nor the model's own, is this the mel of" in said
    assert "by its values alone it may be natural logarithms (ln) of power" in said
    assert "a recording beside it" not in said
    assert "make it anew with power=1" in said
    assert main(["mel", str(beside / "plain.npy"), "--model", model]) == 0
    assert "power=1" not in capsys.readouterr().out


def test_bands_that_lie_upside_down_are_told_beside_a_recording(beside, model, capsys):
    np.save(beside / "turned.npy", np.load(beside / "plain.npy")[::-1])
    command = ["mel", str(beside / "turned.npy"), "--audio", str(beside / "one.wav"), "--model", model]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "its bands lie upside down" in told
    assert "one.wav in tacotron2" in told


def test_the_model_s_own_convention_is_found_beside_a_recording(beside, capsys):
    own = dataclasses.replace(HIFIGAN, mean=(-5.0,), scale=(5.0,), fmax=7000.0)
    generator = FreeVGenerator(own, channels=8, hidden_channels=16, blocks=1)
    config = {"class_path": "gansound.generators.freev.FreeVGenerator"}
    config["init_args"] = {"channels": 8, "hidden_channels": 16, "blocks": 1}
    folder = save_model_folder(beside / "own", generator, own, config=config)
    np.save(beside / "own.npy", own.mel(torch.from_numpy(sound(22050)[0]))[0])
    assert (
        main(["mel", str(beside / "own.npy"), "--audio", str(beside / "one.wav"), "--model", str(folder)])
        == 0
    )
    said = capsys.readouterr().out
    assert "one.wav in the model's own, offset +0" in said
    assert "nothing to convert" in said


def test_linear_magnitudes_are_given_to_no_logarithm(model, tmp_path, capsys):
    np.save(tmp_path / "one.npy", HIFIGAN.mel(torch.from_numpy(speech_like(22050, 2)))[0].exp())
    assert main(["mel", str(tmp_path / "one.npy"), "--model", model]) == 0
    assert "by its values alone it may be linear magnitudes\n" in capsys.readouterr().out


def test_an_exact_conversion_is_written(model, tmp_path, capsys):
    audio = torch.from_numpy(speech_like(22050, 2))
    theirs = dataclasses.replace(HIFIGAN, log="log10", mean=(-2.0,), scale=(0.7,))
    (tmp_path / "theirs.json").write_text(json.dumps(theirs.to_dict()))
    np.save(tmp_path / "one.npy", theirs.mel(audio)[0].numpy())
    said = ["--mel", str(tmp_path / "theirs.json"), "--model", model]
    assert main(["mel", str(tmp_path / "one.npy"), *said, "-o", str(tmp_path / "out")]) == 0
    assert "exactly (log: log10 here, ln there" in capsys.readouterr().out
    got = np.load(tmp_path / "out" / "one.npy")
    np.testing.assert_allclose(got, HIFIGAN.mel(audio)[0].numpy(), atol=1e-4)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.npy"]


def test_what_is_not_exact_or_not_known_is_not_written(model, tmp_path, capsys):
    np.save(tmp_path / "one.npy", HIFIGAN.mel(torch.from_numpy(speech_like(22050, 2)))[0].numpy())
    out = ["-o", str(tmp_path / "out"), "--model", model]
    assert main(["mel", str(tmp_path / "one.npy"), *out]) == 1
    assert "say its convention with --mel" in capsys.readouterr().err
    assert main(["mel", str(tmp_path / "one.npy"), *out, "--mel", "tacotron2"]) == 1
    assert "framing" in capsys.readouterr().err
    np.save(tmp_path / "bad.npy", np.full((80, 9), np.nan, np.float32))
    assert main(["mel", str(tmp_path / "bad.npy"), "--model", model]) == 1
    assert "720 of 720 values are NaN" in capsys.readouterr().err
    assert main(["mel", str(tmp_path / "none.npy"), "--model", model]) == 2
    assert main(["mel", str(tmp_path / "one.npy"), "-o", str(tmp_path), "--model", model]) == 2
    assert not (tmp_path / "out").exists()


def saved(path, mean, scale):
    """Statistics as a project saves them: ParallelWaveGAN, ESPnet, Matcha-TTS, a dict of tensors."""
    if path.suffix == ".h5":  # by its write_hdf5, in float32
        h5py = pytest.importorskip("h5py", reason="ParallelWaveGAN's stats.h5 needs h5py (pip install h5py)")
        with h5py.File(path, "w") as file:
            file.create_dataset("mean", data=mean.astype(np.float32))
            file.create_dataset("scale", data=scale.astype(np.float32))
    elif path.suffix == ".npz":
        count = 1000
        np.savez(path, count=count, sum=mean * count, sum_square=(scale**2 + mean**2) * count)
    elif path.suffix == ".npy":
        np.save(path, np.stack([mean, scale]))
    elif path.suffix == ".json":
        path.write_text(json.dumps({"mel_mean": float(mean[0]), "mel_std": float(scale[0])}))
    else:
        torch.save({"mean": torch.from_numpy(mean), "var": torch.from_numpy(scale**2)}, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz", ".json", ".pt"])
def test_statistics_of_a_corpus_are_given_and_undone(suffix, model, tmp_path, capsys):
    mel = HIFIGAN.mel(torch.from_numpy(speech_like(22050, 2)))[0].numpy()
    mean, scale = np.full(80, -5.5), np.full(80, 2.1)
    if suffix != ".json":
        mean, scale = mean + np.linspace(2, -2, 80), scale + np.linspace(0, 0.5, 80)
    stats = saved(tmp_path / f"stats{suffix}", mean, scale)
    np.save(tmp_path / "one.npy", ((mel - mean[:, None]) / scale[:, None]).astype(np.float32))
    command = ["mel", str(tmp_path / "one.npy"), "--model", model]
    assert main(command) == 0
    assert "mean and deviation of a corpus" in capsys.readouterr().out
    told = ["--mel", "hifigan", "--stats", stats]
    assert main([*command, *told, "-o", str(tmp_path / "out")]) == 0
    assert "in that convention: the values fit it" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(tmp_path / "out" / "one.npy"), mel, atol=1e-5)
    assert main([*command, "--stats", stats]) == 2
    assert "--mel hifigan" in capsys.readouterr().err
    vocode = ["vocode", str(tmp_path / "one.npy"), "-o", str(tmp_path / "one.wav"), "--model", model]
    assert main([*vocode, *told]) == 0
    assert capsys.readouterr().err == ""  # no suspicion


def test_an_hdf5_file_is_read_as_far_as_it_is_statistics(tmp_path):
    h5py = pytest.importorskip("h5py", reason="stats.h5 needs h5py (pip install h5py)")
    for name, content, words in [
        ("empty", {}, "got nothing"),
        ("half", {"mean": np.zeros(80)}, "got mean"),
        ("huge", {"mean": (1 << 40,), "scale": (1 << 40,)}, "would unpack to 17,592,186,044,416 bytes"),
        ("group", {"mean": {}, "scale": np.ones(80)}, "got scale"),
        ("zero", {"mean": np.zeros(80), "scale": np.zeros(80)}, "got 0 and 0 for band 0"),
    ]:
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for key, value in content.items():
                if isinstance(value, dict):
                    file.create_group(key)
                elif isinstance(value, tuple):
                    file.create_dataset(key, value, dtype="f8", chunks=(1024,))  # nothing of it is on disk
                else:
                    file.create_dataset(key, data=value)
        with pytest.raises(ValueError, match=re.escape(words)):
            read_statistics(tmp_path / f"{name}.h5")
    (tmp_path / "text.h5").write_text("mean 3\n")
    with pytest.raises(ValueError, match="can't be read as mean and scale"):
        read_statistics(tmp_path / "text.h5")


def test_what_are_no_statistics_is_refused(model, tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(tmp_path / "one.npy", HIFIGAN.mel(torch.from_numpy(speech_like(22050, 2)))[0].numpy())
    rows = np.stack([np.zeros(80), np.ones(80)])
    zeros = rows.copy()
    zeros[1, 7] = 0
    np.save(tmp_path / "zeros.npy", zeros)
    np.save(tmp_path / "three.npy", np.zeros((3, 80)))
    np.save(tmp_path / "short.npy", rows[:, :79])
    np.save(tmp_path / "pickled.npy", np.array({"mel_mean": Payload()}, dtype=object), allow_pickle=True)
    torch.save({"mean": Payload()}, tmp_path / "pickled.pt")
    (tmp_path / "other.json").write_text('{"mean": 3}')
    (tmp_path / "broken.npz").write_bytes(b"PK no zip")
    (tmp_path / "empty.npy").touch()
    for name, words in [
        ("zeros.npy", "got 0 and 0 for band 7"),
        ("three.npy", "got an array of shape (3, 80)"),
        ("short.npy", "got 79 numbers, expected 1 or n_mels = 80"),
        ("pickled.npy", "can't be read as mean and scale"),
        ("pickled.pt", "a pickle, which isn't run here"),
        ("other.json", "got mean"),
        ("broken.npz", "can't be read as mean and scale"),
        ("empty.npy", "is empty"),
        ("none.npy", "No such file"),
        ("one.npy", "got an array of shape (80,"),
    ]:
        command = ["mel", str(tmp_path / "one.npy"), "--mel", "hifigan", "--model", model]
        assert main([*command, "--stats", str(tmp_path / name)]) == 2, name
        assert words in capsys.readouterr().err, name
    assert not (tmp_path / "ran").exists()


def test_a_convention_that_is_named_is_held_against_the_values(model, tmp_path, capsys):
    np.save(tmp_path / "one.npy", HIFIGAN.mel(torch.from_numpy(speech_like(22050, 2)))[0].numpy())
    command = ["mel", str(tmp_path / "one.npy"), "--model", model, "--mel"]
    assert main([*command, "melgan_neurips"]) == 0
    assert "in that convention: these" in capsys.readouterr().out


def test_latents_are_given_to_no_preset(tmp_path, capsys):
    for channels in (100, 192):
        np.save(tmp_path / "z.npy", latent(channels, 0).numpy())
        assert main(["mel", str(tmp_path / "z.npy")]) == 0
        said = capsys.readouterr().out
        assert "latents" in said
        assert "may be" not in said


def test_what_a_preset_fits_may_be_normalised_all_the_same(tmp_path, capsys):
    """Coqui's decibels lie where any logarithm does that a corpus normalised."""
    mel = HIFIGAN.mel(torch.from_numpy(speech_like(22050, 2)))[0]
    np.save(tmp_path / "one.npy", ((mel + 5.5) / 2.1).numpy())
    assert main(["mel", str(tmp_path / "one.npy")]) == 0
    assert "logarithms normalised by the mean and deviation of a corpus" in capsys.readouterr().out


@pytest.mark.parametrize(
    "array, code, words",
    [
        (np.full((2, 80, 90), -5.0), 1, "holds 2 mels, expected one a file"),
        (np.zeros((80, 0)), 1, "which holds no frames"),
        (np.full((80, 63), -5.0), 0, "63 frames are too few to tell a convention"),
        (np.full((80, 1), -5.0), 0, "1 frame is too few to tell"),
        (np.full((1, 90, 80), -5.0), 0, "so save mel[0].T"),
        (np.full((90, 80), -5.0), 0, "so save mel.T"),
        (np.pad(np.full((80, 90), -5.0), ((0, 0), (0, 2))), 0, "the last 2 of 92 frames are 0"),
        (np.full((80, 90), -500, np.int16), 0, "whole numbers (int16)"),
        (np.zeros((513, 90)), 0, "no preset has 513 bands; a spectrum of n_fft 1024"),
        (np.array(3.0), 1, "got shape (), expected bands x frames"),
        (np.ones((80, 90), bool), 1, "got values of bool"),
        (np.full((80, 80), -5.0), 0, "which are the bands its shape doesn't tell"),
    ],
    ids=[
        "batch",
        "empty",
        "short",
        "shortest",
        "batch of one",
        "turned",
        "padded",
        "whole numbers",
        "spectrum",
        "number",
        "bool",
        "square",
    ],
)
def test_odd_mels_are_told_for_what_they_are(model, tmp_path, capsys, array, code, words):
    np.save(tmp_path / "one.npy", array)
    assert main(["mel", str(tmp_path / "one.npy"), "--model", model]) == code
    said = capsys.readouterr()
    assert words in said.out + said.err


def test_a_recording_is_no_mel(model, tmp_path, capsys):
    soundfile.write(tmp_path / "one.wav", np.zeros(100), 22050)
    assert main(["mel", str(tmp_path / "one.wav"), "--model", model]) == 1
    assert "expected a mel as .npy, .npz, .pt, .safetensors, got suffix '.wav'" in capsys.readouterr().err
