"""Training at a scale that no machine here has, on paper: `python -m tests.reference.scale` (docs/scale.md).

Works out what 10^5 hours on 64 GPUs ask of an index, a store, disks and patience, from figures that are measured here
or given on the command line; and measures an index of as many recordings, simulated: its columns are real, its lines
are there for the recordings that are drawn alone, and the rest of the file is a hole. Never run by pytest.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gansound.data.index import map_index, write_columns
from gansound.data.manifest import json_line
from gansound.data.segments import SegmentDataset

HEADER_BYTES, LINE_BYTES = 4096, 320
INDEX_BYTES = (
    LINE_BYTES + 8 + 4 + 4 + 1 + 4 + 4 + 4
)  # offset, length, rate, split; row, length, rate by split
RATE = 24_000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1e5, help="of the corpus")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a recording")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--gpus-a-node", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16, help="segments of a GPU")
    parser.add_argument("--segment", type=int, default=8192, help="samples")
    parser.add_argument("--steps-a-second", type=float, default=8.0)
    parser.add_argument("--requests", type=float, default=1.1, help="to the store for a segment")
    parser.add_argument("--latency-ms", type=float, default=40.0, help="of a request, in the mean")
    parser.add_argument("--parameters", type=float, default=2.5e8, help="of all networks")
    parser.add_argument("--checkpoint-every", type=int, default=10_000, help="steps")
    parser.add_argument(
        "--disk-mb", type=float, default=500.0, help="that a checkpoint is written at, a second"
    )
    parser.add_argument(
        "--copy-mb", type=float, default=1000.0, help="that a rank copies its share at, a second"
    )
    parser.add_argument("--days-between-failures", type=float, default=365.0, help="of one node")
    parser.add_argument(
        "--restart-seconds", type=float, default=180.0, help="from a failure to the next step"
    )
    parser.add_argument("--rows", type=float, default=0, help="also measure an index of so many recordings")
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open is not None:
        measure(args.open, args.segment, args.draws)
        return
    on_paper(args)
    if args.rows:
        simulate(int(args.rows), args.segment, args.draws)


def on_paper(args: argparse.Namespace) -> None:
    """What follows from the figures given, and two seeds' worth of failures."""
    recordings = args.hours * 3600 / args.seconds
    samples = args.hours * 3600 * RATE
    nodes = math.ceil(args.gpus / args.gpus_a_node)
    draws = args.gpus * args.batch * args.steps_a_second
    requests, sent = draws * args.requests, 2 * draws * args.segment / 1e6
    waiting = requests * args.latency_ms / 1000
    checkpoint = args.parameters * 4 * 3  # weights and Adam's two moments
    writing = checkpoint / args.disk_mb / 1e6
    pause = checkpoint / args.gpus / args.copy_mb / 1e6  # that training stands
    between = args.checkpoint_every / args.steps_a_second
    failures = nodes / args.days_between_failures
    best = max(writing, math.sqrt(2 * pause * 86400 / failures))
    rows = [
        ("recordings", f"{recordings:,.0f}", f"of {args.seconds:g} s"),
        ("segments", f"{samples / args.segment:,.0f}", f"of {args.segment} samples at {RATE} Hz"),
        ("in the store", f"{2 * samples / 1e12:.1f} TB", f"16-bit PCM in {2 * samples / 2**28:,.0f} shards"),
        ("index", f"{recordings * INDEX_BYTES / 1e9:.1f} GB", "on each node's disk"),
        ("read of it to open", f"{recordings * 4 / 1e9:.2f} GB", "lengths"),
        ("memory of a rank", f"{recordings * 12 / 1e9:.2f} GB", "sums; a level for each recording drawn"),
        ("draws a second", f"{draws:,.0f}", f"{draws / nodes:,.0f} a node"),
        ("requests a second", f"{requests:,.0f}", f"{requests / nodes:,.0f} a node"),
        ("bytes a second", f"{sent:,.0f} MB", f"{sent / nodes:.0f} MB a node"),
        (
            "requests under way",
            f"{waiting:.0f}",
            f"at {args.latency_ms:g} ms: {waiting / args.gpus:.1f} a GPU",
        ),
        ("a pass over the corpus", f"{samples / args.segment / draws / 86400:.1f} days", ""),
        (
            "checkpoint",
            f"{checkpoint / 1e9:.1f} GB",
            f"{writing:.1f} s at {args.disk_mb:g} MB/s, beside training",
        ),
        ("its pause", f"{pause:.2f} s", f"a share is copied, every {between:.0f} s"),
        ("failures a day", f"{failures:.3f}", f"of {nodes} nodes"),
        (
            "a failure costs",
            f"{between / 2 + args.restart_seconds:.0f} s",
            "work done again, and the restart",
        ),
        ("best time between", f"{best:,.0f} s", "two checkpoints: Young 1974"),
        (
            "kept of a year",
            f"{100 * good_share(args, failures, pause):.2f} %",
            "simulated, failures at random",
        ),
    ]
    for name, value, note in rows:
        print(f"{name:24}{value:>16}  {note}")


def good_share(args: argparse.Namespace, failures_a_day: float, pause: float) -> float:
    """Of a year's seconds those of steps that were kept, by simulating each failure."""
    rng = np.random.default_rng(0)
    year, now, kept = 365 * 86400.0, 0.0, 0.0
    between = args.checkpoint_every / args.steps_a_second
    while now < year:
        lasted = min(rng.exponential(86400 / failures_a_day), year - now)
        kept += between * math.floor(lasted / (between + pause))
        now += lasted + args.restart_seconds
    return kept / year


def simulate(rows: int, segment: int, draws: int) -> None:
    """An index of many recordings: its columns, and a hole where the lines would be but for those that are drawn."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        index = Path(folder) / "corpus.index"
        begun = time.perf_counter()
        rng = np.random.default_rng(0)
        columns = {
            "offsets": np.arange(rows + 1, dtype=np.int64) * LINE_BYTES,
            "frames": rng.integers(RATE, 15 * RATE, rows, dtype=np.uint32),
            "sample_rates": np.full(rows, RATE, np.int32),
            "splits": np.where(rng.random(rows, dtype=np.float32) < 0.99, 1, 2).astype(np.uint8),
        }
        with index.open("xb+") as file:
            file.seek(HEADER_BYTES + rows * LINE_BYTES)
            write_columns(file, columns, {}, "0" * 32)
        print(
            f"{rows:,} rows: {index.stat().st_size / 1e9:.1f} GB, {index.stat().st_blocks * 512 / 1e9:.1f} GB of them "
            f"real, made in {time.perf_counter() - begun:.0f} s"
        )
        records = map_index(index, "s3://bucket/id").by_split()["train"]
        data = SegmentDataset(records, sample_rate=RATE, segment_samples=segment, seed=0)
        with index.open("rb+") as file:
            for position in range(draws):
                chosen, _ = data._choose(position, "segment")
                row = int(records._rows[chosen])
                stored = {
                    "shard": f"shard-{row // 670:06d}.tar", "at": 384_000 * (row % 670), "encoding": "PCM_16",
                    "channels": 1, "mono": None, "energy": 123.456,
                }  # fmt: skip
                line = json_line(
                    {
                        "path": f"speaker_{row % 7919:04d}/utterance_{row:09d}.flac", "sample_rate": RATE,
                        "frames": int(columns["frames"][row]), "speaker": f"{row % 7919:04d}", "split": "train",
                        "digest": f"{row:016x}", "stored": stored,
                    }
                )  # fmt: skip
                file.seek(HEADER_BYTES + row * LINE_BYTES)
                file.write(line[:-1].ljust(LINE_BYTES - 1) + b"\n")
        del data, records, columns
        for _ in range(3):
            again = ["--open", str(index), "--segment", str(segment), "--draws", str(draws)]
            subprocess.run([sys.executable, "-m", "tests.reference.scale", *again], check=True)


def measure(index: Path, segment: int, draws: int) -> None:
    """Open an index as training does, in a process of its own, and draw."""
    begun, cpu = time.perf_counter(), time.process_time()
    records = map_index(index, "s3://bucket/id").by_split()["train"]
    data = SegmentDataset(records, sample_rate=RATE, segment_samples=segment, seed=0)
    fingerprint, hours = data.records.fingerprint, data.records.seconds / 3600
    print(
        f"opened {len(records):,} of split train ({hours:,.0f} h, {fingerprint}) in {time.perf_counter() - begun:.2f} "
        f"s, {time.process_time() - cpu:.2f} s of the processor"
    )
    begun, cpu = time.perf_counter(), time.process_time()
    for position in range(draws):
        data._choose(position, "segment")
    between, its = time.perf_counter(), time.process_time()
    for position in range(draws):
        data.file(position)
    print(
        f"a draw {1e6 * (its - cpu) / draws:.1f} µs of the processor ({1e6 * (between - begun) / draws:.1f} by the "
        f"clock); with its record {1e6 * (time.process_time() - its) / draws:.1f} µs "
        f"({1e6 * (time.perf_counter() - between) / draws:.1f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
