"""From one mel convention to another where a function of each value alone does it: a factor, a sum, and two bounds."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gansound.mel.spec import MelSpec

LN_PER_UNIT = {"ln": 1.0, "log10": math.log(10.0), "db": math.log(10.0) / 20.0}

# What changes the magnitudes themselves, so that no function of the values undoes it, and why.
_FIXED = {
    "sample_rate": "the bands lie at other frequencies; resample the audio and compute the mel again",
    "n_fft": "the frequency resolution differs",
    "hop_length": "the frames lie at other times",
    "win_length": "the window differs",
    "n_mels": "the bands differ",
    "fmin": "the bands lie at other frequencies",
    "fmax": "the bands lie at other frequencies",
    "framing": "the frames are offset by half a hop",
    "padding": "the frames at both ends differ",
    "window": "the window differs",
    "mel_scale": "the bands lie at other frequencies",
    "mel_norm": "the bands are weighted differently before the floor",
    "magnitude_eps": "it is added to the power of each bin before the bands are summed",
}
_TOLERANCE = 1e-6  # of natural logarithms


@dataclass(frozen=True)
class Conversion:
    """value → clip(factor · value + offset, low, high), band by band.

    Attributes:
        factor, offset, low, high: `(M or 1, 1)` float64; the bounds may be infinite.
    """

    factor: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __call__(self, mel: Tensor) -> Tensor:
        """Shape: `(…, M, F)` → the same, of its type and on its device."""
        factor, offset, low, high = (t.to(mel) for t in (self.factor, self.offset, self.low, self.high))
        return (mel * factor + offset).clamp(low, high)


def conversion(source: "MelSpec", target: "MelSpec") -> Conversion:
    """The exact conversion of one convention's mels into another's.

    With L the logarithm of a magnitude in units of u natural logarithms, a value is (L / u − mean) / scale: an affine
    function of L, and so is one convention's value of the other's. Then the target's floor and clip are applied again,
    which is exact where they take no less than the source's did.

    Raises:
        ValueError: where no function of the values is exact; it names each such field and why.
    """
    reasons = [
        f"{name} {getattr(source, name)!s} → {getattr(target, name)!s} ({why})"
        for name, why in _FIXED.items()
        if getattr(source, name) != getattr(target, name)
    ]
    if not reasons:
        reasons = _lost(source, target)
    if reasons:
        raise ValueError("this mel can't be converted exactly: " + "; ".join(reasons))
    (to_ln, ln_mean), (from_ln, own_mean) = _affine(source), _affine(target)
    low = (math.log(target.floor) - own_mean) / from_ln
    high = torch.full_like(low, math.inf)
    if target.clip is not None:
        low, high = low.clamp(*target.clip), torch.full_like(low, target.clip[1])
    return Conversion(to_ln / from_ln, (ln_mean - own_mean) / from_ln, low, high)


def _affine(spec: "MelSpec") -> tuple[Tensor, Tensor]:
    """Factor and sum, `(M or 1, 1)`, that make natural logarithms of values."""
    unit = LN_PER_UNIT[spec.log]
    scale, mean = (
        torch.tensor(v, dtype=torch.float64, device="cpu").unsqueeze(1) for v in (spec.scale, spec.mean)
    )
    return scale * unit, mean * unit


def _lost(source: "MelSpec", target: "MelSpec") -> list[str]:
    """What the source clamped, and the target would show."""
    (low, high), (target_low, target_high) = source.ln_bounds(), target.ln_bounds()
    # A floor below what the epsilon makes of silence is never met; the epsilon is the same in both here.
    lifted = (source.filter_bank().double().sum(1, keepdim=True) * source.magnitude_eps**0.5).log()
    reasons = []
    if bool((low.maximum(lifted) > target_low.maximum(lifted) + _TOLERANCE).any()):
        reasons.append(
            f"floor {math.exp(low.max()):.3g} → {math.exp(target_low.min()):.3g} "
            "(what this one clamped is lost; only raising a floor is exact)"
        )
    if bool((high < target_high - _TOLERANCE).any()):
        reasons.append(f"clip {source.clip} → {target.clip} (what this one clipped is lost)")
    return reasons
