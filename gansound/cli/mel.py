"""`gansound mel`: which convention mels are in, what a model wants, and the way from one to the other."""

import argparse
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gansound.cli.backend import add_allow_argument, add_mel_argument, given_mel
from gansound.cli.errors import UsageError, explain
from gansound.counts import counted, some_of

if TYPE_CHECKING:
    from torch import Tensor

    from gansound.mel import MelSpec
    from gansound.mel.doctor import Match
    from gansound.model_folder import LoadedModel

log = logging.getLogger(__name__)

HELP = """Look at mels: which conventions fit them, what a model wants, and whether one becomes the other exactly.

Each FILE is a mel (.npy, .npz, .pt, .safetensors). A recording of the same name beside it (or --audio) decides the
convention and the offset in frames: its mel is made in that of --mel, the model's own and every preset, and compared.
With -o the mel is written in the model's convention, where that is exact."""

EXAMPLES = """examples:
  gansound mel from_my_tts.npy
  gansound mel from_my_tts.npy --audio the_same.wav
  gansound mel mels/*.npy --mel melgan_neurips --model default -o converted/

The exit code is 1 where a file can't be read, isn't in the convention of --mel by its recording, or can't be converted
with -o."""

_LISTED = 3  # conventions named beside the nearest
_SAID, _MODELS_OWN = "that of --mel", "the model's own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a mel")
    parser.add_argument("--model", default="default", help="whose convention is wanted (default: default)")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="the recording of the one mel")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for converted mels (.npy); files of the same names are overwritten",
    )
    add_mel_argument(parser)
    add_allow_argument(parser)


def run(args: argparse.Namespace) -> int:
    files: list[Path] = list(dict.fromkeys(args.files))
    for path in (*files, *([args.audio] if args.audio else [])):
        if not path.is_file():
            raise UsageError(f"{path}: {'is a folder, expected files' if path.is_dir() else 'no such file'}")
    if args.audio and len(files) > 1:
        raise UsageError(
            f"--audio: is of one mel, got {len(files)}; put recordings of the same names beside them"
        )
    if args.output is not None:
        if args.output.exists() and not args.output.is_dir():
            raise UsageError(f"-o {args.output}: is there and not a folder")
        targets = [args.output / f"{path.stem}.npy" for path in files]
        if len(set(targets)) < len(targets):
            raise UsageError(f"-o {args.output}: two of the mels have one name")
        if clash := [t for t in targets if t.resolve() in {f.resolve() for f in files}]:
            raise UsageError(f"-o {args.output}: {clash[0]} would overwrite the input; choose another folder")
    said = given_mel(args)
    from gansound.model_folder import load_model_folder

    model = load_model_folder(args.model, allow=args.allow)
    failed = 0
    for path in files:
        try:
            _one(path, model, said, args.audio or _beside(path), args.output)
        except (ValueError, OSError) as error:
            message = explain(error)[1]
            log.error("%s", message if str(path) in message else f"{path}: {message}")
            failed += 1
    return 1 if failed else 0


def _one(
    path: Path, model: "LoadedModel", said: "MelSpec | None", recording: Path | None, output: Path | None
) -> None:
    import numpy as np
    import torch

    from gansound.mel.doctor import conventions
    from gansound.mel.files import read_mel
    from gansound.mel.frames import check_numbers, whole_numbers

    wanted = model.mel
    read = read_mel(path)
    check_numbers(read)
    whole = whole_numbers(read)
    mel = torch.from_numpy(np.asarray(read, np.float32, order="C")) if isinstance(read, np.ndarray) else read
    mel = mel.float()
    mel = mel[0] if mel.ndim == 3 and len(mel) == 1 else mel
    if mel.ndim == 3 and len(mel) > 1:
        raise ValueError(f"holds {len(mel)} mels, expected one a file (bands x frames)")
    if mel.ndim != 2:
        raise ValueError(f"got shape {tuple(mel.shape)}, expected bands x frames")
    if mel.numel() == 0:
        raise ValueError(f"got shape {tuple(mel.shape)}, which holds no frames")
    if bad := int((~mel.isfinite()).sum()):
        raise ValueError(f"{some_of(bad, mel.numel(), 'value', 'is', 'are')} NaN or infinite, as float32")
    lines = [f"{path}: {mel.shape[0]} x {mel.shape[1]}, {float(mel.min()):.2f} to {float(mel.max()):.2f}"]
    own = wanted.n_mels if said is None else said.n_mels
    if whole:
        lines.append(
            f"  whole numbers ({whole}): logarithms that were scaled to them, if it is a mel; scale them back, for "
            "vocode refuses them"
        )
    if mel.shape[0] == mel.shape[1]:
        lines.append(
            f"  {mel.shape[0]} rows and columns: which are the bands its shape doesn't tell; rows are taken"
        )
    if mel.shape[0] != own and (
        mel.shape[1] == own or (not conventions(mel.shape[0]) and conventions(mel.shape[1]))
    ):
        mel = mel.T.contiguous()
        lines.append(
            "  frames x bands: turned round here; vocode takes bands x frames, so save mel"
            f"{'[0]' * (read.ndim == 3)}.T, or let -o write it"
        )
    convention, guessed, refuted = said, False, ""
    if recording is not None:
        convention, refuted = _by_sound(mel, recording, said, wanted, lines)
        if convention is None:
            _by_values(mel, wanted, recording, lines)
    elif said is not None:
        if len(mel) != own:
            raise ValueError(
                f"has {counted(len(mel), 'band')} x {counted(mel.shape[1], 'frame')}, expected the {own} bands of --mel"
            )
        against = said.suspicions(mel)
        lines.append(f"  in that convention: {'; '.join(against) if against else 'the values fit it'}")
    elif _by_values(mel, wanted, recording, lines) and not output:
        convention, guessed = wanted, True
    lines.append(
        "  if it is the model's, there is nothing to convert" if guessed else _way(mel, convention, model)
    )
    print("\n".join(lines), flush=True)
    if refuted:
        raise ValueError(refuted)
    if output is not None:
        if convention is None:
            raise ValueError(
                "nothing is written: say its convention with --mel, or put its recording beside it"
                if recording is None
                else f"nothing is written: beside {recording} it is in no convention that is known here; say its own "
                "with --mel"
            )
        _write(output / f"{path.stem}.npy", convention.convert(convention.check(mel)[0], wanted))


def _by_values(mel: "Tensor", wanted: "MelSpec", recording: Path | None, lines: list[str]) -> bool:
    """Say what a mel's values tell; whether they fit the model's own convention."""
    from gansound.mel.doctor import conventions, fitting, other_readings
    from gansound.mel.frames import of_a_spectrum
    from gansound.mel.suspicions import MIN_FRAMES, unlike_any_sound

    fits_model = False
    if mel.shape[1] < MIN_FRAMES:
        few = counted(mel.shape[1], "frame is", "frames are")
        lines.append(f"  {few} too few to tell a convention: {MIN_FRAMES} may")
    elif not conventions(len(mel)) and wanted.n_mels != len(mel):
        n_fft = of_a_spectrum(len(mel))
        lines.append(
            f"  no preset has {counted(len(mel), 'band')}"
            + (
                f"; a spectrum of n_fft {n_fft} has so many rows, and is no mel before its filters"
                if n_fft
                else ""
            )
        )
    elif strange := unlike_any_sound(mel):
        lines.append(f"  {strange}")
    else:
        if wanted.n_mels == len(mel):
            against = wanted.suspicions(mel)
            lines.append(
                f"  the model's own convention: {'; '.join(against) if against else 'the values fit it'}"
            )
            fits_model = not against
            if padded := wanted.padded(mel):
                lines.append(f"  {padded}")
        named = ", ".join(name for names in fitting(mel).values() for name in names)
        may_be = [*([named] if named else []), *other_readings(mel, fits_a_preset=bool(named))]
        lines.append(
            f"  by its values alone it may be {' or '.join(may_be)}"
            + ("; a recording beside it would decide" if named and recording is None else "")
            if may_be
            else "  fits no preset by its values"
        )
        if all(" of power" in reading for reading in may_be) and may_be:
            lines.append(
                "  no formula makes a mel of magnitudes, which vocoders take, of one of power: make it anew with "
                "power=1 (librosa, torchaudio)"
            )
    return fits_model


def _by_sound(
    mel: "Tensor", recording: Path, said: "MelSpec | None", wanted: "MelSpec", lines: list[str]
) -> "tuple[MelSpec | None, str]":
    """A mel's convention, None where no known one is near; and what refutes the one that was said, "" where nothing."""
    import torch

    from gansound import audio
    from gansound.mel.doctor import ALIKE, MOST_OFFSET_FRAMES, SAME, alike, matches

    samples, rate = audio.read(recording)
    mono = samples.mean(0) if samples.ndim == 2 else samples
    others = {wanted: _MODELS_OWN} | ({} if said is None else {said: _SAID})

    def heard(wanted: int) -> "Tensor":
        return torch.from_numpy(audio.resample(mono, rate, wanted)).float()

    found = matches(mel, heard, others)
    near = [match for match in found if match.distance < ALIKE]
    if not near and (turned := alike([m for m in matches(mel.flip(0), heard, others) if m.distance < ALIKE])):
        raise ValueError(
            f"its bands lie upside down, the highest first: turned round (mel[::-1]) it is the mel of {recording} in "
            f"{' or '.join(' = '.join(match.names) for match in turned)}. Save it so"
        )
    same = alike(near)
    of_said = next((match for match in found if match.spec == said), None)
    holds = of_said is not None and (of_said.distance < SAME or of_said in same)
    refuted = "" if said is None or holds else _refuted(recording, of_said, near)
    if not near:
        lines.append(
            f"  in no preset, nor {_MODELS_OWN if said is None else f'{_MODELS_OWN} or {_SAID}'}, is this the mel of "
            f"{recording}, up to {MOST_OFFSET_FRAMES} frames off"
            + (
                f" (the nearest, {found[0].names[0]}, lies {found[0].distance:.2f} away in ln)"
                if found and found[0].distance < math.inf
                else ""
            )
        )
        return None, refuted
    best = near[0]
    if holds and of_said is not None:
        best, same = of_said, [of_said, *(match for match in same if of_said in same and match != of_said)]
    sure = "is" if best.distance < SAME else "is most like"
    told = " or ".join(" = ".join(match.names) for match in same)
    lines.append(
        f"  {sure} the mel of {recording} in {told}, offset {best.offset_frames:+d} frames "
        f"({best.distance:.4f} apart in ln)"
    )
    lines.extend(
        f"    next {' = '.join(match.names)}, offset {match.offset_frames:+d} ({match.distance:.4f})"
        for match in [match for match in found if match not in same][:_LISTED]
    )
    return said if holds else next((match.spec for match in same if match.spec == wanted), best.spec), refuted


def _refuted(recording: Path, of_said: "Match | None", near: "list[Match]") -> str:
    how_far = (
        f" (it lies {of_said.distance:.2f} away in ln)" if of_said and of_said.distance < math.inf else ""
    )
    if not near:
        what = "Give all of its convention (fields in a JSON file, --stats) or its own recording"
    elif near[0].names == (_MODELS_OWN,):
        what = "Leave --mel out"
    else:
        what = f"Say --mel {near[0].names[0]}"
    return f"nothing is written: in the convention of --mel it isn't the mel of {recording}{how_far}. {what}"


def _way(mel: "Tensor", convention: "MelSpec | None", model: "LoadedModel") -> str:
    from gansound.inference.convention import in_convention

    wanted = model.mel
    if convention is None:
        return "  to the model's convention: unknown until its own is known"
    if convention == wanted:
        return "  it is the model's convention: nothing to convert"
    try:
        checked = convention.check(mel)[0]
    except ValueError as error:
        return f"  to the model's convention: {error}"
    try:
        convention.convert(checked, wanted)
    except ValueError as error:
        try:
            in_convention(model, convention)
        except ValueError:
            return f"  to the model's convention: {error}"
        return "  the model is universal and takes it as it is, told by --mel: vocode, stream and export do"
    return (
        f"  to the model's convention: exactly ({'; '.join(convention.differences(wanted))}); -o writes it, and "
        "vocode, stream and export do it by themselves, told by --mel"
    )


def _beside(path: Path) -> Path | None:
    from gansound.audio import AUDIO_SUFFIXES

    return next((p for s in sorted(AUDIO_SUFFIXES) if (p := path.with_suffix(s)).is_file()), None)


def _write(path: Path, mel: "Tensor") -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            np.save(file, mel.numpy())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    print(path, flush=True)
