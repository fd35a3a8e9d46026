"""Perceptual evaluation of speech quality, wide band: ITU-T P.862 and P.862.2, through the package `pesq`.

Scores run from 1.04 (bad) to 4.64 (identical). The standard listens at 16 kHz, so nothing above 8 kHz counts,
and it aligns levels and delays by itself: neither is punished.
"""

from numpy.typing import ArrayLike

from gansound.audio import resample
from gansound.extras import require
from gansound.metrics.pair import UndefinedMeasure, is_silent, matched

PESQ_SAMPLE_RATE = 16000
WORST = 1.0


def pesq_wb(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Wide-band PESQ (MOS-LQO) of `estimate` `(T,)` against `reference` `(T,)`.

    An estimate that is silent where the reference isn't scores 1, the scale's end.

    Raises:
        MissingPackage: `pesq` isn't installed.
        UndefinedMeasure: the reference holds no utterance (silence), or the clip is shorter than a quarter of a second.
        ValueError: shapes, lengths or values that no measure takes (see `pair.matched`).
    """
    require("PESQ", "pesq")
    from pesq import BufferTooShortError, NoUtterancesError, PesqError, pesq

    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("PESQ: the recording is silent")
    if is_silent(second):
        return WORST
    first = resample(first, sample_rate, PESQ_SAMPLE_RATE)
    second = resample(second, sample_rate, PESQ_SAMPLE_RATE)
    try:
        score = float(pesq(PESQ_SAMPLE_RATE, first, second, "wb", PesqError.RAISE_EXCEPTION))
    except NoUtterancesError:
        raise UndefinedMeasure("PESQ: no utterance found in one of the two") from None
    except BufferTooShortError:
        raise UndefinedMeasure(
            f"PESQ: got {first.size / PESQ_SAMPLE_RATE:.3f} s, expected at least 0.25 s"
        ) from None
    if not 0.0 < score < 5.0:
        raise UndefinedMeasure(f"PESQ: the reference implementation returned {score}")
    return score
