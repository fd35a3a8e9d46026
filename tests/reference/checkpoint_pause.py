"""How long training stands for a checkpoint of a large state: `python -m tests.reference.checkpoint_pause`.

Two gloo processes of one thread hold the nets of a recipe, HiFi-GAN V1 with its discriminators and Adam's moments by
default (1.1 GB), make a step and save, some times. Told are, of the process that is slower, the pause; how long until
all is on the disk, if training waited for it; and what a plain write of as many bytes with fsync takes, for the disk's
pace. The first pause is longer: the copies' memory is then new. Never run by pytest: a test that times is a test that
fails.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.corpus import write_corpus

SETTINGS = {"validate_every": None, "threads": 1, "data.workers": 0, "adversarial_from": 0, "steps": 10**6}


def main() -> None:
    """Print a line a checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="hifigan_v1_ljspeech")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.worker)
        return
    with tempfile.TemporaryDirectory(prefix="gansound-pause-", dir=args.folder) as folder:
        changes = SETTINGS | {
            "data.path": str(write_corpus(Path(folder) / "corpus", files=8, seconds=1.5)),
            "batch_size": args.ranks,
            "data.segment_samples": 2048,
        }
        what = {"recipe": args.recipe, "changes": changes, "run": f"{folder}/run", "saves": args.saves}
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        own = {"OMP_NUM_THREADS": 1, "CUDA_VISIBLE_DEVICES": "", "WORLD_SIZE": args.ranks}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.reference.checkpoint_pause", "--worker", json.dumps(what)]
        processes = [
            subprocess.Popen(
                command,
                env=os.environ | {k: str(v) for k, v in {**own, "RANK": rank, "LOCAL_RANK": rank}.items()},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(args.ranks)
        ]
        said = [process.communicate()[0].splitlines() for process in processes]
    for lines in zip(*said, strict=True):
        told = [json.loads(line) for line in lines]
        size, plain = sum(one["bytes"] for one in told) / 1e9, told[0]["plain"]
        pause, written = (max(one[name] for one in told) for name in ("pause", "written"))
        print(
            f"{size:.2f} GB: training stood {pause:.2f} s, on the disk after {written:.2f} s; a plain write "
            f"{plain:.2f} s"
        )


def work(what: dict[str, Any]) -> None:
    """Step and save as told."""
    from gansound.engine.plan import plan
    from gansound.engine.run import Run
    from gansound.recipe import load_recipe

    run = Run(plan(load_recipe(what["recipe"], what["changes"])), Path(what["run"]))
    rank, ranks = run.accelerator.process_index, run.accelerator.num_processes
    batches = run.feed.batches(0, rank=rank, ranks=ranks, pin_memory=False)
    for step in range(what["saves"]):
        run.step(step, [next(batches) for _ in range(run.task.critic_steps)])
        run.accelerator.wait_for_everyone()
        begun = time.perf_counter()
        with run.kept.written():
            run.kept.save(step + 1)
            pause = time.perf_counter() - begun
        run.accelerator.wait_for_everyone()
        written = time.perf_counter() - begun
        path = Path(what["run"]) / "checkpoints" / f"step_{step + 1:08d}"
        size = sum(file.stat().st_size for file in path.iterdir()) if rank == 0 else 0
        seconds = plain_write(path.parent / "plain", size) if rank == 0 else 0.0
        print(json.dumps({"pause": pause, "written": written, "bytes": size, "plain": seconds}), flush=True)
        run.accelerator.wait_for_everyone()
    run.close()


def plain_write(file: Path, size: int) -> float:
    """Seconds that so many bytes take to the disk."""
    block = os.urandom(1 << 22)
    begun = time.perf_counter()
    with file.open("wb") as out:
        for _ in range(size // len(block)):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    seconds = time.perf_counter() - begun
    file.unlink()
    return seconds


if __name__ == "__main__":
    main()
