"""Linear interpolation in time, in pieces: what lies between a language model's latents and a vocoder's frames.

XTTS's model says a latent every 1024 samples at 22.05 kHz, and its decoder takes frames of 256 samples at 24 kHz: its
code interpolates by 4 and then by 24000 / 22050, each time over the whole utterance. A frame needs a latent on either
side of it and no more, so that a stream can have the same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Interpolation:
    """`torch.nn.functional.interpolate(…, scale_factor=[factor], mode="linear")` by each factor in turn, of a stream.

    What `push` and `flush` give, one after the other, is what that function makes of all the latents together, to a
    rounding. An utterance so short that a factor would add nothing to it (of XTTS, two latents) it leaves as it is,
    which a stream, told of its end too late, doesn't.

    Args:
        factors: one or more.

    Raises:
        ValueError: a factor that isn't a number of 0.01 to 100.
    """

    def __init__(self, factors: Sequence[float]) -> None:
        self._stages = [_Stage(factor) for factor in checked_factors(factors)]

    def push(self, latents: Tensor | np.ndarray) -> Tensor:
        """The frames, 0 or more, that no later latent changes.

        Shape:
            `(B, C, n)` or `(C, n)`, n >= 0 → `(B, C, F)` or `(C, F)`, float32.
        """
        columns = torch.as_tensor(latents).float()
        for stage in self._stages:
            columns = stage.push(columns)
        return columns

    def flush(self) -> Tensor:
        """The frames that are left; the next push begins another utterance.

        Raises:
            ValueError: no latent was pushed.
        """
        first, *rest = self._stages
        columns = first.flush()
        for stage in rest:
            columns = torch.cat([stage.push(columns), stage.flush()], -1)
        return columns


def checked_factors(factors: Sequence[float]) -> tuple[float, ...]:
    """The same, as floats. Raises ValueError for none, and for one by which nothing is interpolated."""
    if not isinstance(factors, list | tuple) or not factors:
        raise ValueError(f"interpolation by {factors!r}, expected a list of one or more factors")
    for factor in factors:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0.01 <= factor <= 100:
            raise ValueError(f"interpolation by {factor!r}, expected a number of 0.01 to 100")
    return tuple(map(float, factors))


class _Stage:
    """Interpolation by one factor."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._begin()

    def _begin(self) -> None:
        self._held: Tensor | None = None  # columns from `_first` on, which frames to come are made of
        self._first = 0
        self._made = 0

    def push(self, columns: Tensor) -> Tensor:
        self._held = columns if self._held is None else torch.cat([self._held, columns], -1)
        return self._frames(last=False)

    def flush(self) -> Tensor:
        if self._held is None:
            raise ValueError("got no latents before the flush, expected one or more")
        frames = self._frames(last=True)
        self._begin()
        return frames

    def _frames(self, *, last: bool) -> Tensor:
        assert self._held is not None
        taken = self._first + self._held.shape[-1]
        frames = torch.arange(self._made, int(taken * self._factor), dtype=torch.float64)
        # As torch has it: by the inverse in single precision, and the position rounded to single once.
        inverse = torch.tensor(1 / self._factor, dtype=torch.float32).double()
        position = ((frames + 0.5) * inverse - 0.5).float().clamp(min=0)
        left = position.long()
        if not last:
            position = position[: int((left + 1 < taken).sum())]
            left = left[: len(position)]
        share = (position - left).to(self._held.device)
        left = left.clamp(max=taken - 1)
        right = (left + 1).clamp(max=taken - 1)
        before, after = (
            self._held.index_select(-1, (side - self._first).to(self._held.device)) for side in (left, right)
        )
        self._made += len(position)
        following = int(max((self._made + 0.5) / self._factor - 1.5, 0))  # a column to spare for the rounding
        if (done := min(following, taken) - self._first) > 0:
            self._held = self._held[..., done:]
            self._first += done
        return before * (1 - share) + after * share
