"""Detectors of what PESQ doesn't hear, one fault a file, each a figure in dB and the limit above which it is an alarm.

Each knows the recording, so a fault that the recording has itself is none of the vocoder's. Below the limits stay
recordings put through what nobody hears (16 bits, another rate and back, an all-pass filter, noise at -50 dB, Vorbis),
above them lie planted faults: `tests/test_faults.py` counts both, on real speech with `-m slow`.
"""

from gansound.metrics.faults.above_band import above_band_db
from gansound.metrics.faults.drift import level_drift_db
from gansound.metrics.faults.onsets import onset_smear_db
from gansound.metrics.faults.steps import step_db
from gansound.metrics.faults.tone import pause_tone_db

DETECTORS = {
    "pause_tone_db": pause_tone_db,
    "step_db": step_db,
    "above_band_db": above_band_db,
    "onset_smear_db": onset_smear_db,
    "level_drift_db": level_drift_db,
}
ALARM_ABOVE_DB = {
    "pause_tone_db": 10.0,
    "step_db": 6.5,
    "above_band_db": -50.0,
    "onset_smear_db": 3.5,
    "level_drift_db": 1.5,
}
"""An utterance whose figure is greater is an alarm."""

__all__ = [
    "ALARM_ABOVE_DB",
    "DETECTORS",
    "above_band_db",
    "level_drift_db",
    "onset_smear_db",
    "pause_tone_db",
    "step_db",
]
