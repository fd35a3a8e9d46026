"""`gansound classifier`: a small network that names a user's own sounds, for `gansound evaluate --backbone`."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gansound.cli.errors import UsageError
from gansound.counts import counted
from gansound.extras import require

if TYPE_CHECKING:
    from gansound.data.manifest import Record
    from gansound.metrics.sets.classifier_training import Trained

HELP = """Train a classifier of your sounds, whose labels are the folders they lie in.

It judges generated sounds: gansound evaluate --backbone FOLDER. A minute or two on one core for a thousand sounds.
Sounds that belong together (a kit, a speaker) are trained on or held out together, as they are for a generator; the
held-out ones say how well it hears, in a table and a picture beside its weights."""

EXAMPLES = """examples:
  gansound classifier drums/ -o classifiers/drums
  gansound evaluate --model runs/drums/model --data drums/ --backbone classifiers/drums"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DIR", type=Path, help="folder of label folders, or a manifest")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, required=True, help="where the classifier goes"
    )
    parser.add_argument(
        "--sample-rate", type=int, default=16000, metavar="HZ", help="that it hears (default: 16000)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each sound, from its attack on (default: 1)"
    )
    parser.add_argument("--steps", type=int, default=800, help="of 32 sounds each (default: 800)")
    parser.add_argument(
        "--test", type=float, default=0.2, metavar="SHARE",
        help="held out to try it, where a manifest doesn't say (default: 0.2)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws (default: 0)")


def run(args: argparse.Namespace) -> int:
    _check(args)
    from threadpoolctl import threadpool_limits

    from gansound.data.clips import labels_of
    from gansound.data.corpus import by_split
    from gansound.data.source import open_corpus
    from gansound.metrics.sets.classifier_training import train_classifier

    records = open_corpus(args.data, seed=0, valid=0.0, test=args.test)
    labels = labels_of(records)
    if not labels:
        raise ValueError(
            f"{args.data}: a classifier needs labels: two folders or more, each with the sounds of one kind"
        )
    parts = by_split(records)
    if not parts["test"]:
        raise ValueError(f"{args.data}: no file is in the split 'test'. Raise --test, or add sounds")
    train = _clips(args, parts["train"], labels)
    if mute := sorted(set(labels) - {labels[number] for number in train[1]}):
        raise ValueError(
            f"{args.data}: no file with the label {', '.join(map(repr, mute))} holds a sound to train on. Add sounds "
            "to its folder, or take the folder out"
        )
    held_out = _clips(args, parts["test"], labels)
    with _progress(args.steps, quiet=args.quiet) as advance, threadpool_limits(1):
        trained = train_classifier(
            *train, *held_out, labels, args.sample_rate, steps=args.steps, seed=args.seed, on_progress=advance
        )
    trained.backbone.info = {
        "data": str(args.data),
        "steps": args.steps,
        "seed": args.seed,
        "training_count": len(train[1]),
        "held_out_count": len(held_out[1]),
        "held_out_accuracy": trained.accuracy,
        "held_out_balanced_accuracy": trained.balanced_accuracy,
        "confusion": trained.confusion.tolist(),
    }
    _show(args, trained)
    return 0


def _check(args: argparse.Namespace) -> None:
    from gansound.metrics.sets.classifier import ClassifierError, check_output

    if not args.data.exists():
        raise UsageError(f"{args.data}: no such folder or manifest")
    require("the picture of its confusions", "matplotlib")
    try:
        check_output(args.output)
    except ClassifierError as error:
        raise UsageError(f"-o {error}") from None
    if not 4000 <= args.sample_rate <= 384000:
        raise UsageError(f"--sample-rate: expected 4,000 to 384,000 Hz, got {args.sample_rate}")
    if not 0.05 <= args.seconds <= 60:
        raise UsageError(f"--seconds: expected 0.05 to 60, got {args.seconds}")
    if args.steps < 10:
        raise UsageError(f"--steps: expected at least 10, got {args.steps}")
    if not 0 < args.test < 1:
        raise UsageError(f"--test: expected a share between 0 and 1, got {args.test}")
    if args.seed < 0:
        raise UsageError(f"--seed: got {args.seed}, expected 0 or more")


def _clips(
    args: argparse.Namespace, records: "Sequence[Record]", labels: tuple[str, ...]
) -> tuple[np.ndarray, list[int]]:
    from gansound.data.clips import ClipDataset

    dataset = ClipDataset(
        records,
        sample_rate=args.sample_rate,
        clip_samples=round(args.seconds * args.sample_rate),
        seed=0,
        labels=labels,
    )
    pairs = [dataset.clip(i) for i in range(len(dataset))]
    return np.stack([audio.numpy()[0] for audio, _ in pairs]), [label for _, label in pairs]


@contextmanager
def _progress(steps: int, *, quiet: bool) -> Iterator[Callable[[int, float], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from gansound.cli.console import Console

    console = Console(stderr=True)
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.2f}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task("train", total=steps, loss=0.0)
        yield lambda step, loss: progress.update(task, completed=step, loss=loss)


def _show(args: argparse.Namespace, trained: "Trained") -> None:
    from gansound.cli.console import Console
    from gansound.report.pictures import png_bytes
    from gansound.report.sets import confusion_picture, confusion_table

    labels = trained.backbone.labels
    picture = png_bytes(confusion_picture(trained.confusion, labels))
    folder = trained.backbone.save(args.output, {"confusion.png": picture})
    if args.quiet:
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(confusion_table(trained.confusion, labels))
    console.print(
        f"held out: {trained.accuracy:.1%} of {counted(trained.confusion.sum(), 'sound')} named right, "
        f"{trained.balanced_accuracy:.1%} in the mean over labels",
        highlight=False,
    )
    console.print(str(folder), highlight=False, markup=False, soft_wrap=True)
