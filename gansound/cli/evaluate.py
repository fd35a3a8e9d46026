"""`gansound evaluate`: copy synthesis of recordings, measured against them; sets of sounds by `evaluate_sets`."""

import argparse
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli import evaluate_sets
from gansound.cli.backend import add_backend_arguments, add_mel_argument, open_vocoder
from gansound.cli.cluster import add_ray_argument, pool
from gansound.cli.errors import UsageError
from gansound.cli.places import check_place, place
from gansound.cli.progress import progress
from gansound.counts import counted

if TYPE_CHECKING:
    from gansound.data.manifest import Record
    from gansound.metrics.evaluation import Evaluation, Item
    from gansound.model_folder import LoadedModel

log = logging.getLogger(__name__)

HELP = """Measure a vocoder against recordings, or a generator of sounds against held-out ones.

Of a vocoder: each recording's mel is turned back into sound and compared with it.
PESQ wide band, STOI, mel and multi-resolution STFT distance, F0 and voicing error, and with the extra
'gansound[eval]' DNSMOS and the word error rate of an offline recogniser; for each utterance and in all.

Of a generator: Fréchet and kernel distance, precision, recall, density, coverage, and how far its sounds are from each
other and from those it was trained on, each with its 95 % interval and beside what real sounds get. With a classifier
of your own labels (gansound classifier) the Inception score, and whether the label asked for is heard."""
EXAMPLES = """examples:
  gansound evaluate --model default --data recordings/ --split all --html page/
  gansound evaluate --model runs/first/model --data corpus/ --baseline griffin-lim --json figures.json
  gansound evaluate --model runs/first/model --data corpus/ --ray 10.0.0.1:6379
  gansound evaluate --model runs/drums/model --data drums/ -n 1000 --picture nearest.png
  gansound evaluate --model runs/drums/model --data drums/ --truncation 0.3,0.5,0.7,1 --picture curves.png
  gansound evaluate --model runs/drums/model --data other_drums/ --split all --train drums/
  gansound evaluate --generated sounds/ --data drums/ --backbone classifiers/drums"""
_SPLITS = ("train", "valid", "test", "all")
_MODEL = "model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="name, model folder or Hugging Face id; 'default' is shipped")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        type=place,
        help="folder of audio, a manifest, or a folder or URL of shards",
    )
    parser.add_argument(
        "--split", default="test", choices=_SPLITS, help="which part of the data (default: test)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N utterances, evenly spread over the sorted list"
    )
    parser.add_argument("--measures", help="comma-separated: pesq,stoi,mel,mcd,stft,pitch,band,pulses,"
                        "faults,visqol,dnsmos,words,probes (default: all that what is installed allows)")  # fmt: skip
    parser.add_argument("--baseline", action="append", default=[], choices=["griffin-lim"],
                        help="measure this as well, on the same mels")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures as one JSON object")
    parser.add_argument("--html", metavar="DIR", type=Path, help="write a page with players and spectrograms")
    parser.add_argument(
        "--html-clips", type=int, default=30, metavar="N", help="utterances with players (30)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals and of what is drawn")
    parser.add_argument("--device", help="cpu (one thread, the default), cuda, cuda:1 ...")
    add_mel_argument(parser)
    add_backend_arguments(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes that measure (default: 1; with --ray all cores)"
    )
    add_ray_argument(parser)
    evaluate_sets.add_arguments(parser)
    parser.add_argument(
        "--utterances", action="store_true", help="a line for each utterance in the terminal too"
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    model = _clip_model(args)
    if model is not None or args.generated is not None:
        return evaluate_sets.run(args, model)
    from gansound.data.source import open_corpus
    from gansound.metrics.judge import available_measures, check_measures

    asked = available_measures() if args.measures is None else args.measures.split(",")
    try:
        measures = check_measures([name.strip() for name in asked])
    except ValueError as error:
        raise UsageError(f"--measures: {error}") from None
    records = choose(open_corpus(args.data, **shares_of([args.model])), args.split, args.limit, args.data)
    evaluation = _evaluate(args, items_of(records, args.data), measures)
    _show(args, evaluation, measures)
    return 1 if evaluation.failures else 0


def _clip_model(args: argparse.Namespace) -> "LoadedModel | None":
    """The model, where it is a generator of clips."""
    if args.model is None:
        return None
    from gansound.generators.latent import LatentGenerator
    from gansound.model_folder import load_model_folder

    model = load_model_folder(args.model, allow=args.allow)
    if isinstance(model.generator, LatentGenerator):
        return model
    if args.generated is not None:
        raise UsageError(f"--model {args.model}: is a vocoder, expected what made the sounds of --generated")
    return None


def shares_of(models: Sequence[str]) -> dict[str, Any]:
    """The shares that the training of some models held out, by which `open_corpus` makes the split it made."""
    from gansound.model_folder import model_info

    said = [model_info(name).get("held_out") for name in models]
    told = [
        {part: held[part] for part in ("valid", "test") if isinstance(held.get(part), int | float)}
        for held in said
        if isinstance(held, dict)
    ]
    if any(shares != told[0] for shares in told):
        log.warning(
            "the models held out other shares of their data (%s): what one was tested on another may have been trained "
            "on, unless the data says its own split, as 'gansound data prepare' writes it",
            "; ".join(map(str, told)),
        )
    return told[0] if told else {}


def choose(records: "Sequence[Record]", split: str, limit: int | None, source: Path | str) -> "list[Record]":
    """The records of a split, `limit` of them evenly spread; ValueError when there are none."""
    chosen = [record for record in records if split == "all" or (record.split or "train") == split]
    if not chosen:
        raise ValueError(
            f"{source}: none of {counted(len(records), 'file')} is in the split {split!r}. Use --split all, or prepare "
            "the data with a larger share for it"
        )
    chosen.sort(key=lambda record: record.path.as_posix())
    count = len(chosen) if limit is None else min(limit, len(chosen))
    return [chosen[index * len(chosen) // count] for index in range(count)]


def items_of(records: "Sequence[Record]", source: Path | str) -> "list[Item]":
    """Items named by their path below the data's folder.

    Where nothing says a speaker it is the label, or else the first folder, if they lie in several. Shards say names
    below the corpus's folder.
    """
    from gansound.data import sound
    from gansound.metrics.evaluation import Item

    folder = Path() if isinstance(source, str) else source if source.is_dir() else source.parent
    items, firsts = [], []
    for record in records:
        inside = record.stored is None and record.path.is_relative_to(folder)
        name = (record.path.relative_to(folder) if inside else record.path).as_posix()
        first = name.split("/", 1)[0] if (inside or record.stored is not None) and "/" in name else None
        firsts.append(first)
        items.append(Item(name, partial(sound.read, record), record.text, record.speaker or record.label))
    if len(set(firsts)) > 1:
        items = [
            replace(item, speaker=item.speaker or first) for item, first in zip(items, firsts, strict=True)
        ]
    return items


def _check(args: argparse.Namespace) -> None:
    for name in ("limit", "jobs", "html_clips"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: got {value}, expected at least 1")
    if args.model is None and args.generated is None:
        raise UsageError("say what to measure: --model NAME_OR_DIR, or --generated DIR of sounds")
    evaluate_sets.check(args)
    if args.seed < 0:
        raise UsageError(f"--seed: got {args.seed}, expected 0 or more")
    check_place(args.data)
    if args.json is not None and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise UsageError(f"--json {args.json}: expected a file in a folder that exists")
    if args.html is not None and args.html.exists() and not args.html.is_dir():
        raise UsageError(f"--html {args.html}: is a file, expected a folder")


def _evaluate(args: argparse.Namespace, items: "list[Item]", measures: tuple[str, ...]) -> "Evaluation":
    import torch
    from threadpoolctl import threadpool_limits

    from gansound.metrics.evaluation import evaluate
    from gansound.metrics.griffin_lim import GriffinLim
    from gansound.metrics.model_mel import mel_distance_model
    from gansound.metrics.probes import Vocode
    from gansound.report.page import EvaluationPage

    vocoder = open_vocoder(args, device="cpu")
    spec = vocoder.mel_spec
    systems: dict[str, Vocode] = {_MODEL: vocoder.vocode_audio}
    if "griffin-lim" in args.baseline:
        systems["Griffin-Lim"] = GriffinLim(spec, seed=args.seed)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        page = None
        if args.html is not None:
            about = {
                "model": args.model,
                "data": f"{args.data}, split {args.split}",
                "real-time factor": "on one thread of the CPU"
                if args.device in (None, "cpu")
                else args.device,
            }
            title = f"{args.model}: copy synthesis"
            page = stack.enter_context(
                EvaluationPage(args.html, spec.sample_rate, title=title, about=about, limit=args.html_clips)
            )
        # One thread, NumPy's too, so that real-time factors of different systems can be compared.
        stack.enter_context(threadpool_limits(1))
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
        ray = stack.enter_context(pool(args))
        advance = stack.enter_context(progress("measuring", len(items), quiet=getattr(args, "quiet", False)))
        evaluation = evaluate(
            items,
            systems,
            spec.sample_rate,
            hop_length=spec.hop_length,
            measures=measures,
            jobs=args.jobs or 1,
            run=None if ray is None else ray.through,
            seed=args.seed,
            extra={"mel_distance_model": partial(mel_distance_model, spec)},
            on_progress=advance,
            on_audio=None if page is None else page.add,
        )
        if page is not None:
            page.write(evaluation)
    return evaluation


def _show(args: argparse.Namespace, evaluation: "Evaluation", measures: tuple[str, ...]) -> None:
    from rich.text import Text

    from gansound.cli.console import Console
    from gansound.metrics.judge import MEASURES
    from gansound.report.pictures import write_bytes
    from gansound.report.record import evaluation_record
    from gansound.report.tables import (
        alarm_lines,
        difference_table,
        left_out,
        speaker_table,
        summary_table,
        utterance_table,
    )

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or a pipe has no width: don't fold the table to 80 columns
    if evaluation.utterances:
        console.print(summary_table(evaluation, title=counted(len(evaluation.utterances), "utterance")))
        for other in evaluation.systems[2:]:
            console.print(difference_table(evaluation, _MODEL, other))
        if len(evaluation.by_speaker()) > 1:
            for system in evaluation.systems[1:]:
                console.print(speaker_table(evaluation, system))
        if args.utterances:
            for system in evaluation.systems[1:]:
                console.print(utterance_table(evaluation, system))
    if alarms := alarm_lines(evaluation):
        console.print(Text("alarms:", "bold red"))
        for line in alarms:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if absent := left_out(evaluation):
        console.print(Text("not in the means:", "yellow"))
        for line in absent:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if args.measures is None and (left := [name for name in MEASURES if name not in measures]):
        console.print(
            Text(f"not measured: {', '.join(left)}. Install them: pip install 'gansound[eval]'", "yellow")
        )
    if evaluation.failures:
        console.print(Text(f"{len(evaluation.failures)} failed:", "bold red"))
        for failure in evaluation.failures:
            reason = failure.reason if failure.id in failure.reason else f"{failure.id}: {failure.reason}"
            console.print(Text(f"  {reason}"), soft_wrap=True)
    if args.json is not None:
        about = {
            "model": args.model,
            "data": str(args.data),
            "split": args.split,
            "device": args.device or "cpu",
            "backend": args.backend,
            "precision": args.precision,
        }
        record = evaluation_record(evaluation, **about)
        write_bytes(args.json, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
        console.print(Text(f"figures: {args.json}"))
    if args.html is not None:
        console.print(Text(f"page: {args.html / 'index.html'}"))
