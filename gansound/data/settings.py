"""The part of a recipe that says what is trained on."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataSettings:
    """A corpus and how segments are drawn from it.

    Args:
        path: a manifest, a folder holding one, an LJSpeech layout, or any folder of audio.
        segment_samples: length of a training segment at the model's sample rate.
        speed: largest change of speed and pitch in octaves, for half of the segments; null changes none.
        gain_db: lowest and highest gain, drawn uniformly for each segment and limited so that nothing clips.
        silence_db: a crop this far below its file's level is drawn again a few times; null keeps the first.
        crop: `random`, or `start` for one-shots.
        pad: where a file shorter than a segment gets its zeros.
        valid: share of the corpus held out for validation, where the manifest doesn't say.
        test: share held out for `gansound evaluate`, likewise.
        workers: processes that load; 0 loads in the training process.
        cache_gb: decoded audio is kept in memory when it fits in this.
    """

    segment_samples: int
    path: str | None = None
    speed: float | None = None
    gain_db: tuple[float, float] | None = None
    silence_db: float | None = 30.0
    crop: Literal["random", "start"] = "random"
    pad: Literal["end", "random"] = "end"
    valid: float = 0.05
    test: float = 0.05
    workers: int = 1
    cache_gb: float = 2.0

    def __post_init__(self) -> None:
        if self.segment_samples < 1 or self.workers < 0 or self.cache_gb < 0:
            raise ValueError(
                "expected segment_samples >= 1, workers >= 0 and cache_gb >= 0, got "
                f"{self.segment_samples}, {self.workers} and {self.cache_gb}"
            )
        if self.speed is not None and not 0 < self.speed <= 1:
            raise ValueError(f"speed must be above 0 and at most 1 octave, got {self.speed}")
        if self.gain_db is not None and self.gain_db[0] > self.gain_db[1]:
            raise ValueError(f"gain_db must be [lowest, highest] in dB, got {list(self.gain_db)}")
        if self.valid < 0 or self.test < 0 or self.valid + self.test >= 1:
            raise ValueError(
                "expected valid >= 0 and test >= 0, and less than 1 together so that something is left to train on, "
                f"got {self.valid} and {self.test}"
            )
