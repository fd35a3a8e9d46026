"""Audio files and samples: probe, read a segment, write, resample, level, loudness, trim.

Samples are float32 with full scale ±1. Only this room imports soundfile and soxr.
"""

from gansound.audio.files import (
    AUDIO_SUFFIXES,
    HIGHEST_RATE,
    LOWEST_RATE,
    AudioError,
    AudioInfo,
    blocks,
    cancelling,
    digest,
    mixed,
    probe,
    read,
    read_tags,
)
from gansound.audio.signal import (
    SILENT_PEAK_DB,
    Resampler,
    fade,
    loudness_lufs,
    peak_db,
    resample,
    resampled_frames,
    rms_db,
    trim,
)
from gansound.audio.writer import SUBTYPE_OF_BITS, Writer, write

__all__ = [
    "AUDIO_SUFFIXES",
    "HIGHEST_RATE",
    "LOWEST_RATE",
    "SILENT_PEAK_DB",
    "SUBTYPE_OF_BITS",
    "AudioError",
    "AudioInfo",
    "Resampler",
    "Writer",
    "blocks",
    "cancelling",
    "digest",
    "fade",
    "loudness_lufs",
    "mixed",
    "peak_db",
    "probe",
    "read",
    "read_tags",
    "resample",
    "resampled_frames",
    "rms_db",
    "trim",
    "write",
]
