"""What every generator of whole clips is: latents and labels in, a waveform out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gansound.generators.prior import Prior


class LatentGenerator(nn.Module, ABC):
    """A map from latents, and labels where it has any, to clips of one length.

    Attributes:
        prior: what its latents are drawn from.
        labels: names of its classes in the order of their numbers; () when it has none.
        sample_rate: in Hz.
        channels: of the waveform.
        clip_samples: length of the waveform.
    """

    prior: Prior
    labels: tuple[str, ...]
    sample_rate: int
    channels: int
    clip_samples: int

    @abstractmethod
    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Clips.

        Shape:
            latents `(B, prior.dim)`; labels `(B,)` int64, given exactly when the generator has labels →
            waveform `(B, channels, clip_samples)` within ±1.
        """

    def check_inputs(self, latents: Tensor, labels: Tensor | None) -> None:
        """Raises ValueError for latents or labels that aren't of the shapes `forward` takes."""
        if latents.dim() != 2 or latents.shape[1] != self.prior.dim:
            raise ValueError(
                f"expected latents of shape (batch, {self.prior.dim}), got {tuple(latents.shape)}"
            )
        if self.labels and (labels is None or labels.shape != latents.shape[:1]):
            got = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise ValueError(
                f"expected a label for each of {len(latents)} latents (0 to {len(self.labels) - 1}: "
                f"{', '.join(self.labels)}), got {got}"
            )
        if not self.labels and labels is not None:
            raise ValueError("this generator has no labels; give latents alone")
