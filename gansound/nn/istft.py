"""Inverse short-time Fourier transform as the last layer of a generator.

Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984): the least-squares inverse,
overlap-add of windowed frames divided by the overlapped squared window. F frames give exactly `F * hop_length`
samples in both framings of the field. In that of the GAN vocoders (HiFi-GAN's, Vocos' "same") frame f is centred on
sample `(f + 1/2) * hop_length`; in that of `torch.stft` ("center") on sample `f * hop_length`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from gansound.nn.conv import reflect_pad
from gansound.nn.streaming import Cursor, Pointwise
from gansound.precision import full_precision

LOUDEST_BIN = 1e2  # Vocos' limit of a magnitude: exp() of an untrained net may overflow
LEAST_POWER = 1 / 16
"""Of all windows over a sample, by which it is divided: of one that just two frames overlap it falls to nothing where a
centred utterance ends, and what is divided by it would be a bang. Three frames and more never leave less."""


class Polar(Pointwise):
    """Log-magnitudes and phases as the spectrum that `ISTFT` takes.

    A magnitude is limited to `LOUDEST_BIN`.

    Args:
        sine: a phase is so many radians times the sine of what it is given, as in iSTFTNet; that itself, where None.

    Shape:
        `(B, F, n_fft + 2)`, log-magnitudes before phases → the same, real parts before imaginary parts.
    """

    def __init__(self, *, sine: float | None = None) -> None:
        super().__init__()
        self.sine = sine

    def forward(self, x: Tensor) -> Tensor:
        x = full_precision(x)
        log_magnitude, phase = x.chunk(2, dim=-1)
        magnitude = log_magnitude.exp().clamp(max=LOUDEST_BIN)
        if self.sine is not None:
            phase = self.sine * phase.sin()
        return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=-1)


class ChannelsLast(Pointwise):
    """Columns as frames. Shape: `(B, C, F)` → `(B, F, C)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class MirroredLead(nn.Module):
    """The second column again in front of the first: frames of `torch.stft` are one more than hops.

    Shape: `(B, C, T)` → `(B, C, T + 1)`; a single column repeats.
    """

    def forward(self, x: Tensor) -> Tensor:
        return reflect_pad(x, 1, 0)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, C, n)` → `(B, C, n)`: late by a column, and the last comes after the end."""
        columns = x.shape[-1]
        window = cursor.window(x, 2, padding=None)
        cursor.late(1, 1)
        before = window[..., :columns]
        if cursor.position is None or cursor.length is None:
            return before
        mirrored = torch.where(cursor.length[:, None, None] > 1, window[..., 2:], window[..., 1:-1])
        first = cursor.indices(columns, 0)[:, None] == 0
        cursor.length = cursor.length + 1
        return torch.where(first, mirrored, before)


class ISTFT(nn.Module):
    """Spectrum to waveform.

    Streaming, a sample waits for the frames that overlap it: `(n_fft - hop_length) / 2` samples of look-ahead in
    framing "same", `n_fft / 2` in framing "center". Where the former is half a sample more than a whole number, frames
    stand as those of a mel do, whose padding is rounded down.

    Framing "center" begins where `torch.istft` does, in the middle of the first frame, and goes on a hop longer: to
    the end of the hop that the last frame's middle begins, so that the law of lengths is the same. That hop has the
    fewest frames to be made of; where it has one alone, which fades, it fades too (`LEAST_POWER`).

    Spectra are channels last, a frame's real parts before its imaginary parts: complex tensors are what exported
    graphs and integer runtimes don't know.

    Args:
        n_fft: samples of a frame and of its Hann window.
        hop_length: samples from one frame to the next.
        framing: where frames stand, see above.
        bins: of the spectrum, `n_fft // 2 + 1` where None. So many are those of a window of `2 * (bins - 1)` samples
            that lasts as long at another rate: what this rate can't hold of it is left out, above it there is nothing.
        skipped: samples left out at the start; the end comes so many later.
        closed: in framing "center", end where the last frame's middle stands, as `torch.istft`.

    Shape: `(B, F, 2 * bins)` -> `(B, F * hop_length)`, closed `(B, (F - 1) * hop_length)`.

    Raises:
        ValueError: another framing; or n_fft isn't a multiple of hop_length, or not at least twice it, or in framing
            "center" odd.
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        framing: Literal["same", "center"] = "same",
        bins: int | None = None,
        skipped: int = 0,
        closed: bool = False,
    ) -> None:
        super().__init__()
        if framing not in ("same", "center"):
            raise ValueError(f"framing is 'same' or 'center', got {framing!r}")
        uneven = framing == "center" and n_fft % 2
        if hop_length < 1 or n_fft % hop_length or n_fft // hop_length < 2 or uneven:
            raise ValueError(
                f"n_fft must be a multiple of hop_length, at least twice it{', and even' * (framing == 'center')}; "
                f"got n_fft {n_fft}, hop_length {hop_length}"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.bins = bins or n_fft // 2 + 1
        own = self.bins == n_fft // 2 + 1
        self.louder = (
            1.0 if own else n_fft / (2 * (self.bins - 1))
        )  # so much are the same sound's amplitudes here
        self.overlap_frames = n_fft // hop_length
        self.framing = framing
        self.skipped = skipped
        self.closed = closed
        middle = (n_fft - (hop_length if framing == "same" else 0)) // 2
        self.trim_samples = middle + skipped  # from the start
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        frames = self._frames(spectrum)
        envelope = self.window.square().expand(1, frames.shape[1], -1)
        return self._trimmed(frames) / self._trimmed(envelope).clamp_min(LEAST_POWER)

    def stream(self, spectrum: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, 2 * bins)` -> `(B, n * hop_length)`."""
        context = self.overlap_frames - 1
        frames = cursor.window(self._frames(spectrum), context, dim=1)
        inside = cursor.inside(frames.shape[1], context)
        if inside is None:
            inside = frames.new_ones(1, frames.shape[1], dtype=torch.bool)
        norm = self._overlap_add(torch.where(inside[:, :, None], self.window.square(), 0.0))
        cursor.upsample(self.hop_length)
        cursor.late(self.trim_samples, self.n_fft - 1 - self.trim_samples)
        if self.closed and cursor.length is not None:
            cursor.length = cursor.length - self.hop_length
        return self._overlap_add(frames) / norm.clamp_min(LEAST_POWER)

    def _frames(self, spectrum: Tensor) -> Tensor:
        """`(B, F, 2 * bins)` -> windowed frames `(B, F, n_fft)`."""
        real, imaginary = spectrum.chunk(2, dim=2)
        frames = torch.fft.irfft(torch.complex(real, imaginary), n=self.n_fft, dim=2)  # cuts and fills bins
        return frames * (self.window * self.louder)

    def _trimmed(self, frames: Tensor) -> Tensor:
        """`(B, F, n_fft)` -> `(B, F * hop_length)`, closed `(B, (F - 1) * hop_length)`."""
        end = self.overlap_frames - 1
        whole = self._overlap_add(nn.functional.pad(frames, (0, 0, end, end)))
        return whole[:, self.trim_samples :][:, : (frames.shape[1] - self.closed) * self.hop_length]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """The hops to which all overlapping frames are there: `(B, overlap - 1 + F, n_fft)` -> `(B, F * hop_length)`.

        The blocks of a hop are added, not scattered: `forward` and `stream` add the same numbers in the same order.
        """
        overlap = self.overlap_frames
        count = frames.shape[1] - overlap + 1
        blocks = frames.unflatten(2, (overlap, self.hop_length))
        total = blocks[:, overlap - 1 : overlap - 1 + count, 0]
        for i in range(1, overlap):
            total = total + blocks[:, overlap - 1 - i : overlap - 1 - i + count, i]
        return total.flatten(1)
