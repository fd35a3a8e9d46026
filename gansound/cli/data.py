"""``gansound data check`` and ``gansound data prepare``: look at a corpus, make it ready to train on."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli import add_global_options
from gansound.cli.cluster import add_ray_argument, pool
from gansound.cli.errors import UsageError
from gansound.cli.places import place
from gansound.cli.streams import tell
from gansound.counts import counted
from gansound.data.corpus import LAYOUTS

if TYPE_CHECKING:
    from gansound.data.check import CorpusReport
    from gansound.data.slices import Slice

HELP = "Look at a corpus, make a manifest of it."
EXAMPLES = """examples:
  gansound data check recordings/
  gansound data check LJSpeech-1.1/ --json report.json
  gansound data prepare recordings/ -o prepared/ --sample-rate 22050
  gansound data prepare LibriTTS_R/ -o prepared/ --sample-rate 22050 --trim 40 --loudness -23
  gansound data prepare interviews/ -o prepared/ --speaker '(p\\d+)_'
  gansound data prepare recordings/ -o prepared/ --shards s3://bucket/recordings
  gansound data prepare recordings/ -o prepared/ --ray 10.0.0.1:6379

A corpus is LJSpeech, LibriTTS (-R), VCTK, Common Voice, Speech Commands or a Hugging Face data set in its own layout,
which is recognised, or any folder of WAV, FLAC, Ogg, Opus, MP3, AIFF, AU or CAF, searched through its subfolders."""
_LISTED = 10
_QUIETER = (
    "file passed full scale and is quieter in its copy",
    "files passed full scale and are quieter in their copies",
)
_MONO = ("file of several channels is mono in its copy", "files of several channels are mono in their copies")
_STAY = ("file of several channels stays as it is", "files of several channels stay as they are")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="what to do", dest="action", metavar="check|prepare", required=True)
    check = actions.add_parser(
        "check",
        help="what a corpus holds, and whether it is enough",
        description="Decode every file, measure it, and say what the corpus is good for.",
    )
    prepare = actions.add_parser(
        "prepare",
        help="make a manifest, and copies at another sample rate, trimmed, of one loudness",
        description="Decode every file once, and write OUT/manifest.jsonl with a train, valid and test split. Files "
        "that can't be used and exact copies are named and left out (OUT/dropped.jsonl lists them). The corpus's own "
        "splits are kept; else what belongs together (a speaker, the takes of one prompt) stays in one. Run again, "
        "also after a kill, it does only what is new or changed.",
    )
    for action in (check, prepare):
        action.add_argument(
            "folder", type=place, metavar="DIR", help="the corpus, or what prepare made of one"
        )
        action.add_argument(
            "--speaker",
            metavar="REGEX",
            help="pattern whose (group), found in a file's relative path, is its speaker; splits are then by speaker",
        )
        action.add_argument(
            "--layout",
            metavar="NAME",
            help=f"one of {', '.join(LAYOUTS)} (default: the one it is recognised to have)",
        )
        add_global_options(action)
    check.add_argument("--json", type=Path, metavar="FILE", help="also write every figure of every file here")
    prepare.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to write")
    prepare.add_argument(
        "--sample-rate",
        type=int,
        metavar="HZ",
        help="files of another rate get a FLAC copy at this one in OUT/audio",
    )
    prepare.add_argument(
        "--trim",
        type=float,
        metavar="DB",
        help="cut silence at both ends further than this under the loudest moment, but for 50 ms; 40 suits speech",
    )
    prepare.add_argument(
        "--loudness",
        type=float,
        metavar="LUFS",
        help="bring every file to this loudness (BS.1770), less where its peak would pass -1 dB; -23 suits speech",
    )
    prepare.add_argument(
        "--min-seconds", type=float, default=0.01, metavar="S", help="drop what is shorter (default 0.01)"
    )
    prepare.add_argument(
        "--keep-copies",
        action="store_true",
        help="keep exact copies, in one split, instead of the first of them",
    )
    prepare.add_argument(
        "--shards",
        metavar="PLACE",
        help="also write all of it into shards, to a folder or a URL (s3://, gs://, hf:// ...), from which "
        "training reads by byte ranges: --data.path PLACE",
    )
    prepare.add_argument(
        "--slice",
        metavar="N/COUNT",
        help="do this part only, such as 3/16, beside the others on other machines; slurm takes it from the task; "
        "the same command without it then finishes",
    )
    prepare.add_argument("--jobs", type=int, metavar="N", help="threads (default: as many as cores)")
    add_ray_argument(prepare)
    prepare.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    prepare.add_argument(
        "--valid", type=float, default=0.05, metavar="SHARE", help="for validation (default 0.05)"
    )
    prepare.add_argument(
        "--test", type=float, default=0.05, metavar="SHARE", help="for testing (default 0.05)"
    )


def run(args: argparse.Namespace) -> int:
    if args.layout is not None and args.layout not in LAYOUTS:
        raise UsageError(f"--layout {args.layout}: expected one of {', '.join(LAYOUTS)}")
    if isinstance(args.folder, str):
        raise UsageError(
            f"{args.folder}: expected a folder of this machine, or one mounted on it. What 'prepare --shards' wrote to "
            "a store has been looked at, and is trained on by its URL (--data.path)"
        )
    manifest = args.action == "check" and args.folder.is_file() and args.folder.suffix == ".jsonl"
    if not args.folder.is_dir() and not manifest:
        raise UsageError(f"{args.folder}: {'not a folder' if args.folder.exists() else 'no such folder'}")
    return _check(args) if args.action == "check" else _prepare(args)


@contextmanager
def _progress(title: str, quiet: bool) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gansound.cli.console import Console

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=quiet or not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _check(args: argparse.Namespace) -> int:
    from gansound.data.check import check_corpus

    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise UsageError(f"--json {args.json}: there is no folder {args.json.parent}")
    with _progress("checking", args.quiet) as progress:
        report = check_corpus(
            args.folder, speaker_pattern=args.speaker, layout=args.layout, progress=progress
        )
    if args.json is not None:
        from gansound.report.pictures import write_bytes

        text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
        write_bytes(args.json, f"{text}\n".encode())
    _show(report)
    if not report.files:
        raise ValueError(
            f"{args.folder}: none of {counted(len(report.unusable), 'file')} can be used, see the reasons above"
        )
    if report.summary["silent_files"] == len(report.files):
        raise ValueError(f"{args.folder}: all files are silent, so there is nothing to train on")
    return 0


def _show(report: "CorpusReport") -> None:
    from rich.markup import escape
    from rich.table import Table

    from gansound.audio import SILENT_PEAK_DB
    from gansound.cli.console import Console

    console = Console()
    s = report.summary
    table = Table(title=escape(str(report.root)), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _rows(report, s):
        table.add_row(name, escape(value))
    console.print(table)
    _list(console, "can't be used", [f"{path}: {reason}" for path, reason in report.unusable])
    _list(console, "silent", [str(f.path) for f in report.files if f.peak_db <= SILENT_PEAK_DB])
    _list(console, "exact copies", [" = ".join(str(path) for path in paths) for paths in report.duplicates])
    console.print()
    for line in report.verdicts:
        console.print(f"• {escape(line)}", soft_wrap=True, highlight=False)


def _list(console: Any, title: str, lines: list[str]) -> None:
    from rich.markup import escape

    if lines:
        console.print(f"\n[bold]{title}[/bold]", highlight=False)
        for line in lines[:_LISTED]:
            console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
        if len(lines) > _LISTED:
            console.print(f"  and {len(lines) - _LISTED} more; --json FILE lists all", highlight=False)


def _rows(report: "CorpusReport", s: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from gansound.data.verdict import duration

    yield (
        "files",
        str(s["files"]) + (f", and {s['unusable_files']} that can't be used" if s["unusable_files"] else ""),
    )
    yield "layout", report.layout
    if not s["files"]:
        return
    yield "together", duration(s["hours"] * 3600)
    yield "sample rate", _counted(s["sample_rates_hz"], "Hz")
    yield "channels", _counted(s["channels"], "")
    yield "format", _counted(s["formats"], "")
    d = s["duration_seconds"]
    yield "duration", f"{d['min']:.2f} / {d['median']:.2f} / {d['max']:.2f} s (min, median, max)"
    for key, name, unit in (
        ("loudness_lufs", "loudness", "LUFS"),
        ("rms_db", "RMS level", "dB"),
        ("peak_db", "peak level", "dB"),
        ("noise_floor_db", "noise floor", "dB"),
    ):
        q = s[key]
        yield name, f"{q['median']:.1f} {unit} (5 % under {q['p5']:.1f}, 5 % over {q['p95']:.1f})"
    yield "silence", f"{s['silence_share']:.0%}"
    yield "clipped", f"{counted(s['clipped_files'], 'file')}, {counted(s['clipped_samples'], 'sample')}"
    if s["band_limited_files"]:
        limit = s["band_limit_hz"]["median"]
        yield (
            "band limit",
            f"{counted(s['band_limited_files'], 'file holds', 'files hold')} nothing above "
            f"{limit / 1000:.1f} kHz (median)",
        )
    yield "exact copies", str(s["duplicate_files"])
    if report.speakers:
        yield "speakers", f"{len(report.speakers)}: {_counted(report.speakers, '', most=5)}"
    if report.labels:
        yield "labels", f"{len(report.labels)}: {_counted(report.labels, '', most=12)}"
    if report.splits:
        yield "splits", ", ".join(f"{name} {count}" for name, count in report.splits.items())
    else:
        yield (
            "split by",
            f"{report.grouping}: {counted(sum(report.takes.values()), 'group')}, up to "
            f"{counted(max(report.takes), 'file')} in one",
        )


def _counted(counts: dict[str, int], unit: str, most: int = 4) -> str:
    named = [f"{name} {unit}".strip() for name in counts]
    if len(counts) == 1:
        return named[0]
    parts = [f"{name} ({count})" for name, count in zip(named, counts.values(), strict=True)]
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")


def _prepare(args: argparse.Namespace) -> int:
    from gansound.data.corpus import by_split
    from gansound.data.manifest import MANIFEST_NAME
    from gansound.data.pack import check_place
    from gansound.data.prepare import prepare
    from gansound.data.process import Outcome, Processing
    from gansound.data.slices import Slice
    from gansound.data.verdict import duration

    try:
        processing = Processing(args.sample_rate, args.trim, args.loudness, args.min_seconds)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not (0 <= args.valid < 1 and 0 <= args.test < 1 and args.valid + args.test < 1):
        raise UsageError(f"--valid and --test are shares, together below 1; got {args.valid} and {args.test}")
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs: expected 1 or more, got {args.jobs}")
    if args.out.exists() and not args.out.is_dir():
        raise UsageError(f"-o {args.out}: is there already and not a folder")
    changes = processing != Processing(min_seconds=args.min_seconds)
    if changes and args.out.resolve().is_relative_to(args.folder.resolve()):
        raise UsageError(f"-o {args.out}: copies inside the corpus {args.folder} would become part of it")
    if args.shards is not None:
        try:
            check_place(args.shards)
        except ValueError as error:
            raise UsageError(f"--shards {error}") from None
    try:
        part = None if args.slice is None else Slice.parse(args.slice)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    if part is not None and args.shards is not None:
        if not (args.out / MANIFEST_NAME).is_file():
            raise UsageError(
                f"--shards with --slice: {args.out} holds no manifest yet. Prepare first, in slices without --shards "
                "and then once without --slice"
            )
        _write_shards(args, args.out / MANIFEST_NAME, part)
        return 0
    begun = time.perf_counter()
    with pool(args) as ray, _progress("preparing", args.quiet) as progress:
        done = prepare(
            args.folder,
            args.out,
            sample_rate=args.sample_rate,
            seed=args.seed,
            valid=args.valid,
            test=args.test,
            speaker_pattern=args.speaker,
            layout=args.layout,
            trim_db=args.trim,
            loudness_lufs=args.loudness,
            min_seconds=args.min_seconds,
            keep_copies=args.keep_copies,
            jobs=args.jobs,
            part=part,
            run=None if ray is None else partial(ray.map, lost=lambda _, reason: Outcome(dropped=reason)),
            progress=progress,
        )
    if part is not None:
        if not args.quiet:
            tell(
                f"slice {part}: {counted(len(done.records) + len(done.copies), 'file')} done, "
                f"{len(done.unusable)} can't be used; the same command without --slice finishes when all "
                "slices are done"
            )
        return 0
    took = time.perf_counter() - begun
    lines = [
        f"{done.manifest}: {counted(len(done.records), 'file')}, {duration(done.seconds_out)} ({done.layout})"
    ]
    for name, its in by_split(done.records).items():
        lines.append(f"  {name}: {counted(len(its), 'file')}, {duration(sum(r.seconds for r in its))}")
    own = done.grouping.startswith("the corpus")
    lines.append(f"split by {done.grouping}" + ("" if own else f", seed {args.seed}"))
    if done.copied:
        lines.append(
            f"{counted(done.copied, 'file has', 'files have')} a copy in {args.out / 'audio'}, which is trained "
            f"on in {'its' if done.copied == 1 else 'their'} place"
        )
    if done.lowered:
        path, most_db = max(done.lowered, key=lambda one: one[1])
        lines.append(f"{counted(len(done.lowered), *_QUIETER)}, most {path}, by {most_db:.2g} dB")
    if args.trim is not None:
        lines.append(f"{duration(done.trimmed_seconds)} of silence cut")
    if done.mixed_copies:
        lines.append(
            f"{counted(done.mixed_copies, *_MONO)}; a stereo model wants the corpus itself (docs/sounds.md)"
        )
    if left := done.mixed - done.mixed_copies:
        lines.append(
            f"{counted(left, *_STAY)}: a model of one channel reads {'it' if left == 1 else 'them'} mixed"
        )
    if done.cancelled:
        lines.append(
            f"{counted(done.cancelled, 'file has', 'files have')} channels that cancel each other: the strongest "
            "alone is read of each"
        )
    if done.copies:
        lines.append(f"{counted(len(done.copies), 'exact copy', 'exact copies')} left out:")
        lines += _first([f"{path} = {original}" for path, original in done.copies], args.out)
    if done.unusable:
        unfit = counted(len(done.unusable), "file can't be used and is", "files can't be used and are")
        lines.append(f"{unfit} left out:")
        lines += _first([f"{path}: {reason}" for path, reason in done.unusable], args.out)
    pace = f"{duration(done.seconds_in)} in {took:.1f} s: {done.seconds_in / took:.0f} times real time"
    before = f"{counted(done.reused, 'file was', 'files were')} done before" if done.reused else ""
    lines.append("; ".join(part for part in (before, pace if done.seconds_in else "nothing is new") if part))
    if not args.quiet:
        for line in lines:
            tell(line)
    if args.shards is not None:
        _write_shards(args, done.manifest, None)
    return 0


def _write_shards(args: argparse.Namespace, manifest: Path, part: "Slice | None") -> None:
    from gansound.data.pack import write_shards
    from gansound.data.source import open_corpus

    with pool(args) as ray, _progress("writing shards", args.quiet) as progress:
        about = write_shards(
            open_corpus(manifest),
            args.shards,
            names_below=[args.out, args.folder],
            jobs=args.jobs,
            part=part,
            run=None if ray is None else partial(ray.map, lost=_not_written),
            progress=progress,
        )
    if not args.quiet:
        what = (
            f"slice {part}"
            if about is None
            else f"{counted(about.records, 'recording')}, {about.hours:.2f} h in shards"
        )
        tell(f"{args.shards}: {what}")


def _not_written(_: object, reason: str) -> bytes:
    raise ValueError(f"a shard can't be written: {reason}. Start again; what is written stays")


def _first(named: list[str], out: Path) -> list[str]:
    more = [f"and {len(named) - _LISTED} more: {out / 'dropped.jsonl'}"] if len(named) > _LISTED else []
    return [f"  {line}" for line in (*named[:_LISTED], *more)]
