"""What is computed in full precision, whatever the networks run in: spectra, sums that cancel, losses.

Autocast rounds matrix products and convolutions, and with them the result of an exact transform; and what a network
gave under it is 16-bit. So a computation that needs its digits begins with these two.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Cast to float32, or leave a wider type as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Inside, what is on the device of `x` is computed in the type that it has.

    Where there is no autocast anyway, without the microseconds of leaving it: a step has hundreds of these.
    """
    kind = x.device.type
    return (
        torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
    )
