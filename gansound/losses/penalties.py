"""What keeps a discriminator's slope or weights within bounds.

Gradients are taken of an item's score, the mean of its logits, with respect to all its values; a score depends on no
other item, so the sum over the batch has each item's own gradient. In float32, whatever the networks run in.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from gansound.precision import full_precision, no_autocast

Judge = Callable[[Tensor], Tensor]


class Penalty(ABC):
    """A term of a discriminator's loss, or a constraint on its weights.

    Args:
        weight: coefficient of `loss`, applied by the task.
        every: steps from one evaluation to the next (in a due step, each critic round has it); the task multiplies
            the coefficient by it, so that the mean pull stays the same.

    Attributes:
        bounds_lipschitz: holds the critic's slope, as a Wasserstein loss needs.
        differentiates_twice: takes gradients of the critic's gradients, which no compiled graph has.

    Raises:
        ValueError: a weight that isn't positive, or `every` below 1.
    """

    bounds_lipschitz: ClassVar[bool] = False
    differentiates_twice: ClassVar[bool] = False

    def __init__(self, weight: float, every: int = 1) -> None:
        if not weight > 0:
            raise ValueError(
                f"weight of {type(self).__name__} must be above 0, got {weight}; leave it out for none"
            )
        if every < 1:
            raise ValueError(f"every of {type(self).__name__} counts steps from 1 on, got {every}")
        self.weight = weight
        self.every = every

    @abstractmethod
    def loss(
        self, judge: Judge, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor
    ) -> Tensor | None:
        """The unweighted term, a scalar to be differentiated by the network's weights; None when there is none.

        Args:
            judge: maps items `(B, …)` to logits `(B, …)` in float32, twice differentiable.
            network: whose logits these are.
            real: items as the discriminator sees them, `(B, …)`.
            fake: generated ones, of the same shape.
            mix: uniform on [0, 1), `(B,)`.
        """

    def constrain(self, network: nn.Module) -> None:  # noqa: B027 - most have nothing to do here
        """Set the weights right after an update."""


class GradientPenalty(Penalty):
    """WGAN-GP: slope `centre` at points between real and fake.

    Gulrajani et al., arXiv 1704.00028, eq. 3; E[(|∇D(x̂)| − 1)²] at x̂ = mix · real + (1 − mix) · fake.

    Args:
        weight: λ.
        every: steps from one evaluation to the next.
        centre: the slope that costs nothing.
    """

    bounds_lipschitz = True
    differentiates_twice = True

    def __init__(self, weight: float = 10.0, every: int = 1, centre: float = 1.0) -> None:
        super().__init__(weight, every)
        if centre < 0:
            raise ValueError(f"centre is a gradient's norm, 0 or more, got {centre}")
        self.centre = centre

    def loss(self, judge: Judge, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        real, fake = full_precision(real.detach()), full_precision(fake.detach())
        share = mix.to(real.dtype).view(-1, *(1 for _ in real.shape[1:]))
        between = share * real + (1 - share) * fake
        # vector_norm has slope 0 at 0, where a square root of squares has none.
        norms = torch.linalg.vector_norm(score_gradients(judge, between), dim=1)
        return (norms - self.centre).square().mean()


class R1(Penalty):
    """Zero-centred gradient penalty on the real: E|∇D(real)|² / 2.

    Mescheder, Geiger and Nowozin, arXiv 1801.04406, eq. 9; evaluated lazily as in StyleGAN2 (arXiv 1912.04958,
    section 3.1).

    Args:
        weight: γ.
        every: steps from one evaluation to the next.
    """

    bounds_lipschitz = True
    differentiates_twice = True

    def __init__(self, weight: float = 10.0, every: int = 16) -> None:
        super().__init__(weight, every)

    def loss(self, judge: Judge, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        return _half_squared_slope(judge, real)


class R2(Penalty):
    """Zero-centred gradient penalty on the fake: E|∇D(fake)|² / 2.

    Mescheder et al., arXiv 1801.04406, eq. 10; beside R1 in R3GAN (arXiv 2501.05441).

    Args:
        weight: γ.
        every: steps from one evaluation to the next.
    """

    bounds_lipschitz = True
    differentiates_twice = True

    def __init__(self, weight: float = 10.0, every: int = 16) -> None:
        super().__init__(weight, every)

    def loss(self, judge: Judge, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        return _half_squared_slope(judge, fake)


class WeightClipping(Penalty):
    """Every parameter within ±limit after each update, so that the critic's slope is bounded.

    Arjovsky et al., "Wasserstein GAN", arXiv 1701.07875, algorithm 1. It adds no loss.

    Args:
        limit: the bound.
    """

    bounds_lipschitz = True

    def __init__(self, limit: float = 0.01) -> None:
        super().__init__(weight=1.0)
        if not limit > 0:
            raise ValueError(f"limit must be above 0, got {limit}")
        self.limit = limit

    def loss(self, judge: Judge, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> None:
        return None

    @torch.no_grad()
    def constrain(self, network: nn.Module) -> None:
        for parameter in network.parameters():
            parameter.clamp_(-self.limit, self.limit)


class Orthogonal(Penalty):
    """Filters of a layer at right angles, of any length: Σ over layers |W Wᵀ ⊙ (1 − I)|², a filter a row.

    Brock, Donahue and Simonyan, "BigGAN", arXiv 1809.11096, eq. 4. Layers are the linear and convolutional ones.

    Args:
        weight: β.
        every: steps from one evaluation to the next.
    """

    def __init__(self, weight: float = 1e-4, every: int = 1) -> None:
        super().__init__(weight, every)

    def loss(self, judge: Judge, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        with no_autocast(real):
            terms = []
            for filters in _filters(network):
                others = 1 - torch.eye(filters.shape[1], dtype=filters.dtype, device=filters.device)
                terms.append((filters @ filters.mT * others).square().sum())
            return torch.stack(terms).sum() if terms else torch.zeros((), device=real.device)


def score_gradients(judge: Judge, items: Tensor) -> Tensor:
    """Gradient of each item's mean logit by its own values: `(B, …)` → `(B, values)`, differentiable by the weights."""
    with no_autocast(items), torch.enable_grad():
        items = full_precision(items.detach()).requires_grad_()
        scores = full_precision(judge(items)).reshape(len(items), -1).mean(1)
        (gradients,) = torch.autograd.grad(scores.sum(), items, create_graph=True)
        return gradients.flatten(1)


def _half_squared_slope(judge: Judge, items: Tensor) -> Tensor:
    return score_gradients(judge, items).square().sum(1).mean() / 2


def _filters(network: nn.Module) -> Iterator[Tensor]:
    """Weights of the linear and convolutional layers, normalised ones as they act: `(groups, filters, values)`."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            yield full_precision(module.weight).unsqueeze(0)
        elif isinstance(module, nn.modules.conv._ConvNd):
            weight = module.weight.transpose(0, 1) if module.transposed else module.weight
            yield (
                full_precision(weight)
                .flatten(1)
                .unflatten(0, (1 if module.transposed else module.groups, -1))
            )
