"""From a mel of any convention back to the amplitudes of one short-time spectrum, as far as the bands tell them.

The pseudo-inverse of the filter bank is FreeV's (Lv et al., arXiv 2406.08196). Here it leads from every convention to
the same bins, and says which of them the convention saw.

The pseudo-inverse takes each bin for a quantity of its own. They aren't: a window blurs its neighbours into each, and
between two bands the least amplitudes that fit have dents where no sound has any. The best linear guess that knows how
bins go together (kriging, or the conditional mean of a Gaussian process: Rasmussen and Williams, "Gaussian Processes
for Machine Learning", 2006, equation 2.23 for sums of the unknowns) needs no more than another matrix.
"""

import math

import torch
from torch import Tensor, nn

from gansound.mel import filters
from gansound.mel.spec import MelSpec

AMPLITUDE_FLOOR = 1e-5
"""Of a bin that was seen: less is silence. A bin that wasn't seen is 0."""

# Wide banks of many bands have rows that differ by little; what only their difference tells is rounding.
_RELATIVE_TOLERANCE = 1e-3


class MelInverse(nn.Module):
    """Amplitudes of the spectrum with a Hann window of `n_fft` samples whose mel this is.

    Log, affine and floor are undone, then the filter bank by its pseudo-inverse, in float32 under autocast too (float64
    stays). Where the convention's own window is of another length, bins between its bins are interpolated and all is
    scaled to the energy of a window of `n_fft`: right for noise, and for tones nearly so, since bands blur them more
    than windows do.

    Args:
        mel: the convention.
        n_fft: of the spectrum that is wanted.
        correlated: take bins to go together as those of white noise do in the convention's window, whose peaks then
            stand where a partial's would; otherwise the pseudo-inverse.

    Shape:
        `(B, n_mels, F)` → `(B, F, n_fft // 2 + 1)`, at least `AMPLITUDE_FLOOR` in the bins that the convention's bands
        cover, 0 in bins that it never saw.

    Raises:
        ValueError: the convention's window is less than half or more than twice as long as `n_fft`.
    """

    matrix: Tensor
    seen: Tensor

    def __init__(self, mel: MelSpec, n_fft: int, *, correlated: bool = False) -> None:
        super().__init__()
        if not mel.win_length <= 2 * n_fft <= 4 * mel.win_length:
            raise ValueError(
                f"mel win_length: got {mel.win_length} samples, expected {math.ceil(n_fft / 2)} to {2 * n_fft}: the "
                f"amplitudes of {n_fft} samples can't be told from windows so different"
            )
        self.mel = mel
        bank = mel.filter_bank().double()
        back = _guess(bank, mel) if correlated else torch.linalg.pinv(bank, rtol=_RELATIVE_TOLERANCE)
        seen = (bank.sum(0) > 0).double()
        if mel.n_fft != n_fft:
            between = _interpolation(mel.n_fft // 2 + 1, n_fft // 2 + 1)
            back, seen = between @ back, (between @ seen > 0.5).double()
        own_energy = filters.hann(mel.win_length, mel.window).double().square().sum()
        scale = (filters.hann(n_fft, "hann").double().square().sum() / own_energy).sqrt()
        # Constants of the convention, not weights: derived again at construction, so they aren't stored.
        self.register_buffer("matrix", (back * scale).float(), persistent=False)
        self.register_buffer("seen", seen.float(), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """The amplitudes of a mel in the convention."""
        mel = mel.to(torch.promote_types(mel.dtype, torch.float32))
        with torch.autocast(mel.device.type, enabled=False):  # its sums cancel
            linear = self.mel.to_magnitude(mel).transpose(1, 2) @ self.matrix.to(mel.dtype).T
        # The power that the convention added to each bin would be a hum in silence. In units of the floor's, since an
        # ONNX exporter takes the subtraction of 1e-9 for one of nothing, and leaves it out.
        added = self.mel.magnitude_eps / AMPLITUDE_FLOOR**2
        power = ((linear / AMPLITUDE_FLOOR).square() - added).clamp_min(1.0)
        return AMPLITUDE_FLOOR * power.sqrt() * self.seen.to(mel.dtype)


def _guess(bank: Tensor, mel: MelSpec) -> Tensor:
    """Of bins from bands, given how bins go together: `(bands, bins)` → `(bins, bands)`.

    Bands are scaled to be as large as each other, and to each is added a little of its own, as if it weren't quite
    certain, so that what tells little isn't trusted much.
    """
    window = filters.hann(mel.win_length, mel.window).double().square()
    from_middle = torch.arange(mel.win_length, dtype=torch.float64) - mel.win_length / 2
    bins = torch.arange(bank.shape[1], dtype=torch.float64)
    # Of two bins so many apart: the spectrum of the window's square.
    together = (2 * math.pi / mel.n_fft * torch.outer(bins, from_middle)).cos() @ window / window.sum()
    with_bins = together[(bins[:, None] - bins).abs().long()] @ bank.T
    size = (bank @ with_bins).diagonal().sqrt()
    size = torch.where(size > 0, size, 1.0)  # a band narrower than a bin has none
    among = bank @ with_bins / torch.outer(size, size) + _RELATIVE_TOLERANCE * torch.eye(len(bank))
    return torch.linalg.solve(among, with_bins.T / size[:, None]).T / size


def _interpolation(given: int, wanted: int) -> Tensor:
    """Linear, from values at `given` equally spaced places to `wanted` over the same range: `(wanted, given)`."""
    place = torch.linspace(0, given - 1, wanted, dtype=torch.float64)
    return (1 - (place[:, None] - torch.arange(given, dtype=torch.float64)).abs()).clamp_min(0)
