"""What a discriminator is shown of a generated or real clip."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gansound.mel import MelFrontEnd, MelSpec


class View(nn.Module, ABC):
    """A differentiable map from waveforms `(B, C, T)` to what a discriminator takes."""

    @abstractmethod
    def forward(self, waveform: Tensor) -> Tensor: ...


class LogMel(View):
    """The log-mel of the channels' mean, `(B, C, T)` → `(B, n_mels, T // hop_length)`.

    With it a generator of waveforms is judged by how it looks as well as by how it swings, which a net of a few
    layers sees far sooner.

    Args:
        mel: the convention; a preset's name or its values.
    """

    def __init__(self, mel: MelSpec) -> None:
        super().__init__()
        self.mel = mel
        self.front_end = MelFrontEnd(mel)

    def forward(self, waveform: Tensor) -> Tensor:
        frames = waveform.shape[-1] // self.mel.hop_length
        # In full precision: the logarithm of a quiet band has no digits to lose.
        mel: Tensor = self.front_end(waveform.mean(1))
        return mel[..., :frames]
