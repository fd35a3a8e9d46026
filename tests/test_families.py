"""What every family of vocoders can do: stream exactly, run as ONNX and in OpenVINO, be saved and loaded, be trained.

That any chunking of a stream equals the whole is in `test_streaming_models.py`, for the same families.
"""

import importlib
import inspect
import json
import pkgutil
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import gansound.generators
from gansound import audio
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.generators.converted import ConvertedGenerator
from gansound.inference.backends import make_runner
from gansound.inference.export import export_onnx, load_onnx
from gansound.inference.export.writing import largest_error
from gansound.inference.vocoder import Vocoder
from gansound.model_folder import LoadedModel, load_model_folder, save_model_folder
from gansound.nn.generator import StreamingGenerator
from tests.corpus import write_corpus
from tests.families import FAMILIES, Family
from tests.streams import awaken, chunking
from tests.test_streaming_models import awake, mels, rms

pytestmark = pytest.mark.usefixtures("one_thread", "traced_once")
every_family = pytest.mark.parametrize("name", FAMILIES)
every_graph = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (not family.new_layers))
        for name, family in FAMILIES.items()
    ],
)
FRAMES = (1, 2, 57)


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_the_table_names_every_family():
    package = gansound.generators
    found = {
        cls
        for module in pkgutil.iter_modules(package.__path__)
        for _, cls in inspect.getmembers(importlib.import_module(f"{package.__name__}.{module.name}"), inspect.isclass)
        if issubclass(cls, StreamingGenerator) and cls.__module__.startswith(package.__name__)
    }  # fmt: skip
    assert found - {ConvertedGenerator} == {
        family.cls for family in FAMILIES.values()
    }  # which stands before any of them


def test_the_example_of_contributing_is_a_family():
    """Its file as it stands there, and its line in the suite."""
    text = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
    file, line = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"Family": Family}
    exec(compile(file, "smallest.py", "exec"), names)  # it is ours
    (family,) = eval(f"{{{line}}}", names).values()
    for causal in (False, True):
        torch.manual_seed(0)
        streamed(awaken(family.make(causal), mels(40, torch.float32)).requires_grad_(False))
    assert family.make(True).receptive_field.lookahead == family.waits_samples == 0


@every_family
def test_it_streams(name):
    """In single precision."""
    # Phases that go on sum the rounding of their frequencies, and of samples that reach 9, whose own rounding is 4e-5;
    # in double a stream is the whole to 1e-12.
    streamed(awake(name, False, torch.float32), atol=3e-5 if name == "universal" else 1e-5)


def streamed(generator, atol=1e-5):
    mel = mels(57, torch.float32)
    state, parts, start = generator.init_state(1), [], 0
    for chunk in chunking(57, 9, np.random.default_rng(0)):
        audio, state = generator.step(mel[..., start : start + chunk], state)
        parts.append(audio)
        start += chunk
    field = generator.receptive_field
    rest = torch.full((1, mel.shape[1], field.lookahead_inputs + 1), float("nan"))
    parts.append(generator.step(rest, generator.finish(state))[0])
    expected = generator(mel)
    assert rms(expected) > 0.1
    close(torch.cat(parts, 1)[:, field.lookahead :][:, : expected.shape[1]], expected, atol)


@every_family
def test_a_batch_of_several_lengths_is_each_alone(name):
    """Whatever follows an item's end; in chunks that begin before, at and after the ends."""
    generator = awake(name, False, torch.float32)
    vocoder = Vocoder(LoadedModel(generator, FAMILIES[name].mel, {}, Path(), {}), "cpu", backend="eager")
    lengths = [57, 1, 24, 40]
    mel = mels(60, torch.float32, batch=4)
    expected = torch.zeros(4, 60 * generator.hop_length)
    for item, frames in enumerate(lengths):
        alone = vocoder(mel[item : item + 1, :, :frames], warn=False)[0]
        # Alone it is the net's, but for what a net computes exactly in the form for inference alone.
        assert rms(alone - generator(mel[item : item + 1, :, :frames])[0]) < 1e-5
        expected[item, : len(alone)] = alone
        mel[item, :, frames:] = float("nan")
    assert rms(expected) > 0.1
    for vocoder.runner("whole").offline_frames in (8, 256):
        close(vocoder(mel, lengths=lengths, warn=False), expected)


def to_trace(name):
    generator = awake(name, False, torch.float32, traced=True)
    model = LoadedModel(generator, FAMILIES[name].traced.mel, {}, Path(), {})
    return generator, Vocoder(model, "cpu", backend="eager")


@pytest.mark.slow  # a graph more of each, whose layers are those of the step
@needs("onnx", "onnxscript", "onnxruntime")
@every_family
def test_it_is_onnx(name, tmp_path):
    generator, vocoder = to_trace(name)
    whole = load_onnx(export_onnx(vocoder, tmp_path / "whole.onnx"))
    for batch, frames in zip((2, 1, 3), FRAMES, strict=True):
        mel = mels(frames, torch.float32, seed=frames, batch=batch)
        close(whole(mel), generator(mel), min(1e-4, largest_error(generator)))


@needs("onnx", "onnxscript", "onnxruntime")
@every_graph
def test_its_step_is_onnx(name, tmp_path):
    """`export_onnx` runs what it writes against PyTorch."""
    _, vocoder = to_trace(name)
    assert export_onnx(vocoder, tmp_path / "step.onnx", streaming=True).is_file()


@needs("openvino", "onnx", "onnxscript")
@every_graph
def test_it_runs_in_openvino(name):
    generator = awake(name, False, torch.float32, traced=True)
    runner = make_runner(generator, "openvino", "fp32")
    # OpenVINO's exp() is three times as coarse as PyTorch's, and these nets' pitch and magnitudes are behind one.
    coarse = name in ("hift summed", "hift held")
    atol = 3e-5 if coarse else min(1e-4, largest_error(generator))
    for frames in FRAMES:
        mel = mels(frames, torch.float32, seed=frames, batch=2)
        close(runner.synthesize(mel), generator(mel), atol)


@every_family
def test_it_is_saved_and_loaded(name, tmp_path):
    family, generator = FAMILIES[name], awake(name, True, torch.float32)
    config = family.config | {"init_args": family.config["init_args"] | {"causal": True}}
    saved = save_model_folder(tmp_path / "model", generator, family.mel, config=config)
    again = load_model_folder(saved)
    assert again.mel == family.mel
    assert type(again.generator) is family.cls
    mel = mels(20, torch.float32)
    assert torch.equal(again.generator(mel), generator(mel))
    assert again.generator.receptive_field.lookahead == family.waits_samples


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("made") / "corpus", files=6)


@every_family
def test_it_is_trained_two_steps(name, corpus, tmp_path):
    family = FAMILIES[name]
    loss = {"class_path": "gansound.losses.spectral.MelL1", "init_args": {"mel": family.mel.to_dict()}}
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-2}}
    mel, config, f0 = family.mel, family.config, None
    if getattr(family.cls, "takes_pitch", False):
        mel, f0 = replace(mel, n_mels=mel.n_mels - 1), tmp_path / "f0"
        config["init_args"]["sample_rate"] = mel.sample_rate
        f0.mkdir()
        for file in corpus.glob("*.wav"):
            frames = -(-audio.probe(file).frames // mel.hop_length)
            np.save(f0 / f"{file.stem}.npy", np.full(frames, 150.0))
    recipe = {
        "task": "gansound.tasks.vocoder.VocoderTask",
        "mel": mel.to_dict(),
        "generator": config,
        "losses": {"mel": {"loss": loss, "weight": 1.0}},
        "data": {
            "path": str(corpus),
            "f0": f0 and str(f0),
            "segment_samples": 64 * mel.hop_length,
            "workers": 0,
        },
        "batch_size": 2,
        "steps": 2,
        "log_every": 1,
        "validate_every": None,
        "threads": 1,
        "generator_optimization": {"optimizer": optimizer},
    }
    training = Run(plan(recipe), tmp_path / "run")
    training.fit()
    training.close()
    vocoder = Vocoder.from_pretrained(tmp_path / "run" / "model", device="cpu")
    assert vocoder(vocoder.frame_spec.noise(7)).shape == (1, 7 * family.mel.hop_length)
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2]
    assert all(line["gradient_norm/generator"] > 0 for line in logged)


def test_only_phases_that_amplitudes_turn_may_be_rounded_further():
    allowed = {name: largest_error(family.make()) for name, family in FAMILIES.items()}
    assert {name for name, error in allowed.items() if error > 1e-5} == {"universal"}
    assert allowed["universal"] == 5e-4
