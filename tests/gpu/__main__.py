"""`python -m tests.gpu OUT [--device cuda|cpu] [--scale full|tiny] [--seconds N] [--only PART …]`: see the package."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.gpu.checks import BAD, CUT, PASSED, RUNNING, WAITING, write

PARTS = {"right": 0.4, "fast": 0.3, "inference": 0.12, "train": 0.18}
"""In order of what they tell; the share of the time each gets, of what the others left over."""
GRACE_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print a table, and say with 0 that all went well, with 1 that something failed or was cut."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder for the records")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    parser.add_argument("--seconds", type=float, default=560.0, help="for all parts together (default 560)")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="sounds to train on")
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="a run's folder, to go on from its newest checkpoint"
    )
    parser.add_argument("--recipe", default="freev_cpu", help="that the last part trains (default freev_cpu)")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 leaves torch's choice")
    args = parser.parse_args(arguments)
    if args.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            parser.error(f"--device {args.device}: torch {torch.__version__} sees no GPU here; --device cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    parts = [part for part in PARTS if part in args.only]
    records = []
    for i, part in enumerate(parts):
        left = args.seconds - (time.monotonic() - begun)
        budget = max(0.0, left) * PARTS[part] / sum(PARTS[later] for later in parts[i:])
        records.append(_part(part, budget, args))
        print(_table(records[-1:]), flush=True)
    summary = {
        "seconds": round(time.monotonic() - begun, 1),
        "parts": {r["part"]: _count(r) for r in records},
    }
    write(args.out / "summary.json", summary)
    print(_summary(records, summary["seconds"]), flush=True)
    return int(any(entry["state"] in BAD for record in records for entry in record["checks"]))


def _part(part: str, seconds: float, args: argparse.Namespace) -> dict[str, Any]:
    """The record of a part, run in a process that is ended when its time has long been over."""
    file = args.out / f"{part}.json"
    file.unlink(missing_ok=True)
    given = {
        "out": str(args.out.absolute()),
        "device": args.device,
        "tiny": args.scale == "tiny",
        "seconds": seconds,
        "audio": None if args.audio is None else str(args.audio.absolute()),
        "run": None if args.run is None else str(args.run.absolute()),
        "recipe": "tiny_cpu" if args.scale == "tiny" and args.recipe == "freev_cpu" else args.recipe,
        "threads": args.threads,
    }
    environment = os.environ | {"GANSOUND_BACKEND": "eager", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.part", part, json.dumps(given)],
        cwd=ROOT, env=environment, start_new_session=True,
    )  # fmt: skip
    ended = "its process ended with exit code {}"
    try:
        code: int | None = process.wait(seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        code, ended = None, f"its process was ended after {seconds + GRACE_SECONDS:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    record: dict[str, Any] = (
        json.loads(file.read_text()) if file.exists() else {"part": part, "checks": [], "seconds": 0.0}
    )
    if code != 0:
        for entry in record["checks"]:
            if entry["state"] in (RUNNING, WAITING):
                entry |= {"state": CUT, "said": ended.format(code)}
        if not record["checks"]:
            record["checks"] = [{"check": "(beginning)", "state": "broken", "said": ended.format(code)}]
        write(file, record)
    return record


def _count(record: dict[str, Any]) -> dict[str, int]:
    states = [entry["state"] for entry in record["checks"]]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _table(records: Sequence[dict[str, Any]]) -> str:
    lines = []
    for record in records:
        lines.append(f"\n{record['part']} on {record.get('device', '?')}, {record['seconds']:.0f} s")
        for entry in record["checks"]:
            told = entry.get("said") or _figures(entry.get("figures", {}))
            lines.append(
                f"  {entry['state']:<9} {entry['check']:<36} {entry.get('seconds', 0):>7.1f} s  {told}"[:220]
            )
    return "\n".join(lines)


def _summary(records: Sequence[dict[str, Any]], seconds: float) -> str:
    lines = [f"\n{'part':<11}" + "  what came of its checks"]
    for record in records:
        counts = ", ".join(f"{count} {state}" for state, count in _count(record).items())
        lines.append(f"{record['part']:<11}  {counts}")
    for record in records:
        for entry in record["checks"]:
            if entry["state"] in BAD:
                lines.append(
                    f"{entry['state'].upper()}: {record['part']}, {entry['check']}: {entry.get('said', '')}"
                )
    states = {entry["state"] for record in records for entry in record["checks"]}
    verdict = "all went well" if not states & set(BAD) and PASSED in states else "not all went well"
    return "\n".join([*lines, f"{verdict}, in {seconds:.0f} s"])


def _figures(figures: dict[str, Any]) -> str:
    shown = []
    for name, value in figures.items():
        if isinstance(value, dict):
            inner = value.get("steps_per_second")
            shown.append(f"{name} {inner:.3g}/s" if inner is not None else name)
        else:
            shown.append(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)


if __name__ == "__main__":
    sys.exit(main())
