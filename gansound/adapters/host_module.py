"""What the adapters share: a module whose weights, device and mode a host handles as it does those of its own."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from gansound.frames import FrameSpec
from gansound.mel import MelSpec


class Voice(Protocol):
    """What an adapter asks of a vocoder: `gansound.inference.vocoder.Vocoder` without its room."""

    generator: nn.Module
    frame_spec: FrameSpec
    device: torch.device

    @property
    def mel_spec(self) -> MelSpec: ...

    @property
    def sample_rate(self) -> int: ...

    def __call__(self, mel: Tensor, *, lengths: Tensor | None = None, warn: bool = True) -> Tensor: ...

    def to(self, device: torch.device) -> Any: ...


class HostModule(nn.Module):
    """A vocoder for inference inside a host.

    It follows the host to a device. `half()` and the like leave it in its own precision, which is the vocoder's
    (`precision=`), and it trains as little as the vocoder does: `train()` and `requires_grad_()` change nothing of its
    sound. What it gives is float32, on its device.

    Args:
        vocoder: whose convention the host's mels are in; `Vocoder.from_pretrained(..., mel=...)` says which.

    Raises:
        ValueError: it takes latents where the host makes mels, or mels where it makes latents.
    """

    takes: ClassVar[str] = "mel"

    def __init__(self, vocoder: Voice) -> None:
        super().__init__()
        if (spec := vocoder.frame_spec).kind != self.takes:
            raise ValueError(
                f"the vocoder takes {spec.in_words()}; expected one that takes {self.takes}s alone in this host"
            )
        self.generator = vocoder.generator  # its parameters say where it is, and are saved with the host's
        self.vocoder = vocoder

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return self.vocoder.sample_rate

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and sent to another process it is made again, of a vocoder that is."""
        return type(self), (self.vocoder,)

    def train(self, mode: bool = True) -> Self:
        """Nothing changes: it is in eval mode for good."""
        self.training = False
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device = fn(torch.zeros(1, device=self.vocoder.device)).device
        if device != self.vocoder.device:
            self.vocoder.to(device)
        return self

    def sound(self, mel: Tensor, lengths: Tensor | None = None, *, warn: bool = True) -> Tensor:
        """`(B, M, F)` -> `(B, F * hop_length)`, or both without B."""
        batch = mel if mel.ndim == 3 else mel[None]
        audio = self.vocoder(batch, lengths=lengths, warn=warn)
        return audio if mel.ndim == 3 else audio[0]

    def by_frames(self, spectrogram: Tensor) -> Tensor:
        """The same of a mel with time before bands, `(B, F, M)` or `(F, M)`, as most acoustic models make it.

        Raises:
            ValueError: another shape; where F equals M nothing shows that the axes are changed over.
        """
        bands = self.vocoder.mel_spec.n_mels
        if spectrogram.ndim not in (2, 3) or spectrogram.shape[-1] != bands:
            raise ValueError(
                f"got a spectrogram of shape {tuple(spectrogram.shape)}, expected (frames, {bands}) or (batch, frames, "
                f"{bands}): time before bands"
            )
        return self.sound(spectrogram.transpose(-1, -2))
