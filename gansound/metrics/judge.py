"""Every measure of one utterance at once, so that what several share (the reference's pitch) is made once.

The measures by name and the figures each gives:

| measure | figures | without a reference | extra |
|---|---|---|---|
| `pesq` | `pesq_wb` | | `eval` |
| `stoi` | `stoi` | | `eval` |
| `mel` | `mel_distance` (nepers) | | `eval` |
| `stft` | `stft_convergence`, `stft_log_magnitude` (nepers) | | |
| `pitch` | `f0_rmse_cents`, `f0_rmse_hz`, `voicing_error` (a share), `voicing_f1`, `periodicity_rmse` | | `eval` |
| `mcd` | `mel_cepstral_distortion_db` | | `eval` |
| `band` | `empty_band_percent` | | |
| `pulses` | `pitch_modulation_kept_percent` | | |
| `faults` | `pause_tone_db`, `step_db`, `above_band_db`, `onset_smear_db`, `level_drift_db` | | |
| `visqol` | `visqol_speech`, `visqol_audio` | | `eval` |
| `dnsmos` | `dnsmos_p808`, `dnsmos_sig`, `dnsmos_bak`, `dnsmos_ovrl` | yes | `eval` |
| `words` | `word_error_rate`, `word_errors`, `spoken_words` | yes, with text | `eval` |
| `probes` | `noise_lines_db`, `pre_echo_db`, `silence_level_dbfs`: of a vocoder, not of an utterance | | |
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from gansound.extras import MissingPackage, lacks, missing
from gansound.metrics.cepstral import mel_cepstral_distortion_db
from gansound.metrics.faults import DETECTORS
from gansound.metrics.pair import UndefinedMeasure
from gansound.metrics.pesq import pesq_wb
from gansound.metrics.pitch import PitchTrack, compare_tracks, track_pitch
from gansound.metrics.pulses import pitch_modulation_kept_percent
from gansound.metrics.quality import dnsmos
from gansound.metrics.spectral import mel_distance, stft_distance
from gansound.metrics.stoi import stoi
from gansound.metrics.top_band import empty_band_percent
from gansound.metrics.visqol import visqol
from gansound.metrics.words import word_errors

PROBES = "probes"
MEASURES = (
    "pesq",
    "stoi",
    "mel",
    "mcd",
    "stft",
    "pitch",
    "band",
    "pulses",
    "faults",
    "visqol",
    "dnsmos",
    "words",
    PROBES,
)
DEFAULT_MEASURES = ("pesq", "stoi", "mel", "stft", "pitch")
FIGURES = {
    "pesq": ("pesq_wb",),
    "stoi": ("stoi",),
    "mel": ("mel_distance",),
    "stft": ("stft_convergence", "stft_log_magnitude"),
    "pitch": ("f0_rmse_cents", "f0_rmse_hz", "voicing_error", "voicing_f1", "periodicity_rmse"),
    "mcd": ("mel_cepstral_distortion_db",),
    "visqol": ("visqol_speech", "visqol_audio"),
    "band": ("empty_band_percent",),
    "pulses": ("pitch_modulation_kept_percent",),
    "faults": tuple(DETECTORS),
    "dnsmos": ("dnsmos_p808", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"),
    "words": ("word_error_rate", "word_errors", "spoken_words"),
    PROBES: ("noise_lines_db", "pre_echo_db", "silence_level_dbfs"),
}
_REFERENCE_FREE = frozenset({"dnsmos", "words"})
_PACKAGES = {
    "pesq": ("pesq",),
    "stoi": ("pystoi",),
    "mel": ("librosa",),
    "mcd": ("librosa",),
    "pitch": ("librosa",),
    "visqol": ("visqol",),
    "dnsmos": ("speechmos", "onnxruntime"),
    "words": ("pocketsphinx", "jiwer"),
}

Audio = NDArray[np.float32]


@dataclass
class Judgement:
    """`figures[system][figure]`, None where undefined; `undefined[system][figure]` is the reason."""

    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    undefined: dict[str, dict[str, str]] = field(default_factory=dict)


def missing_packages(measure: str) -> tuple[str, ...]:
    """Packages of the extra `eval` that this measure needs and that aren't installed."""
    return tuple(missing(*_PACKAGES.get(measure, ())))


def available_measures() -> tuple[str, ...]:
    """Measures that what is installed allows."""
    return tuple(measure for measure in MEASURES if not missing_packages(measure))


def check_measures(measures: Sequence[str]) -> tuple[str, ...]:
    """The measures in order of `MEASURES`; ValueError for an unknown one, MissingPackage for one not installed."""
    if unknown := sorted(set(measures) - set(MEASURES)):
        raise ValueError(f"got measure {', '.join(unknown)}, expected some of {', '.join(MEASURES)}")
    if not measures:
        raise ValueError(f"got no measure, expected some of {', '.join(MEASURES)}")
    for measure in measures:
        if absent := missing_packages(measure):
            raise MissingPackage(lacks(f"the measure {measure}", *absent, extra="eval"))
    return tuple(measure for measure in MEASURES if measure in measures)


def judge(
    reference: Audio,
    estimates: Mapping[str, Audio],
    sample_rate: int,
    *,
    text: str | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    own: str = "ground truth",
) -> Judgement:
    """Judge each estimate `(T,)` against the reference `(T,)`, and the reference itself where none is needed.

    `text` is what is said; without it there is no word error rate. The reference's figures come under `own`.
    A measure that is undefined for one system leaves None and its reason, and the rest goes on.
    """
    out = Judgement()
    tracked = cache(lambda: track_pitch(reference, sample_rate))
    for system, audio in {own: reference, **estimates}.items():
        figures, reasons = out.figures.setdefault(system, {}), out.undefined.setdefault(system, {})
        for measure in measures:
            if measure == PROBES or (system == own and measure not in _REFERENCE_FREE):
                continue
            if measure == "words" and text is None:
                continue
            for names, compute in _parts(measure, reference, audio, sample_rate, text or "", tracked):
                try:
                    figures.update(zip(names, compute(), strict=True))
                except UndefinedMeasure as error:
                    figures.update(dict.fromkeys(names))
                    reasons.update(dict.fromkeys(names, str(error)))
    return out


def _parts(
    measure: str,
    reference: Audio,
    audio: Audio,
    sample_rate: int,
    text: str,
    tracked: Callable[[], PitchTrack],
) -> Iterator[tuple[tuple[str, ...], Callable[[], tuple[float, ...]]]]:
    """Figures that are defined or undefined together, and what computes them."""
    pair = (reference, audio, sample_rate)
    names = FIGURES[measure]
    match measure:
        case "pesq":
            yield names, lambda: (pesq_wb(*pair),)
        case "stoi":
            yield names, lambda: (stoi(*pair),)
        case "mel":
            yield names, lambda: (mel_distance(*pair),)
        case "stft":
            yield names, lambda: stft_distance(*pair)
        case "pitch":
            yield names, lambda: compare_tracks(tracked(), track_pitch(audio, sample_rate))
        case "mcd":
            yield names, lambda: (mel_cepstral_distortion_db(*pair),)
        case "visqol":
            yield names, lambda: visqol(*pair)
        case "band":
            yield names, lambda: (empty_band_percent(*pair),)
        case "pulses":
            yield names, lambda: (pitch_modulation_kept_percent(*pair),)
        case "faults":
            for name, detector in DETECTORS.items():
                yield (name,), partial(_single, detector, *pair)
        case "dnsmos":
            yield names, lambda: dnsmos(audio, sample_rate)
        case _:
            yield names, lambda: _words(audio, sample_rate, text)


def _single(
    measure: Callable[[Audio, Audio, int], float], reference: Audio, audio: Audio, sample_rate: int
) -> tuple[float]:
    return (measure(reference, audio, sample_rate),)


def _words(audio: Audio, sample_rate: int, text: str) -> tuple[float, float, float]:
    errors = word_errors(audio, sample_rate, text)
    return errors.rate, float(errors.errors), float(errors.words)
