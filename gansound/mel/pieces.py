"""The mel of audio that comes piece by piece, as it is of the whole."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from gansound.mel.spec import MelSpec

PIECE_FRAMES = 4096


def mel_pieces(spec: MelSpec, audio: Iterable[Tensor], *, frames: int = PIECE_FRAMES) -> Iterator[Tensor]:
    """The mel of the audio joined, whose last hop is completed with silence; memory doesn't grow with its length.

    A piece is computed with so much audio on both sides that what the front end puts at its ends isn't seen, but for
    the ends of the whole. Audio that fits into one piece is computed in one.

    Args:
        spec: the convention.
        audio: `(n,)` each, n 0 or more.
        frames: of a piece.

    Shape:
        `(1, M, frames)` each, the last fewer; `ceil(T / hop_length)` in all, none of no audio.
    """
    hop = spec.hop_length
    around = -(-spec.n_fft // hop)  # frames on either side
    have = torch.zeros(0)
    before = 0  # frames at the start of `have` that are out already
    coming: list[Tensor] = []
    waiting = 0  # samples of those
    for part in audio:
        coming.append(part)
        waiting += len(part)
        wanted = (before + frames + around) * hop
        if have.shape[0] + waiting < wanted:
            continue
        have, coming, waiting = torch.cat([have.to(part), *coming]), [], 0
        while have.shape[0] >= wanted:
            yield _frames(spec, have[:wanted], before, frames)
            gone = max(0, before + frames - around)
            have, before = have[gone * hop :], before + frames - gone
            wanted = (before + frames + around) * hop
    if coming:
        have = torch.cat([have.to(coming[0]), *coming])
    rest = -(-have.shape[0] // hop)
    if rest > before:
        yield _frames(
            spec, torch.nn.functional.pad(have, (0, rest * hop - have.shape[0])), before, rest - before
        )


def _frames(spec: MelSpec, audio: Tensor, first: int, count: int) -> Tensor:
    return spec.mel(audio[None])[..., first : first + count]
