"""Steps fed from shards over HTTP beside steps fed from files: `python -m tests.reference.shards_speed PREPARED`.

Both train `tiny_cpu` on one thread with one loading process and nothing kept in memory, by turns in one process, a few
steps each; the server is another process on loopback that waits as long as told before each answer. Prints the median
of the paired ratios. Never run by pytest.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from gansound.data.pack import write_shards
from gansound.data.source import open_corpus
from gansound.engine.feed import Feed
from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.recipe import load_recipe
from tests.store_server import serving


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("prepared", type=Path, help="what `gansound data prepare` wrote")
    parser.add_argument("--recipe", default="tiny_cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="shards-speed-") as folder:
        write_shards(open_corpus(args.prepared), folder)
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(Path(folder), args.latency_ms / 1000, there), daemon=True
        )
        server.start()
        places = {"files": str(args.prepared), "http": here.recv()}
        feeds = {name: steps(args, place) for name, place in places.items()}
        for feed in feeds.values():
            for _ in range(args.steps):
                next(feed)
        ratios, seconds = [], []
        for turn in range(args.turns):
            took = {}
            for name in list(feeds)[:: 1 if turn % 2 else -1]:
                begun = time.perf_counter()
                for _ in range(args.steps):
                    next(feeds[name])
                took[name] = time.perf_counter() - begun
            ratios.append(took["files"] / took["http"])
            seconds.append(took["files"] / args.steps)
        ratios.sort()
        print(
            f"steps a second from shards over HTTP at {args.latency_ms:g} ms, of those from files: median "
            f"{statistics.median(ratios):.3f} of {len(ratios)} pairs ({ratios[0]:.3f} to {ratios[-1]:.3f}); a step "
            f"{statistics.median(seconds):.3f} s"
        )


def serve(folder: Path, delay_seconds: float, told: Connection) -> None:
    """Until the process is ended."""
    with serving(folder) as server:
        server.delay_seconds = delay_seconds
        told.send(server.url)
        time.sleep(1e6)


def steps(args: argparse.Namespace, place: str) -> Iterator[Any]:
    """Whole steps of training, each on a batch that a loading process drew."""
    settings = {
        "data.path": place, "data.cache_gb": 0, "data.workers": 1, "batch_size": args.batch, "steps": 10**6,
    }  # fmt: skip
    planned = plan(load_recipe(args.recipe, settings))
    feed = Feed(planned.settings, planned.task)
    phases = Phases(planned.task, Accelerator(cpu=True), planned.optimizers)
    for batch in feed.batches(0, 0, 1, pin_memory=False):
        yield phases.step([[batch]], adversarial=True)


if __name__ == "__main__":
    main()
