"""The pitch of a recording, framed as vocoders take it that take one: pYIN (Mauch and Dixon, ICASSP 2014) in librosa.

Those vocoders are trained on a pitch that goes on where there is none, straight between the logarithms of its last and
its next value (openvpi/SingingVocoders, RVC's and so-vits-svc's likes), and so it does here.
"""

import numpy as np
import torch
from torch import Tensor

from gansound.extras import require
from gansound.frames import PitchedSpec

LOWEST_HZ, HIGHEST_HZ = 65.0, 1100.0
"""Of a singer, as openvpi/SingingVocoders looks for them."""
_PERIODS = 3  # of the lowest pitch, in what is listened to at a time


def with_pitch(spec: PitchedSpec, mel: Tensor, audio: Tensor) -> Tensor:
    """A recording's mel with its pitch below it.

    Args:
        spec: the frames.
        mel: of the recording.
        audio: the recording, at the rate of `spec`; what is missing to a whole last hop is silence.

    Shape:
        `(1, M, F)`, `(T,)` → `(1, M + 1, F)`.

    Raises:
        MissingPackage: (a ValueError) librosa isn't installed.
    """
    require("the pitch of a recording", "librosa")
    from librosa import pyin

    frames, hop = mel.shape[-1], spec.hop_length
    around = 1 << int(np.ceil(np.log2(_PERIODS * spec.sample_rate / LOWEST_HZ)))
    samples = np.zeros(max(frames * hop, around), np.float32)
    given = audio.detach().cpu().numpy()[: len(samples)]
    samples[: len(given)] = given
    f0, voiced, _ = pyin(
        samples,
        fmin=LOWEST_HZ,
        fmax=min(HIGHEST_HZ, spec.sample_rate / 4),
        sr=spec.sample_rate,
        frame_length=around,
        hop_length=hop,
    )
    f0, voiced = f0[:frames], voiced[:frames]
    if voiced.any():
        place = np.arange(frames)
        found = np.exp2(np.interp(place, place[voiced], np.log2(f0[voiced])))
    else:
        found = np.zeros(frames)
    return spec.join(mel, torch.from_numpy(found.astype(np.float32)))
