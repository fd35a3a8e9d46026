"""Random, differentiable changes of what the discriminator sees, real and fake alike.

So that a small set isn't learned by heart: Zhao et al., "Differentiable Augmentation", arXiv 2006.10738; Karras et
al., "Training GANs with Limited Data" (ADA), arXiv 2006.06676. The generator doesn't learn to make changed sounds as
long as each change happens to less than all items (there, section 2.2), hence the limit on the probability.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gansound.draw import Draws, placed

Domain = Literal["wave", "mel"]


class Augmentation(ABC):
    """One random change, differentiable and of each item alone.

    Attributes:
        domain: what it can change, waveforms `(B, C, T)` or log-mels `(B, M, F)`, in float32.
        numbers: how many random numbers an item's change takes.
    """

    domain: ClassVar[Domain]
    numbers: ClassVar[int] = 1

    @abstractmethod
    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        """Changed items, of the shape of `x`; `chance` is `(B, numbers)`, uniform on [0, 1), on the processor."""


class InstanceNoise:
    """White noise on every item, real and fake, fading to nothing.

    It makes the two overlap, so that the discriminator has something to say from the first step on: Sønderby et al.,
    arXiv 1610.04490; Arjovsky and Bottou, arXiv 1701.04862.

    Args:
        std: standard deviation at step 0, in the units of what the discriminator sees.
        steps: when the noise has sunk to nothing, on a straight line.
    """

    def __init__(self, std: float = 0.1, steps: int = 10_000) -> None:
        if not 0 < std < math.inf:
            raise ValueError(f"std of the instance noise must be above 0, got {std}; leave it out for none")
        if steps < 1:
            raise ValueError(f"steps of the instance noise must be 1 or more, got {steps}")
        self.std = std
        self.steps = steps

    def __call__(self, x: Tensor, draws: Draws, purpose: str, step: int) -> Tensor:
        """Items `(B, …)` with the noise of this step."""
        if step >= self.steps:
            return x
        noise = draws.normal(f"{purpose}/instance noise", *x.shape[1:])
        return x + noise.to(x) * (self.std * (1 - step / self.steps))


class Augmentations:
    """Changes in a row, each happening to each item with one probability, which is fixed or adapts (ADA).

    Adaptive, it rises while the discriminator is too sure of the real items, r = E[sign(logit − threshold)] above the
    target, and sinks otherwise (arXiv 2006.06676, section 3).

    Args:
        ops: changes, in this order; all of one domain.
        probability: of each change of each item; where it adapts, the first.
        target: r to be held, the paper's being 0.6; None leaves the probability as it is.
        ramp_items: real items from a probability of 0 to 1 at the fastest.
        limit: the highest probability; changes that happen nearly always leak into what is generated.
        noise: instance noise, after the changes and whatever the probability.

    Raises:
        ValueError: nothing to do, changes of different domains, or a number out of its range.
    """

    def __init__(
        self,
        ops: Sequence[Augmentation],
        probability: float = 0.0,
        target: float | None = None,
        ramp_items: int = 500_000,
        limit: float = 0.8,
        noise: InstanceNoise | None = None,
    ) -> None:
        if not ops and noise is None:
            raise ValueError("augmentation has neither ops nor noise; leave it out for none")
        if len({op.domain for op in ops}) > 1:
            listed = ", ".join(f"{type(op).__name__} ({op.domain})" for op in ops)
            raise ValueError(f"ops must change all waveforms or all log-mels, got {listed}")
        if not 0 < limit <= 1:
            raise ValueError(f"limit of the probability must be in (0, 1], got {limit}")
        if not 0 <= probability <= limit:
            raise ValueError(f"probability must be between 0 and the limit of {limit}, got {probability}")
        if target is not None and not -1 < target < 1:
            raise ValueError(f"target is a mean of signs, between -1 and 1 (usually 0.6), got {target}")
        if ops and target is None and probability == 0:
            raise ValueError("probability 0 without a target changes nothing; raise it or set target to 0.6")
        if target is not None and not ops:
            raise ValueError("target adapts the probability of ops, but there are none")
        if ramp_items < 1:
            raise ValueError(f"ramp_items counts real items from 1 on, got {ramp_items}")
        self.ops = list(ops)
        self.probability = probability
        self.target = target
        self.ramp_items = ramp_items
        self.limit = limit
        self.noise = noise
        self.domain: Domain | None = ops[0].domain if ops else None

    def __call__(self, x: Tensor, draws: Draws, purpose: str, step: int = 0) -> Tensor:
        """What the discriminator is shown of `x`: `(B, C, T)` waveforms or `(B, M, F)` log-mels, the same shape.

        An item that no change fell upon stays as it is, bit for bit. What happens to it depends on the draws of its
        position and the purpose alone.
        """
        if x.dim() != 3 or len(x) != len(draws.positions):
            raise ValueError(
                f"expected {len(draws.positions)} items of three dimensions (batch, channels or bands, time), "
                f"got shape {tuple(x.shape)}"
            )
        if self.ops and self.probability > 0:
            x = self._changed(x, draws, purpose)
        if self.noise is not None:
            x = self.noise(x, draws, purpose, step)
        return x

    def _changed(self, x: Tensor, draws: Draws, purpose: str) -> Tensor:
        # One generator an item for all changes: making it costs more than what it draws. Drawn on the processor, so
        # that nothing here waits for an accelerator.
        here = Draws(draws.seed, draws.positions)
        widths = [1 + op.numbers for op in self.ops]
        drawn = here.uniform(f"{purpose}/augmentation", sum(widths)).split(widths, dim=1)
        for op, chance in zip(self.ops, drawn, strict=True):
            chosen = (chance[:, 0] < self.probability).nonzero().squeeze(1)
            if len(chosen):
                places = placed(chosen, x.device)
                x = x.index_copy(0, places, op(x.index_select(0, places), chance[chosen, 1:]))
        return x

    def observe(self, sign_mean: float, items: int) -> None:
        """Adapt to the mean of sign(logit − threshold) over `items` real items, of all processes together."""
        if self.target is not None:
            step = (
                math.copysign(items / self.ramp_items, sign_mean - self.target)
                if sign_mean != self.target
                else 0
            )
            self.probability = min(max(self.probability + step, 0.0), self.limit)

    def state_dict(self) -> dict[str, float]:
        return {"probability": self.probability}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.probability = float(state["probability"])


def spread(chance: Tensor, low: float, high: float) -> Tensor:
    """Numbers uniform on [0, 1) laid out from `low` to `high`."""
    return low + (high - low) * chance


def steps_up_to(chance: Tensor, most: int) -> Tensor:
    """Whole numbers from −most to most, equally probable, of numbers `(B,)` uniform on [0, 1): `(B, 1, 1)` int64."""
    whole = torch.floor(chance * (2 * most + 1)).long().clamp(max=2 * most)
    return (whole - most).view(-1, 1, 1)


def stretch(chance: Tensor, fraction: float, length: int) -> Tensor:
    """Where a random stretch of at most `fraction` of `length` columns lies: `(B, 2)` → `(B, 1, length)` bool."""
    width = torch.floor(chance[:, :1] * (fraction * length + 1))
    start = torch.floor(chance[:, 1:] * (length - width + 1))
    column = torch.arange(length, device=chance.device)
    return ((column >= start) & (column < start + width)).unsqueeze(1)


def beside(value: Tensor, x: Tensor) -> Tensor:
    """What was drawn on the processor where `x` is, and in its type."""
    return placed(value, x.device).to(x.dtype)


def fraction_of(name: str, value: float, most: float = 1.0) -> float:
    """The value; ValueError where it isn't in (0, most]."""
    if not 0 < value <= most:
        raise ValueError(f"{name} must be above 0 and at most {most:g}, got {value}")
    return value
