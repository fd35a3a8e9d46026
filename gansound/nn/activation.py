"""An activation made for losses of gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def leaky_relu(x: Tensor, negative_slope: float = 0.2) -> Tensor:
    """`torch.nn.functional.leaky_relu`, whose second derivative is nothing where torch's is zeros.

    Behind a penalty on gradients torch carries those zeros back through the whole net; of a critic's step with one
    (WGAN-GP, R1) that is a sixth of the work.
    """
    out: Tensor = _LeakyReLU.apply(x, negative_slope)
    return out


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, negative_slope: float) -> Tensor:
        y = F.leaky_relu(x, negative_slope)
        ctx.save_for_backward(y)
        ctx.negative_slope = negative_slope
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        if grad is None:
            return None, None
        (y,) = ctx.saved_tensors
        return _Slope.apply(grad, y.detach(), ctx.negative_slope), None


class _Slope(torch.autograd.Function):
    """A gradient times the slope, 1 or `negative_slope`, at an output y of the same sign as the input."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor, negative_slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.negative_slope = negative_slope
        ctx.set_materialize_grads(False)
        return torch.ops.aten.leaky_relu_backward(grad, y, negative_slope, True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        if grad is None:
            return None, None, None
        (y,) = ctx.saved_tensors
        return _Slope.apply(grad, y, ctx.negative_slope), None, None
