"""Between what the values of a mel lie: silence and full scale."""

import torch
from torch import Tensor, nn

from gansound.mel import filters
from gansound.mel.spec import MelSpec
from gansound.precision import full_precision

_LEAST_WIDTH = 1e-3  # of a band without a filter, where silence and full scale read the same


def silence_and_full_scale(spec: MelSpec) -> tuple[Tensor, Tensor]:
    """What each band reads of digital silence, and a bound on what it reads of any sound within ±1.

    With the window w, N = n_fft and a band's filter f, the band's magnitude is Σₖ fₖ |Xₖ|, and it is at most the
    lesser of

        Σ f · Σ w                                   since |Xₖ| ≤ Σ w,
        sqrt(Σₖ fₖ² / cₖ) · sqrt(N Σ w²)            by Cauchy and Schwarz with Parseval, Σₖ cₖ |Xₖ|² ≤ N Σ w²,

    where cₖ counts bin k's place in the whole spectrum: 1 at 0 and N / 2, else 2.

    Shape: two of `(n_mels, 1)` float32, in the mel's own units.
    """
    bank = spec.filter_bank().double()
    window = filters.hann(spec.win_length, spec.window).double()
    counts = torch.full((spec.n_fft // 2 + 1,), 2.0, dtype=torch.float64)
    counts[0] = counts[-1] = 1.0
    peak = bank.sum(1) * window.sum()
    energy = (bank.square() / counts).sum(1).sqrt() * (spec.n_fft * window.square().sum()).sqrt()
    # sqrt(|X|² + eps) lies between the greater of |X| and sqrt(eps), and their sum.
    softening = bank.sum(1, keepdim=True) * spec.magnitude_eps**0.5
    loudest = torch.minimum(peak, energy).unsqueeze(1) + softening
    return spec.from_magnitude(softening).float(), spec.from_magnitude(loudest).float()


class Levels(nn.Module):
    """A mel's values as numbers in ±1: −1 is silence, 1 is above any sound within ±1. Band by band.

    What a net makes or judges has then one scale whatever the convention, and no statistics of a corpus: a net can't
    be given a mel that its data hadn't, and silence, of which one-shots have more than of anything else, is exactly
    the end of the scale.

    Args:
        spec: the convention.
    """

    low: Tensor
    width: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        low, high = silence_and_full_scale(spec)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("width", (high - low).clamp(min=_LEAST_WIDTH), persistent=False)

    def unit(self, mel: Tensor) -> Tensor:
        """Shape: mel `(B, n_mels, F)` → the same in ±1, float32 or better."""
        return (full_precision(mel) - self.low) * (2 / self.width) - 1

    def value(self, unit: Tensor) -> Tensor:
        """The inverse of `unit`."""
        return self.low + (full_precision(unit) + 1) * (self.width / 2)
