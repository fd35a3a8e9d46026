"""`ISTFT` for an exported graph: the transform as matrix products, since runtimes lack a fast FFT."""

import math

import torch
from torch import Tensor

from gansound.nn.istft import ISTFT

_QUARTERED = 256  # samples of a frame from which on fewer multiplications are worth the sums


def by_products(layer: ISTFT) -> ISTFT:
    """The same layer, its frames made by matrices."""
    return (_MatrixISTFT if layer.n_fft % 4 or layer.n_fft < _QUARTERED else _QuarteredISTFT)(layer)


class _MatrixISTFT(ISTFT):
    """An `ISTFT` whose transform and window are one product with a matrix."""

    matrix: Tensor

    def __init__(self, layer: ISTFT) -> None:
        super().__init__(
            layer.n_fft, layer.hop_length, layer.framing, layer.bins, layer.skipped, layer.closed
        )
        self.window = layer.window
        matrix = torch.cat(_inverse_dft(self, self.n_fft)).to(self.window) * self.window
        self.register_buffer("matrix", matrix, persistent=False)

    def _frames(self, spectrum: Tensor) -> Tensor:
        return _kept(self, spectrum) @ self.matrix


class _QuarteredISTFT(ISTFT):
    """An `ISTFT` whose transform is a product with a quarter of the matrix of the inverse DFT.

    Cosines are even about half a frame and sines odd; of even bins both are what they are there about its quarter too,
    and of odd bins the other. So four products up to the quarter give the rest, mirrored and with other signs.
    """

    even_cosines: Tensor
    odd_cosines: Tensor
    even_sines: Tensor
    odd_sines: Tensor

    def __init__(self, layer: ISTFT) -> None:
        super().__init__(
            layer.n_fft, layer.hop_length, layer.framing, layer.bins, layer.skipped, layer.closed
        )
        self.window = layer.window
        for name, matrix in zip(("cosines", "sines"), _inverse_dft(self, self.n_fft // 4 + 1), strict=True):
            for first, parity in enumerate(("even", "odd")):
                rows = matrix[first::2].to(self.window).contiguous()
                self.register_buffer(f"{parity}_{name}", rows, persistent=False)

    def _frames(self, spectrum: Tensor) -> Tensor:
        real, imaginary = _kept(self, spectrum).chunk(2, dim=2)
        even = real[..., ::2] @ self.even_cosines, imaginary[..., ::2] @ self.even_sines
        odd = real[..., 1::2] @ self.odd_cosines, imaginary[..., 1::2] @ self.odd_sines
        about = even[0] + odd[1], even[0] - odd[1]  # even about the quarter; before the half, and after it
        against = odd[0] + even[1], odd[0] - even[1]  # odd about it
        onward = torch.stack([about[0] + against[0], about[1] - against[1]], 2)[..., :-1]
        mirrored = torch.stack([about[0] - against[0], about[1] + against[1]], 2)[..., 1:].flip(-1)
        return torch.stack([onward, mirrored], 3).flatten(2) * self.window


def _kept(layer: ISTFT, spectrum: Tensor) -> Tensor:
    """A spectrum's bins that the frames' rate can hold."""
    most = layer.n_fft // 2 + 1
    if layer.bins <= most:
        return spectrum
    return torch.cat([part[..., :most] for part in spectrum.chunk(2, dim=2)], dim=2)


def _inverse_dft(layer: ISTFT, samples: int) -> tuple[Tensor, Tensor]:
    """What those bins' real and imaginary parts give to a frame's first samples: two of `(bins, samples)`."""
    n_fft = layer.n_fft
    k = torch.arange(min(layer.bins, n_fft // 2 + 1), dtype=torch.float64, device="cpu")
    angle = 2 * math.pi / n_fft * torch.outer(k, torch.arange(samples, dtype=torch.float64, device="cpu"))
    share = torch.full((len(k), 1), 2.0 / n_fft, dtype=torch.float64, device="cpu")  # a bin and its conjugate
    share[k == (-k) % n_fft] /= 2  # its own
    share *= layer.louder
    return share * angle.cos(), -share * angle.sin()
