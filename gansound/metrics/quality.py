"""Quality without a reference: DNSMOS (Reddy, Gopal & Cutler, ICASSP 2021 and 2022), through `speechmos`.

`p808` is the P.808 overall opinion; `sig`, `bak` and `ovrl` are P.835's speech, background and overall. Made for
noise suppression at 16 kHz: read it beside the measures that know the reference. Needs the extra `eval`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gansound.audio import resample
from gansound.extras import require
from gansound.metrics.pair import UndefinedMeasure, is_silent, one_waveform

DNSMOS_SAMPLE_RATE = 16000


class DNSMOS(NamedTuple):
    """Four mean opinion scores, 1 to 5."""

    p808: float
    sig: float
    bak: float
    ovrl: float


def dnsmos(audio: ArrayLike, sample_rate: int) -> DNSMOS:
    """DNSMOS of `(T,)` audio. Clips shorter than 9 s are repeated, as the authors do.

    Raises:
        MissingPackage: `speechmos` isn't installed.
        UndefinedMeasure: the audio is silent.
    """
    require("DNSMOS", "speechmos", "onnxruntime", extra="eval")
    from speechmos import dnsmos as judge

    samples = one_waveform(audio, "audio", sample_rate)
    if is_silent(samples):
        raise UndefinedMeasure("DNSMOS: the audio is silent")
    samples = np.clip(resample(samples, sample_rate, DNSMOS_SAMPLE_RATE), -1.0, 1.0)
    scores = judge.run(samples, DNSMOS_SAMPLE_RATE)
    return DNSMOS(*(float(scores[f"{name}_mos"]) for name in DNSMOS._fields))
