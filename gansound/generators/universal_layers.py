"""Layers about the trunk of the universal vocoder: what it hears of amplitudes, and what it says as a spectrum."""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from gansound.mel.inverse import AMPLITUDE_FLOOR, MelInverse
from gansound.nn.finer_frames import LOUDEST
from gansound.nn.group_delay import GroupDelay
from gansound.nn.residual import Parallel
from gansound.nn.streaming import Pointwise
from gansound.precision import full_precision, no_autocast

PHASE_RADIUS = 0.1
"""Of the two maps whose angle is the phase; within it the amplitude falls with them."""
AT_ONCE = 5.0
"""Where a frame's sound comes at one moment, a click is added to those maps, so much louder than what they say."""
TOLD_FROM = 0.92
"""Of the bins up to the end of the convention of training: where its last band falls off it tells little."""
TOLD_AROUND = 16
"""Bins on either side, with which a bin is as loud as the convention says: as wide as its bands are there."""
TOLD_LOUDER_DB = 2.3
"""So much an inverse STFT loses of a noise up there, whose phases don't agree from frame to frame."""
_TOLD_FADE = 16  # bins
_NOTHING = 1e-7  # of an amplitude; an ONNX exporter takes 1e-8 for nothing
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


class TopAsTold(nn.Module):
    """The top bins as loud as a convention says that tells of them, where the one of training told of nothing.

    Of how loud they are a net hardly learnt anything; how they lie beside each other stays as it says. What is at the
    convention's floor may be as faint as the net says.

    Args:
        inverse: of the convention.
        own_end: last bin that the one of training told of.

    Shape: log-amplitudes as given and as the net says `(B, F, bins)` -> the latter, corrected.
    """

    around: Tensor
    floor: Tensor
    fade: Tensor

    def __init__(self, inverse: MelInverse, own_end: int) -> None:
        super().__init__()
        bins = torch.arange(len(inverse.seen))
        self.first = round(TOLD_FROM * own_end)
        self.heard = self.first - TOLD_AROUND
        apart = (bins[self.first :, None] - bins[self.heard :]).abs()
        around = (apart <= TOLD_AROUND).float()
        around /= around.sum(1, keepdim=True)
        silence = inverse.mel.from_magnitude(torch.zeros(1, inverse.mel.n_mels, 1))
        fade = (bins[: len(apart)] + 1) / _TOLD_FADE
        # Constants of the convention, not weights: derived again at construction, so they aren't stored.
        self.register_buffer("around", around, persistent=False)
        self.register_buffer("floor", inverse(silence)[0, 0, self.heard :] @ around.T, persistent=False)
        self.register_buffer("fade", fade.clamp(max=1), persistent=False)

    @classmethod
    def of(cls, inverse: MelInverse, own_end: int) -> Self | None:
        """That of a convention, if it tells of more than that of training."""
        return cls(inverse, own_end) if inverse.seen[own_end + 1 :].any() else None

    def forward(self, given: Tensor, said: Tensor) -> Tensor:
        with no_autocast(said):
            told, own = (
                full_precision(logs)[..., self.heard :].clamp(max=LOUDEST).exp() for logs in (given, said)
            )
            around = self.around.to(told.dtype).T
            told, own, floor = told @ around, own @ around, self.floor.to(told.dtype)
            above = (told - floor).clamp_min(_NOTHING) * 10 ** (TOLD_LOUDER_DB / 20)
            wanted = torch.maximum(above, torch.minimum(own, floor))
            louder = (wanted / own.clamp_min(_NOTHING)).clamp_min(_NOTHING).log() * self.fade.to(told.dtype)
        return torch.cat([said[..., : self.first], said[..., self.first :] + louder], dim=-1)


class Spectrum(Parallel):
    """The amplitudes corrected by the trunk, with the trunk's phase, turned by the phases and delays that it was given.

    The trunk's phase is that of two maps, and where both are small the amplitude falls with them: an angle of nearly
    nothing would turn rounding into sound.

    Shape: `(B, F, bins + 2 * low)`, the latter cosines and sines of the lowest bins' phases -> `(B, F, n_fft + 2)`,
    real parts before imaginary parts.
    """

    columns_dim = 1
    middle: Tensor
    top: TopAsTold | None

    def __init__(
        self, trunk: nn.Module, bins: int, low: int, phases: nn.Module, delay: GroupDelay | None
    ) -> None:
        nn.Module.__init__(self)
        self.low = low
        self.given = _Log(bins)
        self.trunk = trunk
        self.phases = phases
        self.delay = delay
        self.register_module("top", None)
        # In the middle of a frame, whose phases are told from its start.
        self.register_buffer("middle", (-1.0) ** torch.arange(bins), persistent=False)

    def where(self, top: TopAsTold | None) -> Self:
        """The same, sharing its weights, of a convention that tells of the top, or of one that doesn't."""
        other = copy.copy(self)
        other._modules = self._modules | {"top": top}
        return other

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
        said = given + correction
        if self.top is not None:
            said = self.top(given, said)
        amplitude = said.clamp(max=LOUDEST).exp()  # which of an untrained net may overflow
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
