"""Discriminators as a recipe names them: share in the loss, how often, on how much they judge, what bounds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gansound.discriminators.slicing import check_heads
from gansound.draw import Draws
from gansound.losses.adversarial import AdversarialLoss
from gansound.losses.penalties import Penalty, WeightClipping


@dataclass
class Adversary:
    """A discriminator and its share in the generator's loss.

    Args:
        network: maps `(B, T)` to a list over sub-discriminators of feature maps, the logits last; its
            `shortest_samples`, where it has one, is the least T it takes, and where its `judged_apart` is true, real
            and generated sounds pass one after the other instead of together.
        weight: of its adversarial and feature-matching losses for the generator.
        every: steps from one in which it takes part to the next; it learns and teaches in those alone, and its losses
            for the generator then count as many times, so that the mean pull stays the same.
        teaches_from: the step of the run from which the generator learns from it; before, it only learns itself, for
            what random weights say of a sound is worth nothing.
        crop_samples: judge a stretch of so many samples of each segment, another one each time; null judges all.
        slicing: let the last layers learn as a slicing adversarial network's (see
            `gansound.discriminators.slicing`).

    Raises:
        ValueError: a weight below 0, counts that aren't positive, or last layers that can't slice.
    """

    network: nn.Module
    weight: float = 1.0
    every: int = 1
    teaches_from: int = 0
    crop_samples: int | None = None
    slicing: bool = False

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.every < 1:
            raise ValueError(f"every counts steps from 1 on, got {self.every}")
        if self.teaches_from < 0:
            raise ValueError(f"teaches_from is a step, 0 or more, got {self.teaches_from}")
        if self.crop_samples is not None and self.crop_samples < 1:
            raise ValueError(f"crop_samples must be 1 or more, or null for all, got {self.crop_samples}")
        if self.slicing:
            check_heads(self.network)

    def check_segment(self, key: str, segment_samples: int) -> None:
        """Raises ValueError for a crop that is longer than a segment, or too short for the network."""
        if self.crop_samples is None:
            return
        shortest = getattr(self.network, "shortest_samples", 1)
        if not shortest <= self.crop_samples <= segment_samples:
            raise ValueError(
                f"{key}.crop_samples must be from {shortest}, the least that its network takes, to "
                f"data.segment_samples {segment_samples}, got {self.crop_samples}"
            )

    def due(self, step: int) -> bool:
        """Whether it takes part in a step."""
        return step % self.every == 0

    def shown(self, name: str, sounds: Sequence[Tensor], draws: Draws) -> list[Tensor]:
        """What it judges of sounds `(B, T)`: of all of them the same stretch of each item, or all of it.

        The stretch depends on the item's position and the discriminator's name alone.
        """
        samples = sounds[0].shape[1]
        if self.crop_samples is None or self.crop_samples >= samples:
            return list(sounds)
        starts = draws.integers(f"{name} crop", 0, samples - self.crop_samples, 1)
        index = starts + torch.arange(self.crop_samples, device=starts.device)
        return [sound.gather(1, index) for sound in sounds]


def check_weight(weight: float) -> None:
    """Raises ValueError for a weight by which the generator would learn to raise a loss."""
    if not weight >= 0:
        raise ValueError(
            f"weight must be 0 or more, got {weight}; below 0 the generator would raise the loss"
        )


def check_penalties(
    adversarial: AdversarialLoss, penalties: Mapping[str, Penalty], networks: Sequence[nn.Module]
) -> None:
    """Raises ValueError where critics need a bound and have none, or a bound that bounds nothing, or one twice."""
    bounded = any(penalty.bounds_lipschitz for penalty in penalties.values())
    if (
        adversarial.needs_lipschitz
        and not bounded
        and not all(getattr(network, "bounds_lipschitz", False) for network in networks)
    ):
        raise ValueError(
            f"adversarial: {type(adversarial).__name__} needs critics of bounded slope; add "
            "penalties: {gradient: {class_path: gansound.losses.penalties.GradientPenalty}}, weight clipping, or "
            "spectral_norm: true to every discriminator"
        )
    clipped = any(isinstance(penalty, WeightClipping) for penalty in penalties.values())
    if clipped and any(is_parametrized(module) for network in networks for module in network.modules()):
        raise ValueError(
            "penalties: WeightClipping clips what spectral or weight norm divides again, and so bounds nothing; "
            "take one of them"
        )
    kinds = [type(penalty).__name__ for penalty in penalties.values()]
    if double := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise ValueError(f"penalties: {double} is there twice; add up the weights")
