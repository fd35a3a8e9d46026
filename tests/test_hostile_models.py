"""Model folders that somebody tampered with: refused in a line and a moment, within the memory of what they hold."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gansound.model_folder import ModelFolderError, load_model_folder
from tests import warm
from tests.test_hostile_runs import tampered
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"blocks": 30000}, r"over 1,\d\d\d (tensors|layers).* holds fewer"),
        ({"channels": 20000, "hidden_channels": 20000}, r"weights of over .* MiB .*holds fewer"),
        ({"channels": 10**30}, "generator.channels: got a whole number of 100 bits"),
        ({"blocks": 2}, "the weights don't fit FreeVGenerator"),
        ({"channels": 1e30}, "generator.channels: got 1e\\+30"),
    ],
)
def test_what_the_weights_hold_bounds_what_is_built(
    model: Path, settings: dict[str, Any], words: str
) -> None:
    config = json.loads((model / "config.json").read_text())
    config["generator"]["init_args"] |= settings
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=words):
        load_model_folder(model)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.to(torch.complex64), "is torch.complex64, expected real numbers"),
        (lambda w: w > 0, "is torch.bool, expected real numbers"),
        (lambda w: w.to(torch.int8), "is torch.int8, expected real numbers"),
        (lambda w: w.to(torch.int64), "is torch.int64, expected torch.float32"),
        (lambda w: w.double() + 1e300, "holds NaN or infinity"),
        (lambda w: w / 0 * 0, "holds NaN or infinity"),
    ],
)
def test_weights_that_are_no_real_numbers(model: Path, change: Any, words: str) -> None:
    weights = load_file(model / "model.safetensors")
    name = next(name for name, w in weights.items() if w.dim() > 1)
    save_file(weights | {name: change(weights[name]).contiguous()}, model / "model.safetensors")
    with pytest.raises(ModelFolderError, match=rf"model\.safetensors: .*{name} {words}|{name} {words}"):
        load_model_folder(model)


DEEP_PATH = "gansound.nn" + ".a" * 3000 + ".B"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        json.dumps({"format": 1, "generator": {"class_path": DEEP_PATH}}),
    ],
)
def test_a_config_that_is_none(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(ModelFolderError, match=r"config\.json: "):
        load_model_folder(model)


def test_pipes_are_not_waited_for(model: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (model / name).unlink()
        os.mkfifo(model / name)
        with pytest.raises(ModelFolderError):
            load_model_folder(model)


# In a process of its own, whose memory is limited: what a tampered folder takes must not be the machine's.
_LOAD_ALL = """
import resource, signal, sys, time
from gansound.model_folder import ModelFolderError, load_model_folder
if sys.platform == "linux":  # over what is there already, which with a torch for GPUs is many GiB
    had = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (had + (4 << 30),) * 2)
for folder in sys.argv[1:]:
    signal.alarm(240)
    try:
        load_model_folder(folder)
    except ModelFolderError as error:
        assert "\\n" not in str(error).strip(), (folder, str(error))
    except BaseException as error:
        sys.exit(f"{folder}: {type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 600), marks=pytest.mark.slow)])
def test_any_tampered_config_is_loaded_or_refused(made: Path, seeds: range, tmp_path: Path) -> None:
    config = json.loads((made / "config.json").read_text())
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        os.link(made / "model.safetensors", folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(tampered(config, random.Random(seed))))
    ran = subprocess.run(
        [warm.python(), "-c", _LOAD_ALL, *(str(tmp_path / str(seed)) for seed in seeds)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
