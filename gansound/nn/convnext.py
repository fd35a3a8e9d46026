"""ConvNeXt blocks in one dimension, at frame rate.

Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), as Vocos (arXiv 2306.00814) uses them for waveforms:
depthwise convolution, LayerNorm, a pointwise MLP with GELU, layer scale, residual.

Features are `(B, F, C)`, channels last: the pointwise layers are then matrix products without a copy, and the
depthwise convolution sees the same memory as a channels-last image of height one, which oneDNN runs twice as fast
as `conv1d`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor


class FrameConv(nn.Module):
    """Zero-padded convolution over frames of channels-last features, as many frames out as in.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: frames it sees, odd unless causal.
        groups: blocks of channels that don't see each other.
        causal: look at the past only.

    Shape: `(B, F, in_channels)` -> `(B, F, out_channels)`.

    Raises:
        ValueError: the kernel is even and not causal.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1, causal: bool = False
    ) -> None:
        super().__init__()
        if kernel_size < 1 or (kernel_size % 2 == 0 and not causal):
            raise ValueError(
                f"kernel_size must be odd and positive so that frames keep their place, got {kernel_size}"
            )
        side = 0 if causal else kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (1, kernel_size), padding=(0, side), groups=groups)
        self.right_frames = side
        self.left_frames = kernel_size - 1 - side

    def forward(self, x: Tensor) -> Tensor:
        if self.left_frames != self.right_frames:
            x = F.pad(x, (0, 0, self.left_frames, 0))
        image = x.transpose(1, 2).unsqueeze(2)  # (B, C, 1, F), a view
        return self.conv(image).squeeze(2).transpose(1, 2)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(x, self.left_frames + self.right_frames, dim=1)
        cursor.late(self.right_frames, self.left_frames)
        image = window.transpose(1, 2).unsqueeze(2)
        conv = self.conv
        y = F.conv2d(image, conv.weight, conv.bias, groups=conv.groups)
        return y.squeeze(2).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """x + scale * MLP(LayerNorm(depthwise(x))).

    Shape: `(B, F, C)` -> `(B, F, C)`.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        kernel_size: int,
        *,
        initial_scale: float,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.depthwise = FrameConv(channels, channels, kernel_size, groups=channels, causal=causal)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden_channels)
        self.contract = nn.Linear(hidden_channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), initial_scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self._mlp(self.depthwise(x))

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        direct, branch = cursor.fork(), cursor.fork()
        y = self._mlp(self.depthwise.stream(x, branch))
        x, y = cursor.join([direct, branch], [x, y], dim=1)
        return x + y

    def _mlp(self, y: Tensor) -> Tensor:
        y = self.contract(F.gelu(self.expand(self.norm(y))))
        return self.scale * y
