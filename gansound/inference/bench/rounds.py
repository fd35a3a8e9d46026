"""Timing several contestants against each other on a machine that is never quite quiet.

Each round times every contestant once, in an order drawn anew, so that whatever else the machine does falls on all of
them alike; ratios are taken within a round before their median is.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name")
REST_SECONDS = (
    0.02  # between contestants: some runtimes' threads spin on for a while after their work is done
)
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Spread:
    """The median of the rounds and the range they lie in."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("got no values, expected one or more rounds")
        return cls(statistics.median(values), min(values), max(values))


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Ratios of what was measured in the same round.

    Raises:
        ValueError: not as many of one as of the other.
    """
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank: a value that was measured, at or below which lie `percent` of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def interleave(
    contestants: Mapping[Name, Callable[[], Sequence[float]]],
    *,
    rounds: int,
    limit_seconds: float = math.inf,
    seed: int = 0,
) -> dict[Name, list[list[float]]]:
    """Run every contestant once a round, in shuffled order.

    Args:
        contestants: each does its work and gives the seconds that its repetitions took.
        rounds: how many; fewer when they take longer than `limit_seconds` in all, but at least `LEAST_ROUNDS`.
        limit_seconds: see `rounds`.
        seed: of the order.

    Returns:
        for each contestant, for each round, what it gave.
    """
    order = random.Random(seed)
    names = list(contestants)
    results: dict[Name, list[list[float]]] = {name: [] for name in names}
    began = time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - began > limit_seconds:
            break
        order.shuffle(names)
        for name in names:
            time.sleep(REST_SECONDS)
            results[name].append(list(contestants[name]()))
    return results


def timed(work: Callable[[], object], repetitions: int) -> list[float]:
    """Seconds that each repetition took."""
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def repetitions_for(one_seconds: float, sample_seconds: float, most: int) -> int:
    """How many repetitions fill `sample_seconds`, from 1 to `most`."""
    return max(1, min(most, math.ceil(sample_seconds / max(one_seconds, 1e-9))))
