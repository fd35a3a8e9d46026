"""PhaseAug: phases turned before the discriminators see them, for a mel doesn't say where in a period it starts.

Lee et al., "PhaseAug: A Differentiable Augmentation for Speech Synthesis to Simulate One-to-Many Mapping", ICASSP 2023,
arXiv 2211.04610; numbers as published in maum-ai/phaseaug. Every bin of the short-time spectrum is turned by an angle
of its own, the same in all frames and, of a real sound and of the one made for it, the same in both. One departure: the
published code draws new angles for the generator's phase; here it keeps those of the discriminators', whose features of
the real sounds it may use again.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.draw import Draws
from gansound.nn.anti_aliased import kaiser_sinc
from gansound.precision import no_autocast


class PhaseAugmentation(nn.Module):
    """Bin k is turned by `2 pi k / n_fft` times a shift in samples, which wanders from bin to bin.

    The shift is a number for all bins, uniform in ±`most_shift`, plus white noise, both low-passed along the bins.

    Args:
        n_fft, hop_length: of the spectrum, in samples; Hann window.
        variance: of the noise, in samples squared.
        most_shift: of the number for all bins, in samples.
        cutoff: of the low-pass filter, in cycles a bin.
        half_width: of its transition band.
        taps: of it, even.

    Shape:
        sounds `(B, T)`, T >= `shortest_samples` → the same.

    Raises:
        ValueError: numbers that make no spectrum or no filter.
    """

    window: Tensor
    turn: Tensor
    filter: Tensor

    def __init__(
        self,
        n_fft: int = 1024,
        hop_length: int = 256,
        variance: float = 6.0,
        most_shift: float = 2.0,
        cutoff: float = 0.05,
        half_width: float = 0.012,
        taps: int = 128,
    ) -> None:
        super().__init__()
        if n_fft < 4 or n_fft % 2 or not 0 < hop_length <= n_fft // 2:
            raise ValueError(
                f"expected an even n_fft and a hop of at most half of it, got n_fft={n_fft}, hop_length={hop_length}"
            )
        if min(variance, most_shift) < 0 or not (0 < cutoff < 0.5 and half_width > 0) or taps < 2 or taps % 2:
            raise ValueError(
                "expected variance and most_shift of 0 or more, a cutoff between 0 and 0.5, a positive half_width and "
                f"an even number of taps, got {variance}, {most_shift}, {cutoff}, {half_width}, {taps}"
            )
        self.n_fft, self.hop_length = n_fft, hop_length
        self.variance, self.most_shift = variance, most_shift
        self.shortest_samples = n_fft // 2 + 1
        bins = torch.arange(n_fft // 2 + 1)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("turn", 2 * math.pi / n_fft * bins, persistent=False)
        self.register_buffer("filter", kaiser_sinc(taps, cutoff, half_width).view(1, 1, -1), persistent=False)

    def angles(self, draws: Draws) -> Tensor:
        """By how much each bin of each item is turned, in radians: `(B, n_fft / 2 + 1)`."""
        noise = math.sqrt(self.variance) * draws.normal("phase augmentation noise", len(self.turn))
        shift = self.most_shift * (2 * draws.uniform("phase augmentation shift", 1) - 1)
        taps = self.filter.shape[2]
        padded = F.pad((noise + shift).unsqueeze(1), (taps // 2 - 1, taps // 2))
        return F.conv1d(padded, self.filter.to(padded)).squeeze(1) * self.turn

    def forward(self, sounds: Sequence[Tensor], draws: Draws) -> list[Tensor]:
        """Sounds `(B, T)` of the same items, each turned alike."""
        angles = self.angles(draws).unsqueeze(2)
        turned = []
        with no_autocast(sounds[0]):
            for sound in sounds:
                window = self.window.to(sound.dtype)
                form = (self.n_fft, self.hop_length, self.n_fft, window)
                spectrum = torch.stft(sound, *form, return_complex=True)
                phasor = torch.polar(torch.ones_like(angles), angles).to(spectrum.dtype)
                turned.append(torch.istft(spectrum * phasor, *form, length=sound.shape[1]))
        return turned
