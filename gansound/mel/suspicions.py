"""What the values of a mel say against the convention it is declared in.

A wrong convention is silent and ugly, so a guess is worth a warning; but a false alarm on good sound is worse than
silence. So the declared reading must be implausible, and where another reading is named it must be plausible. Each
reading tells what level a band has, in natural logarithms of the magnitude that a full-scale sine has there. The judge
looks at

- the scale: the median change from one frame to the next above the floor, times the spread. Magnitudes of any sound
  but a pure tone fluctuate like those of noise (Rayleigh: a deviation of 0.64 in the logarithm), which is what tells
  a base; over-smooth mels of an acoustic model change less but spread as much, hence the product. Asked only of what
  moves as speech does, by a measure that no base changes: bands whose deviation in time, less its trend, is several
  times their change from frame to frame. Noise, tones, glides, clicks and cymbals tell no base;
- the peak (no louder than a full-scale sine, nor absurdly quiet), and values below the floor or outside the clip;
- whether each band has mean 0 and deviation 1, which no logarithm of sound has;
- whether neighbouring bands move together, which those of any sound do and the channels of a latent don't;
- where exact silence lies, if there is any.

Several readings may make natural sound: a logarithm normalised by statistics unknown has any scale. All are named then.

The bounds were measured on two corpora at three levels in every preset (tests/test_mel_suspicions.py), and in
tests/reference/mel_doctor.py.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gansound.mel.readings import DECIBEL, RANGES, READINGS, STATISTICS, Reading

if TYPE_CHECKING:
    from gansound.mel.spec import MelSpec

TYPICAL_CHANGE, TYPICAL_SPREAD = 0.33, 7.0
SCALE = (0.56, 1.65)
NO_SOUND_S_SCALE = (0.4, 2.5)
# Deviation of a band over the change from frame to frame; of noise 1.5, of cymbals to 3, of tones 12 and more.
SPEECH = (3.05, 11.0)
NEIGHBOURS = 0.16  # median correlation of neighbouring bands; of white noise 0.3, of a VITS's latents to 0.11
_CORPUS_MEAN, _CORPUS_DEVIATION = 1.3, (0.45, 1.7)  # of one utterance by the statistics of others'
_SEEN_AT_LEAST = 0.02  # of all values; what is cut off at a floor says nothing of its neighbour
_LEAST_OF_A_RANGE = 0.6  # is reached
LEAST_SEEN = 0.4  # of all values lie well above the least
PEAK_BELOW_FULL_SCALE = (-7.0, 1.5)
LEAST_LN = math.log(1e-10) - 1.0  # no convention has a lower floor
MIN_FRAMES = 64
ENOUGH_FRAMES = 1024  # of a mel, to know its scale from
QUIET = 6.0  # below full scale, natural log: a pause, whose spread says nothing
UNHEARD_PEAK = -9.0  # of full scale, natural log: 90 dB, the step of 16 bits, below a shout's
_AT_ITS_LOUDEST = 2.5  # natural log: so far below the peak
_OVERSHOOT = 0.1  # of values beyond a clip: an acoustic model guesses
_AT_A_FLOOR = 1e-3  # of all values; one may come near it by chance
_MUCH_WORSE, _NAMED_BESIDE = 1.0, 2.0  # of penalties: than the best, where a reading is ruled out, and named


def suspicions(spec: "MelSpec", mel: Tensor) -> list[str]:
    """Warnings for people, most likely first; empty where the values fit, or are too few to judge."""
    if mel.ndim not in (2, 3) or mel.shape[-2] != spec.n_mels:
        shape = tuple(mel.shape)
        if mel.ndim in (2, 3) and mel.shape[-1] == spec.n_mels:
            return [f"shape {shape} looks transposed: expected (B, {spec.n_mels}, F)"]
        return [f"shape {shape}: expected (B, {spec.n_mels}, F)"]
    # Dozens of figures are read of it, for each of which a GPU would be waited.
    values = mel.detach().to("cpu", torch.float32)
    if values.ndim == 3:
        values = values.transpose(0, 1).flatten(1)
    if values.shape[-1] < MIN_FRAMES or not bool(torch.isfinite(values).all()):
        return []
    least, greatest = (float(v) for v in spec.ln_limits())
    declared = spec.to_magnitude(values.double()).log()
    heights = spec.filter_bank().amax(1, keepdim=True).clamp(min=1e-6).double().log().to(declared.device)
    levels = declared - heights - math.log(spec.win_length / 4)
    if linear_magnitudes(spec, values):
        return ["no value is negative: these look like linear magnitudes; this convention takes logarithms"]
    if said := unlike_any_sound(values):
        return [said]
    if not _standardised(spec):
        if _is_standardised(values, 0.1):
            return [_STANDARDISED]
        if _is_standardised(values.reshape(1, -1), 0.01):
            return [_STANDARDISED_AS_A_WHOLE]
    peak = float(levels.max())
    below_floor = float(declared.min()) < least - 1.0
    if peak < UNHEARD_PEAK and not below_floor and _comes_and_goes(declared):
        return [
            f"the loudest lies {-peak / DECIBEL:.0f} dB below full scale: this will be silence. Were 16-bit samples "
            "divided by 32768 twice? Audio must lie between -1 and 1 before its mel is computed"
        ]
    hard = _beyond(levels)
    if below_floor:
        hard.append(f"values reach {float(values.min()):.1f}, below this convention's floor")
    if float(declared.max()) > greatest + 0.5:
        hard.append(f"values reach {float(values.max()):.1f}, above this convention's clip")
    quiet = float(declared.max() - heights.max()) - math.log(spec.win_length / 4) <= -QUIET
    if quiet:
        hard = [fault for fault in hard if "values reach" in fault]
    wrong_scale = [] if quiet else _scale_faults(declared)
    faults = [*wrong_scale, *hard]
    if not faults:
        silence = _silence(spec, declared)
        return [] if silence is None else [silence]
    others = fitting_readings(spec, values)
    found = _scale(declared) if wrong_scale else None
    unusual = not hard and (found is None or NO_SOUND_S_SCALE[0] <= found[0] <= NO_SOUND_S_SCALE[1])
    if unusual and others in ([], [STATISTICS]):
        return []  # a glide or a scream may change as nothing else does
    if others:
        what = f"these look like {others[0]}" if len(others) == 1 else f"these may be {_or(others)}"
        if STATISTICS in others:
            what = f"{what}. {_HOW_TO_GIVE}"
        return [f"{what}; this convention is {_own(spec)} ({'; '.join(faults)})"]
    return [f"the values don't look like sound in this convention, {_own(spec)}: {'; '.join(faults)}"]


def padded(spec: "MelSpec", mel: Tensor) -> str:
    """What is said of a mel `(B, M, F)` or `(M, F)` that ends in zeros, where zeros would be heard; else "".

    No sound has a frame of one number, so that two of zeros in all bands were put there.
    """
    zero = (mel == 0).all(-2).flip(-1)
    frames = int(zero.long().cumprod(-1).sum(-1).max())
    if not 2 <= frames < mel.shape[-1]:
        return ""
    level = spec.to_magnitude(torch.zeros(spec.n_mels, 1, dtype=torch.float64)).log().amax()
    if float(level) - math.log(spec.win_length / 4) < UNHEARD_PEAK:
        return ""
    return (
        f"the last {frames} of {mel.shape[-1]} frames are 0 in all bands, which isn't silence in this convention: they "
        "will be noise. Cut what was padded, or in Python say lengths="
    )


_HOW_TO_GIVE = (
    "Where there are statistics (stats.h5, .npy, .npz, .json or .pt), they belong to the convention: --stats FILE, or "
    "the mean and scale of its MelSpec; or undo them"
)
_STANDARDISED, _STANDARDISED_AS_A_WHOLE = (
    f"these look normalised to mean 0 and deviation 1 {over}, by statistics of their own; this convention isn't. "
    "Without that mean and deviation (--stats) they can't be undone"
    for over in ("in each band", "over all bands")
)


def linear_magnitudes(spec: "MelSpec", values: Tensor) -> bool:
    """Whether values `(M, F)` are natural sound's before the logarithm that a convention takes."""
    if float(values.min()) < 0 or not _falls_steeply(_thin(values)) or spec.ln_limits()[0] >= -1.0:
        return False
    log = values.clamp(min=1e-5).log()
    return not _faults(log, _levels(spec, log, 1.0))


def unlike_any_sound(values: Tensor) -> str:
    """What is said of `(M, F)` whose neighbouring bands don't move together, however they are scaled; else ""."""
    least, greatest = (float(value) for value in values.aminmax())
    at_least = float((values < least + 1e-3 * (greatest - least)).float().mean())
    if values.shape[-1] < MIN_FRAMES or len(values) < 3 or at_least > _SEEN_AT_LEAST:
        return ""
    apart = values.double() - values.double().mean(1, keepdim=True)
    length = apart.norm(dim=1)
    moving = length > 1e-3 * values.shape[1] ** 0.5
    pairs = moving[1:] & moving[:-1]
    if int(pairs.sum()) < 0.5 * len(values):
        return ""
    together = float(((apart[1:] * apart[:-1]).sum(1)[pairs] / (length[1:] * length[:-1])[pairs]).median())
    if together >= NEIGHBOURS:
        return ""
    return (
        f"neighbouring bands don't move together (correlation {together:.2f}), which those of any sound do: these look "
        "like latents, such as a VITS's, which only the decoder that was learnt with them can turn into sound, or like "
        "a mel whose bands are out of order"
    )


def fitting_readings(spec: "MelSpec", values: Tensor) -> list[str]:
    """Names of other readings that make natural sound of values `(M, F)`, the likeliest first; none far behind it.

    At the end stand normalisations by numbers that nobody knows, where they are possible: those of a corpus.
    """
    found = []
    for reading in READINGS:
        if (penalty := _penalty_if_natural(spec, values, reading)) is not None:
            found.append((penalty, reading.name))
    best = min(found, default=(0.0, ""))[0]
    names = [name for penalty, name in sorted(found) if penalty <= best + _NAMED_BESIDE]
    return names if _standardised(spec) else [*names, *unknown_normalisations(values)]


def behind_another_reading(spec: "MelSpec", values: Tensor) -> bool:
    """Whether a convention makes natural sound of values `(M, F)`, and yet another reading is much likelier."""
    own = spec.to_magnitude(values.double()).log()
    if _scale(own) is None or _standardised(spec):
        return False
    area = 1.0 if spec.mel_norm == "slaney" else 0.0
    reading = Reading("", 1.0, area=area, floor=math.exp(spec.ln_limits()[0]))
    least = _penalty(own, _levels(spec, own, area), reading)
    others = (_penalty_if_natural(spec, values, other) for other in READINGS)
    return any(other is not None and other < least - _MUCH_WORSE for other in others)


def _penalty_if_natural(spec: "MelSpec", values: Tensor, reading: Reading) -> float | None:
    """`_penalty` of a reading other than the convention's own; None where it can't be, or makes no natural sound."""
    least, greatest = (float(value) for value in values.aminmax())
    within = reading.clip[0] - _OVERSHOOT <= least and greatest <= reading.clip[1] + _OVERSHOOT
    if not within or _same_reading(spec, reading):
        return None
    ln = values.double() * reading.factor + reading.offset
    levels = _levels(spec, ln, reading.area)
    return None if _faults(ln, levels) else _penalty(ln, levels, reading)


def _levels(spec: "MelSpec", ln: Tensor, area: float) -> Tensor:
    """Natural logarithms of magnitude `(M, F)` as those of what a full-scale sine has in each band."""
    bank = dataclasses.replace(spec, mel_norm="slaney").filter_bank()
    heights = bank.amax(1, keepdim=True).clamp(min=1e-6).double().log().to(ln.device)
    return ln - area * heights - math.log(spec.win_length / 4)


def _penalty(ln: Tensor, levels: Tensor, reading: Reading) -> float:
    """How far from the typical a reading's levels lie; what has nothing at the floor that its makers clamp to."""
    found = _scale(ln)
    scale = 0.0 if found is None else math.log(max(found[0], 1e-3)) / 0.3
    peak = (float(levels.max()) + 2.0) / 2.0
    to_floor = (ln - math.log(reading.floor)).abs() < 0.1
    at_floor = (
        float(to_floor.float().mean()) > _AT_A_FLOOR and float(ln.min()) > math.log(reading.floor) - 0.1
    )
    return abs(scale) + abs(peak) - (2.0 if at_floor else 0.0)


def _faults(ln: Tensor, levels: Tensor) -> list[str]:
    """Why (M, F) logarithms of magnitude, and as levels, aren't those of natural sound."""
    return [*_scale_faults(ln), *_beyond(levels)]


def _scale(ln: Tensor) -> tuple[float, bool] | None:
    """Geometric mean of change and spread, as a factor of the typical; None where it doesn't move as speech does.

    Of what is in the middle of a long sound: to look at all of it took a fiftieth of the time that vocoding takes.
    The second says whether it does so only as it fades away, as a cymbal and some screams: they tell less of a scale.
    """
    before = max(0, ln.shape[1] - ENOUGH_FRAMES) // 2
    ln = ln[:, before : before + ENOUGH_FRAMES]
    near_floor = ln < ln.amin() + 0.15 * (ln.amax() - ln.amin())
    moves = (ln[:, 1:] - ln[:, :-1]).abs()
    seen = ~(near_floor[:, 1:] | near_floor[:, :-1])
    if int(seen.sum()) < max(200.0, LEAST_SEEN * seen.numel()):
        return None
    change = float(moves[seen].median())
    if change <= 0 or not SPEECH[0] < _wanders(ln) / change < SPEECH[1]:
        return None
    trend = torch.linspace(-1.0, 1.0, ln.shape[1], dtype=ln.dtype, device=ln.device)[:, None]
    trend = trend / trend.norm()
    low, high = torch.quantile(_thin(ln), ln.new_tensor([0.05, 0.95])).tolist()
    scale = math.sqrt(change / TYPICAL_CHANGE * (high - low) / TYPICAL_SPREAD)
    return scale, _wanders(ln - ln @ trend @ trend.T) / change < SPEECH[0]


def _wanders(ln: Tensor) -> float:
    """Deviation in time of a band, of those that have little of it."""
    return float(ln.std(1).quantile(0.25))


def _scale_faults(ln: Tensor) -> list[str]:
    if (found := _scale(ln)) is None:
        return []
    scale, fades = found
    low, high = NO_SOUND_S_SCALE if fades else SCALE
    if low <= scale <= high:
        return []
    return [
        f"they vary {1 / max(scale, 1e-3):.1f} times too little"
        if scale < 1
        else f"they vary {scale:.1f} times too much"
    ]


def _beyond(levels: Tensor) -> list[str]:
    faults = []
    peak = float(levels.max())
    if not PEAK_BELOW_FULL_SCALE[0] <= peak <= PEAK_BELOW_FULL_SCALE[1]:
        faults.append(f"their peak would be {peak / DECIBEL:+.0f} dB of full scale")
    if (least := float(levels.min())) < LEAST_LN - 10.0:
        faults.append(f"their least would be {least / DECIBEL:.0f} dB")
    return faults


def _falls_steeply(values: Tensor) -> bool:
    """Whether most of what is heard lies far below the greatest, as magnitudes do and decibels don't."""
    heard = values[values > 0.02 * values.max()]
    return heard.numel() > 0 and float(heard.median()) < 0.2 * float(heard.max())


def _comes_and_goes(ln: Tensor) -> bool:
    """Whether what is loudest in (M, F) logarithms lasts and ends, as sounds do; noise flickers, a hum stays.

    Speech 90 dB too low hardly leaves the floor, where the noise of a silence may be as loud.
    """
    loud = ln > max(float(ln.min()) + 0.02, float(ln.max()) - _AT_ITS_LOUDEST)
    share = float(loud.float().mean())
    lasting = loud[:, :-2] & loud[:, 1:-1] & loud[:, 2:]
    lasts = float(lasting.sum()) / max(1, int(loud[:, 1:-1].sum()))
    stays = float(loud.float().mean(1).max())
    # Noise that is above a limit for a share of the time is so in three frames at once for less than that share of it.
    return share < 0.4 and stays < 0.87 and lasts > 0.1 + share


def unknown_normalisations(values: Tensor) -> list[str]:
    """Whether values `(M, F)` may be of one utterance by the statistics, or the range, of many."""
    deviation, mean = torch.std_mean(values)
    low, high = _CORPUS_DEVIATION
    by_statistics = abs(float(mean)) < _CORPUS_MEAN and low < float(deviation) < high
    least, greatest = (float(value) for value in values.aminmax())
    ranges = [
        name
        for (low, high), name in RANGES.items()
        if low - 1e-3 <= least
        and greatest <= high + 1e-3
        and greatest - least > _LEAST_OF_A_RANGE * (high - low)
    ]
    return [*([STATISTICS] if by_statistics else []), *ranges[-1:]]


def _is_standardised(values: Tensor, tolerance: float) -> bool:
    """Whether bands have mean 0 and deviation 1, within that much; a band without change says nothing."""
    deviation, mean = torch.std_mean(values, dim=1)
    moving = deviation > 1e-3
    if int(moving.sum()) < 0.5 * len(values):
        return False
    off = torch.maximum(mean.abs(), (deviation.log()).abs())[moving]
    return bool(off.quantile(0.8) < tolerance)


def _silence(spec: "MelSpec", ln: Tensor) -> str | None:
    """Exact silence repeats a value; it must be the value that this convention gives to silence."""
    least = ln.amin(dim=1, keepdim=True)
    at_least = ln < least + 2e-3
    if float(at_least.float().mean()) < 0.05:
        return None
    lifted = (spec.filter_bank().sum(1, keepdim=True) * math.sqrt(spec.magnitude_eps)).double().to(ln.device)
    silent = spec.to_magnitude(spec.from_magnitude(lifted)).log()
    bands = at_least.sum(1) >= 0.05 * ln.shape[1]
    if not bool(bands.any()):
        return None
    gaps = (least - silent)[bands]
    gap = float(gaps.median())
    low, high = gaps.quantile(gaps.new_tensor([0.1, 0.9])).tolist()
    if gap < 0.3 or high - low > 0.5:  # bands that repeat each a value of its own: a steady tone
        return None
    return (
        f"silence lies at {float(least[bands].median()):.2f} (natural log of magnitude) where this convention has "
        f"{float(silent[bands].median()):.2f}: another floor, or an epsilon inside the square root"
    )


def _or(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}, which their values alone don't tell"


def _thin(ln: Tensor) -> Tensor:
    flat = ln.flatten()
    return flat[:: max(1, flat.numel() // 100_000)]


def _same_reading(spec: "MelSpec", reading: Reading) -> bool:
    unit = {"ln": 1.0, "log10": math.log(10.0), "db": DECIBEL}[spec.log]
    return (
        len(spec.mean) == len(spec.scale) == 1
        and math.isclose(spec.scale[0] * unit, reading.factor)
        and math.isclose(spec.mean[0] * unit, reading.offset, abs_tol=1e-9)
        and reading.area == (1.0 if spec.mel_norm == "slaney" else 0.0)
    )


def _standardised(spec: "MelSpec") -> bool:
    return len(spec.mean) > 1 or len(spec.scale) > 1


def _own(spec: "MelSpec") -> str:
    base = {"ln": "ln", "log10": "log10", "db": "20 log10"}[spec.log]
    return (
        base if spec.mean == (0.0,) and spec.scale == (1.0,) else f"{base}, normalised by its mean and scale"
    )
