"""How many samples two processes train on in the time of one: `python -m tests.reference.scaling`.

One thread a process, gloo, a corpus made on the spot. Four ways take turns, a few steps each, in rounds, and what is
compared is the ratio within a round, since the machine's pace changes from minute to minute:

- `one`: one process, the batch of one;
- `weak`: two processes, that batch each;
- `strong`: two processes, half of that batch each;
- `apart`: two processes that know nothing of each other, that batch each: what the machine has to give.

Beside the wall clock stands the processor time that a sample costs, which other programs on the machine disturb less;
a process that waits for another spends none. Never run by pytest: a test that times is a test that fails.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.corpus import write_corpus

SETTINGS = {"validate_every": None, "threads": 1, "data.workers": 0, "adversarial_from": 0, "steps": 10**6}
BATCH = {"melgan_ljspeech": 4, "tiny_cpu": 8, "wavegan_tiny_cpu": 16}
WAYS = {"one": (1, 1.0), "weak": (2, 1.0), "strong": (2, 0.5), "apart": (1, 1.0)}  # ranks, share of the batch


def main() -> None:
    """Print the medians of the paired ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipes", nargs="*", default=list(BATCH), metavar="RECIPE", help=f"default: {', '.join(BATCH)}"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a way has its turn")
    parser.add_argument("--batch", type=int, help="of a process (default: a small one of the recipe's)")
    parser.add_argument("--ddp", type=json.loads, default={}, help="other arguments for DDP, as JSON")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.worker)
        return
    with tempfile.TemporaryDirectory(prefix="gansound-scaling-") as folder:
        corpus = write_corpus(Path(folder) / "corpus", files=24, seconds=1.5)
        for name in args.recipes:
            batch = args.batch or BATCH.get(name, 8)
            compare(name, batch, corpus, Path(folder), args.rounds, args.seconds, args.ddp)


def compare(
    name: str, batch: int, corpus: Path, folder: Path, rounds: int, seconds: float, ddp: dict[str, Any]
) -> None:
    """Time one recipe in all ways, and print."""
    groups: dict[str, list[Process]] = {}
    try:
        for way, (ranks, share) in WAYS.items():
            what = {
                "recipe": name,
                "changes": SETTINGS | {"data.path": str(corpus), "batch_size": round(batch * share) * ranks},
                "run": str(folder / f"{name}-{way}"),
                "ddp": ddp,
            }
            groups[way] = start(what, ranks)
        groups["apart"] = [groups["one"][0], groups["apart"][0]]
        for way in groups:
            together(groups[way], 3)  # the first holds the imports
        a_step = together(groups["one"], 3)[0] / 3
        steps = max(2, round(seconds / a_step))
        speeds: dict[str, list[float]] = {way: [] for way in groups}
        costs: dict[str, list[float]] = {way: [] for way in groups}
        for _ in range(rounds):
            for way, processes in groups.items():
                samples = steps * batch * WAYS[way][1] * len(processes)
                wall, processor = together(processes, steps)
                speeds[way].append(samples / wall)
                costs[way].append(processor / samples)
    finally:
        for process in {p for processes in groups.values() for p in processes}:
            process.stop()
    print(
        f"{name}: batch {batch} a process, {rounds} rounds of {steps} steps{', ' + json.dumps(ddp) if ddp else ''}"
    )
    for way in groups:
        against = [s / o for s, o in zip(speeds[way], speeds["one"], strict=True)]
        cost = [2 * o / c if way != "one" else 1.0 for c, o in zip(costs[way], costs["one"], strict=True)]
        print(
            f"  {way:7} {statistics.median(speeds[way]):8.2f} samples/s, {statistics.median(against):.2f} times one "
            f"({min(against):.2f} to {max(against):.2f}); by processor time {statistics.median(cost):.2f}"
        )
    shares = [w / a for w, a in zip(speeds["weak"], speeds["apart"], strict=True)]
    print(
        f"  weak/apart {statistics.median(shares):.3f} ({min(shares):.2f} to {max(shares):.2f})", flush=True
    )


class Process:
    """A process that trains so many steps whenever it is told to."""

    def __init__(self, what: dict[str, Any], rank: int, ranks: int, port: int) -> None:
        own = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {key: str(value) for key, value in own.items()} if ranks > 1 else {}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore::FutureWarning",
                "-m",
                "tests.reference.scaling",
                "--worker",
                json.dumps(what),
            ],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, steps: int) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()

    def hear(self) -> float:
        """Wait until it is done; the processor time it took, in seconds."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def start(what: dict[str, Any], ranks: int) -> list[Process]:
    """The processes of one run."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
    return [Process(what, rank, ranks, port) for rank in range(ranks)]


def together(processes: list[Process], steps: int) -> tuple[float, float]:
    """Wall-clock seconds until all have done their steps, and the processor time of all."""
    begun = time.perf_counter()
    for process in processes:
        process.tell(steps)
    processor = sum(process.hear() for process in processes)
    return time.perf_counter() - begun, processor


def work(what: dict[str, Any]) -> None:
    """Train as told on stdin."""
    import functools
    import itertools

    from gansound.engine import processes
    from gansound.engine.plan import plan
    from gansound.engine.run import Run
    from gansound.recipe import load_recipe

    processes.DistributedDataParallelKwargs = functools.partial(  # type: ignore[misc,assignment]
        processes.DistributedDataParallelKwargs, **what["ddp"]
    )
    run = Run(plan(load_recipe(what["recipe"], what["changes"])), Path(what["run"]))
    batches = run.feed.batches(
        0, rank=run.accelerator.process_index, ranks=run.accelerator.num_processes, pin_memory=False
    )
    numbers = itertools.count()
    for line in sys.stdin:
        begun = time.process_time()
        for _ in range(int(line)):
            run.step(next(numbers), [next(batches) for _ in range(run.task.critic_steps)])
        print(time.process_time() - begun, flush=True)


if __name__ == "__main__":
    main()
