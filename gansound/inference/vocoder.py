"""`Vocoder`: a trained generator with the mel convention it understands, ready to turn mels into sound."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gansound.audio import resample
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel, load_model_folder, save_model_folder

log = logging.getLogger(__name__)


class Vocoder:
    """Mel spectrogram to waveform.

    Args:
        model: what `gansound.model_folder.load_model_folder` gives.
        device: where it runs; CUDA where there is one, else the CPU.

    >>> import gansound, torch
    >>> vocoder = gansound.Vocoder.from_pretrained("default")
    >>> mel = vocoder.mel_spec.mel(torch.zeros(1, 22050))
    >>> audio = vocoder(mel)
    >>> audio.shape[-1] == mel.shape[-1] * vocoder.mel_spec.hop_length
    True
    """

    def __init__(self, model: LoadedModel, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.generator = model.generator.to(self.device).eval().requires_grad_(False)
        self.mel_spec: MelSpec = model.mel
        self.info: dict[str, Any] = dict(model.info)
        self._config = model.config

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "default",
        device: str | torch.device | None = None,
        *,
        allow: Sequence[str] = (),
    ) -> Self:
        """A shipped model by name, a model folder, or a Hugging Face repository id.

        Args:
            name_or_path: `default` is the shipped vocoder.
            device: such as `cpu` or `cuda:1`.
            allow: packages besides gansound whose generator classes the folder may name.

        Raises:
            ModelFolderError: (a ValueError) not found, not readable, or it names a class that is refused.
        """
        return cls(load_model_folder(os.fspath(name_or_path), allow=allow), device)

    @property
    def sample_rate(self) -> int:
        """Of the sound it makes, in Hz."""
        return self.mel_spec.sample_rate

    def __call__(self, mel: Tensor | np.ndarray) -> Tensor:
        """Waveform of a mel in the convention `mel_spec`.

        Values that look like another convention (log base, orientation) are warned of.

        Shape:
            `(B, n_mels, F)` or `(n_mels, F)` -> `(B, F * hop_length)` float32 on the vocoder's device.

        Raises:
            ValueError: wrong number of bands or dimensions, no frames, not a number.
        """
        checked = self.mel_spec.check(mel)
        for suspicion in self.mel_spec.suspicions(checked):
            log.warning("%s", suspicion)
        with torch.inference_mode():
            return self.generator(checked.to(self.device)).float()

    def vocode_audio(self, audio: ArrayLike, sample_rate: int) -> np.ndarray:
        """Copy synthesis: the mel of a recording, and the waveform made from that mel.

        Args:
            audio: `(T,)`, full scale 1.
            sample_rate: of it, in Hz; another than the model's is resampled.

        Returns:
            `(round(T * vocoder.sample_rate / sample_rate),)` float32 at the vocoder's sample rate.

        Raises:
            ValueError: more than one dimension, empty, or not finite.
        """
        samples = np.asarray(audio, dtype=np.float32)
        if samples.ndim != 1 or samples.size == 0 or not np.isfinite(samples).all():
            raise ValueError(
                f"expected finite mono audio (T,), got shape {samples.shape}"
                + ("" if np.isfinite(samples).all() else " with NaN or infinite samples")
            )
        samples = resample(samples, sample_rate, self.sample_rate)
        length = len(samples)
        # A last hop that isn't full is completed with silence, and cut off again.
        whole = -(-length // self.mel_spec.hop_length) * self.mel_spec.hop_length
        padded = torch.from_numpy(np.pad(samples, (0, whole - length)))[None].to(self.device)
        frames = whole // self.mel_spec.hop_length
        mel = self.mel_spec.mel(padded)[..., :frames]
        with torch.inference_mode():
            return self.generator(mel)[0, :length].float().cpu().numpy()

    def save_pretrained(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as a folder that `from_pretrained` loads."""
        return save_model_folder(
            os.fspath(path), self.generator, self.mel_spec, config=self._config, info=self.info
        )
