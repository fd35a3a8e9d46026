"""Random draws of training as pure functions of (seed, position, purpose).

Counter-based generators (Philox; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") make a
draw independent of what was drawn before, so neither the number of workers nor a resume can change it. The
key is a BLAKE2 hash of seed and purpose (Python's own ``hash`` changes with the process), the counter's
highest word is the position.
"""

import hashlib
import math
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


_MASK = np.uint64(2**32 - 1)
_HALF = np.uint64(32)
_AHEAD = 2048
_FEW_WORDS = 8
_PURPOSES_KEPT = 64
_drawn_ahead: dict[tuple[int, str, int], tuple[int, np.ndarray]] = {}


def words(seed: int, positions: Sequence[int], purpose: str, count: int) -> np.ndarray:
    """The first `count` words of 64 bits of each position's stream, `(B, count)` uint64.

    A step asks for the same few words at positions that follow those of the step before, so they are drawn for
    `_AHEAD` positions at once: for a batch of 64 in a sixth of the time it takes to set a generator to each.
    """
    if count > _FEW_WORDS or not positions:
        drawn = [rng.bit_generator.random_raw(count) for rng in streams(seed, positions, purpose)]
        return np.array(drawn, np.uint64).reshape(-1, count)
    first, last = min(positions), max(positions)
    asked = seed, purpose, count
    start, made = _drawn_ahead.get(asked, (0, np.empty((0, count), np.uint64)))
    if first < start or last >= start + len(made):
        start, made = first, _philox(_key(seed, purpose), first, max(_AHEAD, last - first + 1), count)
        if len(_drawn_ahead) >= _PURPOSES_KEPT:
            _drawn_ahead.clear()
        _drawn_ahead[asked] = start, made
    if list(positions) == list(range(first, last + 1)):
        return made[first - start : last - start + 1]
    return made[[position - start for position in positions]]


def _philox(key: np.ndarray, first: int, positions: int, count: int) -> np.ndarray:
    """Philox4x64-10 as numpy has it: block b of a position is the counter (b + 1, 0, 0, position), enciphered."""
    blocks = -(-count // 4)
    shape = (positions, blocks)
    a = np.broadcast_to(np.arange(1, blocks + 1, dtype=np.uint64), shape)
    b = c = np.zeros(shape, np.uint64)
    d = np.broadcast_to((np.arange(positions, dtype=np.uint64) + np.uint64(first))[:, None], shape)
    low, high = map(int, key)
    for _ in range(10):
        (a_high, a_low), (c_high, c_low) = _product(0xD2E7470EE14C6C93, a), _product(0xCA5A826395121157, c)
        a, b, c, d = c_high ^ b ^ np.uint64(low), c_low, a_high ^ d ^ np.uint64(high), a_low
        low, high = (low + 0x9E3779B97F4A7C15) % 2**64, (high + 0xBB67AE8584CAA73B) % 2**64
    return np.stack([a, b, c, d], -1).reshape(positions, -1)[:, :count]


def _product(constant: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper and the lower 64 bits of a product."""
    high, low = np.uint64(constant >> 32), np.uint64(constant & 2**32 - 1)
    x_high, x_low = x >> _HALF, x & _MASK
    middle = high * x_low + (low * x_low >> _HALF)
    other = low * x_high + (middle & _MASK)
    return high * x_high + (middle >> _HALF) + (other >> _HALF), np.uint64(constant) * x


def _halves(seed: int, positions: Sequence[int], purpose: str, count: int) -> np.ndarray:
    """The first `count` words of 32 bits, lower halves first: `(B, count)` uint64."""
    found = words(seed, positions, purpose, -(-count // 2)).astype("<u8").view("<u4")
    return found[:, :count].astype(np.uint64)


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
        if 0 < (count := math.prod(shape)) <= 2 * _FEW_WORDS:
            drawn = (_halves(self.seed, self.positions, purpose, count) >> np.uint64(8)) * np.float32(2**-24)
            return self._there(drawn.astype(np.float32).reshape(-1, *shape))
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
        halves = _halves(self.seed, self.positions, purpose, count)
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
