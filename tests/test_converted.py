"""A vocoder told another convention that differs by a formula: the same sound, whole, streamed and exported."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

import gansound
from gansound.cli import main
from gansound.generators.melgan import MelGANGenerator
from gansound.mel import MelSpec, presets
from gansound.mel.conversion import conversion
from gansound.model_folder import save_model_folder
from tests.test_mel_suspicions import speech_like
from tests.tiny import save_tiny_model

RATES = {256: (8, 8, 4), 300: (10, 10, 3), 480: (10, 8, 6), 512: (8, 8, 8)}
STATS = {"mean": tuple(np.linspace(-4, -2, 80).tolist()), "scale": tuple(np.linspace(0.5, 2, 80).tolist())}


def save_melgan(folder, spec: MelSpec):
    sizes = {"n_mels": spec.n_mels, "channels": 8, "upsample_rates": list(RATES[spec.hop_length])}
    torch.manual_seed(1)
    generator = MelGANGenerator(**sizes | {"upsample_rates": RATES[spec.hop_length]})
    for name, parameter in generator.named_parameters():
        if name.endswith("original0"):  # of weight norm: an untrained net hardly hears its mel
            parameter.data *= 1.6
    config = {"class_path": "gansound.generators.melgan.MelGANGenerator", "init_args": sizes}
    return save_model_folder(folder, generator, spec, config=config)


def is_exact(source: MelSpec, target: MelSpec) -> bool:
    try:
        conversion(source, target)
    except ValueError:
        return False
    return True


PAIRS = [
    (a, b)
    for a, b in itertools.permutations(presets(), 2)
    if MelSpec.preset(a) != MelSpec.preset(b) and is_exact(MelSpec.preset(a), MelSpec.preset(b))
]


def heard(folder, own: MelSpec, other: MelSpec) -> float:
    """Difference between what a model makes of a sound's own mel and of the other convention's, as it plays both."""
    audio = torch.from_numpy(speech_like(own.sample_rate, 0, seconds=0.3))[None]
    vocoder = gansound.Vocoder.from_pretrained(folder, backend="eager")
    told = gansound.Vocoder.from_pretrained(folder, mel=other, backend="eager")
    assert told.mel_spec == other
    expected, mel = vocoder(own.mel(audio)), other.mel(audio)
    assert (vocoder(mel, warn=False) - expected).abs().max() > 5e-4  # it matters
    with told.stream() as stream:
        streamed = np.concatenate(
            [*(stream.push(part[0].numpy()) for part in mel.split(7, -1)), stream.flush()]
        )
    assert np.abs(streamed - told(mel)[0].numpy()).max() < 1e-5
    return float((told(mel) - expected).abs().max())


def test_which_presets_become_each_other():
    assert set(PAIRS) == {("tacotron2", "seungwonpark_melgan"), ("seungwonpark_melgan", "tacotron2")}


@pytest.mark.parametrize("other, own", PAIRS)
def test_presets_that_differ_by_a_formula_sound_the_same(other, own, tmp_path):
    own, other = MelSpec.preset(own), MelSpec.preset(other)
    assert heard(save_melgan(tmp_path / "m", own), own, other) < 1e-5


@pytest.mark.parametrize("name", dict.fromkeys(presets()))
def test_every_preset_takes_other_logarithms_and_statistics(name, tmp_path):
    own = MelSpec.preset(name)
    folder = save_melgan(tmp_path / "m", own)
    plain = {"mean": (0.0,), "scale": (1.0,), "clip": None}
    changes = (
        {"log": "ln" if own.log != "ln" else "log10", "floor": own.floor / 10, **plain},
        {"log": "db", "mean": (-40.0,), "scale": (20.0,), "clip": None},
    )
    for change in changes:
        assert heard(folder, own, dataclasses.replace(own, **change)) < 1e-5


def test_statistics_of_each_band_and_a_frame_rate_net(tmp_path):
    own = MelSpec.preset("hifigan")
    folder = save_tiny_model(tmp_path / "m")
    assert heard(folder, own, dataclasses.replace(own, log="log10", floor=1e-10, **STATS)) < 1e-5


def test_what_is_saved_is_the_model_as_it_was(tmp_path):
    folder = save_melgan(tmp_path / "m", MelSpec.preset("tacotron2"))
    told = gansound.Vocoder.from_pretrained(folder, mel="seungwonpark_melgan")
    told.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_what_differs_by_more_is_refused_with_the_ways_out(tmp_path):
    folder = save_melgan(tmp_path / "m", MelSpec.preset("hifigan"))
    with pytest.raises(ValueError, match=r"fmin 80.0 → 0") as error:
        gansound.Vocoder.from_pretrained(folder, mel="parallel_wavegan")
    for words in ("fmax 7600.0 → 8000", "framing center → same", "universal vocoder", "gansound mel"):
        assert words in str(error.value)
    lower = dataclasses.replace(MelSpec.preset("hifigan"), floor=1e-3)
    with pytest.raises(ValueError, match="only raising a floor is exact"):
        gansound.Vocoder.from_pretrained(folder, mel=lower)


@pytest.mark.parametrize("name", ["tacotron2", "nemo"])
def test_what_nobody_hears_is_said_to_be_so(tmp_path, name):
    """Of 30 recordings such mels untold had the PESQ of told ones to 0.001 (`default`, which takes both)."""
    folder = save_melgan(tmp_path / "m", MelSpec.preset("hifigan"))
    with pytest.raises(
        ValueError, match=r"framing center → same.*leave the convention out \(mel=None, no --mel\)"
    ):
        gansound.Vocoder.from_pretrained(folder, mel=name)


def test_what_nobody_hears_beside_what_converts_is_said_and_goes(tmp_path):
    """MelGAN's own is centred and (ln + 5) / 5 there: the fields to say are named, and the rest converts."""
    other = MelSpec.preset("hifigan")
    own = dataclasses.replace(other, framing="center", magnitude_eps=0.0, mean=(-5.0,), scale=(5.0,))
    folder = save_melgan(tmp_path / "m", own)
    with pytest.raises(ValueError, match=r"nobody hears: say .*\(mel, framing=.center., magnitude_eps=0.0\)"):
        gansound.Vocoder.from_pretrained(folder, mel="hifigan")
    said = dataclasses.replace(other, framing="center", magnitude_eps=0.0)
    assert gansound.Vocoder.from_pretrained(folder, mel=said).mel_spec == said


def test_a_floor_that_nothing_reaches_is_no_difference():
    """With an epsilon of 1e-6 in each bin no band falls to 1e-5, nor to 1e-7."""
    own = MelSpec.preset("amphion_24khz")
    higher, lower = (dataclasses.replace(own, floor=floor) for floor in (1e-5, 1e-7))
    audio = torch.cat([torch.zeros(4096), torch.from_numpy(speech_like(24000, 3, -120.0))])[None]
    torch.testing.assert_close(higher.convert(higher.mel(audio), lower), lower.mel(audio))
    assert not is_exact(dataclasses.replace(own, floor=1e-3), lower)


@pytest.mark.slow
def test_it_exports_and_runs_elsewhere(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    own = MelSpec.preset("hifigan")
    other = dataclasses.replace(own, log="db", mean=(-30.0,), scale=(12.5,))
    folder = save_melgan(tmp_path / "m", own)
    (tmp_path / "other.json").write_text(json.dumps(other.to_dict()))
    out = tmp_path / "m.onnx"
    said = ["--model", str(folder), "--mel", str(tmp_path / "other.json"), "--format", "onnx", "-o", str(out)]
    assert main(["export", *said]) == 0
    audio = torch.from_numpy(speech_like(own.sample_rate, 0, seconds=0.4))[None]
    expected = gansound.Vocoder.from_pretrained(folder, backend="eager")(own.mel(audio))
    session = onnxruntime.InferenceSession(str(out))
    (got,) = session.run(None, {session.get_inputs()[0].name: other.mel(audio).numpy()})
    np.testing.assert_allclose(got.reshape(expected.shape), expected.numpy(), atol=1e-5)
    told = gansound.Vocoder.from_pretrained(folder, mel=other, backend="onnxruntime")
    np.testing.assert_allclose(told(other.mel(audio)).numpy(), expected.numpy(), atol=1e-5)
