"""ConvNeXt blocks in one dimension, at frame rate.

Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), as Vocos (arXiv 2306.00814) uses them for waveforms:
depthwise convolution, LayerNorm, a pointwise MLP with GELU, layer scale, residual.

Features are `(B, F, C)`, channels last: the pointwise layers are then matrix products without a copy, and the
depthwise convolution sees the same memory as a channels-last image of height one, which oneDNN runs twice as fast
as `conv1d`.
"""

import torch
from torch import Tensor, nn


class FrameConv(nn.Module):
    """Zero-padded convolution over frames of channels-last features, as many frames out as in.

    Shape: `(B, F, in_channels)` -> `(B, F, out_channels)`.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd and positive so that frames keep their place, got {kernel_size}"
            )
        self.conv = nn.Conv2d(
            in_channels, out_channels, (1, kernel_size), padding=(0, kernel_size // 2), groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        image = x.transpose(1, 2).unsqueeze(2)  # (B, C, 1, F), a view
        return self.conv(image).squeeze(2).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """x + scale * MLP(LayerNorm(depthwise(x))).

    Shape: `(B, F, C)` -> `(B, F, C)`.
    """

    def __init__(
        self, channels: int, hidden_channels: int, kernel_size: int, *, initial_scale: float
    ) -> None:
        super().__init__()
        self.depthwise = FrameConv(channels, channels, kernel_size, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden_channels)
        self.contract = nn.Linear(hidden_channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), initial_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x))
        y = self.contract(nn.functional.gelu(self.expand(y)))
        return x + self.scale * y
