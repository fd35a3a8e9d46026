"""Losses weighed by how hard they pull at the generated sound, not by their values.

Défossez et al., "High Fidelity Neural Audio Compression" (EnCodec), arXiv 2210.13438, section 3.4: the gradient of each
loss by the sound is divided by its usual length, so that a weight is the loss's share of the pull whatever its scale.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SIZE = "gradient_size/"
_SCALE = 2.0**10
"""Of a loss while its gradient is measured: of a mean over a batch it is less than fp16 holds. A power of two, so that
other precisions have the same bits."""


class LossBalance:
    """The generator's losses, each with a gradient as long as its share.

    A loss that hasn't been seen before is measured in its first step and pulls from the next on. Losses of one
    discriminator then go back through it one by one instead of together, which costs a backward pass more.

    Args:
        decay: of the running mean of each gradient's length.
        total: length of all gradients together, if all pulled the same way.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, decay: float = 0.999, total: float = 1.0) -> None:
        if not (0 <= decay < 1 and total > 0):
            raise ValueError(f"expected 0 <= decay < 1 and total > 0, got {decay} and {total}")
        self.decay = decay
        self.total = total
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    def __call__(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], fake: Tensor
    ) -> dict[str, Tensor]:
        """The same values by the same names, whose gradients by `fake`, times their weights, are balanced.

        Beside them `gradient_size/NAME`: the mean over items of the length of the loss's own gradient.

        Shape:
            terms: scalars that depend on fake `(B, T)`.

        Raises:
            ValueError: all weights are 0.
        """
        whole = sum(weights[name] for name in terms)
        if not whole > 0:
            raise ValueError(f"expected a weight above 0 among those of {', '.join(terms)}, got none")
        balanced: dict[str, Tensor] = {}
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(_SCALE * term, fake, retain_graph=True)
            gradient = gradient / _SCALE
            # A loss is a mean over items: of one item alone the gradient is so many times as long.
            size = torch.linalg.vector_norm(gradient, dim=1).mean() * len(fake)
            pull = 0.0 * fake.sum()
            if self._counts.get(name) and self._sums[name] > 0:
                usual = self._sums[name] / self._counts[name]
                pull = (fake * gradient).sum() * (self.total / (whole * usual))
            balanced[name] = term.detach() + pull - pull.detach()
            balanced[SIZE + name] = size.detach()
        return balanced

    def observe(self, figures: Mapping[str, float]) -> None:
        """Take the sizes of a step, over all processes and parts of the batch, into the running means."""
        for figure, size in figures.items():
            if figure.startswith(SIZE):
                name = figure.removeprefix(SIZE)
                self._sums[name] = self.decay * self._sums.get(name, 0.0) + size
                self._counts[name] = self.decay * self._counts.get(name, 0.0) + 1

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
