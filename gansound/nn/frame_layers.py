"""Layers of frames `(B, F, C)` for inference, whose products are in the precision of their weights, or made once.

Each is the function of the layer that it is made of, whole and streamed.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.convnext import FrameConv
from gansound.nn.griffin_lim import GriffinLimStep
from gansound.nn.streaming import Cursor, Pointwise


class OwnLinear(Pointwise):
    """A matrix product in its own precision, given back in that of its input."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x).to(x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Expansion(OwnLinear):
    """A matrix product given back in its own precision: the next one takes it so, and it is the widest of a block."""

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


class OwnFrameConv(nn.Module):
    """A `FrameConv` in its own precision, given back in that of its input."""

    def __init__(self, layer: FrameConv) -> None:
        super().__init__()
        self.weight, self.bias = layer.conv.weight, layer.conv.bias
        self.groups = layer.conv.groups
        self.left_frames, self.right_frames = layer.left_frames, layer.right_frames

    def forward(self, x: Tensor) -> Tensor:
        return self._convolved(
            F.pad(x.to(self.weight.dtype), (0, 0, self.left_frames, self.right_frames))
        ).to(x.dtype)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(x.to(self.weight.dtype), self.left_frames + self.right_frames, dim=1)
        cursor.late(self.right_frames, self.left_frames)
        return self._convolved(window).to(x.dtype)

    def _convolved(self, window: Tensor) -> Tensor:
        image = window.transpose(1, 2).unsqueeze(2)
        return F.conv2d(image, self.weight, self.bias, groups=self.groups).squeeze(2).transpose(1, 2)


class DepthwiseFrames(nn.Module):
    """A depthwise `FrameConv`; of a single frame it is a product and a sum, quicker than a convolution."""

    def __init__(self, layer: FrameConv) -> None:
        super().__init__()
        self.convolution = layer
        self.taps = nn.Parameter(layer.conv.weight.detach()[:, 0, 0].T.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return y

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        if x.shape[1] != 1:
            return self.convolution.stream(x, cursor)
        window = cursor.window(x, len(self.taps) - 1, dim=1)
        cursor.late(self.convolution.right_frames, self.convolution.left_frames)
        y = (window * self.taps).sum(1, keepdim=True)
        bias = self.convolution.conv.bias
        return y if bias is None else y + bias


class MadeGriffinLimStep(nn.Module):
    """A step of `GriffinLim` whose kernel is made once."""

    def __init__(self, layer: GriffinLimStep) -> None:
        super().__init__()
        self.ahead = layer.ahead
        self.kernel = nn.Parameter(layer.weight().detach().contiguous(), requires_grad=False)

    def near(self, frames: Tensor, outside: int = 0) -> Tensor:
        return F.conv2d(frames, self.kernel, padding=(outside, 1))
