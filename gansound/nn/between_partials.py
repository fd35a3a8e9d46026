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

from gansound.nn.residual import Parallel
from gansound.nn.streaming import Cursor, Pointwise

FRAMES = (1, 3, 3, 1)
"""Seen by each of the convolutions; all see three bins."""
RADIUS = 0.1
"""Of a turn; within it the amplitude falls with it, since an angle of nearly nothing would turn rounding into sound."""
_FLOOR = 1e-7  # of an amplitude


class BetweenPartials(Parallel):
    """The phases of the lowest bins, turned where partials meet. At first they aren't turned.

    Args:
        columns: amplitudes of each frame.
        bins: so many of the lowest have a phase.
        cycles: of bin 1, from one frame to the next.
        channels: width of the convolutions.
        causal: look at the past only; else two frames ahead.

    Shape: `(B, F, columns + 2 * bins)`, amplitudes, cosines and sines, as `SinglePassPhases` gives them → `(B, F, 2 *
    bins)`, the cosines and sines.
    """

    columns_dim = 1

    def __init__(self, columns: int, bins: int, cycles: float, channels: int, *, causal: bool) -> None:
        nn.Module.__init__(self)
        self.given = _Phases(columns)
        widths = [_Differences.CHANNELS, *[channels] * (len(FRAMES) - 1), 2]
        layers: list[nn.Module] = []
        for width, following, frames in zip(widths, widths[1:], FRAMES, strict=False):
            layers += [_Convolution(width, following, frames, causal=causal), nn.GELU()]
        last = layers[-2]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(_Differences(columns, bins, cycles), *layers[:-1], _Columns())

    def paths(self) -> list[nn.Module]:
        return [self.given, self.layers]

    def combine(self, *outputs: Tensor) -> Tensor:
        phases, turns = outputs
        turns = turns.to(phases.dtype)
        cosine, sine = phases.chunk(2, dim=-1)
        x, y = turns.chunk(2, dim=-1)
        x = x + 1
        scale = (x.square() + y.square() + RADIUS**2).rsqrt() * math.sqrt(1 + RADIUS**2)
        x, y = x * scale, y * scale
        return torch.cat([cosine * x - sine * y, sine * x + cosine * y], dim=-1)


class _Phases(Pointwise):
    """What stands behind the amplitudes."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, given: Tensor) -> Tensor:
        return given[..., self.columns :]


class _Differences(nn.Module):
    """Loudness, and cosines and sines of how phases differ from bin to bin, and from what a tone's would have moved on.

    Shape: `(B, F, columns + 2 * bins)` → `(B, 5, F, bins)`.
    """

    CHANNELS = 5
    cosine: Tensor
    sine: Tensor

    def __init__(self, columns: int, bins: int, cycles: float) -> None:
        super().__init__()
        self.columns, self.bins = columns, bins
        angle = 2 * math.pi * cycles * torch.arange(bins, dtype=torch.float64)
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        self.register_buffer("sine", angle.sin().float(), persistent=False)

    def forward(self, given: Tensor) -> Tensor:
        return self._seen(F.pad(given, (0, 0, 1, 0)))

    def stream(self, given: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, columns + 2 * bins)` → `(B, 5, n, bins)`."""
        window = cursor.window(given, 1, dim=1)
        cursor.late(0, 1)
        return self._seen(window)

    def _seen(self, window: Tensor) -> Tensor:
        loudness = (window[:, 1:, : self.bins].clamp_min(_FLOOR).log() + 5) / 3
        cosine, sine = window[..., self.columns :].chunk(2, dim=-1)
        x, y = cosine[:, 1:], sine[:, 1:]
        up = [F.pad(part[..., 1:], (0, 1)) for part in (x, y)]
        before = cosine[:, :-1], sine[:, :-1]
        on = before[0] * self.cosine - before[1] * self.sine, before[0] * self.sine + before[1] * self.cosine
        differences = [part for there in (up, on) for part in (x * there[0] + y * there[1], x * there[1] - y * there[0])]
        return torch.stack([loudness, *differences], dim=1)


class _Convolution(nn.Module):
    """Three bins and so many frames, outside of which all is zero. Shape: `(B, in, F, bins)` → `(B, out, F, bins)`."""

    def __init__(self, in_channels: int, out_channels: int, frames: int, *, causal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (frames, 3), padding=(0, 1))
        self.ahead = 0 if causal else frames // 2
        self.before = frames - 1 - self.ahead

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(F.pad(image, (0, 0, self.before, self.ahead)))

    def stream(self, image: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, in, n, bins)` → `(B, out, n, bins)`."""
        window = cursor.window(image, self.before + self.ahead, dim=2)
        cursor.late(self.ahead, self.before)
        return self.conv(window)


class _Columns(Pointwise):
    """Shape: `(B, 2, F, bins)` → `(B, F, 2 * bins)`."""

    def forward(self, image: Tensor) -> Tensor:
        return image.transpose(1, 2).flatten(2)
