"""Which backend runs a net: what can't be had is refused, the quickest is measured once, traced graphs are kept."""

import json
import logging
import os
import sys
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gansound.inference.backends as backends
from gansound import extras
from gansound.cli import main
from gansound.cli.vocode import is_little
from gansound.inference.backends import (
    BackendUnavailable,
    available,
    check_backend,
    choice,
    make_runner,
    step_graph,
)
from gansound.inference.backends.eager import EagerRunner
from gansound.inference.backends.runner import is_near
from gansound.inference.vocoder import Vocoder
from gansound.model_folder import LoadedModel
from gansound.nn.inference_form import InferenceForm
from tests.families import SPEC
from tests.test_streaming_models import awake, mels
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread", "traced_once")

CPU = torch.device("cpu")
OPTIONAL = {"onnxruntime", "openvino"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GANSOUND_BACKEND", raising=False)


@cache
def generator_of(name):
    return awake(name, False, torch.float32)


# What can't be had


def test_a_missing_package_is_named_with_the_install_line(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "openvino" else find_spec("json"))
    with pytest.raises(BackendUnavailable, match=r"'openvino' needs openvino.*gansound\[openvino\]"):
        check_backend("openvino", "fp32", CPU)
    check_backend("onnxruntime", "fp32", CPU)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert {backend for backend, _ in available()} == {"eager", "compile"}
    with pytest.raises(BackendUnavailable, match=r"onnxruntime, onnx, onnxscript.*gansound\[onnxruntime\]"):
        check_backend("onnxruntime", "fp32", CPU)
    with pytest.raises(BackendUnavailable, match=r"no installed backend computes in int8.*gansound\[fast\]"):
        check_backend("auto", "int8", CPU)


@pytest.mark.parametrize(
    "backend, precision, device, said",
    [
        ("tensorrt", "fp32", "cpu", "got backend 'tensorrt', expected one of auto, eager"),
        ("eager", "fp16", "cpu", "got precision 'fp16', expected one of fp32, bf16, int8"),
        ("eager", "int8", "cpu", "'eager' computes in fp32 or bf16, got precision 'int8'"),
        ("openvino", "fp32", "cuda", "'openvino' runs on the CPU here, got device cuda. Take eager"),
        ("auto", "int8", "cuda", "'eager' computes in fp32 or bf16, got precision 'int8'"),
    ],
)
def test_what_cannot_be_had_is_refused(backend, precision, device, said, monkeypatch):
    monkeypatch.setattr(backends, "missing", lambda backend: [])
    with pytest.raises(BackendUnavailable, match=said):
        check_backend(backend, precision, torch.device(device))
    check_backend("auto", "bf16", torch.device("cuda"))  # which is eager there


def test_the_environment_names_what_auto_takes(monkeypatch):
    monkeypatch.setenv("GANSOUND_BACKEND", "compile")
    assert make_runner(generator_of("freev")).name == "compile"
    assert make_runner(generator_of("freev"), "eager").name == "eager"  # asked for
    with pytest.raises(BackendUnavailable, match="'compile' computes in"):
        check_backend("auto", "int8", CPU)
    monkeypatch.setattr(backends, "missing", lambda backend: [])
    monkeypatch.setenv("GANSOUND_BACKEND", "onnxruntime")
    with pytest.raises(BackendUnavailable, match="'onnxruntime' runs on the CPU here"):
        check_backend("auto", "fp32", torch.device("cuda"))
    monkeypatch.setenv("GANSOUND_BACKEND", "tensorrt")
    with pytest.raises(BackendUnavailable, match="GANSOUND_BACKEND: got 'tensorrt', expected one of auto"):
        check_backend("auto", "fp32", CPU)


def test_an_unknown_backend_fails_before_loading(tmp_path):
    with pytest.raises(BackendUnavailable, match="tensorrt"):
        Vocoder.from_pretrained(tmp_path / "nothing", "cpu", backend="tensorrt")
    with pytest.raises(BackendUnavailable, match="int8"):
        Vocoder.from_pretrained(tmp_path / "nothing", "cpu", backend="eager", precision="int8")
    with pytest.raises(BackendUnavailable, match="got backend 'tensorrt'"):
        make_runner(generator_of("freev"), "tensorrt")


class Own(nn.Module):
    """Somebody's generator, which knows no steps."""

    def forward(self, mel: Tensor) -> Tensor:
        return mel.mean(1).repeat_interleave(SPEC.hop_length, -1)


def test_a_generator_that_does_not_stream_runs_in_pytorch_only():
    model = LoadedModel(Own(), SPEC, {}, Path(), {})
    mel = mels(4, torch.float32)
    for backend in ("auto", "eager"):
        vocoder = Vocoder(model, "cpu", backend=backend)
        assert torch.equal(vocoder(mel, warn=False), Own()(mel))
        with pytest.raises(ValueError, match=r"Own doesn't stream\. Derive it from"):
            vocoder.stream()
    for asked in ({"backend": "compile"}, {"precision": "bf16"}):
        with pytest.raises(ValueError, match="Own runs in PyTorch as it is, in fp32, got backend"):
            Vocoder(model, "cpu", **asked)


def test_vocoder_runs_what_was_asked_for_with_one_runner():
    generator = generator_of("freev")
    vocoder = Vocoder(LoadedModel(generator, SPEC, {}, Path(), {}), "cpu", backend="eager", precision="bf16")
    assert vocoder.runner("whole") is vocoder.runner("stream")
    assert (vocoder.runner("whole").name, vocoder.runner("whole").precision) == ("eager", "bf16")
    mel = mels(50, torch.float32)
    assert float((vocoder(mel, warn=False) - generator(mel)).abs().max()) > 1e-4


def test_commands_take_backends_and_refuse_what_is_not_there(tmp_path, capsys):
    model = save_tiny_model(tmp_path / "model")
    np.save(tmp_path / "mel.npy", np.full((80, 5), -6, np.float32))
    command = ["vocode", str(tmp_path / "mel.npy"), "-o", str(tmp_path / "out.wav"), "--model", str(model)]
    assert main([*command, "--device", "cpu", "--backend", "eager", "--precision", "int8"]) == 2
    assert "'eager' computes in fp32 or bf16, got precision 'int8'" in capsys.readouterr().err
    assert main([*command, "--device", "cpu", "--backend", "tensorrt"]) == 2
    assert not (tmp_path / "out.wav").exists()
    assert main([*command, "--device", "cpu", "--backend", "eager", "--precision", "bf16"]) == 0
    low = (tmp_path / "out.wav").read_bytes()
    assert main([*command, "--device", "cpu", "--backend", "eager"]) == 0
    assert low != (tmp_path / "out.wav").read_bytes()


# Choosing


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gansound"


@pytest.fixture
def world(monkeypatch, cache_folder):
    """Every runtime installed, played by PyTorch, and each as quick as said; what is made and measured is noted."""
    here = SimpleNamespace(made=[], measured=[], purposes=[], breaks_when_made=set(), breaks_when_run=set())
    ms = {"eager": 3.0, "onnxruntime": 2.0, "openvino": 1.0}

    def make(generator, backend, precision):
        here.made.append(backend)
        if backend in here.breaks_when_made:
            raise RuntimeError(f"{backend} has no such layer")
        runner = EagerRunner(generator)
        runner.name, runner.precision = backend, precision
        if backend in here.breaks_when_run:
            runner.step = None  # type: ignore[method-assign,assignment]
        return runner

    measure = choice.measure

    def measured(runners, failures, purpose):
        here.measured.append(sorted(runners))
        here.purposes.append(purpose)
        found = measure(runners, failures, purpose)
        return {name: ms[name] for name in found}

    monkeypatch.setattr(backends, "missing", lambda backend: [])
    monkeypatch.setattr(backends, "_make", make)
    monkeypatch.setattr(choice, "measure", measured)
    return here


@pytest.mark.parametrize("purpose, in_a_row", [("stream", 8), ("short", 1)])
def test_what_is_compiled_behind_is_there_before_it_is_timed(purpose, in_a_row, monkeypatch):
    runner, done = EagerRunner(generator_of("freev")), []
    for name in ("step", "synthesize", "settle"):
        monkeypatch.setattr(runner, name, lambda *a, name=name, **how: done.append(name) or (None, None))
    choice.measure({"eager": runner}, {}, purpose)
    assert done[: in_a_row + 1] == ["step" if purpose == "stream" else "synthesize"] * in_a_row + ["settle"]


@pytest.mark.parametrize("purpose, in_a_row, frames", [("stream", 8, 1), ("short", 1, 43), ("whole", 1, 256)])
def test_a_figure_is_the_median_of_rounds_in_ms_without_the_first(purpose, in_a_row, frames, monkeypatch):
    """In the first it compiles, and what streams runs the interior's net nearly all the time."""
    runner, now, asked = EagerRunner(generator_of("freev")), [0.0], []
    took = iter([s for s in (5.0, 0.002, 0.004, 0.009) for _ in range(in_a_row)])

    def compute(mel, *_, **how):
        now[0] += next(took)
        asked.append((tuple(mel.shape), how))
        return None, None

    for name in ("step", "synthesize"):
        monkeypatch.setattr(runner, name, compute)
    monkeypatch.setattr(choice, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(choice, "ROUNDS", 3)
    assert choice.measure({"eager": runner}, {}, purpose) == {"eager": pytest.approx(4.0)}
    assert next(took, None) is None
    how = {"interior": True} if purpose == "stream" else {}
    assert asked == [((1, runner.n_mels, frames), how)] * 4 * in_a_row


def test_auto_measures_once_and_remembers(world, caplog):
    generator = generator_of("freev")
    with caplog.at_level(logging.INFO, "gansound"):
        first = make_runner(generator, "auto")
    assert first.name == "openvino"
    assert world.made == ["eager", "onnxruntime", "openvino"]  # what was measured is what runs
    assert "measuring eager, onnxruntime, openvino on this model" in caplog.text
    said = (
        "backend openvino, the fastest here (a frame: openvino 1.00 ms, onnxruntime 2.00 ms, eager 3.00 ms)"
    )
    assert said in caplog.text
    again = make_runner(generator, "auto")
    assert again.name == "openvino"
    assert world.made[3:] == ["openvino"]
    # Another model of the same shape, as after more training, is as quick.
    assert make_runner(awake("freev", False, torch.float32, seed=5), "auto").name == "openvino"
    assert len(world.measured) == 1


def test_whole_utterances_are_measured_once_it_pays(world, monkeypatch):
    """Each way of asking for them counts; until then the first sound waits for nothing."""
    monkeypatch.setattr("gansound.inference.vocoder.MEASURED_AFTER_SECONDS", 1.0)
    second = -(-SPEC.sample_rate // SPEC.hop_length)  # frames
    ways = [
        lambda vocoder, seconds: vocoder(mels(seconds * second, torch.float32), warn=False),
        lambda vocoder, seconds: list(vocoder.pieces(mels(seconds * second, torch.float32), warn=False)),
        lambda vocoder, seconds: vocoder.vocode_audio(np.zeros(seconds * SPEC.sample_rate), SPEC.sample_rate),
    ]
    for seed, way in enumerate(ways):
        generator = generator_of(("freev", "melgan", "istftnet")[seed])
        vocoder = Vocoder(LoadedModel(generator, SPEC, {}, Path(), {}), "cpu", backend="auto")
        done = len(world.measured)
        vocoder(mels(1, torch.float32), warn=False)
        assert vocoder.runner("short").name == "eager"
        way(vocoder, 2)
        vocoder(mels(256, torch.float32), warn=False)
        assert (len(world.measured), vocoder.runner("whole").name) == (done + 1, "openvino")


def test_a_stream_is_not_kept_waiting(world, monkeypatch, caplog):
    monkeypatch.setattr("gansound.inference.vocoder.MEASURED_AFTER_SECONDS", 0.0)
    model = LoadedModel(generator_of("freev"), SPEC, {}, Path(), {})
    vocoder = Vocoder(model, "cpu", backend="auto")
    vocoder(mels(1, torch.float32), warn=False)
    assert list(vocoder.stream().iterate([mels(20, torch.float32)]))
    assert (world.purposes, vocoder.runner("stream").name) == (["short"], "eager")
    assert "vocoder.measure('stream')" in caplog.text
    assert vocoder.measure("stream").runner("stream").name == "openvino"
    assert world.purposes == ["short", "stream"]
    caplog.clear()
    later = Vocoder(model, "cpu", backend="auto")  # as another process
    assert later.runner("stream").name == "openvino"
    assert (len(world.measured), caplog.text) == (2, "")
    assert Vocoder(model, "cpu", backend="eager").measure().runner("stream").name == "eager"
    with pytest.raises(ValueError, match="got purpose 'streams', expected whole, short, stream"):
        later.measure("streams")


def test_a_stream_is_not_kept_waiting_by_another_thread_that_measures(world, monkeypatch):
    vocoder = Vocoder(LoadedModel(generator_of("freev"), SPEC, {}, Path(), {}), "cpu", backend="auto")
    vocoder.stream()
    measuring, done = threading.Event(), threading.Event()
    make = backends._fastest

    def slow(*args):
        measuring.set()
        assert done.wait(60)
        return make(*args)

    monkeypatch.setattr(backends, "_fastest", slow)
    thread = threading.Thread(target=vocoder.measure, args=("whole", "stream"))
    thread.start()
    assert measuring.wait(60)
    opened = []
    opener = threading.Thread(target=lambda: opened.append(vocoder.stream()))
    opener.start()
    opener.join(20)
    in_time = bool(opened)
    done.set()
    thread.join()
    opener.join()
    assert in_time
    assert vocoder.runner("stream").name == "openvino"


def test_the_stream_command_measures_when_it_is_told_to(world, tmp_path):
    model = save_tiny_model(tmp_path / "model")
    np.save(tmp_path / "a.npy", np.full((80, 43), -6, np.float32))
    command = ["stream", "-i", str(tmp_path / "a.npy"), "-o", str(tmp_path / "a.wav"), "--model", str(model)]
    assert main(command) == 0
    assert (world.made, world.measured) == (["eager"], [])
    assert main([*command, "--measure"]) == 0
    assert world.purposes == ["stream"]


def test_auto_measures_for_the_length_that_is_asked_for(world, monkeypatch):
    vocoder = Vocoder(LoadedModel(generator_of("freev"), SPEC, {}, Path(), {}), "cpu", backend="auto")
    monkeypatch.setattr("gansound.inference.vocoder.MEASURED_AFTER_SECONDS", 0.0)
    for frames, purposes in ((255, ["short"]), (256, ["short", "whole"]), (1, ["short", "whole"])):
        vocoder(mels(frames, torch.float32), warn=False)
        assert world.purposes == purposes
    assert vocoder.runner("short") is vocoder.runner("whole")  # the same was the fastest


def test_for_little_work_auto_does_not_measure(world, tmp_path, monkeypatch, capsys):
    model = save_tiny_model(tmp_path / "model")
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.full((80, 43), -6, np.float32))  # half a second each
    mels_there = [str(tmp_path / f"{name}.npy") for name in "ab"]
    command = ["vocode", *mels_there, "-o", str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
    assert main(command) == 0
    assert (world.made, world.measured) == (["eager"], [])
    assert "backend eager: measuring" in capsys.readouterr().err
    np.save(tmp_path / "number.npy", np.float32(3))  # a batch goes past what is no mel
    assert main(["vocode", str(tmp_path / "number.npy"), *command[1:]]) == 1
    said = capsys.readouterr()
    assert "number.npy: mel: got shape ()" in said.err
    assert said.out.count(".wav") == 2
    monkeypatch.setattr("gansound.cli.vocode.LITTLE_SECONDS", 0.9)
    assert main(command) == 0
    assert world.purposes == ["whole", "short"]
    monkeypatch.setattr("gansound.cli.vocode.is_little", None)  # which opens each input, and isn't asked now
    capsys.readouterr()
    assert main(command) == 0
    assert world.made[-1] == "openvino"  # measured before: nothing is lost by it
    assert "backend eager" not in capsys.readouterr().err


def test_many_files_are_never_little(world, tmp_path, monkeypatch):
    monkeypatch.setattr("gansound.cli.vocode.LITTLE_FILES", 1)
    monkeypatch.setattr("gansound.cli.vocode.opened", None)  # none is opened to find out
    assert not is_little([(tmp_path, tmp_path)] * 2, None)


def test_auto_measures_anew_what_is_another_question(world, monkeypatch):
    generator = generator_of("freev")
    make_runner(generator)
    asked = [
        lambda: make_runner(generator, purpose="whole"),
        lambda: make_runner(generator, precision="bf16"),
        lambda: make_runner(generator_of("melgan")),
    ]
    for count, ask in enumerate(asked, 2):
        ask()
        assert len(world.measured) == count
    torch.set_num_threads(2)
    make_runner(generator)
    torch.set_num_threads(1)
    monkeypatch.setattr(choice, "package_version", lambda package: "another")
    make_runner(generator)
    monkeypatch.setattr(choice, "_cpu", lambda: "another")
    make_runner(generator)
    monkeypatch.setattr(choice, "usable_cores", lambda: 1000)
    make_runner(generator)
    assert len(world.measured) == 8


def test_auto_never_changes_the_precision(world):
    assert make_runner(generator_of("freev"), precision="bf16").precision == "bf16"
    assert sorted(world.made) == ["eager", "openvino"]  # those that have it
    assert make_runner(generator_of("freev"), precision="int8").name == "onnxruntime"


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"backend": "rm"}', b'{"backend": ["eager"]}']
)
def test_a_damaged_choice_is_measured_again(world, cache_folder, damage, caplog):
    make_runner(generator_of("freev"))
    [file] = (cache_folder / "choices").iterdir()
    good = file.read_bytes()
    file.write_bytes(damage)
    assert make_runner(generator_of("freev")).name == "openvino"
    assert len(world.measured) == 2
    assert file.read_bytes() == good
    file.write_bytes(json.dumps(json.loads(good) | {"backend": "compile"}).encode())  # not a candidate
    assert make_runner(generator_of("freev")).name == "openvino"
    assert "fails now" not in caplog.text  # and none that was tried


@pytest.mark.parametrize("when", ["breaks_when_made", "breaks_when_run"])
def test_a_backend_that_fails_is_left_out(world, caplog, when):
    setattr(world, when, {"openvino"})
    assert make_runner(generator_of("freev")).name == "onnxruntime"
    assert "backend openvino can't run this model, and is left out" in caplog.text
    assert make_runner(generator_of("freev")).name == "onnxruntime"
    assert len(world.measured) == 1  # and that is remembered too
    world.breaks_when_made, world.breaks_when_run = {"onnxruntime"}, {"openvino"}
    assert make_runner(generator_of("freev")).name == "eager"
    assert "measured as the fastest before, fails now: onnxruntime has no such layer" in caplog.text


def test_when_all_fail_it_says_why(world):
    world.breaks_when_made, world.breaks_when_run = {"openvino", "eager"}, {"onnxruntime"}
    with pytest.raises(BackendUnavailable, match=r"runs this model in fp32: .*openvino has no such layer"):
        make_runner(generator_of("freev"))


def test_with_eager_alone_nothing_is_measured_or_written(world, cache_folder, monkeypatch):
    monkeypatch.setattr(backends, "missing", lambda backend: ["x"] * (backend in OPTIONAL))
    assert make_runner(generator_of("freev")).name == "eager"
    assert not world.measured
    assert not cache_folder.exists()
    assert not backends.would_measure(generator_of("freev"), "fp32", "short")


def test_what_would_measure_is_known_beforehand(world, monkeypatch, caplog):
    generator = generator_of("freev")
    assert backends.would_measure(generator, "fp32", "short")
    assert backends.would_measure(generator, "bf16", "short")  # of two
    monkeypatch.setenv("GANSOUND_BACKEND", "onnxruntime")
    assert not backends.would_measure(generator, "fp32", "short")
    monkeypatch.delenv("GANSOUND_BACKEND")
    with caplog.at_level(logging.INFO, "gansound"):
        make_runner(generator, purpose="short")
    assert "the fastest here (43 frames: openvino" in caplog.text
    assert not backends.would_measure(generator, "fp32", "short")
    assert backends.would_measure(generator, "fp32", "whole")


# Graphs that are kept


@pytest.fixture
def traced(monkeypatch, cache_folder):
    """Instead of tracing, what would be traced is noted."""
    forms: list[InferenceForm] = []

    class Model:
        def SerializeToString(self) -> bytes:
            return b"graph of " * 100 + str(len(forms)).encode()

    def trace(form, **_):
        forms.append(form)
        return Model()

    monkeypatch.setattr("gansound.inference.export.onnx_model", trace)
    return forms


def form_of(name="freev", seed=0, **kwargs):
    return InferenceForm(awake(name, False, torch.float32, seed=seed), graph=True, **kwargs)


def test_a_graph_is_traced_once_for_the_same_net(traced, caplog):
    caplog.set_level(logging.INFO, "gansound")
    first = step_graph.step_graph(form_of(), interior=True)
    assert step_graph.step_graph(form_of(), interior=True) == first
    assert len(traced) == 1
    assert step_graph.step_graph(form_of(), interior=False) != first
    assert step_graph.step_graph(form_of(seed=1), interior=True) != first
    assert len(traced) == 3
    assert caplog.text.count("tracing the net for the runtime, once") == 3


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:3], lambda b: b[:-1], lambda b: b"x" + b[1:]])
def test_a_damaged_graph_is_made_again(traced, cache_folder, damage, caplog):
    caplog.set_level(logging.INFO, "gansound")
    step_graph.step_graph(form_of(), interior=True)
    [file] = (cache_folder / "graphs").iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    again = step_graph.step_graph(form_of(), interior=True)
    assert len(traced) == 2
    assert f"{file}: damaged, made again" in caplog.text
    assert step_graph.step_graph(form_of(), interior=True) == again
    assert len(traced) == 2


def test_a_cache_that_cannot_be_written_is_no_error(traced, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), os.devnull):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        assert step_graph.step_graph(form_of(), interior=True).startswith(b"graph of")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert step_graph.step_graph(form_of(), interior=True).startswith(b"graph of")


def test_a_cache_that_can_only_be_read_is_read(traced, monkeypatch):
    step_graph.step_graph(form_of(), interior=True)
    monkeypatch.setattr(Path, "touch", lambda self: (_ for _ in ()).throw(PermissionError("read-only")))
    step_graph.step_graph(form_of(), interior=True)
    assert len(traced) == 1


def test_old_graphs_go_and_never_the_one_in_use(traced, cache_folder, monkeypatch):
    monkeypatch.setattr(step_graph, "KEPT_GRAPHS", 2)
    folder = cache_folder / "graphs"
    folder.mkdir(parents=True)
    for age, name in enumerate(("new", "older", "oldest")):
        (folder / f"{name}.graph").write_bytes(b"")
        os.utime(folder / f"{name}.graph", (2**33 - age, 2**33 - age))  # a clock that is ahead
    for age, name in ((0, ".now.tmp"), (10**6, ".left.tmp")):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (folder.stat().st_mtime - age,) * 2)
    step_graph.step_graph(form_of(), interior=True)
    kept = {path.name for path in folder.iterdir()}
    [made] = kept - {"new.graph", ".now.tmp"}
    assert kept >= {"new.graph", ".now.tmp"}
    step_graph.step_graph(form_of(), interior=True)
    assert len(traced) == 1, made


def test_a_graph_that_is_used_is_younger_than_one_that_isnt(traced, cache_folder, monkeypatch):
    monkeypatch.setattr(step_graph, "KEPT_GRAPHS", 2)
    used, idle, new = form_of(), form_of(seed=1), form_of(seed=2)
    for age, form in ((200, used), (100, idle)):
        before = set(cache_folder.glob("graphs/*"))
        step_graph.step_graph(form, interior=True)
        [made] = set(cache_folder.glob("graphs/*")) - before
        os.utime(made, (made.stat().st_mtime - age,) * 2)
    for form in (used, new, used):
        step_graph.step_graph(form, interior=True)
    assert len(traced) == 3
    step_graph.step_graph(idle, interior=True)
    assert len(traced) == 4


def test_what_a_runtime_refuses_is_not_blamed_on_graphs_of_before(traced, cache_folder, caplog):
    for _ in range(2):
        step_graph.step_graph(form_of(), interior=True)  # taken from the cache by this thread

    def refused():
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        step_graph.from_cache(refused, lambda made: True)
    assert len(list((cache_folder / "graphs").iterdir())) == 1
    assert "wrong" not in caplog.text


def test_nothing_half_written_is_left_where_a_file_cannot_be_put_in_place(cache_folder, monkeypatch, caplog):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with caplog.at_level(logging.INFO, "gansound"):
        step_graph.keep(cache_folder / "graphs" / "one.graph", b"graph")
    assert list((cache_folder / "graphs").iterdir()) == []
    assert "can't be kept" in caplog.text
    monkeypatch.undo()
    path = cache_folder / "graphs" / "one.graph"  # nor stands what a kill left in the way
    path.with_name(f".one.graph.{os.getpid()}.{threading.get_ident()}.tmp").write_bytes(b"gra")
    step_graph.keep(path, b"graph")
    assert path.read_bytes() == b"graph"


def test_the_cache_lies_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for said, folder in (("/elsewhere", Path("/elsewhere")), ("", tmp_path / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", said)
        assert step_graph.cache_folder() == folder / "gansound"


@pytest.mark.parametrize("room", ["nn", "generators", "mel", "inference/export"])
def test_graphs_of_other_code_are_other_graphs(room, tmp_path, monkeypatch):
    for name in ("nn", "generators", "mel", "inference/export"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.py").write_text("1")
    monkeypatch.setattr(step_graph.gansound, "__file__", str(tmp_path / "__init__.py"))
    code = step_graph._code.__wrapped__
    before = code()
    assert code() == before
    (tmp_path / room / "a.py").write_text("2")
    assert code() != before


def test_layers_of_ones_own_are_told_apart_by_their_source(tmp_path, monkeypatch):
    file = tmp_path / "their_layers.py"
    module = ModuleType("their_layers")
    monkeypatch.setitem(sys.modules, "their_layers", module)
    own = step_graph._own_code.__wrapped__
    assert own("their_layers") != own("their_layers")  # typed in by hand
    module.__file__ = str(file)
    file.write_text("1")
    assert own("their_layers") == own("their_layers") == b"1"
    assert own("gansound.nn.conv") == own("torch.nn") == b""


def test_threads_trace_one_net_after_the_other_and_the_same_once(monkeypatch, cache_folder):
    """Two at once fail inside torch."""
    inside, made = threading.Lock(), []

    def trace(form, **_):
        assert inside.acquire(blocking=False)
        made.append(form)
        threading.Event().wait(0.05)
        inside.release()
        return SimpleNamespace(SerializeToString=lambda: b"graph")

    monkeypatch.setattr("gansound.inference.export.onnx_model", trace)
    forms, found = [form_of(), form_of(), form_of(seed=1)], []
    threads = [
        threading.Thread(target=lambda form=form: found.append(step_graph.step_graph(form, interior=True)))
        for form in forms
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"graph"] * 3
    assert len(made) == 2


def test_writers_at_once_leave_one_whole_graph(cache_folder):
    contents = [bytes([i]) * 200_000 for i in range(8)]
    path = cache_folder / "graphs" / "one.graph"
    threads = [threading.Thread(target=step_graph.keep, args=(path, data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert [file.name for file in path.parent.iterdir()] == ["one.graph"]


def test_a_fingerprint_tells_nets_apart():
    fingerprint = step_graph.fingerprint
    base = form_of()
    assert fingerprint(base) == fingerprint(form_of())
    for change in ("weight", "setting", "hidden setting", "constant", "structure", "kind"):
        other = form_of()
        linear = next(module for module in other.modules() if type(module).__name__ == "OwnLinear")
        if change == "weight":
            linear.weight.data.flatten()[-1] += 1e-6
        elif change == "setting":
            next(m for m in other.modules() if isinstance(m, nn.LayerNorm)).eps = 1e-3
        elif change == "hidden setting":
            linear._scale = torch.arange(5000.0)
        elif change == "constant":
            next(other.buffers()).flatten()[0] += 1
        elif change == "structure":
            other.layers.append(nn.Identity())
        else:
            other.layers[0].__class__ = type("Other", (type(other.layers[0]),), {})
        assert fingerprint(other) != fingerprint(base), change
        same_shape = change in ("weight", "constant")
        assert (fingerprint(other, weights=False) == fingerprint(base, weights=False)) == same_shape
    long, longer = form_of(), form_of()
    long._scale, longer._scale = torch.arange(5000.0), torch.arange(5000.0)
    longer._scale[2500] = -1  # in the middle, which its text leaves out
    assert fingerprint(long) != fingerprint(longer)
    long._scale = longer._scale = torch.relu
    assert fingerprint(long) == fingerprint(longer)


def test_the_cache_is_its_users_alone(traced, cache_folder, tmp_path):
    before = os.umask(0)
    try:
        step_graph.step_graph(form_of(), interior=True)
    finally:
        os.umask(before)
    [file] = (cache_folder / "graphs").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    for folder in (cache_folder, cache_folder / "graphs"):
        assert folder.stat().st_mode & 0o777 == 0o700
    # What others could have written isn't taken, nor what isn't a file.
    file.chmod(0o666)
    step_graph.step_graph(form_of(), interior=True)
    assert len(traced) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    for count, mode in ((3, 0o620), (4, 0o602)):
        file.chmod(mode)
        step_graph.step_graph(form_of(), interior=True)
        assert len(traced) == count
    elsewhere = file.rename(tmp_path / "elsewhere.graph")
    file.symlink_to(elsewhere)
    step_graph.step_graph(form_of(), interior=True)
    assert len(traced) == 5
    assert not file.is_symlink()
    if os.geteuid() == 0:
        os.chown(file, 12345, -1)
        step_graph.step_graph(form_of(), interior=True)
        assert len(traced) == 6
    file.unlink()
    os.mkfifo(file)
    made = len(traced)
    step_graph.step_graph(form_of(), interior=True)
    assert len(traced) == made + 1


def test_a_cache_that_others_may_look_into_is_closed_to_them(traced, cache_folder, tmp_path):
    tmp_path.chmod(0o755)  # which is the user's, for others too
    for folder in (cache_folder, cache_folder / "graphs"):
        folder.mkdir()
        folder.chmod(0o755)
    step_graph.step_graph(form_of(), interior=True)
    assert (cache_folder / "graphs").stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def of_another_net(graph: bytes) -> bytes:
    """The same graph with other weights."""
    import onnx

    model = onnx.load_from_string(graph)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(1.5 * values, weights.name))
    return model.SerializeToString()


@pytest.mark.parametrize(
    "wrong", [of_another_net, lambda graph: b"nothing of the kind"], ids=["another net's", "no graph"]
)
@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_wrong_graph_with_the_right_checksum_is_made_again(backend, wrong, cache_folder, caplog):
    if backends.missing(backend):
        pytest.skip(f"needs {backend}")
    mine = awake("freev", False, torch.float32)
    mel = torch.randn(1, mine.n_mels, 40, generator=torch.Generator().manual_seed(0)) - 4
    right = make_runner(mine, backend).synthesize(mel)
    for path in (cache_folder / "graphs").iterdir():
        graph = wrong(path.read_bytes()[:-4])
        path.write_bytes(graph + step_graph._checksum(graph))
    again = make_runner(mine, backend).synthesize(mel)
    torch.testing.assert_close(again, right)
    assert "a graph kept in the cache is wrong" in caplog.text
    caplog.clear()
    torch.testing.assert_close(make_runner(mine, backend).synthesize(mel), right)
    assert "wrong" not in caplog.text


@pytest.mark.parametrize("right", ["fp32", ""], ids=["the precision", "the graph"])
def test_what_a_precision_gets_wrong_is_not_blamed_on_the_cache(traced, monkeypatch, caplog, right):
    """As OpenVINO does to HiFT in bf16: it was traced anew in each process."""
    if backends.missing("openvino"):
        pytest.skip("needs openvino")

    class Runs:
        def __init__(self, generator, precision):
            self.precision = precision
            step_graph.step_graph(InferenceForm(generator, graph=True), interior=True)

    monkeypatch.setattr("gansound.inference.backends.open_vino.OpenVINORunner", Runs)
    monkeypatch.setattr(backends, "computes_its_model", lambda runner: runner.precision == right)
    net = awake("freev", False, torch.float32)
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="computes something else than the model"):
            make_runner(net, "openvino", "bf16")
    assert len(traced) == (1 if right else 3)
    assert ("a graph kept in the cache is wrong" in caplog.text) == (not right)


def test_in_bf16_a_noisy_top_may_have_other_phases_but_all_of_a_sound_may_not():
    """OpenVINO was refused for `default` behind melgan_neurips' mels, whose trial has a sixth of its energy there."""
    lows, top, others = torch.randn(3, 1, 8000, generator=torch.Generator().manual_seed(0))
    assert is_near(lows + 0.45 * others, lows + 0.45 * top, "bf16")
    assert not is_near(lows + 0.45 * others, lows + 0.45 * top, "fp32")
    assert not is_near(lows + 0.65 * others, lows + 0.65 * top, "bf16")
    assert not is_near(0 * lows, lows, "bf16")


def test_a_runtime_that_computes_something_else_is_refused(monkeypatch, cache_folder):
    """As OpenVINO 2026.4 does to multi-band MelGAN in bf16: next to silence."""
    if backends.missing("openvino"):
        pytest.skip("needs openvino")
    from gansound.inference.backends.open_vino import OpenVINORunner

    step = OpenVINORunner.step

    def quiet(self, mel, state, *, interior=False):
        audio, state = step(self, mel, state, interior=interior)
        return audio / 1000, state

    monkeypatch.setattr(OpenVINORunner, "step", quiet)
    with pytest.raises(BackendUnavailable, match="computes something else than the model"):
        make_runner(awake("freev", False, torch.float32), "openvino")
