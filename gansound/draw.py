"""Random draws of training as pure functions of (seed, position, purpose).

Counter-based generators (Philox; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") make a
draw independent of what was drawn before, so neither the number of workers nor a resume can change it. The
key is a BLAKE2 hash of seed and purpose (Python's own ``hash`` changes with the process), the counter's
highest word is the position.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def draw(seed: int, position: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose ("crop", "gain", "latent", …) at one position; 15 µs, see `streams` for many.

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
    return hashlib.blake2b(
        f"{int(seed)}\0{text}".encode("utf-8", "surrogateescape"), digest_size=16, person=b"gansound draw"
    ).digest()


def streams(seed: int, positions: Sequence[int], purpose: str) -> Iterator[np.random.Generator]:
    """What `draw` gives at each position in turn, by moving one generator: 3 µs. Draw from each before the next."""
    key = _key(seed, purpose)
    bits = np.random.Philox(key=key)
    generator = np.random.Generator(bits)
    # Of Python's own numbers, which numpy reads faster than its own, one by one.
    start: dict[str, Any] = {**bits.state, "buffer": [0] * 4}
    words = key.tolist()
    for position in positions:
        bits.state = start | {"state": {"counter": [0, 0, 0, position], "key": words}}  # type: ignore[assignment]
        yield generator


def placed(tensor: "Tensor", device: "torch.device | str") -> "Tensor":
    """A tensor of the processor's on the device, on its way there while the processor goes on.

    Only from page-locked memory does a GPU copy by itself; otherwise each copy waits for all that it has yet to do.
    """
    import torch

    target = torch.device(device)
    if target.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(target, non_blocking=True)


class Draws:
    """The draws of a batch, item by item: what stands at a position is drawn for it alone.

    So a batch worked through in parts, or dealt to several processes, gets what it would get whole. Every method
    returns one row for each position, on `device`, and doesn't wait for it.

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
        """Uniform on [0, 1): `(B, *shape)` float32."""
        return self.each(purpose, lambda rng: rng.random(shape, dtype=np.float32))

    def normal(self, purpose: str, *shape: int) -> "Tensor":
        """Standard normal: `(B, *shape)` float32."""
        return self.each(purpose, lambda rng: rng.standard_normal(shape, dtype=np.float32))

    def integers(self, purpose: str, least: int, most: int, count: int) -> "Tensor":
        """Whole numbers from `least` to `most`, equally probable: `(B, count)` int64, for a range below 2**32.

        The numbers that numpy's `integers` draws, for all items at once (Lemire, arXiv 1805.10941): a word of 32 bits
        times the width of the range, of which the upper 32 bits count unless the lower fall among the few that would
        make some numbers likelier.
        """
        width = most - least + 1
        pairs = -(-count // 2)
        words = np.array(
            [rng.bit_generator.random_raw(pairs) for rng in streams(self.seed, self.positions, purpose)]
        )
        halves = np.stack([words & 0xFFFFFFFF, words >> 32], -1).reshape(len(words), -1)[:, :count]
        products = halves * np.uint64(width)
        drawn = (products >> 32).astype(np.int64) + least
        again = ((products & 0xFFFFFFFF) < 2**32 % width).any(1)
        for row in np.flatnonzero(again):
            rng = draw(self.seed, self.positions[row], purpose)
            drawn[row] = rng.integers(least, most, size=count, endpoint=True)
        return self._there(drawn)

    def each(self, purpose: str, sample: Callable[[np.random.Generator], np.ndarray]) -> "Tensor":
        """What `sample` makes of each position's own generator, stacked: `(B, …)` float32."""
        drawn = [sample(rng) for rng in streams(self.seed, self.positions, purpose)]
        return self._there(np.array(drawn, dtype=np.float32))

    def _there(self, drawn: np.ndarray) -> "Tensor":
        import torch  # only here: splitting a corpus needs numbers, but not a second and a half of imports

        return placed(torch.from_numpy(drawn), self.device)
