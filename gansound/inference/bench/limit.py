"""What a generator costs in multiplications, and how many of them this machine can do in a second.

The quotient of the two bounds how fast any program can be that computes the same sums.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# (rows, inputs, outputs) of the products tried: a shape's best is the machine's limit, not one shape's.
SHAPES = ((256, 768, 128), (512, 512, 512), (1024, 1024, 1024))
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def multiply_accumulates(generator: nn.Module, mel: Tensor) -> int:
    """Multiply-accumulates of the convolutions and matrix products of one forward pass; an FFT's aren't counted."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        generator(mel)
    return counter.get_total_flops() // 2


def matrix_limit(seconds: float) -> tuple[dict[str, float], dict[str, str]]:
    """The fastest matrix product found, 10^9 operations (two to a multiply-accumulate) a second, at torch's threads.

    oneDNN with its weight packed beforehand where torch has it, else `torch.nn.functional.linear`; the best of
    `SHAPES` and of the two.

    Args:
        seconds: spent on each shape, at least.

    Returns:
        the limit by precision, and for those that couldn't be measured the reason.
    """
    limits: dict[str, float] = {}
    reasons: dict[str, str] = {
        "int8": "no limit is measured in int8: torch packs an 8-bit product for a few processors only"
    }
    for precision, dtype in _TYPES.items():
        rates = []
        try:
            for shape in SHAPES:
                rates += [_rate(product, shape, seconds) for product in _products(shape, dtype)]
        except RuntimeError as error:  # no kernel of that type here
            reasons[precision] = str(error).strip().splitlines()[0]
            continue
        limits[precision] = max(rates)
    return limits, reasons


def _products(shape: tuple[int, int, int], dtype: torch.dtype) -> list[Callable[[], Any]]:
    rows, inputs, outputs = shape
    x = torch.randn(rows, inputs).to(dtype)
    weight = torch.randn(outputs, inputs).to(dtype)
    bias = torch.randn(outputs).to(dtype)
    products: list[Callable[[], Any]] = [lambda: nn.functional.linear(x, weight, bias)]
    operators = torch.ops.mkldnn
    if torch.backends.mkldnn.is_available() and hasattr(operators, "_reorder_linear_weight"):
        try:
            packed = operators._reorder_linear_weight(weight, rows)
            linear = operators._linear_pointwise
            linear(x, packed, bias, "none", [], "")
        except RuntimeError:
            return products  # oneDNN has no such product on this processor; torch's own may
        products.append(lambda: linear(x, packed, bias, "none", [], ""))
    return products


def _rate(product: Callable[[], Any], shape: tuple[int, int, int], seconds: float) -> float:
    """Median rate of repetitions that last so long in all."""
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            product()
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            began = time.perf_counter()
            product()
            times.append(time.perf_counter() - began)
    rows, inputs, outputs = shape
    return 2 * rows * inputs * outputs / statistics.median(times) / 1e9
