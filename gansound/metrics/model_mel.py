"""Distance between mels in a model's own convention: what of its input came back."""

import numpy as np
import torch
from numpy.typing import NDArray

from gansound.mel import MelSpec


def mel_distance_model(
    spec: MelSpec, reference: NDArray[np.float32], estimate: NDArray[np.float32], sample_rate: int
) -> float:
    """Mean absolute difference of natural-log mels in the convention `spec`, floor and all, in nepers.

    Shape: two waveforms `(T,)` at the convention's sample rate -> scalar.
    """
    with torch.inference_mode():
        pair = torch.stack([torch.from_numpy(reference), torch.from_numpy(estimate)])
        real, fake = spec.to_magnitude(spec.mel(pair)).clamp(min=1e-12).log()
        return float((real - fake).abs().mean())
