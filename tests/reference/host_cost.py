"""What a training step costs the processor besides its networks: `python -m tests.reference.host_cost`.

On a GPU that time is only hidden while the networks take longer, so it is what small networks are bound by. The
networks here are as small as they get; counted is the process's own time in all sections of a step but those in which
networks compute, forward and backward: draws, transfers, mels, losses, optimizers, the average, figures.

`--against DIR`, another checkout, measures both in turns in processes of their own and prints the median of the
paired ratios, since the machine's pace changes from minute to minute. Never run by pytest: a test that times is a test
that fails.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NETWORKS = (
    "generator forward",
    "discriminator forward",
    "discriminator forward, for the generator",
    "discriminator backward",
    "generator backward",
    "penalties",
)
WARM_UP_STEPS = 10
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4, "fused": True}}


def main() -> None:
    """Print milliseconds a step of this checkout, or of two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--fused", action="store_true", help="fused optimizers, which a GPU's parameters get")
    parser.add_argument("--json", action="store_true", help="one measurement, for the pairs")
    args = parser.parse_args()
    if args.json:
        print(json.dumps(measure(args.steps, args.fused)))
        return
    here = Path(__file__).resolve().parents[2]
    trees = {"this checkout": here} | ({} if args.against is None else {str(args.against): args.against})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for _ in range(args.pairs):
        for name, tree in trees.items():
            found[name].append(in_process(tree, args))
    for recipe in found["this checkout"][0]:
        for name, times in found.items():
            host = statistics.median(one[recipe]["host_ms"] for one in times)
            step = statistics.median(one[recipe]["step_ms"] for one in times)
            print(f"{recipe}, {name}: {host:.2f} ms a step besides the networks, {step:.2f} ms in all")
        if args.against is not None:
            pairs = list(zip(found["this checkout"], found[str(args.against)], strict=True))
            for key in ("host_ms", "step_ms"):
                ratio = statistics.median(mine[recipe][key] / its[recipe][key] for mine, its in pairs)
                print(f"{recipe}: {key} is {ratio:.2f} of the other's, median of {len(pairs)} pairs")


def in_process(tree: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement with the code of `tree`."""
    command = [sys.executable, str(Path(__file__).resolve()), "--json", "--steps", str(args.steps)]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [*command, *(["--fused"] if args.fused else [])],
        env=environment, cwd=tree, check=True, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    measured: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return measured


def measure(steps: int, fused: bool) -> dict[str, dict[str, float]]:
    """Milliseconds a step, `host_ms` of them outside the networks, by recipe."""
    import torch

    from gansound.engine.plan import plan
    from gansound.engine.run import Run
    from gansound.recipe import load_recipe
    from gansound.sections import Stopwatch
    from tests.clips import write_sounds
    from tests.corpus import write_corpus

    torch.set_num_threads(1)
    least = {"data.workers": 0, "threads": 1, "validate_every": None, "trackers": [], "ema_decay": 0.999}
    if fused:
        least |= {f"{side}_optimization.optimizer": ADAM for side in ("generator", "discriminator")}
    vocoder = {
        "generator.init_args": {"channels": 16, "residual_dilations": [1, 3]},
        "discriminators.msd.network.init_args": {"scales": 3, "channels": 4, "layers": 3, "max_channels": 16},
        "data.segment_samples": 1024,
        "batch_size": 2,
    }
    clip = {
        "generator.init_args": {"clip_samples": 1024, "dim": 2},
        "discriminators.wave.network.init_args": {"clip_samples": 1024, "dim": 2, "phase_shuffle": 1},
        "data.segment_samples": 1024,
        "batch_size": 64,
    }
    found = {}
    with TemporaryDirectory() as folder:
        voices, sounds = write_corpus(Path(folder) / "voices"), write_sounds(Path(folder) / "sounds")
        for name, sizes, corpus in (
            ("melgan_ljspeech", vocoder, voices),
            ("wavegan_tiny_cpu", clip, sounds),
        ):
            recipe = load_recipe(name, least | sizes | {"data.path": str(corpus)})
            run = Run(plan(recipe), Path(folder) / name)
            batches = run.feed.batches(0, 0, 1, False)
            rounds = [next(batches) for _ in range(run.task.critic_steps)]
            for step in range(WARM_UP_STEPS):
                run.step(step, rounds)
            with Stopwatch(time.process_time).running() as watch:
                for step in range(steps):
                    run.step(step, rounds)
                spent = watch.lap()
            host = sum(seconds for section, seconds in spent.items() if section not in NETWORKS)
            found[name] = {"host_ms": 1e3 * host / steps, "step_ms": 1e3 * sum(spent.values()) / steps}
    return found


if __name__ == "__main__":
    main()
