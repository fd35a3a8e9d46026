"""`PitchedSpec`: frames with a pitch below their mel or latent, as vocoders of singing and voice conversion take them.

The last row of a frame is F0 in Hz, 0 where unvoiced, at the frame's beginning: of frame f at sample f * hop_length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from gansound.counts import some_of
from gansound.frames.latent import LatentSpec
from gansound.mel import MelSpec
from gansound.mel.frames import check_not_whole, check_numbers, from_outside

GREATEST_HZ = 8000.0
"""Of a pitch: an octave above the highest note of a piano."""
_LOWEST_HZ = 20.0  # of what is heard as a tone; a logarithm of any voice's pitch lies below
_LOW_VOICE_HZ = 100.0  # and above any semitone, as MIDI counts them, that a voice sings: 440 Hz is 69
_JUDGED_FRAMES = 20  # with a pitch, fewer say nothing
_INNER: Mapping[str, type[MelSpec | LatentSpec]] = {"mel": MelSpec, "latent": LatentSpec}


@dataclass(frozen=True)
class PitchedSpec:
    """Frames of a mel, or of a latent, and one row more: the pitch.

    Args:
        frames: what the other rows are.
    """

    kind: ClassVar[Literal["pitched"]] = "pitched"

    frames: MelSpec | LatentSpec

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. An unknown or missing key is a ValueError that names it."""
        if len(values) != 1 or not values.keys() <= _INNER.keys():
            raise ValueError(
                f"pitched: got keys {', '.join(map(str, values)) or 'none'}, expected one of {', '.join(_INNER)}"
            )
        ((kind, inner),) = values.items()
        return cls(_INNER[kind].from_dict(inner))

    def to_dict(self) -> dict[str, Any]:
        """Under its own name, what the other rows are, as JSON can hold it."""
        return {self.frames.kind: self.frames.to_dict()}

    @property
    def n_mels(self) -> int:
        """Rows of a frame."""
        return self.frames.n_mels + 1

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return self.frames.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples that a frame becomes."""
        return self.frames.hop_length

    def join(self, frames: Tensor | np.ndarray, f0: Tensor | np.ndarray) -> Tensor:
        """A mel or latent and its pitch as frames, on the device of the first; what they hold is for `check` to judge.

        Args:
            frames: `(B, M, F)` or `(M, F)`.
            f0: `(B, F)`, or `(F,)` for all of the batch; Hz, 0 where unvoiced.

        Shape:
            `(B, M + 1, F)` or `(M + 1, F)`, float32.

        Raises:
            ValueError: another shape, or not numbers.
        """
        what = self.frames.kind
        for given, name in ((frames, what), (f0, "f0")):
            if not isinstance(given, Tensor | np.ndarray):
                raise ValueError(f"{name}: got {type(given).__name__}, expected a tensor or an array")
            check_numbers(given, name)
        check_not_whole(frames, what)
        shape, rows = tuple(frames.shape), self.frames.n_mels
        if len(shape) not in (2, 3) or shape[-2] != rows:
            hint = (
                "; it has its pitch already, so give no f0 beside it" if shape[-2:-1] == (rows + 1,) else ""
            )
            turned = "; it looks transposed: swap the last two axes" if shape[-1:] == (rows,) else ""
            raise ValueError(
                f"{what}: got shape {shape}, expected (B, {rows}, F) or ({rows}, F){hint or turned}"
            )
        fit = {shape[-1:], (*shape[:-2], shape[-1]), (1, shape[-1])}
        if tuple(f0.shape) not in fit:
            raise ValueError(
                f"f0: got shape {tuple(f0.shape)} beside a {what} of {shape}, expected ({shape[-1]},): Hz of each "
                "frame, 0 where unvoiced" + (f", or {(*shape[:-2], shape[-1])}" if len(shape) == 3 else "")
            )
        above, below = (
            each.detach() if isinstance(each, Tensor) else torch.from_numpy(np.array(each, np.float32))
            for each in (frames, f0)
        )
        below = below.to(above.device, torch.float32).reshape(-1, shape[-1])
        if len(shape) == 3:
            below = below.expand(len(above), -1)[:, None]
        return torch.cat([above.to(torch.float32), below], -2)

    def check(self, frames: Tensor | np.ndarray) -> Tensor:
        """Frames from outside as float32 (B, M + 1, F), or the ValueError that says what is wrong with them.

        Shape: (B, M + 1, F) or (M + 1, F), torch or numpy.
        """
        rows = self.frames.n_mels
        shape = tuple(getattr(frames, "shape", ()))
        if len(shape) in (2, 3) and shape[-2] == rows:
            raise ValueError(
                f"frames: got a {self.frames.kind} of {rows} rows (shape {shape}) without its pitch, expected "
                f"{rows + 1}: give f0= beside it (--f0), Hz of each frame and 0 where unvoiced"
            )
        frames = from_outside(frames, self.n_mels, "frames", "rows")
        self.frames.check(frames[:, :-1])
        check_f0(frames[:, -1])
        return frames

    def beyond_sound(self, frames: Tensor) -> Tensor:
        """Which values (…, M + 1, F) no mel or latent of this kind has, and which are no pitch."""
        return torch.cat([self.frames.beyond_sound(frames[..., :-1, :]), _no_pitch(frames[..., -1:, :])], -2)

    def padded(self, frames: Tensor) -> str:
        """What is said of a mel or latent that ends in zeros, see `MelSpec`."""
        return self.frames.padded(frames[..., :-1, :])

    def suspicions(self, frames: Tensor) -> list[str]:
        """What the values themselves say against being such; empty where they fit."""
        found = self.frames.suspicions(frames[..., :-1, :])
        f0 = frames[..., -1, :].detach().cpu()
        voiced = f0[f0 > 0]
        if len(voiced) >= _JUDGED_FRAMES and _LOWEST_HZ <= float(voiced.max()) < _LOW_VOICE_HZ:
            note = float(voiced.median())
            found.append(
                f"f0: all pitches are below {_LOW_VOICE_HZ:g} Hz, half of them below {note:.1f}: unless the voice is "
                f"so low, they are semitones, and mean {440 * 2 ** ((note - 69) / 12):.0f} Hz. Expected Hz"
            )
        return found

    def in_words(self) -> str:
        """For a card, or a message."""
        return f"{self.frames.in_words()}; below each frame its pitch in Hz, 0 where unvoiced"

    def noise(self, frames: int, *, seed: int = 0) -> Tensor:
        """Frames to try and time a vocoder with: a pitch that rises and falls about 200 Hz, and pauses.

        Shape: `(1, n_mels, frames)`.
        """
        seconds = (torch.arange(frames) + seed) * self.hop_length / self.sample_rate
        pitch = 200 * torch.exp2(0.5 * torch.sin(2 * torch.pi * seconds))
        pitch = torch.where((4 * seconds).remainder(1) < 0.8, pitch, 0.0)
        return torch.cat([self.frames.noise(frames, seed=seed), pitch[None, None]], 1)


def check_f0(f0: Tensor) -> None:
    """Raises ValueError for a pitch of any shape that isn't Hz, or 0 where unvoiced."""
    if bad := int(_no_pitch(f0).sum()):
        raise ValueError(
            f"f0: {some_of(bad, f0.numel(), 'value', 'is', 'are')} no pitch, the least {float(f0.min()):.3g} and the "
            f"greatest {float(f0.max()):.3g}, expected Hz up to {GREATEST_HZ:g}, and 0 where unvoiced"
        )
    voiced = f0[f0 > 0]
    if len(voiced) >= _JUDGED_FRAMES and float(voiced.max()) < _LOWEST_HZ:
        raise ValueError(
            f"f0: no value is above {float(voiced.max()):.3g}, which isn't heard as a tone; it may be a logarithm "
            "of Hz. Expected Hz, and 0 where unvoiced"
        )


def _no_pitch(f0: Tensor) -> Tensor:
    return ~((f0 >= 0) & (f0 <= GREATEST_HZ))
