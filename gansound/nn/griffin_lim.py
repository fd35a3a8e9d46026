"""Steps of Griffin and Lim's algorithm as layers: phases that can be those of a sound.

A net that guesses the phases of each frame gives frames that contradict each other where they overlap: no waveform has
that spectrum, the inverse STFT takes the nearest, and what contradicted itself is gone from it. Griffin and Lim
("Signal estimation from modified short-time Fourier transform", 1984) go back to the spectrum from there, keep its
phases, and put the wanted amplitudes in again. Here that is a layer between a net and its inverse STFT, which learns
through it; unrolled so, with nets between, it is in Masuyama et al., "Deep Griffin-Lim Iteration" (arXiv 1903.03971).

There and back again is a sum over the bins around: a window's spectrum is narrow, and what is a few bins or frames away
leaks nothing to speak of into a bin (Le Roux et al., "Explicit consistency constraints for STFT spectrograms and their
application to phase reconstruction", SAPA 2008; "Fast signal reconstruction from magnitude STFT spectrogram based on
spectrogram consistency", DAFx 2010). So a step is a small convolution over frames and bins instead of two transforms of
a frame, and its taps can be learnt: they begin as the windows'.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.istft import ISTFT
from gansound.nn.streaming import Cursor
from gansound.precision import no_autocast

CONTRADICTION = 0.3
"""Share of a bin's amplitude below which what its neighbours leave of it has no phase to speak of."""
REACH_BINS = 2
"""Bins on either side that a step sees."""
_SILENCE = 1e-20  # of a power, so that its root has a finite slope
_LANES = 8  # bins side by side as channels, at least: 16 with their imaginary parts are a vector of AVX-512


class GriffinLim(nn.Module):
    """The amplitudes of a spectrum, with phases that its frames agree on a little more after each step.

    Where they cancel each other to less than `CONTRADICTION` of an amplitude, the amplitude falls with what is left: a
    phase of nearly nothing would turn rounding into sound. Outside of an utterance frames are zero.

    Args:
        n_fft: samples of a frame and of its Hann window.
        hop_length: samples from one frame to the next.
        steps: 1 or more. Each sees the frame before.
        look_ahead: how many of the steps, the last ones, see the frame after too. Those before agree with the frames
            until then alone, as in Beauregard et al., "An efficient algorithm for real-time spectrogram inversion"
            (2005); what looks ahead last is in Zhu et al., "Real-time signal estimation from modified short-time
            Fourier transform magnitude spectra" (2007).

    Shape: `(B, F, n_fft + 2)` → the same, real parts before imaginary parts.

    Raises:
        ValueError: as `ISTFT`.
    """

    beside: Tensor
    signs: Tensor
    pairs: Tensor

    def __init__(self, n_fft: int, hop_length: int, steps: int, look_ahead: int) -> None:
        super().__init__()
        overlap = ISTFT(n_fft, hop_length).overlap_frames
        self.lanes = overlap * -(
            -_LANES // overlap
        )  # what a bin gets from a frame beside repeats every `overlap` bins
        self.steps = nn.ModuleList(
            GriffinLimStep(n_fft, hop_length, self.lanes, ahead=step >= steps - look_ahead)
            for step in range(steps)
        )
        self.bins = n_fft // 2 + 1
        groups = -(-self.bins // self.lanes)
        # One group more on either side, of the spectrum's own mirror image.
        bin_of = torch.cat([torch.arange(-self.lanes, 0), torch.arange(self.bins, (groups + 1) * self.lanes)])
        bin_of = bin_of % n_fft
        mirrored = bin_of >= self.bins
        bin_of = torch.where(mirrored, n_fft - bin_of, bin_of)
        self.register_buffer("beside", torch.cat([bin_of, bin_of + self.bins]), persistent=False)
        signs = torch.cat([torch.ones(len(bin_of)), 1.0 - 2.0 * mirrored])
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("pairs", torch.eye(self.lanes).repeat(2, 2)[:, :, None, None], persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        with no_autocast(spectrum):
            image = self._image(spectrum)
            wanted = self._power(image) + _SILENCE
            step: Any  # its own, or that of the inference form
            for step in self.steps:
                near = step.near(image, outside=1)[:, :, : image.shape[2]]
                image = self._as_loud(near, wanted)
            return self._spectrum(image)

    def stream(self, spectrum: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, n_fft + 2)` → the same."""
        image = self._image(spectrum)
        wanted = self._power(image) + _SILENCE
        count = spectrum.shape[1]
        step: Any
        for step in self.steps:
            frames = cursor.window(image, 1 + step.ahead, dim=2)
            wanted = cursor.window(wanted, step.ahead, padding=None, dim=2).narrow(2, 0, count)
            cursor.late(step.ahead, 1)
            image = self._as_loud(step.near(frames), wanted)
        return self._spectrum(image)

    def _image(self, spectrum: Tensor) -> Tensor:
        """`(B, F, n_fft + 2)` → `(B, 2 * lanes, F, groups)`: so many bins side by side are the channels of a column."""
        beside = (spectrum.index_select(2, self.beside) * self.signs).chunk(2, 2)
        parts = []
        for inside, outside in zip(spectrum.chunk(2, 2), beside, strict=True):
            before, after = outside[..., : self.lanes], outside[..., self.lanes :]
            groups = torch.cat([before, inside, after], 2).unflatten(2, (-1, self.lanes))
            parts.append(groups.permute(0, 3, 1, 2))  # OpenVINO joins channels quickly, lanes slowly
        return torch.cat(parts, 1)

    def _spectrum(self, image: Tensor) -> Tensor:
        parts = [part.permute(0, 2, 3, 1).flatten(2) for part in image[..., 1:-1].chunk(2, 1)]
        return torch.cat([part[..., : self.bins] for part in parts], 2)

    def _power(self, image: Tensor) -> Tensor:
        """Squared amplitudes, for the real and for the imaginary part of each bin."""
        return F.conv2d(image * image, self.pairs)

    def _as_loud(self, near: Tensor, wanted: Tensor) -> Tensor:
        return near * (wanted / (self._power(near) + CONTRADICTION**2 * wanted)).sqrt()


class GriffinLimStep(nn.Module):
    """What the frames and bins around leave of each: its spectrum in the sound that is nearest to all of them.

    Args:
        n_fft: samples of a frame.
        hop_length: samples from one frame to the next.
        lanes: bins side by side as channels, a multiple of how many frames overlap.
        ahead: see the frame after, not only the one before.

    Attributes:
        taps: `(frames, 2 * REACH_BINS + 1)`, what is learnt.
    """

    basis: Tensor

    def __init__(self, n_fft: int, hop_length: int, lanes: int, *, ahead: bool) -> None:
        super().__init__()
        self.ahead = int(ahead)
        offsets = range(-1, self.ahead + 1)
        self.taps = nn.Parameter(torch.stack([_leakage(n_fft, hop_length, offset) for offset in offsets]))
        basis = [_turned(n_fft // hop_length, lanes, offset) for offset in offsets]
        self.register_buffer("basis", torch.stack(basis), persistent=False)

    def near(self, frames: Tensor, outside: int = 0) -> Tensor:
        """With so many frames of silence outside of those given.

        Shape: `(B, 2 * lanes, n, groups)` → `(B, 2 * lanes, n + 2 * outside - 1 - ahead, groups)`.
        """
        return F.conv2d(frames, self.weight(), padding=(outside, 1))

    def weight(self) -> Tensor:
        """Of the convolution: `(2 * lanes, 2 * lanes, frames, 3)`."""
        return torch.einsum("dm,dmoig->oidg", self.taps, self.basis)


def _leakage(n_fft: int, hop_length: int, offset: int) -> Tensor:
    """What bins `-REACH_BINS` to `REACH_BINS` away, of a frame so many frames away, leave in a bin.

    The spectrum of the product of both windows, over the power of all windows there, seen from its middle: real, and as
    much on either side. Shape: `(2 * REACH_BINS + 1,)`.
    """
    window = torch.hann_window(n_fft, dtype=torch.float64)
    power = window.square().unflatten(0, (-1, hop_length)).sum(0).repeat(n_fft // hop_length)
    shift = offset * hop_length
    other = torch.roll(window, shift)
    other[: max(shift, 0)] = 0
    other[n_fft + min(shift, 0) :] = 0
    from_middle = torch.arange(n_fft, dtype=torch.float64) - (n_fft + shift) / 2
    bins = torch.arange(-REACH_BINS, REACH_BINS + 1, dtype=torch.float64)
    waves = (2 * math.pi / n_fft * torch.outer(bins, from_middle)).cos()
    return (waves @ (window * other / power) / n_fft).to(torch.get_default_dtype())


def _turned(overlap: int, lanes: int, offset: int) -> Tensor:
    """How a tap turns the phase of the bin that it takes, as weights of the convolution.

    From bin k' of a frame `offset` frames away to bin k: by pi (k - k') to where the window's middle is in its frame,
    and by pi offset (k + k') / overlap for the time from there to the middle of both windows' product.

    Shape: `(2 * REACH_BINS + 1, 2 * lanes, 2 * lanes, 3)`: taps, bins given, bins taken, their groups.
    """
    made = torch.zeros(2 * REACH_BINS + 1, 2 * lanes, 2 * lanes, 3)
    for tap, away in enumerate(range(-REACH_BINS, REACH_BINS + 1)):
        for given in range(lanes):
            group, taken = divmod(given - away, lanes)
            angle = math.pi * (away - offset * (given + given - away) / overlap)
            real, imaginary = math.cos(angle), math.sin(angle)
            weight = made[tap, :, :, group + 1]
            weight[given, taken] = weight[lanes + given, lanes + taken] = real
            weight[lanes + given, taken], weight[given, lanes + taken] = imaginary, -imaginary
    return made
