"""gansound calls nobody: no socket to the outside, no look-up of a name, nothing written about the user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gansound import audio
from gansound.generators.melgan import MelGANGenerator
from gansound.inference.backends import available
from gansound.mel import MelSpec
from gansound.model_folder import save_model_folder
from tests import warm
from tests.clip_models import save_tiny_clips
from tests.tiny import arguments

ROOT = Path(__file__).resolve().parents[1]

# An audit hook hears what Python's own sockets do, and ends the process where they do it.
WATCH = """
import os, sys
def heard(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        if event.startswith("socket.get") or not isinstance(args[1], (str, bytes)):
            os.write(2, f"CALLED {event} {args}\\n".encode())
            os._exit(99)
sys.addaudithook(heard)
"""

USE = """
import gansound, numpy as np
from gansound import cli
model, data, out = sys.argv[1:4]
for backend in sys.argv[4].split(","):
    vocoder = gansound.Vocoder.from_pretrained(model, device="cpu", backend=backend)
    vocoder(np.full((80, 6), -3.0, np.float32))
    with vocoder.stream() as stream:
        stream.push(np.full((80, 6), -3.0, np.float32))
if "onnxruntime" in sys.modules:
    from gansound.inference.export import load_onnx, export_onnx
    export_onnx(vocoder, out + "/v.onnx")
"""

COMMANDS = """
from gansound import cli
model, data, out, clips = sys.argv[1:5]
assert cli.main(["vocode", data, "--model", model, "-o", out + "/sounds"]) == 0
assert cli.main(["train", "tiny_cpu", "--data.path", data, "--steps", "1", "--run", out + "/run", *sys.argv[5:]]) == 0
assert cli.main(["generate", "--model", clips, "-n", "2", "-o", out + "/generated"]) == 0
"""


def traced(tmp_path: Path) -> list[str]:
    """A command line before another's, by which the system's own calls are noted too, where that can be done."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-f", "-qq", "-o", os.devnull, "true"]).returncode:
        return []
    return [
        strace,
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-e",
        "trace=socket,connect,sendto",
        "-o",
        str(tmp_path / "calls"),
    ]


@pytest.fixture
def here(tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """A model, the home of a user without anything, and the environment of a process there."""
    home = tmp_path / "home"
    home.mkdir()
    setting = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and key != "CI"}
    setting |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "out").mkdir()
    # Of three layers that mirror nothing, for it is traced four times.
    sizes = {"channels": 4, "upsample_rates": [256], "residual_dilations": [], "causal": True}
    net = MelGANGenerator(**sizes)
    config = {"class_path": "gansound.generators.melgan.MelGANGenerator", "init_args": sizes}
    model = save_model_folder(tmp_path / "model", net, MelSpec.preset("hifigan"), config=config)
    return model, home, setting


def check(home: Path, line: list[str], setting: dict[str, str]) -> None:
    done = subprocess.run(line, cwd=home.parent, env=setting, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    written = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert written <= {(".cache", "gansound"), (".cache", "matplotlib"), (".config", "matplotlib")}


@pytest.mark.timeout(1800)
def test_no_backend_calls_anybody(tmp_path: Path, here: tuple[Path, Path, dict[str, str]]) -> None:
    model, home, setting = here
    backends = ",".join(b for b, precision in available() if precision == "fp32" and b != "compile")
    before = traced(tmp_path)
    use = [sys.executable, "-c", WATCH + USE, str(model), "", str(tmp_path / "out"), backends]
    check(home, [*before, *use], setting)
    if before:
        calls = [call for call in (tmp_path / "calls").read_text().splitlines() if "AF_INET" in call]
        assert calls == []


@pytest.mark.timeout(1800)
def test_no_command_calls_anybody(tmp_path: Path, here: tuple[Path, Path, dict[str, str]]) -> None:
    model, home, setting = here
    data = tmp_path / "data"
    data.mkdir()
    for index in range(3):
        noise = 0.1 * np.random.default_rng(index).standard_normal(22050)
        audio.write(data / f"{index}.wav", noise.astype(np.float32), 22050)
    clips = save_tiny_clips(tmp_path / "clips")
    # What an import calls is heard above; this one is of processes that have imported.
    use = [warm.python(), "-c", WATCH + COMMANDS, str(model), str(data), str(tmp_path / "out"), str(clips)]
    check(home, [*use, *arguments()], setting | {"GANSOUND_BACKEND": "eager"})
