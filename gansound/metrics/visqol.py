"""ViSQOL (Chinen et al., QoMEX 2020, https://github.com/google/visqol), through the port `visqol-python`.

Speech mode listens at 16 kHz, so nothing above 8 kHz counts, and maps similarity to a score by the polynomial of the
authors' earlier releases, which needs no TFLite runtime; identity is 5.0. Audio mode listens at 48 kHz to the whole
band and maps by the authors' support vector regression, made for codecs: identity is 4.73. Read speech mode beside
PESQ; read audio mode for what a vocoder of 22.05 kHz and more does at the top. Needs the extra `eval`.
"""

import logging
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gansound.audio import resample
from gansound.extras import require
from gansound.metrics.pair import UndefinedMeasure, is_silent, matched

Mode = Literal["speech", "audio"]
RATES_HZ: dict[Mode, int] = {"speech": 16000, "audio": 48000}
LEAST_SECONDS = 0.96  # of audio mode: a patch and a half of 30 frames, one every 20 ms, of 80 ms


class ViSQOL(NamedTuple):
    """Two mean opinion scores, 1 to 5."""

    speech: float
    audio: float


def visqol(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> ViSQOL:
    """ViSQOL of `estimate` `(T,)` against `reference` `(T,)` in both modes.

    Raises:
        MissingPackage: `visqol-python` isn't installed.
        UndefinedMeasure: one of the two is silent or shorter than 0.96 s.
    """
    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first) or is_silent(second):
        raise UndefinedMeasure("ViSQOL: one of the two is silent")
    if first.size < LEAST_SECONDS * sample_rate:
        raise UndefinedMeasure(
            f"ViSQOL: got {first.size / sample_rate:.2f} s, expected {LEAST_SECONDS} s or more"
        )
    scores = []
    for mode, rate in RATES_HZ.items():
        pair = (resample(audio, sample_rate, rate).astype(np.float64) for audio in (first, second))
        scores.append(float(_judge(mode).measure_from_arrays(*pair, rate).moslqo))
    return ViSQOL(*scores)


@lru_cache(maxsize=2)
def _judge(mode: Mode) -> Any:
    require("ViSQOL", "visqol")
    from visqol import VisqolApi

    logging.getLogger("visqol").setLevel(logging.ERROR)
    api = VisqolApi()
    # Left to itself it takes another mapping where a TFLite runtime happens to be installed.
    api.create(mode=mode, use_lattice_model=False)
    return api
