"""An evaluation as one JSON object with named, unit-suffixed figures, to be compared by a program."""

from collections.abc import Mapping
from typing import Any

from gansound.metrics.evaluation import Evaluation
from gansound.metrics.faults import ALARM_ABOVE_DB
from gansound.metrics.judge import FIGURES
from gansound.metrics.summary import Interval

MEL_DISTANCE_CONVENTION = (
    "natural-log magnitude mel of the waveforms: 80 Slaney bands, 0 Hz to Nyquist, Hann window of the power of two "
    "nearest 46 ms, hop a quarter of it, centred, floor 1e-5"
)
_COUNTS = ("word_errors", "spoken_words")


def evaluation_record(evaluation: Evaluation, **about: Any) -> dict[str, Any]:
    """The whole evaluation as JSON holds it.

    Top level: `about` as given, then the first system's figures as `NAME_mean`, `NAME_low`, `NAME_high` (95 %
    interval) and `NAME_count`. `systems` holds the same for every system, `differences` for each pair
    (first system - other), `utterances` the single figures, `failures` what couldn't be judged. A measure asked for
    that was undefined everywhere is null with count 0.
    """
    model, *others = evaluation.systems[1:]
    systems = {system: flat(_complete(evaluation, system)) for system in evaluation.systems}
    return {
        **about,
        "sample_rate_hz": evaluation.sample_rate,
        "seed": evaluation.seed,
        "measures": list(evaluation.measures),
        "mel_distance_convention": MEL_DISTANCE_CONVENTION,
        "utterance_count": len(evaluation.utterances),
        "failure_count": len(evaluation.failures),
        "audio_seconds": sum(utterance.seconds for utterance in evaluation.utterances),
        **systems[model],
        "systems": systems,
        "differences": {
            f"{model} - {other}": flat(evaluation.difference(model, other))
            for other in (*others, evaluation.systems[0])
        },
        "alarm_limits": ALARM_ABOVE_DB if "faults" in evaluation.measures else {},
        "alarm_counts": {
            system: {figure: len(ids) for figure, ids in evaluation.alarms(system).items()}
            for system in evaluation.systems
        },
        "speakers": {
            speaker: {
                "utterance_count": len(of_speaker.utterances),
                **{system: flat(of_speaker.summary(system)) for system in evaluation.systems},
            }
            for speaker, of_speaker in evaluation.by_speaker().items()
        },
        "utterances": [
            {
                "id": utterance.id,
                "seconds": utterance.seconds,
                "text": utterance.text,
                "speaker": utterance.speaker,
                "systems": {
                    system: {name: value for name, value in figures.items() if name != "seconds"}
                    for system, figures in utterance.systems.items()
                },
                "undefined": {system: reasons for system, reasons in utterance.undefined.items() if reasons},
            }
            for utterance in evaluation.utterances
        ],
        "failures": [{"id": failure.id, "reason": failure.reason} for failure in evaluation.failures],
    }


def _complete(evaluation: Evaluation, system: str) -> dict[str, Interval | None]:
    found = evaluation.summary(system)
    asked: dict[str, None] = {}
    if system != evaluation.systems[0]:
        names = (name for measure in evaluation.measures for name in FIGURES[measure])
        asked = dict.fromkeys(name for name in names if name not in _COUNTS)
    return {**asked, **found}


def flat(intervals: Mapping[str, Interval | None]) -> dict[str, float | int | None]:
    """Mean, both ends and count of each as values of their own, `NAME_mean` to `NAME_count`."""
    flat: dict[str, float | int | None] = {}
    for name, interval in intervals.items():
        flat[f"{name}_mean"] = None if interval is None else interval.mean
        flat[f"{name}_low"] = None if interval is None else interval.low
        flat[f"{name}_high"] = None if interval is None else interval.high
        flat[f"{name}_count"] = 0 if interval is None else interval.count
    return flat
