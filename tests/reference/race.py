"""Vocoders trained for the same few minutes of one CPU core on the same speech, and judged on the same held-out files.

    python -m tests.reference.race hifigan_v3 --data ../shared/data --minutes 2 --out runs/race   # one row
    python -m tests.reference.race --out runs/race                                                # the tables

What is fixed beforehand: the corpus (Kathleen's training prompts), the budget (CPU seconds of the training process, its
loader included, on one thread; the first imports and the last save are not), precision bf16, published nets, losses and
learning rates. What a small budget forces is the same for all: a batch so small that some hundred steps fit, and
learning rates that stay for half of the steps and then fall to 2 % along a cosine. How many steps fit is measured
before; a run that is slower than measured is stopped at 5 % over the budget.

Rows are judged on 16 of Kathleen's test takes and 8 prompts of a speaker nobody was trained on. Pilots, which choose
among discriminators, start from one trained net and are judged on as many other files, so that the race isn't tuned on
what it is judged by.
"""

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from gansound.cli.evaluate import choose, items_of
from gansound.data.corpus import scan
from gansound.data.manifest import MANIFEST_NAME, Record, write_manifest
from gansound.data.source import open_corpus
from gansound.data.split import split as assign
from gansound.engine.feed import spread
from gansound.engine.guards import StoppedError
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.inference.vocoder import Vocoder
from gansound.metrics.evaluation import evaluate
from gansound.metrics.summary import Interval, mean_interval, paired_difference
from gansound.recipe import load_recipe
from gansound.report.pictures import write_bytes
from tests.reference.race_rows import PILOTS, ROWS, Entry

log = logging.getLogger(__name__)

TAKES, PROMPTS = 16, 8
WARM_UP_STEPS, TIMED_STEPS = 4, 8
OVER = 1.05
MEASURES = ("pesq", "mel", "pitch", "faults", "visqol", "dnsmos")
FIGURES = ("pesq_wb", "visqol_speech", "dnsmos_p808", "mel_distance", "periodicity_rmse")
ALWAYS = {
    "threads": 1,
    "precision": "bf16",
    "data.workers": 0,
    "validate_every": None,
    "checkpoint_every": 10**6,
    "trackers": [],
}
TOOK, JUDGED = "took.json", "judged.json"
SIDES = ("generator", "discriminator")


def some(records: Sequence[Record], count: int) -> list[Record]:
    """So many, evenly over the sorted list."""
    return spread(sorted(records, key=lambda record: record.path.name), count)


def corpus(data: Path, out: Path) -> Path:
    """The manifest of the race: split `train`, `test` for rows, `valid` for pilots."""
    target = out / MANIFEST_NAME
    if target.exists():
        return target
    out.mkdir(parents=True, exist_ok=True)
    takes = assign(scan((data / "kathleen").resolve()).records, seed=0)[0]
    prompts = scan((data / "prompts_en").resolve()).records
    chosen = [(record, "kathleen", "train") for record in takes if record.split == "train"]
    both = some(prompts, 2 * PROMPTS)
    for split, others in (("test", both[::2]), ("valid", both[1::2])):
        chosen += [
            (record, "kathleen", split) for record in some([r for r in takes if r.split == split], TAKES)
        ]
        chosen += [(record, "allison", split) for record in others]
    write_manifest(
        target,
        [
            Record(r.path, r.sample_rate, r.frames, speaker, text=r.text, split=split)
            for r, speaker, split in chosen
        ],
    )
    return target


@dataclass
class Watch:
    """CPU seconds since the first step, told to by the run after each; stops the run where there is a limit."""

    limit: float = float("inf")
    run: Run | None = None
    begun: float = 0.0
    ends: list[float] = field(default_factory=list)

    def __call__(self, progress: object) -> None:
        self.ends.append(time.process_time())
        if self.run is not None and self.ends[-1] - self.begun > self.limit:
            self.run.stop()


def train(recipe: Mapping[str, Any], folder: Path, limit: float = float("inf")) -> list[float]:
    """CPU seconds from the first step's begin to each step's end."""
    run = Run(plan(recipe), folder)
    watch = Watch(limit, run, time.process_time())
    try:
        run.fit(watch)
    except StoppedError as stopped:
        log.warning("%s", stopped)
    return [end - watch.begun for end in watch.ends]


def step_seconds(recipe: Mapping[str, Any], *, adversarial: bool) -> float:
    """Mean CPU seconds of a step; with discriminators, of one in which they teach."""
    steps = WARM_UP_STEPS + TIMED_STEPS
    recipe = recipe | {"steps": steps, "adversarial_from": 0 if adversarial else steps}
    if adversarial:
        teaching = {name: {**node, "teaches_from": 0} for name, node in recipe["discriminators"].items()}
        recipe |= {"discriminators": teaching}
    with TemporaryDirectory(prefix="gansound-race-") as folder:
        ends = train(recipe, Path(folder) / "run")
    return (ends[-1] - ends[WARM_UP_STEPS - 1]) / TIMED_STEPS


def recipe_of(entry: Entry, manifest: Path, steps: int | None = None) -> dict[str, Any]:
    """The entry's recipe; with `steps`, its schedules fitted to them."""
    settings = ALWAYS | {"data.path": str(manifest)} | dict(entry.settings)
    recipe = load_recipe(entry.recipe, settings)
    if steps is None:
        return recipe
    fitted = {"steps": steps, "adversarial_from": round(entry.alone * steps)}
    for side in SIDES:
        if f"{side}_optimization" in recipe:
            warm = entry.warm_up_steps if side == "generator" else 0
            fitted[f"{side}_optimization.schedule"] = {
                "warmup_steps": warm,
                "constant_steps": max(0, steps // 2 - warm),
                "decay": "cosine",
                "final": 0.02,
            }
    return load_recipe(entry.recipe, settings | fitted)


def steps_that_fit(entry: Entry, manifest: Path, seconds: float) -> tuple[int, dict[str, float]]:
    """Steps, and what was measured: CPU seconds of a step without and with discriminators."""
    recipe = recipe_of(entry, manifest)
    measured = {}
    if not recipe.get("discriminators") or entry.alone:
        measured["alone"] = step_seconds(recipe, adversarial=False)
    if recipe.get("discriminators"):
        measured["adversarial"] = step_seconds(recipe, adversarial=True)
    alone = measured.get("alone", 0.0)
    share = entry.alone if "adversarial" in measured else 1.0
    mean = share * alone + (1 - share) * measured.get("adversarial", 0.0)
    return max(2, round(seconds / mean)), measured


def compete(name: str, entry: Entry, data: Path, out: Path, minutes: float) -> None:
    """Train, and write what it took into the entry's folder."""
    manifest = corpus(data, out)
    steps, measured = steps_that_fit(entry, manifest, 60 * minutes)
    log.info("%s: %d steps in %g minutes, %s", name, steps, minutes, measured)
    ends = train(recipe_of(entry, manifest, steps), out / name, OVER * 60 * minutes)
    took = {"minutes": minutes, "cpu_seconds": ends[-1], "steps": len(ends), "steps_planned": steps}
    took |= {"recipe": entry.recipe, "settings": dict(entry.settings), "step_seconds_measured": measured}
    write_bytes(out / name / TOOK, (json.dumps(took, indent=1) + "\n").encode())


def judge(names: Sequence[str], split: str, out: Path) -> None:
    """Measure what is trained and not yet measured, together, so that the recordings are measured once."""
    trained = [name for name in names if (out / name / TOOK).exists()]
    if not (new := [name for name in trained if not (out / name / JUDGED).exists()]):
        return
    manifest = out / MANIFEST_NAME
    items = items_of(choose(open_corpus(manifest), split, None, manifest), manifest)
    vocoders = {name: Vocoder.from_pretrained(str(out / name / "model"), "cpu") for name in new}
    (rate,) = {vocoder.sample_rate for vocoder in vocoders.values()}
    systems = {name: vocoder.vocode_audio for name, vocoder in vocoders.items()}
    with threadpool_limits(1):
        found = evaluate(items, systems, rate, measures=MEASURES)
    for name in new:
        judged = {
            "split": split,
            "utterances": [{"id": u.id, "speaker": u.speaker, **u.systems[name]} for u in found.utterances],
            "failures": [failure.reason for failure in found.failures],
            "alarms": {figure: len(ids) for figure, ids in found.alarms(name).items()},
        }
        write_bytes(out / name / JUDGED, (json.dumps(judged, indent=1) + "\n").encode())


def rows_of(entries: Mapping[str, Entry], out: Path) -> list[dict[str, Any]]:
    """All that is trained and measured."""
    return [
        {"name": name, "what": entry.what}
        | json.loads((out / name / TOOK).read_text())
        | json.loads((out / name / JUDGED).read_text())
        for name, entry in entries.items()
        if (out / name / JUDGED).exists()
    ]


def shown(interval: Interval, *, sign: bool = False) -> str:
    """A mean and half of its interval's length."""
    digits = 2 if abs(interval.mean) >= 0.1 or abs(interval.high) >= 0.1 else 3
    text = f"{interval.mean:{'+' if sign else ''}.{digits}f}"
    return f"{text} ± {(interval.high - interval.low) / 2:.{digits}f}"


def table(rows: Sequence[Mapping[str, Any]], against: str | None = None) -> str:
    """Markdown: a line a row; with `against`, paired differences to that row, bold where clear of zero."""
    base = next((row for row in rows if row["name"] == against), None)
    lines = [
        "| | steps | CPU s | PESQ | ViSQOL | DNSMOS | mel distance | periodicity | alarms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["what"], str(row["steps"]), f"{row['cpu_seconds']:.0f}"]
        for figure in FIGURES:
            values = [u.get(figure) for u in row["utterances"]]
            known = [value for value in values if value is not None]
            cell = shown(mean_interval(known)) if known else "–"
            if base is not None and row is not base and known:
                difference = paired_difference(values, [u.get(figure) for u in base["utterances"]])
                text = shown(difference, sign=True)
                cell = (
                    f"{sum(known) / len(known):.2f} ({f'**{text}**' if difference.clear_of_zero else text})"
                )
            cells.append(cell)
        alarms = ", ".join(f"{name} {count}" for name, count in row["alarms"].items() if count)
        lines.append(f"| {' | '.join([*cells, alarms or 'none'])} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", nargs="?", choices=[*ROWS, *PILOTS])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=8.0, help="CPU minutes of training")
    parser.add_argument("--out", type=Path, default=Path("runs/race"))
    parser.add_argument("--unjudged", action="store_true", help="train alone; the next call judges it")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if args.row is not None:
        compete(args.row, (ROWS | PILOTS)[args.row], args.data, args.out, args.minutes)
    for entries, split, against in ((ROWS, "test", None), (PILOTS, "valid", next(iter(PILOTS)))):
        if not args.unjudged:
            judge(list(entries), split, args.out)
        if rows := rows_of(entries, args.out):
            print(table(rows, against), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
