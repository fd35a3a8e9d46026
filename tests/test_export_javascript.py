"""samples/onnx_reader.mjs: a streaming graph in JavaScript gives the samples that Python gives.

It needs Node and its onnxruntime-node, see CONTRIBUTING.
"""

import json
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from gansound.inference.export import export_onnx
from tests.test_export import HOP, SPEC, mel_of, needs_onnx, vocoder_of

ROOT = Path(__file__).resolve().parents[1]
READER = ROOT / "samples" / "onnx_reader.mjs"
PROGRAM = """
const {{ Vocoder, cut, joined, readNpy }} = await import({reader});
const ort = (await import("node:module")).createRequire(process.cwd() + "/")("onnxruntime-node");
const fs = await import("node:fs");
const vocoder = await Vocoder.open(ort, new Uint8Array(fs.readFileSync({graph})));
const said = [];
for (const mel of {mels}) {{  // one vocoder: each utterance begins afresh after a flush
  const {{ shape, data }} = readNpy(new Uint8Array(fs.readFileSync(mel)));
  const parts = [];
  for (let at = 0, n = 0; at < shape[1]; at += n, n = (n + 1) % 6) {{
    parts.push(await vocoder.push(cut(data, shape[0], at, at + n)));
  }}
  parts.push(await vocoder.flush());
  said.push([...joined(parts)]);
}}
const refused = await vocoder.push(new Float32Array(vocoder.nMels + 1)).catch((error) => error.message);
const about = [vocoder.sampleRate, vocoder.hopLength, vocoder.melConvention.log];
console.log(JSON.stringify({{ said, refused, about }}));
"""


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    resolve = 'require("node:module").createRequire(process.cwd() + "/").resolve("onnxruntime-node")'
    if shutil.which("node") is None or node("-e", resolve).returncode:
        pytest.skip("needs node and onnxruntime-node (in node_modules here, or NODE_PATH)")
    vocoder = vocoder_of("freev")
    return vocoder, export_onnx(
        vocoder, tmp_path_factory.mktemp("javascript") / "stream.onnx", streaming=True
    )


@needs_onnx
def test_javascript_gives_the_offline_samples(graph, tmp_path):
    vocoder, path = graph
    mels = [mel_of(1, frames, seed=frames) for frames in (40, 1, 7)]
    names = []
    for i, mel in enumerate(mels):
        np.save(tmp_path / f"{i}.npy", np.ascontiguousarray(mel[0].numpy()))
        names.append(str(tmp_path / f"{i}.npy"))
    quoted = {"reader": READER.as_uri(), "graph": str(path), "mels": names}
    (tmp_path / "program.mjs").write_text(
        PROGRAM.format(**{name: json.dumps(value) for name, value in quoted.items()})
    )
    done = node(str(tmp_path / "program.mjs"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["about"] == [SPEC.sample_rate, HOP, "ln"]
    assert "expected a multiple of" in found["refused"]
    for mel, sound in zip(mels, found["said"], strict=True):
        expected = vocoder.generator(mel)[0]
        torch.testing.assert_close(torch.tensor(sound), expected, rtol=0, atol=1e-5)


@needs_onnx
def test_it_writes_a_wav_and_says_what_it_can_t_read(graph, tmp_path):
    vocoder, path = graph
    mel = mel_of(1, 21)
    np.save(tmp_path / "mel.npy", np.ascontiguousarray(mel[0].numpy()))
    done = node(str(READER), str(path), str(tmp_path / "mel.npy"), str(tmp_path / "out.wav"))
    assert done.returncode == 0, done.stderr
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (
            SPEC.sample_rate,
            1,
            21 * HOP,
        )
        sound = np.frombuffer(file.readframes(21 * HOP), "<i2") / 32767
    np.testing.assert_allclose(sound, vocoder.generator(mel)[0].clamp(-1, 1).numpy(), atol=1e-4)
    np.save(tmp_path / "doubles.npy", mel[0].double().numpy())
    for named, words in [("doubles.npy", "expected float32"), ("mel.npy", "not a streaming graph")]:
        graph_file = str(path) if named == "doubles.npy" else str(tmp_path / "mel.onnx")
        (tmp_path / "mel.onnx").write_bytes(b"\x08\x08")  # a model of IR version 8 and nothing else
        done = node(str(READER), graph_file, str(tmp_path / named), str(tmp_path / "none.wav"))
        assert done.returncode == 1
        assert words in done.stderr
    assert not (tmp_path / "none.wav").exists()
