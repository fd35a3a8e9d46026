"""In place of transformers' `SpeechT5HifiGan` and `FastSpeech2ConformerHifiGan`.

`model.generate_speech(..., vocoder=module)`, `pipeline("text-to-speech", vocoder=module)`, which reads
`config.sampling_rate`, or `FastSpeech2ConformerWithHifiGan.vocoder = module`. Their mels are standardised only where
their vocoder is said to (`normalize_before`): what the acoustic model gives is what this module takes.
"""

from types import SimpleNamespace

from torch import Tensor

from gansound.adapters.host_module import HostModule, Voice


class Module(HostModule):
    """`config` says the rate, the bands and the hop by transformers' names."""

    def __init__(self, vocoder: Voice) -> None:
        super().__init__(vocoder)
        spec = vocoder.mel_spec
        self.config = SimpleNamespace(
            sampling_rate=spec.sample_rate, model_in_dim=spec.n_mels, hop_length=spec.hop_length
        )

    def forward(self, spectrogram: Tensor) -> Tensor:
        """`(F, M)` -> `(F * hop_length,)`, or `(B, F, M)` -> `(B, F * hop_length)`."""
        return self.by_frames(spectrogram)
