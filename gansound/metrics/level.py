"""How loud what a generator made is, to notice one that has fallen silent or left its range."""

from collections.abc import Mapping

import numpy as np

_SILENT_DB, _FAINT_DB = -120.0, -30.0
_FULL_SCALE, _CLIPPED_SHARE = 0.999, 0.1


def level_figures(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """`level_db`, the RMS level of `fake` over that of `real`, each at least -120 dB; `clipped_share` of its samples.

    Shape:
        any, not empty; full scale is 1.
    """
    return {
        "level_db": _level_db(fake) - _level_db(real),
        "clipped_share": float(np.mean(np.abs(fake) >= _FULL_SCALE)),
    }


def is_out_of_range(figures: Mapping[str, float]) -> str | None:
    """Of `level_figures`: what to tell the user of a generator that is silent or at its limits, else None."""
    if figures["level_db"] < _FAINT_DB:
        return (
            f"the generated sounds are {-figures['level_db']:.0f} dB fainter than the real ones: the generator has "
            "fallen silent"
        )
    if figures["clipped_share"] > _CLIPPED_SHARE:
        return (
            f"{figures['clipped_share']:.0%} of the generated samples are at full scale: the generator has left its "
            "range"
        )
    return None


def _level_db(x: np.ndarray) -> float:
    power = float(np.mean(np.square(x, dtype=np.float64)))
    return max(_SILENT_DB, 10 * float(np.log10(power))) if power > 0 else _SILENT_DB
