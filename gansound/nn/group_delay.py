"""When within its window a frame's sound comes, read from how loud the frames around it are.

A click is heard by every window that lies over it, by each as loud as the window is there, so that two frames side by
side tell where it was. Its phases fall along the frequencies by just that time, the group delay, by up to half a turn a
bin: more different phases than the few hundred channels of a net at frame rate have directions for. Told by the net
they are right to some hundred samples; told by the amplitudes they are exact.

That the slope of log-amplitudes along time is the slope of phases along frequency is the other half of the relation
that `gansound.nn.single_pass` follows along time: Portnoff, "Magnitude-phase relationships for short-time Fourier
transforms based on Gaussian analysis windows" (ICASSP 1979); Průša, Balazs and Søndergaard, "A noniterative method for
reconstruction of phase from STFT magnitude" (TASLP 2017). There a window is Gaussian; of a Hann window the relation
between two frames has a closed form too, and it holds up to the window's edges.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor
from gansound.precision import no_autocast

SUDDEN, LASTS = 1 / 15, 4 / 15
"""Of the way from a click to what lasts, in the product of the amplitudes on both sides of a frame over the square of
its own: up to the first a frame's sound has come at one moment, from the second on it has not."""
AGREED = 0.02
"""Of a window: up to that the frames on both sides of a click may disagree on its moment; at twice that it is none."""
_LOUD = 1e10  # for amplitudes, so that beside them 1e-7 is nothing
_SILENCE = 1e-7  # an ONNX exporter takes less than 1e-8 for nothing, and leaves it out


class GroupDelay(nn.Module):
    """Whether a frame's sound comes at one moment, and then its group delay; in equally wide bands.

    Of a click alone both are exact. What lasts, or dies away evenly, has no moment: its delay is 0, the middle of the
    frame, and between the two it fades. A band hears its neighbours too, and where a mel has seen nothing, the nearest
    that it has. From `noisy_bin` on, what lasts has its delay too, and moves as the amplitudes around it do: a net at
    frame rate gives noise phases that are much alike from frame to frame, which sounds as lines at multiples of the
    frame rate. Nothing is learnt.

    Args:
        n_fft: samples of a frame and of its Hann window.
        hop_length: samples from one frame to the next.
        bands: 2 or more.
        noisy_bin: None for none.
        alone: a moment is told only where all bands hear a click, and the frames on both sides the same.

    Shape: `(B, F, columns)`, amplitudes of `n_fft // 2 + 1` bins and what stands behind them → `(B, F, 2 * bands)`:
    delays from the middle of the frame on, as a part of `n_fft`, -1/2 to 1/2; then shares of what comes at that moment,
    0 to 1.
    """

    gathered: Tensor
    always: Tensor
    between: Tensor
    nearest: Tensor

    def __init__(
        self, n_fft: int, hop_length: int, bands: int, *, noisy_bin: int | None = None, alone: bool = False
    ) -> None:
        super().__init__()
        self.bins = n_fft // 2 + 1
        self.alone = alone
        self.shift = math.pi * hop_length / n_fft
        click = math.cos(self.shift) ** 4  # in the middle of a frame, elsewhere less
        self.sudden, self.lasts = (click + part * (1 - click) for part in (SUDDEN, LASTS))
        self.width = (self.bins - 1) / (bands - 1)  # bins from one band to the next
        self.together = max(1, int(self.width / 4))  # bins
        middles = torch.arange(0, self.bins, self.together) + (self.together - 1) / 2
        away = middles / self.width - torch.arange(bands)[:, None]
        self.register_buffer("gathered", 1 / (1 + away**4), persistent=False)
        noisy = torch.arange(bands) * self.width >= (self.bins if noisy_bin is None else noisy_bin)
        self.register_buffer("always", noisy.float(), persistent=False)
        place = torch.arange(self.bins, dtype=torch.float64) / self.width
        band = place.long().clamp(max=bands - 2)
        self.register_buffer("between", _between(place - band, band, self.width).float(), persistent=False)
        away = (place - torch.arange(bands)[:, None]).abs()
        self.register_buffer("nearest", (1 - away).clamp_min(0).float(), persistent=False)

    def forward(self, amplitudes: Tensor) -> Tensor:
        return self._moments(F.pad(self._loudness(amplitudes), (0, 0, 1, 1)))

    def stream(self, amplitudes: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, columns)` → `(B, n, 2 * bands)`."""
        window = cursor.window(self._loudness(amplitudes), 2, dim=1)
        cursor.late(1, 1)
        return self._moments(window)

    def phases(self, moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shares of bins, and cosines and sines by which they are turned; between two bands what lies between theirs.

        From bin to bin a phase falls by the delay there: along a band by its integral, a parabola.

        Shape: `(B, F, 2 * bands)` → three of `(B, F, bins)`.
        """
        delay, share = moments.chunk(2, dim=-1)
        low, high = delay[..., :-1], delay[..., 1:]
        whole = F.pad((self.width / 2 * (low + high))[..., :-1], (1, 0))  # of each band below
        begun = (whole - whole.round()).cumsum(-1)
        with no_autocast(moments):  # of angles of many turns
            angle = torch.cat([begun, low, high], dim=-1) @ self.between
            return share @ self.nearest, angle.cos(), angle.sin()

    def _loudness(self, amplitudes: Tensor) -> Tensor:
        """Roots of amplitudes, so that a loud bin doesn't speak for all: a click's follow a sine's half wave.

        Products one by one rather than of matrices: those are rounded otherwise for few frames than for many.
        """
        roots = (_LOUD * amplitudes[..., : self.bins]).sqrt()
        sums = F.pad(roots, (0, -self.bins % self.together)).unflatten(-1, (-1, self.together)).sum(-1)
        return (sums[..., None, :] * self.gathered).sum(-1)

    def _moments(self, loudness: Tensor) -> Tensor:
        first, second, third = (loudness[:, i : loudness.shape[1] - 2 + i] for i in range(3))
        lasting = (first * third / (second.square() + _SILENCE)).square()
        sudden = ((self.lasts - lasting) / (self.lasts - self.sudden)).clamp(0, 1)
        delays = self._since(first, second) - 0.5, 0.5 - self._since(third, second)
        if self.alone:
            edge = 0.5 - self.shift / math.pi  # what the frame beside doesn't hear may lie anywhere behind it
            apart = (delays[0].clamp(-edge, edge) - delays[1].clamp(-edge, edge)).abs()
            sudden = sudden * (2 - apart / AGREED).clamp(0, 1)
            sudden = sudden.amin(-1, keepdim=True).expand_as(sudden)
        weights = first.square(), third.square()
        delay = (weights[0] * delays[0] + weights[1] * delays[1]) / (weights[0] + weights[1] + _SILENCE)
        return torch.cat([torch.maximum(sudden, self.always) * delay, sudden], dim=-1)

    def _since(self, beside: Tensor, here: Tensor) -> Tensor:
        """The share of the window between its edge on the other side and a click that is so loud in both frames.

        sin(x) / sin(x + shift) = here / beside, as half the angle from the positive axis, which no edge makes 0 / 0.
        """
        across, along = here * math.sin(self.shift), beside - here * math.cos(self.shift)
        length = (across.square() + along.square()).sqrt()
        return 2 / math.pi * (across / (length + along + _SILENCE)).atan()


def _between(within: Tensor, band: Tensor, width: float) -> Tensor:
    """The angles of bins that stand within bands so far from their beginning, from what is begun and both ends' delays.

    Shape: `(bins,)`, part of a band and its index → `(3 * (bands - 1), bins)`.
    """
    rising = width * within.square() / 2
    parts = torch.stack([torch.ones_like(within), width * within - rising, rising])
    here = band == torch.arange(int(band.max()) + 1)[:, None]
    return (-2 * math.pi * parts[:, None] * here).flatten(0, 1)
