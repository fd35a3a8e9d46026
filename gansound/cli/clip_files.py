"""What the commands that write generated sounds have in common: a model, files, a progress bar, a page."""

import argparse
import logging
import re
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli.backend import add_allow_argument
from gansound.cli.errors import UsageError
from gansound.cli.progress import progress
from gansound.counts import counted, some_of
from gansound.extras import install_line, missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gansound.data.settings import OneShotSettings
    from gansound.inference.clips import ClipGenerator

log = logging.getLogger(__name__)

GRID = "grid.png"
GRID_COLUMNS, GRID_ROWS = 8, 8
_NAME_BYTES = 200
_SILENT_DB = 60.0  # below the loudest 90 ms: what --trim cuts


@dataclass
class Sound:
    """One sound to be written.

    Attributes:
        stem: its file's name without the suffix.
        title: in words.
        group: its section on a page.
        origin: see `gansound.inference.latent.favourites.origin`.
        command: that makes it again, "" for none; None says to take the file itself for a latent.
    """

    stem: str
    title: str
    group: str
    origin: dict[str, Any]
    command: str | None = None


@dataclass
class Batch:
    """Sounds that are computed at once: their latents `(n, dim)`, numbers or mixtures of their labels."""

    latents: "Tensor"
    labels: "Tensor | None"
    sounds: list[Sound]


@dataclass
class Written:
    """What came of it: so many sounds of so many samples, in seconds of work; `shown` are the first of each group."""

    count: int = 0
    samples: int = 0
    seconds: float = 0.0
    peaks: list["NDArray[np.float32]"] = field(default_factory=list)
    shown: "dict[str, list[tuple[str, NDArray[np.float32]]]]" = field(default_factory=dict)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """`--model`, `--allow`, `--device` and the fades."""
    parser.add_argument(
        "--model",
        required=True,
        help="shipped name, model folder (such as RUN/model), or Hugging Face repository",
    )
    add_allow_argument(parser)
    parser.add_argument("--device", help="such as cpu or cuda (default: CUDA where there is one)")
    parser.add_argument(
        "--fade-in-ms",
        type=float,
        metavar="MS",
        help="fade at the start (default: 1; starts at zero in any case)",
    )
    parser.add_argument("--fade-out-ms", type=float, metavar="MS", help="fade at the end (default: 10)")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """`-o`, what becomes of each sound on its way into a file, and `--force`."""
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the sounds"
    )
    parser.add_argument(
        "--format", choices=("wav", "flac"), default="wav", help="of the files (default: wav)"
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=(16, 24, 32),
        default=16,
        help="of a sample; 32 is float, in WAV alone (default: 16)",
    )
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="of the files (default: the model's)")
    parser.add_argument(
        "--trim", action="store_true", help="cut the silent end of each sound, and fade as --fade-out-ms says"
    )
    parser.add_argument(
        "--peak", type=float, metavar="DB", help="bring each sound's peak to so many dBFS, such as -1"
    )
    parser.add_argument("--force", action="store_true", help="overwrite sounds that are there already")


def open_clips(args: argparse.Namespace) -> "ClipGenerator":
    """The generator that a command line names.

    Raises:
        UsageError: no such device here, or files that can't be.
        ValueError: the model can't be loaded, or is a vocoder.
    """
    if "output" in args and args.output is not None:
        for above in (args.output, *args.output.parents):
            if above.exists() and not above.is_dir():
                raise UsageError(f"-o {args.output}: {above} is there and not a folder")
    if "output" in args and args.bits == 32 and args.format == "flac":
        raise UsageError("--bits 32: FLAC can't hold 32-bit float samples. Write WAV, or give --bits 24")
    if (rate := getattr(args, "sample_rate", None)) is not None:
        from gansound.audio import HIGHEST_RATE, LOWEST_RATE

        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise UsageError(f"--sample-rate {rate}: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    if (peak := getattr(args, "peak", None)) is not None and not -90 <= peak <= 0:
        raise UsageError(f"--peak {peak:g}: expected -90 to 0 dBFS, such as -1")
    from gansound.inference.clips import ClipGenerator
    from gansound.inference.device import choose_device

    try:
        device = choose_device(args.device)
    except ValueError as error:
        raise UsageError(f"--device: {error}") from None
    fades = {
        name: getattr(args, name) for name in ("fade_in_ms", "fade_out_ms") if getattr(args, name) is not None
    }
    return ClipGenerator.from_pretrained(args.model, device, allow=args.allow, **fades)


def label_of(clips: "ClipGenerator", names: list[str] | None) -> list[str] | None:
    """Labels of the command line, checked. Raises UsageError for one that the model hasn't."""
    try:
        for name in names or ():
            clips.label_number(name)
    except ValueError as error:
        raise UsageError(f"--label: {error}") from None
    return names


def one_shot_settings(data: Mapping[str, Any]) -> "OneShotSettings":
    """How a model's training sounds were prepared, of what its folder says of its data; else the defaults, said.

    Raises:
        ValueError: settings that can't be.
    """
    from gansound.data.settings import OneShotSettings

    if not data:
        log.warning("the model doesn't say how its training sounds were prepared: taking the defaults")
    try:
        return OneShotSettings(**(data.get("one_shots") or {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"the model's folder says how its sounds were prepared, and that can't be: {error}"
        ) from None


def command(args: argparse.Namespace, *options: tuple[str, object]) -> str:
    """`gansound generate` with this model and form of files, and these options, for a shell."""
    options = (("--model", args.model), *options, *(("--allow", package) for package in args.allow))
    for name, default in (("fade_in_ms", None), ("fade_out_ms", None), ("format", "wav"), ("bits", 16)):
        if (value := getattr(args, name, default)) != default:
            options += ((f"--{name.replace('_', '-')}", value),)
    for name in ("sample_rate", "peak"):
        if (value := getattr(args, name, None)) is not None:
            options += ((f"--{name.replace('_', '-')}", value),)
    words = ["gansound", "generate"]
    for option, value in (*options, ("-o", "again")):
        text = str(value)
        words += [f"{option}={text}"] if text.startswith("-") else [option, text]  # -hats would be an option
    return shlex.join([*words, "--trim"] if getattr(args, "trim", False) else words)


def slug(*parts: str) -> str:
    """Parts as a file's name, what could mean anything else in a path replaced; numbers keep their sign."""
    kept = "_".join(filter(None, (re.sub(r"[^\w.+=~-]+", "-", part) for part in parts)))
    return short(kept.strip(".-") or "clip")


def short(name: str) -> str:
    """A file's name, cut where what is put behind it could make it longer than file systems allow."""
    from gansound.data.process import cut_name

    return cut_name(name, _NAME_BYTES)


def finishing(
    args: argparse.Namespace, clips: "ClipGenerator"
) -> "Callable[[NDArray[np.float32]], NDArray[np.float32]]":
    """What --sample-rate, --trim and --peak make of a sound `(C, T)` at the model's rate, whatever is beside it."""
    import numpy as np

    from gansound.audio import fade, resample, trim

    rate, peak_db = _rate(args, clips), getattr(args, "peak", None)
    fade_out = round(clips.fade_out_ms / 1000 * rate)

    def finish(sound: "NDArray[np.float32]") -> "NDArray[np.float32]":
        if rate != clips.sample_rate:
            sound = fade(resample(sound, clips.sample_rate, rate), 1, 1)
        if getattr(args, "trim", False):
            power = np.square(sound, dtype=np.float64).mean(0)
            _, (_, end) = trim(np.sqrt(power), rate, top_db=_SILENT_DB)
            if 0 < end < sound.shape[-1]:
                sound = fade(sound[:, :end], 1, min(fade_out, end))
        peak = np.abs(sound).max()
        if peak_db is not None and peak > 0:
            return np.float32(10 ** (peak_db / 20)) * (sound / peak)
        return sound / max(peak, np.float32(1))

    return finish


def write_sounds(
    args: argparse.Namespace,
    clips: "ClipGenerator",
    batches: Iterable[Batch],
    total: int,
    *,
    names: Iterable[str],
    page: bool,
    given: "Sequence[tuple[Sound, NDArray[np.float32]]]" = (),
) -> Written:
    """Compute and write sounds, with a progress bar.

    Args:
        args: of the command line, with those of `add_output_arguments`.
        clips: the model.
        batches: of sounds.
        total: how many there are in all.
        names: of all their files, to see which are there.
        page: with small pictures, and sounds kept for a grid.
        given: sounds that need no computing, `(C, T)` each at the model's rate, written first.

    Raises:
        UsageError: a file is there and may not be overwritten.
        ValueError: the disk hasn't the room.
        OSError: it had it not in the end; what was written stays, listed.
    """
    from gansound.audio import resampled_frames
    from gansound.inference.clip_folder import ClipFolder, needed_bytes
    from gansound.inference.clips import turned_down

    rate, finish = _rate(args, clips), finishing(args, clips)
    draw = None
    if page:
        from gansound.report.clips import write_thumbnail

        def draw(path: Path, sound: "NDArray[np.float32]") -> None:
            write_thumbnail(path, sound, rate)

    beside = {} if draw is None else {"beside": draw}
    folder = ClipFolder(args.output, rate, bits=args.bits, **beside)
    samples_each = resampled_frames(clips.clip_samples, clips.sample_rate, rate)
    need = needed_bytes(total, clips.channels, samples_each, args.bits)
    parent = next(path for path in (args.output.absolute(), *args.output.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if need > free:
        raise ValueError(
            f"-o {args.output}: {total:,} {'sound takes' if total == 1 else 'sounds take'} up to {_size(need)}, the "
            f"disk has {_size(free)} left. Ask for fewer, or write elsewhere"
        )
    if not args.force and (there := folder.existing(names)):
        raise UsageError(
            f"-o {args.output}: {some_of(len(there), total, 'file', 'is', 'are')} there already, the first {there[0]}. "
            "--force overwrites them; or give another folder, --seed or --first"
        )
    written = Written()
    begun = time.perf_counter()

    def add(sound: Sound, samples: "NDArray[np.float32]") -> None:
        name = f"{sound.stem}.{args.format}"
        again = sound.command
        if again is None:
            again = command(args, ("--latent", args.output / name))
        folder.add(name, samples, sound.origin, title=sound.title, group=sound.group, command=again)
        written.samples += samples.shape[-1]
        shown = written.shown.setdefault(sound.group, []) if page else []
        if page and len(shown) < GRID_COLUMNS * GRID_ROWS and sum(map(len, written.shown.values())) < 512:
            shown.append((sound.title, samples.copy()))

    with progress("generating", total, quiet=args.quiet) as advance, folder:
        for sound, samples in given:
            add(sound, finish(samples))
        advance(count=len(given))
        for batch in batches:
            rendered = clips.render(batch.latents, batch.labels)
            written.peaks.append(rendered.peaks)
            for sound, samples in zip(batch.sounds, map(finish, rendered.audio), strict=True):
                add(sound, samples)
            advance(count=len(batch.sounds))
    written.count, written.seconds = total, time.perf_counter() - begun
    import numpy as np

    note = turned_down(np.concatenate(written.peaks))
    if note and getattr(args, "peak", None) is None:
        log.warning("%s", note)
    return written


def write_page(
    args: argparse.Namespace,
    clips: "ClipGenerator",
    rows: "list[tuple[str, list[tuple[str, NDArray[np.float32]]]]]",
    *,
    title: str,
    about: dict[str, str],
    folder: Path | None = None,
) -> Path:
    """The grid's picture, where matplotlib is, and the page of all of the model's in the folder's list; its path."""
    from gansound.inference.clip_folder import entries
    from gansound.report.clips import Card, spectrogram_grid, write_clip_page
    from gansound.report.pictures import save

    folder, rate = folder or args.output, _rate(args, clips)
    picture = None if missing("matplotlib") else GRID
    if picture is None:
        log.info(
            "the page has no picture of all at one look: %s brings what draws it", install_line("matplotlib")
        )
    else:
        save(spectrogram_grid(rows, rate), folder / picture)
    cards = (
        Card(
            e["file"],
            str(e.get("title") or e["file"]),
            str(e.get("group") or ""),
            str(e.get("command") or ""),
            int(e.get("sample_rate") or clips.sample_rate),
        )
        for e in entries(folder)
        if e.get("weights", clips.weights_hash)
        == clips.weights_hash  # a recording beside its inversion has none
    )
    info = {"model": clips.name, "weights": clips.weights_hash}
    info |= {key: str(clips.info[key]) for key in ("steps", "licence") if key in clips.info}
    seconds = clips.clip_samples / clips.sample_rate
    info["clips of the model"] = (
        f"{seconds:.2f} s, {clips.sample_rate} Hz, {counted(clips.channels, 'channel')}"
    )
    # What the page says of its sounds (weights, licence, length) isn't true of others'.
    others = Counter(
        str(e.get("model"))
        for e in entries(folder)
        if e.get("weights", clips.weights_hash) != clips.weights_hash
    )
    if others:
        info["not shown"] = ", ".join(
            f"{count:,} of {'other weights of ' * (name == clips.name)}{name}"
            for name, count in others.items()
        )
    return write_clip_page(folder, cards, rate, title=title, about=info | about, picture=picture)


def check_page(folder: Path, force: bool) -> None:
    """Raises UsageError where a page would overwrite one that gansound didn't write."""
    page = folder / "index.html"
    if not page.exists() or force:
        return
    with page.open("rb") as file:
        ours = b'<meta name="generator" content="gansound">' in file.read(4096)
    if not ours:
        raise UsageError(
            f"{page}: is there and not gansound's. --force overwrites it; or give another folder"
        )


def grid_rows(
    shown: "dict[str, list[tuple[str, NDArray[np.float32]]]]",
) -> "list[tuple[str, list[tuple[str, NDArray[np.float32]]]]]":
    """Rows of a grid: one a group, or the sounds of the only group in several."""
    if len(shown) == 1:
        group, sounds = next(iter(shown.items()))
        starts = range(0, min(len(sounds), GRID_COLUMNS * GRID_ROWS), GRID_COLUMNS)
        return [(group if not start else "", sounds[start : start + GRID_COLUMNS]) for start in starts]
    return [(group, sounds[:GRID_COLUMNS]) for group, sounds in list(shown.items())[: 2 * GRID_ROWS]]


def _rate(args: argparse.Namespace, clips: "ClipGenerator") -> int:
    """Of the files, in Hz."""
    return getattr(args, "sample_rate", None) or clips.sample_rate


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
