"""The options by which commands take a vocoder on a backend, alike in all of them."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gansound.cli.errors import UsageError

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder
    from gansound.mel import MelSpec


def add_allow_argument(parser: argparse.ArgumentParser) -> None:
    """`--allow`."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours whose generator the model folder may name",
    )


def add_mel_argument(parser: argparse.ArgumentParser) -> None:
    """`--mel` and `--stats`."""
    parser.add_argument(
        "--mel",
        metavar="NAME",
        help="the convention of the mels, where it isn't the model's own: a preset (tacotron2, parallel_wavegan, "
        "melgan_neurips, vocos_24khz …) or a JSON file of a convention's fields; a universal vocoder takes all of "
        "about its frames a second, `default` of half as many too, at 16, 22.05 or 24 kHz, any other those that become "
        "its own exactly (`gansound mel` tells)",
    )
    parser.add_argument(
        "--stats",
        type=Path,
        metavar="FILE",
        help="mean and scale of a corpus by which the mels of --mel were normalised (stats.h5, .npy, .npz, .json, .pt)",
    )


def given_mel(args: argparse.Namespace) -> "MelSpec | None":
    """The convention that `--mel` and `--stats` say; UsageError where there is no such."""
    if args.mel is None:
        if args.stats is not None:
            raise UsageError("--stats: are of mels in a convention: name it, such as --mel hifigan")
        return None
    spec = _named_mel(args.mel)
    if args.stats is None:
        return spec
    from gansound.mel.statistics import read_statistics

    try:
        mean, scale = read_statistics(args.stats)
        return replace(spec, mean=mean, scale=scale, clip=None)  # in place of its own
    except (ValueError, OSError) as error:
        raise UsageError(f"--stats: {error}") from None


def _named_mel(named: str) -> "MelSpec":
    from gansound.mel import MelSpec

    path = Path(named)
    try:
        if path.suffix != ".json":
            return MelSpec.preset(named)
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("holds no object with the fields of a convention")
        return MelSpec.from_dict(fields.get("mel", fields))  # a model folder's config.json will do
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"--mel: {error}") from None


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """`--backend` and `--precision`."""
    parser.add_argument(
        "--backend",
        choices=("auto", "eager", "compile", "onnxruntime", "openvino"),
        default="auto",
        help="what runs the model (default: auto, the fastest of those installed where that was measured before for "
        "this model and machine, else eager; pip install 'gansound[fast]' brings more; `gansound bench` compares them)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="what it computes in (default: fp32, exact); bf16 and int8, where a backend has them, are faster and "
        "not quite the same sound",
    )


def open_vocoder(args: argparse.Namespace, *, device: str | None = None) -> "Vocoder":
    """The vocoder that a command line names: its model, device, backend and precision, and `allow` where it has that.

    Args:
        args: of the command line.
        device: where it runs when `args.device` is None.

    Raises:
        UsageError: no such device here, or the backend or precision isn't to be had on it.
        ValueError: the model can't be loaded, or not on that backend.
    """
    from gansound.inference.backends import BackendUnavailable
    from gansound.inference.device import choose_device
    from gansound.inference.vocoder import Vocoder

    try:
        where = choose_device(args.device or device)
    except ValueError as error:
        raise UsageError(f"--device: {error}") from None
    allowed = {"allow": args.allow} if "allow" in args else {}
    mel = given_mel(args) if "mel" in args else None
    try:
        return Vocoder.from_pretrained(
            args.model, where, mel=mel, backend=args.backend, precision=args.precision, **allowed
        )
    except BackendUnavailable as error:
        raise UsageError(f"--backend, --precision: {error}") from None
