"""A pseudo quadrature mirror filter bank: a signal as equal bands at a fraction of its rate, and back.

Nguyen, "Near-perfect-reconstruction pseudo-QMF banks", IEEE Trans. Signal Processing 42(1), 1994: every band's filter
is one low-pass filter moved by a cosine, with phases that cancel the aliases of neighbouring bands. The low-pass
filter is a windowed sinc after Lin and Vaidyanathan, "A Kaiser window approach for the design of prototype filters of
cosine modulated filterbanks", IEEE Signal Processing Letters 5(6), 1998. As a layer of a generator: Yang et al.,
"Multi-band MelGAN", arXiv 2005.05106.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.conv import overlap_add, polyphase
from gansound.nn.streaming import Cursor
from gansound.precision import no_autocast


class PQMF(nn.Module):
    """Bands to the signal (`forward`), and a signal to its bands (`analyze`).

    Both filter without delay: what lies beyond an end of the utterance is zero. The defaults are those of
    kan-bayashi/ParallelWaveGAN for four bands; noise comes back with an error 64 dB below it, but for `taps` samples
    at the ends. Another number of bands wants another cut-off, a little above `1 / (2 * bands)`, and more taps.

    Streaming, a sample waits for `taps / 2` samples.

    Coqui's multi-band MelGAN was trained with another bank, as ParallelWaveGAN had it up to 0.4.2: its cosines lie
    half a sample beside, and its low-pass filter is scaled so that a constant passes as it is.

    Args:
        bands: number of them; each has the signal's rate divided by it.
        taps: of each filter, less one; even.
        cutoff_ratio: of the low-pass filter, as a fraction of half the signal's rate.
        beta: of its Kaiser window; higher stops more and passes more of the neighbours.
        coqui: the bank of Coqui's multi-band MelGAN, for `forward` alone.

    Shape:
        `(B, bands, T)` → `(B, 1, T * bands)`.

    Raises:
        ValueError: a number that makes no filter bank.
    """

    filters: Tensor

    def __init__(
        self,
        bands: int = 4,
        taps: int = 62,
        cutoff_ratio: float = 0.142,
        beta: float = 9.0,
        coqui: bool = False,
    ) -> None:
        super().__init__()
        if bands < 2 or taps % 2 or taps < bands or not 0 < cutoff_ratio < 1 or beta < 0:
            raise ValueError(
                "a filter bank needs 2 or more bands, an even number of taps no smaller than that, a cut-off between "
                f"0 and 1 and beta >= 0, got bands={bands}, taps={taps}, cutoff_ratio={cutoff_ratio}, beta={beta}"
            )
        self.bands = bands
        self.half_samples = taps // 2
        # Constants of the design, not weights: derived again at construction, so they aren't stored.
        self.register_buffer("filters", _filters(bands, taps, cutoff_ratio, beta, coqui), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, bands, T)` → `(B, 1, T * bands)`. In full precision also under autocast."""
        with no_autocast(x):
            y = F.conv_transpose1d(x.to(self.filters.dtype), self.filters * self.bands, stride=self.bands)
        return y[..., self.half_samples : self.half_samples + x.shape[-1] * self.bands]

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, bands, n)` → `(B, 1, n * bands)`."""
        phases = polyphase(self.filters * self.bands, self.bands)
        return overlap_add(x, phases, None, self.bands, self.filters.shape[-1], self.half_samples, cursor)

    def analyze(self, signal: Tensor) -> Tensor:
        """The signal's bands; `forward` is its transpose, times the bands. In full precision also under autocast.

        Shape:
            `(B, 1, T)` → `(B, bands, ceil(T / bands))`.
        """
        with no_autocast(signal):
            signal = signal.to(torch.promote_types(signal.dtype, self.filters.dtype))
            return F.conv1d(
                signal, self.filters.to(signal.dtype), stride=self.bands, padding=self.half_samples
            )


def _filters(bands: int, taps: int, cutoff_ratio: float, beta: float, coqui: bool) -> Tensor:
    """`(bands, 1, taps + 1)`: filter k is the low-pass filter p times `2 cos((2k + 1) pi n / 2K + (-1)^k pi / 4)`.

    Coqui's has `n - 1 / 2` there, and p over its sum.
    """
    n = torch.arange(taps + 1, dtype=torch.float64) - taps // 2
    window = torch.kaiser_window(taps + 1, periodic=False, beta=beta, dtype=torch.float64)
    low_pass = cutoff_ratio * torch.sinc(cutoff_ratio * n) * window
    if coqui:
        low_pass, n = low_pass / low_pass.sum(), n - 0.5
    k = torch.arange(bands, dtype=torch.float64)[:, None]
    phase = math.pi / 4 * (1 - 2 * (k % 2))
    modulation = 2 * torch.cos((2 * k + 1) * math.pi / (2 * bands) * n + phase)
    return (low_pass * modulation)[:, None].to(torch.get_default_dtype())
