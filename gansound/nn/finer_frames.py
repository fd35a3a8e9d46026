"""Frames twice as many, each of a window half as long: what a mel of few frames a second blurs in time, sharpened.

Acoustic models that say 50 frames a second hear them through windows of 80 ms. A vocoder whose frames are half as long
gets twice as many by interpolation, but those are as smooth in time, and as sharp in frequency, as nothing that it has
learnt from. How short windows would have seen the same sound is a deconvolution in time and a blur in frequency; that
is learnt, as a correction to the logarithm of what is interpolated, by a few ConvNeXt blocks (Liu et al., arXiv
2201.03545) over the frames as they are given.
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.exact import MayBeExact
from gansound.nn.residual import Parallel
from gansound.nn.streaming import Cursor, Pointwise

LOUDEST = 7.0
"""Of a logarithm: e^7 is louder than any full-scale frame of 2048 samples."""
BLOCKS = 4
_FLOOR = 1e-6  # of an amplitude
_OWN_SHARE = 0.75  # of the frame in which a finer one lies; the rest is its neighbour's


class FinerFrames(MayBeExact, Parallel):
    """Amplitudes of frames as those of twice as many, a quarter of a frame before and behind the middle of each.

    Untrained it interpolates their logarithms. Phases add up what is rounded here, so that it may be exact. Looks `1 +
    BLOCKS` of the frames that it is given ahead, as far back.

    Args:
        bins: of the spectrum.
        channels: width of the blocks, twice as many inside.
        needed: what it is given has too few frames; else it hands all on as it is, and doesn't learn.

    Shape: `(B, F, bins)`, 0 in bins that nothing is known of → `(B, 2 * F, bins)`, 0 in the same; unless `needed` as it
        was given.
    """

    columns_dim = 1

    def __init__(self, bins: int, channels: int, *, needed: bool = True) -> None:
        nn.Module.__init__(self)
        self.needed = needed
        self.between = _Between()
        blocks = [ConvNeXtBlock(channels, 2 * channels, 3, initial_scale=1 / BLOCKS) for _ in range(BLOCKS)]
        head = nn.Linear(channels, 2 * bins)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.sharper = nn.Sequential(
            _Loudness(),
            nn.Linear(bins, channels),
            FrameConv(channels, channels, 3),
            nn.LayerNorm(channels),
            *blocks,
            nn.LayerNorm(channels),
            head,
        ).requires_grad_(needed)

    def where(self, needed: bool) -> Self:
        """The same, sharing its weights, where it is needed or isn't."""
        other = copy.copy(self)
        other.needed = needed
        return other

    def forward(self, amplitudes: Tensor) -> Tensor:
        if not self.needed:
            return amplitudes
        return super().forward(self.given(amplitudes)).to(amplitudes.dtype)

    def paths(self) -> list[nn.Module]:
        return [self.between, self.sharper]

    def combine(self, *outputs: Tensor) -> Tensor:
        given, correction = outputs
        finer = (given[..., 1:, :] + correction.unflatten(-1, (2, -1))).clamp(max=LOUDEST).exp()
        # Chosen, not multiplied: what follows may have a root of it, whose slope at 0 is infinite.
        return torch.where(given[..., :1, :] > 0, finer, 0.0).flatten(1, 2)

    def stream(self, amplitudes: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, bins)` → `(B, 2 * n, bins)`."""
        if not self.needed:
            return amplitudes
        finer = super().stream(self.given(amplitudes), cursor).to(amplitudes.dtype)
        cursor.upsample(2)
        cursor.late(0, 1)  # the second of two looks back to where the first does
        return finer


class _Loudness(Pointwise):
    """ln(amplitude) of speech lies around -5 with a spread of 3; of bins that nothing is known of it is 0."""

    def forward(self, amplitudes: Tensor) -> Tensor:
        return (amplitudes.clamp_min(_FLOOR).log() + 5) / 3 * (amplitudes > 0).to(amplitudes.dtype)


class _Between(nn.Module):
    """Which bins something is known of, then log-amplitudes a quarter of a frame before and behind each frame.

    Beyond the first and the last frame all is as there.

    Shape: `(B, F, bins)` → `(B, F, 3, bins)`.
    """

    def forward(self, amplitudes: Tensor) -> Tensor:
        return self._told(torch.cat([amplitudes[:, :1], amplitudes, amplitudes[:, -1:]], dim=1))

    def stream(self, amplitudes: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(amplitudes, 2, padding="replicate", dim=1)
        cursor.late(1, 1)
        return self._told(window)

    def _told(self, window: Tensor) -> Tensor:
        """`(B, 1 + n + 1, bins)` → `(B, n, 3, bins)`."""
        known = (window[:, 1:-1] > 0).to(window.dtype)
        logs = window.clamp_min(_FLOOR).log()
        own = _OWN_SHARE * logs[:, 1:-1]
        finer = [own + (1 - _OWN_SHARE) * beside for beside in (logs[:, :-2], logs[:, 2:])]
        return torch.stack([known, *finer], dim=2)
