"""What a discriminator is shown of a generated or real clip."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gansound.mel import MelFrontEnd, MelSpec


class View(nn.Module, ABC):
    """A differentiable map from waveforms `(B, C, T)` to what a discriminator takes."""

    @abstractmethod
    def forward(self, waveform: Tensor) -> Tensor: ...

    @abstractmethod
    def check(self, network: nn.Module, sample_rate: int, clip_samples: int) -> None:
        """Raises ValueError when what it makes of such clips isn't what the discriminator takes."""


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

    def check(self, network: nn.Module, sample_rate: int, clip_samples: int) -> None:
        if self.mel.sample_rate != sample_rate:
            raise ValueError(
                f"view.mel is of {self.mel.sample_rate} Hz, the generator makes {sample_rate} Hz; take a mel of "
                "that rate"
            )
        theirs = getattr(network, "mel", None)
        if isinstance(theirs, MelSpec) and (different := theirs.differences(self.mel)):
            raise ValueError(
                f"the network's mel isn't its view's: {'; '.join(different)}; give both the same"
            )
        frames = clip_samples // self.mel.hop_length
        if getattr(network, "frames", frames) != frames:
            raise ValueError(
                f"its view makes {frames} frames of {clip_samples} samples, the network takes {network.frames}; "
                f"set frames to {frames}"
            )

    def forward(self, waveform: Tensor) -> Tensor:
        frames = waveform.shape[-1] // self.mel.hop_length
        # In full precision: the logarithm of a quiet band has no digits to lose.
        mel: Tensor = self.front_end(waveform.mean(1))
        return mel[..., :frames]
