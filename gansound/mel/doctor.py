"""Which convention a mel is in: by its values alone, or, where its sound is there too, by making the mel again.

Values alone tell the base of the logarithm, the norm and the floor, and leave open what doesn't show in them (the rate,
the framing). The sound decides: in the right convention its mel is the given one, at some offset in frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gansound.mel.presets import presets
from gansound.mel.spec import JUDGED_FRAMES, MelSpec
from gansound.mel.suspicions import (
    behind_another_reading,
    fitting_readings,
    linear_magnitudes,
    unknown_normalisations,
)

SAME = 0.05
"""Mean distance of two mels in natural logarithms, below which one is the other."""
ALIKE = 0.4
"""Below it they are of one sound, such as an acoustic model's guess at a recording."""
NEAR_FRAMES, MOST_OFFSET_FRAMES = 16, 200
"""Offsets that are looked at first, as trimming makes them; and the most, as a silence before the first word does."""
_LEAST_FRAMES = 16
_NO_FURTHER, _ROUNDING = 1.02, 1e-5
_MUCH_NEARER = 0.8  # times as far: among hundreds of offsets some lie a little nearer by chance
_LOOKED_FURTHER_IN = 512  # frames tell an offset


@dataclass(frozen=True)
class Match:
    """A convention beside a mel's own sound.

    Attributes:
        names: of the presets that are this one convention, or what else it is called.
        spec: the convention.
        offset_frames: frame i of the mel is frame i + offset of the sound's.
        distance: mean, in natural logarithms of magnitude.
    """

    names: tuple[str, ...]
    spec: MelSpec
    offset_frames: int
    distance: float


def conventions(n_mels: int) -> dict[MelSpec, tuple[str, ...]]:
    """The presets of so many bands, each convention once with all its names."""
    found: dict[MelSpec, tuple[str, ...]] = {}
    for name in presets():
        if (spec := MelSpec.preset(name)).n_mels == n_mels:
            found[spec] = (*found.get(spec, ()), name)
    return found


def fitting(mel: Tensor) -> dict[MelSpec, tuple[str, ...]]:
    """The presets whose values a mel `(M, F)` may have; several as a rule, all where it tells nothing."""
    judged = mel[..., :JUDGED_FRAMES]
    return {
        spec: names
        for spec, names in conventions(mel.shape[-2]).items()
        if not spec.suspicions(judged) and not behind_another_reading(spec, judged)
    }


def other_readings(mel: Tensor, *, fits_a_preset: bool) -> list[str]:
    """What else values of a mel `(M, F)` may be, for people: what no preset takes, the likeliest first."""
    judged = mel[..., :JUDGED_FRAMES].float()
    if fits_a_preset:
        return unknown_normalisations(judged)
    found: dict[str, int] = {}
    known = list(conventions(mel.shape[-2]))
    if any(linear_magnitudes(spec, judged) for spec in known):
        return ["linear magnitudes"]
    for spec in known:
        for name in fitting_readings(spec, judged):
            found[name] = found.get(name, 0) + 1
    return [name for name, times in found.items() if times == len(known)]  # the others are a preset's


def matches(
    mel: Tensor, sound: Callable[[int], Tensor], others: Mapping[MelSpec, str] | None = None
) -> list[Match]:
    """Every preset of a mel's bands beside the mel that it makes of the sound, the nearest first.

    Args:
        mel: `(M, F)`.
        sound: gives `(T,)` float32 at the sample rate asked for, in Hz.
        others: conventions besides the presets, of as many bands, and what each is called.
    """
    found = []
    named = {spec: (name,) for spec, name in (others or {}).items() if spec.n_mels == mel.shape[-2]}
    for spec, names in (named | conventions(mel.shape[-2])).items():
        audio = sound(spec.sample_rate)[: (JUDGED_FRAMES + MOST_OFFSET_FRAMES) * spec.hop_length]
        if spec.frames(len(audio)) < 1:
            continue
        distance, offset = nearest(
            ln_magnitude(spec, mel[:, :JUDGED_FRAMES]), ln_magnitude(spec, spec.mel(audio[None])[0])
        )
        found.append(Match(names, spec, offset, distance))
    return sorted(found, key=lambda match: match.distance)


def alike(found: list[Match]) -> list[Match]:
    """Of matches, the nearest and those that can't be told from it: symmetric windows from periodic ones, say."""
    most = found[0].distance * _NO_FURTHER if found else 0.0
    return [match for match in found if match.distance <= most + _ROUNDING]


def nearest(given: Tensor, made: Tensor) -> tuple[float, int]:
    """The least distance of a mel to a recording's, `(M, F)` each, and the offset in frames at which it is so.

    Where none of a few frames makes them alike, or the last of those is the best, up to `MOST_OFFSET_FRAMES` are
    looked at. The distance is inf where the last of all is the best: it is none, for a nearer one may lie beyond.
    """
    offset = _best(given, made, NEAR_FRAMES)
    least = distance(given, made, offset)
    if least < ALIKE and abs(offset) < NEAR_FRAMES:
        return least, offset
    further = _best(given[:, :_LOOKED_FURTHER_IN], made, MOST_OFFSET_FRAMES)
    if distance(given, made, further) < (1.0 if abs(offset) == NEAR_FRAMES else _MUCH_NEARER) * least:
        offset = further
    return distance(given, made, offset) if abs(offset) < MOST_OFFSET_FRAMES else float("inf"), offset


def _best(given: Tensor, made: Tensor, most: int) -> int:
    return min(sorted(range(-most, most + 1), key=abs), key=lambda offset: distance(given, made, offset))


def distance(given: Tensor, made: Tensor, offset: int) -> float:
    """Mean absolute difference where frame i of the one is frame i + offset of the other; inf where few are in both.

    That is less than 16, or than half of the shorter: two silences, say, are alike.
    """
    first, end = max(0, -offset), min(given.shape[1], made.shape[1] - offset)
    if end - first < max(min(_LEAST_FRAMES, given.shape[1]), min(given.shape[1], made.shape[1]) // 2):
        return float("inf")
    return float((given[:, first:end] - made[:, first + offset : end + offset]).abs().mean())


def ln_magnitude(spec: MelSpec, mel: Tensor) -> Tensor:
    """Natural logarithms of a mel's magnitudes, in which all conventions are compared."""
    return spec.to_magnitude(mel.double()).clamp(min=1e-12, max=1e12).log()
