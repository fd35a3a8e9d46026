"""Random draws of training as pure functions of (seed, position, purpose).

Counter-based generators (Philox; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") make a
draw independent of what was drawn before, so neither the number of workers nor a resume can change it. The
key is a BLAKE2 hash of seed and purpose (Python's own ``hash`` changes with the process), the counter's
highest word is the position.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def draw(seed: int, position: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose ("crop", "gain", "latent", …) at one position; 15 µs.

    The same arguments give the same numbers in every process and on every machine. Generators of other
    positions, purposes or seeds never share numbers: each owns 2**192 blocks of its stream.
    Raises ValueError for a position outside 0 … 2**64 - 1.
    """
    if not 0 <= position < 2**64:
        raise ValueError(f"a position counts items from 0 on, got {position}")
    counter = np.array([0, 0, 0, position], dtype=np.uint64)  # a plain list would pass through float64
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=counter))


def unit_hash(seed: int, text: str, purpose: str) -> float:
    """A number in [0, 1) that depends on these alone: splits a corpus without looking at its other files."""
    return int.from_bytes(_digest(seed, f"{purpose}\0{text}")[:7], "little") / 2**56


@lru_cache(maxsize=1024)
def _key(seed: int, purpose: str) -> np.ndarray:
    return np.frombuffer(_digest(seed, purpose), dtype="<u8")


def _digest(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{int(seed)}\0{text}".encode(), digest_size=16, person=b"gansound draw").digest()


class Draws:
    """The draws of a batch, item by item: what stands at a position is drawn for it alone.

    So a batch worked through in parts, or dealt to several processes, gets what it would get whole. Every method
    returns float32 on `device`, one row for each position.

    Args:
        seed: of the run.
        positions: of the items.
        device: where the draws are wanted.
    """

    def __init__(self, seed: int, positions: Sequence[int], device: "torch.device | str" = "cpu") -> None:
        self.seed = seed
        self.positions = [int(position) for position in positions]
        self.device = device

    def uniform(self, purpose: str, *shape: int) -> "Tensor":
        """Uniform on [0, 1): `(B, *shape)`."""
        return self.each(purpose, lambda rng: rng.random(shape, dtype=np.float32))

    def normal(self, purpose: str, *shape: int) -> "Tensor":
        """Standard normal: `(B, *shape)`."""
        return self.each(purpose, lambda rng: rng.standard_normal(shape, dtype=np.float32))

    def each(self, purpose: str, sample: Callable[[np.random.Generator], np.ndarray]) -> "Tensor":
        """What `sample` makes of each position's own generator, stacked: `(B, …)`."""
        import torch  # only here: splitting a corpus needs numbers, but not a second and a half of imports

        drawn = np.stack([sample(draw(self.seed, position, purpose)) for position in self.positions])
        return torch.from_numpy(np.ascontiguousarray(drawn, dtype=np.float32)).to(self.device)
