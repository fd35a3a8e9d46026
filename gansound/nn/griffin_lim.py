"""One step of Griffin and Lim's algorithm as a layer: phases that can be those of a sound.

A net that guesses the phases of each frame gives frames that contradict each other where they overlap: no waveform has
that spectrum, the inverse STFT takes the nearest, and what contradicted itself is gone from it. Griffin and Lim
("Signal estimation from modified short-time Fourier transform", 1984) go back to the spectrum from there, keep its
phases, and put the wanted amplitudes in again. Here that is a layer without weights between a net and its inverse STFT,
which learns through it; unrolled so, and followed by nets, it is in Masuyama et al., "Deep Griffin-Lim Iteration"
(arXiv 1903.03971).
"""

import torch
from torch import Tensor, nn

from gansound.nn.istft import ISTFT
from gansound.nn.streaming import Cursor, Pointwise

CONTRADICTION = 0.1
"""Share of a bin's amplitude below which what its neighbours leave of it has no phase to speak of."""
_SILENCE = 1e-10


class Frames(Pointwise):
    """Frames to their spectra, through the window of an `ISTFT`. Shape: `(B, F, n_fft)` → `(B, F, n_fft + 2)`."""

    window: Tensor

    def __init__(self, window: Tensor) -> None:
        super().__init__()
        self.register_buffer("window", window, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Real parts before imaginary parts."""
        spectrum = torch.fft.rfft(frames * self.window)
        return torch.cat([spectrum.real, spectrum.imag], dim=-1)


class GriffinLimStep(nn.Module):
    """The amplitudes of a spectrum with the phases that it has once its frames agree with each other.

    Where they cancel each other to less than `CONTRADICTION` of an amplitude, the amplitude falls with what is left: a
    phase of nearly nothing would turn rounding into sound. Outside of an utterance frames are zero.

    Args:
        n_fft: samples of a frame and of its Hann window.
        hop_length: samples from one frame to the next; the look-ahead is the frames that overlap one, less itself.
        causal: agree with the frames before alone, without look-ahead, as in Beauregard et al., "An efficient algorithm
            for real-time spectrogram inversion" (2005).

    Shape: `(B, F, n_fft + 2)` → the same, real parts before imaginary parts.

    Raises:
        ValueError: as `ISTFT`.
    """

    def __init__(self, n_fft: int, hop_length: int, *, causal: bool = False) -> None:
        super().__init__()
        self.inverse = ISTFT(n_fft, hop_length)
        self.frames = Frames(self.inverse.window)
        self.before = n_fft // hop_length - 1
        self.after = 0 if causal else self.before

    def forward(self, spectrum: Tensor) -> Tensor:
        frames = self.inverse._frames(spectrum)
        return self._agreed(spectrum, nn.functional.pad(frames, (0, 0, self.before, self.after)))

    def stream(self, spectrum: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, n_fft + 2)` → the same."""
        frames = cursor.window(self.inverse._frames(spectrum), self.before + self.after, dim=1)
        held = cursor.window(spectrum, self.after, padding=None, dim=1)
        cursor.late(self.after, self.before)
        return self._agreed(held.narrow(1, 0, spectrum.shape[1]), frames)

    def _agreed(self, spectrum: Tensor, frames: Tensor) -> Tensor:
        """Of n frames, and the windowed frames of these, of `before` before and of `after` after them."""
        # Divided as inside an utterance: at its ends, where fewer frames overlap, the amplitudes are put right below.
        norm = self.inverse.window.square().unflatten(0, (-1, self.inverse.hop_length)).sum(0)
        overlapped = torch.cat([hop / norm for hop in self._hops(frames, spectrum.shape[1])], dim=2)
        real, imaginary = self.frames(overlapped).chunk(2, dim=2)
        wanted = spectrum.unflatten(2, (2, -1)).square().sum(2)
        left = real.square() + imaginary.square()
        silence = _SILENCE**2  # so that its slope is finite
        gain = ((wanted + silence) / (left + CONTRADICTION**2 * wanted + silence)).sqrt()
        return torch.cat([gain * real, gain * imaginary], dim=2)

    def _hops(self, frames: Tensor, count: int) -> list[Tensor]:
        """The hops of each frame, `(B, count, hop_length)` each, with all that overlaps it there."""
        overlap = self.before + 1
        if self.after:
            hops = self.inverse._overlap_add(frames).unflatten(1, (-1, self.inverse.hop_length))
            return [hops[:, k : k + count] for k in range(overlap)]
        blocks = frames.unflatten(2, (overlap, -1))
        made = []
        for hop in range(overlap):  # there are the blocks of this frame and of the `before - hop` last ones
            total = blocks[:, self.before :, hop]
            for k in range(hop + 1, overlap):
                total = total + blocks[:, self.before + hop - k :][:, :count, k]
            made.append(total)
        return made
