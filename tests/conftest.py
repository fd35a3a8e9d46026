"""Fixtures every test may use, and how the tests are shared between processes."""

import os

# Before there is anyone to count them: nets this small lose by sharing a step, and the cores have other tests to run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import gc
import inspect
import random
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

os.environ.setdefault("TQDM_DISABLE", "1")
# Measuring backends takes seconds for each model, and what it finds is another thing each time.
os.environ.setdefault("GANSOUND_BACKEND", "eager")
# A user's terminal, a hook's repository and a user's git are none of what is tested.
for _name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[_name]
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PYTHONIOENCODING", "GANSOUND_DEBUG"):
    os.environ.pop(_name, None)
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
if "PYTEST_XDIST_WORKER" not in os.environ:  # which share that of the process that started them
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gansound-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Files whose tests start processes that wait for each other, kill some, or measure: never two of them at a time.
APART = {
    "test_bench.py",
    "test_checkpoint.py",
    "test_data_faults.py",
    "test_distributed.py",
    "test_kills.py",
    "test_profile.py",
}
# And those that trace the same nets: one after the other, so that the second finds the graphs of the first.
TRACED = {
    "test_backend_choice.py",
    "test_backends.py",
    "test_dac.py",
    "test_export.py",
    "test_families.py",
    "test_forks.py",
    "test_nsf_hifigan.py",
}
PAGES = "test_house.py::test_examples_of_a_page_run"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in two processes where pytest-xdist is there, what the command line names in this one.

    `-n 0` and `-n 4` say otherwise.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # one of the two, or what a test starts: it starts no others
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.usepdb
    if whole and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process is left with it in the end."""
    items.sort(key=lambda item: PAGES not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What a test file imports stays: to look through it for garbage, again and again, took a third of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process, for they share what they made; but each page of examples is a task itself."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].rpartition("/")[2]
            if PAGES in nodeid:
                return nodeid
            return "apart" if file in APART else "traced" if file in TRACED else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


# The same examples each time, and however long a busy machine takes for one.
hypothesis.settings.register_profile("gansound", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("gansound")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that draws without a seed of its own draws the same each time."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the one that libraries draw from)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared folder of real audio and checkpoint specs; absent for a user."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs {path}, which only the project's own checkouts have")
    return path


@pytest.fixture(scope="session")
def traced_once() -> Iterator[None]:
    """Tracing a net to ONNX takes seconds, so that the tests of all processes do it once for the same code and weights.

    The fingerprint is the backends' own, which `test_backend_choice.py` tests; without ONNX nothing is traced at all.
    """
    from gansound.inference import export
    from gansound.inference.backends.step_graph import fingerprint
    from gansound.inference.export import to_onnx

    trace, folder = to_onnx.onnx_model, Path(os.environ["XDG_CACHE_HOME"])

    def onnx_model(form: Any, **how: Any) -> Any:
        import onnx
        from torch.onnx._internal.exporter._registration import ONNXRegistry as Registry

        asked = inspect.signature(trace).bind(form, **how)
        asked.apply_defaults()  # as exporters and backends ask for the same graph in other words
        said = " ".join(f"{name}={value}" for name, value in asked.arguments.items() if name != "form")
        path = folder / f"{fingerprint(form)} {said}.onnx"
        if not path.exists():
            if not isinstance(vars(Registry)["from_torchlib"], staticmethod):
                # torch lists all its operators anew for each graph, for most of a second.
                patch.setattr(Registry, "from_torchlib", staticmethod(cache(Registry.from_torchlib)))
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_bytes(trace(form, **how).SerializeToString())
            beside.rename(path)
        return onnx.load_from_string(path.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_onnx, "onnx_model", onnx_model)
        patch.setattr(export, "onnx_model", onnx_model)
        yield


@pytest.fixture
def signals_end() -> Iterator[None]:
    """SIGINT and SIGHUP act as in a terminal, though the tests be started by `nohup` or by a script's `&`."""
    ends = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, how) for number, how in ends.items()}
    yield
    for number, how in before.items():
        signal.signal(number, how)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For steps too small to share, of which there may be hundreds at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
