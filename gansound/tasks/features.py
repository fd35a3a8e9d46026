"""Feature maps of discriminators, as they come from a batch of real and generated sounds together."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from gansound.precision import full_precision

Features = list[list[Tensor]]
"""Over sub-discriminators, over layers; the last map of each holds the logits."""


Precision = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which networks run: autocast, where the recipe asks for it."""


@dataclass(frozen=True)
class Example:
    """One sound of a validation beside a real one, to be looked at and heard; waveforms are `(T,)` float32."""

    name: str
    sample_rate: int
    real: np.ndarray
    fake: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What came of the discriminators' phase: losses by name, figures by name, and what the generator's phase uses."""

    losses: dict[str, Tensor]
    figures: dict[str, Tensor] = field(default_factory=dict)
    kept: Any = None


def halves(features: Features) -> tuple[Features, Features]:
    """The maps of the first and of the second half of a batch, as the losses want them."""
    pairs = [[full_precision(m).chunk(2) for m in maps] for maps in features]
    return [[p[0] for p in maps] for maps in pairs], [[p[1] for p in maps] for maps in pairs]


def in_full_precision(features: Features) -> Features:
    """The same maps as the losses want them."""
    return [[full_precision(m) for m in maps] for maps in features]


def detached(features: Features) -> Features:
    """The same maps without their history."""
    return [[m.detach() for m in maps] for maps in features]


def logits(features: Features) -> list[Tensor]:
    """The last map of each sub-discriminator."""
    return [maps[-1] for maps in features]
