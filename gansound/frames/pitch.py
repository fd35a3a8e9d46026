"""The pitch of a recording, framed as vocoders take it that take one: pYIN (Mauch and Dixon, ICASSP 2014) in librosa.

Those vocoders are trained on a pitch that goes on where there is none, straight between the logarithms of its last and
its next value (openvpi/SingingVocoders, RVC's and so-vits-svc's likes), and so it does here.
"""

import numpy as np

from gansound.extras import require

LOWEST_HZ, HIGHEST_HZ = 65.0, 1100.0
"""Of a singer, as openvpi/SingingVocoders looks for them."""
_PERIODS = 3  # of the lowest pitch, in what is listened to at a time
# Each frame takes 30 KB while paths through them are compared, so that a long recording is listened to in pieces; which
# path is right on one side of so many frames doesn't depend on what lies on the other.
_PIECE_FRAMES, _AROUND_FRAMES = 8192, 128


def pitch_of(audio: np.ndarray, sample_rate: int, hop_length: int) -> np.ndarray:
    """F0 in Hz at the beginning of each frame of a recording; 0 in all where no frame has one.

    Takes about two thirds of the recording's length on one core.

    Args:
        audio: the recording; what is missing to a whole last hop is silence.
        sample_rate: of it, in Hz.
        hop_length: samples of a frame.

    Shape:
        `(T,)`, T >= 1 → `(ceil(T / hop_length),)` float32.

    Raises:
        MissingPackage: (a ValueError) librosa isn't installed.
    """
    require("the pitch of a recording", "librosa")
    from librosa import pyin

    frames = -(-len(audio) // hop_length)
    listened = 1 << int(np.ceil(np.log2(_PERIODS * sample_rate / LOWEST_HZ)))
    f0, voiced = np.zeros(frames), np.zeros(frames, bool)
    for first in range(0, frames, _PIECE_FRAMES):
        begin, stop = max(0, first - _AROUND_FRAMES), min(frames, first + _PIECE_FRAMES)
        end = min(frames, stop + _AROUND_FRAMES)
        samples = np.zeros(max((end - begin) * hop_length, listened), np.float32)
        given = audio[begin * hop_length : end * hop_length]
        samples[: len(given)] = given
        found = pyin(
            samples,
            fmin=LOWEST_HZ,
            fmax=min(HIGHEST_HZ, sample_rate / 4),
            sr=sample_rate,
            frame_length=listened,
            hop_length=hop_length,
        )
        f0[first:stop], voiced[first:stop] = (each[first - begin : stop - begin] for each in found[:2])
    if voiced.any():
        place = np.arange(frames)
        return np.exp2(np.interp(place, place[voiced], np.log2(f0[voiced]))).astype(np.float32)
    return np.zeros(frames, np.float32)
