"""Steps for ExecuTorch and LiteRT give the generator's samples; what can't be asked of them is said beforehand."""

import json
from importlib.util import find_spec

import pytest
import torch

from gansound.cli import main
from gansound.extras import EXTRAS
from gansound.inference.export import export_executorch, export_litert
from gansound.inference.export.graphs import fixed_step, streaming_generator
from gansound.inference.export.to_devices import load_executorch, load_litert, streamed
from gansound.mel import MelSpec
from gansound.nn.inference_form import InferenceForm
from tests.test_export import HOP, SPEC, mel_of, vocoder_of

FORMATS = {
    "executorch": (export_executorch, load_executorch, ".pte"),
    "litert": (export_litert, load_litert, ".tflite"),
}


@pytest.mark.hosts
@pytest.mark.parametrize("family", ["freev", "hifigan"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_step_for_devices_gives_the_generator_s_samples(format, family, tmp_path):
    for package in EXTRAS[format]:
        pytest.importorskip(package)
    export, load, suffix = FORMATS[format]
    vocoder = vocoder_of(family)
    path = export(vocoder, tmp_path / f"stream{suffix}", frames=5)
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]
    about = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert (about["frames"], about["hop_length"], about["licence"]) == ("5", str(HOP), "CC0-1.0")
    assert MelSpec.from_dict(json.loads(about["mel"])) == SPEC
    run = load(path)
    for frames in (40, 1, 5, 7, 203):
        mel = mel_of(1, frames, seed=frames)
        expected = vocoder.generator(mel)
        if frames > 20:
            assert float(expected.square().mean().sqrt()) > 0.1
        torch.testing.assert_close(streamed(run, mel, about), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["freev", "hifigan"])
def test_a_fixed_step_takes_plain_layouts(family):
    """A runtime keeps the layout that it was exported with, and whoever runs it hands over plain arrays."""
    step, (mel, state) = fixed_step(InferenceForm(streaming_generator(vocoder_of(family)), graph=True), 5)
    assert all(tensor.is_contiguous() for tensor in (mel, *state, *step.parameters()))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--format", "executorch", "-o", "x.pte"], "add --streaming"),
        (["--format", "litert", "--streaming", "-o", "x.pte"], "ends in .tflite"),
        (["--format", "litert", "--streaming", "--frames", "0", "-o", "x.tflite"], "expected 1 or more"),
        (["--format", "onnx", "--streaming", "--frames", "4", "-o", "x.onnx"], "other graphs take any"),
        (["--format", "hifigan", "--frames", "4", "-o", "x"], "isn't for --format hifigan"),
        (
            ["--format", "litert", "--streaming", "--precision", "int8", "-o", "x.tflite"],
            "is for --format onnx",
        ),
    ],
)
def test_what_devices_can_t_have_is_said_beforehand(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("executorch") is not None, reason="ExecuTorch is installed")
def test_the_extra_is_named_where_a_format_s_package_is_missing(tmp_path, capsys):
    arguments = ["--format", "executorch", "--streaming", "-o", str(tmp_path / "x.pte")]
    assert main(["export", *arguments]) == 1
    assert "pip install 'gansound[executorch]'" in capsys.readouterr().err
