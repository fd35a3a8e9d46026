"""Residual stacks of convolutions."""

from torch import Tensor, nn

from gansound.nn.conv import Conv1d, Padding, weight_norm


class Residual(nn.Module):
    """Two paths over the same input, added.

    Shape:
        whatever both paths take; they must give the same shape.
    """

    def __init__(self, shortcut: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, C, T)` → `(B, C', T)`."""
        out: Tensor = self.shortcut(x) + self.branch(x)
        return out


def dilated_residual(
    channels: int,
    *,
    dilation: int,
    kernel_size: int = 3,
    negative_slope: float = 0.2,
    padding_mode: Padding = "reflect",
) -> Residual:
    """MelGAN's residual block: a dilated convolution and a pointwise one, beside a pointwise shortcut.

    Kumar et al., "MelGAN", arXiv 1910.06711, section 2.1.

    Shape:
        `(B, channels, T)` → `(B, channels, T)`.
    """
    branch = nn.Sequential(
        nn.LeakyReLU(negative_slope),
        weight_norm(Conv1d(channels, channels, kernel_size, dilation=dilation, padding_mode=padding_mode)),
        nn.LeakyReLU(negative_slope),
        weight_norm(Conv1d(channels, channels, 1)),
    )
    return Residual(weight_norm(Conv1d(channels, channels, 1)), branch)
