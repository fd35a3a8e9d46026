"""Short-time objective intelligibility: Taal et al., ICASSP 2010 and TASLP 2011, through `pystoi`.

0 to 1; it listens at 10 kHz to fifteen third-octave bands from 150 Hz.
"""

import warnings

from numpy.typing import ArrayLike

from gansound.extras import require
from gansound.metrics.pair import UndefinedMeasure, is_silent, matched


def stoi(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """STOI of `estimate` `(T,)` against `reference` `(T,)`.

    An estimate that is silent where the reference isn't scores 0: nothing of it is understood.

    Raises:
        MissingPackage: `pystoi` isn't installed.
        UndefinedMeasure: the reference is silent, or less than 0.4 s left when silent frames are taken out.
        ValueError: shapes, lengths or values that no measure takes (see `pair.matched`).
    """
    require("STOI", "pystoi")
    from pystoi import stoi as pystoi

    first, second = matched(reference, estimate, sample_rate)
    if is_silent(first):
        raise UndefinedMeasure("STOI: the recording is silent")
    if is_silent(second):
        return 0.0
    with warnings.catch_warnings():
        # pystoi warns and answers 1e-5 when too little speech is left: a number that would enter a mean.
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(pystoi(first, second, sample_rate))
        except (RuntimeWarning, ValueError, IndexError):
            raise UndefinedMeasure("STOI: less than 0.4 s of speech left without the silence") from None
