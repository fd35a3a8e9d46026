"""What a throat gives a filter: sines at the multiples of a fundamental frequency, noise where there is none.

Wang, Takaki and Yamagishi, "Neural source-filter waveform models for statistical parametric speech synthesis" (TASLP
2019, arXiv 1904.12088), section III-B, as Li et al., "HiFTNet" (arXiv 2309.09493), take it, and as it is in code in
FunAudioLLM/CosyVoice and resemble-ai/chatterbox. The phase of a sine is the sum of all frequencies before it, so that
it has a memory: it is kept modulo a turn, on a grid so fine that nothing is heard of it and so coarse that sums are
exact, whatever their order. An hour's sound is then as exact as a second's, and a stream's phases are the whole's.

`GlidingSine` is the source of openvpi/SingingVocoders' mini-NSF: one sine, whose frequency glides.

Departures: there the noise, and the phases with which the overtones begin, are drawn anew for each utterance. Here
they are constants: noise for `NOISE_FRAMES` frames, counted from an utterance's beginning, and then the same again. And
there each overtone has its own noise, of which the net takes a weighted sum; that is Gaussian too, and drawn as such.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.streaming import Cursor
from gansound.precision import no_autocast

Phases = Literal["summed", "interpolated", "held"]

AMPLITUDE = 0.1
"""Of each sine; what isn't voiced has noise of a third of that."""
VOICED_NOISE = 0.003
"""Standard deviation of the noise beside the sines."""
NOISE_FRAMES = 256
"""Frames until the noise begins again: 5 s of a hop of 20 ms."""
# Of a turn: in single precision a turn's multiples of it are exact, and in 32 bits the sums of 2^8 frames.
_GRID = 2**23


class HarmonicSource(nn.Module):
    """Fundamental frequencies, one a frame, to an excitation of that hop.

    Nothing but the weights of the sum is learnt: no gradient flows into the frequencies.

    Args:
        sample_rate: of the excitation, in Hz.
        hop_length: samples of a frame; even, where phases are interpolated.
        harmonics: overtones above the fundamental.
        phases: "summed" (CosyVoice 1, Chatterbox) adds up the frequency of each sample, the frame's; in "interpolated"
            (CosyVoice 2) a phase goes straight from the middle of a frame to that of the next, half a frame late, and
            stands before the first and behind the last; "held" (CosyVoice 3) is that phase in steps of a frame, and its
            noise is uniform about a half and not about 0, as there at inference.
        unvoiced_hz: up to it a frame is unvoiced.

    Shape:
        `(B, 1, F)` in Hz, 0 or more → `(B, 1, F * hop_length)` in (-1, 1).

    Raises:
        ValueError: other phases, or an odd hop to be halved.
    """

    noise: Tensor
    begins: Tensor
    offsets: Tensor
    multiples: Tensor

    def __init__(
        self,
        sample_rate: int,
        hop_length: int,
        harmonics: int = 8,
        *,
        phases: Phases = "summed",
        unvoiced_hz: float = 10.0,
    ) -> None:
        super().__init__()
        if phases not in ("summed", "interpolated", "held"):
            raise ValueError(f"phases: got {phases!r}, expected 'summed', 'interpolated' or 'held'")
        if phases == "interpolated" and hop_length % 2:
            raise ValueError(f"a hop in whose middle phases are interpolated must be even, got {hop_length}")
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.phases = phases
        self.unvoiced_hz = unvoiced_hz
        self.lead_samples = hop_length // 2 if phases == "interpolated" else 0
        self.context = 1 if self.lead_samples else 0  # frames
        self.weight = nn.Parameter(torch.empty(harmonics + 1).uniform_(-1, 1) / math.sqrt(harmonics + 1))
        self.bias = nn.Parameter(torch.zeros(1))
        draw = np.random.RandomState(0)  # whose numbers stay what they are in each release of numpy
        begins = np.concatenate([[0.0], draw.uniform(-0.5, 0.5, harmonics)])  # turns
        noise = draw.standard_normal((NOISE_FRAMES, hop_length))
        if phases != "summed":
            begins = 0 * begins  # lost there on the way to the middle of the first frame
        if phases == "held":
            noise = noise / math.sqrt(12)  # as uniform noise is
        steps = {"summed": 1.0, "interpolated": 0.5}
        offsets = np.zeros(hop_length) if phases == "held" else np.arange(hop_length) + steps[phases]
        for name, value in (("noise", noise), ("begins", begins), ("offsets", offsets)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32), persistent=False)
        self.register_buffer("multiples", torch.arange(1.0, harmonics + 2), persistent=False)

    def forward(self, f0: Tensor) -> Tensor:
        frames, lead = f0.shape[-1], self.lead_samples
        window = F.pad(f0[:, 0], (self.context, self.context))
        index = torch.arange(frames + self.context, device=f0.device)[None]
        nowhere = torch.zeros(1, 1, dtype=torch.int64, device=f0.device)
        samples, _ = self._excited(window, index == 0, nowhere, nowhere)
        return samples[:, None, lead : lead + frames * self.hop_length]

    def stream(self, f0: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, 1, n)` → `(B, 1, n * hop_length)`."""
        columns = f0.shape[-1]
        window = cursor.window(f0, self.context)[:, 0]
        like = f0[:, 0, :1]
        start, number = ((cursor.recalled(like) * scale).round().long() for scale in (_GRID, 1))
        if cursor.position is None:
            begins = torch.zeros(1, 1, dtype=torch.bool, device=f0.device)
        else:
            index = cursor.indices(columns, 0)
            begins = index == 0
            window = window if self.context else torch.where(index < 0, 0.0, window)
            first = index[:, :1]
            start, number = torch.where(first > 0, start, 0), torch.where(first > 0, number, first)
        samples, phase = self._excited(window, begins, start, number)
        cursor.remember(phase.to(f0.dtype) / _GRID)
        cursor.remember((number + columns).remainder(NOISE_FRAMES).to(f0.dtype))
        cursor.upsample(self.hop_length)
        cursor.late(self.lead_samples, self.hop_length - 1)
        return samples[:, None]

    def _excited(
        self, window: Tensor, begins: Tensor, start: Tensor, number: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The samples from `lead_samples` before each frame on, and the phase behind the last, in parts of a turn.

        Shape: `(B, context + n)` in Hz, `(B, n)` where an utterance begins, the phase before in parts of a turn and the
        number of the first frame `(B, 1)` → `(B, n * hop_length)`, `(B, 1)`.
        """
        columns = window.shape[1] - self.context
        with torch.no_grad(), no_autocast(window):
            waves, phase = self._waves(window[:, self.context :], begins, start)
            frames = number + torch.arange(-self.context, columns, device=window.device)
            noise = self.noise[frames.remainder(NOISE_FRAMES)]
            voiced = (window > self.unvoiced_hz).to(window.dtype)[..., None].expand(-1, -1, self.hop_length)
            first = self.context * self.hop_length - self.lead_samples
            noise, voiced = (
                each.flatten(1)[:, first : first + columns * self.hop_length] for each in (noise, voiced)
            )
            loud = torch.where(voiced > 0, VOICED_NOISE, AMPLITUDE / 3)
        weight, about = self.weight, 0.5 * self.weight.sum() if self.phases == "held" else 0.0
        tones = (waves * (AMPLITUDE * weight)[:, None]).sum(2).flatten(1)
        return (tones * voiced + (noise * weight.norm() + about) * loud + self.bias).tanh(), phase

    def _waves(self, f0: Tensor, begins: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The sines, and the phase behind the last frame. Shape: `(B, n)` → `(B, n, harmonics + 1, hop)`, `(B, 1)`."""
        turns = f0 / self.sample_rate  # a sample
        parts = _parts(turns * self.hop_length)
        total = parts.cumsum(1) + start
        if self.phases == "held":
            base, slope = total, torch.zeros_like(turns)
        elif self.phases == "interpolated":  # from one middle to the next, and before the first there is none
            base, slope = torch.where(begins, total, total - parts), torch.where(begins, 0.0, turns)
        else:
            base, slope = total - parts, turns
        phase = base.remainder(_GRID).to(f0.dtype)[..., None] / _GRID
        each = slope[..., None] * self.multiples
        cycles = (phase * self.multiples + self.begins)[..., None] + (each - each.floor())[
            ..., None
        ] * self.offsets
        return (2 * math.pi * (cycles - cycles.round())).sin(), total[:, -1:].remainder(_GRID)


class GlidingSine(nn.Module):
    """A sine whose frequency goes straight from each frame's to that of the next, and stays at the last.

    Args:
        sample_rate: of the sine, in Hz; any number above 0.
        hop_length: samples of a frame.

    Shape:
        `(B, 1, F)` in Hz, 0 or more → `(B, 1, F * hop_length)` in [-1, 1].
    """

    times: Tensor
    bends: Tensor

    def __init__(self, sample_rate: float, hop_length: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        times = torch.arange(1.0, hop_length + 1, dtype=torch.float64)
        self.register_buffer("times", times.float(), persistent=False)
        self.register_buffer("bends", (times * (times - 1) / (2 * hop_length)).float(), persistent=False)

    def forward(self, f0: Tensor) -> Tensor:
        window = torch.cat([f0, f0[..., -1:]], -1)[:, 0]
        return self._sines(window, torch.zeros(1, 1, dtype=torch.int64, device=f0.device))[0]

    def stream(self, f0: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, 1, n)` → `(B, 1, n * hop_length)`."""
        window = cursor.window(f0, 1, padding="replicate")[:, 0]
        start = (cursor.recalled(f0[:, 0, :1]) * _GRID).round().long()
        still = None
        if cursor.position is not None:  # before an utterance begins its phase stands still
            index = cursor.indices(f0.shape[-1], 1)
            still = (index < 0)[..., None]
            start = torch.where(index[:, :1] > 0, start, 0)
        samples, phase = self._sines(window, start, still)
        cursor.remember(phase.to(f0.dtype) / _GRID)
        cursor.late(1, 0)
        cursor.upsample(self.hop_length)
        return samples

    @torch.no_grad()
    def _sines(self, window: Tensor, start: Tensor, still: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of each frame but the last, and the phase behind them in parts of a turn.

        Shape: `(B, n + 1)` in Hz, `(B, 1)`, `(B, n, 1)` where no phase moves → `(B, 1, n * hop)`, `(B, 1)`.
        """
        with no_autocast(window):
            turns = window[:, :-1] / self.sample_rate  # a sample
            rise = window[:, 1:] / self.sample_rate - turns
            turned = turns[..., None] * self.times + rise[..., None] * self.bends
            if still is not None:
                turned = torch.where(still, 0.0, turned)
            parts = _parts(turned[..., -1])
            total = parts.cumsum(1) + start
            phase = (total - parts).remainder(_GRID).to(window.dtype) / _GRID
            cycles = phase[..., None] + turned
            sines = (2 * math.pi * (cycles - cycles.round())).sin()
        return sines.flatten(1)[:, None], total[:, -1:].remainder(_GRID)


def _parts(turns: Tensor) -> Tensor:
    """What is left of turns beyond whole ones, on the grid."""
    return ((turns - turns.round()) * _GRID).round().long()
