"""Codes of a codec's codebooks as the vectors that they number."""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor


class CodeEmbedding(nn.Module):
    """The vectors of all codebooks, one above the other, at the rate of the finest; what is coarser is repeated.

    Args:
        codebooks: codes of each codebook in a frame, the coarsest first, each a multiple of the one before.
        size: vectors of a codebook.
        channels: of a vector.

    Shape:
        codes `(B, sum(codebooks), F)`, whole numbers below `size` as floats → `(B, len(codebooks) * channels, F *
        codebooks[-1])`. Rows are codebook by codebook, the codes of one in the order of time.
    """

    rows: Tensor
    offsets: Tensor

    def __init__(self, codebooks: tuple[int, ...], size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.columns = codebooks[-1]
        self.tables = nn.Parameter(torch.randn(len(codebooks) * size, channels))
        firsts = accumulate((0, *codebooks[:-1]))
        pairs = list(zip(firsts, codebooks, strict=True))
        rows = [[first + column * n // self.columns for first, n in pairs] for column in range(self.columns)]
        self.register_buffer("rows", torch.tensor(rows).flatten(), persistent=False)
        offsets = torch.arange(len(codebooks)).repeat(self.columns) * size
        self.register_buffer("offsets", offsets[:, None], persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        # What a stream is stepped with after its end may be anything.
        numbers = codes.long().clamp(0, self.size - 1)[:, self.rows] + self.offsets
        vectors = F.embedding(numbers, self.tables).unflatten(1, (self.columns, -1))
        return vectors.permute(0, 2, 4, 3, 1).flatten(1, 2).flatten(2)  # of (B, codebooks, C, F, columns)

    def stream(self, codes: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, sum(codebooks), n)` → `(B, len(codebooks) * channels, n * codebooks[-1])`."""
        cursor.upsample(self.columns)
        cursor.late(0, self.columns - 1)
        out: Tensor = self(codes)
        return out
