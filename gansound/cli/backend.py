"""The options by which commands take a vocoder on a backend, alike in all of them."""

import argparse
from typing import TYPE_CHECKING

from gansound.cli.errors import UsageError

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """`--backend` and `--precision`."""
    parser.add_argument(
        "--backend",
        choices=("auto", "eager", "compile", "onnxruntime", "openvino"),
        default="auto",
        help="what runs the model (default: auto, the fastest of those installed, measured once for a model and "
        "machine; pip install 'gansound[fast]' brings more; `gansound bench` compares them)",
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
    try:
        return Vocoder.from_pretrained(
            args.model, where, backend=args.backend, precision=args.precision, **allowed
        )
    except BackendUnavailable as error:
        raise UsageError(f"--backend, --precision: {error}") from None
