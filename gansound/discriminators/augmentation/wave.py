"""Changes of waveforms `(B, C, T)`; all channels of an item alike.

Shifts are copies item by item, and not a gather: a thirtieth of its time on a processor.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.discriminators.augmentation.pipeline import (
    Augmentation,
    beside,
    fraction_of,
    spread,
    steps_up_to,
    stretch,
)
from gansound.draw import placed
from gansound.precision import no_autocast


class Polarity(Augmentation):
    """Upside down, for one item in two: no ear hears it."""

    domain = "wave"

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return x * (1 - 2 * beside(chance.view(-1, 1, 1) < 0.5, x))


class Gain(Augmentation):
    """Louder or softer; a loud item may leave ±1.

    Args:
        decibels: the most, up or down.
    """

    domain = "wave"

    def __init__(self, decibels: float = 6.0) -> None:
        self.decibels = fraction_of("decibels", decibels, 60.0)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return x * beside(10 ** (spread(chance.view(-1, 1, 1), -self.decibels, self.decibels) / 20), x)


class TimeShift(Augmentation):
    """Earlier or later by whole samples; what comes in is zeros, or what went out at the other end.

    Args:
        fraction: of the clip, the most; an eighth, as ADA moves pictures.
        circular: take what went out.
    """

    domain = "wave"

    def __init__(self, fraction: float = 0.125, circular: bool = False) -> None:
        self.fraction = fraction_of("fraction", fraction)
        self.circular = circular

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        shifts = steps_up_to(chance[:, 0], int(self.fraction * x.shape[2])).flatten().tolist()
        if self.circular:
            return torch.stack([item.roll(shift, -1) for item, shift in zip(x.unbind(), shifts, strict=True)])
        return torch.stack(
            [F.pad(item, (shift, -shift)) for item, shift in zip(x.unbind(), shifts, strict=True)]
        )


class Speed(Augmentation):
    """Faster and higher, or slower and lower, from the clip's beginning; what a faster clip lacks at its end is zeros.

    Read between samples on a straight line: the highest octave loses some decibels.

    Args:
        semitones: the most, up or down.
    """

    domain = "wave"

    def __init__(self, semitones: float = 1.0) -> None:
        self.semitones = fraction_of("semitones", semitones, 12.0)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        samples = x.shape[2]
        factors = 2 ** (spread(chance.view(-1, 1, 1), -self.semitones, self.semitones) / 12)
        lengths = (samples * factors).round().long().clamp(min=1).flatten().tolist()
        return torch.stack(
            [
                F.pad(
                    F.interpolate(item.unsqueeze(0), length, mode="linear", align_corners=True)[0],
                    (0, samples - length),
                )
                for item, length in zip(x.unbind(), lengths, strict=True)
            ]
        )


class Equaliser(Augmentation):
    """A random gain for each octave below half the sample rate, of zero phase, with silence around the clip.

    The octaves are those of an undecimated wavelet transform, the "à trous" algorithm (Holschneider et al., 1989) with
    [1, 2, 1] / 4: c₀ = x, cₖ₊₁ = cₖ smoothed at a distance of 2ᵏ samples; band k is cₖ − cₖ₊₁ and the last what
    remains. At every frequency the bands' shares are 0 or more and sum to 1, so that no gain exceeds those drawn.

    Args:
        decibels: the most, up or down.
    """

    domain = "wave"
    numbers = 7

    def __init__(self, decibels: float = 6.0) -> None:
        self.decibels = fraction_of("decibels", decibels, 60.0)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        samples = x.shape[2]
        # The response reaches 1 + 2 + … + 2**(numbers - 2) samples to both sides, which the padding keeps apart.
        padded = samples + max(2 ** (self.numbers - 1), samples // 8)
        gains = 10 ** (spread(chance, -self.decibels, self.decibels) / 20)
        with no_autocast(x):
            response = placed((gains @ self._shares(padded).to(gains.dtype)).unsqueeze(1), x.device)
            shaped = torch.fft.irfft(torch.fft.rfft(x, n=padded) * response, n=padded)
        return shaped[..., :samples]

    def _shares(self, samples: int) -> Tensor:
        """Each band's share `(numbers, samples // 2 + 1)` at the frequencies of a transform of so many samples."""
        angle = torch.arange(samples // 2 + 1, dtype=torch.float64) * (torch.pi / samples)
        smooth = [torch.ones_like(angle)]
        for octave in range(self.numbers - 1):
            smooth.append(smooth[-1] * torch.cos(2**octave * angle).square())
        return torch.stack([above - below for above, below in pairwise(smooth)] + smooth[-1:]).float()


class CutOut(Augmentation):
    """A random stretch is silenced.

    Args:
        fraction: of the clip, the most.
    """

    domain = "wave"
    numbers = 2

    def __init__(self, fraction: float = 0.25) -> None:
        self.fraction = fraction_of("fraction", fraction)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return x * beside(~stretch(chance, self.fraction, x.shape[2]), x)
