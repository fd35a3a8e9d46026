"""A loss that hears the grain of a voice: how fast and how deep the envelopes of its bands beat, wherever they do.

The glottis opens 80 to 400 times a second, and what a voice holds above some kHz comes in bursts at that rate. A mel
doesn't tell where in a frame a burst falls, so that a loss that compares two waveforms instant by instant punishes a
burst at another place as it does none at all, and a net does best by it with a steady hiss. Here the envelopes are
compared by the magnitudes of their own short-time spectra, which don't change when the bursts move. The modulation
spectrum as a description of what is heard: Dau, Kollmeier and Kohlrausch, J. Acoust. Soc. Am. 102(5), 1997.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gansound.mel import MelSpec
from gansound.precision import full_precision, no_autocast

ENVELOPE_SECONDS = 0.0058
MODULATION_SECONDS = 0.093
SLOWEST_HZ = 60.0
_FLOOR = 1e-5


class EnvelopeModulation(nn.Module):
    """Mean absolute difference of the modulation spectra of two waveforms' bands.

    The envelope of a band is the root of its power in Hann windows of about 5.8 ms, four of them a window's length;
    its modulation is the magnitude of the envelope's spectrum in Hann windows of about 93 ms, at rates from 60 Hz on,
    relative to the envelope's mean there: nearly 1/2 for a beat of full depth, whatever its phase and the band's level.
    Each window counts by the root of the real envelope.

    Args:
        bands_hz: edges of the bands; what lies above half the sample rate is left out.
        mel: whose sample rate it takes; in a recipe the task's. 22,050 Hz without one.

    Shape: fake, real `(B, T)`, T >= `shortest_samples` -> scalar.

    Raises:
        ValueError: fewer than two edges below half the sample rate, or edges that don't rise.
    """

    envelope_window: Tensor
    modulation_window: Tensor
    gather: Tensor

    def __init__(
        self,
        bands_hz: Sequence[float] = (1000.0, 2000.0, 4000.0, 6000.0, 8000.0, 11025.0),
        mel: MelSpec | None = None,
    ) -> None:
        super().__init__()
        rate = mel.sample_rate if mel is not None else 22050
        edges = [hz for hz in bands_hz if hz <= rate / 2]
        if len(edges) < 2 or any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValueError(
                f"bands_hz: got {list(bands_hz)}, expected two or more rising edges up to {rate / 2:g} Hz"
            )
        self.sample_rate = rate
        self.n_fft = _power_of_two(ENVELOPE_SECONDS * rate)
        self.hop_length = self.n_fft // 4
        self.frames = _power_of_two(MODULATION_SECONDS * rate / self.hop_length)
        self.slowest = round(SLOWEST_HZ * self.frames * self.hop_length / rate)
        self.shortest_samples = self.n_fft + (self.frames - 1) * self.hop_length
        hz = torch.arange(self.n_fft // 2 + 1) * (rate / self.n_fft)
        inside = [(hz >= low) & (hz < high) for low, high in itertools.pairwise(edges)]
        self.register_buffer("gather", torch.stack(inside).float(), persistent=False)
        self.register_buffer("envelope_window", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("modulation_window", torch.hann_window(self.frames), persistent=False)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Gradient flows into `fake`.

        Raises:
            ValueError: shapes that differ, or too short for a window.
        """
        if fake.shape != real.shape or fake.dim() != 2 or fake.shape[1] < self.shortest_samples:
            raise ValueError(
                f"expected two waveforms of one shape (B, T >= {self.shortest_samples}), got {tuple(fake.shape)} and "
                f"{tuple(real.shape)}"
            )
        with no_autocast(fake):
            made, _ = self._modulation(full_precision(fake))
            with torch.no_grad():
                true, level = self._modulation(full_precision(real))
                weight = level.sqrt()
                weight = weight / weight.mean(dim=(1, 2), keepdim=True)
            return (weight.unsqueeze(-1) * (made - true).abs()).mean()

    def _modulation(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: `(B, T)` -> modulation `(B, bands, windows, rates)` and the envelope's mean `(B, bands, windows)`."""
        spectrum = torch.view_as_real(
            torch.stft(
                audio,
                self.n_fft,
                self.hop_length,
                window=self.envelope_window.to(audio.dtype),
                center=False,
                return_complex=True,
            )
        )
        power = self.gather.to(audio.dtype) @ spectrum.square().sum(-1)
        windows = (power + _FLOOR**2).sqrt().unfold(-1, self.frames, self.frames // 4)
        window = self.modulation_window.to(audio.dtype) / self.modulation_window.sum()
        level = (windows * window).sum(-1)
        beats = torch.fft.rfft((windows / level.unsqueeze(-1) - 1) * window)[..., self.slowest :]
        magnitude = (beats.real.square() + beats.imag.square() + 1e-8).sqrt()
        return magnitude, level


def _power_of_two(x: float) -> int:
    return 1 << max(1, round(math.log2(x)))
