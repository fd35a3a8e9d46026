"""`gansound bench`: how fast a vocoder is on this machine."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gansound.cli.backend import add_allow_argument, add_mel_argument, given_mel
from gansound.cli.errors import UsageError
from gansound.counts import counted
from gansound.extras import require

HELP = """Measure how fast a vocoder is on this machine's CPU, on every backend that is installed.

Whole utterances of 1, 5 and 30 s; streams in pushes of 1 to 32 frames; the wait for the first sound; memory. Beside
them, in the same run, how the same net is run without gansound: its modules called in one go by PyTorch ("plain
eager"), and each chunk computed anew with its whole context ("context recomputed"). The share of the limit is of the
fastest matrix product that this machine was seen to do.

Every round times each of them once in shuffled order; figures are medians of the rounds, ratios medians of what was
measured in the same round. Close what else runs: the range of the rounds tells how noisy the machine was. All of it
takes some minutes, a large net half an hour."""
EXAMPLES = """examples:
  gansound bench --model default --quick
  gansound bench --model runs/first/model --json bench.json --picture bench.png
  gansound bench --model runs/imported --own-code theirs.py --backends eager,onnxruntime
  gansound bench --generator gansound.generators.melgan.MelGANGenerator --threads 1"""
_DRAWN_PRESET = "hifigan"  # the convention of a generator that has no model folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="name, model folder or Hugging Face id; 'default' is shipped")
    what.add_argument(
        "--generator",
        metavar="CLASS",
        help="a class of gansound.generators, with its defaults and random weights",
    )
    add_allow_argument(parser)
    add_mel_argument(parser)
    parser.add_argument(
        "--own-code",
        metavar="FILE",
        type=Path,
        help="Python file whose function synthesize(mel) makes a mel (1, M, F) a sound by the code of the model's own "
        "project: it is run, and whole utterances are compared with it",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures as one JSON object")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="write a picture of them (PNG)")
    parser.add_argument(
        "--quick", action="store_true", help="fewer cases and rounds, no memory: a look, not figures to quote"
    )
    parser.add_argument(
        "--backends", metavar="LIST", help="such as eager,onnxruntime (default: all there are)"
    )
    parser.add_argument("--precisions", metavar="LIST", help="such as fp32,bf16 (default: all there are)")
    parser.add_argument(
        "--threads", metavar="LIST", default="1,all", help="numbers, 'all' for every core (default: 1,all)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="of every case, 3 or more (default: 9, fewer of what takes long)",
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    from gansound.inference.bench import Plan, choose, run_bench, steps
    from gansound.machine import usable_cores

    threads = _threads(args.threads, usable_cores())
    try:
        contestants, missing = choose(_listed(args.backends), _listed(args.precisions))
    except ValueError as error:
        raise UsageError(f"--backends, --precisions: {error}") from None
    with _model(args) as model:
        own = None if args.own_code is None else str(args.own_code.absolute())
        plan = Plan(model, contestants, threads=threads, own_code=own, allow=tuple(args.allow))
        plan = plan.quick() if args.quick else plan
        plan = plan.with_rounds(args.rounds) if args.rounds is not None else plan
        with _progress(steps(plan), quiet=args.quiet) as on_step:
            bench = run_bench(plan, on_step)
    bench["model"] = args.model or args.generator
    bench["not_measured"] = missing + bench["not_measured"]
    _show(args, bench)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.rounds is not None and args.rounds < 3:
        raise UsageError(f"--rounds: got {args.rounds}, expected 3 or more, for a median means little below")
    if args.own_code is not None and not args.own_code.is_file():
        raise UsageError(f"--own-code {args.own_code}: there is no such file")
    if args.picture is not None:
        require("--picture", "matplotlib")
    for name in ("json", "picture"):
        path = getattr(args, name)
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(f"--{name} {path}: expected a file in a folder that exists")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _threads(text: str, cores: int) -> tuple[int, ...]:
    counts = []
    for name in _listed(text) or ():
        if name != "all" and (not name.isdecimal() or not 1 <= int(name) <= cores):
            raise UsageError(f"--threads: got {name!r}, expected numbers from 1 to {cores}, or 'all'")
        counts.append(cores if name == "all" else int(name))
    if not counts:
        raise UsageError(f"--threads: got {text!r}, expected numbers from 1 to {cores}, or 'all'")
    return tuple(dict.fromkeys(counts))


@contextmanager
def _model(args: argparse.Namespace) -> Iterator[str]:
    """The model's name, or a folder with random weights that lasts as long."""
    mel = given_mel(args)
    if args.model is not None and mel is None:
        yield args.model
        return
    if args.model is not None:
        from gansound.inference.vocoder import Vocoder

        with TemporaryDirectory(prefix="gansound-bench-") as folder:
            vocoder = Vocoder.from_pretrained(args.model, "cpu", mel=mel, backend="eager", allow=args.allow)
            yield str(vocoder.save_pretrained(Path(folder) / "model"))
        return
    from gansound.model_folder import save_model_folder

    generator, mel_spec = _drawn(args.generator)
    with TemporaryDirectory(prefix="gansound-bench-") as folder:
        config = {"class_path": args.generator}
        yield str(save_model_folder(Path(folder) / "model", generator, mel_spec, config=config))


def _drawn(class_path: str) -> Any:
    """A generator of that class with seeded random weights, and a mel convention for it."""
    import dataclasses

    import torch

    from gansound.inference.bench.material import with_lively_weights
    from gansound.mel import MelSpec
    from gansound.nn.generator import StreamingGenerator
    from gansound.recipe import RecipeError, build

    spec = MelSpec.preset(_DRAWN_PRESET)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            generator = build(
                {"class_path": class_path}, StreamingGenerator, "--generator",
                context={"mel": spec}, roots=("gansound.generators",),
            )  # fmt: skip
        except RecipeError as error:
            raise UsageError(str(error).replace("--generator.class_path", "--generator")) from None
    if (generator.n_mels, generator.hop_length) != (spec.n_mels, spec.hop_length):
        spec = dataclasses.replace(spec, n_mels=generator.n_mels, hop_length=generator.hop_length)
    return with_lively_weights(generator, spec.noise(128)), spec


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Any]:
    """Gives a callable to be told of each case as it begins."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from gansound.cli.console import Console

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task("starting", total=total)
        begun = 0

        def on_step(what: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=escape(what))
            begun += 1

        yield on_step


def _show(args: argparse.Namespace, bench: dict[str, Any]) -> None:
    from rich.text import Text

    from gansound.cli.console import Console
    from gansound.report.bench import bench_picture, bench_tables, noise_percent
    from gansound.report.pictures import save, write_bytes

    if args.json is not None:  # before the tables, which a closed pipe may refuse
        text = json.dumps(bench, indent=2, allow_nan=False)
        write_bytes(args.json, (text + "\n").encode())
    if args.picture is not None:
        save(bench_picture(bench), args.picture)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or a pipe has no width: don't fold the tables to 80 columns
    machine, generator = bench["machine"], bench["generator"]
    lines = [
        f"{bench['model']}: {generator['parameters'] / 1e6:.2f} M parameters, "
        f"{generator['gmac_per_audio_s']:.2f} GMAC a second of audio, "
        f"look-ahead {generator['lookahead_ms']:.1f} ms, a frame {generator['frame_ms']:.1f} ms",
        f"{machine['cpu']}, {counted(machine['cores'], 'core')}, {' '.join(machine['instruction_sets'])}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
    ]
    for limit in bench["limits"]:
        rates = [
            f"{name.removesuffix('_gflop_per_s')} {rate:.0f} GFLOP/s"
            for name, rate in limit.items()
            if name != "threads"
        ]
        lines.append(f"matrix products, {counted(limit['threads'], 'thread')}: {', '.join(rates)}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    for table in bench_tables(bench):
        console.print(table)
    noise = noise_percent(bench)
    load = machine["load_average_1_minute"]
    if noise is not None:
        busy = "" if load is None else f"; the load average was {load:.1f} at the start"
        console.print(Text(f"rounds lay within ±{noise:.0f} % of their median{busy}"), soft_wrap=True)
    for left in bench["not_measured"]:
        console.print(Text(f"not measured: {left['what']}: {left['reason']}", "yellow"), soft_wrap=True)
    for path in (args.json, args.picture):
        if path is not None:
            console.print(Text(f"written: {path}"), soft_wrap=True)
