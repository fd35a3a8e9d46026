"""`gansound generate`: new sounds from a trained generator of clips."""

import argparse
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gansound.cli.clip_files import (
    Batch,
    Sound,
    add_model_arguments,
    add_output_arguments,
    check_page,
    command,
    grid_rows,
    label_of,
    open_clips,
    short,
    slug,
    write_page,
    write_sounds,
)
from gansound.cli.errors import UsageError
from gansound.cli.streams import tell
from gansound.counts import counted

if TYPE_CHECKING:
    from torch import Tensor

    from gansound.inference.clips import ClipGenerator
    from gansound.inference.latent.directions import Directions
    from gansound.inference.latent.favourites import Favourite

HELP = """Draw new sounds from a model that was trained on one-shots.

A sound is a function of model, seed, index and label: asked for again, alone or among thousands, it is the same, bit
for bit. Its file's name and the file itself carry all four, and generated.json beside has the command that makes it
again. No sound clips, and each starts and ends at zero."""

EXAMPLES = """examples:
  gansound generate --model runs/drums/model -n 16 -o sounds/ --page
  gansound generate --model runs/drums/model -n 64 --label kick --truncation 0.7 --seed 3 -o kicks/
  gansound generate --model drums -n 64 --sample-rate 48000 --bits 32 --trim --peak -1 -o sampler/
  gansound generate --model runs/drums/model --label kick --seed 3 --first 7 -n 1 -o favourite/
  gansound generate --model runs/drums/model --latent kicks/drums_kick_seed3_0007.wav --slider 0=+2.5 -o favourite/

Without --label, those of the model take turns. Sliders are found by: gansound latent directions."""

_AT_ONCE = 64
_COUNT = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("-n", type=int, metavar="N", help=f"how many sounds (default: {_COUNT})")
    parser.add_argument("--seed", type=int, metavar="SEED", help="another seed, other sounds (default: 0)")
    parser.add_argument("--first", type=int, metavar="INDEX", help="index of the first (default: 0)")
    parser.add_argument(
        "--label",
        action="append",
        metavar="LABEL",
        help="what kind; given again, another: they take turns (default: all do)",
    )
    parser.add_argument(
        "--truncation",
        type=float,
        default=1.0,
        metavar="T",
        help="above 0, up to 1: less is less varied, and gansound evaluate --truncation says what it does to likeness "
        "(default: 1)",
    )
    parser.add_argument(
        "--latent",
        action="extend",
        nargs="+",
        metavar="SOUND",
        help="make these again instead of drawing: a file that gansound generated, a file of latents, SEED:INDEX or "
        "SEED:INDEX:LABEL",
    )
    parser.add_argument(
        "--slider",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="move along a direction, by its number or name; 1 is a standard deviation (such as 0=+2.5)",
    )
    parser.add_argument(
        "--directions", type=Path, metavar="FILE", help="of the sliders (default: the one beside the model)"
    )
    parser.add_argument("--page", action="store_true", help="also a page with players and a picture of all")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    _check(args)
    sliders = _sliders(args.slider)
    clips = open_clips(args)
    labels = label_of(clips, args.label)
    directions = _directions(args, clips, sliders)
    batches: Iterable[Batch]
    names: Iterable[str]
    if args.latent:
        batches, names, total = _again(args, clips, labels, directions, sliders)
    else:
        total = args.n or _COUNT
        last = (args.first or 0) + total
        names = (
            f"{_stem(args, clips, index, label, sliders)}.{args.format}"
            for index, label in _indices(clips, labels, args.first or 0, last)
        )
        batches = _drawn(args, clips, labels, directions, sliders, last)
    written = write_sounds(args, clips, batches, total, names=names, page=args.page)
    seconds = written.samples / (args.sample_rate or clips.sample_rate)
    pace = seconds / written.seconds
    if not args.quiet:
        tell(
            f"{args.output}: {counted(total, 'sound')}, {seconds:.1f} s, {pace:.{int(pace < 10)}f} times real time"
        )
    if args.page:
        about = {"truncation": str(args.truncation)} if args.truncation != 1 else {}
        rows = grid_rows(written.shown)
        page = write_page(args, clips, rows, title=f"Sounds of {clips.name}", about=about)
        if not args.quiet:
            tell(page)
    return 0


def _check(args: argparse.Namespace) -> None:
    for flag, value, least in (("-n", args.n, 1), ("--first", args.first, 0), ("--seed", args.seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"{flag} {value}: expected {least} or more")
    if (args.first or 0) + (args.n or _COUNT) > 2**64:
        raise UsageError(f"--first {args.first}: expected an index of which the last sound's is below 2**64")
    if not 0 < args.truncation <= 1:
        raise UsageError(
            f"--truncation {args.truncation}: expected above 0, where every sound would be the same, and at most 1"
        )
    drawn = {"-n": args.n, "--seed": args.seed, "--first": args.first}
    given = [flag for flag, value in drawn.items() if value is not None]
    if args.latent and given:
        raise UsageError(f"{given[0]} goes with drawn sounds, not with --latent")
    if args.latent and args.label and len(args.label) > 1:
        raise UsageError("--label: expected one label for --latent, got several")
    if args.directions is not None and not args.slider:
        raise UsageError("--directions: say how far with --slider")
    if args.page:
        check_page(args.output, args.force)


def _sliders(given: list[str]) -> dict[int | str, float]:
    sliders: dict[int | str, float] = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not name or not equals or not abs(number) < 1e6:
            raise UsageError(f"--slider {text}: expected NAME=VALUE, such as 0=+2.5")
        sliders[name] = number
    return sliders


def _directions(
    args: argparse.Namespace, clips: "ClipGenerator", sliders: dict[int | str, float]
) -> "Directions | None":
    if not sliders:
        return None
    from gansound.inference.latent.directions import FILE_NAME, Directions

    path = args.directions or clips.path / FILE_NAME
    if not path.is_file():
        words = shlex.join(["gansound", "latent", "directions", "--model", args.model])
        if not Path(args.model).is_dir():
            words += " --file FILE, and give --directions FILE"
        raise UsageError(f"--slider: there is no {path}. Find directions with: {words}")
    directions = Directions.load(path, clips)
    try:
        for name in sliders:
            directions.number(name)
    except ValueError as error:
        raise UsageError(f"--slider: {error}") from None
    return directions


def _indices(
    clips: "ClipGenerator", labels: list[str] | None, first: int, last: int
) -> Iterator[tuple[int, str | None]]:
    turns = labels or clips.labels
    for index in range(first, last):
        yield index, turns[index % len(turns)] if turns else None


def _suffix(args: argparse.Namespace, sliders: dict[int | str, float]) -> str:
    """Every digit counts: two numbers that differ make two sounds."""
    truncated = "" if args.truncation == 1 else f"_t{args.truncation}"
    moved = (f"_{slug(str(name))}={f'{value:+}'.removesuffix('.0')}" for name, value in sliders.items())
    return truncated + "".join(moved)


def _stem(
    args: argparse.Namespace,
    clips: "ClipGenerator",
    index: int,
    label: str | None,
    sliders: dict[int | str, float],
) -> str:
    drawn = slug(clips.name, label or "", f"seed{args.seed or 0}", f"{index:04d}")
    return short(drawn + _suffix(args, sliders))


def _drawn(
    args: argparse.Namespace,
    clips: "ClipGenerator",
    labels: list[str] | None,
    directions: "Directions | None",
    sliders: dict[int | str, float],
    last: int,
) -> Iterator[Batch]:
    from gansound.inference.latent.favourites import origin

    seed = args.seed or 0
    for start in range(args.first or 0, last, _AT_ONCE):
        count = min(_AT_ONCE, last - start)
        latents = clips.latents(count, seed, first=start, truncation=args.truncation)
        if directions is not None:
            latents = directions.moved(latents, sliders)
        sounds = []
        for row, (index, label) in enumerate(_indices(clips, labels, start, start + count)):
            told = origin(
                clips,
                label=label,
                seed=seed,
                index=index,
                truncation=args.truncation,
                latent=latents[row] if sliders else None,
            )
            drawn: list[tuple[str, object]] = [("--seed", seed), ("--first", index), ("-n", 1)]
            drawn += [] if label is None else [("--label", label)]
            again = command(args, *drawn, *_knobs(args))
            title = ", ".join(filter(None, [label, f"seed {seed}, clip {index}"]))
            stem = _stem(args, clips, index, label, sliders)
            sounds.append(Sound(stem, title, label or "", told, again))
        yield Batch(latents, clips.turns(labels, count, first=start), sounds)


def _knobs(args: argparse.Namespace) -> list[tuple[str, object]]:
    options: list[tuple[str, object]] = [("--slider", text) for text in args.slider]
    if args.truncation != 1:
        options.insert(0, ("--truncation", args.truncation))
    return options + ([] if args.directions is None else [("--directions", args.directions)])


def _again(
    args: argparse.Namespace,
    clips: "ClipGenerator",
    labels: list[str] | None,
    directions: "Directions | None",
    sliders: dict[int | str, float],
) -> tuple[list[Batch], list[str], int]:
    import torch

    from gansound.inference.latent.favourites import find, mixtures, named, origin

    found: list[Favourite] = [one for spec in args.latent for one in find(spec, clips)]
    latents = clips.generator.prior.truncated(torch.stack([one.latent for one in found]), args.truncation)
    if directions is not None:
        latents = directions.moved(latents, sliders)
    shares: Tensor | None = None
    if clips.labels:
        if labels:
            shares = mixtures(clips, clips.turns(labels, len(found)), len(found))
        else:
            shares = torch.stack([one.mixture for one in found if one.mixture is not None])
    sounds: list[Sound] = []
    for row, one in enumerate(found):
        name = one.name if one.name.startswith(slug(clips.name)) else slug(clips.name, one.name)
        stem = short(slug(name, *(labels or ())) + _suffix(args, sliders))
        if any(sound.stem == stem for sound in sounds):
            stem = f"{stem}_{row:04d}"
        label = named(clips, None if shares is None else shares[row])
        group = label if isinstance(label, str) else " + ".join(label or ())
        title = stem.removeprefix(f"{clips.name}_")
        sounds.append(Sound(stem, title, group, origin(clips, label=label, latent=latents[row])))
    return [Batch(latents, shares, sounds)], [f"{sound.stem}.{args.format}" for sound in sounds], len(sounds)
