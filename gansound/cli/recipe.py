"""`gansound recipe`: a recipe for a family of vocoders at a rate, in a mel convention."""

import argparse
import sys
from pathlib import Path

from gansound.cli.errors import UsageError

HELP = """Write a recipe that fits: a family of vocoders at a sample rate, in a mel convention.

It chooses the upsampling rates and kernels from the hop, the segment, the bands and the resolutions, says what it
chose and why (in the file and on the terminal), and refuses what can't work. The recipe is then built once, untrained,
to make sure."""

EXAMPLES = """examples:
  gansound recipe freev --rate 44100 -o my_voice.yaml
  gansound recipe melgan --rate 22050 --mel tacotron2
  gansound recipe melgan --rate 16000 --hop 200 -o telephone.yaml
  gansound train my_voice.yaml --data.path recordings/

Without -o the recipe goes to standard output. Rates are in Hz, hops in samples."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from gansound.fitted_recipe import FAMILIES, RATES_HZ

    parser.add_argument("family", metavar="FAMILY", help=f"one of {', '.join(FAMILIES)}")
    parser.add_argument(
        "--rate",
        type=_hertz,
        required=True,
        metavar="HZ",
        help=f"of the sound: {', '.join(map(str, RATES_HZ))} or another",
    )
    parser.add_argument(
        "--mel",
        metavar="NAME",
        help="the convention of your acoustic model or corpus, such as hifigan, tacotron2 or vocos_24khz; a name that "
        "isn't known lists them all (default: the family's own, with sizes that fit the rate)",
    )
    parser.add_argument("--hop", type=int, metavar="SAMPLES", help="from one mel frame to the next")
    parser.add_argument("--fmax", type=float, metavar="HZ", help="upper edge of the mel bands")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write it, in place of a file that is there",
    )


def run(args: argparse.Namespace) -> int:
    from gansound.fitted_recipe import fit

    try:
        fitted = fit(args.family, args.rate, mel=args.mel, hop_length=args.hop, fmax_hz=args.fmax)
    except ValueError as error:
        raise UsageError(str(error)) from error
    _try(fitted.text)
    if args.output is None:
        print(fitted.text, end="")
        return 0
    path: Path = args.output
    if path.is_dir():
        raise UsageError(f"-o {path}: is a folder, expected a file such as {path / (args.family + '.yaml')}")
    from gansound.report.pictures import write_bytes

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, fitted.text.encode())
    if not args.quiet:
        for line in fitted.lines():
            print(line, file=sys.stderr)
    print(path)
    return 0


def _try(text: str) -> None:
    """Build what the recipe describes: what two parts of it can't agree on is said now, by the dotted key."""
    import tempfile

    from gansound.engine.plan import plan
    from gansound.recipe import load_recipe

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        plan(load_recipe(path))


def _hertz(text: str) -> int:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (rate >= 1000 and rate.is_integer()):  # nor is NaN
        hint = f"; {text} kHz is {rate * 1000:g}" if 1 <= rate < 1000 else ""
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of Hz, such as 22050{hint}")
    return int(rate)
