"""What the values of a mel may mean: the logarithms, scales and floors of the projects whose mels there are."""

import math
from dataclasses import dataclass

DECIBEL = math.log(10.0) / 20.0


@dataclass(frozen=True)
class Reading:
    """What values may mean: `factor * value + offset` is a natural logarithm of magnitude.

    Attributes:
        name: for people.
        factor, offset: see above; half of it where values are logarithms of power.
        area: how filters of unit area enter: 1 with a magnitude, 0.5 with a power, 0 where filters have height one.
        floor: least magnitude, or square root of a power, that makers of such mels clamp to.
        clip: least and greatest value, of a reading that one project alone makes.
    """

    name: str
    factor: float
    offset: float = 0.0
    area: float = 1.0
    floor: float = 1e-5
    clip: tuple[float, float] = (-math.inf, math.inf)


def _scaled(floor: float, by: float) -> float:
    return (math.log(floor) + by) / by


READINGS = (
    Reading("natural logarithms (ln)", 1.0),
    Reading("base-10 logarithms (log10)", math.log(10.0)),
    Reading("decibels (20 log10)", DECIBEL),
    Reading("natural logarithms normalised as (ln + 5) / 5", 5.0, -5.0, clip=(_scaled(1e-5, 5.0), math.inf)),
    Reading(
        "decibels normalised to -4 … 4 as Coqui does",
        12.5 * DECIBEL,
        -30.0 * DECIBEL,
        floor=1e-4,
        clip=(-4.0, 4.0),
    ),
    Reading(
        "natural logarithms (ln) of magnitudes through filters of height one (mel_norm none)", 1.0, area=0.0
    ),
    Reading("natural logarithms (ln) of power (torchaudio's default)", 0.5, area=0.0, floor=1e-5**0.5),
    Reading("base-10 logarithms (log10) of power", math.log(10.0) / 2, area=0.0, floor=1e-20),
    Reading("decibels of power (10 log10)", DECIBEL, area=0.0),
    Reading(
        "(ln + 4) / 4 of power, as StyleTTS 2 does",
        2.0,
        -2.0,
        area=0.0,
        floor=1e-5**0.5,
        clip=(_scaled(1e-5, 4.0), math.inf),
    ),
    Reading("(ln + 4) / 4 of magnitudes", 4.0, -4.0, clip=(_scaled(1e-5, 4.0), math.inf)),
    Reading(
        "(ln + 4) / 4 of magnitudes through filters of height one",
        4.0,
        -4.0,
        area=0.0,
        clip=(_scaled(1e-5, 4.0), math.inf),
    ),
    Reading("(log10 + 4) / 4 of power, as Whisper does", 2 * math.log(10.0), -2 * math.log(10.0), area=0.5),
    Reading(
        "natural logarithms between -1 and 1, as Tortoise has them", 6.914, -4.599, clip=(-1.0, math.inf)
    ),
    Reading(
        "decibels between 0 and 1, as Tacotron's first copies have them",
        100 * DECIBEL,
        -80 * DECIBEL,
        floor=1e-4,
        clip=(0.0, 1.0),
    ),
)
STATISTICS = "logarithms normalised by the mean and deviation of a corpus, in each band or over all"
RANGES = {
    (low, 1.0): f"logarithms scaled to {low:g} … 1 by a least and a greatest value of each band or of all"
    for low in (-1.0, 0.0)
}
