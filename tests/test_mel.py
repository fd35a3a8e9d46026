"""The mel front end against librosa, torchaudio and golden values; conversions; what is refused."""

import dataclasses
import json
import math
import pickle
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from gansound.mel import MelFrontEnd, MelSpec, presets
from tests.golden.make_mel import SAMPLES, signal

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mel.json").read_text())
HIFIGAN = MelSpec.preset("hifigan")


def noise(samples: int, seed: int = 0, batch: int = 1) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("error")
def test_a_mel_is_taken_from_any_memory_and_without_its_gradient():
    """torch refuses a column of a reversed array and warns of read-only memory; runtimes take no gradients."""
    mel = HIFIGAN.mel(noise(3 * HIFIGAN.hop_length))[0]
    first = mel[:, :1].clone()
    reversed_ = mel.numpy()[:, ::-1].copy()[:, ::-1]
    read_only = np.frombuffer(first.numpy().tobytes(), np.float32).reshape(-1, 1)
    for given in (reversed_[:, :1], read_only, first.clone().requires_grad_()):
        checked = HIFIGAN.check(given)
        assert not checked.requires_grad
        assert torch.equal(checked[0], first)


def test_every_preset_has_golden_values():
    assert set(presets()) == set(GOLDEN)


@pytest.mark.parametrize("name", presets())
def test_golden(name):
    spec, golden = MelSpec.preset(name), GOLDEN[name]
    audio = torch.from_numpy(signal(spec.sample_rate))
    unit = {"ln": 1.0, "log10": 1 / math.log(10), "db": 20 / math.log(10)}[spec.log] / spec.scale[0]
    for dtype, tolerance in ((torch.float64, 2e-5), (torch.float32, 1e-3)):
        mel = spec.mel(audio.to(dtype))[0].double()
        assert list(mel.shape) == golden["shape"]
        assert spec.frames(SAMPLES) == mel.shape[-1]
        values = torch.tensor([mel[b, f] for b, f in golden["places"]])
        loud = torch.tensor(golden["values"]) > float(mel.min()) + 5 * unit  # rounding is felt near silence
        torch.testing.assert_close(
            values[loud],
            torch.tensor(golden["values"])[loud],
            atol=tolerance * unit,
            rtol=1e-5,
            check_dtype=False,
        )
        assert float(mel.mean()) == pytest.approx(golden["mean"], abs=20 * tolerance * unit)
        assert float(mel.std(correction=0)) == pytest.approx(golden["std"], abs=20 * tolerance * unit)


BANKS = [
    (22050, 1024, 80, 0, 8000),
    (22050, 1024, 80, 80, 7600),
    (44100, 2048, 128, 0, 22050),
    (16000, 400, 40, 20, 7999.5),
    (8000, 256, 20, 0, 900),
    (48000, 2048, 64, 1000, 1500.5),
]
KINDS = [(scale, norm) for scale in ("slaney", "htk") for norm in ("slaney", "none")]


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("rate, n_fft, bands, fmin, fmax", BANKS)
def test_filters_equal_librosa(rate, n_fft, bands, fmin, fmax):
    for scale, norm in KINDS:
        spec = MelSpec(rate, n_fft, n_fft // 4, n_fft, bands, fmin, fmax, mel_scale=scale, mel_norm=norm)
        oracle = librosa.filters.mel(
            sr=rate,
            n_fft=n_fft,
            n_mels=bands,
            fmin=fmin,
            fmax=fmax,
            htk=scale == "htk",
            norm=None if norm == "none" else norm,
        )
        np.testing.assert_allclose(
            spec.filter_bank().numpy(), oracle, atol=1e-7 if norm == "slaney" else 1e-5
        )


@pytest.mark.parametrize("rate, n_fft, bands, fmin, fmax", BANKS)
def test_filters_equal_torchaudio(rate, n_fft, bands, fmin, fmax):
    try:
        from torchaudio.functional import melscale_fbanks
    except Exception as error:  # built for another torch, it refuses to load in several ways
        pytest.skip(f"torchaudio doesn't load here: {error}")
    for scale, norm in KINDS:
        spec = MelSpec(rate, n_fft, n_fft // 4, n_fft, bands, fmin, fmax, mel_scale=scale, mel_norm=norm)
        oracle = melscale_fbanks(
            n_fft // 2 + 1,
            float(fmin),
            float(fmax),
            bands,
            rate,
            norm=None if norm == "none" else norm,
            mel_scale=scale,
        )
        np.testing.assert_allclose(
            # torchaudio computes in single precision; the strict oracle is librosa, above.
            spec.filter_bank().numpy(),
            oracle.T.numpy(),
            atol=5e-6 if norm == "slaney" else 5e-4,
        )


@pytest.mark.parametrize("name", ["hifigan", "tacotron2", "nemo", "parallel_wavegan_24khz"])
@pytest.mark.parametrize("samples", [300, 511, 512, 513, 1024, 5000])
def test_short_audio_is_mirrored_as_numpy_does(name, samples):
    spec = MelSpec.preset(name)
    audio = noise(samples, seed=samples)
    total = spec.n_fft if spec.framing == "center" else spec.n_fft - spec.hop_length
    mode = "constant" if spec.padding == "zero" else "reflect"
    padded = np.pad(audio[0].double().numpy(), (total // 2, total - total // 2), mode=mode)
    window = np.zeros(spec.n_fft)
    start = (spec.n_fft - spec.win_length) // 2
    full = spec.win_length if spec.window == "hann" else spec.win_length - 1
    window[start : start + spec.win_length] = 0.5 - 0.5 * np.cos(
        2 * np.pi * np.arange(spec.win_length) / full
    )
    frames = np.stack([padded[i * spec.hop_length :][: spec.n_fft] for i in range(spec.frames(samples))], -1)
    magnitude = np.abs(np.fft.rfft(frames * window[:, None], axis=0))
    expected = spec.filter_bank().double().numpy() @ np.sqrt(magnitude**2 + spec.magnitude_eps)
    np.testing.assert_allclose(
        spec.to_magnitude(spec.mel(audio.double()))[0].numpy(),
        np.maximum(expected, spec.floor),
        rtol=1e-5,
        atol=1e-9,
    )


@pytest.mark.parametrize("hop", [200, 255, 256])
def test_length_law(hop):
    for framing, extra in (("same", 0), ("center", 1)):
        spec = dataclasses.replace(HIFIGAN, hop_length=hop, framing=framing)
        for samples in (hop, 2 * hop - 1, 2 * hop, 5000):
            assert spec.mel(noise(samples)).shape == (1, 80, samples // hop + extra)
        assert spec.samples(7) == 7 * hop


def test_batch_and_one_dimension():
    audio = noise(3000, batch=3)
    together = HIFIGAN.mel(audio)
    for i in range(3):
        torch.testing.assert_close(HIFIGAN.mel(audio[i]), together[i : i + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["melgan_neurips", "hifigan", "coqui"])
def test_gradients(name):
    spec = MelSpec.preset(name)
    audio = noise(2048, seed=3).double()
    audio[:, 1024:] = 0.0  # the square root must not make NaN of exact silence
    audio.requires_grad_()
    spec.mel(audio).sum().backward()
    assert bool(torch.isfinite(audio.grad).all())
    small = MelSpec(8000, 32, 8, 32, 6, 0, 4000, magnitude_eps=1e-4, log=spec.log, framing=spec.framing)
    assert torch.autograd.gradcheck(small.mel, noise(40).double().requires_grad_())


def test_autocast_and_half_stay_in_float32():
    audio = noise(4096)
    front = MelFrontEnd(HIFIGAN)
    expected = front(audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = front(audio)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    assert torch.equal(front.half()(audio), expected)
    assert front.state_dict() == {}


def test_made_under_inference_mode_still_trains():
    spec = dataclasses.replace(HIFIGAN, fmax=7001.0)
    with torch.inference_mode():
        spec.mel(noise(2048))
    audio = noise(2048).requires_grad_()
    spec.mel(audio).sum().backward()
    assert float(audio.grad.abs().max()) > 0


def test_dict_hash_pickle_round_trip():
    for name in presets():
        spec = MelSpec.preset(name)
        again = MelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert hash(again) == hash(spec)
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert spec.differences(again) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"fmax": 12000.0}, "fmax: got 12000 Hz, above half"),
        ({"fmax": 8.0}, "no bin of n_fft = 1024 lies (21.53 Hz from one to the next), so that"),
        ({"fmin": 21.6, "fmax": 43.0}, "no bin"),
        ({"win_length": 2048}, "at most n_fft = 1024"),
        ({"hop_length": 1025}, "more than win_length"),
        ({"n_mels": 0}, "n_mels: got 0"),
        ({"n_mels": 600}, "513 bins"),
        ({"fmin": 9000.0}, "fmin < fmax"),
        ({"fmin": -1.0}, "fmin < fmax"),
        ({"n_fft": 1025}, "even"),
        ({"sample_rate": 22050.0}, "whole number"),
        ({"sample_rate": True}, "whole number"),
        ({"fmax": None}, "fmax"),
        ({"fmax": math.nan}, "finite"),
        ({"log": "log2"}, "one of ln, log10, db"),
        ({"framing": "centre"}, "one of"),
        ({"floor": 0.0}, "floor > 0"),
        ({"magnitude_eps": -1.0}, ">= 0"),
        ({"scale": (0.0,)}, "above 0"),
        ({"mean": (0.0,) * 79}, "got 79 numbers, expected 1 or n_mels = 80"),
        ({"clip": (4.0, -4.0)}, "least, greatest"),
        ({"sample_rate": np.bool_(True)}, "whole number"),
        ({"hop_length": torch.tensor(True)}, "whole number"),
        ({"mean": np.zeros((1, 80))}, "mean: got shape (1, 80), expected a number, or one for each band"),
        ({"scale": torch.ones(79)}, "got 79 numbers, expected 1 or n_mels = 80"),
    ],
)
def test_impossible_specs_are_refused(change, words):
    with pytest.raises(ValueError, match="mel") as error:
        dataclasses.replace(HIFIGAN, **change)
    assert words in str(error.value)


def test_numbers_are_taken_from_numpy_and_torch():
    numbers = {"sample_rate": np.int64(22050), "n_mels": np.int16(80), "fmin": np.int32(0)}
    arrays = {"mean": torch.zeros(80), "scale": np.ones(80, np.float16)}
    spec = dataclasses.replace(HIFIGAN, **numbers, **arrays)
    assert spec == dataclasses.replace(HIFIGAN, mean=(0.0,) * 80, scale=(1.0,) * 80)
    assert MelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"hifigann.*hifigan"):
        MelSpec.preset("hifigann")
    with pytest.raises(ValueError, match="got NoneType, expected a convention's fields"):
        MelSpec.from_dict(None)
    with pytest.raises(ValueError, match="unknown key fmx"):
        MelSpec.from_dict(HIFIGAN.to_dict() | {"fmx": 1})
    with pytest.raises(ValueError, match="missing key n_fft"):
        MelSpec.from_dict({k: v for k, v in HIFIGAN.to_dict().items() if k != "n_fft"})


def converted(spec: MelSpec, target: MelSpec, seed: int = 1) -> tuple[Tensor, Tensor]:
    audio = noise(6000, seed) * torch.linspace(0, 1, 6000) ** 8  # through every level down to silence
    return spec.convert(spec.mel(audio.double()), target), target.mel(audio.double())


STATS = {"mean": tuple(np.linspace(-4, -2, 80).tolist()), "scale": tuple(np.linspace(0.5, 2, 80).tolist())}


@pytest.mark.parametrize(
    "source, target",
    [
        ({}, {"log": "log10"}),
        ({"log": "log10"}, {"log": "db"}),
        ({"log": "db"}, {"log": "ln"}),
        ({}, {"mean": (-5.0,), "scale": (5.0,)}),
        ({"log": "log10"}, {"log": "log10"} | STATS),
        ({"log": "db"} | STATS, {}),
        ({"floor": 1e-10}, {"floor": 1e-5}),
        ({}, {"floor": 1e-3, "log": "db"}),
        ({"floor": 1e-7}, {"floor": 1e-3, "mean": (-5.0,), "scale": (5.0,)}),
        ({"floor": 1e-7}, {"log": "db", "mean": (-30.0,), "scale": (12.5,), "clip": (-4.0, 4.0)}),
    ],
)
def test_conversion_is_exact(source, target):
    a, b = dataclasses.replace(HIFIGAN, **source), dataclasses.replace(HIFIGAN, **target)
    got, expected = converted(a, b)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"fmax": 7600.0}, "fmax 8000.0 → 7600.0"),
        ({"mel_scale": "htk"}, "mel_scale slaney → htk"),
        ({"sample_rate": 24000}, "sample_rate 22050 → 24000"),
        ({"hop_length": 200}, "hop_length 256 → 200"),
        ({"framing": "center"}, "half a hop"),
        ({"magnitude_eps": 0.0}, "magnitude_eps"),
        ({"window": "hann_symmetric"}, "window"),
        ({"floor": 1e-7}, "only raising a floor is exact"),
        ({"padding": "zero"}, "padding"),
        ({"n_mels": 40}, "n_mels"),
    ],
)
def test_what_is_not_exact_is_refused(change, words):
    target = dataclasses.replace(HIFIGAN, **change)
    with pytest.raises(ValueError, match="can't be converted exactly") as error:
        HIFIGAN.convert(torch.zeros(1, 80, 3), target)
    assert words in str(error.value)
    assert len(HIFIGAN.differences(target)) == 1


def test_clip_can_not_be_undone():
    clipped = MelSpec.preset("coqui")
    open_above = dataclasses.replace(clipped, clip=None, floor=1e-3)
    with pytest.raises(ValueError, match="clipped is lost"):
        clipped.convert(torch.zeros(1, 80, 3), open_above)
    assert torch.equal(clipped.convert(torch.ones(1, 80, 3), clipped), torch.ones(1, 80, 3))


@pytest.mark.parametrize(
    "mel, words",
    [
        (np.zeros((1, 100, 5), np.float32), "got 100 bands"),
        (np.zeros((1, 7, 80), np.float32), "looks transposed"),
        (np.zeros(80, np.float32), "shape"),
        (np.zeros((1, 1, 80, 5)), "shape"),
        (np.zeros((1, 80, 0)), "no frames"),
        (np.array([[1.0], [1.0, 2.0]], dtype=object), "values of object"),
        (np.zeros((80, 5), complex), "complex"),
        (np.full((80, 5), np.nan), "400 of 400 values are NaN"),
        (torch.full((80, 5), -math.inf), "infinite"),
        (np.array([["a"]]), "expected numbers"),
        ([[1.0]], "got list"),
        (torch.zeros(80, 5, dtype=torch.bool), "bool"),
    ],
)
def test_bad_mels_are_refused(mel, words):
    with pytest.raises(ValueError, match="mel: ") as error:
        HIFIGAN.check(mel)
    assert words in str(error.value)


def test_good_mels_come_out_as_float32_batches():
    for mel in (
        np.ones((80, 5)),
        np.ones((1, 80, 5), np.float16),
        torch.ones(80, 5, dtype=torch.bfloat16),
        np.ones((5, 80)).T,
        np.ones((1, 80, 5), ">f4"),
    ):
        checked = HIFIGAN.check(mel)
        assert checked.dtype == torch.float32
        assert checked.shape == (1, 80, 5)
        assert torch.equal(checked, torch.ones(1, 80, 5))


def test_arrays_are_taken_as_tensors_are():
    spec, audio = (
        MelSpec.preset("hifigan"),
        torch.randn(3000, generator=torch.Generator().manual_seed(0)).double(),
    )
    mel = spec.mel(audio)
    assert torch.equal(spec.mel(audio.numpy()), mel)
    assert torch.equal(spec.mel(audio.numpy()[::-1]), spec.mel(audio.flip(0)))
    other = MelSpec.from_dict(spec.to_dict() | {"log": "log10"})
    assert torch.equal(spec.convert(mel.numpy(), other), spec.convert(mel, other))
    for act in (spec.mel, lambda values: spec.convert(values, other)):
        with pytest.raises(ValueError, match="got list, expected a tensor or an array"):
            act([0.0] * 3000)


@pytest.mark.parametrize(
    "audio", [torch.zeros(255), torch.zeros(0), torch.zeros(1, 1, 4000), torch.zeros(4000, dtype=torch.int16)]
)
def test_bad_audio_is_refused(audio):
    with pytest.raises(ValueError, match="audio: got"):
        HIFIGAN.mel(audio)
