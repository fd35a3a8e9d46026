"""Changes of log-mels `(B, M, F)`, in whatever unit and offset the log-mel has."""

import torch
from torch import Tensor

from gansound.discriminators.augmentation.pipeline import (
    Augmentation,
    beside,
    fraction_of,
    spread,
    steps_up_to,
    stretch,
)
from gansound.draw import placed


class TimeShift(Augmentation):
    """Earlier or later by whole frames; the first or last frame is repeated where others went out.

    Args:
        fraction: of the frames, the most.
    """

    domain = "mel"

    def __init__(self, fraction: float = 0.125) -> None:
        self.fraction = fraction_of("fraction", fraction)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        frames = x.shape[2]
        return _read(x, steps_up_to(chance[:, 0], int(self.fraction * frames)), dim=1)


class FrequencyShift(Augmentation):
    """Up or down by whole bands; the lowest or highest band is repeated where others went out.

    Args:
        bands: the most.
    """

    domain = "mel"

    def __init__(self, bands: int = 2) -> None:
        if bands < 1:
            raise ValueError(f"bands must be 1 or more, got {bands}")
        self.bands = bands

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return _read(x, steps_up_to(chance[:, 0], self.bands), dim=0)


class Gain(Augmentation):
    """Louder or softer: an offset of the whole log-mel.

    Args:
        offset: the most, up or down, in the log-mel's own unit.
    """

    domain = "mel"

    def __init__(self, offset: float = 0.5) -> None:
        self.offset = fraction_of("offset", offset, 100.0)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return x + beside(spread(chance.view(-1, 1, 1), -self.offset, self.offset), x)


class Tilt(Augmentation):
    """Brighter or darker: an offset that rises or falls evenly over the bands, nothing in the middle.

    Args:
        offset: the most at the lowest and highest band, in the log-mel's own unit.
    """

    domain = "mel"

    def __init__(self, offset: float = 0.5) -> None:
        self.offset = fraction_of("offset", offset, 100.0)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        slope = torch.linspace(-1, 1, x.shape[1]).unsqueeze(1)
        return x + beside(slope * spread(chance.view(-1, 1, 1), -self.offset, self.offset), x)


class TimeMask(Augmentation):
    """A random stretch of frames takes the item's mean. Park et al., "SpecAugment", arXiv 1904.08779.

    Args:
        fraction: of the frames, the most.
    """

    domain = "mel"
    numbers = 2

    def __init__(self, fraction: float = 0.25) -> None:
        self.fraction = fraction_of("fraction", fraction)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return torch.where(placed(stretch(chance, self.fraction, x.shape[2]), x.device), _level(x), x)


class FrequencyMask(Augmentation):
    """A random stretch of bands takes the item's mean. Park et al., "SpecAugment", arXiv 1904.08779.

    Args:
        fraction: of the bands, the most.
    """

    domain = "mel"
    numbers = 2

    def __init__(self, fraction: float = 0.25) -> None:
        self.fraction = fraction_of("fraction", fraction)

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return torch.where(placed(stretch(chance, self.fraction, x.shape[1]).mT, x.device), _level(x), x)


def _read(x: Tensor, shift: Tensor, dim: int) -> Tensor:
    """Each item moved by its shift along its dimension `dim`, its edge repeated."""
    length = x.shape[dim + 1]
    source = placed((torch.arange(length) - shift.view(-1, 1)).clamp(0, length - 1), x.device)
    return torch.stack([item.index_select(dim, row) for item, row in zip(x.unbind(), source, strict=True)])


def _level(x: Tensor) -> Tensor:
    return x.mean((1, 2), keepdim=True)
