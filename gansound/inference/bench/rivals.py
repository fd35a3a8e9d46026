"""What gansound is measured against: how a vocoder is run without it."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gansound.nn.generator import StreamingGenerator

PLAIN = "plain eager"  # the whole mel through the generator's own modules in one call
OWN_CODE = "own code"  # of the project that the model comes from
RECOMPUTED = (
    "context recomputed"  # each chunk with its whole context around it, as servers do for want of a state
)


def plain_eager(generator: nn.Module, mel: Tensor) -> Tensor:
    """Shape: `(B, n_mels, F)` → `(B, F * hop_length)`."""
    with torch.inference_mode():
        audio: Tensor = generator(mel)
    return audio


def own_code(path: Path) -> Callable[[Tensor], Tensor]:
    """The `synthesize` of a file, which is run: a mel `(1, M, F)` in, its sound in any shape out, as `(1, T)`.

    What stands beside the file can be imported by it.

    Raises:
        ValueError: the file has no such function.
    """
    sys.path.insert(0, str(path.absolute().parent))
    synthesize = runpy.run_path(str(path)).get("synthesize")
    if not callable(synthesize):
        raise ValueError(
            f"{path}: has no function synthesize. Expected one that makes a mel (1, M, F) its sound"
        )

    def plain(mel: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(synthesize(mel)).reshape(1, -1)

    return plain


class RecomputedStream:
    """Exact streaming without a state: every push runs the generator on the new frames and all that they depend on.

    It has `StreamingVocoder`'s push, flush and reset, and gives the same samples: of a net that remembers what its
    receptive field doesn't tell, by all frames so far.
    """

    def __init__(self, generator: StreamingGenerator) -> None:
        self._generator = generator
        field = generator.receptive_field
        self._before = sys.maxsize if field.remembers else field.lookback_inputs
        self._after = field.lookahead_inputs
        self.reset()

    def reset(self) -> None:
        """Begin a new utterance."""
        self._frames = torch.empty(1, self._generator.n_mels, 0)  # those that later samples depend on
        self._done = 0  # of those, how many are sound already

    def push(self, mel: Tensor) -> np.ndarray:
        """Shape: `(1, n_mels, n)` → `(T,)`, possibly empty."""
        self._frames = torch.cat([self._frames, mel], -1)
        return self._up_to(self._frames.shape[-1] - self._after)

    def flush(self) -> np.ndarray:
        """The rest of the utterance. Shape: `(T,)`."""
        return self._up_to(self._frames.shape[-1])

    def _up_to(self, end: int) -> np.ndarray:
        if end <= self._done:
            return np.empty(0, np.float32)
        hop = self._generator.hop_length
        audio = plain_eager(self._generator, self._frames)[0, self._done * hop : end * hop]
        old = max(0, end - self._before)
        self._frames, self._done = self._frames[..., old:], end - old
        return audio.numpy()
