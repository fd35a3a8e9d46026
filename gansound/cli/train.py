"""`gansound train`: from a recipe to a model folder."""

import argparse
from pathlib import Path
from typing import Any

from gansound.cli.errors import UsageError

HELP = """Train a model from a recipe, or go on with a run.

RECIPE is a YAML file or the name of a shipped recipe; every key of it can be set on the command line by its dotted
name. Started again with the same --run, training goes on from the newest checkpoint and ends as if it had never
stopped. `gansound train RECIPE --keys` lists the keys with their meaning."""

EXAMPLES = """examples:
  gansound train tiny_cpu --data.path recordings/ --steps 20 --seed 0 --run runs/try
  gansound train melgan_ljspeech --data.path LJSpeech-1.1 --run runs/melgan
  gansound train my_recipe.yaml --batch_size 8 --generator_optimization.optimizer.init_args.lr 2e-4
  tensorboard --logdir runs

A run folder holds recipe.yaml (as resolved), metrics.jsonl, tensorboard/, checkpoints/ and model/, which
`gansound vocode --model runs/try/model` loads. A checkpoint is written every checkpoint_every steps and at the end."""

EXTRA = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")
    parser.add_argument("--run", type=Path, help="the run's folder (default: runs/RECIPE)")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="a package of yours the recipe may name"
    )
    parser.add_argument("--keys", action="store_true", help="list the recipe's keys, and stop")


def run(args: argparse.Namespace) -> int:
    from gansound.recipe import load_recipe

    recipe = load_recipe(args.recipe, overrides(args.extra))
    if args.keys:
        show_keys(recipe, args.allow)
        return 0
    from gansound.engine.plan import plan
    from gansound.engine.run import Run

    planned = plan(recipe, args.allow)
    if planned.settings.data.path is None:
        raise UsageError("say what to train on: --data.path DIR (a folder of audio, or a manifest)")
    if not Path(planned.settings.data.path).exists():
        raise UsageError(f"--data.path {planned.settings.data.path}: no such file or folder")
    folder = args.run or Path("runs") / Path(args.recipe).stem
    training = Run(planned, folder)
    with progress_line(planned.settings.steps) as observe:
        training.fit(observe)
    print(folder / "model")
    return 0


def overrides(extra: list[str]) -> dict[str, Any]:
    """`--key.path value` and `--key.path=value` pairs by their dotted key."""
    from gansound.recipe import parse_yaml

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
        found[key] = parse_yaml(value, f"--{key}")
    return found


def show_keys(recipe: dict[str, Any], allow: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from gansound.engine.plan import keys

    table = Table("key", "type", "default", "meaning", box=None, header_style="bold")
    for row in keys(recipe, allow):
        table.add_row(row.key, row.type, row.default, row.help)
    Console().print(table)


def progress_line(steps: int) -> Any:
    """A context that gives the engine's observer: a live line on a terminal, a log line now and then elsewhere."""
    from gansound.cli.training_progress import TrainingProgress

    return TrainingProgress(steps)
