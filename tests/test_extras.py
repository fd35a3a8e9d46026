"""The core works alone, and what it lacks is answered with the extra that brings it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gansound import extras
from gansound.cli.errors import explain
from gansound.extras import EXTRAS, MissingPackage, install_line, require
from tests.clip_models import save_tiny_clips
from tests.corpus import write_corpus
from tests.tiny import save_tiny_model

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {  # where it isn't the name that is imported
    "visqol": "visqol-python", "litert_torch": "litert-torch", "ai_edge_litert": "ai-edge-litert",
}  # fmt: skip

# A finder before all others, for which what the extras bring isn't there.
WITHOUT = """
import sys
from gansound.extras import EXTRAS
class Absent:
    names = {name for packages in EXTRAS.values() for name in packages} | {"torchaudio"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.partition(".")[0] in Absent.names else found(name, package)
import gansound.extras
importlib.util.find_spec = gansound.extras.find_spec = find_spec
from gansound import cli
"""


def distributions(requirements):
    return {requirement.replace(">", "<").partition("<")[0] for requirement in requirements}


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_is_said_of_it(extra):
    brought = distributions(PROJECT["optional-dependencies"][extra])
    if brought == {"gansound[onnxruntime]"}:
        brought = distributions(PROJECT["optional-dependencies"]["onnxruntime"])
    assert {DISTRIBUTIONS.get(package, package) for package in EXTRAS[extra]} <= brought
    assert not {DISTRIBUTIONS.get(package, package) for package in EXTRAS[extra]} & distributions(
        PROJECT["dependencies"]
    )


def test_the_core_brings_neither_torchaudio_nor_what_needs_a_compiler():
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        assert "torchaudio" not in distributions(requirements)
    assert "pesq" not in distributions(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["train"])


def test_one_sentence_names_the_packages_and_the_extra(monkeypatch):
    require("this", "json", "re")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"^PESQ needs pesq, not .* pip install 'gansound\[eval\]'$"):
        require("PESQ", "pesq")
    with pytest.raises(MissingPackage, match=r"onnxruntime, onnx.*'gansound\[export\]'"):
        require("exporting", "onnxruntime", "onnx", extra="export")
    assert install_line("accelerate", "pesq") == "pip install 'gansound[train,eval]'"
    assert explain(ModuleNotFoundError("No module named 'accelerate'", name="accelerate.utils")) == (
        1,
        "this command needs accelerate, not installed here: pip install 'gansound[train]'",
    )


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + script, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=800,
    )  # fmt: skip


def test_the_core_does_its_work_without_any_extra(tmp_path):
    folder, clips = save_tiny_model(tmp_path / "model"), save_tiny_clips(tmp_path / "clips")
    corpus = write_corpus(tmp_path / "in", files=1, seconds=1.0)
    script = """
model, clips, corpus, out = sys.argv[1:5]
sound = corpus + "/clip00.wav"
assert cli.main(["vocode", sound, "--model", model, "-o", out + "/vocoded"]) == 0
assert cli.main(["generate", "--model", clips, "-n", "2", "--page", "-o", out + "/generated"]) == 0
assert cli.main(["export", "--model", model, "--format", "torch_export", "-o", out + "/vocoder.pt2"]) == 0
assert cli.main(["demo", "--input", sound, "--model", model, "-o", out + "/demo"]) == 0
assert cli.main(["recipe", "freev", "--rate", "16000", "-o", out + "/recipe.yaml"]) == 0
import gansound, numpy as np
with gansound.Vocoder.from_pretrained(model).stream() as stream:
    assert stream.push(np.full((80, 8), -3.0, np.float32)).shape[-1] + stream.flush().shape[-1] == 8 * 256
assert not {name.partition(".")[0] for name in sys.modules} & Absent.names
"""
    (tmp_path / "out").mkdir()
    done = run(script, folder, clips, corpus, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "pip install 'gansound[eval]' brings all of it" in done.stdout
    assert "Left out: Griffin-Lim, PESQ, STOI, the picture." in done.stdout
    page = (tmp_path / "out" / "generated" / "index.html").read_text()
    assert "At one look" not in page
    assert len(list((tmp_path / "out" / "generated" / "spectrograms").glob("*.png"))) == 2
    assert sorted(p.name for p in (tmp_path / "out" / "demo").iterdir()) == [
        "gansound.wav",
        "ground-truth.wav",
    ]


def test_what_the_core_lacks_is_one_message_without_a_traceback(tmp_path):
    folder, corpus = save_tiny_model(tmp_path / "model"), write_corpus(tmp_path / "in", files=1, seconds=1.0)
    script = """
import os
model, corpus, out = sys.argv[1:4]
def refused(code, extra, *arguments):
    sys.stderr.write("COMMAND\\n")
    assert cli.main(list(arguments)) == code, arguments
refused(1, "train", "train", "tiny_cpu", "--data.path", corpus, "--run", out + "/run")
refused(1, "export", "export", "--model", model, "--format", "onnx", "-o", out + "/x.onnx")
refused(2, "eval", "evaluate", "--model", model, "--data", corpus, "--split", "all", "--measures", "pesq")
refused(1, "eval", "evaluate", "--model", model, "--data", corpus, "--split", "all", "--html", out + "/page")
refused(1, "eval", "evaluate", "--model", model, "--data", corpus, "--split", "all", "--baseline", "griffin-lim")
refused(1, "eval", "bench", "--model", model, "--picture", out + "/bench.png")
assert os.listdir(out) == [], os.listdir(out)
"""
    (tmp_path / "out").mkdir()
    done = run(script, folder, corpus, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    said = done.stderr.split("COMMAND\n")[1:]
    for text, extra in zip(said, ["train", "export", "eval", "eval", "eval", "eval"], strict=True):
        assert f"pip install 'gansound[{extra}]'" in text
        assert sum(line.startswith("error:") for line in text.splitlines()) == 1
        assert "Traceback" not in text
