"""Phase shuffle: a discriminator's feature maps shifted by a few samples, so that it can't learn a fixed phase.

Donahue et al., "Adversarial Audio Synthesis", arXiv 1802.04208, section 3.3.
"""

import torch
from torch import Tensor


def phase_shuffle(x: Tensor, shifts: Tensor) -> Tensor:
    """Shift each item of a batch by its own number of samples; what moves in is the reflection of its end.

    Output sample t is sample `t - shift` of the input, mirrored at both ends without repeating them.

    Shape:
        x `(B, C, T)`, shifts `(B,)` int64, each within ±(T - 1) → `(B, C, T)`.
    """
    items, _, length = x.shape
    index = torch.arange(length, device=x.device) - shifts[:, None]
    index = length - 1 - (length - 1 - index.abs()).abs()
    rows = index + length * torch.arange(items, device=x.device)[:, None]
    # Whole rows of channels: a copy where channels are last in memory.
    taken = x.transpose(1, 2).flatten(0, 1).index_select(0, rows.flatten())
    return taken.unflatten(0, (items, length)).transpose(1, 2)


def draw_shifts(items: int, layers: int, most: int, device: torch.device | str = "cpu") -> Tensor:
    """Shifts from torch's generator, uniform on −most … most: `(items, layers)` int64."""
    return torch.randint(-most, most + 1, (items, layers), device=device)
