"""Errors of fundamental frequency and voicing, tracked by pYIN (Mauch & Dixon, ICASSP 2014) in librosa.

Both waveforms are tracked at 16 kHz in windows of 64 ms every 10 ms, on a grid of 10 cents, which takes about a
tenth of real time on one core. Octave errors of the tracker count as they come.

`periodicity_rmse` and `voicing_f1` are the figures that Vocos (arXiv 2306.00814) and BigVGAN (arXiv 2206.04658) report,
after CARGAN (arXiv 2110.10139), but by pYIN's probability of voicing instead of CREPE's confidence: torchcrepe needs
a torchaudio that many installations lack, and three seconds of a core for one of sound. So they compare systems here,
not with those papers' tables.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.audio import resample
from gansound.extras import require
from gansound.metrics.pair import UndefinedMeasure, one_waveform

PITCH_SAMPLE_RATE = 16000
FRAME_SAMPLES = 1024
HOP_SAMPLES = 160
DEFAULT_FMIN_HZ = 65.0
DEFAULT_FMAX_HZ = 500.0


@dataclass(frozen=True, slots=True)
class PitchTrack:
    """Fundamental frequency every 10 ms.

    Shape: `f0_hz` `(F,)`, NaN where unvoiced; `voiced` `(F,)` bool; `periodicity` `(F,)`, the probability of voicing.
    """

    f0_hz: NDArray[np.float64]
    voiced: NDArray[np.bool_]
    periodicity: NDArray[np.float64]


class PitchError(NamedTuple):
    """RMS of F0 over frames voiced in both; the others are over all frames.

    `voicing_error` is the share whose voicing differs, `voicing_f1` the harmonic mean of precision and recall of the
    voiced ones, `periodicity_rmse` the RMS difference of the probabilities of voicing.
    """

    f0_rmse_cents: float
    f0_rmse_hz: float
    voicing_error: float
    voicing_f1: float
    periodicity_rmse: float


def track_pitch(
    audio: ArrayLike, sample_rate: int, *, fmin_hz: float = DEFAULT_FMIN_HZ, fmax_hz: float = DEFAULT_FMAX_HZ
) -> PitchTrack:
    """F0 of `(T,)` audio, `F = 1 + T16k // 160` frames centred on multiples of 10 ms.

    Raises:
        MissingPackage: `librosa` isn't installed.
        ValueError: `fmin_hz` below 32 (two periods must fit the window), or not below `fmax_hz` <= 4000.
    """
    require("The tracker of F0", "librosa")
    from librosa import pyin

    lowest = 2 * PITCH_SAMPLE_RATE / FRAME_SAMPLES
    if not lowest <= fmin_hz < fmax_hz <= PITCH_SAMPLE_RATE / 4:
        raise ValueError(
            f"got fmin_hz {fmin_hz} and fmax_hz {fmax_hz}, expected {lowest:g} <= fmin_hz < fmax_hz <= "
            f"{PITCH_SAMPLE_RATE / 4:g}"
        )
    samples = resample(one_waveform(audio, "audio", sample_rate), sample_rate, PITCH_SAMPLE_RATE)
    f0, voiced, probability = pyin(
        samples,
        sr=PITCH_SAMPLE_RATE,
        fmin=fmin_hz,
        fmax=fmax_hz,
        frame_length=FRAME_SAMPLES,
        hop_length=HOP_SAMPLES,
    )
    return PitchTrack(f0_hz=f0, voiced=voiced.astype(bool), periodicity=probability)


def compare_tracks(reference: PitchTrack, estimate: PitchTrack) -> PitchError:
    """Errors of one track against another, frame by frame, over the frames both have.

    Raises:
        UndefinedMeasure: no frame is voiced in both.
    """
    frames = min(reference.voiced.size, estimate.voiced.size)
    first, second = reference.voiced[:frames], estimate.voiced[:frames]
    both = first & second
    if not both.any():
        raise UndefinedMeasure(
            f"F0: no frame is voiced in both ({int(reference.voiced.sum())} of {frames} are in the reference)"
        )
    real, fake = reference.f0_hz[:frames][both], estimate.f0_hz[:frames][both]
    cents = 1200.0 * np.log2(fake / real)
    return PitchError(
        f0_rmse_cents=float(np.sqrt(np.mean(cents**2))),
        f0_rmse_hz=float(np.sqrt(np.mean((fake - real) ** 2))),
        voicing_error=float(np.mean(first != second)),
        voicing_f1=float(2 * both.sum() / (first.sum() + second.sum())),
        periodicity_rmse=float(
            np.sqrt(np.mean((reference.periodicity[:frames] - estimate.periodicity[:frames]) ** 2))
        ),
    )
