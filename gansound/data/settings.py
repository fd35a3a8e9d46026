"""The part of a recipe that says what is trained on."""

from dataclasses import dataclass
from typing import Literal

_MOST_WORKERS, _MOST_GB = 256, 1_000_000
_MOST_DB = 100
"""Of a gain: more than lies between full scale and the last of 16 bits."""


@dataclass(frozen=True)
class OneShotSettings:
    """How recordings become clips of the model's length, each a whole sound that starts and ends at zero.

    Levels are made equal by peak: the level of a one-shot was set by whoever recorded it and is set again by whoever
    plays it, but a soft velocity layer 30 dB down teaches a discriminator little else than to look at the level. What
    a softer stroke changes in the timbre stays. Loudness suits textures; of a click of some milliseconds it
    measures mostly the length.

    Args:
        align: the attack of every sound is put `lead_ms` after the clip's start; else a clip starts where its file
            does.
        lead_ms: of what comes before the attack, or of silence where there is nothing.
        trim_db: what ends a sound, further than this under its loudest millisecond, is cut off (a steady noise
            under the sound too, where it is 40 dB down); null keeps all.
        fade_in_ms: raised cosine from zero, before the attack.
        fade_out_ms: raised cosine to zero at the sound's end, or where it is cut; at most a quarter of the sound.
        peak_db: every clip's peak, in dB of full scale; null leaves levels as they are.
        loudness_lufs: every clip's loudness instead, lower where the peak would pass `peak_db`; null for peaks alone.
        long: recordings of four clips and four seconds or more are sliced into `hits` (each to the next attack), into
            random `crops`, or are `cut` after one clip as the shorter ones are; `auto` takes hits where those hold
            most of the sound, cuts a single sound that decays, and crops all else.
        balance: every label is drawn as often as any other, so that a folder of 20 claps is learnt beside one of 300
            kicks; else every file.
    """

    align: bool = True
    lead_ms: float = 2.0
    trim_db: float | None = 60.0
    fade_in_ms: float = 1.0
    fade_out_ms: float = 50.0
    peak_db: float | None = -1.0
    loudness_lufs: float | None = None
    long: Literal["auto", "hits", "crops", "cut"] = "auto"
    balance: bool = True

    def __post_init__(self) -> None:
        for name in ("lead_ms", "fade_in_ms", "fade_out_ms"):
            value = getattr(self, name)
            if not 0 <= value <= 1000:
                raise ValueError(f"{name} must be between 0 and 1,000 milliseconds, got {value}")
        if self.align and self.fade_in_ms > self.lead_ms:
            raise ValueError(
                f"fade_in_ms {self.fade_in_ms} is longer than lead_ms {self.lead_ms} and would dull every attack. "
                "Make it shorter, or the lead longer"
            )
        if self.trim_db is not None and not 20 <= self.trim_db <= 120:
            raise ValueError(
                f"trim_db must be between 20 and 120 dB, or null to trim nothing, got {self.trim_db}"
            )
        if self.peak_db is not None and not -60 <= self.peak_db <= 0:
            raise ValueError(
                f"peak_db must be between -60 and 0 dB of full scale, or null, got {self.peak_db}"
            )
        if self.loudness_lufs is not None and not -60 <= self.loudness_lufs <= 0:
            raise ValueError(f"loudness_lufs must be between -60 and 0, or null, got {self.loudness_lufs}")
        if self.long not in ("auto", "hits", "crops", "cut"):
            raise ValueError(f"long must be auto, hits, crops or cut, got {self.long!r}")


@dataclass(frozen=True)
class DiskCacheSettings:
    """What is kept of shards on the local disk, so that the store is asked once for what is drawn again.

    Args:
        gb: at most so many gigabytes; what was used longest ago makes room. Several runs, and all processes of one, may
            share a folder.
        path: the folder, on a disk of the machine itself; null takes the user's cache (`$XDG_CACHE_HOME`).
    """

    gb: float
    path: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.gb <= _MOST_GB:
            raise ValueError(
                f"gb must be above 0 and at most {_MOST_GB}, got {self.gb}; without a disk_cache nothing is kept"
            )


@dataclass(frozen=True)
class DataSettings:
    """A corpus and how segments are drawn from it.

    Args:
        path: a manifest, a folder holding one, an LJSpeech layout, any folder of audio, or a folder or URL of shards.
        mels: of an acoustic model told the recordings' durations (teacher-forced), in the model's convention, to
            fine-tune on in place of the recordings' own: a folder of files under the recordings' names, a list of lines
            `recording|mel`, or `manifest` where the lines of that name them.
        f0: for a generator that takes a pitch: a folder of files under the recordings' names, Hz at the beginning of
            each frame and 0 where unvoiced, in place of what is found in the recordings.
        segment_samples: length of a training segment at the model's sample rate.
        speed: largest change of speed and pitch in octaves, for half of the segments; slower only where a file's own
            rate is above the model's, so that no target is empty at the top of the band; null changes none.
        gain_db: lowest and highest gain, drawn uniformly for each segment and limited so that nothing clips.
        silence_db: a crop this far below its file's level is drawn again a few times; null keeps the first.
        crop: `random`, or `start` for one-shots.
        pad: where a file shorter than a segment gets its zeros.
        balance: 1 draws every second of the corpus equally often, 0 every speaker, values between go between. Where no
            speaker is known the label counts, in a folder of audio the folder.
        valid: share of the corpus held out for validation, where the manifest doesn't say.
        test: share held out for `gansound evaluate`, likewise.
        workers: processes that load; 0 loads in the training process.
        cache_gb: decoded audio is kept in memory when it fits in this.
        disk_cache: pieces of shards are kept on the local disk, where they don't fit into `cache_gb`; null keeps none.
        max_bad_files: training goes on without files that vanish or change after it has begun, but stops when they are
            more than this, or more than half of all.
        one_shots: for a generator of sounds: each recording becomes a whole clip of `segment_samples`, or several,
            instead of segments cut anywhere; `speed`, `gain_db`, `silence_db`, `crop` and `pad` don't apply to them.
    """

    segment_samples: int
    path: str | None = None
    mels: str | None = None
    f0: str | None = None
    speed: float | None = None
    gain_db: tuple[float, float] | None = None
    silence_db: float | None = 30.0
    crop: Literal["random", "start"] = "random"
    pad: Literal["end", "random"] = "end"
    balance: float = 1.0
    valid: float = 0.05
    test: float = 0.05
    workers: int = 1
    cache_gb: float = 2.0
    disk_cache: DiskCacheSettings | None = None
    max_bad_files: int = 100
    one_shots: OneShotSettings | None = None

    def __post_init__(self) -> None:
        if self.segment_samples < 1 or min(self.workers, self.cache_gb, self.max_bad_files) < 0:
            raise ValueError(
                "expected segment_samples >= 1, and workers, cache_gb and max_bad_files >= 0, got "
                f"{self.segment_samples}, {self.workers}, {self.cache_gb} and {self.max_bad_files}"
            )
        for name, most in (("workers", _MOST_WORKERS), ("cache_gb", _MOST_GB)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}")
        if self.speed is not None and not 0 < self.speed <= 1:
            raise ValueError(f"speed must be above 0 and at most 1 octave, got {self.speed}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be between 0 and 1, got {self.balance}")
        if self.gain_db is not None and not -_MOST_DB <= self.gain_db[0] <= self.gain_db[1] <= _MOST_DB:
            raise ValueError(
                f"gain_db must be [lowest, highest] in dB, from -{_MOST_DB} to {_MOST_DB}, got {list(self.gain_db)}"
            )
        if self.silence_db is not None and self.silence_db < 0:
            raise ValueError(
                f"silence_db is how far under its file's level a crop is silent, 0 dB or more, got {self.silence_db}; "
                "null takes every crop"
            )
        if self.mels is not None and (self.speed is not None or self.gain_db is not None):
            raise ValueError(
                "speed and gain_db change recordings, whose mels would then be others': set both to null beside mels"
            )
        if self.mels is not None and (self.crop != "random" or self.one_shots is not None):
            raise ValueError("mels: crop must be random and one_shots null beside it")
        if self.valid < 0 or self.test < 0 or self.valid + self.test >= 1:
            raise ValueError(
                "expected valid >= 0 and test >= 0, and less than 1 together so that something is left to train on, "
                f"got {self.valid} and {self.test}"
            )
