"""What a generator's latents are drawn from.

Every prior draws one latent from one numpy generator, so that a latent is a function of a seed and a position, and
not of the batch it stands in.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Prior(ABC):
    """A distribution over latents of `dim` values."""

    dim: int

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """One latent, `(dim,)` float32."""

    def truncated(self, latents: Tensor, truncation: float) -> Tensor:
        """Latents `(B, dim)` drawn nearer to the prior's centre: `truncation · latents`, 1 leaves them.

        Less variety for more fidelity: the trick of Brock et al. (BigGAN, arXiv 1809.11096) in the form that keeps
        each seed's sound recognisable.

        Raises:
            ValueError: a truncation outside (0, 1].
        """
        if not 0 < truncation <= 1:
            raise ValueError(
                f"truncation must be above 0 and at most 1, got {truncation}; 1 is all the variety"
            )
        return self._scaled(latents, truncation)

    def _scaled(self, latents: Tensor, truncation: float) -> Tensor:
        return latents * truncation


class Uniform(Prior):
    """Uniform on [−1, 1), as WaveGAN (arXiv 1802.04208) and DCGAN have it.

    Args:
        dim: how many values.
    """

    def __init__(self, dim: int = 100) -> None:
        self.dim = _positive(dim)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, self.dim).astype(np.float32)


class Normal(Prior):
    """Standard normal.

    Args:
        dim: how many values.
    """

    def __init__(self, dim: int = 100) -> None:
        self.dim = _positive(dim)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(self.dim, dtype=np.float32)


class _Discrete(Prior):
    def _scaled(self, latents: Tensor, truncation: float) -> Tensor:
        return latents  # there is nothing between two categories


class Categorical(_Discrete):
    """Independent choices, each one-hot: InfoGAN's codes (Chen et al., arXiv 1606.03657). Truncation leaves them.

    Args:
        categories: how many there are to choose from.
        choices: how many times.
    """

    def __init__(self, categories: int, choices: int = 1) -> None:
        self.categories, self.choices = _positive(categories), _positive(choices)
        self.dim = categories * choices

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        return np.eye(self.categories, dtype=np.float32)[
            rng.integers(self.categories, size=self.choices)
        ].ravel()


class Bits(_Discrete):
    """Fair coins, −1 or 1: the featural code of fiwGAN (Beguš, arXiv 2006.02951). Truncation leaves them.

    Args:
        dim: how many.
    """

    def __init__(self, dim: int) -> None:
        self.dim = _positive(dim)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        return (2 * rng.integers(2, size=self.dim) - 1).astype(np.float32)


class Joint(Prior):
    """Several priors one behind the other, such as noise and a code.

    Args:
        priors: in the order of their values.
    """

    def __init__(self, priors: Sequence[Prior]) -> None:
        if not priors:
            raise ValueError("priors must name at least one prior, got none")
        self.priors = list(priors)
        self.dim = sum(prior.dim for prior in priors)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([prior.sample(rng) for prior in self.priors])

    def _scaled(self, latents: Tensor, truncation: float) -> Tensor:
        parts = latents.split([prior.dim for prior in self.priors], dim=-1)
        scaled = [prior._scaled(part, truncation) for prior, part in zip(self.priors, parts, strict=True)]
        return torch.cat(scaled, dim=-1)


def _positive(count: int) -> int:
    if count < 1:
        raise ValueError(f"a prior needs at least 1 value, got {count}")
    return count
