"""`LatentSpec`: what a vocoder takes that doesn't take mels, but the latents of the acoustic model it was learnt with.

VITS (Kim et al., arXiv 2106.06103) and what descends from it, Piper say, learn one net from text to sound; its second
half turns latents into samples, frame by frame, like a vocoder. Nothing computes such latents from a recording or from
a mel, and they mean something only to the half they were learnt with.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gansound.counts import some_of
from gansound.frames.fields import check_keys, check_whole
from gansound.frames.interpolation import Interpolation, checked_factors
from gansound.mel.frames import from_outside

_MOST = {"channels": 4096, "sample_rate": 1_000_000, "hop_length": 32768}
_GREATEST = 1e4  # of any latent


@dataclass(frozen=True)
class LatentSpec:
    """The frames of a latent, as far as anything but its own acoustic model can know them.

    Args:
        channels: of a frame.
        sample_rate: of the sound made of them, in Hz.
        hop_length: samples that a frame becomes.
        interpolated: factors by which what the acoustic model says is interpolated in time, one after the other, before
            it is frames; as of XTTS, 4 and 24000 / 22050.

    Raises:
        ValueError: a field isn't a whole number above 0, or beyond anything sensible; a factor is none.
    """

    kind: ClassVar[Literal["latent"]] = "latent"

    channels: int
    sample_rate: int
    hop_length: int
    interpolated: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_whole(self.kind, self, _MOST)
        if self.interpolated != ():
            object.__setattr__(self, "interpolated", checked_factors(self.interpolated))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. An unknown or missing key is a ValueError that names it."""
        check_keys(cls.kind, values.keys() - {"interpolated"}, _MOST)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON can hold it; `interpolated` where there is any."""
        values = dataclasses.asdict(self)
        factors = list(values.pop("interpolated"))
        return values | ({"interpolated": factors} if factors else {})

    def interpolation(self) -> Interpolation:
        """What makes frames of the acoustic model's latents, in pieces: one for each stream.

        Raises:
            ValueError: its latents are frames as they are.
        """
        return Interpolation(self.interpolated)

    def interpolate(self, latents: Tensor | np.ndarray) -> Tensor:
        """Frames of all of an utterance's latents; they themselves where `interpolated` is empty.

        Shape:
            `(B, C, n)`, n >= 1 → `(B, C, F)`, float32.

        Raises:
            ValueError: another shape.
        """
        latents = torch.as_tensor(latents)
        if latents.ndim != 3 or latents.shape[-2] != self.channels or not latents.shape[-1]:
            turned = (
                "; it looks transposed: swap the last two axes"
                if latents.shape[-1:] == (self.channels,)
                else ""
            )
            raise ValueError(
                f"latents: got shape {tuple(latents.shape)}, expected (B, {self.channels}, n), n of 1 or more{turned}"
            )
        frames = latents.float()
        for factor in self.interpolated:
            frames = interpolate(frames, scale_factor=[factor], mode="linear")
        return frames

    @property
    def n_mels(self) -> int:
        """The channels, by the name that generators have for the height of what they take."""
        return self.channels

    def check(self, latent: Tensor | np.ndarray) -> Tensor:
        """A latent from outside as float32 (B, C, F), or the ValueError that says what is wrong with it.

        Shape: (B, C, F) or (C, F), torch or numpy.
        """
        shape = tuple(getattr(latent, "shape", ()))
        if len(shape) in (2, 3) and shape[-2] != self.channels:
            turned = "; it looks transposed: swap the last two axes" if shape[-1] == self.channels else ""
            raise ValueError(
                f"latent: got shape {shape}, expected (B, {self.channels}, F) or ({self.channels}, F){turned}. This "
                "model takes the latents of its own acoustic model, not mels"
            )
        latent = from_outside(latent, self.channels, "latent", "channels")
        if bad := int(self.beyond_sound(latent).sum()):
            raise ValueError(
                f"latent: {some_of(bad, latent.numel(), 'value', 'lies', 'lie')} beyond ±{_GREATEST:,.0f}, where no "
                f"acoustic model puts them, the greatest at {float(latent.abs().max()):.3g}. Look at how it was saved "
                "and read"
            )
        return latent

    def beyond_sound(self, latent: Tensor) -> Tensor:
        """Which values (…, C, F) no acoustic model gives."""
        return latent.abs() > _GREATEST

    def suspicions(self, latent: Tensor) -> list[str]:
        """None: no value of a latent is more likely than another to who doesn't know its acoustic model."""
        return []

    def padded(self, latent: Tensor) -> str:
        """Nothing: a latent may end in zeros."""
        return ""

    def in_words(self) -> str:
        """For a card, or a message."""
        factors = "".join(f", interpolated by {factor:.6g}" for factor in self.interpolated)
        return f"latents of {self.channels} channels, {self.sample_rate} Hz, hop {self.hop_length}{factors}"

    def noise(self, frames: int, *, seed: int = 0) -> Tensor:
        """A latent to try and time a vocoder with, normally distributed. Shape: `(1, channels, frames)`."""
        return torch.randn(1, self.channels, frames, generator=torch.Generator().manual_seed(seed))
