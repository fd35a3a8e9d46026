"""In place of the vocoder of torchaudio's text-to-speech bundles (`Tacotron2TTSBundle.get_vocoder()`)."""

import torch
from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """Has `sample_rate`, and gives lengths in samples for lengths in frames."""

    def forward(self, specgram: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """`(B, M, F)` and lengths `(B,)` in frames -> `(B, F * hop_length)` and `(B,)` in samples.

        Each item sounds as it does alone, and is silent after its end; without lengths there are none.
        """
        if lengths is None:
            return self.sound(specgram), None
        lengths = lengths.to(torch.int64)
        return self.sound(specgram, lengths), lengths * self.vocoder.mel_spec.hop_length
