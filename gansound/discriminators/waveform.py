"""What discriminators of waveforms share: a least length, what is said of a shorter sound, and published names."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gansound.nn.conv import published_keys


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


def published_nets(discriminator: nn.Module, nets: str) -> dict[str, str]:
    """Our state-dict keys of equal nets with `layers` and a `last` one, and for each the key in HiFi-GAN's manner.

    Net i is `discriminators.i`, its layers `convs.j`, the last `conv_post`.
    """
    layers: dict[str, str] = {}
    for i, net in enumerate(discriminator.get_submodule(nets).children()):
        depth = sum(1 for _ in net.get_submodule("layers").children())
        layers |= {f"{nets}.{i}.layers.{j}": f"discriminators.{i}.convs.{j}" for j in range(depth)}
        layers[f"{nets}.{i}.last"] = f"discriminators.{i}.conv_post"
    return published_keys(discriminator, layers)
