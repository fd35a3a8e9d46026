"""`gansound vocode`: mels or recordings in, sound out."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli.errors import UsageError

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder

log = logging.getLogger(__name__)

HELP = """Turn mel spectrograms into sound, or recordings into sound by way of their mels (copy synthesis).

Each INPUT is a mel (.npy, .pt, .safetensors; bands x frames, in the model's convention), a recording (WAV, FLAC, Ogg,
Opus, MP3; resampled and mixed to mono where it must be), or a folder of either, searched recursively."""

EXAMPLES = """examples:
  gansound vocode speech.wav -o resynthesised.wav
  gansound vocode mels/ -o audio/ --model runs/melgan/model
  gansound vocode mel.npy -o speech.flac

One file goes to the file or folder OUT; several, or a folder, go to the folder OUT under their own names as WAV."""

MEL_SUFFIXES = frozenset({".npy", ".pt", ".safetensors"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="a mel, a recording, or a folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="audio file or folder")
    parser.add_argument(
        "--model", default="default", help="shipped name, model folder, or Hugging Face repository (default: default)"
    )
    parser.add_argument("--device", help="such as cpu or cuda (default: CUDA where there is one)")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    from gansound.audio import AUDIO_SUFFIXES

    for path in args.inputs:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    work = list(outputs(args.inputs, args.output, AUDIO_SUFFIXES | MEL_SUFFIXES))
    targets: dict[Path, Path] = {}
    for source, target in work:
        if target in targets:
            raise UsageError(f"{targets[target]} and {source} would both be written to {target}; vocode them apart")
        targets[target] = source
    if not work:
        raise ValueError(f"{', '.join(map(str, args.inputs))}: no mel and no recording in there")
    from gansound.inference.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(args.model, device=args.device)
    failed: list[str] = []
    console = Console(stderr=True)
    for source, target in track(
        work, description="vocoding", console=console, disable=len(work) == 1 or not console.is_terminal
    ):
        try:
            vocode(vocoder, source, target)
        except (ValueError, OSError) as error:
            # One bad file must not cost a batch its other results.
            failed.append(f"{error}" if str(source) in str(error) else f"{source}: {error}")
            log.error("%s", failed[-1])
            continue
        print(target)
    if failed and len(work) > 1:
        log.error("%d of %d failed: %s", len(failed), len(work), "; ".join(failed))
    return 1 if failed else 0


def outputs(inputs: list[Path], output: Path, suffixes: frozenset[str]) -> Iterator[tuple[Path, Path]]:
    """Each input file with the file its sound goes to."""
    single = len(inputs) == 1 and inputs[0].is_file()
    if single and output.suffix and not output.is_dir():
        yield inputs[0], output
        return
    for path in inputs:
        if path.is_file():
            yield path, output / f"{path.stem}.wav"
            continue
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in suffixes and file.is_file():
                yield file, (output / file.relative_to(path)).with_suffix(".wav")


def vocode(vocoder: "Vocoder", source: Path, target: Path) -> None:
    """One file to one file.

    Raises:
        ValueError: the input can't be read, or isn't what the model takes.
        OSError: the output can't be written; nothing half-written stays.
    """
    from gansound import audio

    if source.suffix.lower() in MEL_SUFFIXES:
        sound = vocoder(read_mel(source))[0].cpu().numpy()
    else:
        info = audio.probe(source)
        samples, rate = audio.read(source)
        if info.channels > 1:
            log.info("%s: mixed %d channels to one", source, info.channels)
        if rate != vocoder.sample_rate:
            log.info("%s: resampled from %d Hz to the model's %d Hz", source, rate, vocoder.sample_rate)
        sound = vocoder.vocode_audio(samples, rate)
    target.parent.mkdir(parents=True, exist_ok=True)
    audio.write(target, sound, vocoder.sample_rate)


def read_mel(path: Path) -> Any:
    """A mel from a file, checked by nobody yet. Nothing in the file is run: no pickles.

    Raises:
        ValueError: not a file of one array or tensor.
    """
    import numpy as np

    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        import torch

        if path.suffix.lower() == ".pt":
            found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            from safetensors.torch import load_file

            found = load_file(path)
    except Exception as error:  # each reader raises its own kinds
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: can't be read as a mel: {detail}. Save one array of numbers, bands x frames") from None
    if isinstance(found, dict):
        if len(found) != 1:
            raise ValueError(f"{path}: expected one tensor, got {len(found)}: {', '.join(map(str, found))}")
        found = next(iter(found.values()))
    return found
