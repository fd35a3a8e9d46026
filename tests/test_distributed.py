"""Two processes train as one does: the same global batches, the same weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gansound.engine.checkpoint import checkpoints
from gansound.engine.history import read_run
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.recipe import load_recipe
from tests.corpus import write_corpus

TRAIN = """
import json, os
from pathlib import Path
from gansound.engine.history import read_run
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.recipe import RecipeError
for run in json.loads(os.environ["RUNS"]):
    try:
        Run(plan(run["recipe"]), Path(run["folder"])).fit()
    except RecipeError as error:
        print("refused:", error)
"""

# Plain gradient descent: the weights then differ as the gradients do, and no root of a tiny moment magnifies rounding.
SGD = {
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.003}},
    "schedule": {"warmup_steps": 0, "decay": "constant"},
    "clip_norm": 1.0,
}
TINY = {
    "generator.init_args": {"channels": 16, "hidden_channels": 32, "blocks": 1},
    "discriminators.msd.network.init_args": {"scales": 2, "channels": 4, "layers": 2, "max_channels": 16},
    "generator_optimization": SGD,
    "discriminator_optimization": SGD,
    "data.segment_samples": 2048,
    "data.workers": 0,
    "batch_size": 4,
    "threads": 1,
    "adversarial_from": 1,
    "log_every": 1,
    "checkpoint_every": 2,
    "validate_every": None,
}


def recipe(corpus: Path, steps: int, **more: object) -> dict:
    return load_recipe("tiny_cpu", TINY | {"data.path": str(corpus), "steps": steps} | more)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def train_by_two(runs: list[tuple[dict, Path]]) -> list[tuple[int, str]]:
    """Exit code and output of both processes, started as torchrun starts them."""
    environment = os.environ | {
        "RUNS": json.dumps([{"recipe": r, "folder": str(folder)} for r, folder in runs]),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def state(folder: Path, part: str) -> torch.Tensor:
    tensors = load_file(checkpoints(folder / "checkpoints")[-1] / f"{part}.safetensors")
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def losses(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("step_seconds", "data_share")} for line in lines]


def assert_close(folder: Path, one: Path, within: float) -> None:
    for part in ("generator", "discriminator", "generator_average"):
        ours, theirs = state(folder, part), state(one, part)
        assert torch.linalg.vector_norm(ours - theirs) <= within * torch.linalg.vector_norm(theirs), part
    for line, expected in zip(losses(folder), losses(one), strict=True):
        assert line.keys() == expected.keys()
        assert line == pytest.approx(expected, rel=1e-2)


@pytest.mark.slow  # 30 s beside a training, most of it imports
def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    one = tmp_path / "one"
    first = Run(plan(recipe(corpus, 4)), one)
    start = torch.cat([p.detach().double().flatten() for p in first.task.generator.parameters()])
    first.fit()
    moved = torch.cat([p.detach().double().flatten() for p in first.task.generator.parameters()]) - start
    assert torch.linalg.vector_norm(moved) > 3e-4 * torch.linalg.vector_norm(start), "else equal means little"
    two, parted, uneven = tmp_path / "two", tmp_path / "parted", tmp_path / "uneven"
    done = train_by_two(
        [
            (recipe(corpus, 2), two),
            (recipe(corpus, 4), two),  # resumed by both
            (recipe(corpus, 4, micro_batches=2), parted),
            (recipe(corpus, 4, micro_batches=4), uneven),
        ]
    )
    assert [code for code, _ in done] == [0, 0], done
    assert_close(two, one, 1e-5)
    assert_close(parted, one, 1e-5)
    # One process that works through the same halves makes the same sums, so that nothing is left to rounding.
    halved = tmp_path / "halved"
    Run(plan(recipe(corpus, 4, micro_batches=2)), halved).fit()
    assert_close(two, halved, 1e-7)
    begun = [(start["step"], start["processes"], start["end"]["how"]) for start in read_run(two).sessions]
    assert begun == [(0, 2, "finished"), (2, 2, "finished")], "one of the processes writes it down"
    for _, text in done:
        assert "refused: batch_size 4 must be a multiple of 2 processes times micro_batches 4" in text
    assert not uneven.exists()
