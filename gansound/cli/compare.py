"""`gansound compare`: models or folders of sounds over the same recordings, in pairs; and blind listening."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli.errors import UsageError
from gansound.cli.places import check_place, place
from gansound.counts import counted
from gansound.extras import require

if TYPE_CHECKING:
    from gansound.metrics.evaluation import Evaluation, Item, System
    from gansound.metrics.listening import Answers
    from gansound.metrics.recorded import RecordedSounds

HELP = """Compare models, or folders of sounds made elsewhere, over the same recordings.

Each system's figures as `gansound evaluate` gives them, then the paired difference of every two of them with its 95 %
bootstrap interval, in a table, as JSON, and as a picture. A folder of sounds has a file for each recording, at the same
path below it or of the same name. Each model hears the recording at its own rate; everything is measured at the lowest
sample rate of the systems.

--page writes a page for blind listening that needs nothing but a browser: which of two is X (A/B/X), and ratings beside
a hidden reference and an anchor (MUSHRA, ITU-R BS.1534). Listeners send back the CSV that it saves; --answers reads any
number of them."""
EXAMPLES = """examples:
  gansound compare default runs/mine/model --data recordings/ --split all
  gansound compare default others/bigvgan_output/ --data recordings/ --split all --measures pesq,mel,visqol --jobs 2
  gansound compare default runs/mine/model --data recordings/ --page listen/ --trials 8
  gansound compare --answers answers-anna.csv answers-ben.csv --json listening.json"""
_SPLITS = ("train", "valid", "test", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "systems", nargs="*", metavar="A B", help="model names or folders, or folders of sounds; two or more"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=place,
        help="folder of recordings, a manifest, or a folder or URL of shards",
    )
    parser.add_argument(
        "--split", default="test", choices=_SPLITS, help="which part of the data (default: test)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N utterances, evenly spread over the sorted list"
    )
    parser.add_argument(
        "--measures", help="as of `gansound evaluate` (default: all that what is installed allows)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures as one JSON object")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="the differences as a PNG")
    parser.add_argument("--page", metavar="DIR", type=Path, help="write a page for blind listening")
    parser.add_argument(
        "--trials", type=int, default=10, metavar="N", help="recordings to listen to on the page (10)"
    )
    parser.add_argument(
        "--answers", nargs="+", metavar="FILE", type=Path, help="CSV files that listeners saved"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="processes that measure (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals and of the page's order")
    parser.add_argument("--device", help="cpu (one thread, the default), cuda, cuda:1 ...")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE",
                        help="package whose generator classes a model folder may name")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    _check(args)
    from rich.console import Console
    from rich.text import Text

    from gansound.report.pictures import write_bytes

    answers = _answers(args)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or a pipe has no width: don't fold the table to 80 columns
    evaluation, record = None, {}
    if args.systems:
        evaluation = _evaluate(args)
        record = _show(args, evaluation, console)
    if answers is not None:
        record["listening"] = _show_answers(args, answers, console)
    if args.json is not None:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_bytes(args.json, text.encode())
        console.print(Text(f"figures: {args.json}"))
    return 1 if evaluation is not None and evaluation.failures else 0


def _check(args: argparse.Namespace) -> None:
    if not args.systems and args.answers is None:
        raise UsageError("say what to compare: two or more models or folders of sounds, or --answers FILE")
    if args.systems and len(args.systems) < 2:
        raise UsageError(
            f"got one system, {args.systems[0]}, expected two or more (`gansound evaluate` judges one)"
        )
    if len(set(args.systems)) < len(args.systems):
        raise UsageError(f"got a system twice in {' '.join(args.systems)}, expected each once")
    if args.systems and args.data is None:
        raise UsageError("--data DIR: say which recordings the systems are compared on")
    if args.data is not None:
        check_place(args.data)
    for name in ("limit", "jobs", "trials"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}: got {value}, expected at least 1")
    if args.seed < 0:
        raise UsageError(f"--seed: got {args.seed}, expected 0 or more")
    for name in ("page", "picture"):
        if getattr(args, name) is not None and not args.systems:
            raise UsageError(f"--{name} is of a comparison, got --answers alone: name the systems and --data")
    for name in ("json", "picture"):
        path = getattr(args, name)
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(f"--{name} {path}: expected a file in a folder that exists")
    if args.picture is not None:
        require("--picture", "matplotlib")
    if args.page is not None and args.page.exists() and not args.page.is_dir():
        raise UsageError(f"--page {args.page}: is a file, expected a folder")
    for path in args.answers or ():
        if not path.is_file():
            raise UsageError(f"--answers {path}: no such file")


def _answers(args: argparse.Namespace) -> "Answers | None":
    from gansound.metrics.listening import read_answers

    return None if args.answers is None else read_answers(args.answers)


def _evaluate(args: argparse.Namespace) -> "Evaluation":
    import torch
    from threadpoolctl import threadpool_limits

    from gansound.cli.evaluate import choose, items_of, shares_of
    from gansound.cli.progress import progress
    from gansound.data.source import open_corpus
    from gansound.metrics.evaluation import evaluate
    from gansound.metrics.judge import available_measures, check_measures
    from gansound.report.listening import ListeningPage

    asked = available_measures() if args.measures is None else args.measures.split(",")
    try:
        measures = check_measures([name.strip() for name in asked])
    except ValueError as error:
        raise UsageError(f"--measures: {error}") from None
    sounds = {given: _sounds(given) for given in args.systems}
    models = [given for given, recorded in sounds.items() if recorded is None]
    records = choose(open_corpus(args.data, **shares_of(models)), args.split, args.limit, args.data)
    items = items_of(records, args.data)
    systems, rate, hop = _open(args, items, sounds)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        page = None
        if args.page is not None:
            count = min(args.trials, len(items))
            heard = {items[index * len(items) // count].id for index in range(count)}
            page = stack.enter_context(ListeningPage(args.page, rate, items=heard, seed=args.seed))
        # One thread, NumPy's too, so that real-time factors of different systems can be compared.
        stack.enter_context(threadpool_limits(1))
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
        advance = stack.enter_context(progress("comparing", len(items), quiet=getattr(args, "quiet", False)))
        evaluation = evaluate(
            items,
            systems,
            rate,
            hop_length=hop,
            measures=measures,
            jobs=args.jobs,
            seed=args.seed,
            on_progress=advance,
            on_audio=None if page is None else page.add,
        )
        if page is not None:
            page.write()
    return evaluation


def _open(
    args: argparse.Namespace, items: "list[Item]", sounds: "dict[str, RecordedSounds | None]"
) -> "tuple[dict[str, System], int, int | None]":
    """Systems by name, the rate they are compared at, and the hop where all models share it."""
    from gansound.audio import probe
    from gansound.inference.vocoder import Vocoder
    from gansound.metrics.evaluation import AtOwnRate

    systems: dict[str, System] = {}
    rates: list[int] = []
    hops: set[int] = set()
    for name, given in zip(_names(args.systems), args.systems, strict=True):
        if (recorded := sounds[given]) is not None:
            rates.append(probe(recorded.first(item.id for item in items)).sample_rate)
            systems[name] = recorded
            continue
        vocoder = Vocoder.from_pretrained(given, args.device or "cpu", allow=args.allow)
        rates.append(vocoder.sample_rate)
        hops.add(vocoder.mel_spec.hop_length)
        systems[name] = AtOwnRate(vocoder.vocode_audio, vocoder.sample_rate)
    one_rate = len(set(rates)) == 1
    return systems, min(rates), hops.pop() if one_rate and len(hops) == 1 else None


def _sounds(given: str) -> "RecordedSounds | None":
    """The sounds of a folder that is no model's; None of a model."""
    from gansound.audio import AUDIO_SUFFIXES
    from gansound.metrics.recorded import RecordedSounds

    folder = Path(given)
    sounds = folder.is_dir() and not (folder / "config.json").exists()
    if sounds and any(path.suffix.lower() in AUDIO_SUFFIXES for path in folder.rglob("*")):
        return RecordedSounds(folder)
    return None


def _names(given: list[str]) -> list[str]:
    """The last part of each path that tells them apart; the whole where that doesn't."""
    paths = [Path(name).parts or (name,) for name in given]
    for length in range(1, max(len(parts) for parts in paths) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return list(given)


def _show(args: argparse.Namespace, evaluation: "Evaluation", console: Any) -> dict[str, Any]:
    from rich.text import Text

    from gansound.metrics.listening import pairs_of
    from gansound.report.comparison import comparison_record, differences_picture
    from gansound.report.pictures import png_bytes, write_bytes
    from gansound.report.tables import alarm_lines, difference_table, left_out, speaker_table, summary_table

    pairs = pairs_of(evaluation.systems[1:])
    if evaluation.utterances:
        title = f"{counted(len(evaluation.utterances), 'utterance')}, at {evaluation.sample_rate} Hz"
        console.print(summary_table(evaluation, title=title))
        for first, second in pairs:
            console.print(difference_table(evaluation, first, second))
        if len(evaluation.by_speaker()) > 1:
            for system in evaluation.systems[1:]:
                console.print(speaker_table(evaluation, system))
        if args.picture is not None:
            write_bytes(args.picture, png_bytes(differences_picture(evaluation)))
            console.print(Text(f"picture: {args.picture}"))
    for heading, colour, lines in (
        ("alarms:", "bold red", alarm_lines(evaluation)),
        ("not in the means:", "yellow", left_out(evaluation)),
        (
            f"{len(evaluation.failures)} failed:",
            "bold red",
            [f.reason if f.id in f.reason else f"{f.id}: {f.reason}" for f in evaluation.failures],
        ),
    ):
        if lines:
            console.print(Text(heading, colour))
            for line in lines:
                console.print(Text(f"  {line}"), soft_wrap=True)
    if args.page is not None:
        console.print(Text(f"listen: {args.page / 'index.html'}"))
    return comparison_record(
        evaluation, compared=dict(zip(evaluation.systems[1:], args.systems, strict=True)), data=str(args.data)
    )


def _show_answers(args: argparse.Namespace, answers: "Answers", console: Any) -> dict[str, Any]:
    from rich.text import Text

    from gansound.report.comparison import choice_table, listening_record, rating_table

    screened = answers.screened()
    if answers.ratings and len(screened) < len({answer.listener for answer in answers.ratings}):
        console.print(rating_table(answers, seed=args.seed))
    if answers.choices:
        console.print(choice_table(answers))
    if screened:
        console.print(
            Text(
                f"left out of the ratings: {', '.join(screened)}, who rated the hidden reference below 90 in more than "
                "15 % of the items (ITU-R BS.1534-3)",
                "yellow",
            )
        )
    return listening_record(answers, seed=args.seed)
