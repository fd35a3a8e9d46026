"""What discriminators of waveforms share: a least length, and what is said of a sound that is shorter."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class WaveformDiscriminator(nn.Module, ABC):
    """A discriminator of waveforms.

    Attributes:
        shortest_samples: of what it can judge.
        shortest_is: what so many samples are to it, in words.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` → over sub-discriminators, over layers: feature maps, the batch first,
        the last being the logits.
    """

    shortest_samples: int
    shortest_is: ClassVar[str]

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Judge.

        Raises:
            ValueError: when the audio isn't `(B, T)` or is shorter than `shortest_samples`.
        """
        if audio.dim() != 2 or audio.shape[1] < self.shortest_samples:
            raise ValueError(
                f"expected audio of shape (batch, {self.shortest_samples} or more samples), {self.shortest_is}, got "
                f"{tuple(audio.shape)}"
            )
        return self.judge(audio)

    @abstractmethod
    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        """As `forward`, of audio that it can judge."""
