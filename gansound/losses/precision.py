"""Reductions and spectra are computed in full precision, whatever the networks run in."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Cast to float32, or leave a wider type as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
