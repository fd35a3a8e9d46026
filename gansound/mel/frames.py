"""Frames that come from outside, mels or what stands in their place, made a tensor or refused in words."""

import numpy as np
import torch
from torch import Tensor

from gansound.counts import some_of
from gansound.mel.presets import PRESETS

_WHOLE = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


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
    if not isinstance(frames, Tensor | np.ndarray):
        raise ValueError(
            f"{what}: got {type(frames).__name__}, expected a tensor or an array of shape (B, {what[0].upper()}, F)"
        )
    check_numbers(frames, what)
    shape = tuple(frames.shape)
    if frames.ndim not in (2, 3):
        hint = ""
        if frames.ndim == 1:
            alone = "; a frame alone is frame[:, None]" if len(frames) == rows else ""
            hint = "; of samples make the mel first" if len(frames) > rows else alone
        raise ValueError(f"{what}: got shape {shape}, expected (B, {rows}, F) or ({rows}, F){hint}")
    if shape[-2] != rows:
        hint = ""
        if shape[-1] == rows:
            hint = f"; it looks transposed: swap the last two axes of shape {shape}"
        elif n_fft := of_a_spectrum(shape[-2]):
            hint = f"; a spectrum of n_fft {n_fft} has so many rows, and is no mel before its filters"
        elif what == "mel" and (
            known := [name for name, row in PRESETS.items() if row["n_mels"] == shape[-2]]
        ):
            hint = f"; so many have {', '.join(known)}: say which it is (mel=, --mel), a universal vocoder takes most"
        raise ValueError(f"{what}: got {shape[-2]} {rows_are} (shape {shape}), expected {rows}{hint}")
    if 0 in shape:
        raise ValueError(f"{what}: got shape {shape}, which holds no frames")
    check_not_whole(frames, what)
    if isinstance(frames, np.ndarray):
        array = np.ascontiguousarray(frames, np.float32)
        if (
            min(array.strides) < 0 or not array.flags.writeable
        ):  # one column of a reversed one; np.frombuffer's
            array = array.copy()
        frames = torch.from_numpy(array)
    frames = frames.detach().to(torch.float32)
    if bad := int((~torch.isfinite(frames)).sum()):
        raise ValueError(
            f"{what}: {some_of(bad, frames.numel(), 'value', 'is', 'are')} NaN or infinite, as float32"
        )
    return frames if frames.ndim == 3 else frames.unsqueeze(0)


def check_numbers(frames: Tensor | np.ndarray, what: str = "mel") -> None:
    """Refuse what isn't real numbers, whole ones aside. Raises ValueError."""
    if isinstance(frames, Tensor):
        are_numbers = frames.is_floating_point() or frames.dtype in _WHOLE
    else:
        are_numbers = frames.dtype.kind in "fiu"
    if not are_numbers:
        raise ValueError(f"{what}: got values of {_kind(frames)}, expected numbers (float32)")


def check_not_whole(frames: Tensor | np.ndarray, what: str = "mel") -> None:
    """Refuse whole numbers: logarithms aren't whole, and those scaled to be mean nothing as they are."""
    if whole := whole_numbers(frames):
        raise ValueError(
            f"{what}: got whole numbers ({whole}), expected real ones (float32). If they were scaled to be whole, "
            "scale them back; made float32 they are taken as they are"
        )


def whole_numbers(frames: Tensor | np.ndarray) -> str:
    """Their dtype, such as int16; "" of any other."""
    is_whole = frames.dtype in _WHOLE if isinstance(frames, Tensor) else frames.dtype.kind in "iu"
    return _kind(frames) if is_whole else ""


def _kind(frames: Tensor | np.ndarray) -> str:
    return str(frames.dtype).removeprefix("torch.")


def of_a_spectrum(rows: int) -> int:
    """The n_fft whose spectrum has so many bins, of those that are usual; else 0."""
    n_fft = 2 * (rows - 1)
    return n_fft if 256 <= n_fft <= 4096 and n_fft & (n_fft - 1) == 0 else 0
