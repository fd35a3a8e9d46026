"""`gansound evaluate` of a generator of clips, or of a folder of its or another's sounds."""

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansound.cli.clip_files import one_shot_settings
from gansound.cli.errors import UsageError
from gansound.counts import counted
from gansound.extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gansound.data.clips import ClipDataset
    from gansound.data.settings import OneShotSettings
    from gansound.inference.clips import ClipGenerator
    from gansound.metrics.sets import Backbone, SetEvaluation, SetJudge
    from gansound.model_folder import LoadedModel

log = logging.getLogger(__name__)

_AT_ONCE = 64
_COUNT = 1000
_MOST_SECONDS = 4.0


@dataclass(frozen=True)
class _Clips:
    """Mono clips `(N, T)` with the label and the name of each."""

    audio: "NDArray[np.float32]"
    labels: list[str | None]
    names: list[str]


@dataclass(frozen=True)
class _Wanted:
    """How real sounds become clips."""

    sample_rate: int
    clip_samples: int
    channels: int
    labels: tuple[str, ...]
    data: dict[str, Any]
    settings: "OneShotSettings | None"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of a generator of sounds, or of a folder of them")
    group.add_argument(
        "--generated", metavar="DIR", type=Path,
        help="judge these sounds, as they are; --model then only says how the real ones are prepared",
    )  # fmt: skip
    group.add_argument(
        "--train", metavar="DIR", type=Path,
        help="what the model was trained on, where it isn't in --data; of --data all counts then, with --split all",
    )  # fmt: skip
    group.add_argument(
        "-n", type=int, default=_COUNT, metavar="N", help=f"how many sounds (default: {_COUNT})"
    )
    group.add_argument(
        "--truncation",
        default="1",
        metavar="T[,T...]",
        help="of the latents; several make a curve (default: 1)",
    )
    group.add_argument(
        "--backbone", metavar="DIR|CLASS",
        help="folder that gansound classifier wrote, or package.module.Class, made with sample_rate=HZ "
        "(default: levels, tonality and texture)",
    )  # fmt: skip
    group.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours for --backbone or --model",
    )
    group.add_argument("-k", type=int, default=5, help="neighbours of precision to coverage (default: 5)")
    group.add_argument(
        "--picture", metavar="FILE", type=Path,
        help="PNG: generated sounds beside the nearest trained on; of several truncations their curves",
    )  # fmt: skip


def check(args: argparse.Namespace) -> list[float]:
    """The truncations asked for; UsageError for what can't be."""
    for name, value in (("-n", args.n), ("-k", args.k)):
        if value < 1:
            raise UsageError(f"{name}: got {value}, expected at least 1")
    if args.picture is not None and (args.picture.is_dir() or not args.picture.absolute().parent.is_dir()):
        raise UsageError(f"--picture {args.picture}: expected a file in a folder that exists")
    if args.picture is not None:
        require("--picture", "matplotlib")
    if args.generated is not None and not args.generated.is_dir():
        raise UsageError(f"--generated {args.generated}: no such folder")
    if args.train is not None and not args.train.exists():
        raise UsageError(f"--train {args.train}: no such folder or manifest")
    try:
        truncations = sorted({float(text) for text in args.truncation.split(",")})
    except ValueError:
        raise UsageError(
            f"--truncation: got {args.truncation!r}, expected numbers such as 0.5,0.7,1"
        ) from None
    if not all(0 < value <= 1 for value in truncations):
        raise UsageError(f"--truncation: got {args.truncation}, expected numbers above 0 and at most 1")
    if args.generated is not None and truncations != [1.0]:
        raise UsageError("--truncation: the sounds of --generated are there already; give --model instead")
    return truncations


def run(args: argparse.Namespace, model: "LoadedModel | None") -> int:
    """Judge a model's sounds, or those of a folder, and show what was found."""
    truncations = check(args)
    if args.split == "train" or (args.split == "all" and args.train is None):
        raise UsageError(
            f"--split {args.split}: sounds are judged beside held-out ones, expected test or valid; the others are "
            "what the model was trained on. Where all of --data was held out, say with --train what wasn't"
        )
    with _stages(quiet=args.quiet) as say:
        clips = _open(args, model)
        ready = None if args.generated is None else _generated(args, clips)
        wanted = _wanted(clips, model, ready)
        real, train = _real(args, wanted)
        if args.train is None:
            log.info(
                "%d sounds of %s, its split 'train', are taken for what the model was trained on; where it learnt from "
                "others, name those with --train",
                len(train.audio),
                args.data,
            )
        backbone = _backbone(args, wanted.sample_rate)
        say(f"embedding {len(train.audio)} training and {counted(len(real.audio), 'held-out sound')}")
        judge, known = _judge(args, wanted, backbone, real, train)
        found: dict[float, SetEvaluation] = {}
        for truncation in truncations:
            say(f"judging, truncation {truncation:g}")
            fake = ready[0] if ready is not None else _draw(args, clips, real, truncation)
            found[truncation] = judge.judge(fake.audio, _numbers(fake.labels, known))
    _show(args, found, fake, train)
    return 0


@contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A context to say in what is being done: on a terminal while it is, in the log elsewhere."""
    from gansound.cli.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield log.info
        return
    with console.status("reading", spinner="dots") as status:
        yield lambda stage: status.update(stage)


def _open(args: argparse.Namespace, model: "LoadedModel | None") -> "ClipGenerator | None":
    if model is None:
        return None
    from gansound.inference.clips import ClipGenerator
    from gansound.inference.device import choose_device

    try:
        device = choose_device(args.device)
    except ValueError as error:
        raise UsageError(f"--device: {error}") from None
    return ClipGenerator(model, device)


def _wanted(
    clips: "ClipGenerator | None", model: "LoadedModel | None", ready: "tuple[_Clips, int] | None"
) -> _Wanted:
    if clips is not None and model is not None:
        data = dict(model.info.get("data") or {})
        form = (clips.sample_rate, clips.clip_samples, clips.channels, tuple(clips.labels))
        return _Wanted(*form, data, one_shot_settings(data))
    assert ready is not None
    rate, length = ready[1], ready[0].audio.shape[1]
    log.warning(
        "judged at %d Hz, %.2f s of each sound. What of --data is held out its manifest says, or else the shares of a "
        "recipe that names none; with --model they are those of its training",
        rate,
        length / rate,
    )
    return _Wanted(rate, length, 1, (), {}, None)


def _real(args: argparse.Namespace, wanted: _Wanted) -> tuple[_Clips, _Clips]:
    from gansound.data.corpus import by_split
    from gansound.data.source import open_corpus
    from gansound.metrics.sets.evaluation import least_sounds

    shares = {name: wanted.data[name] for name in ("valid", "test") if name in wanted.data}

    @cache
    def corpus(source: Path) -> Sequence[Any]:
        # Seed 0 and the run's shares: the split that training made.
        return open_corpus(source, seed=0, **shares)

    def part(source: Path, split: str) -> Sequence[Any]:
        records = corpus(source)
        found = records if split == "all" else by_split(records)[split]
        if not found:
            raise ValueError(
                f"{source}: no file is in the split {split!r}. Prepare the data with a larger share for it "
                "(gansound data prepare), or train with data.test and data.valid above 0"
            )
        return found

    real, train = part(args.data, args.split), part(args.train or args.data, "train")
    held_out = _clips(_dataset(real, wanted))
    least = least_sounds(args.k)
    if len(held_out.audio) < least:
        raise ValueError(
            f"{args.data}: {counted(len(held_out.audio), 'sound is', 'sounds are')} held out in the split "
            f"{args.split!r}, and with -k {args.k} at least {least} must be; 100 say something. Take fewer neighbours "
            "(-k), or more sounds: --data with a folder of others, --split all, and --train with this one"
        )
    return held_out, _clips(_dataset(train, wanted))


def _dataset(records: Sequence[Any], wanted: _Wanted) -> "ClipDataset":
    from gansound.data.clips import ClipDataset

    return ClipDataset(
        records,
        sample_rate=wanted.sample_rate,
        clip_samples=wanted.clip_samples,
        channels=wanted.channels,
        seed=0,
        labels=wanted.labels,
        settings=wanted.settings,
    )


def _clips(dataset: "ClipDataset") -> _Clips:
    count = len(dataset)
    audio = np.stack([dataset.clip(i)[0].numpy().mean(axis=0) for i in range(count)])
    records = [dataset.record(i) for i in range(count)]
    return _Clips(audio, [record.label for record in records], [record.path.stem for record in records])


def _generated(args: argparse.Namespace, clips: "ClipGenerator | None") -> tuple[_Clips, int]:
    """A folder's sounds as they are, cut or filled with silence to one length, and their rate.

    Without the model that made them that is the rate of most, and the longest sound's length, up to `_MOST_SECONDS`.
    """
    from gansound.audio import read, resample
    from gansound.data.corpus import scan
    from gansound.data.source import usable
    from gansound.inference.clip_folder import entries

    listed = {entry["file"]: entry.get("label") for entry in entries(args.generated)}
    records = usable(scan(args.generated))
    if len(records) > args.n:
        records = [records[i * len(records) // args.n] for i in range(args.n)]
    (usual, _), *_ = Counter(sorted((r.sample_rate for r in records), reverse=True)).most_common()
    rate = clips.sample_rate if clips is not None else usual
    most = clips.clip_samples if clips is not None else round(_MOST_SECONDS * rate)
    sounds = []
    for record in records:
        audio, own = read(record.path)
        sounds.append(resample(np.atleast_2d(audio).mean(axis=0), own, rate)[:most])
    length = clips.clip_samples if clips is not None else max(len(sound) for sound in sounds)
    stacked = np.stack([np.pad(sound, (0, length - len(sound))) for sound in sounds])
    labels = [record.label or listed.get(record.path.name) for record in records]
    return _Clips(stacked, labels, [record.path.stem for record in records]), rate


def _draw(args: argparse.Namespace, clips: "ClipGenerator | None", real: _Clips, truncation: float) -> _Clips:
    """Sounds of a model, its labels in the proportions of the held-out sounds."""
    from gansound.draw import draw

    assert clips is not None
    labels: list[str | None] = [None] * args.n
    if clips.labels:
        rng = draw(args.seed, 0, "evaluate labels")
        labels = [real.labels[i] for i in rng.integers(len(real.labels), size=args.n)]
    parts = []
    for first in range(0, args.n, _AT_ONCE):
        latents = clips.latents(min(_AT_ONCE, args.n - first), args.seed, first=first, truncation=truncation)
        some = [label for label in labels[first : first + _AT_ONCE] if label is not None]
        parts.append(clips.render(latents, some or None).audio.mean(axis=1))
    return _Clips(np.concatenate(parts), labels, [f"{i}" for i in range(args.n)])


def _backbone(args: argparse.Namespace, sample_rate: int) -> "Backbone":
    from gansound.metrics.sets import Backbone, HearingBackbone
    from gansound.metrics.sets.classifier import ClassifierBackbone
    from gansound.recipe import RecipeError
    from gansound.recipe.build import import_class

    if args.backbone is None:
        return HearingBackbone(sample_rate)
    if Path(args.backbone).is_dir():
        return ClassifierBackbone.load(args.backbone)
    try:
        found = import_class(args.backbone, "--backbone", args.allow, ("gansound.metrics.sets",))
    except RecipeError as error:
        raise UsageError(f"{error}; a classifier's folder would do as well") from None
    made: Backbone = found(sample_rate=sample_rate)
    return made


def _judge(
    args: argparse.Namespace, wanted: _Wanted, backbone: "Backbone", real: _Clips, train: _Clips
) -> "tuple[SetJudge, tuple[str, ...]]":
    """The judge, and the classes by which it hears labels: none where it knows other ones."""
    from gansound.metrics.sets import SetJudge
    from gansound.metrics.sets.backbone import Classifying

    known = tuple(backbone.labels) if isinstance(backbone, Classifying) else ()
    judge = SetJudge(
        real.audio,
        train.audio,
        wanted.sample_rate,
        backbone=backbone,
        k=args.k,
        seed=args.seed,
        real_labels=_numbers(real.labels, known),
        train_labels=_numbers(train.labels, known),
    )
    return judge, known


def _numbers(labels: list[str | None], known: tuple[str, ...]) -> list[int] | None:
    numbers = {label: number for number, label in enumerate(known)}
    return [numbers[label] for label in labels] if all(label in numbers for label in labels) else None  # type: ignore[index]


def _show(args: argparse.Namespace, found: "dict[float, SetEvaluation]", fake: _Clips, train: _Clips) -> None:
    from rich.text import Text

    from gansound.cli.console import Console
    from gansound.report.pictures import save, write_bytes
    from gansound.report.sets import neighbours_picture, sets_record, sets_table, truncation_picture

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for truncation, evaluation in found.items():
        title = f"truncation {truncation:g}" if args.generated is None else str(args.generated)
        console.print(sets_table(evaluation, title=title))
    full = max(found)
    if args.json is not None:
        about = {
            "model": args.model,
            "generated": None if args.generated is None else str(args.generated),
            "data": str(args.data),
            "split": args.split,
            "train": None if args.train is None else str(args.train),
        }
        records = [sets_record(evaluation, truncation=t) for t, evaluation in found.items()]
        record = about | sets_record(found[full], truncation=full) | {"truncations": records}
        text = json.dumps(record, indent=2, allow_nan=False)
        write_bytes(args.json, f"{text}\n".encode())
        console.print(Text(f"figures: {args.json}"))
    if args.picture is not None:
        if len(found) > 1:
            picture = truncation_picture(found)
        else:
            picture = neighbours_picture(fake.audio, train.audio, found[full], names=train.names)
        save(picture, args.picture)
        console.print(Text(f"picture: {args.picture}"))
