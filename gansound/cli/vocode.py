"""`gansound vocode`: mels or recordings in, sound out."""

import argparse
import errno
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gansound.cli.backend import add_allow_argument, add_backend_arguments, add_mel_argument, open_vocoder
from gansound.cli.cluster import add_ray_argument, pool
from gansound.cli.errors import UsageError, explain
from gansound.cli.streams import tell
from gansound.counts import some_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gansound.audio import AudioInfo
    from gansound.inference.vocoder import Vocoder
    from gansound.on_ray import Pool

    Work = list[tuple[Path, Path]]

log = logging.getLogger(__name__)

_FIGURE = re.compile(r"(?<![\w.])-?\d+(\.\d+)?(?!\w)")  # of the file at hand; not the 10 of log10

HELP = """Turn mel spectrograms into sound, or recordings into sound by way of their mels (copy synthesis).

Each INPUT is a mel (.npy, .npz, .pt, .safetensors; bands x frames, in the model's convention), a recording (WAV, FLAC,
Ogg, Opus, MP3; resampled and mixed to mono where it must be), or a folder of either, searched recursively."""

EXAMPLES = """examples:
  gansound vocode speech.wav -o resynthesised.wav
  gansound vocode mels/ -o audio/ --model runs/melgan/model
  gansound vocode mel.npy -o speech.flac
  gansound vocode mel.npy --f0 f0.npy -o song.wav --model nsf/
  gansound vocode drums/ -o audio/ --model default-44khz --bits 32
  gansound vocode mels/ -o audio/ --backend openvino --precision bf16
  srun gansound vocode mels/ -o audio/ --slice slurm --skip-existing
  gansound vocode mels/ -o audio/ --ray 10.0.0.1:6379 --skip-existing

One file goes to the file or folder OUT; several, or a folder, go to the folder OUT under their own names as WAV.
The path of each sound is printed. What fails is named and left out, and the exit code is then 1."""

JUDGED_FRAMES = 20_000  # of a mel are held against the convention: judging takes ten times its memory
ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
"""Of an input, which cost no other."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
LITTLE_SECONDS, LITTLE_FILES = 300.0, 100
"""Of sound, and of inputs: for less no backends are measured, which for HiFi-GAN V1 takes minutes."""
_SENT_SECONDS = 600.0  # a longer recording isn't held in memory as a whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="a mel, a recording, or a folder"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="audio file or folder; files of the same names are overwritten",
    )
    parser.add_argument(
        "--model",
        default="default",
        help="shipped name, model folder, or Hugging Face repository (default: default)",
    )
    add_allow_argument(parser)
    parser.add_argument(
        "--bits",
        type=int,
        choices=(16, 24, 32),
        help="of a sample in WAV and FLAC; 32 is float, in WAV alone, and clips nothing (default: 16)",
    )
    parser.add_argument(
        "--slice",
        metavar="N/COUNT",
        help="do this part only, such as 3/16, beside the others on other machines; slurm takes it from the task",
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out what a run before has made (whole, or it isn't there)",
    )
    parser.add_argument(
        "--f0",
        type=Path,
        metavar="FILE",
        help="of a mel, for a model that takes a pitch too: Hz of each frame, 0 where unvoiced (.npy, .npz, .pt, "
        ".safetensors); that of a recording is found",
    )
    parser.add_argument("--device", help="such as cpu or cuda (default: CUDA where there is one)")
    add_mel_argument(parser)
    add_backend_arguments(parser)
    add_ray_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gansound.data.slices import Slice

    work = plan(args.inputs, args.output, args.bits)
    if args.f0 is not None:
        _check_pitch(args.f0, work)
    if args.slice is not None:
        try:
            work = list(Slice.parse(args.slice).of(work))
        except ValueError as error:
            raise UsageError(f"--{error}") from None
    if args.skip_existing:
        asked = len(work)
        work = [(source, target) for source, target in work if not target.is_file()]
        if len(work) < asked:
            log.info("%s there already", some_of(asked - len(work), asked, "sound", "is", "are"))
    if not work:
        return 0
    failed: list[Path] = []
    tried = 0
    with pool(args) as ray:
        done = _here(args, work) if ray is None else _on_ray(args, work, ray)
        for source, target, failure in done:
            tried += 1
            if failure is None:
                if not args.quiet:
                    tell(target)
                continue
            # One bad file must not cost a batch its other results; a full disk would fail them all.
            failed.append(source)
            message = failure.message
            log.error(
                "%s", message if str(source) in message else f"{source}: {message}", exc_info=failure.error
            )
            if failure.disk_is_full:
                break
    if failed and len(work) > 1:
        untried = f"; {len(work) - tried} weren't tried" if tried < len(work) else ""
        log.error("%d of %d failed: %s%s", len(failed), len(work), ", ".join(map(str, failed)), untried)
    return 1 if failed else 0


@dataclass(frozen=True)
class Failure:
    """Why an input has become no sound; ``error`` is for --debug."""

    message: str
    disk_is_full: bool = False
    error: BaseException | None = None

    @classmethod
    def of(cls, error: BaseException, *, debug: bool = False) -> "Failure":
        full = isinstance(error, OSError) and error.errno in _FULL
        return cls(explain(error)[1], full, error if debug else None)


def _here(args: argparse.Namespace, work: "Work") -> "Iterator[tuple[Path, Path, Failure | None]]":
    make = Vocoding(args)
    if make.vocoder.measures_first():
        if is_little(work, make.vocoder):
            log.info("backend eager: measuring which is the fastest would take longer than so little work")
        else:
            make.vocoder.measure("whole", "short")
    for source, target in _shown(work, quiet=args.quiet):
        yield source, target, make((source, target, opened(source, args.f0, debug=args.debug)))


def _on_ray(
    args: argparse.Namespace, work: "Work", ray: "Pool"
) -> "Iterator[tuple[Path, Path, Failure | None]]":
    decoded = partial(_decoded, args.f0)
    failures = ray.through(partial(Vocoding, args), work, before=decoded, after=_as_it_is, lost=_lost)
    for (source, target), failure in zip(_shown(work, quiet=args.quiet), failures, strict=True):
        yield source, target, failure


def _decoded(f0: Path | None, work: tuple[Path, Path]) -> "tuple[Path, Path, Input | Failure]":
    """What a model is fed, read on a processor while it works on others; a long recording it reads itself."""
    source, target = work
    found = opened(source, f0)
    try:
        if isinstance(found, Input) and found.info is not None and found.info.seconds < _SENT_SECONDS:
            found = replace(found, blocks=list(found.blocks))
    except ERRORS as error:
        found = Failure.of(error)
    return source, target, found


def _lost(_: object, reason: str) -> Failure:
    return Failure(reason)


def _as_it_is(failure: Failure | None) -> Failure | None:
    return failure


class Vocoding:
    """The vocoder of a command line at work on inputs, each (source, target, what was opened)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.vocoder = open_vocoder(args)
        if args.precision != "fp32":
            self.vocoder.runner("whole")  # what a net can't be run in is one message, not one for each file
        self._bits = args.bits
        self._debug = args.debug
        self._told: dict[str, Path] = {}

    def __call__(self, work: "tuple[Path, Path, Input | Failure]") -> Failure | None:
        """Writes the sound; the reason where it can't be had."""
        source, target, found = work
        if isinstance(found, Failure):
            return found
        try:
            synthesise(self.vocoder, source, found, target, self._told, self._bits)
        except ERRORS as error:
            return Failure.of(error, debug=self._debug)
        return None


def plan(inputs: Iterable[Path], output: Path, bits: int | None = None) -> list[tuple[Path, Path]]:
    """Each input file with the file its sound goes to, before anything is read.

    Raises:
        UsageError: an input doesn't exist, two would go to one place, one would be overwritten by its own sound, or
            the output can't be what it must be.
        ValueError: there is no mel and no recording.
    """
    from gansound import audio
    from gansound.mel.files import MEL_SUFFIXES

    inputs = list(dict.fromkeys(inputs))
    for path in inputs:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and output.suffix and not output.is_dir():
        try:
            audio.Writer(output, 48000)  # knows what can be written, and touches nothing yet
        except audio.AudioError as error:
            raise UsageError(f"-o {error}") from None
        try:
            audio.Writer(output, 48000, subtype=_subtype(bits))
        except audio.AudioError:
            kind = "32-bit float" if bits == 32 else f"{bits}-bit"
            raise UsageError(
                f"--bits {bits}: {output.suffix} can't hold {kind} samples. Write .wav, or leave out --bits"
            ) from None
        work = [(inputs[0], output)]
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(
                f"-o {output}: is there and not a folder; expected a folder for {_named(inputs)}"
            )
        if output.suffix.lower() in audio.AUDIO_SUFFIXES and not output.is_dir():
            raise UsageError(f"-o {output}: is the name of one file; expected a folder for {_named(inputs)}")
        work = list(outputs(inputs, output, audio.AUDIO_SUFFIXES | MEL_SUFFIXES))
    if not work:
        raise ValueError(
            f"{_named(inputs)}: no mel and no recording in there. Expected files with one of the suffixes "
            f"{', '.join(sorted(MEL_SUFFIXES))}, {', '.join(sorted(audio.AUDIO_SUFFIXES))}"
        )
    sources = {source.resolve() for source, _ in work}
    taken: dict[Path, Path] = {}
    for source, target in work:
        if target in taken:
            raise UsageError(
                f"{taken[target]} and {source} would both be written to {target}; name one of them, or one kind "
                "(such as DIR/*.npy), at a time"
            )
        if target.resolve() in sources:
            raise UsageError(
                f"-o {output}: the sound of {source} would overwrite the input {target}; choose another"
            )
        taken[target] = source
    return work


def _check_pitch(f0: Path, work: "Work") -> None:
    """Raises UsageError."""
    from gansound.mel.files import MEL_SUFFIXES

    if not f0.is_file():
        raise UsageError(f"--f0 {f0}: no such file")
    if len(work) != 1 or work[0][0].suffix.lower() not in MEL_SUFFIXES:
        raise UsageError(
            f"--f0 {f0}: is the pitch of one mel, got {len(work)} inputs such as {work[0][0]}. Of several save frames "
            "with the pitch as their last row; that of a recording is found"
        )


def outputs(inputs: Iterable[Path], folder: Path, suffixes: frozenset[str]) -> Iterator[tuple[Path, Path]]:
    """Each input file, those in folders by suffix, with its WAV below `folder`."""
    from gansound.data.walk import say_passed_over, walk

    for path in inputs:
        if not path.is_dir():
            yield path, folder / f"{path.stem}.wav"
            continue
        taken: list[Path] = []
        others: list[Path] = []
        for file in walk(path):
            (taken if file.suffix.lower() in suffixes else others).append(file)
        say_passed_over(path, others)
        for file in sorted(taken):
            yield file, (folder / file.relative_to(path)).with_suffix(".wav")


def is_little(work: "Work", vocoder: "Vocoder") -> bool:
    """Whether all of the inputs, by what their headers say, are so little sound that no backend need be measured."""
    seconds = 0.0
    for source, _ in work if len(work) <= LITTLE_FILES else []:
        found = opened(source)
        if isinstance(found, Input):
            seconds += found.seconds(vocoder)
        if seconds > LITTLE_SECONDS:
            break
    return len(work) <= LITTLE_FILES and seconds <= LITTLE_SECONDS


@dataclass(frozen=True)
class Input:
    """A mel `(1, M, F)`, or a recording piece by piece, with what its header says and the channel to take, if one.

    The mel may have its pitch beside it.
    """

    mel: "Tensor | np.ndarray | None" = None
    f0: "Tensor | np.ndarray | None" = None
    info: "AudioInfo | None" = None
    channel: int | None = None
    blocks: "Iterable[np.ndarray]" = ()

    def seconds(self, vocoder: "Vocoder") -> float:
        """Of the sound that becomes of it."""
        if self.mel is not None:
            frames = self.mel.shape[-1] if self.mel.shape else 0  # refused when its turn comes
            return frames * vocoder.frame_spec.hop_length / vocoder.sample_rate
        assert self.info is not None
        return self.info.seconds


def opened(source: Path, f0: Path | None = None, *, debug: bool = False) -> Input | Failure:
    """A mel or a recording, whose blocks are read when they are asked for; the reason where it can't be read."""
    from gansound import audio
    from gansound.mel.files import MEL_SUFFIXES, read_mel

    try:
        if source.suffix.lower() in MEL_SUFFIXES:
            return Input(mel=read_mel(source), f0=None if f0 is None else read_mel(f0))
        return Input(info=audio.probe(source), channel=audio.cancelling(source), blocks=_Blocks(source))
    except ERRORS as error:
        failure = Failure.of(error, debug=debug)
        if source.suffix.lower() in audio.AUDIO_SUFFIXES | MEL_SUFFIXES:
            return failure
        return replace(
            failure, message=f"{failure.message}. A mel is taken as {', '.join(sorted(MEL_SUFFIXES))}"
        )


@dataclass(frozen=True)
class _Blocks:
    """Those of a file, read when they are taken; it can be sent to another process."""

    source: Path

    def __iter__(self) -> "Iterator[np.ndarray]":
        from gansound import audio

        return iter(audio.blocks(self.source))


def synthesise(
    vocoder: "Vocoder",
    source: Path,
    found: Input,
    target: Path,
    told: dict[str, Path] | None = None,
    bits: int | None = None,
) -> None:
    """One input to one file.

    Args:
        vocoder: what makes the sound.
        source: where the input is from.
        found: what was opened there.
        target: an audio file; its folder is made where it isn't there.
        told: what was said of earlier inputs (resampled, mixed, clipped, suspicious), with the first it was said of.
        bits: of a sample: 16, 24, or 32 for float, which clips nothing; None for what the suffix has.

    Raises:
        ValueError: the input isn't what the model takes.
        OSError: the output can't be written; nothing half-written stays.
    """
    from gansound import audio

    told = {} if told is None else told
    if found.mel is not None:
        from gansound.inference.streaming import joined

        mel = vocoder.frame_spec.check(joined(vocoder.frame_spec, found.mel, found.f0))
        if len(mel) != 1:
            raise ValueError(f"{source}: holds {len(mel)} mels, expected one a file (bands x frames)")
        padded = vocoder.frame_spec.padded(mel)
        for suspicion in [*vocoder.frame_spec.suspicions(mel[..., :JUDGED_FRAMES]), *filter(None, [padded])]:
            kind = _FIGURE.sub("", suspicion)
            if kind in told:
                log.warning("%s: looks as %s does", source, told[kind])
            else:
                log.warning("%s: %s", source, suspicion)
                told[kind] = source
        sound = vocoder.pieces(mel, warn=False)
    else:
        info = found.info
        assert info is not None
        done = []
        if found.channel is not None:
            done.append(
                f"took channel {found.channel + 1} of {info.channels} alone: mixed to one they cancel"
            )
        elif info.channels > 1:
            done.append(f"mixed {info.channels} channels to one")
        if info.sample_rate != vocoder.sample_rate:
            done.append(f"resampled from {info.sample_rate} Hz to the model's {vocoder.sample_rate} Hz")
        if (note := " and ".join(done)) and note not in told:
            log.info("%s: %s", source, note)
            told[note] = source
        sound = vocoder.vocode_blocks(found.blocks, info.sample_rate)
    with _folder(target.parent), audio.Writer(target, vocoder.sample_rate, subtype=_subtype(bits)) as writer:
        for piece in sound:
            writer.append(piece)
    way_out = "--bits 32 writes WAV as float, where nothing clips"
    if writer.clipped and way_out not in told:
        log.warning("%s", way_out)
        told[way_out] = source


def _subtype(bits: int | None) -> str | None:
    from gansound import audio

    return None if bits is None else audio.SUBTYPE_OF_BITS[bits]


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder and those above it; take away again what was made when the body fails."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            try:
                folder.rmdir()
            except OSError:
                break
        raise


def _shown(work: list[tuple[Path, Path]], *, quiet: bool) -> Iterable[tuple[Path, Path]]:
    from rich.progress import Progress

    from gansound.cli.console import Console

    console = Console(stderr=True)
    if quiet or len(work) == 1 or not console.is_terminal:
        return work
    # Redirected, the printed paths would join the bar on stderr instead of the pipe they were meant for.
    progress = Progress(console=console, redirect_stdout=sys.stdout.isatty(), transient=True)

    def shown() -> Iterator[tuple[Path, Path]]:
        with progress:
            yield from progress.track(work, description="vocoding")

    return shown()


def _named(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
