"""An activation at twice the rate: what it adds above half the rate is filtered away instead of folded back.

Karras et al., "Alias-Free Generative Adversarial Networks" (arXiv 2106.12423), section 3.2, as Lee et al., "BigVGAN"
(arXiv 2206.04658), section 3.3, have it: up by two, the activation, down by two, both with the same Kaiser-windowed
sinc of 12 taps (the filters of adefossez/julius).

At twice the rate samples stand in pairs, a pair for each column. The first and the second of the pairs are kept apart
(the filter's two phases), so that all of it is convolutions of six taps at the column's rate, each channel by itself,
with no sample ever moved: on a CPU core an activation of BigVGAN's takes 1/1.3 to 1/2.1 of what strided depthwise
convolutions take, and as long as they do in training (pairs, one thread of an AMD EPYC).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor

TAPS = 12
CUTOFF = 0.25  # of the doubled rate
HALF_WIDTH = 0.3  # of the filter's transition, likewise
CONTEXT = TAPS // 2 - 1  # columns before its own that a phase of the filter sees


def kaiser_sinc(taps: int, cutoff: float, half_width: float) -> Tensor:
    """A low-pass filter `(taps,)`, even and of sum 1; both numbers are fractions of the sample rate.

    Kaiser's rule for the attenuation that so many taps can have with that transition, and its window.
    """
    attenuation_db = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation_db > 50:
        beta = 0.1102 * (attenuation_db - 8.7)
    elif attenuation_db >= 21:
        beta = 0.5842 * (attenuation_db - 21) ** 0.4 + 0.07886 * (attenuation_db - 21)
    else:
        beta = 0.0
    time = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    ideal = window * torch.sinc(2 * cutoff * time)
    return ideal / ideal.sum()


def minimum_phase(taps: Tensor) -> Tensor:
    """The filter with the same magnitude at every frequency that answers soonest: its zeros inside the unit circle."""
    zeros = np.roots(taps.numpy())
    outside = np.abs(zeros) > 1
    zeros[outside] = 1 / zeros[outside].conj()
    soonest = torch.from_numpy(np.real(np.poly(zeros)))
    return soonest * (taps.sum() / soonest.sum())


class AntiAliased(nn.Module):
    """An activation between a twofold upsampling and a twofold downsampling.

    Beyond its ends the utterance, and what the activation makes of it, stands still at its first and last sample.

    Streaming, a column waits for the 5 after it; causal, for none, with the filter's minimum-phase sister, which has
    the same magnitude and another phase (not published: a net is trained with the one or with the other).

    Args:
        activation: works on each sample alone.
        causal: look at the past only.

    Shape:
        `(B, C, T)` or `(B, C, 1, T)` → the same.
    """

    up: Tensor
    down: Tensor

    def __init__(self, activation: nn.Module, *, causal: bool = False) -> None:
        super().__init__()
        self.activation = activation
        taps = kaiser_sinc(TAPS, CUTOFF, HALF_WIDTH)
        taps = (minimum_phase(taps) if causal else taps).to(torch.get_default_dtype())
        # Constants of the design, not weights: derived again at construction, so they aren't stored.
        self.register_buffer("up", 2 * taps.flip(0).unflatten(0, (-1, 2)).flip(1).T, persistent=False)
        self.register_buffer("down", taps.flip(0).unflatten(0, (-1, 2)).T, persistent=False)
        # Column c's pair is samples 2c - ahead and 2c - ahead + 1 of the doubled rate.
        self.ahead = 0 if causal else CONTEXT

    def forward(self, x: Tensor) -> Tensor:
        image = x if x.dim() == 4 else x.unsqueeze(2)
        image = image.to(memory_format=torch.channels_last)
        pad = (2 * CONTEXT - self.ahead, self.ahead, 0, 0)
        first, second = self._up(F.pad(image, pad, mode="replicate"))
        # The pairs run from column ahead - CONTEXT on.
        if self.ahead:
            start, end = second[..., 2:3], first[..., -3:-2]  # samples 0 and 2T - 1
            first = torch.cat([start.expand(*start.shape[:-1], 3), first[..., 3:-2], *[end] * 2], -1)
            second = torch.cat([start, start, second[..., 2:-3], end.expand(*end.shape[:-1], 3)], -1)
        else:
            start = first[..., CONTEXT : CONTEXT + 1].expand(*first.shape[:-1], CONTEXT)
            first = torch.cat([start, first[..., CONTEXT:]], -1)
            second = torch.cat([start, second[..., CONTEXT:]], -1)
        y = self._down(first, second)
        return y if x.dim() == 4 else y.squeeze(2)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(x, CONTEXT, padding="replicate")
        first, second = self._up(window if x.dim() == 4 else window.unsqueeze(2))
        first = cursor.window(first, CONTEXT, padding=None)
        second = cursor.window(second, CONTEXT, padding=None)
        if cursor.position is not None:
            first, second = self._held(first, second, cursor)
        cursor.late(self.ahead, 2 * CONTEXT - self.ahead)
        y = self._down(first, second)
        return y if x.dim() == 4 else y.squeeze(2)

    def _held(self, first: Tensor, second: Tensor, cursor: Cursor) -> tuple[Tensor, Tensor]:
        """Pairs outside the utterance replaced by its first and its last sample at the doubled rate."""
        assert cursor.length is not None
        columns = first.shape[-1]
        index = cursor.indices(columns, CONTEXT)  # of the columns that the pairs are named after
        place = 2 * index - self.ahead

        def sample(phase: Tensor, column: Tensor) -> Tensor:
            at = (column - index[:, 0]).clamp(0, columns - 1)
            return phase.gather(-1, at.reshape(-1, 1, 1, 1).expand(*phase.shape[:-1], 1))

        odd = self.ahead % 2
        start = sample(second if odd else first, torch.full_like(index[:, 0], self.ahead // 2))
        kept, begun = first, (place >= 0)[:, None, None]
        first, second = (torch.where(begun, phase, start) for phase in (first, second))
        if self.ahead:  # a causal one never sees beyond the end
            end = sample(kept, cursor.length + self.ahead // 2)
            last = 2 * cursor.length[:, None] - 1
            first = torch.where((place <= last)[:, None, None], first, end)
            second = torch.where((place + 1 <= last)[:, None, None], second, end)
        return first, second

    def _up(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.to(torch.promote_types(image.dtype, self.up.dtype))
        first, second = (self.activation(_each_channel(image, taps)) for taps in self.up)
        return first, second

    def _down(self, first: Tensor, second: Tensor) -> Tensor:
        return _each_channel(first, self.down[0]) + _each_channel(second, self.down[1])


def _each_channel(image: Tensor, taps: Tensor) -> Tensor:
    """`(B, C, 1, n)` and a filter `(k,)`, oldest sample first → `(B, C, 1, n - k + 1)`."""
    channels = image.shape[1]
    weight = taps.to(image.dtype).expand(channels, 1, 1, -1).contiguous(memory_format=torch.channels_last)
    return F.conv2d(image, weight, groups=channels)
