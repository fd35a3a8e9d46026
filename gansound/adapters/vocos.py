"""In place of a `vocos.Vocos`, as F5-TTS and others hold one: `decode(mel)`, and copy synthesis by the call."""

from typing import Any

from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """A mel of centred frames gives one hop less than it has frames, as in Vocos."""

    def feature_extractor(self, audio: Tensor, **_: Any) -> Tensor:
        """The vocoder's own mel of `(B, T)` audio at its rate. Shape: `(B, M, F)`."""
        return self.vocoder.mel_spec.mel(audio.to(self.vocoder.device))

    def decode(self, features_input: Tensor, **_: Any) -> Tensor:
        """`(B, M, F)` -> `(B, F * hop_length)`, or `(B, (F - 1) * hop_length)` where frames are centred."""
        spec = self.vocoder.mel_spec
        frames = features_input.shape[-1] - (spec.framing == "center")
        return self.sound(features_input)[..., : frames * spec.hop_length]

    def forward(self, audio_input: Tensor, **_: Any) -> Tensor:
        """Copy synthesis of `(B, T)` audio at the vocoder's rate."""
        return self.decode(self.feature_extractor(audio_input))
