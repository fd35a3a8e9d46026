"""A model whose weights are the weighted mean of two of the same kind, on one path of training.

    python -m tests.reference.averaged BEGIN END OUT [--share 0.7] [--even-from 386 [--down-to 372] [--louder-db 1]]
        [--smooth 170 372 0.6]

Wortsman et al., "Model soups" (arXiv 2203.05482): the mean of nets that one begun training led to is often better than
each of them. The configuration is END's. With --even-from the log-amplitudes of a universal vocoder's bins from that
one on are each the mean of those around: where a mel tells of nothing, what one bin has over the next was learnt from
nothing, and is a tone in pauses. With --down-to the bins from there on are as those above: at the edge of the mel some
may have learnt to be silent beside loud ones, of which no mean is like either. A mean of logarithms is fainter than
what it is of, by --louder-db.

With --smooth the log-amplitudes of bins between two are, to a share, the mean of those around too, but for what they
are where the mel is flat: there they undo bumps of the mel's inverse. A mel's bands are wide there, so what a bin has
over the next is a guess; it makes the pulses of a voice longer than they are.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import nn

from gansound.generators.universal import UniversalGenerator
from gansound.model_folder import load_model_folder, save_model_folder

AROUND_BINS = 8
FADE_BINS = 16  # below the first that is smoothed


def evened(rows: torch.Tensor) -> torch.Tensor:
    """Hann-weighted means of each row and the eight on either side, fewer at both ends."""
    made = []
    for at in range(len(rows)):
        reach = min(AROUND_BINS, at, len(rows) - 1 - at)
        weights = torch.hann_window(2 * reach + 3, periodic=False)[1:-1]
        made.append(torch.tensordot(weights / weights.sum(), rows[at - reach : at + reach + 1], 1))
    return torch.stack(made)


def even(head: nn.Linear, begin: int, down_to: int, louder_db: float) -> None:
    """The log-amplitudes of a head's bins from `begin` on as means; down to another as the lowest whole one."""
    for rows in (head.weight, head.bias):
        amplitudes = rows.chunk(3)[0]
        amplitudes[begin:] = evened(amplitudes[begin:].clone())
        if down_to < begin:
            amplitudes[down_to : begin + AROUND_BINS] = amplitudes[begin + AROUND_BINS].clone()
    head.bias[down_to : len(head.bias) // 3] += louder_db * math.log(10) / 20


def smooth(net: UniversalGenerator, first: int, end: int, share: float) -> None:
    """The log-amplitudes of bins from one to before another as means, to a share, but for what a flat mel has."""
    head: nn.Linear = net.get_submodule("layers.core.spectrum.trunk.head")  # type: ignore[assignment]
    heard: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, given: heard.append(given[0][0]))
    net(torch.zeros(1, net.n_mels, 60))
    handle.remove()
    flat = heard[0][10:-10].mean(0)
    weight, bias = head.weight.chunk(3)[0], head.bias.chunk(3)[0]
    begin = max(0, first - FADE_BINS)
    said = weight[begin:end] @ flat + bias[begin:end]
    shares = share * ((torch.arange(begin, end) - begin) / FADE_BINS).clamp(max=1)
    for rows in (weight, bias):
        wide = rows[begin - AROUND_BINS : end + AROUND_BINS].clone()
        rows[begin:end] = torch.lerp(
            rows[begin:end], evened(wide)[AROUND_BINS:-AROUND_BINS], shares.view(-1, *[1] * (rows.dim() - 1))
        )
    bias[begin:end] += said - (weight[begin:end] @ flat + bias[begin:end])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("begin")
    parser.add_argument("end")
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.7, help="of END, between 0 and 1")
    parser.add_argument("--even-from", type=int, metavar="BIN", help="so that no line stands there")
    parser.add_argument("--down-to", type=int, metavar="BIN", help="bins from there on are as those above")
    parser.add_argument("--louder-db", type=float, default=0.0)
    parser.add_argument("--smooth", nargs=3, metavar=("FIRST", "END", "SHARE"), help="bins, and how much")
    arguments = parser.parse_args()
    begin, end = load_model_folder(arguments.begin), load_model_folder(arguments.end)
    with torch.no_grad():
        for one, other in zip(end.generator.parameters(), begin.generator.parameters(), strict=True):
            one.lerp_(other, 1 - arguments.share)
        if arguments.even_from is not None:
            head = end.generator.get_submodule("layers.core.spectrum.trunk.head")
            even(head, arguments.even_from, arguments.down_to or arguments.even_from, arguments.louder_db)
        if arguments.smooth is not None:
            first, last, share = arguments.smooth
            smooth(end.generator, int(first), int(last), float(share))
    save_model_folder(arguments.out, end.generator, end.mel, config=end.config, info=end.info, half=True)


if __name__ == "__main__":
    main()
