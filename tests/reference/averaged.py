"""A model whose weights are the weighted mean of two of the same kind, on one path of training.

    python -m tests.reference.averaged BEGIN END OUT [--share 0.7] [--between 372 373]

Wortsman et al., "Model soups" (arXiv 2203.05482): the mean of nets that one begun training led to is often better than
each of them. The configuration is END's. With --between the log-amplitudes of a universal vocoder's bins, from one to
another, lie between those of the bins beside: where no voice has taught them, or a notch has.
"""

import argparse
from pathlib import Path

import torch

from gansound.model_folder import load_model_folder, save_model_folder


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("begin")
    parser.add_argument("end")
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.7, help="of END, between 0 and 1")
    parser.add_argument("--between", type=int, nargs=2, metavar="BIN", help="so that no line stands there")
    arguments = parser.parse_args()
    begin, end = load_model_folder(arguments.begin), load_model_folder(arguments.end)
    with torch.no_grad():
        for one, other in zip(end.generator.parameters(), begin.generator.parameters(), strict=True):
            one.lerp_(other, 1 - arguments.share)
        if arguments.between:
            low, high = arguments.between
            head = end.generator.get_submodule("layers.core.spectrum.trunk.head")
            for rows in head.parameters():
                shares = torch.arange(1, high - low + 2) / (high - low + 2)
                below, above = rows[low - 1], rows[high + 1]
                rows[low : high + 1] = torch.stack([below.lerp(above, float(share)) for share in shares])
    save_model_folder(arguments.out, end.generator, end.mel, config=end.config, info=end.info, half=True)


if __name__ == "__main__":
    main()
