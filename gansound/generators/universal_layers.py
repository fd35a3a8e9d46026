"""Layers about the trunk of the universal vocoder: what it hears of amplitudes, and what it says as a spectrum."""

import torch
from torch import Tensor, nn

from gansound.mel.inverse import AMPLITUDE_FLOOR, MelInverse
from gansound.nn.group_delay import GroupDelay
from gansound.nn.residual import Parallel
from gansound.nn.streaming import Pointwise
from gansound.precision import full_precision

PHASE_RADIUS = 0.1
"""Of the two maps whose angle is the phase; within it the amplitude falls with them."""
AT_ONCE = 5.0
"""Where a frame's sound comes at one moment, a click is added to those maps, so much louder than what they say."""
_SILENCE = 1e-20  # of a power, so that its root has a finite slope


class Inverse(MelInverse, Pointwise):
    """The mel's log, affine and filter bank undone. Shape: `(B, n_mels, F)` -> `(B, F, n_fft // 2 + 1)`."""


class LoudBins(Pointwise):
    """What the trunk hears: ln(amplitude) of speech lies around -5 with a spread of 3; then what else it is given.

    Shape: `(B, F, bins + others)` -> the same.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, given: Tensor) -> Tensor:
        amplitude, others = given[..., : self.bins], given[..., self.bins :]
        return torch.cat([(_log(amplitude) + 5) / 3, others], dim=-1)


class SeenBins(LoudBins):
    """That of bins that the convention tells of, 0 of others, and between it and the rest which they are.

    Shape: `(B, F, bins + others)` -> `(B, F, 2 * bins + others)`.
    """

    def forward(self, given: Tensor) -> Tensor:
        amplitude, others = given[..., : self.bins], given[..., self.bins :]
        seen = (amplitude > 0).to(amplitude.dtype)
        return torch.cat([(_log(amplitude) + 5) / 3 * seen, seen, others], dim=-1)


class _Log(Pointwise):
    """Of what stands first in each frame."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, given: Tensor) -> Tensor:
        return _log(given[..., : self.bins])


class After(Pointwise):
    """What stands behind that."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, given: Tensor) -> Tensor:
        return given[..., self.bins :]


class Spectrum(Parallel):
    """The amplitudes corrected by the trunk, with the trunk's phase, turned by the phases and delays that it was given.

    The trunk's phase is that of two maps, and where both are small the amplitude falls with them: an angle of nearly
    nothing would turn rounding into sound.

    Shape: `(B, F, bins + 2 * low)`, the latter cosines and sines of the lowest bins' phases -> `(B, F, n_fft + 2)`,
    real parts before imaginary parts.
    """

    columns_dim = 1
    middle: Tensor

    def __init__(
        self, trunk: nn.Module, bins: int, low: int, phases: nn.Module, delay: GroupDelay | None
    ) -> None:
        nn.Module.__init__(self)
        self.low = low
        self.given = _Log(bins)
        self.trunk = trunk
        self.phases = phases
        self.delay = delay
        # In the middle of a frame, whose phases are told from its start.
        self.register_buffer("middle", (-1.0) ** torch.arange(bins), persistent=False)

    def paths(self) -> list[nn.Module]:
        turns = [*([self.phases] if self.low else []), *([self.delay] if self.delay else [])]
        return [self.given, self.trunk, *turns]

    def combine(self, *outputs: Tensor) -> Tensor:
        given, head, *turns = outputs
        head = full_precision(head)
        correction, real, imaginary = head.chunk(3, dim=-1)
        if self.delay:
            share, *turn = self.delay.phases(turns[-1])
            real = real + AT_ONCE * share * self.middle
        # exp() of an untrained net may overflow; e^7 is louder than any full-scale frame of 2048 samples.
        amplitude = (given + correction).clamp(max=7.0).exp()
        scale = amplitude * torch.rsqrt(real.square() + imaginary.square() + PHASE_RADIUS**2)
        real, imaginary = scale * real, scale * imaginary
        if self.low:
            real, imaginary = _turned(real, imaginary, *turns[0].chunk(2, dim=-1))
        if self.delay:
            real, imaginary = _turned(real, imaginary, *turn)
        return torch.cat([real, imaginary], dim=-1)


class Clicks(GroupDelay):
    """In a spectrum, phases of the moment at which the amplitudes say that a click comes, if nothing else comes there.

    Shape of `applied`: `(B, F, n_fft + 2)`, real parts before imaginary parts, and the moments → as the former.
    """

    columns_dim = 1
    middle: Tensor

    def __init__(self, n_fft: int, hop_length: int, bands: int) -> None:
        super().__init__(n_fft, hop_length, bands, alone=True)
        self.register_buffer("middle", (-1.0) ** torch.arange(self.bins), persistent=False)

    def applied(self, spectrum: Tensor, moments: Tensor) -> Tensor:
        share, *turn = self.phases(moments)
        real, imaginary = spectrum.chunk(2, dim=-1)
        amplitude = (real.square() + imaginary.square() + _SILENCE).sqrt()
        real, imaginary = real + share * (self.middle * amplitude - real), imaginary - share * imaginary
        return torch.cat(_turned(real, imaginary, *turn), dim=-1)


def _turned(real: Tensor, imaginary: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """The first columns, as many as there are phases, by those."""
    low = cosine.shape[-1]
    x, y = real[..., :low], imaginary[..., :low]
    turned = x * cosine - y * sine, x * sine + y * cosine
    return torch.cat([turned[0], real[..., low:]], dim=-1), torch.cat(
        [turned[1], imaginary[..., low:]], dim=-1
    )


def _log(amplitude: Tensor) -> Tensor:
    return amplitude.clamp_min(AMPLITUDE_FLOOR).log()
