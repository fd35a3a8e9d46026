"""Judge generated sounds as a set: how far from real ones, how real, how various, how new.

Every figure stands beside two floors, what real sounds get at the same sizes of the sets: `split`, training sounds in
the generated ones' place (what separates the held-out part, other kits or other speakers, is in it), and `chance`,
random parts of all real sounds (nothing but chance is in it). A generator that drew from the training set would reach
the first; none can be held to more than the second.

Distances to the nearest are of log-mels in 64 bands and 32 cells whatever the backbone, as root-mean-square decibels a
cell: the |D|train and |D|self of WaveGAN (arXiv 1802.04208, section 5.2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from gansound.audio import resample
from gansound.counts import counted
from gansound.draw import draw
from gansound.metrics.sets.backbone import UNIT_DB, Backbone, Classifying, LogMelBackbone, checked_clips
from gansound.metrics.sets.distances import frechet_distance, kernel, unbiased
from gansound.metrics.sets.inception import inception_score
from gansound.metrics.sets.neighbours import prdc_of_distances, told_apart
from gansound.metrics.sets.newness import Newness, newness
from gansound.metrics.sets.points import Points, distances_within
from gansound.metrics.sets.resampling import Estimate, Figures, Indices, halves_interval, spread, subset
from gansound.metrics.sets.texture import HearingBackbone

_FLOOR_DRAWS = 40
_SUBSETS = 20
_POOL = 4000
_FINE = 64, 32


@dataclass(frozen=True, slots=True)
class SetFigure:
    """A figure of generated sounds with its 95 % interval, and what real ones get (None where there is no such)."""

    estimate: Estimate
    split: Estimate
    chance: Estimate | None


@dataclass(frozen=True)
class SetEvaluation:
    """What `evaluate_sets` found.

    Attributes:
        figures: by name; `_db` are decibels.
        compared: how many generated sounds and how many real ones a comparison of two sets has.
        single: how many a figure of one set has.
        nearest: for each generated sound the training sound nearest to it, by number.
        nearest_db: and how far that is.
    """

    backbone: str
    sample_rate: int
    clip_seconds: float
    k: int
    seed: int
    real_count: int
    train_count: int
    fake_count: int
    compared: tuple[int, int]
    single: int
    figures: dict[str, SetFigure]
    nearest: NDArray[np.intp]
    nearest_db: Points


class SetJudge:
    """The real side, embedded once, against which any number of generated sets is judged.

    Args:
        real: held-out clips `(N, T)`.
        train: clips that were trained on `(M, T)`, prepared alike.
        sample_rate: of all clips, in Hz.
        backbone: levels, tonality and texture by default; at another rate the clips are resampled for it.
        k: neighbours of precision, recall, density and coverage.
        seed: of subsets and halves.
        resamples: halves that an interval is from.
        real_labels: class numbers of the held-out clips in the order of the backbone's labels, where it classifies.
        train_labels: likewise.

    Raises:
        ValueError: too few clips, of different lengths, NaN or infinity.
    """

    def __init__(
        self,
        real: ArrayLike,
        train: ArrayLike,
        sample_rate: int,
        *,
        backbone: Backbone | None = None,
        k: int = 5,
        seed: int = 0,
        resamples: int = 200,
        real_labels: Sequence[int] | None = None,
        train_labels: Sequence[int] | None = None,
    ) -> None:
        self.sample_rate, self.k, self.seed, self.resamples = sample_rate, k, seed, resamples
        self.backbone: Backbone = HearingBackbone(sample_rate) if backbone is None else backbone
        self._fine = LogMelBackbone(sample_rate, *_FINE)
        if k < 1:
            raise ValueError(f"k: got {k}, expected at least 1 neighbour")
        self._samples = np.shape(real)[-1]
        self.real = self._set("held-out", real, real_labels)
        self.train = self._set("training", train, train_labels)
        # The floor by chance needs no more than so many, and takes their square in memory.
        kept = subset(len(self.train.points), _POOL, self._rng("pool"))
        self._pool = self.real.joined(self.train.taken(kept))
        self._floors = lru_cache(maxsize=4)(self._measured_floors)

    @threadpool_limits.wrap(limits=1)  # hundreds of matrices too small to share, beside whatever else runs
    def judge(self, fake: ArrayLike, labels: Sequence[int] | None = None) -> SetEvaluation:
        """Generated clips `(F, T)`; with `labels`, the classes that were asked for.

        Raises:
            ValueError: too few clips, another length, NaN or infinity.
        """
        own = self._set("generated", fake, labels)
        size = min(len(own.points), len(self.train.points))
        used = own.taken(subset(len(own.points), size, self._rng("generated")))
        found = self._estimates(self.real, used, own)
        split, chance = self._floors(size)
        figures = {
            name: SetFigure(estimate, split[name], chance.get(name)) for name, estimate in found.items()
        }
        new = self._newness(own)
        return SetEvaluation(
            backbone=self.backbone.name,
            sample_rate=self.sample_rate,
            clip_seconds=self._samples / self.sample_rate,
            k=self.k,
            seed=self.seed,
            real_count=len(self.real.points),
            train_count=len(self.train.points),
            fake_count=len(own.points),
            compared=(size, len(self.real.points)),
            single=self._single(size),
            figures=figures,
            nearest=new.nearest,
            nearest_db=new.distances,
        )

    def _measured_floors(self, size: int) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        rng = self._rng("floors")
        count, total = len(self.real.points), len(self._pool.points)
        stand_in = self.train.taken(subset(len(self.train.points), size, rng))
        split = self._estimates(self.real, stand_in, self.real)
        split |= self._of_one(stand_in, self._single(size))
        pair, one = _Pair(self._pool, self.k), _One(self._pool)
        drawn, alone = [], []
        for _ in range(_FLOOR_DRAWS):
            order = rng.permutation(total)
            drawn.append(pair.figures(order[:count], order[count:][:size]))
            alone.append(one.figures(order[: self._single(size)]))
        new = newness(self._pool.fine, self._pool.fine, same=True)
        return split, spread(drawn) | spread(alone) | self._of_newness(new)

    def _estimates(self, real: "_Set", fake: "_Set", query: "_Set") -> dict[str, Estimate]:
        """Every figure: of `fake` beside `real`, of `fake` alone, of `query` beside the training set."""
        both, first = real.joined(fake), len(real.points)
        pair = _Pair(both, self.k)

        def figures(a: Indices, b: Indices) -> Figures:
            return pair.figures(a, first + b)

        sizes = first, len(fake.points)
        whole = figures(*(np.arange(size) for size in sizes))
        found = halves_interval(whole, figures, sizes, self._rng("halves"), self.resamples)
        return found | self._of_one(fake, self._single(sizes[1])) | self._of_newness(self._newness(query))

    def _of_one(self, sounds: "_Set", size: int) -> dict[str, Estimate]:
        one, rng, count = _One(sounds), self._rng("one"), len(sounds.points)
        subsets = spread([one.figures(subset(count, size, rng)) for _ in range(_SUBSETS)])
        whole = {name: estimate.value for name, estimate in subsets.items()}
        return halves_interval(whole, one.figures, (count,), rng, self.resamples)

    def _of_newness(self, new: Newness) -> dict[str, Estimate]:
        each = {"train_distance_db": new.distances, "authenticity": new.authentic.astype(np.float64)}

        def figures(chosen: Indices) -> Figures:
            return {name: float(values[chosen].mean()) for name, values in each.items()}

        count = len(new.distances)
        return halves_interval(
            figures(np.arange(count)), figures, (count,), self._rng("newness"), self.resamples
        )

    def _newness(self, sounds: "_Set") -> Newness:
        return newness(sounds.fine, self.train.fine)

    def _single(self, size: int) -> int:
        return min(size, len(self.real.points))

    def _rng(self, purpose: str) -> np.random.Generator:
        return draw(self.seed, 0, f"evaluate sets {purpose}")

    def _set(self, name: str, clips: ArrayLike, labels: Sequence[int] | None) -> "_Set":
        try:
            sounds = checked_clips(clips)
        except ValueError as error:
            raise ValueError(f"{name} sounds: {error}") from None
        least = least_sounds(self.k)
        if len(sounds) < least:
            raise ValueError(
                f"got {counted(len(sounds), f'{name} sound')}, expected at least {least} for figures with {self.k} "
                "neighbours and their intervals; 100 say something, 1000 say it well"
            )
        if sounds.shape[1] != self._samples:
            raise ValueError(
                f"{name} sounds are {sounds.shape[1]} samples long and held-out ones {self._samples}, expected one "
                "length"
            )
        fine = self._fine.embed(sounds) * (UNIT_DB / np.sqrt(_FINE[0] * _FINE[1]))
        rate = self.backbone.sample_rate
        heard = sounds if rate == self.sample_rate else resample(sounds, self.sample_rate, rate)
        points = np.asarray(self.backbone.embed(heard), dtype=np.float64)
        if points.ndim != 2 or len(points) != len(sounds) or not np.isfinite(points).all():
            raise ValueError(
                f"backbone {self.backbone.name}: gave {points.shape} for {len(sounds)} clips, or numbers that aren't "
                "finite; expected (N, D)"
            )
        probabilities = self.backbone.probabilities(heard) if isinstance(self.backbone, Classifying) else None
        asked = None if labels is None or probabilities is None else np.asarray(labels, dtype=np.intp)
        return _Set(points, fine, probabilities, asked)


def least_sounds(k: int) -> int:
    """How many of a kind there must be, so that in half of them each still has `k` others."""
    return 2 * (k + 1)


def evaluate_sets(
    real: ArrayLike,
    fake: ArrayLike,
    train: ArrayLike,
    sample_rate: int,
    *,
    backbone: Backbone | None = None,
    k: int = 5,
    seed: int = 0,
    resamples: int = 200,
) -> SetEvaluation:
    """Judge one generated set `(F, T)` against held-out `(N, T)` and training clips `(M, T)`; see `SetJudge`."""
    judge = SetJudge(real, train, sample_rate, backbone=backbone, k=k, seed=seed, resamples=resamples)
    return judge.judge(fake)


@dataclass(frozen=True)
class _Set:
    """Sounds as points of the backbone, as fine log-mels in decibels, and as the classifier has them."""

    points: Points
    fine: Points
    probabilities: Points | None
    labels: NDArray[np.intp] | None

    def taken(self, chosen: Indices) -> "_Set":
        return self._each(lambda values: values[chosen])

    def joined(self, other: "_Set") -> "_Set":
        pairs = zip(self._parts(), other._parts(), strict=True)
        return _Set(*(None if a is None or b is None else np.concatenate([a, b]) for a, b in pairs))  # type: ignore[arg-type]

    def _each(self, function: Callable[[NDArray], NDArray]) -> "_Set":
        return _Set(*(None if part is None else function(part) for part in self._parts()))  # type: ignore[arg-type]

    def _parts(self) -> tuple[NDArray | None, ...]:
        return self.points, self.fine, self.probabilities, self.labels


class _Pair:
    """Figures of two sets, given as indices into one."""

    def __init__(self, sounds: _Set, k: int) -> None:
        self._points, self._k = sounds.points, k
        self._distances = distances_within(sounds.points)
        self._kernel = kernel(sounds.points, sounds.points)

    def figures(self, real: Indices, fake: Indices) -> Figures:
        def blocks(matrix: Points) -> tuple[Points, Points, Points]:
            return matrix[real[:, None], real], matrix[fake[:, None], fake], matrix[real[:, None], fake]

        return {
            "frechet_distance": frechet_distance(self._points[real], self._points[fake]),
            "kernel_distance": unbiased(*blocks(self._kernel)),
            "told_apart": told_apart(*blocks(self._distances)),
            **prdc_of_distances(*blocks(self._distances), self._k)._asdict(),
        }


class _One:
    """Figures of one set, given as indices."""

    def __init__(self, sounds: _Set) -> None:
        self._distances = distances_within(sounds.fine)
        self._probabilities, self._labels = sounds.probabilities, sounds.labels

    def figures(self, chosen: Indices) -> Figures:
        nearest = self._distances[chosen[:, None], chosen].min(axis=1)
        found = {"self_distance_db": float(nearest.mean())}
        if self._probabilities is not None:
            likely = self._probabilities[chosen]
            found["inception_score"] = inception_score(likely, splits=1).mean
            if self._labels is not None:
                found["label_agreement"] = float((likely.argmax(axis=1) == self._labels[chosen]).mean())
        return found
