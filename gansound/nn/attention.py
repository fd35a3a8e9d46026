"""Self-attention between the positions of a feature map.

Zhang et al., "Self-Attention Generative Adversarial Networks", arXiv 1805.08318, section 3; keys and values are
max-pooled and narrowed as in the authors' own code and in BigGAN (arXiv 1809.11096).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.precision import no_autocast


class SelfAttention(nn.Module):
    """Every position looks at all others, at first not at all: the gate starts at zero, which is the identity.

    The cost grows with the square of the positions, so keys and values are max-pooled to `keys` positions or fewer:
    the pooling window is as wide as that needs, over all dimensions together.

    Args:
        channels: of the features, 8 or more.
        keys: positions that are looked at.

    Shape:
        x `(B, channels, …)`, of one dimension or two → the same.

    Raises:
        ValueError: fewer channels than 8, or no keys.
    """

    def __init__(self, channels: int, keys: int = 256) -> None:
        super().__init__()
        if channels < 8 or keys < 1:
            raise ValueError(
                f"self-attention needs 8 channels and 1 key, got channels={channels}, keys={keys}"
            )
        self.keys = keys
        self.query = nn.Linear(channels, channels // 8, bias=False)
        self.key = nn.Linear(channels, channels // 8, bias=False)
        self.value = nn.Linear(channels, channels // 2, bias=False)
        self.output = nn.Linear(channels // 2, channels, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, channels, …)` → the same."""
        rows = x.flatten(2).transpose(1, 2)  # (B, positions, channels)
        window = math.ceil(rows.shape[1] / self.keys)
        key, value = self._pooled(self.key(rows), window), self._pooled(self.value(rows), window)
        query, keys = self.query(rows), key.transpose(1, 2)
        if query.dtype == torch.float16:  # nothing bounds the sums, and above 65504 they would be infinite
            with no_autocast(x):
                scores = query.float() @ keys.float()
        else:
            scores = query @ keys
        attended = self.output(scores.softmax(-1).to(value.dtype) @ value)
        return x + self.gate * attended.transpose(1, 2).unflatten(2, x.shape[2:])

    @staticmethod
    def _pooled(rows: Tensor, window: int) -> Tensor:
        """Shape: `(B, N, C)` → `(B, ceil(N / window), C)`."""
        if window == 1:
            return rows
        return F.max_pool1d(rows.transpose(1, 2), window, ceil_mode=True).transpose(1, 2)


def attention_after(layers: Sequence[int], widths: Sequence[int]) -> nn.ModuleDict:
    """Self-attention behind some of a stack's layers, by the layer's number, counted from 1.

    Args:
        layers: behind which.
        widths: channels that come out of each layer that may be chosen.

    Raises:
        ValueError: a layer that isn't there, or is named twice.
    """
    if len(set(layers)) < len(layers) or any(not 1 <= layer <= len(widths) for layer in layers):
        raise ValueError(f"attention may follow each of layers 1 to {len(widths)} once, got {list(layers)}")
    return nn.ModuleDict({str(layer): SelfAttention(widths[layer - 1]) for layer in layers})
