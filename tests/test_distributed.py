"""Two processes train as one does: the same global batches, the same weights; and they stop as one."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gansound.engine.checkpoint import checkpoints
from gansound.engine.history import read_run
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.recipe import load_recipe, to_yaml
from tests import warm
from tests.clips import small_wave, write_sounds
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, losses

ROOT = Path(__file__).parents[1]

# Plain gradient descent: the weights then differ as the gradients do, and no root of a tiny moment magnifies rounding.
SGD = {
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.003}},
    "schedule": {"warmup_steps": 0, "decay": "constant"},
    "clip_norm": 1.0,
}
# MelGAN, whose losses are smooth enough: a phase loss jumps where a phase wraps, and in twenty steps makes 1e-3 of what
# was 1e-10, in one process as in two.
SMALL = {
    "generator.init_args": {"channels": 32},
    "discriminators.msd.network.init_args": {"scales": 2, "channels": 4, "layers": 2, "max_channels": 16},
    "generator_optimization": SGD,
    "discriminator_optimization": SGD,
    "data.segment_samples": 2048,
    "data.workers": 0,
    "batch_size": 4,
    "ema_decay": 0.99,
    "threads": 1,
    "log_every": 1,
    "checkpoint_every": 10,
    "validate_every": None,
}
# What stands in for `python -m gansound` where a fault is to be put into one process at one step.
FAULTY = """
import os, sys, threading
from gansound.cli import main
from gansound.engine.run import Run
real, calls = Run.step, 0
def step(self, at, rounds):
    if os.environ["RANK"] == os.environ["FAULTY_RANK"] and at == int(os.environ["FAULTY_STEP"]):
        open(os.environ["WITNESS"], "w").write(os.environ["RANK"])
        for thread in threading.enumerate():
            if thread.name.startswith("the checkpoint of step"):  # which is there, then
                thread.join()
        if os.environ["FAULT"] == "killed":
            os.kill(os.getpid(), 9)
        if os.environ["FAULT"] == "stopped":
            os.kill(os.getpid(), 19)
            return real(self, at, rounds)
        raise ValueError("a rare fault of one process")
    return real(self, at, rounds)
Run.step = step
sys.exit(main())
"""


def vocoder(corpus: Path, steps: int, **more: object) -> dict[str, Any]:
    return load_recipe("melgan_ljspeech", SMALL | {"data.path": str(corpus), "steps": steps} | more)


def wavegan(sounds: Path, steps: int, **more: object) -> dict[str, Any]:
    return small_wave(sounds, steps, generator_optimization=SGD, discriminator_optimization=SGD, **more)


def taking_turns(corpus: Path, steps: int, **more: object) -> dict[str, Any]:
    """In some steps both discriminators learn, in others one or none; on crops, balanced, with turned phases."""
    period = "gansound.discriminators.multi_period.MultiPeriodDiscriminator"
    changes = {
        "discriminators.msd.every": 2,
        "discriminators.msd.crop_samples": 1024,
        "discriminators.mpd": {
            "network": {"class_path": period, "init_args": {"periods": [2, 3], "channels": 1}},
            "every": 3,
        },
        "losses.mel": {"loss": {"class_path": "gansound.losses.spectral.MelL1"}, "weight": 45.0},
        "balance": {"class_path": "gansound.tasks.balance.LossBalance"},
        "phase_augmentation": {"class_path": "gansound.discriminators.augmentation.phase.PhaseAugmentation"},
        "penalties.r1": {"class_path": "gansound.losses.penalties.R1", "init_args": {"every": 4}},
    }
    return vocoder(corpus, steps, **changes, **more)


@contextmanager
def meeting_place() -> Iterator[dict[str, str]]:
    """The environment of two processes that meet at a store of ours, as at torchrun's, on a port that we hold."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
    del store


@contextmanager
def started(
    command: Sequence[str], stderr: int = subprocess.STDOUT, **env: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes of a command that meet; killed in the end."""
    with meeting_place() as place:
        processes = [
            subprocess.Popen(
                command,
                env=os.environ | env | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()


@contextmanager
def two(recipe: dict[str, Any], run: Path, program: Sequence[str] = ("-m", "gansound"), **env: str) -> Iterator[
    list[subprocess.Popen[str]]
]:  # fmt: skip
    """Both processes of `gansound train`, started as torchrun starts them; killed in the end."""
    file = run.with_name(f"{run.name}.yaml")
    file.write_text(to_yaml(recipe))
    with started([warm.python(), *program, "train", str(file), "--run", str(run)], **env) as processes:
        yield processes


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and output of each."""
    said = [process.communicate(timeout=800)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def train_by_two(recipe: dict[str, Any], run: Path) -> None:
    with two(recipe, run) as processes:
        done = ended(processes)
    assert [code for code, _ in done] == [0, 0], done


def train(recipe: dict[str, Any], run: Path) -> Path:
    Run(plan(recipe), run).fit()
    return run


def state(folder: Path, part: str) -> torch.Tensor:
    tensors = load_file(checkpoints(folder / "checkpoints")[-1] / f"{part}.safetensors")
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def assert_close(folder: Path, one: Path, within: float, parts: Sequence[str]) -> None:
    for part in parts:
        ours, theirs = state(folder, part), state(one, part)
        apart = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs)
        assert apart <= within, f"{part}: {apart:.2e}"
    for line, expected in zip(losses(folder), losses(one), strict=True):
        assert line.keys() == expected.keys()
        assert line == pytest.approx(expected, rel=1e-2, abs=1e-4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.mark.slow  # two processes, most of it imports
@pytest.mark.parametrize("kind", ["vocoder", "vocoder taking turns", "wavegan with its penalty"])
def test_two_processes_give_the_weights_of_one_after_twenty_steps(
    kind: str, corpus: Path, sounds: Path, tmp_path: Path
) -> None:
    make, where = {
        "vocoder": (vocoder, corpus),
        "vocoder taking turns": (taking_turns, corpus),
        "wavegan with its penalty": (wavegan, sounds),
    }[kind]
    parts = ["generator", "discriminator"] + ["generator_average"] * ("vocoder" in kind)
    start = torch.cat(
        [p.detach().double().flatten() for p in plan(make(where, 20)).task.generator.parameters()]
    )
    one = train(make(where, 20), tmp_path / "one")
    moved = torch.linalg.vector_norm(state(one, "generator") - start) / torch.linalg.vector_norm(start)
    assert moved > 1e-3, "else equal means little"
    train_by_two(make(where, 20), tmp_path / "two")
    assert_close(tmp_path / "two", one, 1e-5, parts)
    # One process that works through the same halves makes the same sums, so that nothing is left to rounding.
    halved = train(make(where, 20, micro_batches=2), tmp_path / "halved")
    assert_close(halved, one, 1e-5, parts)
    assert_close(tmp_path / "two", halved, 1e-6, parts)
    if kind == "wavegan with its penalty":
        assert all(line["gradient/wave"] > 0 for line in losses(one))


@pytest.mark.slow
def test_a_resume_may_change_the_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    one = train(vocoder(corpus, 20), tmp_path / "one")
    parts = ("generator", "discriminator", "generator_average")
    more = tmp_path / "more"
    train(vocoder(corpus, 10), more)
    train_by_two(vocoder(corpus, 20), more)
    assert_close(more, one, 1e-5, parts)
    begun = [(start["step"], start["processes"], start["end"]["how"]) for start in read_run(more).sessions]
    assert begun == [(0, 1, "finished"), (10, 2, "finished")], "one of the processes writes it down"
    fewer = tmp_path / "fewer"
    train_by_two(vocoder(corpus, 10), fewer)
    train(vocoder(corpus, 20), fewer)
    assert_close(fewer, one, 1e-5, parts)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("fault", ["killed", "an error"])
def test_a_process_that_dies_stops_all(corpus: Path, tmp_path: Path, rank: int, fault: str) -> None:
    run, witness = tmp_path / "run", tmp_path / "witness"
    recipe = vocoder(corpus, 40, checkpoint_every=5)
    fault_there = {"FAULTY_RANK": str(rank), "FAULTY_STEP": "13", "FAULT": fault, "WITNESS": str(witness)}
    with two(recipe, run, ("-c", FAULTY), **fault_there) as processes:
        done = ended(processes)
    assert witness.read_text() == str(rank)
    code, said = done[rank]
    other_code, other_said = done[1 - rank]
    assert other_code == 1
    assert "Traceback" not in other_said
    if fault == "killed":
        assert code == -signal.SIGKILL
        assert "gone without a message" in other_said
    else:
        assert code == 1
        assert "error: a rare fault of one process" in said
        assert f"process {rank} failed: a rare fault of one process" in other_said
    assert "The last checkpoint is good" in other_said
    assert checkpoints(run / "checkpoints")[-1].name == "step_00000010"
    # The same command goes on, and ends as if nothing had been.
    train_by_two(vocoder(corpus, 20, checkpoint_every=5), run)
    whole = tmp_path / "whole"
    train_by_two(vocoder(corpus, 20, checkpoint_every=5), whole)
    assert_same_run(run, whole)
    assert not list((run / "failures").glob("*")), "old messages tell nobody off"


@pytest.mark.slow
def test_all_processes_skip_what_is_not_a_number_in_one(corpus: Path, tmp_path: Path) -> None:
    poison = FAULTY.replace(
        "real, calls = Run.step, 0",
        "from gansound.engine.phases import Phases\nreal, draws = Run.step, Phases._generate",
    ).replace(
        "        if os.environ",
        "        rounds[0]['audio'][:] = float('nan')\n        return real(self, at, rounds)\n        if os.environ",
    )
    assert "float('nan')" in poison
    run, witness = tmp_path / "run", tmp_path / "witness"
    fault_there = {"FAULTY_RANK": "1", "FAULTY_STEP": "3", "FAULT": "nan", "WITNESS": str(witness)}
    with two(vocoder(corpus, 6), run, ("-c", poison), **fault_there) as processes:
        done = ended(processes)
    assert [code for code, _ in done] == [0, 0], done
    assert witness.exists()
    (event,) = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert (event["step"], event["event"]) == (4, "skipped")
    assert 1 <= len(event["files"]) <= 4
    lines = losses(run)
    assert [line.get("skipped_steps") for line in lines] == [None, None, None, 1, 1, 1]
    assert all(np.isfinite(list(line.values())).all() for line in lines)


@pytest.mark.slow
def test_a_batch_that_cannot_be_dealt_is_refused(corpus: Path, tmp_path: Path) -> None:
    with two(vocoder(corpus, 4, micro_batches=4), tmp_path / "run") as processes:
        done = ended(processes)
    assert [code for code, _ in done] == [2, 2]
    assert all(
        "batch_size 4 must be a multiple of 2 processes times micro_batches 4" in said for _, said in done
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "gansound"],
        # On a machine without GPUs it would start two processes by mpirun only, so it is told of GPUs.
        [
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "2",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            "-m",
            "gansound",
        ],
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_launchers_start_the_same_command(launcher: list[str], corpus: Path, tmp_path: Path) -> None:
    by_hand = tmp_path / "by_hand"
    train_by_two(vocoder(corpus, 4), by_hand)
    run = tmp_path / "run"
    command = [warm.python(), *launcher, "train", str(tmp_path / "by_hand.yaml"), "-o", str(run)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHON_EXEC": warm.python()}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, env=environment)
    assert done.returncode == 0, done.stderr
    assert_same_run(run, by_hand)
    assert len(re.findall(re.escape(str(run / "model")), done.stdout)) == 1, "one of them speaks"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_killed_is_started_again_by_torchrun(corpus: Path, tmp_path: Path, rank: int) -> None:
    """All go on from the newest checkpoint, and end as if nothing had been."""
    file, program, run = tmp_path / "recipe.yaml", tmp_path / "program.py", tmp_path / "run"
    file.write_text(to_yaml(vocoder(corpus, 20, checkpoint_every=5)))
    once = 'os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] =='
    program.write_text(FAULTY.replace('os.environ["RANK"] ==', once, 1))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--max-restarts", "1"]
    fault = {
        "FAULTY_RANK": str(rank),
        "FAULTY_STEP": "13",
        "FAULT": "killed",
        "WITNESS": str(tmp_path / "witness"),
    }
    done = subprocess.run(
        [warm.python(), *launcher, str(program), "train", str(file), "-o", str(run)],
        cwd=ROOT, capture_output=True, text=True, timeout=800,
        env=os.environ | fault | {"CUDA_VISIBLE_DEVICES": "", "PYTHON_EXEC": warm.python()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "witness").read_text() == str(rank)
    assert "resuming" in done.stderr
    whole = tmp_path / "whole"
    train_by_two(vocoder(corpus, 20, checkpoint_every=5), whole)
    assert_same_run(run, whole)
    assert [session["step"] for session in read_run(run).sessions] == [0, 10]


@pytest.mark.slow
def test_one_that_stalls_is_named(corpus: Path, tmp_path: Path) -> None:
    fault = {"FAULTY_RANK": "1", "FAULTY_STEP": "3", "FAULT": "stopped", "WITNESS": str(tmp_path / "witness")}
    with two(vocoder(corpus, 20), tmp_path / "run", ("-c", FAULTY), **fault) as processes:
        said, stdout = "", processes[0].stdout
        assert stdout is not None
        while "all wait for process 1 of 2 (pid " not in said:
            said = stdout.readline()
            assert said, "it ended"
        pid = re.search(r"pid (\d+)", said)
        assert pid is not None
        silent = re.search(r"hasn.t been heard of for (\d+) s", said)
        assert silent is not None, said
        assert 20 <= int(silent[1]) < 60, said
        os.kill(int(pid[1]), signal.SIGCONT)
        done = ended(processes)
    assert [code for code, _ in done] == [0, 0], done


@pytest.mark.slow
def test_one_that_is_asked_to_stop_stops_all_at_one_step(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with two(vocoder(corpus, 100_000, checkpoint_every=100_000), run) as processes:
        until = time.monotonic() + 240
        while not ((run / "metrics.jsonl").exists() and losses(run)):
            assert [process.poll() for process in processes] == [None, None]
            assert time.monotonic() < until
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        done = ended(processes)
    assert [code for code, _ in done] == [130, 130], done
    (kept,) = checkpoints(run / "checkpoints")
    assert all(f"stopped as asked at step {int(kept.name.removeprefix('step_'))}" in said for _, said in done)
