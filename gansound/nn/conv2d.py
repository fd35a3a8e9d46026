"""A convolution over images, in the layout that is quick where it runs."""

from torch import Tensor, nn

from gansound.nn import images

Pair = tuple[int, int]


class Conv2d(nn.Conv2d):
    """Padded with zeros by half its reach on each side: without a stride it keeps the size.

    Args:
        in_channels, out_channels: width before and after.
        kernel_size: taps in each direction, odd.
        stride: columns from one output to the next.
        dilation: columns from one tap to the next.

    Shape:
        x `(B, in_channels, H, W)` → `(B, out_channels, ceil(H / stride[0]), ceil(W / stride[1]))`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = (1, 1),
        dilation: Pair = (1, 1),
    ) -> None:
        assert kernel_size[0] % 2 == 1
        assert kernel_size[1] % 2 == 1
        sides = (dilation[0] * (kernel_size[0] // 2), dilation[1] * (kernel_size[1] // 2))
        super().__init__(in_channels, out_channels, kernel_size, stride, sides, dilation)
        self.sides = sides

    def forward(self, x: Tensor) -> Tensor:
        """Shape: `(B, in_channels, H, W)` → `(B, out_channels, H', W')`."""
        return images.convolve_image(
            x,
            self.weight,
            self.bias,
            stride=(self.stride[0], self.stride[1]),
            padding=self.sides,
            dilation=(self.dilation[0], self.dilation[1]),
        )
