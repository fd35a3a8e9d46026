"""How many batches the loader gives beside what the tiny recipe takes: `python -m tests.reference.loader_speed DIR`.

Batches of 16 x 8192 samples by worker processes, as the engine asks for them: from memory (warm), into memory for the
first time (cold), and from disk alone (off). By the clock, and by the workers' processor time, which a machine that
others share tells more truly. Never run by pytest.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

from torch.utils.data import DataLoader

from gansound.data.corpus import by_split
from gansound.data.items import collate
from gansound.data.segments import PositionSampler, SegmentDataset
from gansound.data.source import open_corpus

BATCH, SEGMENT_SAMPLES = 16, 8192
TINY_STEP_SECONDS, TINY_BATCH = 0.1, 8  # recipes/tiny_cpu.yaml on a CPU core


def main() -> None:
    """Print batches a second and how many tiny steps' worth that is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a corpus")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    begun = time.perf_counter()
    records = by_split(open_corpus(args.folder))["train"]
    rate = records[0].sample_rate
    print(f"{len(records)} files opened in {time.perf_counter() - begun:.2f} s")
    for name, cache_bytes, warm in (("warm", 2**31, True), ("cold", 2**31, False), ("off", 0, False)):
        rates, by_cpu, made = [], [], []
        for _ in range(args.rounds):
            begun = time.perf_counter()
            data = SegmentDataset(
                records, sample_rate=rate, segment_samples=SEGMENT_SAMPLES, seed=0, cache_bytes=cache_bytes
            )
            made.append(time.perf_counter() - begun)
            if warm:
                for index in range(len(records)):
                    data.source.read(index, 0, 1)
            wall, cpu = seconds_a_batch(data, args.workers, args.batches)
            rates.append(1 / wall)
            by_cpu.append(args.workers / cpu)
        times = BATCH / TINY_BATCH * TINY_STEP_SECONDS
        clock, processor = statistics.median(rates), statistics.median(by_cpu)
        print(
            f"{name:5} {clock:6.1f} batches a second, {clock * times:5.1f} times what the tiny recipe takes; by the "
            f"workers' processor time {processor:6.1f}, {processor * times:5.1f} times; made in "
            f"{statistics.median(made):.2f} s",
            flush=True,
        )


def seconds_a_batch(data: SegmentDataset, workers: int, batches: int) -> tuple[float, float]:
    """By the clock from the first batch to the last, without the start of the processes; and their processor time."""
    before = os.times()
    loader = DataLoader(
        data,
        batch_size=BATCH,
        sampler=PositionSampler(0, BATCH * (batches + 1)),
        num_workers=workers,
        collate_fn=collate,
    )
    loaded = iter(loader)
    next(loaded)
    begun = time.perf_counter()
    for _ in loaded:
        pass
    wall = time.perf_counter() - begun
    del loaded  # waits for the workers, so that their time counts
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall / batches, cpu / batches


if __name__ == "__main__":
    main()
