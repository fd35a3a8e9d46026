"""`gansound bench`: what it counts, compares and reports. Nothing here looks at how long anything took."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gansound import cli
from gansound.generators.melgan import MelGANGenerator
from gansound.inference import bench
from gansound.inference.backends.eager import EagerRunner
from gansound.inference.backends.runner import Runner
from gansound.inference.bench import contestants, limit, memory, plan, run, timing
from gansound.inference.bench.material import with_lively_weights
from gansound.inference.bench.rivals import RecomputedStream, plain_eager
from gansound.inference.bench.rounds import (
    LEAST_ROUNDS,
    Spread,
    interleave,
    paired_ratio,
    percentile,
    repetitions_for,
)
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder
from gansound.nn.conv import Conv1d, TransposedConv1d
from gansound.nn.generator import StreamingGenerator
from gansound.report.bench import bench_picture, bench_tables, noise_percent
from tests import warm
from tests.test_streaming_models import awake, mels
from tests.tiny import save_tiny_model

SPEC = MelSpec.preset("hifigan")


class Tiny(StreamingGenerator):
    """A generator whose every multiplication can be counted by hand."""

    n_mels, hop_length = 80, 256

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            Conv1d(80, 6, 5),
            nn.LeakyReLU(0.1),
            TransposedConv1d(6, 4, rate=256, kernel_size=512),
            Conv1d(4, 1, 3),
        )


OWN = """
from gansound.generators.freev import FreeVGenerator

class Own(FreeVGenerator):
    pass
"""


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return with_lively_weights(Tiny(), SPEC.noise(32)).requires_grad_(False)


@pytest.fixture(scope="module")
def tiny_plan():
    return bench.Plan(
        "-",
        (("eager", "fp32"),),
        offline_seconds=(0.1, 0.3),
        chunk_frames=(1, 3),
        rounds=LEAST_ROUNDS,
        sample_seconds=0.0,
        whole_seconds=0.2,
        memory_seconds=0.0,
    )


@pytest.fixture
def slow_machine(monkeypatch):
    """A known limit, so that a test needn't wait for it to be measured; the second measuring finds more in fp32."""
    limits = [{"fp32": 100.0, "bf16": 200.0}, {"fp32": 120.0, "bf16": 190.0}]
    monkeypatch.setattr(timing, "matrix_limit", lambda seconds: (limits.pop(0), {"int8": "not here"}))


def measured(generator, one_plan, told=None):
    folder = type(
        "Model", (), {"generator": generator, "mel": SPEC, "frame_spec": SPEC, "path": "somewhere"}
    )()
    return timing.Bench(folder, one_plan, lambda case: None if told is None else told.append(case)).run()


def test_multiplications_of_a_net_counted_by_hand(tiny):
    frames = 10
    samples = frames * 256
    by_hand = frames * 80 * 6 * 5 + frames * 6 * 4 * 512 + samples * 4 * 1 * 3
    assert limit.multiply_accumulates(tiny, torch.randn(1, 80, frames)) == by_hand


def test_melgan_costs_what_the_reference_says():
    model = MelGANGenerator()
    macs = limit.multiply_accumulates(model, torch.randn(1, 80, 64)) / (64 * 256 / 22050)
    assert macs / 1e9 == pytest.approx(3.89, abs=0.03)


def test_ratios_are_of_the_same_round():
    # Every second round something else runs, and all take ten times as long: unpaired medians would not show it.
    theirs, ours = [1.0, 20.0, 3.0, 40.0], [0.5, 10.0, 1.0, 10.0]
    assert paired_ratio(theirs, ours) == Spread(2.5, 2.0, 4.0)
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio(theirs, ours[:3])
    with pytest.raises(ValueError, match="expected one or more"):
        Spread.of([])


def test_percentile_is_a_value_that_was_measured():
    values = list(range(1, 201))
    assert percentile(values[::-1], 99) == 198
    assert percentile(values, 50) == 100
    assert percentile([7.0], 99) == 7.0


def test_every_round_runs_everyone_once_in_changing_order():
    ran = []

    def contestant(name):
        return lambda: [float(len(ran)), ran.append(name)][:1]

    names = ["a", "b", "c", "d"]
    results = interleave({name: contestant(name) for name in names}, rounds=6)
    assert [sorted(ran[start : start + 4]) for start in range(0, 24, 4)] == [names] * 6
    assert len({tuple(ran[start : start + 4]) for start in range(0, 24, 4)}) > 1
    for name in names:
        assert results[name] == [[float(place)] for place, other in enumerate(ran) if other == name]


def test_a_long_case_gets_fewer_rounds_but_enough_for_a_median():
    assert len(interleave({"a": lambda: [0.0]}, rounds=9, limit_seconds=0.0)["a"]) == LEAST_ROUNDS
    assert repetitions_for(0.1, 0.25, 16) == 3
    assert repetitions_for(10.0, 0.25, 16) == 1
    assert repetitions_for(0.0, 0.25, 16) == 16


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_the_streaming_rival_computes_the_right_thing(tiny, frames, chunk):
    """A rival that computed less than it must would be a straw man; one with other samples isn't one at all."""
    mel = SPEC.noise(frames, seed=frames)
    stream = RecomputedStream(tiny)
    for _ in range(2):  # reset begins anew
        stream.reset()
        pieces = [stream.push(part) for part in mel.split(chunk, -1)] + [stream.flush()]
        torch.testing.assert_close(
            torch.from_numpy(np.concatenate(pieces))[None], plain_eager(tiny, mel), rtol=0, atol=1e-5
        )


def test_the_streaming_rival_computes_its_context_and_no_more(tiny):
    lengths = []
    hook = tiny.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[-1]))
    stream = RecomputedStream(tiny)
    for part in SPEC.noise(40).split(4, -1):
        stream.push(part)
    hook.remove()
    field = tiny.receptive_field
    assert set(lengths[-5:]) == {4 + field.lookback_inputs + field.lookahead_inputs}


def test_what_remembers_is_recomputed_from_its_start():
    net = awake("universal", False, torch.float32)
    assert net.receptive_field.remembers
    mel = mels(4 * net.receptive_field.lookback_inputs, torch.float32)
    stream = RecomputedStream(net)
    sound = np.concatenate([*(stream.push(chunk) for chunk in mel.split(5, -1)), stream.flush()])
    np.testing.assert_allclose(sound, plain_eager(net, mel)[0].numpy(), atol=1e-5)


def test_random_weights_give_a_lively_sound():
    torch.manual_seed(0)
    mel = SPEC.noise(32)
    drawn = MelGANGenerator(channels=32)
    audio = plain_eager(with_lively_weights(drawn, mel), SPEC.noise(32, seed=1))
    assert 0.1 < audio.std() < 0.5
    assert (audio.abs() > 0.999).float().mean() == 0
    assert (
        audio.std() > 10 * plain_eager(drawn, mel).std()
    )  # what it is for; and the original is left as it was


def test_first_audio_waits_for_frames_and_for_a_backlog():
    # Fast enough: the wait and the last push. Too slow: one push after the other.
    assert timing.first_audio_seconds([0.001, 0.001, 0.003], 0.01) == pytest.approx(0.023)
    assert timing.first_audio_seconds([0.02, 0.02, 0.02], 0.01) == pytest.approx(0.06)
    assert timing.first_audio_seconds([0.025, 0.001, 0.001], 0.01) == pytest.approx(0.027)
    assert timing.first_audio_seconds([0.5], 0.01) == 0.5


def test_differences_in_decibels():
    truth = np.sin(np.arange(1000, dtype=np.float32))
    off = timing.differences(truth * np.float32(1.01), truth)
    assert off["snr_db"] == pytest.approx(40.0, abs=0.01)
    assert off["max_abs_error"] == pytest.approx(0.01, rel=1e-3)
    assert timing.differences(truth, truth) == {"max_abs_error": 0.0, "snr_db": None}
    with pytest.raises(ValueError, match="finite"):
        timing.differences(truth * np.float32("nan"), truth)
    with pytest.raises(ValueError, match="999"):
        timing.differences(truth[1:], truth)


def test_a_bench_holds_every_case_of_every_contestant(tiny, tiny_plan, slow_machine):
    told = []
    result = measured(tiny, tiny_plan, told)
    assert len(told) == timing.cases(tiny_plan)
    rival, ours = ("plain eager", "fp32"), ("eager", "fp32")
    found = [(r["backend"], r["precision"], round(r["audio_s"], 1)) for r in result["offline"]]
    assert found == [(*rival, 0.1), (*ours, 0.1), (*rival, 0.3), (*ours, 0.3)]
    rival = ("context recomputed", "fp32")
    found = [(r["backend"], r["precision"], r["chunk_frames"]) for r in result["streaming"]]
    assert found == [(*rival, 1), (*ours, 1), (*rival, 3), (*ours, 3)]
    assert [(r["backend"], r["precision"]) for r in result["whole_stream"]] == [rival, ours]
    assert result["not_measured"] == []
    assert json.loads(json.dumps(result, allow_nan=False)) == result


THEIRS = """
import time
import their_net

def synthesize(mel):
    time.sleep(0.05)
    return their_net.sound(mel).numpy()[:, None]
"""


def test_whole_utterances_are_compared_with_the_code_of_the_model_s_own_project(
    tiny, tiny_plan, slow_machine, tmp_path, monkeypatch
):
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "their_net.py").write_text("from nets_of_the_test import sound")  # it stands beside
    monkeypatch.setitem(sys.modules, "nets_of_the_test", SimpleNamespace(sound=tiny))
    monkeypatch.setattr(sys, "path", [*sys.path])
    plan = dataclasses.replace(tiny_plan, own_code=str(tmp_path / "theirs.py"))
    result = measured(tiny, plan)
    names = [record["backend"] for record in result["offline"]]
    assert names == ["plain eager", "own code", "eager"] * 2
    plain, own, ours = result["offline"][:3]
    assert own["max_abs_error"] == 0
    assert own["times_rival_median"] == 1
    for quick in (plain, ours):  # each beside the own code, which takes its time
        assert quick["times_rival_median"] > 2
        assert quick["times_rival_median"] == pytest.approx(
            quick["x_real_time_median"] / own["x_real_time_median"], rel=0.5
        )
    assert "own code" not in {record["backend"] for record in result["streaming"]}
    shown = [table.columns[0]._cells for table in bench_tables(result | {"memory": []})]
    assert "own code fp32" in [str(cell) for cell in shown[0]]


def test_own_code_that_is_none_or_says_another_length_ends_the_bench(tiny, tiny_plan, slow_machine, tmp_path):
    file = tmp_path / "theirs.py"
    plan = dataclasses.replace(tiny_plan, own_code=str(file))
    file.write_text("def vocode(mel): ...")
    with pytest.raises(ValueError, match=r"theirs.py: has no function synthesize"):
        measured(tiny, plan)
    file.write_text("def synthesize(mel): return mel[:, :1, :-1]")
    with pytest.raises(ValueError, match="gave samples of shape"):
        measured(tiny, plan)


def test_figures_fit_together(tiny, tiny_plan, slow_machine):
    result = measured(tiny, tiny_plan)
    gmac = result["generator"]["gmac_per_audio_s"]
    by_hand = (80 * 6 * 5 + 6 * 4 * 512 + 256 * 12) * 22050 / 256 / 1e9
    assert gmac == pytest.approx(by_hand)
    assert result["limits"] == [
        {"threads": torch.get_num_threads(), "fp32_gflop_per_s": 120.0, "bf16_gflop_per_s": 200.0}
    ]
    for record in result["offline"] + result["streaming"]:
        assert record["x_real_time_min"] <= record["x_real_time_median"] <= record["x_real_time_max"]
        assert record["rounds"] == LEAST_ROUNDS
        if record["backend"] == "context recomputed":
            assert record["fraction_of_limit"] is None
        else:
            assert record["fraction_of_limit"] == pytest.approx(
                2 * gmac * record["x_real_time_median"] / 120.0
            )
        if record["backend"] in ("plain eager", "context recomputed"):
            assert record["times_rival_median"] == record["times_rival_min"] == record["times_rival_max"] == 1
    for record in result["offline"]:
        assert record["x_real_time_median"] * record["compute_s_median"] == pytest.approx(record["audio_s"])
        assert record["max_abs_error"] < 1e-5
    for record in result["streaming"]:
        assert record["push_ms_median"] <= record["push_ms_max"]
        assert (record["push_ms_p99"] is None) == (record["pushes"] < timing.PUSHES_FOR_P99)
    field = tiny.receptive_field
    for record in result["whole_stream"]:
        # The rival gives whole frames; a stream gives each sample as soon as it is final.
        whole = record["backend"] == "context recomputed"
        frames = field.lookahead_inputs if whole else field.lookahead // 256
        assert record["first_audio_waits_for_frames"] == frames
        assert record["first_audio_ms_min"] >= record["first_audio_waits_ms"]
        assert record["max_abs_error"] < 1e-5


def test_known_times_give_known_figures(tiny, tiny_plan, slow_machine, monkeypatch):
    """Every second round something else runs on the machine."""
    theirs, ours = [[0.01, 0.03], [0.4, 0.4], [0.06, 0.06]], [[0.005, 0.015], [0.04, 0.04], [0.02, 0.02]]
    monkeypatch.setattr(
        timing, "interleave", lambda works, **_: dict(zip(works, (theirs, ours), strict=True))
    )
    one = timing.Bench(
        type("Model", (), {"generator": tiny, "mel": SPEC, "frame_spec": SPEC, "path": "somewhere"})(),
        tiny_plan,
        lambda case: None,
    )
    frame_seconds = 256 / 22050
    for record, frames in ((one.streaming(3)[1], 3), (one.offline(0.3)[1], 26)):
        audio_s = frames * frame_seconds
        assert record["times_rival_median"] == pytest.approx(3)  # of 2, 10 and 3
        assert (record["times_rival_min"], record["times_rival_max"]) == pytest.approx((2, 10))
        assert record["x_real_time_median"] == pytest.approx(audio_s / 0.02)
        assert record["x_real_time_min"] == pytest.approx(audio_s / 0.04)
        assert record["x_real_time_max"] == pytest.approx(audio_s / 0.01)
    assert one.streaming(3)[1]["push_ms_median"] == 20.0
    assert one.streaming(3)[1]["push_ms_max"] == 40.0


class Failing(EagerRunner):
    """Of a backend that can be made, and fails at its first step."""

    def step(self, mel, state, *, interior=False):
        raise RuntimeError("no such kernel\nand a long story")

    # By steps, whatever the length.
    synthesize = Runner.synthesize
    pieces = Runner.pieces


def test_what_fails_is_left_out_and_named(tiny, tiny_plan, slow_machine, monkeypatch):
    def make(generator, backend, precision, *, purpose):
        if backend == "openvino":
            raise ValueError("not for this net")
        made = Failing(generator, precision) if backend == "compile" else EagerRunner(generator, precision)
        made.name = backend if backend == "compile" else "eager"
        return made

    monkeypatch.setattr(contestants, "make_runner", make)
    pairs = tuple((backend, "fp32") for backend in ("openvino", "compile", "onnxruntime", "eager"))
    result = measured(tiny, dataclasses.replace(tiny_plan, contestants=pairs))
    assert {record["backend"] for record in result["offline"]} == {"plain eager", "eager"}
    assert {record["backend"] for record in result["streaming"]} == {"context recomputed", "eager"}
    assert result["not_measured"] == [
        {"what": "openvino fp32, made ready", "reason": "not for this net"},
        # One that quietly runs something else isn't timed under a name that it doesn't bear.
        {"what": "onnxruntime fp32, made ready", "reason": "fell back to eager fp32"},
        {"what": "compile fp32, offline, 0.1 s", "reason": "no such kernel"},
    ]


def test_a_backend_may_rearrange_its_generator_and_is_settled(tiny, tiny_plan, slow_machine, monkeypatch):
    settled = []

    def make(generator, backend, precision, *, purpose):
        generator.layers[3].weight.zero_()
        runner = EagerRunner(generator, precision)
        monkeypatch.setattr(runner, "settle", lambda: settled.append(purpose))
        return runner

    monkeypatch.setattr(contestants, "make_runner", make)
    result = measured(tiny, tiny_plan)
    errors = {record["backend"]: record["max_abs_error"] for record in result["offline"]}
    assert errors["plain eager"] == 0.0
    assert errors["eager"] > 0.1
    assert set(settled) == {"whole", "stream"}


def test_the_limit_is_a_rate():
    limits, reasons = limit.matrix_limit(seconds=0.001)
    assert set(limits) | set(reasons) == {"fp32", "bf16", "int8"}
    assert all(math.isfinite(rate) and rate > 0 for rate in limits.values())


def test_memory_is_what_the_work_took():
    def work():
        held.append(np.ones(2**23))  # 64 MiB, each page touched

    held = []
    if sys.platform == "linux":
        np.ones(2**25)  # an earlier peak of 256 MiB, which isn't the work's
    # A system short of memory takes pages of libraries away meanwhile: the most of three is the work's.
    peak, growth = max((memory.peak_growth_mib(work) for _ in range(3)), key=lambda found: found[1])
    assert 60 < growth < 80
    assert peak > growth


def test_choosing_contestants(monkeypatch):
    monkeypatch.setattr(
        plan, "available", lambda: [("eager", "fp32"), ("eager", "bf16"), ("compile", "fp32")]
    )
    refused = {"onnxruntime": "pip install this", "openvino": "pip install that", "compile": "not in int8"}

    def check(backend, precision, device):
        raise ValueError(refused[backend])

    monkeypatch.setattr(plan, "check_backend", check)
    chosen, missing = bench.choose(None, None)
    assert chosen == (("eager", "fp32"), ("eager", "bf16"), ("compile", "fp32"))
    assert missing == [
        {"what": "onnxruntime", "reason": "pip install this"},
        {"what": "openvino", "reason": "pip install that"},
    ]
    assert bench.choose(["compile"], ["int8", "fp32"]) == (
        (("compile", "fp32"),),
        [{"what": "compile int8", "reason": "not in int8"}],
    )
    with pytest.raises(ValueError, match="pip install that"):
        bench.choose(["openvino"], None)
    with pytest.raises(ValueError, match=r"backend 'onnx', expected some of eager, compile"):
        bench.choose(["onnx"], None)
    with pytest.raises(ValueError, match=r"precision 'fp16', expected some of fp32"):
        bench.choose(None, ["fp16"])


def test_a_plan_survives_json(tiny_plan):
    assert bench.Plan.from_dict(json.loads(json.dumps(vars(tiny_plan)))) == tiny_plan


@pytest.fixture
def command(monkeypatch, capsys):
    """`gansound bench ...`: its exit code, stdout and stderr."""
    monkeypatch.setitem(cli.COMMANDS, "bench", ("gansound.cli.bench", "-"))
    monkeypatch.delenv("GANSOUND_DEBUG", raising=False)

    def call(*arguments):
        code = cli.main(["bench", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--model", "default", "--backends", "tensorrt"], "tensorrt"),
        (["--model", "default", "--precisions", "fp64"], "fp64"),
        (["--model", "default", "--threads", "0"], "from 1 to"),
        (["--model", "default", "--threads", "100000"], "from 1 to"),
        (["--model", "default", "--threads", ""], "from 1 to"),
        (["--model", "default", "--rounds", "2"], "3 or more"),
        (["--model", "default", "--json", "no/such/folder.json"], "folder that exists"),
        (["--model", "default", "--picture", "."], "expected a file"),
        (["--model", "default", "--own-code", "none.py"], "--own-code none.py: there is no such file"),
        (["--model", "default", "--generator", "x.Y"], "not allowed with"),
        ([], "required"),
        (["--generator", "os.path.Generator"], "refused"),
        (["--generator", "gansound.generators.melgan.MelGan"], "no class 'MelGan'"),
    ],
)
def test_what_the_command_line_shows_to_be_wrong_is_2(command, arguments, says):
    code, out, err = command(*arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert out == ""


def test_a_model_that_is_not_there_is_1(command, tmp_path):
    code, _, err = command("--model", tmp_path / "nothing", "--quick", "--threads", "1")
    assert code == 1
    assert "no such model folder" in err


def test_the_command_measures_in_processes_of_its_own_and_writes(command, tmp_path, tiny_plan, monkeypatch):
    """The whole way, in the fewest cases."""
    fewest = {"memory_seconds": 0.5, "offline_seconds": (0.1,), "chunk_frames": (1,)}
    fewest |= {"rounds": LEAST_ROUNDS, "sample_seconds": 0.0, "whole_seconds": 0.2}
    monkeypatch.setattr(bench.Plan, "quick", lambda self: dataclasses.replace(self, **fewest))
    monkeypatch.setattr(sys, "executable", warm.python())
    model = save_tiny_model(tmp_path / "model")
    written = tmp_path / "bench.json", tmp_path / "bench.png"
    code, out, err = command(
        "--model", model, "--quick", "--threads", "1", "--backends", "eager", "--precisions", "fp32,int8",
        "--json", written[0], "--picture", written[1],
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bench.json", "bench.png", "model"]
    found = json.loads(written[0].read_text())
    assert found["model"] == str(model)
    assert found["machine"]["cores"] >= 1
    assert [record["threads"] for record in found["limits"]] == [1]
    ways = [(record["backend"], record["way"]) for record in found["memory"]]
    assert ways == [("plain eager", "offline"), ("eager", "streaming"), ("eager", "offline")]
    assert [left["what"] for left in found["not_measured"]] == ["eager int8"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    for part in (
        "Offline, 1 thread",
        "Streaming, 1 thread",
        "Latency, 1 thread",
        "Memory",
        "not measured: eager int8",
    ):
        assert part in out
    assert noise_percent(found) >= 0
    assert [table.row_count for table in bench_tables(found)] == [2, 2, 2, 2]
    assert len(bench_picture(found).axes) == 2


def test_steps_are_told(tmp_path, tiny_plan, monkeypatch):
    def measure(plan, threads, memory_of, on_case):
        if memory_of is None:
            for number in range(timing.cases(plan)):
                on_case(f"case {number}")
            return {"offline": [threads], "generator": {"n": threads}, "not_measured": [{"what": "a"}]}
        if memory_of[0] == "eager":
            raise RuntimeError("killed")
        return {"memory": [memory_of]}

    monkeypatch.setattr(run, "_measure", measure)
    model = save_tiny_model(tmp_path / "model")
    one = dataclasses.replace(tiny_plan, model=str(model), memory_seconds=1.0, threads=(1, 2))
    told = []
    result = bench.run_bench(one, told.append)
    assert len(told) == bench.steps(one)
    assert told[0] == "1 thread: case 0"
    assert "2 threads: case 1" in told
    assert result["offline"] == [1, 2]
    assert result["memory"] == [("plain eager", "fp32")]
    assert result["not_measured"] == [
        {"what": "a, 1 thread"},
        {"what": "a, 2 threads"},
        {"what": "memory, eager fp32", "reason": "killed"},
    ]


def test_a_process_that_dies_says_why():
    assert "SIGKILL" in run._why(-9, "")
    assert "out of memory" in run._why(-9, "")
    assert run._why(1, "Traceback:\n  x\nKeyError: 'a'\n").endswith("KeyError: 'a'")


def test_a_library_that_prints_does_not_spoil_the_answer(tmp_path, tiny_plan):
    model = save_tiny_model(tmp_path / "model")
    job = {"plan": vars(tiny_plan) | {"model": str(model)}, "threads": 1, "memory_of": ["eager", "fp32"]}
    job["plan"]["memory_seconds"] = 0.1
    code = "import gansound.model_folder as m, os; old = m.load_model_folder\n"
    code += (
        "def noisy(path, **more):\n    print('noise'); os.system('echo noise'); return old(path, **more)\n"
    )
    code += "m.load_model_folder = noisy\nfrom gansound.inference.bench import worker; worker.main()\n"
    done = subprocess.run(
        [warm.python(), "-c", code],
        input=json.dumps(job), capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert [list(json.loads(line)) for line in done.stdout.splitlines()] == [["result"]]
    assert "noise" in done.stderr


def test_a_generator_that_does_not_stream_is_refused(tiny_plan):
    plain = type(
        "Model", (), {"generator": nn.Identity(), "mel": SPEC, "frame_spec": SPEC, "path": "somewhere"}
    )()
    with pytest.raises(ValueError, match="somewhere: Identity doesn't stream"):
        timing.Bench(plain, tiny_plan, lambda case: None)


def test_a_generator_of_ones_own_is_allowed_in_the_processes_too(command, tmp_path, monkeypatch):
    (tmp_path / "own_bench_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", warm.python())
    fewest = {"offline_seconds": (0.1,), "chunk_frames": (1,), "whole_seconds": 0.1, "memory_seconds": 0.1}
    fewest |= {"rounds": LEAST_ROUNDS, "sample_seconds": 0.0}
    monkeypatch.setattr(bench.Plan, "quick", lambda self: dataclasses.replace(self, **fewest))
    model = save_tiny_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["generator"]["class_path"] = "own_bench_net.Own"
    (model / "config.json").write_text(json.dumps(config))
    asked = "--model", model, "--quick", "--threads", "1", "--backends", "eager", "--precisions", "fp32"
    code, _, err = command(*asked)
    assert code == 1
    assert "--allow own_bench_net" in err
    for convention in ([], ["--mel", "hifigan"]):
        code, out, err = command(*asked, "--allow", "own_bench_net", *convention)
        assert (code, err) == (0, "")
        assert "not measured" not in out


def test_drawn_weights_reach_the_worker_by_a_model_folder(tmp_path):
    from gansound.cli.bench import _drawn
    from gansound.model_folder import save_model_folder

    generator, spec = _drawn("gansound.generators.melgan.MelGANGenerator")
    assert sum(p.numel() for p in generator.parameters()) == 4_260_257
    config = {"class_path": "gansound.generators.melgan.MelGANGenerator"}
    loaded = load_model_folder(save_model_folder(tmp_path / "m", generator, spec, config=config)).generator
    for mine, theirs in zip(generator.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, theirs)
