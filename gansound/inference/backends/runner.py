"""What a backend is: one generator, in one precision, run step by step."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from gansound.nn.generator import StreamingGenerator

Precision = Literal["fp32", "bf16", "int8"]
STEP_FRAMES = (32, 16, 8, 4, 2, 1)  # of the steps of a runtime that compiles for each length
OFFLINE_FRAMES = 32  # a chunk of a whole utterance: large enough to be quick, small enough for a core's cache


def step_lengths(frames: int) -> list[int]:
    """Any number of frames as steps of those lengths."""
    lengths = [STEP_FRAMES[0]] * (frames // STEP_FRAMES[0])
    return lengths + [length for length in STEP_FRAMES[1:] if frames & length]


class BackendUnavailable(ValueError):
    """This backend or precision isn't to be had here; the message says what to do."""


class Runner(ABC):
    """A generator on one runtime. Safe to use from many threads, each with its own states.

    A state is whatever `init_state` gives; a step consumes the state it is given, so keep only the one it returns.

    Attributes:
        name: of the backend, such as `onnxruntime`.
        precision: what it computes in.
        n_mels, hop_length: the generator's.
        lookahead_samples: by how much a step's audio is late.
        offline_frames: the chunk in which `synthesize` runs a whole utterance.
        interior_frames: frames after which `interior` may be promised, see `StreamingGenerator.step`.
    """

    name: str
    offline_frames = OFFLINE_FRAMES

    def __init__(self, generator: StreamingGenerator, precision: Precision) -> None:
        self.precision = precision
        self.n_mels = generator.n_mels
        self.hop_length = generator.hop_length
        self.lookahead_samples = generator.receptive_field.lookahead
        self.interior_frames = generator.interior_frames

    @property
    def lookahead_frames(self) -> int:
        """Frames that must follow a frame before all of its samples are out."""
        return -(-self.lookahead_samples // self.hop_length)

    @abstractmethod
    def init_state(self, batch: int = 1) -> Any:
        """The state of so many streams before their first frame."""

    @abstractmethod
    def step(self, mel: Tensor, state: Any, *, interior: bool = False) -> tuple[Tensor, Any]:
        """`(B, n_mels, n)` float32 → `(B, n * hop_length)` float32 and the next state; see `StreamingGenerator`."""

    @abstractmethod
    def finish(self, state: Any, remaining: int | Tensor = 0, items: Tensor | None = None) -> Any:
        """See `gansound.nn.streaming.finish`."""

    @abstractmethod
    def reset(self, state: Any, items: Tensor | None = None) -> Any:
        """See `gansound.nn.streaming.reset`."""

    def synthesize(self, mel: Tensor) -> Tensor:
        """A whole utterance by way of the stream: the same samples, and working memory that doesn't grow with it.

        Shape:
            `(B, n_mels, F)` → `(B, F * hop_length)` float32, on the mel's device.
        """
        frames, late, chunk_frames = mel.shape[-1], self.lookahead_samples, self.offline_frames
        audio = torch.empty(mel.shape[0], frames * self.hop_length, device=mel.device)
        state = self.init_state(mel.shape[0])
        # One step that holds the end, then what is still inside the net comes out of steps of nothing.
        for start in range(0, frames + self.lookahead_frames, chunk_frames):
            chunk = mel[..., start : start + chunk_frames]
            if start + chunk_frames >= frames > start:
                state = self.finish(state, remaining=chunk.shape[-1])
            if missing := min(chunk_frames, frames + self.lookahead_frames - start) - chunk.shape[-1]:
                chunk = torch.nn.functional.pad(chunk, (0, missing))
            interior = start >= self.interior_frames and start + chunk_frames < frames
            out, state = self.step(chunk, state, interior=interior)
            first = start * self.hop_length - late
            skip = max(0, -first)
            end = min(first + out.shape[-1], audio.shape[-1])
            if end > first + skip:
                audio[:, first + skip : end] = out[:, skip : end - first]
        return audio
