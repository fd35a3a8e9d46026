"""What a manifest of millions costs: `python -m tests.reference.manifest_scale --entries 10000000`.

Writes one of names that lead nowhere, makes its index, opens it as training does in a process of its own, and draws
files in forked processes that live at once. Memory is PSS, each page divided among those that share it, summed up.
Never run by pytest.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from gansound.data.corpus import by_split
from gansound.data.segments import SegmentDataset
from gansound.data.source import open_corpus

SPLITS = ("train",) * 18 + ("valid", "test")


def main() -> None:
    """Print seconds, megabytes and microseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--draws", type=int, default=100_000, help="of each worker")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open is not None:
        measure(args.open, args.workers, args.draws)
        return
    with tempfile.TemporaryDirectory(prefix="manifest-scale-") as folder:
        manifest = Path(folder) / "manifest.jsonl"
        write(manifest, args.entries)
        print(f"{args.entries:,} entries, {manifest.stat().st_size / 1e6:.0f} MB")
        begun = time.perf_counter()
        open_corpus(manifest)
        index = manifest.with_name("manifest.jsonl.index").stat().st_size
        print(f"index made in {time.perf_counter() - begun:.1f} s, {index / 1e6:.0f} MB", flush=True)
        again = ["--open", str(manifest), "--workers", str(args.workers), "--draws", str(args.draws)]
        subprocess.run([sys.executable, "-m", "tests.reference.manifest_scale", *again], check=True)


def write(manifest: Path, entries: int) -> None:
    """Lines as of a corpus of many speakers, with texts."""
    with manifest.open("w") as file:
        for i in range(entries):
            file.write(
                f'{{"path": "audio/{i % 7919:04d}/{i // 1000 % 97:02d}/utterance_{i:09d}.flac", "sample_rate": 24000, '
                f'"frames": {24000 + i * 7919 % 360000}, "speaker": "{i % 7919:04d}", "text": "It was the best of '
                f'times, it was the worst of them, number {i}.", "split": "{SPLITS[i * 31 % 20]}"}}\n'
            )


def measure(manifest: Path, workers: int, draws: int) -> None:
    """Open and draw."""
    before = memory()
    begun = time.perf_counter()
    data = SegmentDataset(
        by_split(open_corpus(manifest))["train"], sample_rate=24000, segment_samples=8192, seed=0
    )
    print(f"opened {len(data.records):,} of split train in {time.perf_counter() - begun:.2f} s")
    begun = time.perf_counter()
    fingerprint = data.records.fingerprint
    print(f"fingerprint {fingerprint} in {time.perf_counter() - begun:.2f} s")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(workers + 1)
    seconds = context.Queue()
    processes = [
        context.Process(target=draw, args=(data, w, draws, barrier, seconds)) for w in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait()  # all have drawn
    each = [memory(process.pid) for process in processes]
    total = memory() + sum(each)
    barrier.wait()
    for process in processes:
        process.join()
    cost = [seconds.get() for _ in processes]
    print(
        f"memory of the parent and {workers} workers together: {total / 1e6:.0f} MB PSS, of which {before / 1e6:.0f} "
        f"MB before anything was opened; each worker {max(each) / 1e6:.0f} MB"
    )
    print(f"a draw and its record: {1e6 * max(cost) / draws:.0f} µs of processor time")


def draw(
    data: SegmentDataset, worker: int, draws: int, barrier: Barrier, seconds: "multiprocessing.Queue[float]"
) -> None:
    """Name the files of a worker's positions."""
    begun = time.process_time()
    for position in range(worker * draws, (worker + 1) * draws):
        data.file(position)
    seconds.put(time.process_time() - begun)
    barrier.wait()
    barrier.wait()


def memory(pid: int | None = None) -> int:
    """PSS of a process in bytes."""
    for line in Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise ValueError("no Pss")


if __name__ == "__main__":
    main()
