"""In place of the vocoder model of Coqui's `Synthesizer`: `synthesizer.vocoder_model = vocoder.as_module("coqui")`.

Coqui's own generators repeat five frames at either end, so that their sound is ten hops longer; this one's isn't.
"""

from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """`inference(mel)`; the host finds the device by `next(model.parameters())`."""

    def inference(self, c: Tensor) -> Tensor:
        """`(B, M, F)` -> `(B, 1, F * hop_length)`."""
        return self.sound(c).unsqueeze(-2)

    def forward(self, c: Tensor) -> Tensor:
        """The same."""
        return self.inference(c)
