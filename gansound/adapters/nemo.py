"""In place of a NeMo vocoder such as `HifiGanModel`: `convert_spectrogram_to_audio(spec=...)`."""

from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """NeMo names its arguments; the call has a channel, the conversion hasn't."""

    def convert_spectrogram_to_audio(self, spec: Tensor) -> Tensor:
        """`(B, M, F)` -> `(B, F * hop_length)`."""
        return self.sound(spec)

    def forward(self, *, spec: Tensor) -> Tensor:
        """`(B, M, F)` -> `(B, 1, F * hop_length)`."""
        return self.sound(spec).unsqueeze(-2)
