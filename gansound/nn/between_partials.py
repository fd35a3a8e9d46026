"""Phases between the partials, from those of the partials around and from how their amplitudes go.

Where two partials are about as loud, between their peaks, a bin's phase is neither one's; that is where it is told at
which moments of a frame the partials add up to a pulse. With true phases at the peaks and those between them as
`SinglePassPhases` guesses them, by the nearest peak's and by growth, half of the loss of PESQ that wrong phases make
below a kilohertz is still there. What the phases are between depends on differences alone, from bin to bin and from
frame to frame, in the same way at every bin: so it is learnt, by a few small convolutions over bins and frames that
see nothing but differences.

Phases from amplitudes by a net of convolutions, and from derivatives rather than from phases, are in Masuyama et al.,
"Phase reconstruction based on recurrent phase unrolling with deep neural networks" (ICASSP 2020); nothing is unrolled
here, since the partials' own phases are there already.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor

FRAMES = (1, 3, 3, 1)
"""Seen by each of the convolutions; all see three bins."""
RADIUS = 0.1
"""Of a turn; within it the amplitude falls with it, since an angle of nearly nothing would turn rounding into sound."""
_FLOOR = 1e-7  # of an amplitude
_DIFFERENCES = 5


class BetweenPartials(nn.Module):
    """The phases of the lowest bins, turned where partials meet. At first they aren't turned.

    Outside of an utterance nothing sounds.

    Args:
        columns: amplitudes of each frame.
        phases: so many of the lowest bins have one.
        bins: so many of these are turned.
        cycles: of bin 1, from one frame to the next.
        channels: width of the convolutions.
        causal: look at the past only; else two frames ahead.

    Shape: `(B, F, columns + 2 * phases)`, amplitudes, cosines and sines, as `SinglePassPhases` gives them → `(B, F, 2 *
    phases)`, the cosines and sines.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self, columns: int, phases: int, bins: int, cycles: float, channels: int, *, causal: bool
    ) -> None:
        super().__init__()
        self.columns, self.bins = columns, bins
        self.above = 1 if phases > bins else 0  # whose phases differ from the highest's
        around = sum(frames - 1 for frames in FRAMES)
        self.ahead = 0 if causal else around // 2
        self.before = 1 + around - self.ahead
        widths = [_DIFFERENCES, *[channels] * (len(FRAMES) - 1), 2]
        layers: list[nn.Module] = []
        for width, following, frames in zip(widths, widths[1:], FRAMES, strict=False):
            layers += [nn.Conv2d(width, following, (frames, 3), padding=(0, 1)), nn.GELU()]
        *layers, last, _ = layers
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(*layers, last)
        angle = 2 * math.pi * cycles * torch.arange(bins, dtype=torch.float64)
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        self.register_buffer("sine", angle.sin().float(), persistent=False)

    def forward(self, given: Tensor) -> Tensor:
        return self._told(F.pad(self._heard(given), (0, 0, self.before, self.ahead)))

    def stream(self, given: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, columns + 2 * phases)` → `(B, n, 2 * phases)`."""
        window = cursor.window(self._heard(given), self.before + self.ahead, dim=1)
        cursor.late(self.ahead, self.before)
        return self._told(window)

    def _heard(self, given: Tensor) -> Tensor:
        return torch.cat([given[..., : self.bins], given[..., self.columns :]], dim=-1)

    def _told(self, window: Tensor) -> Tensor:
        """Shape: `(B, before + n + ahead, bins + 2 * phases)` → `(B, n, 2 * phases)`."""
        own = window[:, self.before : window.shape[1] - self.ahead, self.bins :]
        cosine, sine = own.chunk(2, dim=-1)
        turn = self.layers(self._differences(window)).to(own.dtype)
        x, y = 1 + turn[:, 0], turn[:, 1]
        scale = math.sqrt(1 + RADIUS**2) * (x.square() + y.square() + RADIUS**2).rsqrt()
        x, y = x * scale, y * scale
        u, v = cosine[..., : self.bins], sine[..., : self.bins]
        higher = cosine[..., self.bins :], sine[..., self.bins :]
        return torch.cat([u * x - v * y, higher[0], v * x + u * y, higher[1]], dim=-1)

    def _differences(self, window: Tensor) -> Tensor:
        """Loudness, and how phases differ from bin to bin, and from what a tone at the bin would have moved on to.

        Shape: `(B, 1 + n, bins + 2 * phases)` → `(B, 5, n, bins)`, of the phases cosines and sines.
        """
        amplitudes, phases = window[..., : self.bins], window[..., self.bins :]
        parts = [part[..., : self.bins + self.above] for part in phases.chunk(2, dim=-1)]
        up = [F.pad(part[:, 1:, 1:], (0, 1 - self.above)) for part in parts]
        x, y = (part[:, 1:, : self.bins] for part in parts)
        before_x, before_y = (part[:, :-1, : self.bins] for part in parts)
        on = before_x * self.cosine - before_y * self.sine, before_x * self.sine + before_y * self.cosine
        made = [part for u, v in (up, on) for part in (x * u + y * v, x * v - y * u)]
        return torch.stack([(amplitudes[:, 1:].clamp_min(_FLOOR).log() + 5) / 3, *made], dim=1)
