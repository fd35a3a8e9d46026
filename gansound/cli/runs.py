"""`gansound runs`: what was trained, how far it is, and which is better."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli.errors import UsageError
from gansound.extras import require

if TYPE_CHECKING:
    from gansound.engine.history import RunHistory

HELP = """List runs of training below a folder, compare them, or look closely at one.

A run is a folder with recipe.yaml and metrics.jsonl, as `gansound train` writes it. For each: the last step logged,
and the step of its newest checkpoint, from which it goes on, where that is another; whether it still trains; its main
held-out figure at its best (@ the step) and last; seconds a step; hours of training logged, validations left out; how
often it was resumed; the version and commit of gansound (+: with changes).
Without validations the last value of a loss stands in for the figure; a GAN's losses have no best.

States: running; finished; interrupted (Ctrl-C or SIGTERM); failed (with the message); stopped (no end was written:
killed, or the machine went down); empty (nothing logged yet); unreadable (a file of it is a link, a pipe or closed to
you: which one is said below the table). Given a run itself, its sessions, events and checkpoints are shown."""
EXAMPLES = """examples:
  gansound runs
  gansound runs experiments/ --sort mel_distance
  gansound runs --differences
  gansound runs --picture runs.png --key mel_distance pesq_wb spectrum --x hours
  gansound runs runs/first
  gansound runs runs/ --json runs.json
  tensorboard --logdir runs"""
_SORTS = ("name", "started", "step", "state", "hours")
_PANELS = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dirs",
        metavar="DIR",
        nargs="*",
        type=Path,
        help="a run, or a folder with runs below it (default: runs)",
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        nargs="+",
        default=[],
        help="which figures, such as mel_distance or spectrum (default: the main held-out one; in a picture, held-out "
        "figures and losses)",
    )
    parser.add_argument(
        "--sort",
        metavar="KEY",
        help=f"{', '.join(_SORTS)}, or a figure, the best first (default: started, the newest last)",
    )
    parser.add_argument(
        "--differences", action="store_true", help="show the keys of the recipes whose values differ"
    )
    parser.add_argument(
        "--picture", metavar="FILE", type=Path, help="draw the curves of all runs, a panel a figure (PNG)"
    )
    parser.add_argument(
        "--x",
        choices=("step", "hours"),
        default="step",
        help="what the picture's curves run over (default: step)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const=Path("-"),
        type=Path,
        help="write all of it as one JSON object; to standard output, and nothing else there, without FILE",
    )


def run(args: argparse.Namespace) -> int:
    tops = args.dirs or [Path("runs")]
    _check(args, tops)
    from gansound.engine.history import differences
    from gansound.engine.run_record import run_record

    runs = _read(tops)
    asked = _resolve(args.key, runs)
    main = dict.fromkeys(names[0] for run in runs.values() if (names := run.figures))
    columns = asked or sorted(main, key=lambda name: not name.startswith("valid/"))
    by = args.sort or "started"
    if by not in _SORTS:
        (by,) = _resolve([by], runs, "--sort")
    records = [
        # That to sort by is looked up as well, though the table needn't show it.
        run_record(name, run, [n for n in run.figures if n == by or (n in asked if asked else _is_shown(n))])
        for name, run in runs.items()
    ]
    records.sort(key=lambda record: _order(record, by))
    recipes = {r["name"]: runs[r["name"]].recipe for r in records}
    known = {name: recipe for name, recipe in recipes.items() if recipe}  # what can't be read has no values
    found = differences(known) if args.differences else None
    if args.picture is not None:
        _draw(args, {r["name"]: runs[r["name"]] for r in records}, asked)
    if args.json is not None:
        _write(args.json, {"runs": records} | ({} if found is None else {"differences": found}))
    if args.json != Path("-"):
        _show(args, tops, records, columns, None if found is None else (found, list(known)))
    return 0


def _check(args: argparse.Namespace, tops: Sequence[Path]) -> None:
    for top in tops:
        if not top.exists():
            hint = "" if args.dirs else "; say where they are: gansound runs DIR"
            raise UsageError(f"{top}: no such folder{hint}")
        if not top.is_dir():
            raise UsageError(f"{top}: is a file, expected a run's folder or one with runs below it")
    if args.picture is not None:
        require("--picture", "matplotlib")
    for name in ("json", "picture"):
        path = getattr(args, name)
        if path is not None and path != Path("-") and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(
                f"--{name} {path}: expected a file in a folder that exists; put DIR before --{name}"
            )


def _read(tops: Sequence[Path]) -> "dict[str, RunHistory]":
    """Runs by the shortest names that tell them apart: below the one folder given, else as paths."""
    from gansound.engine.history import find_runs, read_run

    folders = list(dict.fromkeys(folder for top in tops for folder in find_runs(top)))
    if not folders:
        raise UsageError(
            f"{', '.join(map(str, tops))}: no run there or below; a run's folder holds recipe.yaml and metrics.jsonl "
            "(gansound train RECIPE --run DIR)"
        )
    alone = len(tops) == 1
    return {(_below(folder, tops[0]) if alone else str(folder)): read_run(folder) for folder in folders}


def _below(folder: Path, top: Path) -> str:
    return folder.resolve().name if folder == top else str(folder.relative_to(top))


def _resolve(names: Sequence[str], runs: "Mapping[str, RunHistory]", option: str = "--key") -> list[str]:
    """Figures as the logs call them; `mel_distance` is that of validations."""
    from gansound.recipe.text import meant

    known = dict.fromkeys(name for run in runs.values() for name in run.figures)
    found = []
    for name in names:
        full = next((n for n in (name, f"valid/{name}") if n in known), None)
        if full is None:
            more = f"{', '.join(_SORTS)}, " if option == "--sort" else ""
            if Path(name).is_dir():
                raise UsageError(f"{option} {name}: is a folder, expected a figure; put DIR before {option}")
            raise UsageError(
                f"{option} {name}: no run has logged it{meant(name, known)}; there are {more}"
                f"{', '.join(known) or 'no figures yet'}"
            )
        found.append(full)
    return list(dict.fromkeys(found))


def _is_shown(name: str) -> bool:
    from gansound.engine.history import is_housekeeping

    return not is_housekeeping(name)


def _order(record: Mapping[str, Any], by: str) -> tuple[Any, ...]:
    """What runs are sorted by; those without it come last, equals by name."""
    value: Any
    if by in record["figures"]:
        figure = record["figures"][by]
        value = figure["last"] if figure["best"] is None else figure["best"]
        value = -value if figure["better"] == "higher" else value
    else:
        value = record.get("training_hours" if by == "hours" else by)
    return value is None, value if value is not None else 0, record["name"]


def _draw(args: argparse.Namespace, runs: "Mapping[str, RunHistory]", asked: Sequence[str]) -> None:
    from gansound.report.pictures import save
    from gansound.report.run_curves import runs_picture

    names = dict.fromkeys(name for run in runs.values() for name in run.figures if _is_shown(name))
    ordered = sorted(names, key=lambda name: not name.startswith("valid/"))
    figures = list(asked) or ordered[:_PANELS]
    if not figures:
        raise ValueError("--picture: there is nothing to draw, for no run has logged a figure yet")
    save(
        runs_picture({name: (run.records, run.hours) for name, run in runs.items()}, figures, x=args.x),
        args.picture,
    )


def _write(path: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=2) + "\n"
    if path == Path("-"):
        print(text, end="")
        return
    from gansound.report.pictures import write_bytes

    write_bytes(path, text.encode(errors="surrogateescape"))


def _show(
    args: argparse.Namespace,
    tops: Sequence[Path],
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    compared: tuple[Mapping[str, Mapping[str, Any]], Sequence[str]] | None,
) -> None:
    from rich.text import Text

    from gansound.cli.console import Console
    from gansound.report.runs import differences_table, run_detail, runs_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no width: don't fold the table to 80 columns
    single = len(records) == 1 and Path(records[0]["folder"]) == tops[0]
    if single:
        # Folded, a command or a path couldn't be pasted.
        console.print(run_detail(records[0]), soft_wrap=True)
    else:
        console.print(runs_table(records, columns, width=console.width))
    for record in records:
        if record["why"] and not single:
            console.print(
                Text(f"{record['name']} {record['state']}: {record['why']}", "yellow"), soft_wrap=True
            )
        for problem in record["problems"]:
            console.print(Text(f"{record['name']}: {problem}", "yellow"), soft_wrap=True)
    if compared is not None:
        found, names = compared
        console.print()
        if len(names) < 2:
            console.print(Text("there are no two recipes to compare"))
        else:
            console.print(differences_table(found, names) if found else Text("the recipes are equal"))
        if absent := [record["name"] for record in records if record["name"] not in names]:
            console.print(
                Text(f"without a recipe, not compared: {', '.join(absent)}", "yellow"), soft_wrap=True
            )
    boards = [top for top in tops if any(Path(record["folder"]).is_relative_to(top) for record in records)]
    if any((Path(record["folder"]) / "tensorboard").is_dir() for record in records):
        console.print(
            Text(f"\ncurves, sounds and pictures: tensorboard --logdir {boards[0]}", "dim"), soft_wrap=True
        )
    for path in (args.picture, args.json):
        if path is not None:
            console.print(Text(f"written: {path}"), soft_wrap=True)
