"""`gansound train`: from a recipe to a model folder."""

import argparse
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from gansound.cli.errors import INTERRUPTED, UsageError
from gansound.cli.signals import on_signals
from gansound.cli.streams import tell
from gansound.extras import install_line, missing, require

if TYPE_CHECKING:
    from gansound.engine.run import Run

log = logging.getLogger(__name__)

HELP = """Train a model from a recipe, or go on with a run.

RECIPE is a YAML file or the name of a shipped recipe; every key of it can be set on the command line by its dotted
name. Started again with the same --run, training goes on from the newest checkpoint and ends as if it had never
stopped. `gansound train RECIPE --keys` lists the keys with their meaning."""

EXAMPLES = """examples:
  gansound train tiny_cpu --data.path recordings/ --steps 20 --seed 0 --run runs/try
  gansound train melgan_ljspeech --data.path LJSpeech-1.1 --run runs/melgan
  gansound train hifigan_v1_ljspeech --data.path s3://bucket/shards --run runs/hifigan
  gansound train specgan_drums --data.path drums/ --run runs/drums
  gansound train my_recipe.yaml --batch_size 8 --generator_optimization.optimizer.init_args.lr 2e-4
  gansound train finetune_cpu --init-from default --data.path my_voice/ --steps 3000 --run runs/my_voice
  gansound train finetune_vocoder --init-from imported/ --data.path my_voice/ --data.mels mels/ --run runs/tuned
  torchrun --nproc_per_node 8 -m gansound train melgan_ljspeech --data.path LJSpeech-1.1 -o runs/melgan
  gansound train melgan_ljspeech --data.path LJSpeech-1.1 --profile
  gansound runs
  tensorboard --logdir runs

A run folder holds recipe.yaml (as resolved), metrics.jsonl, sessions.jsonl (how it was started and how it ended),
tensorboard/, checkpoints/, model/ (the newest) and best/ (by the held-out figure), which `gansound vocode --model
runs/try/model` or `generate` load. A checkpoint is written every checkpoint_every steps, at the end, and when the
process is told to end: by Ctrl-C (a second one ends it at once), by SIGTERM, as batch systems do, or as its terminal is
closed (SIGHUP; nohup keeps it going)."""

EXTRA = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"shipped recipes:\n{shipped_recipes()}\n\n{EXAMPLES}"
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a YAML file, or the name of a shipped recipe; without it the shipped ones are listed",
    )
    parser.add_argument(
        "-o",
        "--run",
        dest="run",
        type=Path,
        metavar="DIR",
        help="the run's folder (default: runs/RECIPE). torchrun takes --run for one of its own options: -o there",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours the recipe may name",
    )
    parser.add_argument(
        "--init-from",
        metavar="MODEL",
        help="start from a trained model instead of random weights: a model folder, a run folder, a shipped name or a "
        "Hugging Face repository; with its discriminators where it has them",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const=20,
        type=_steps,
        metavar="STEPS",
        help="train nothing: time some steps (default 20) on this recipe and data, and say where their time goes. "
        "Writes profile.json, profile.png and profile.trace.json.gz (for ui.perfetto.dev) into the run's folder, and "
        "changes nothing else in it",
    )
    parser.add_argument("--keys", action="store_true", help="list the recipe's keys, and stop")


def run(args: argparse.Namespace) -> int:
    from gansound.data.store import check, is_url
    from gansound.recipe import load_recipe

    if args.recipe is None:
        own = None if args.run is None else args.run / "recipe.yaml"
        if own is not None and own.is_file():
            raise UsageError(
                f"expected a recipe; {args.run} goes on with its own: gansound train {quote(str(own))} "
                f"--run {quote(str(args.run))}"
            )
        raise UsageError(
            f"expected a recipe: a file (`gansound recipe` writes one for any rate), or one of\n{shipped_recipes()}"
        )
    settings = overrides(args.extra)
    if args.init_from is not None:
        if "init_from" in settings:
            raise UsageError("--init-from is given twice")
        here = Path(args.init_from).expanduser()
        settings["init_from"] = json.dumps(str(here.absolute()) if here.is_dir() else args.init_from)
    recipe = load_recipe(args.recipe, settings, allow=args.allow)
    if args.keys:
        show_keys(recipe, args.allow)
        return 0
    folder = args.run or Path("runs") / Path(args.recipe).stem
    for above in (folder, *folder.parents):
        if above.exists() and not above.is_dir():
            raise UsageError(f"--run {folder}: {above} is a file, expected a folder")
    if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        raise UsageError(
            f"--run {folder}: holds a model, expected a run's folder or a new one; --init-from {folder} begins with it"
        )
    data = recipe.get("data") or {}
    path = data.get("path") if isinstance(data, dict) else None  # what else is wrong, the plan says
    if isinstance(path, str) and is_url(path):
        try:
            check(path)
        except ValueError as error:
            raise UsageError(f"data.path {error}") from None
    elif isinstance(path, str) and not Path(path).expanduser().exists():
        raise UsageError(f"data.path {path}: no such file or folder")
    require("training", "accelerate", "tensorboard", "matplotlib", extra="train")
    from gansound.engine.guards import StoppedError
    from gansound.engine.plan import plan
    from gansound.engine.processes import said_by_one, speaks
    from gansound.engine.run import Run

    with said_by_one():
        planned = plan(recipe, args.allow)
    if planned.settings.data.path is None:
        raise UsageError("say what to train on: --data.path DIR (a folder of audio, or a manifest)")
    if args.profile is not None:
        from gansound.cli.training_profile import show_profile

        show_profile(planned, args.profile, folder, name=args.recipe)
        return 0
    training = Run(planned, folder)
    # torchrun starts this command once a process; one of them speaks.
    quiet = args.quiet or not speaks()
    if not quiet and missing("pesq"):
        log.info("a vocoder's validation goes without PESQ: %s brings it", install_line("pesq"))
    try:
        # Batch systems send SIGTERM some time before they kill: the run then writes a checkpoint and ends. So it does
        # where its terminal is closed, and at Ctrl-C.
        with (
            on_signals(_stopping(training, says_so=speaks()), ("SIGTERM", "SIGHUP", "SIGINT")),
            progress_line(planned.settings.steps, quiet=quiet) as observe,
        ):
            training.fit(observe)
    except StoppedError as stopped:
        if speaks():
            log.warning("%s", stopped)
        training.close()
        return INTERRUPTED
    except KeyboardInterrupt:
        from gansound.engine.checkpoint import checkpoints

        found = checkpoints(folder / "checkpoints")
        where = f"goes on from {found[-1]}" if found else "starts anew: no checkpoint was written yet"
        log.warning("the same command %s", where)
        raise
    training.close()
    if not quiet:
        tell(folder / "model")
    return 0


def _stopping(training: "Run", *, says_so: bool) -> Callable[[str], None]:
    """What a signal does: end the run after a step, with a checkpoint; Ctrl-C for the second time at once."""
    pressed, owner = 0, os.getpid()

    def stop(name: str) -> None:
        nonlocal pressed
        if os.getpid() != owner:  # a process that loads, forked from this one, loads on for the step
            return
        pressed += name == "SIGINT"
        if pressed > 1 and name == "SIGINT":
            raise KeyboardInterrupt
        training.stop()
        if name == "SIGINT" and says_so:
            log.warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once, without")

    return stop


def shipped_recipes() -> str:
    """A line for each: its name and what it is."""
    from gansound.recipe import recipe_summaries

    summaries = recipe_summaries()
    width = max(map(len, summaries), default=0)
    return "\n".join(f"  {name:{width}}  {summary}" for name, summary in summaries.items())


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a number of steps, 1 or more, or nothing; RECIPE comes before it"
        )
    return int(text)


def overrides(extra: list[str]) -> dict[str, Any]:
    """`--key.path value` and `--key.path=value` pairs by their dotted key, the values as the YAML they are given in.

    Where the key says that it is a path, the value is one, whatever YAML would make of `[a] #1`; it becomes absolute,
    so that a run can be resumed from another folder.

    Raises:
        UsageError: a key without a value, a value without a key, a key given twice.
    """
    from gansound.data.store import is_url

    found: dict[str, Any] = {}
    rest = list(extra)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise UsageError(f"{key!r}: expected a setting as --key.path value")
        key, equals, value = key.removeprefix("--").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{key}: expected a value after it")
            value = rest.pop(0)
        if key in found:
            raise UsageError(f"--{key} is given twice")
        is_path = (
            key.rpartition(".")[2] == "path"
            or key == "data.f0"
            or (key == "data.mels" and value != "manifest")
        )
        if is_path and value not in ("", "null"):
            place = value if is_url(value) else str(Path(value).expanduser().absolute())
            value = json.dumps(place, ensure_ascii=False)
        found[key] = value
    return found


def show_keys(recipe: dict[str, Any], allow: list[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from gansound.cli.console import Console
    from gansound.engine.plan import keys

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width: don't fold the table to 80 columns
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("key", "type", "default", "meaning"):
        table.add_column(name, overflow="fold", no_wrap=name == "key")
    rows = keys(recipe, allow)
    above = {row.key.rpartition(".")[0] for row in rows}
    for row in rows:
        default = row.default or ("" if row.key in above else "(must be given)")
        first, stop, _ = row.help.partition(". ")  # torch's own optimizers are described at length
        table.add_row(*(Text(cell) for cell in (row.key, row.type, default, first + stop)))
    console.print(table)


def progress_line(steps: int, *, quiet: bool = False) -> Any:
    """A context that gives the engine's observer: a live line on a terminal, a log line now and then elsewhere."""
    from gansound.cli.training_progress import TrainingProgress

    return TrainingProgress(steps, quiet=quiet)
