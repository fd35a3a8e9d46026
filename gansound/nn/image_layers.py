"""Layers on images of height one, `(B, C, 1, T)` with channels last in memory: what `InferenceForm` makes of columns'.

Each is the function of the layer that it is made of, whole and streamed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.conv import Conv1d, polyphase, reflect_pad
from gansound.nn.pqmf import PQMF
from gansound.nn.streaming import Cursor, Padding, Pointwise, stream
from gansound.precision import full_precision


class Image(Pointwise):
    """`(B, C, T)` → `(B, C, 1, T)`, channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class Columns(nn.Module):
    """A layer that isn't known to take images, handed columns, and in single precision at least."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self._columns(x))
        return y.unsqueeze(2)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        return stream(self.layer, self._columns(x), cursor).unsqueeze(2)

    @staticmethod
    def _columns(x: Tensor) -> Tensor:
        return full_precision(x.squeeze(2))


class ImageConv(nn.Module):
    """A `Conv1d` on images of height one."""

    def __init__(self, conv: Conv1d) -> None:
        super().__init__()
        self.weight = _image_weight(conv.weight)
        self.bias = conv.bias
        self.dilation, self.groups = conv.dilation[0], conv.groups
        self.left_samples, self.right_samples = conv.left_samples, conv.right_samples
        self.padding: Padding = "reflect" if conv.padding_mode == "reflect" else "zeros"
        self.stride = conv.stride[0]

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left_samples, self.right_samples
        x = x.to(self.weight.dtype)
        if self.padding == "reflect" and 0 < right < x.shape[-1]:
            return self._convolved(F.pad(x, (left, right, 0, 0), mode="reflect"))
        if self.padding == "reflect":
            return self._convolved(reflect_pad(x.squeeze(2), left, right).unsqueeze(2))
        if left != right:
            return self._convolved(F.pad(x, (left, right)))
        return self._convolved(x, padding=right)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        x = x.to(self.weight.dtype)
        reach = self.left_samples + self.right_samples
        wait = -(cursor.delay + self.right_samples) % self.stride  # as of `Conv1d`
        window = cursor.window(x, reach + wait, padding=self.padding)
        cursor.late(self.right_samples + wait, self.left_samples)
        if self.stride > 1:
            cursor.downsample(self.stride)
            window = window[..., : x.shape[-1] + reach]
        return self._convolved(window)

    def _convolved(self, x: Tensor, padding: int = 0) -> Tensor:
        stride, dilation = (1, self.stride), (1, self.dilation)
        return F.conv2d(x, self.weight, self.bias, stride, (0, padding), dilation, self.groups)


class ImageUpsampling(nn.Module):
    """A transposed convolution whose phases are the channels of a plain one."""

    weight: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor | None, rate: int, trim_samples: int, *, constant: bool = False
    ) -> None:
        super().__init__()
        phases = _image_weight(polyphase(weight.detach(), rate))
        if constant:
            self.register_buffer("weight", phases.data)
        else:
            self.weight = phases
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat(rate), requires_grad=False)
        self.rate = rate
        self.trim_samples, self.kernel_size = trim_samples, weight.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        samples = x.shape[-1] * self.rate
        context = self.weight.shape[-1] - 1
        y = self._samples(self._phases(F.pad(x.to(self.weight.dtype), (context, context))))
        return y[..., self.trim_samples : self.trim_samples + samples]

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        window = cursor.window(x.to(self.weight.dtype), self.weight.shape[-1] - 1)
        cursor.upsample(self.rate)
        cursor.late(self.trim_samples, self.kernel_size - 1 - self.trim_samples)
        return self._samples(self._phases(window))

    def _samples(self, phases: Tensor) -> Tensor:
        """`(B, rate * C, 1, n)`, phase by phase → `(B, C, 1, n * rate)`."""
        # Channels last, a column's phases lie one after the other, as its samples do: this copies nothing.
        rows = phases.permute(0, 2, 3, 1).unflatten(3, (self.rate, -1))
        return rows.flatten(2, 3).permute(0, 3, 1, 2)

    def _phases(self, window: Tensor) -> Tensor:
        return F.conv2d(window, self.weight, self.bias)


class ImageBands(ImageUpsampling):
    """The synthesis of a `PQMF`."""

    def __init__(self, layer: PQMF) -> None:
        super().__init__(layer.filters * layer.bands, None, layer.bands, layer.half_samples, constant=True)


class BandRows(ImageBands):
    """Its bands as the rows of one channel's image, which sums the same.

    OpenVINO 2026.4 has wrong sums in bf16 where 4 to 8 channels meet a kernel of 16 columns, as four bands' would.
    """

    def __init__(self, layer: PQMF) -> None:
        super().__init__(layer)
        self.weight = self.weight.transpose(1, 2).contiguous()

    def _phases(self, window: Tensor) -> Tensor:
        return F.conv2d(window.transpose(1, 2), self.weight)


class Merged(nn.Module):
    """Pointwise convolutions of a branch's end and of its shortcut, as one over the channels of both."""

    def __init__(self, branch: nn.Sequential, end: Conv1d, shortcut: Conv1d) -> None:
        super().__init__()
        self.branch = branch
        self.weight = _image_weight(torch.cat([shortcut.weight, end.weight], 1).detach())
        assert end.bias is not None
        assert shortcut.bias is not None
        self.bias = nn.Parameter((end.bias + shortcut.bias).detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._both(x, self.branch(x))

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        direct, branch = cursor.fork(), cursor.fork()
        y = stream(self.branch, x, branch)
        return self._both(*cursor.join([direct, branch], [x, y]))

    def _both(self, x: Tensor, y: Tensor) -> Tensor:
        return F.conv2d(torch.cat([x, y], 1), self.weight, self.bias)


def _image_weight(weight: Tensor) -> nn.Parameter:
    """`(out, in, k)` as `(out, in, 1, k)`, channels last in memory."""
    image = weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return nn.Parameter(image, requires_grad=False)
