"""Frames that come from outside, mels or what stands in their place, made a tensor or refused in words."""

import numpy as np
import torch
from torch import Tensor


def from_outside(
    frames: Tensor | np.ndarray, rows: int, what: str = "mel", rows_are: str = "bands"
) -> Tensor:
    """Frames as float32 (B, rows, F), or the ValueError that says what is wrong with them.

    Args:
        frames: (B, rows, F) or (rows, F), torch or numpy.
        rows: how many each has.
        what: their name in a message.
        rows_are: likewise.
    """
    if isinstance(frames, np.ndarray):
        if frames.dtype == object or frames.dtype.kind not in "fiu":
            raise ValueError(f"{what}: got an array of {frames.dtype}, expected numbers (float32)")
        frames = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))
    if not isinstance(frames, Tensor):
        raise ValueError(
            f"{what}: got {type(frames).__name__}, expected a tensor or an array of shape (B, {what[0].upper()}, F)"
        )
    if frames.is_complex() or frames.dtype == torch.bool:
        raise ValueError(f"{what}: got a tensor of {frames.dtype}, expected real numbers (float32)")
    shape = tuple(frames.shape)
    if frames.ndim not in (2, 3):
        raise ValueError(f"{what}: got shape {shape}, expected (B, {rows}, F) or ({rows}, F)")
    if shape[-2] != rows:
        hint = f"; it looks transposed: swap the last two axes of shape {shape}" if shape[-1] == rows else ""
        raise ValueError(f"{what}: got {shape[-2]} {rows_are} (shape {shape}), expected {rows}{hint}")
    if frames.numel() == 0:
        raise ValueError(f"{what}: got shape {shape}, which holds no frames")
    frames = frames.to(torch.float32)
    if bad := int((~torch.isfinite(frames)).sum()):
        raise ValueError(f"{what}: {bad} of {frames.numel()} values are NaN or infinite")
    return frames if frames.ndim == 3 else frames.unsqueeze(0)
