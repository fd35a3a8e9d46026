"""Audio files and samples: probe, read a segment, write, resample, level, loudness, trim.

Samples are float32 with full scale ±1. Only this room imports soundfile and soxr.
"""

from gansound.audio.files import (
    AUDIO_SUFFIXES,
    AudioError,
    AudioInfo,
    Writer,
    blocks,
    probe,
    read,
    read_tags,
    write,
)
from gansound.audio.signal import fade, loudness_lufs, peak_db, resample, resampled_frames, rms_db, trim

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "Writer",
    "blocks",
    "fade",
    "loudness_lufs",
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
