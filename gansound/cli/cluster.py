"""`--ray`: commands whose items a Ray cluster works through."""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gansound.on_ray import Pool


def add_ray_argument(parser: argparse.ArgumentParser) -> None:
    """`--ray`."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        type=_address,
        metavar="ADDRESS",
        help="work on the Ray cluster at HOST:PORT, or auto for that of this node; without an address on one started "
        "for this command (pip install 'gansound[ray]'); the nodes share a file system",
    )


def _address(text: str) -> str:
    if text in ("local", "auto") or re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d{1,5}", text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is no address, expected HOST:PORT, auto or nothing. Where something else follows, give --ray last"
    )


@contextmanager
def pool(args: argparse.Namespace) -> "Iterator[Pool | None]":
    """The processes that `--ray` asks for, None without it."""
    if args.ray is None:
        yield None
        return
    from gansound.on_ray import connected

    gpus = str(getattr(args, "device", None) or "").startswith("cuda")
    with connected(args.ray, jobs=getattr(args, "jobs", None), gpus=gpus) as found:
        yield found
