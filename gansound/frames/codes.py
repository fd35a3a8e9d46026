"""`CodeSpec`: what the decoder of a neural codec takes, numbers of rows in its codebooks.

A codec quantizes a sound by several codebooks, each of which says what the ones before it left over (Zeghidour et al.,
"SoundStream", arXiv 2107.03312). In DAC (Kumar et al., arXiv 2306.06546) all give codes at one rate, in SNAC (Siuzdak
et al., arXiv 2410.14411) the coarser ones fewer. A frame is what lies in time beside one code of the coarsest: its rows
are codebook by codebook, the coarsest first, and the codes of one codebook in the order of time. Of SNAC at 24 kHz that
is 1 + 2 + 4 rows.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from gansound.frames.fields import check_keys, check_whole
from gansound.mel.frames import check_numbers, from_outside, whole_numbers

_MOST = {"codebook_size": 2**20, "sample_rate": 1_000_000, "hop_length": 1 << 20}
_MOST_ROWS = 4096
_FIELDS = ("codebooks", *_MOST)


@dataclass(frozen=True)
class CodeSpec:
    """The frames of a codec's codes.

    Args:
        codebooks: codes of each codebook in a frame, the coarsest first: `(1, 2, 4)` of SNAC at 24 kHz, nine times 1 of
            DAC at 44.1 kHz.
        codebook_size: a code is 0 or more, and below it.
        sample_rate: of the sound made of them, in Hz.
        hop_length: samples that a frame becomes.

    Raises:
        ValueError: a field isn't a whole number above 0, or beyond anything sensible; codebooks that don't become
            finer, each a multiple of the one before.
    """

    kind: ClassVar[Literal["code"]] = "code"

    codebooks: tuple[int, ...]
    codebook_size: int
    sample_rate: int
    hop_length: int

    def __post_init__(self) -> None:
        check_whole(self.kind, self, _MOST)
        check_codebooks(self.codebooks)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. An unknown or missing key is a ValueError that names it."""
        check_keys(cls.kind, values, _FIELDS)
        codebooks = values["codebooks"]
        if not isinstance(codebooks, list | tuple):
            raise ValueError(f"code codebooks: got {codebooks!r}, expected a list of whole numbers")
        return cls(**values | {"codebooks": tuple(codebooks)})

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON can hold it."""
        return dataclasses.asdict(self) | {"codebooks": list(self.codebooks)}

    @property
    def n_mels(self) -> int:
        """The rows of a frame, by the name that generators have for the height of what they take."""
        return sum(self.codebooks)

    def join(self, codes: Sequence[Tensor | np.ndarray]) -> Tensor:
        """Frames of what a codec's own code gives and takes, a tensor for each codebook.

        Args:
            codes: of each codebook, the coarsest first.

        Shape:
            `(B, n * F)` or `(n * F,)` of a codebook with n codes in a frame → `(B, rows, F)` int64.

        Raises:
            ValueError: another number of codebooks, lengths that aren't those of the same frames, or what `check`
                refuses.
        """
        parts = [torch.as_tensor(part) for part in codes]
        shapes = [tuple(part.shape) for part in parts]
        frames = shapes[0][-1] // self.codebooks[0] if shapes and shapes[0] else 0
        expected = [n * frames for n in self.codebooks]
        sound = all(1 <= len(shape) <= 2 and shape[:-1] == shapes[0][:-1] for shape in shapes)
        if not sound or not frames or [shape[-1] for shape in shapes] != expected:
            raise ValueError(
                f"code: got shapes {', '.join(map(str, shapes)) or 'none'}, expected {len(self.codebooks)} of (batch, "
                f"codes) with {', '.join(map(str, self.codebooks))} codes for each frame"
            )
        # A codebook's codes (B, F * n), frame by frame, as rows (B, n, F).
        rows = [
            part.reshape(-1, frames, n).transpose(1, 2) for part, n in zip(parts, self.codebooks, strict=True)
        ]
        return self.check(torch.cat(rows, 1)).long()

    def split(self, frames: Tensor | np.ndarray) -> list[Tensor]:
        """The inverse of `join`: `(B, rows, F)` or `(rows, F)` → for each codebook `(B, n * F)` int64."""
        parts = self.check(frames).long().split(self.codebooks, dim=1)
        return [part.transpose(1, 2).flatten(1) for part in parts]

    def check(self, codes: Tensor | np.ndarray) -> Tensor:
        """Codes from outside as float32 (B, rows, F), or the ValueError that says what is wrong with them.

        Shape: (B, rows, F) or (rows, F), torch or numpy, of integers or of floats that are whole.
        """
        if isinstance(codes, Tensor | np.ndarray):
            check_numbers(codes, "code")
            if codes.ndim == 1:
                raise ValueError(
                    f"code: got shape {tuple(codes.shape)}, expected (B, {self.n_mels}, F) or ({self.n_mels}, F). "
                    f"Tokens one after the other, {self.n_mels} a frame, are codes.reshape(-1, {self.n_mels}).T, and "
                    "then the rows in the order that the documentation of CodeSpec says"
                )
            if whole_numbers(codes):
                codes = torch.as_tensor(codes).to(torch.float64)
        codes = from_outside(codes, self.n_mels, "code", "rows")
        if bool((bad := self.beyond_sound(codes)).any()):
            item, row, frame = (int(place) for place in bad.nonzero()[0])
            raise ValueError(
                f"code: got {float(codes[item, row, frame]):.8g} in row {row} of frame {frame}"
                f"{f' of item {item}' if len(codes) > 1 else ''}, expected whole numbers of 0 to "
                f"{self.codebook_size - 1}. Take off what a language model adds to them, and leave out the tokens that "
                "are no sound (its start, end, padding)"
            )
        return codes

    def beyond_sound(self, codes: Tensor) -> Tensor:
        """Which values (…, rows, F) are no code."""
        return (codes < 0) | (codes >= self.codebook_size) | (codes != codes.round())

    def suspicions(self, codes: Tensor) -> list[str]:
        """None: one code is as likely as another."""
        return []

    def padded(self, codes: Tensor) -> str:
        """Nothing: a column of zeros is one like another."""
        return ""

    def in_words(self) -> str:
        """For a card, or a message."""
        a_frame = ", ".join(map(str, self.codebooks))
        return (
            f"codes of {self.codebook_size} from {len(self.codebooks)} codebooks ({a_frame} a frame), "
            f"{self.sample_rate} Hz, hop {self.hop_length}"
        )

    def noise(self, frames: int, *, seed: int = 0) -> Tensor:
        """Codes to try and time a vocoder with, each as likely as the other. Shape: `(1, rows, frames)`, float32."""
        draw = torch.Generator().manual_seed(seed)
        return torch.randint(self.codebook_size, (1, self.n_mels, frames), generator=draw).float()


def check_codebooks(codebooks: tuple[int, ...]) -> None:
    """Raises ValueError where these aren't codes of each codebook in a frame, each a multiple of the one before."""
    numbers = isinstance(codebooks, tuple) and all(type(n) is int and n >= 1 for n in codebooks)
    if not numbers or not codebooks or sum(codebooks) > _MOST_ROWS:
        raise ValueError(
            f"code codebooks: got {codebooks!r}, expected whole numbers above 0, at most {_MOST_ROWS} in all"
        )
    if any(finer % coarser for coarser, finer in pairwise(codebooks)):
        raise ValueError(
            f"code codebooks: got {codebooks!r}, expected the coarsest first, each a multiple of the one before"
        )
