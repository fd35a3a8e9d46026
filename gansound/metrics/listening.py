"""Answers of blind listening: A/B/X trials and ratings against a hidden reference, read back and summed up.

Ratings follow ITU-R BS.1534-3 (MUSHRA): every system of an item is rated 0 to 100 beside the hidden reference and an
anchor low-passed at 3.5 kHz; who rates the hidden reference below 90 in more than 15 % of the items is left out
(4.1.2). An A/B/X answer is right or wrong; how likely that many are right by guessing is the binomial's tail.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gansound.counts import counted
from gansound.metrics.summary import Interval, mean_interval, paired_difference

REFERENCE, ANCHOR = "reference", "anchor"
COLUMNS = ("listener", "test", "item", "system", "rating", "other", "correct")
_SCREEN_RATING, _SCREEN_SHARE = 90.0, 0.15


@dataclass(frozen=True, slots=True)
class Rating:
    """One listener's rating, 0 to 100, of one system on one item."""

    listener: str
    item: str
    system: str
    rating: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One A/B/X trial of two systems: whether X was told."""

    listener: str
    item: str
    pair: tuple[str, str]
    correct: bool


@dataclass
class Answers:
    """What listeners said."""

    ratings: list[Rating] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)

    @property
    def listeners(self) -> list[str]:
        """Everyone who answered, in order of appearance."""
        return list(dict.fromkeys([a.listener for a in self.ratings] + [a.listener for a in self.choices]))

    def screened(self) -> list[str]:
        """Listeners who rated the hidden reference below 90 in more than 15 % of the items."""
        below: dict[str, list[bool]] = defaultdict(list)
        for answer in self.ratings:
            if answer.system == REFERENCE:
                below[answer.listener].append(answer.rating < _SCREEN_RATING)
        return [name for name, low in below.items() if sum(low) > _SCREEN_SHARE * len(low)]

    def systems(self) -> list[str]:
        """Every rated system, the reference first and the anchor last."""
        names = list(dict.fromkeys(answer.system for answer in self.ratings))
        return sorted(names, key=lambda name: (name == ANCHOR) - (name == REFERENCE))


@dataclass(frozen=True, slots=True)
class Told:
    """Of A/B/X trials of two systems: how many were right, and how likely that many or more are by guessing."""

    pair: tuple[str, str]
    correct: int
    count: int
    guessing: float


def read_answers(paths: Iterable[Path]) -> Answers:
    """Answers out of the CSV files that a listening page saves; the same answer twice counts once.

    Raises:
        ValueError: a file that isn't such a table, or holds a value that can't be, named with its line; or two answers
            of one listener to one question that differ.
        OSError: a file that can't be read.
    """
    found: dict[tuple[object, ...], Rating | Choice] = {}
    whose: dict[tuple[object, ...], Path] = {}
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: not text ({error.reason}), expected the CSV that a listening page saves"
            ) from None
        rows = csv.reader(text.splitlines())
        if tuple(next(rows, ())) != COLUMNS:
            raise ValueError(
                f"{path}: expected a first line {','.join(COLUMNS)}, as a listening page saves it"
            )
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) != len(COLUMNS):
                raise ValueError(
                    f"{path}:{number}: got {counted(len(row), 'value')}, expected {len(COLUMNS)}"
                )
            listener, test, item, system, rating, other, correct = row
            answer: Rating | Choice
            if test == "mushra":
                answer = Rating(listener, item, system, _rating(rating, f"{path}:{number}"))
            elif test == "abx" and correct in ("0", "1"):
                answer = Choice(listener, item, (system, other), correct == "1")
            else:
                raise ValueError(
                    f"{path}:{number}: got {','.join(row)}, expected a test mushra, or abx with 0 or 1"
                )
            question = (listener, test, item, system, other)
            if found.setdefault(question, answer) != answer:
                raise ValueError(
                    f"{path}:{number}: {listener!r} says another thing of {item} than in {whose[question]}. Of "
                    "two people give one another name in its file; of one who answered twice leave the older file out"
                )
            whose.setdefault(question, path)
    if not found:
        raise ValueError("the files hold no answers")
    answers = list(found.values())
    return Answers(
        [answer for answer in answers if isinstance(answer, Rating)],
        [answer for answer in answers if isinstance(answer, Choice)],
    )


def mean_ratings(answers: Answers, *, seed: int = 0) -> dict[str, Interval]:
    """Mean rating of each system over listeners and items, those screened left out, with 95 % intervals.

    The bootstrap draws whole items, each the mean over its listeners: what would come of other sentences.
    """
    out = {}
    for system, by_item in _by_item(answers).items():
        out[system] = mean_interval([sum(v) / len(v) for v in by_item.values()], seed=seed)
    return out


def rating_difference(answers: Answers, first: str, second: str, *, seed: int = 0) -> Interval:
    """Mean of first - second over the items, each the mean over the listeners who rated both, with 95 % interval."""
    left_out = set(answers.screened())
    given = {(a.listener, a.item, a.system): a.rating for a in answers.ratings if a.listener not in left_out}
    differences: dict[str, list[float]] = defaultdict(list)
    for (listener, item, system), rating in given.items():
        if system == first and (listener, item, second) in given:
            differences[item].append(rating - given[listener, item, second])
    means = [sum(values) / len(values) for values in differences.values()]
    return paired_difference(means, [0.0] * len(means), seed=seed)


def told_apart(answers: Answers) -> list[Told]:
    """For each pair of systems of the A/B/X trials: right answers, and the chance of as many by guessing."""
    trials: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for choice in answers.choices:
        trials[choice.pair].append(choice.correct)
    return [
        Told(pair, sum(right), len(right), _at_least(sum(right), len(right)))
        for pair, right in trials.items()
    ]


def _by_item(answers: Answers) -> dict[str, dict[str, list[float]]]:
    left_out = set(answers.screened())
    found: dict[str, dict[str, list[float]]] = {system: defaultdict(list) for system in answers.systems()}
    for answer in answers.ratings:
        if answer.listener not in left_out:
            found[answer.system][answer.item].append(answer.rating)
    return {system: dict(by_item) for system, by_item in found.items() if by_item}


def _at_least(correct: int, count: int) -> float:
    """P(X >= correct) for X ~ B(count, 1/2)."""
    return sum(math.comb(count, k) for k in range(correct, count + 1)) / 2**count


def _rating(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 100.0:
        raise ValueError(f"{where}: got rating {text!r}, expected 0 to 100")
    return value


def pairs_of(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Every two of them, in order."""
    return [(first, second) for index, first in enumerate(systems) for second in systems[index + 1 :]]
