"""`gansound latent`: what can be done with the latents of a generator of clips."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from gansound.cli import add_global_options
from gansound.cli.clip_files import (
    Batch,
    Sound,
    add_model_arguments,
    add_output_arguments,
    check_page,
    grid_rows,
    label_of,
    one_shot_settings,
    open_clips,
    slug,
    write_page,
    write_sounds,
)
from gansound.cli.errors import UsageError
from gansound.cli.streams import tell
from gansound.counts import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gansound.cli.progress import Advance
    from gansound.data.settings import OneShotSettings
    from gansound.inference.clips import ClipGenerator
    from gansound.inference.latent.directions import Directions
    from gansound.inference.latent.favourites import Favourite
    from gansound.inference.latent.inversion import Inversion

HELP = "Go from sound to sound, find sliders, and bring a recording to its latent."
EXAMPLES = """examples:
  gansound latent interpolate 0:3:kick 0:5:snare --model runs/drums/model -o between/
  gansound latent directions --model runs/drums/model --from 0:3:kick --page sliders/
  gansound latent attribute --liked a.wav b.wav --others c.wav d.wav --name punchy --model runs/drums/model
  gansound latent invert my_kick.wav --label kick --model runs/drums/model -o mine/

A SOUND is a file that gansound generated, a file of latents (FILE#0 for its first), SEED:INDEX or SEED:INDEX:LABEL.
What is written can be given to: gansound generate --latent FILE. Sliders: gansound generate --slider 0=+2.5"""
_AT = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        title="what to do", dest="action", metavar="interpolate|directions|attribute|invert", required=True
    )
    interpolate = actions.add_parser(
        "interpolate",
        help="the sounds between two sounds",
        description="Sounds between two, as files, a picture and a page; labels are mixed on the way.",
    )
    interpolate.add_argument("sounds", nargs=2, metavar="SOUND", help="where to start and to end")
    interpolate.add_argument("--steps", type=int, default=9, help="sounds in all, 2 or more (default: 9)")
    interpolate.add_argument(
        "--straight",
        action="store_true",
        help="in a straight line (lerp) instead of along the sphere (slerp)",
    )
    directions = actions.add_parser(
        "directions",
        help="find sliders without labels",
        description="Find directions in which the sounds change, the strongest first: from the first layer's weights "
        "in closed form (SeFa), or from the principal components of activations (PCA, as GANSpace).",
    )
    directions.add_argument("--pca", action="store_true", help="by PCA of activations instead of SeFa")
    directions.add_argument("--count", type=int, default=8, help="how many (default: 8)")
    attribute = actions.add_parser(
        "attribute",
        help="a slider from sounds that have something and sounds that don't",
        description="The mean latent of some sounds minus that of others, as one more slider with a name.",
    )
    attribute.add_argument("--liked", nargs="+", required=True, metavar="SOUND", help="these have it")
    attribute.add_argument("--others", nargs="+", required=True, metavar="SOUND", help="these don't")
    attribute.add_argument("--name", required=True, help="of the slider")
    for action in (directions, attribute):
        action.add_argument(
            "--file", type=Path, help="of the sliders (default: directions.safetensors in the model's folder)"
        )
        action.add_argument(
            "--page", type=Path, metavar="DIR", help="also sounds along each slider, with a page"
        )
        action.add_argument(
            "--from",
            dest="base",
            default="0:0",
            metavar="SOUND",
            help="that the page's sliders move (default: 0:0)",
        )
        action.add_argument(
            "--force", action="store_true", help="overwrite what is there, but for other sliders with names"
        )
    invert = actions.add_parser(
        "invert",
        help="find the latent of a recording",
        description="The latent whose sound is nearest to a recording, by gradient descent on log-mels from the best "
        "of many random latents. The recording is prepared as the model's training sounds were: from its attack on, "
        "without offset, cut to the model's clips. The level doesn't count.",
    )
    invert.add_argument("recordings", nargs="+", type=Path, metavar="FILE", help="a recording")
    invert.add_argument("--label", metavar="LABEL", help="to look among (default: all)")
    invert.add_argument("--starts", type=int, default=8, help="latents that are improved (default: 8)")
    invert.add_argument(
        "--candidates", type=int, default=256, help="random latents they are taken from (default: 256)"
    )
    invert.add_argument("--steps", type=int, default=200, help="of the descent (default: 200)")
    invert.add_argument("--seed", type=int, default=0, help="of the random latents (default: 0)")
    for action in (interpolate, directions, attribute, invert):
        add_model_arguments(action)
        if action in (interpolate, invert):
            add_output_arguments(action)
        add_global_options(action)


def run(args: argparse.Namespace) -> int:
    actions = {"interpolate": _interpolate, "directions": _directions, "attribute": _attribute}
    actions |= {"invert": _invert}
    if "output" not in args:  # the page's files
        args.output, args.format, args.bits = args.page, "wav", 16
    if args.output is not None:
        check_page(args.output, args.force)
    actions[args.action](args)
    return 0


def _interpolate(args: argparse.Namespace) -> None:
    if args.steps < 2:
        raise UsageError(f"--steps {args.steps}: expected 2 or more, the two ends among them")
    import torch

    from gansound.inference.latent.favourites import Favourite
    from gansound.inference.latent.paths import lerp, slerp

    clips = open_clips(args)
    a, b = (_one(spec, clips) for spec in args.sounds)
    at = torch.linspace(0, 1, args.steps)
    latents = (lerp if args.straight else slerp)(a.latent, b.latent, at)
    latents[0], latents[-1] = a.latent, b.latent  # the ends are the given sounds, to the bit
    shares = None if a.mixture is None or b.mixture is None else lerp(a.mixture, b.mixture, at)
    stem = slug(clips.name, "from", _short(clips, a), "to", _short(clips, b))
    favourites = [
        Favourite(f"{stem}_{i:02d}", latent, None if shares is None else shares[i])
        for i, latent in enumerate(latents)
    ]
    titles = [f"{100 * float(t):.0f} %" for t in at]
    title = f"From {a.name} to {b.name}"
    _write(args, clips, [("", list(zip(titles, favourites, strict=True)))], title, f"{stem}.safetensors")


def _directions(args: argparse.Namespace) -> None:
    from gansound.inference.latent.directions import joined, pca, sefa

    if args.count < 1:
        raise UsageError(f"--count {args.count}: expected 1 or more")
    clips = open_clips(args)
    _check_base(args, clips)
    path = _sliders_path(args, clips)
    kept = _named(path, clips, args.force)
    found = (pca if args.pca else sefa)(clips, args.count)
    every = found if kept is None else joined(found, kept)
    every.save(path)
    _say(args, f"{path}: {counted(len(found.names), 'direction')} by {found.method}")
    for number, strength in enumerate(found.strengths):
        _say(args, f"  {number}  {strength:.4g}")
    if kept is not None:
        _say(args, f"  beside {', '.join(kept.names)}, made before")
    _show(args, clips, every, range(len(found.names)))


def _sliders_path(args: argparse.Namespace, clips: "ClipGenerator") -> Path:
    """Where sliders are kept: beside the user's own model, for others lie in a package or a cache of downloads."""
    from gansound.inference.latent.directions import FILE_NAME

    if args.file is not None:
        return Path(args.file)
    if not Path(args.model).is_dir():
        raise UsageError(
            f"--file: {args.model} is no folder of yours to keep sliders in. Name a file, such as --file "
            f"{slug(clips.name)}_sliders.safetensors; gansound generate takes it as --directions"
        )
    return clips.path / FILE_NAME


def _named(path: Path, clips: "ClipGenerator", force: bool) -> "Directions | None":
    """The sliders with names in a file, which stay beside directions found anew.

    Raises:
        UsageError: what else is there would be overwritten.
    """
    from gansound.inference.latent.directions import Directions, named

    if not path.exists():
        return None
    try:
        there = Directions.load(path, clips)
    except ValueError:  # another model's, or none at all
        there = None
    kept = None if there is None else named(there)
    if not force and (there is None or kept is None or len(kept.names) < len(there.names)):
        stay = "" if kept is None else f", but for {', '.join(kept.names)}"
        raise UsageError(f"{path}: is there already. --force overwrites it{stay}; --file names another")
    return kept


def _attribute(args: argparse.Namespace) -> None:
    if not args.name.strip() or args.name.isdecimal() or "=" in args.name:
        raise UsageError(f"--name {args.name!r}: expected a word, not a number, and no equals sign")
    import torch

    from gansound.inference.latent.directions import Directions, from_vector, joined, replaced
    from gansound.inference.latent.favourites import find
    from gansound.inference.latent.paths import attribute

    clips = open_clips(args)
    _check_base(args, clips)
    path = _sliders_path(args, clips)
    before = Directions.load(path, clips) if path.exists() else None
    there = before is not None and args.name in before.names
    if there and not args.force:
        raise UsageError(
            f"--name {args.name}: {path} has a slider of that name. --force overwrites it; or choose another"
        )
    liked, others = (
        torch.stack([one.latent for spec in specs for one in find(spec, clips)])
        for specs in (args.liked, args.others)
    )
    if torch.equal(liked.mean(0), others.mean(0)):
        raise ValueError(
            "--liked and --others have the same latents on the mean, so nothing tells them apart; labels don't count. "
            "Give other sounds"
        )
    method = f"{args.name}: mean of {counted(len(liked), 'sound')} minus that of {len(others)}"
    found = from_vector(clips, attribute(liked, others), args.name, method)
    every = found if before is None else (replaced if there else joined)(before, found)
    every.save(path)
    _say(args, f"{path}: slider {args.name}, of length {found.strengths[0]:.3g}")
    _show(args, clips, every, [every.number(args.name)])


def _invert(args: argparse.Namespace) -> None:
    for name, least in (("starts", 1), ("candidates", args.starts), ("steps", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} {getattr(args, name)}: expected {least} or more")
    clips = open_clips(args)
    label_of(clips, None if args.label is None else [args.label])
    from gansound import __version__
    from gansound.cli.progress import progress

    settings = one_shot_settings(clips.info.get("data") or {})
    inverted: list[tuple[str, list[tuple[str, Favourite]]]] = []
    recordings: list[tuple[Sound, NDArray[np.float32]]] = []
    failed: list[str] = []
    with progress("steps", args.steps * len(args.recordings), quiet=args.quiet) as advance:
        for path in args.recordings:
            try:
                target, found = _inverted(args, path, clips, settings, advance)
            except (ValueError, OSError) as error:
                advance(path.name, args.steps)
                failed.append(str(error) if str(path) in str(error) else f"{path}: {error}")
                continue
            # Another folder's file may have the same name, and another name may come to the same stem.
            title = str(path) if any(path.name == sound.group for sound, _ in recordings) else path.name
            stem, taken = found.favourite.name, {sound.stem for sound, _ in recordings}
            numbered = chain([stem], (f"{stem}_{i}" for i in count(1)))
            stem = next(one for one in numbered if f"{one}_recording" not in taken)
            favourite = replace(found.favourite, name=f"{stem}_inverted")
            inverted.append((title, [(f"inverted, {found.distance:.3f} nepers away", favourite)]))
            told = {"gansound": __version__, "model": clips.name}
            sound = Sound(f"{stem}_recording", f"{title}: the recording", title, told, command="")
            recordings.append((sound, target))
    if inverted:
        latents = f"{inverted[0][1][0][1].name}.safetensors"
        _write(args, clips, inverted, "Recordings, inverted", latents, recordings)
    if failed:
        share = f"{len(failed)} of {len(args.recordings)} recordings: " if len(args.recordings) > 1 else ""
        raise ValueError(f"{share}{'; '.join(failed)}")


def _inverted(
    args: argparse.Namespace,
    path: Path,
    clips: "ClipGenerator",
    settings: "OneShotSettings",
    advance: "Advance",
) -> "tuple[NDArray[np.float32], Inversion]":
    """The recording as it was looked for, prepared as what the model learnt from, and what was found; says both."""
    from gansound.data.clips import one_clip
    from gansound.inference.latent.inversion import invert

    target, done = one_clip(
        path,
        sample_rate=clips.sample_rate,
        clip_samples=clips.clip_samples,
        channels=clips.channels,
        settings=settings,
    )
    if done:
        _say(args, f"{path}: {done}")
    found = invert(
        clips,
        target,
        name=slug(clips.name, path.stem.removeprefix(f"{slug(clips.name)}_")),
        label=args.label,
        starts=args.starts,
        candidates=args.candidates,
        steps=args.steps,
        seed=args.seed,
        progress=lambda *_: advance(path.name),
    )
    _say(
        args,
        f"{path}: distance {found.distance:.3f} nepers; the nearest of {counted(args.candidates, 'random sound')} "
        f"{found.best_random:.3f}, their median {found.median_random:.3f}",
    )
    return target, found


def _check_base(args: argparse.Namespace, clips: "ClipGenerator") -> None:
    if args.page is not None:  # what is wrong with it is said before anything is written
        _one(args.base, clips)


def _show(
    args: argparse.Namespace, clips: "ClipGenerator", directions: "Directions", numbers: Sequence[int]
) -> None:
    """Sounds along sliders, where a page is asked for."""
    if args.page is None:
        return
    from gansound.inference.latent.favourites import Favourite

    base = _one(args.base, clips)
    rows = []
    for number in numbers:
        name = directions.names[number]
        row = []
        for value in _AT:
            moved = directions.moved(base.latent[None], {number: value})[0]
            stem = slug(clips.name, _short(clips, base), f"{name}={value:+g}")
            row.append((f"{value:+g}" if value else "0", Favourite(stem, moved, base.mixture)))
        rows.append((f"slider {name}", row))
    _write(args, clips, rows, f"Sliders of {clips.name}, moving {base.name}", None)


def _write(
    args: argparse.Namespace,
    clips: "ClipGenerator",
    rows: "list[tuple[str, list[tuple[str, Favourite]]]]",
    title: str,
    latents: str | None,
    recordings: "Sequence[tuple[Sound, NDArray[np.float32]]]" = (),
) -> None:
    """Sounds in rows, each behind its recording, their page with a picture, and their latents in a file."""
    import torch

    from gansound.inference.latent.favourites import named, origin, save

    favourites = [one for _, row in rows for _, one in row]
    sounds = [
        Sound(
            one.name,
            f"{group}: {caption}" if group else caption,
            group,
            origin(clips, label=named(clips, one.mixture), latent=one.latent),
        )
        for group, row in rows
        for caption, one in row
    ]
    shares = [one.mixture for one in favourites if one.mixture is not None]
    batch = Batch(
        torch.stack([one.latent for one in favourites]), torch.stack(shares) if shares else None, sounds
    )
    names = [f"{sound.stem}.{args.format}" for sound in (*(sound for sound, _ in recordings), *sounds)]
    written = write_sounds(args, clips, [batch], len(names), names=names, page=True, given=recordings)
    if latents is not None:
        _say(args, str(save(args.output / latents, favourites, clips)))
    drawn = written.shown
    grid = list(drawn.items()) if recordings or len(drawn) > 1 else grid_rows(drawn)
    captions = [
        (group, [(name.removeprefix(f"{group}: "), sound) for name, sound in row]) for group, row in grid
    ]
    _say(args, str(write_page(args, clips, captions, title=title, about={})))


def _one(spec: str, clips: "ClipGenerator") -> "Favourite":
    from gansound.inference.latent.favourites import find

    found = find(spec, clips)
    if len(found) != 1:
        raise UsageError(f"{spec}: holds {len(found)} latents, expected one: {spec}#0 is the first")
    return found[0]


def _short(clips: "ClipGenerator", favourite: "Favourite") -> str:
    return favourite.name.removeprefix(f"{slug(clips.name)}_")


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        tell(text)
