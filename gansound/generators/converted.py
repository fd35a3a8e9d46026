"""A vocoder before whose first layer mels of another convention become its own, exactly."""

import torch
from torch import Tensor, nn

from gansound.mel import MelSpec
from gansound.mel.conversion import Conversion, conversion
from gansound.nn.generator import StreamingGenerator
from gansound.nn.streaming import Pointwise


class ConvertedGenerator(StreamingGenerator):
    """A generator for mels of another convention. Its weights are the other's own, shared.

    The conversion is a layer like any other, so that it streams, exports and runs on every backend with the rest.

    Args:
        inner: the generator.
        inner_mel: the convention that it takes.
        mel: the convention that it is to take.
        beside: rows of a frame below the mel's, which pass as they are.

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)`.

    Raises:
        ValueError: there is no exact conversion; it names what differs.
    """

    def __init__(
        self, inner: StreamingGenerator, inner_mel: MelSpec, mel: MelSpec, *, beside: int = 0
    ) -> None:
        super().__init__()
        self.n_mels = inner.n_mels
        self.hop_length = inner.hop_length
        self.inner_mel = inner_mel
        self.inner = inner
        self.layers = nn.Sequential(_Conversion(conversion(mel, inner_mel), beside), *inner.layers)

    def _frame(self, batch: int) -> Tensor:
        return self.inner._frame(batch)


class _Conversion(Pointwise):
    """Values of one convention as those of another. Shape: `(B, n_mels, F)` → the same."""

    factor: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, how: Conversion, beside: int = 0) -> None:
        super().__init__()
        self.beside = beside
        for name in ("factor", "offset", "low", "high"):
            self.register_buffer(name, getattr(how, name).float(), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        convert = Conversion(self.factor, self.offset, self.low, self.high)
        if not self.beside:
            return convert(mel)
        bands = mel.shape[1] - self.beside
        return torch.cat([convert(mel[:, :bands]), mel[:, bands:]], 1)
