"""Phases that go on from frame to frame, at the frequencies of the partials that the amplitudes show.

A net that sees the same frame again and again guesses the same phase again and again, but the phase of a tone must move
on by what lies between two frames. Where frames show single partials, below a kilohertz, that is most of what is wrong
with a vocoder that works at frame rate, and no amount of training mends it: such a phase has a memory.

Beauregard, Harish and Wyse, "Single Pass Spectrogram Inversion" (DSP 2015): each peak of a frame's amplitudes is a
partial, its frequency read between the bins from a parabola through the peak's logarithm; its phase is that of the
same bin a frame before, moved on by so many cycles; the bins around it down to the valleys have the phase of their
peak. Here the frequency is the mean of both frames'; and a peak that has just begun, or is too flat to be a partial's,
has phase 0: what a click or a hiss has is left to the net.

The phases around a peak are its own only while nothing changes. What grows lies late in its window, and phases of what
is late fall along the bins: how fast amplitudes grow along time tells how phases go along frequency (Portnoff,
"Magnitude-phase relationships for short-time Fourier transforms based on Gaussian analysis windows", ICASSP 1979;
Průša, Balazs and Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude", TASLP 2017). The
partials of a voice grow and die away all the time, and where one glides its upper bins grow while its lower ones fall.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor

ONSET = 3.0
"""Growth of a peak's natural log-amplitude within a frame from which on it is another sound than before."""
FLAT = 0.1
"""Second difference of natural log-amplitudes, of a Hann window's tone 1.4, below which a peak is no partial's."""
LATE = 1 / 12 - 1 / (2 * math.pi**2)
"""By how much of a frame a sound is late that grows by a neper within a frame's length: a Hann window's variance."""
_GROWTH = 3.0  # nepers from frame to frame; an onset's delay is half a frame at most
_CHANGE = 1.0  # of growth, from one frame to the next
GRID = 2.0**22
"""Parts of a cycle: phases go on by whole ones, so that they add up to the same in any order."""
_FLOOR = 1e-7  # of an amplitude
_GLIDE = 1.5  # bins in a frame; what moves further is another partial
_UPHILL = 4  # doublings: a bin's peak is at most 2^4 bins away


class SinglePassPhases(nn.Module):
    """Amplitudes, and beside them the phases of the lowest bins, at the middle of each frame.

    Nothing is learnt, and no gradient flows into the phases. What the first frame has is phase 0.

    Args:
        n_fft: samples of a frame.
        hop_length: samples from one frame to the next.
        bins: so many of the lowest get a phase; 2 or more.
        lobes: around a peak, phases go as amplitudes grow there; otherwise all are the peak's.

    Attributes:
        most_frames: of a call of an exported graph, where their number isn't known: so many are followed back.

    Shape: `(B, F, columns)`, of which the first are amplitudes of bins 0 to `bins` or more → `(B, F, columns + 2 *
    bins)`, those, then cosines, then sines.
    """

    def __init__(self, n_fft: int, hop_length: int, bins: int, *, lobes: bool = False) -> None:
        super().__init__()
        self.bins = bins
        self.lobes = lobes
        self.before = 2 if lobes else 1  # frames
        self.most_frames = 2**14
        self.cycles = hop_length / n_fft  # of bin 1, from one frame to the next

    def forward(self, amplitudes: Tensor) -> Tensor:
        window = F.pad(amplitudes[:, :, : self.bins + 1], (0, 0, self.before, 0))
        begins = torch.arange(amplitudes.shape[1], device=amplitudes.device)[None, :, None] == 0
        before = torch.zeros_like(amplitudes[:, :1, : self.bins])
        cycles, lobes = self._cycles(window, begins, before)
        return self._beside(amplitudes, cycles + lobes)

    def stream(self, amplitudes: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, columns)` → `(B, n, columns + 2 * bins)`."""
        window = cursor.window(amplitudes[:, :, : self.bins + 1], self.before, dim=1)
        count = amplitudes.shape[1]
        if cursor.position is None:
            begins = torch.zeros(1, 1, 1, dtype=torch.bool, device=amplitudes.device)
        else:
            begins = cursor.indices(count, 0)[:, :, None] <= 0
        before = cursor.recalled(amplitudes[:, :1, : self.bins])
        cycles, lobes = self._cycles(window, begins, before)
        cursor.remember(cycles[:, -1:])
        return self._beside(amplitudes, cycles + lobes)

    def _beside(self, amplitudes: Tensor, cycles: Tensor) -> Tensor:
        angle = 2 * math.pi * cycles
        return torch.cat([amplitudes, angle.cos(), angle.sin()], dim=2)

    @torch.no_grad()
    def _cycles(self, window: Tensor, begins: Tensor, before: Tensor) -> tuple[Tensor, Tensor | float]:
        """The phase of each bin's partial, in cycles, and what the bin's own is beyond it.

        Each follows its peak into the frame before, and there the peak of that bin, until a beginning. All chains are
        followed at once, by twice as many frames in each round.

        Shape: `(B, before + n, bins + 1)`, `(B, n, 1)`, `(B, 1, bins)` → two of `(B, n, bins)`.
        """
        levels = window.clamp_min(_FLOOR).log()
        level = levels[:, self.before - 1 :]
        frames = level.shape[1] - 1
        # Each bin of each frame has a place, one after the other.
        row = self.bins * torch.arange(frames + 1, device=level.device)[:, None]
        peak, off, flat = self._peaks(level, row)
        bin_of = (peak.unflatten(1, (-1, self.bins)) - row).flatten(1)
        then = peak[:, self.bins :] - self.bins  # a bin's peak, a frame before
        now, part = bin_of[:, self.bins :], off[:, self.bins :]
        lobes = self._lobes(levels, then, part) if self.lobes else 0.0
        loud = level[:, :, : self.bins].flatten(1)
        grown = loud.gather(1, then + self.bins) - loud.gather(1, then) > ONSET
        # From now to the frame before, in bins; large numbers apart from small ones, so that little is rounded away.
        glide = (bin_of.gather(1, then) - now) + (off.gather(1, then) - part)
        part = part + torch.where(glide.abs() < _GLIDE, glide / 2, 0.0)
        moved = _wrapped(self.cycles * now.to(part.dtype)) + self.cycles * part
        moved = (moved * GRID).round() / GRID
        begins = (begins | (flat[:, self.bins :] | grown).unflatten(1, (-1, self.bins))).flatten(1)
        # Each points to where it comes from; what begins, to itself.
        place = torch.arange((frames + 1) * self.bins, device=level.device)
        source = torch.where(F.pad(begins, (self.bins, 0), value=True), place, F.pad(then, (self.bins, 0)))
        total = F.pad(torch.where(begins, 0.0, moved), (self.bins, 0))
        start = F.pad(before.flatten(1), (0, frames * self.bins))
        count = frames if isinstance(frames, int) else self.most_frames
        for _ in range((count - 1).bit_length()):
            total = _wrapped(total + total.gather(1, source))
            source = source.gather(1, source)
        cycles = _wrapped(total + start.gather(1, source))
        return cycles.unflatten(1, (-1, self.bins))[:, 1:], lobes

    def _lobes(self, level: Tensor, place: Tensor, off: Tensor) -> Tensor:
        """What the phases around a partial are beyond its own, in cycles: the sum, from it to each bin, of delays.

        How fast an amplitude grows now, from how much it has since the frame before, and how much until then.

        Shape: `(B, 2 + n, bins + 1)`, the places of peaks among n frames and how far above those the partials are, two
        of `(B, n * bins)` → `(B, n, bins)`.
        """
        grown = level[:, 1:, :-1] - level[:, :-1, :-1]
        until, since = grown[:, :-1], grown[:, 1:]
        growth = (since + (since - until).clamp(-_CHANGE, _CHANGE) / 2).clamp(-_GROWTH, _GROWTH)
        risen = F.pad((growth[..., 1:] + growth[..., :-1]) / 2, (1, 0)).cumsum(-1)
        at_partial = risen.flatten(1).gather(1, place) + growth.flatten(1).gather(1, place) * off
        return LATE / self.cycles * (at_partial.unflatten(1, (-1, self.bins)) - risen)

    def _peaks(self, level: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The place at the top of the slope that each is on, how far above it the partial is, and whether it is none.

        Shape: `(B, n, bins + 1)`, the first place of each frame `(n, 1)` → three of `(B, n * bins)`.
        """
        here, right = level[:, :, :-1], level[:, :, 1:]
        left = torch.cat([level[:, :, 1:2], level[:, :, :-2]], dim=2)  # bin -1 is the mirror image of bin 1
        bin_of = torch.arange(self.bins, device=level.device)
        uphill = torch.where(left > torch.maximum(here, right), bin_of - 1, bin_of + (right > here).long())
        peak = (row + uphill.clamp(0, self.bins - 1)).flatten(1)
        for _ in range(_UPHILL):
            peak = peak.gather(1, peak)
        curve = (2 * here - left - right).flatten(1).gather(1, peak)
        off = (right - left).flatten(1).gather(1, peak) / 2 / curve.clamp_min(FLAT)
        return peak, off.clamp(-0.5, 0.5), curve < FLAT


def _wrapped(cycles: Tensor) -> Tensor:
    return cycles - cycles.round()
