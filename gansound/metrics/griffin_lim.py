"""Griffin-Lim as the baseline every vocoder must beat, on the very mels the model gets.

The same algorithm as `librosa.feature.inverse.mel_to_audio(mel, power=1.0, n_iter=60)`: non-negative least squares
for the magnitudes, then fast Griffin-Lim (Perraudin, Balazs & Søndergaard, WASPAA 2013; momentum 0.99). Its two
halves are called one by one, for two reasons: librosa gives no way to seed the random phases, and it only knows
centred frames, where a model's frame may be centred on the middle of its hop.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.extras import require
from gansound.mel import MelSpec
from gansound.metrics.pair import Audio, one_waveform


def griffin_lim(mel: NDArray[np.float32], spec: MelSpec, *, n_iter: int = 60, seed: int = 0) -> Audio:
    """Audio from a mel of `spec`'s convention, aligned with what `spec.mel` would make that mel of.

    Shape: `(M, F)` -> `(T,)`, `T = F * hop_length` for framing `same`, `(F - 1) * hop_length` for `center`.

    Raises:
        MissingPackage: `librosa` isn't installed.
        ValueError: the mel isn't `(spec.n_mels, F)`, or so short that no sample comes of it.
    """
    require("Griffin-Lim", "librosa")
    import torch
    from librosa import griffinlim
    from librosa.util import nnls

    linear = spec.to_magnitude(spec.check(mel))[0].numpy()
    frames = linear.shape[1]
    length = spec.samples(frames) if spec.framing == "same" else spec.samples(frames - 1)
    if length < 1:
        raise ValueError(f"got a mel of {frames} frame, expected at least two with centred frames")
    window = torch.hann_window(spec.win_length, periodic=spec.window == "hann").numpy()
    with torch.no_grad():
        magnitude = nnls(spec.filter_bank().numpy(), linear)
    # Frames laid end to end from sample 0 of the padded signal: what the padding added is then cut off again,
    # whichever way the frames were centred.
    padded = griffinlim(
        magnitude,
        n_iter=n_iter,
        hop_length=spec.hop_length,
        win_length=spec.win_length,
        n_fft=spec.n_fft,
        window=window,
        center=False,
        random_state=seed,
    )
    padding = spec.n_fft if spec.framing == "center" else spec.n_fft - spec.hop_length
    audio: Audio = np.ascontiguousarray(padded[padding // 2 : padding // 2 + length], dtype=np.float32)
    return audio


class GriffinLim:
    """Copy synthesis by `griffin_lim`: a callable `(audio, sample_rate) -> audio`, as `evaluate` takes.

    Shape: `(T,)` -> `(T,)`. `sample_rate` must be the convention's.
    """

    def __init__(self, spec: MelSpec, *, n_iter: int = 60, seed: int = 0) -> None:
        require("Griffin-Lim", "librosa")
        self.spec = spec
        self.n_iter = n_iter
        self.seed = seed

    def __call__(self, audio: ArrayLike, sample_rate: int) -> Audio:
        """The audio's mel, and audio from that mel alone."""
        import torch

        if sample_rate != self.spec.sample_rate:
            raise ValueError(
                f"got audio at {sample_rate} Hz, expected {self.spec.sample_rate} Hz: resample it first"
            )
        samples = one_waveform(audio, "audio", sample_rate)
        whole = np.pad(samples, (0, -samples.size % self.spec.hop_length))
        mel = self.spec.mel(torch.from_numpy(whole)[None])[0].numpy()
        return griffin_lim(mel, self.spec, n_iter=self.n_iter, seed=self.seed)[: samples.size]
