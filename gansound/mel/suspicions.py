"""What the values of a mel say against the convention it is declared in.

A wrong convention is silent and ugly, so a guess is worth a warning; but a false alarm on good speech is worse than
silence. So the declared reading must be implausible, and where another reading is named it must be plausible. The
judge looks at three things, each read as natural logarithms of magnitude:

- the scale: the median change from one frame to the next above the floor, times the spread. Magnitudes of any sound
  but a pure tone fluctuate like those of noise (Rayleigh: a deviation of 0.64 in the logarithm), which is what tells
  a base; over-smooth mels of an acoustic model change less but spread as much, hence the product;
- the peak (no louder than a full-scale sine, nor absurdly quiet), and values below the floor or outside the clip;
- where exact silence lies, if there is any.

The bounds were measured on two corpora at three levels in every preset (tests/test_mel_suspicions.py).
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gansound.mel.spec import MelSpec

DECIBEL = math.log(10.0) / 20.0
# Other readings: name → (factor, offset) to the natural logarithm of magnitude.
READINGS = {
    "natural logarithms (ln)": (1.0, 0.0),
    "base-10 logarithms (log10)": (math.log(10.0), 0.0),
    "decibels (20 log10)": (DECIBEL, 0.0),
    "natural logarithms normalised as (ln + 5) / 5": (5.0, -5.0),
    "decibels normalised to -4 … 4 as Coqui does": (12.5 * DECIBEL, -30.0 * DECIBEL),
}
TYPICAL_CHANGE, TYPICAL_SPREAD = 0.33, 7.0
SCALE = (0.56, 1.65)
PEAK_BELOW_FULL_SCALE = (-7.0, 1.5)
LEAST_LN = math.log(1e-10) - 1.0  # no convention has a lower floor
MIN_FRAMES = 64
QUIET = 6.0  # below full scale, natural log: a pause, whose spread says nothing


def suspicions(spec: "MelSpec", mel: Tensor) -> list[str]:
    """Warnings for people, most likely first; empty where the values fit, or are too few to judge."""
    if mel.ndim not in (2, 3) or mel.shape[-2] != spec.n_mels:
        shape = tuple(mel.shape)
        if mel.ndim in (2, 3) and mel.shape[-1] == spec.n_mels:
            return [f"shape {shape} looks transposed: expected (B, {spec.n_mels}, F)"]
        return [f"shape {shape}: expected (B, {spec.n_mels}, F)"]
    values = mel.detach().to(torch.float32)
    if values.ndim == 3:
        values = values.transpose(0, 1).flatten(1)
    if values.shape[-1] < MIN_FRAMES or not bool(torch.isfinite(values).all()):
        return []
    full_scale = math.log(spec.win_length / 4 * float(spec.filter_bank().max()))
    least, greatest = (float(v) for v in spec.ln_limits())
    declared = spec.to_magnitude(values.double()).log()
    if float(values.min()) >= 0 and least < -1.0 and _faults(values.clamp(min=1e-5).log(), full_scale) == []:
        return ["no value is negative: these look like linear magnitudes; this convention takes logarithms"]
    faults = _faults(declared, full_scale) if float(declared.max()) > full_scale - QUIET else []
    if float(declared.min()) < least - 1.0:
        faults.append(f"values reach {float(values.min()):.1f}, below this convention's floor")
    if float(declared.max()) > greatest + 0.5:
        faults.append(f"values reach {float(values.max()):.1f}, above this convention's clip")
    found = []
    if faults:
        others = [
            name
            for name, (factor, offset) in READINGS.items()
            if not _same_reading(spec, factor, offset) and not _faults(values * factor + offset, full_scale)
        ]
        if others:
            found.append(
                f"these look like {' or '.join(others)}; this convention is {_own(spec)} ({'; '.join(faults)})"
            )
        elif abs(float(values.mean())) < 0.5 and 0.6 < float(values.std()) < 1.5 and not _standardised(spec):
            found.append(
                f"these look normalised to mean 0 and deviation 1; this convention isn't: undo the statistics, "
                f"or put them into mean and scale ({'; '.join(faults)})"
            )
        else:
            found.append(
                f"the values don't look like sound in this convention, {_own(spec)}: {'; '.join(faults)}"
            )
    elif silence := _silence(spec, declared):
        found.append(silence)
    return found


def _faults(ln: Tensor, full_scale: float) -> list[str]:
    """Why (M, F) natural logarithms of magnitude aren't those of natural sound."""
    faults = []
    low, high = (float(v) for v in torch.quantile(_thin(ln), torch.tensor([0.05, 0.95], dtype=ln.dtype)))
    peak = float(ln.max()) - full_scale
    near_floor = ln < ln.amin() + 0.15 * (ln.amax() - ln.amin())
    change = (ln[:, 1:] - ln[:, :-1]).abs()[~(near_floor[:, 1:] | near_floor[:, :-1])]
    if change.numel() >= 200:
        scale = math.sqrt(float(change.median()) / TYPICAL_CHANGE * (high - low) / TYPICAL_SPREAD)
        if scale < SCALE[0]:
            faults.append(f"they vary {1 / max(scale, 1e-3):.1f} times too little")
        elif scale > SCALE[1]:
            faults.append(f"they vary {scale:.1f} times too much")
    if not PEAK_BELOW_FULL_SCALE[0] <= peak <= PEAK_BELOW_FULL_SCALE[1]:
        faults.append(f"their peak would be {peak / DECIBEL:+.0f} dB of full scale")
    if float(ln.min()) < LEAST_LN:
        faults.append(f"their least would be {float(ln.min()) / DECIBEL:.0f} dB")
    return faults


def _silence(spec: "MelSpec", ln: Tensor) -> str | None:
    """Exact silence repeats a value; it must be the value that this convention gives to silence."""
    least = ln.amin(dim=1, keepdim=True)
    at_least = ln < least + 2e-3
    if float(at_least.float().mean()) < 0.05:
        return None
    lifted = (spec.filter_bank().sum(1, keepdim=True) * math.sqrt(spec.magnitude_eps)).double().to(ln.device)
    silent = spec.to_magnitude(spec.from_magnitude(lifted)).log()
    bands = at_least.sum(1) >= 0.05 * ln.shape[1]
    gap = float((least - silent)[bands].median()) if bool(bands.any()) else 0.0
    if gap < 0.3:
        return None
    return (
        f"silence lies at {float(least[bands].median()):.2f} (natural log of magnitude) where this convention has "
        f"{float(silent[bands].median()):.2f}: another floor, or an epsilon inside the square root"
    )


def _thin(ln: Tensor) -> Tensor:
    flat = ln.flatten()
    return flat[:: max(1, flat.numel() // 100_000)]


def _same_reading(spec: "MelSpec", factor: float, offset: float) -> bool:
    unit = {"ln": 1.0, "log10": math.log(10.0), "db": DECIBEL}[spec.log]
    return (
        len(spec.mean) == len(spec.scale) == 1
        and math.isclose(spec.scale[0] * unit, factor)
        and math.isclose(spec.mean[0] * unit, offset, abs_tol=1e-9)
    )


def _standardised(spec: "MelSpec") -> bool:
    return len(spec.mean) > 1 or len(spec.scale) > 1


def _own(spec: "MelSpec") -> str:
    base = {"ln": "ln", "log10": "log10", "db": "20 log10"}[spec.log]
    return (
        base if spec.mean == (0.0,) and spec.scale == (1.0,) else f"{base}, normalised by its mean and scale"
    )
