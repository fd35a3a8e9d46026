"""A constant-Q transform: a spectrum whose bins lie at equal musical intervals, with as many periods each.

Brown, "Calculation of a constant Q spectral transform", JASA 89(1), 1991; octave by octave after Schörkhuber and
Klapuri, "Constant-Q transform toolbox for music processing", SMC 2010: the kernels of the highest octave serve all,
each octave on the signal at half the rate of the one above.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.anti_aliased import kaiser_sinc
from gansound.precision import no_autocast

# Of the filter that halves a rate: it stops by 60 dB what would fold into the bins that are left.
HALVING_TAPS, HALVING_CUTOFF, HALVING_HALF_WIDTH = 64, 0.25, 0.03


class CQT(nn.Module):
    """Complex spectrum of bins `lowest_hz * 2**(k / bins_per_octave)`, centred on multiples of the hop.

    A kernel is a Hann window of Q periods, of mean 1, times a complex exponential: a sine of amplitude 1 at a bin's
    frequency has modulus 1/2 there. Beyond the ends is silence.

    Args:
        sample_rate: of the signal, in Hz.
        hop_length: in samples, a multiple of `2**(octaves - 1)`.
        octaves: how many, from the lowest on.
        bins_per_octave: of each.
        lowest_hz: frequency of the first bin.

    Attributes:
        frequencies_hz: of all bins, the lowest first.

    Shape:
        `(B, T)` → two real tensors as one, `(B, 2, 1 + T // hop_length, octaves * bins_per_octave)`.

    Raises:
        ValueError: a highest octave that isn't below half the rate, or a hop that can't be halved so often.
    """

    kernels: Tensor
    halving: Tensor

    def __init__(
        self,
        sample_rate: int,
        hop_length: int,
        octaves: int = 9,
        bins_per_octave: int = 24,
        lowest_hz: float = 32.703,
    ) -> None:
        super().__init__()
        if min(octaves, bins_per_octave) < 1 or not lowest_hz > 0:
            raise ValueError(
                "octaves, bins_per_octave and lowest_hz must be positive, got "
                f"{octaves}, {bins_per_octave}, {lowest_hz:g}"
            )
        highest_hz = lowest_hz * 2**octaves
        if highest_hz > sample_rate / 2:
            raise ValueError(
                f"the highest of {octaves} octaves from {lowest_hz:g} Hz ends at {highest_hz:.0f} Hz, above half the "
                f"rate of {sample_rate} Hz; take fewer octaves"
            )
        if hop_length < 1 or hop_length % 2 ** (octaves - 1):
            raise ValueError(
                f"hop_length must be a multiple of {2 ** (octaves - 1)}, to be halved for each of {octaves} octaves "
                f"but one, got {hop_length}"
            )
        self.hop_length, self.octaves, self.bins_per_octave = hop_length, octaves, bins_per_octave
        steps = torch.arange(octaves * bins_per_octave, dtype=torch.float64) / bins_per_octave
        self.frequencies_hz = (lowest_hz * 2**steps).tolist()
        periods = 1 / (2 ** (1 / bins_per_octave) - 1)
        kernels = _kernels([f / sample_rate for f in self.frequencies_hz[-bins_per_octave:]], periods)
        self.register_buffer("kernels", kernels, persistent=False)
        halving = kaiser_sinc(HALVING_TAPS + 1, HALVING_CUTOFF, HALVING_HALF_WIDTH)
        self.register_buffer("halving", halving.float().view(1, 1, -1), persistent=False)

    def at_twice_the_rate(self, signal: Tensor) -> Tensor:
        """Of a signal at half this transform's rate: `(B, T)` → `(B, 2, 1 + 2 * T // hop_length, all bins)`."""
        with no_autocast(signal):
            halving = 2 * self.halving.to(signal.dtype)
            side = HALVING_TAPS // 2
            doubled = F.conv_transpose1d(
                signal.unsqueeze(1), halving, stride=2, padding=side, output_padding=1
            )
            return self(doubled.squeeze(1))

    def forward(self, signal: Tensor) -> Tensor:
        """Shape: `(B, T)` → `(B, 2, 1 + T // hop_length, octaves * bins_per_octave)`."""
        frames = 1 + signal.shape[1] // self.hop_length
        x, kernels = signal.unsqueeze(1), self.kernels.to(signal.dtype)
        side, hop = kernels.shape[2] // 2, self.hop_length
        found = []
        for octave in range(self.octaves):
            if octave:
                x = F.conv1d(x, self.halving.to(x.dtype), stride=2, padding=HALVING_TAPS // 2)
                hop //= 2
            # The last frame may be centred on the end of the signal, or on a sample that the halving left out.
            needed = (frames - 1) * hop + side + 1
            padded = F.pad(x, (side, max(0, needed - x.shape[2])))
            # As a matrix product: torch 2.13's strided convolution with such kernels writes beyond its memory when it
            # is differentiated on a CPU (one channel of 361 samples, 72 kernels of 297 taps, stride 2).
            windows = padded[:, 0].unfold(1, kernels.shape[2], hop)[:, :frames]
            found.append((windows @ kernels[:, 0].T).transpose(1, 2))
        spectrum = _joined(found[::-1])
        return spectrum.unflatten(1, (2, -1)).transpose(2, 3)


def _joined(octaves: list[Tensor]) -> Tensor:
    """Octaves `(B, 2 * bins, F)`, real parts first, as `(B, 2 * all bins, F)`, real parts first."""
    halves = [octave.unflatten(1, (2, -1)) for octave in octaves]
    return torch.cat(halves, 2).flatten(1, 2)


def _kernels(frequencies: list[float], periods: float) -> Tensor:
    """Real and imaginary kernels of frequencies in cycles a sample: `(2 * bins, 1, N)`, N odd, float32."""
    longest = math.ceil(periods / frequencies[0])
    side = longest // 2 + 1
    time = torch.arange(-side, side + 1, dtype=torch.float64)
    rows = []
    for frequency in frequencies:
        length = periods / frequency
        window = torch.where(time.abs() < length / 2, torch.cos(math.pi * time / length).square(), 0.0)
        rows.append(window / window.sum() * torch.exp(-2j * math.pi * frequency * time))
    kernels = torch.stack(rows)
    return torch.cat([kernels.real, kernels.imag]).unsqueeze(1).float()
