"""Judge vocoders on recordings: each utterance resynthesised by each system, measured against the recording.

A system is any callable `vocode(audio (T,) float32, sample_rate) -> audio` at the same rate, one at a rate of its own,
or a folder of sounds made elsewhere, so training's validation, `gansound evaluate` and `gansound compare` share this
module, and it knows nothing of models.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansound.audio import read, resample
from gansound.metrics.faults import ALARM_ABOVE_DB
from gansound.metrics.judge import DEFAULT_MEASURES, PROBES, Judgement, check_measures, judge
from gansound.metrics.pair import matched, one_waveform
from gansound.metrics.probes import Vocode, probe
from gansound.metrics.recorded import RecordedSounds
from gansound.metrics.summary import Interval, mean_interval, paired_difference

log = logging.getLogger(__name__)

Measure = Callable[[NDArray[np.float32], NDArray[np.float32], int], float]
Through = Callable[..., Iterator[Any]]
GROUND_TRUTH = "ground truth"
_BATCH = 16

WEIGHTS = {"word_error_rate": "spoken_words", "real_time_factor": "seconds"}
"""Rates over the whole set: each utterance counts by this figure, so the mean is e.g. errors per word."""
_NOT_SUMMARISED = frozenset({"seconds", "spoken_words", "word_errors"})


@dataclass(frozen=True, slots=True)
class AtOwnRate:
    """A system with a rate of its own: it hears recordings at that, which may be more than all is measured at.

    Attributes:
        vocode: as a system, called at `sample_rate`.
        sample_rate: hertz.
    """

    vocode: Vocode
    sample_rate: int

    def __call__(self, audio: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        return self.heard_at(audio, sample_rate, sample_rate)

    def heard_at(self, audio: NDArray[np.float32], rate: int, wanted_rate: int) -> NDArray[np.float32]:
        """What it makes of a recording of one rate, at another."""
        made = self.vocode(resample(audio, rate, self.sample_rate), self.sample_rate)
        return resample(np.asarray(made), self.sample_rate, wanted_rate)


System = Vocode | AtOwnRate | RecordedSounds


@dataclass(frozen=True, slots=True)
class Item:
    """One recording to judge on. `load` gives `(audio (T,), sample_rate)`; `text` is what it says, if known.

    `id` is its path below the data's folder where folders of sounds are to be judged.
    """

    id: str
    load: Callable[[], tuple[NDArray[np.float32], int]]
    text: str | None = None
    speaker: str | None = None

    @classmethod
    def from_file(
        cls, path: Any, *, id: str | None = None, text: str | None = None, speaker: str | None = None
    ) -> "Item":
        """A whole audio file, mixed to mono."""
        return cls(id or str(path), partial(read, path), text, speaker)


@dataclass(frozen=True, slots=True)
class Utterance:
    """The figures of one item: `systems[system][figure]`, None where a measure is undefined, with its reason."""

    id: str
    seconds: float
    text: str | None
    systems: dict[str, dict[str, float | None]]
    undefined: dict[str, dict[str, str]]
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that couldn't be judged."""

    id: str
    reason: str


@dataclass
class Evaluation:
    """What `evaluate` found. `systems` are in the order given, ground truth first.

    `probes[system]` are figures of the system itself, None where undefined; they have no interval.
    """

    sample_rate: int
    systems: tuple[str, ...]
    measures: tuple[str, ...]
    seed: int
    utterances: list[Utterance] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    probes: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def values(self, system: str, figure: str) -> list[float | None]:
        """One value an utterance, None where undefined."""
        return [utterance.systems[system].get(figure) for utterance in self.utterances]

    def figures(self, system: str) -> list[str]:
        """Names of the figures that at least one utterance has, in the order of measuring."""
        names: dict[str, None] = {}
        for utterance in self.utterances:
            names |= {n: None for n, v in utterance.systems[system].items() if v is not None}
        return [name for name in names if name not in _NOT_SUMMARISED]

    def summary(self, system: str) -> dict[str, Interval]:
        """Mean and 95 % interval of each figure over the utterances where it is defined; a probe's is a point."""
        out = {}
        for figure in self.figures(system):
            kept = [(v, i) for i, v in enumerate(self.values(system, figure)) if v is not None]
            weights = self._weights(system, figure, [i for _, i in kept])
            out[figure] = mean_interval([v for v, _ in kept], weights=weights, seed=self.seed)
        probes = self.probes.get(system, {})
        return out | {name: Interval(v, v, v, 1) for name, v in probes.items() if v is not None}

    def difference(self, first: str, second: str) -> dict[str, Interval]:
        """Mean of first - second over the utterances where both are defined, paired, with 95 % intervals."""
        out = {}
        for figure in self.figures(first):
            a, b = self.values(first, figure), self.values(second, figure)
            if any(x is not None and y is not None for x, y in zip(a, b, strict=True)):
                weights = self._weights(first, figure, range(len(a)))
                out[figure] = paired_difference(a, b, weights=weights, seed=self.seed)
        for figure, one in self.probes.get(first, {}).items():
            other = self.probes.get(second, {}).get(figure)
            if one is not None and other is not None:
                out[figure] = Interval(one - other, one - other, one - other, 1)
        return out

    def by_speaker(self) -> dict[str, "Evaluation"]:
        """The utterances of each known speaker as an evaluation of its own, without probes, sorted by name."""
        speakers = sorted({u.speaker for u in self.utterances if u.speaker is not None})
        return {
            name: replace(
                self, utterances=[u for u in self.utterances if u.speaker == name], failures=[], probes={}
            )
            for name in speakers
        }

    def alarms(self, system: str) -> dict[str, list[str]]:
        """Ids of the utterances that raised an alarm, by detector; those that raised none are left out."""
        found: dict[str, list[str]] = {}
        for figure, limit in ALARM_ABOVE_DB.items():
            for utterance, value in zip(self.utterances, self.values(system, figure), strict=True):
                if value is not None and value > limit:
                    found.setdefault(figure, []).append(utterance.id)
        return found

    def _weights(self, system: str, figure: str, indices: Iterable[int]) -> list[float] | None:
        if figure not in WEIGHTS:
            return None
        # Where a value is undefined its weight is too; such a pair is left out before the weight is used.
        return [self.utterances[i].systems[system].get(WEIGHTS[figure]) or 1.0 for i in indices]


def evaluate(
    items: Iterable[Item],
    systems: Mapping[str, System],
    sample_rate: int,
    *,
    hop_length: int | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    jobs: int = 1,
    run: Through | None = None,
    seed: int = 0,
    extra: Mapping[str, Measure] | None = None,
    on_progress: Callable[[str], None] | None = None,
    on_audio: Callable[[Item, dict[str, NDArray[np.float32]]], None] | None = None,
) -> Evaluation:
    """Resynthesise every item by every system and judge the results.

    Recordings are brought to `sample_rate` first, but for systems that hear them at a rate of their own. Systems run
    one after the other in this process while no judge works, so that their `real_time_factor` (seconds of work per
    second of audio, front end included) is their own; how many threads they take is the caller's business. Judges run
    in `jobs` processes (1: this one).

    Args:
        items: recordings; drawn lazily, a batch at a time.
        systems: callables, or folders of sounds, by name.
        sample_rate: hertz of everything measured and of what systems get and give.
        jobs: processes that judge.
        run: what takes items through loading, systems and judges elsewhere, as `on_ray.Pool.through`; their real-time
            factors are then those of systems that share a machine.
        seed: of the bootstrap.
        extra: further measures by figure name, `(reference, estimate, sample_rate) -> float`, run in this process.
        hop_length: samples a frame, by which a system's output may differ in length; 25 ms without it, and no
            lines in noise.
        measures: names out of `judge.MEASURES`; none where `extra` has some.
        on_progress: called with the item's id when it is done or has failed.
        on_audio: called with the item and its waveforms, ground truth included, at `sample_rate`.

    Returns:
        The figures. An item that fails is listed in `failures` with its reason, and the others go on.

    Raises:
        ValueError: an unknown measure, no system, a system named "ground truth", `jobs` below 1.
        MissingPackage: a measure asked for needs the extra `eval`.
    """
    measures = check_measures(measures) if measures or not extra else ()
    if not systems or GROUND_TRUTH in systems:
        raise ValueError(f"got systems {list(systems)}, expected at least one, none named {GROUND_TRUTH!r}")
    if jobs < 1:
        raise ValueError(f"got jobs {jobs}, expected at least 1")
    result = Evaluation(sample_rate, (GROUND_TRUTH, *systems), measures, seed)
    if PROBES in measures:
        result.probes = {
            name: probe(system, sample_rate, hop_length)
            for name, system in systems.items()
            if not isinstance(system, RecordedSounds)
        }
    make = partial(_Synthesis, systems, sample_rate, hop_length, dict(extra or {}))
    judging = _Judging(sample_rate, measures, hears=on_audio is not None)
    if run is None:
        found = _here(items, make(), judging, jobs)
    else:
        found = run(make, list(items), before=_loaded, after=judging, lost=_lost)
    for item, outcome, audio in found:
        if audio is not None and on_audio is not None:
            try:
                on_audio(item, audio)
            except (ValueError, OSError, RuntimeError) as error:
                outcome = Failure(item.id, str(error))
        if isinstance(outcome, Utterance):
            result.utterances.append(outcome)
        else:
            result.failures.append(outcome)
            log.warning("%s: %s", item.id, outcome.reason)
        if on_progress is not None:
            on_progress(item.id)
    return result


def _here(
    items: Iterable[Item], synthesis: "_Synthesis", judging: "_Judging", jobs: int
) -> "Iterator[_Outcome]":
    with ExitStack() as stack:
        judged: Callable[..., Iterable[_Outcome]] = map
        if jobs > 1:
            # Spawned, not forked: torch's threads and locks don't survive a fork.
            context = multiprocessing.get_context("spawn")
            judged = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=context)).map
        for batch in _batches(items, _BATCH if jobs > 1 else 1):
            made = [synthesis(item) for item in batch]
            # Items stay here: what loads one may be nothing that can be sent.
            sent = [replace(one, item=replace(one.item, load=_nothing)) for one in made]
            for one, (_, outcome, _) in zip(made, judged(replace(judging, hears=False), sent), strict=True):
                yield one.item, outcome, one.audio if judging.hears and one.failure is None else None


@dataclass(frozen=True)
class _Made:
    """An item's waveforms, the seconds that each system took and the figures of extra measures; or why not."""

    item: Item
    audio: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    extra: dict[str, dict[str, float]] = field(default_factory=dict)
    failure: str | None = None


_Outcome = tuple[Item, Utterance | Failure, dict[str, NDArray[np.float32]] | None]


class _Synthesis:
    """Systems at work on items."""

    def __init__(
        self,
        systems: Mapping[str, System],
        sample_rate: int,
        hop_length: int | None,
        extra: Mapping[str, Measure],
    ) -> None:
        self._systems, self._rate, self._hop, self._extra = systems, sample_rate, hop_length, extra
        self._warm: set[str] = set()

    def __call__(self, item: Item) -> _Made:
        try:
            audio, seconds = _synthesise(item, self._systems, self._rate, self._hop, self._warm)
            extra = {
                name: {
                    figure: measure(audio[GROUND_TRUTH], audio[name], self._rate)
                    for figure, measure in self._extra.items()
                }
                for name in self._systems
            }
            return _Made(item, audio, seconds, extra)
        except (ValueError, OSError, RuntimeError) as error:
            return _Made(item, failure=str(error))


@dataclass(frozen=True)
class _Judging:
    """What is made of an item, judged; with its waveforms where they are to be heard."""

    sample_rate: int
    measures: tuple[str, ...]
    hears: bool

    def __call__(self, made: _Made) -> _Outcome:
        item, audio = made.item, made.audio
        if made.failure is not None:
            return item, Failure(item.id, made.failure), None
        judgement = _judge((audio, self.sample_rate, item.text, self.measures))
        outcome: Utterance | Failure = Failure(item.id, str(judgement))
        if isinstance(judgement, Judgement):
            outcome = _utterance(item, audio, self.sample_rate, made.seconds, made.extra, judgement)
        return item, outcome, audio if self.hears else None


def _loaded(item: Item) -> Item:
    """The same with its samples read, or as it was where they can't be: whoever loads it says why."""
    try:
        samples, rate = item.load()
    except (ValueError, OSError, RuntimeError):
        return item
    return replace(item, load=partial(_samples, samples, rate))


def _samples(samples: NDArray[np.float32], rate: int) -> tuple[NDArray[np.float32], int]:
    return samples, rate


def _nothing() -> tuple[NDArray[np.float32], int]:
    raise AssertionError("what is judged was loaded")


def _lost(item: Item, reason: str) -> _Outcome:
    return item, Failure(item.id, reason), None


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _synthesise(
    item: Item, systems: Mapping[str, System], sample_rate: int, hop_length: int | None, warm: set[str]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Waveforms of ground truth and every system, all cut to one length, and the seconds each system took."""
    given, rate = item.load()
    given = np.asarray(given)
    recorded = one_waveform(resample(given, rate, sample_rate), "recording", sample_rate)
    audio, seconds = {GROUND_TRUTH: recorded}, {}
    for name, system in systems.items():
        if isinstance(system, RecordedSounds):
            made = system.sound(item.id, sample_rate)
        else:
            if name not in warm:
                # The first call pays for imports, buffers and plans: not what a user waits for later.
                system(recorded[: 2 * sample_rate], sample_rate)
                warm.add(name)
            start = time.perf_counter()
            if isinstance(system, AtOwnRate):
                made = system.heard_at(given, rate, sample_rate)
            else:
                made = system(recorded, sample_rate)
            seconds[name] = time.perf_counter() - start
        try:
            audio[name] = matched(recorded, made, sample_rate, tolerance_samples=hop_length)[1]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    length = min(waveform.size for waveform in audio.values())
    return {name: waveform[:length] for name, waveform in audio.items()}, seconds


def _judge(work: tuple[dict[str, NDArray[np.float32]], int, str | None, tuple[str, ...]]) -> Judgement | str:
    audio, sample_rate, text, measures = work
    try:
        estimates = {name: waveform for name, waveform in audio.items() if name != GROUND_TRUTH}
        return judge(
            audio[GROUND_TRUTH], estimates, sample_rate, text=text, measures=measures, own=GROUND_TRUTH
        )
    except (ValueError, RuntimeError) as error:
        return str(error)


def _utterance(
    item: Item,
    audio: dict[str, NDArray[np.float32]],
    sample_rate: int,
    seconds: dict[str, float],
    here: dict[str, dict[str, float]],
    judgement: Judgement,
) -> Utterance:
    length = audio[GROUND_TRUTH].size / sample_rate
    figures: dict[str, dict[str, float | None]] = {}
    for system in audio:
        timing = {"real_time_factor": seconds[system] / length} if system in seconds else {}
        figures[system] = {"seconds": length, **judgement.figures[system], **here.get(system, {}), **timing}
    return Utterance(item.id, length, item.text, figures, judgement.undefined, item.speaker)
