"""In place of the vocoder of ESPnet2's `Text2Speech`: `text2speech.vocoder = vocoder.as_module("espnet")`."""

from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """Takes `feat_gen` as the acoustic model made it; `fs` is what `Text2Speech.fs` answers with."""

    @property
    def fs(self) -> int:
        """Of the sound, in Hz."""
        return self.sample_rate

    def forward(self, c: Tensor) -> Tensor:
        """`(F, M)` -> `(F * hop_length,)`."""
        return self.by_frames(c)
