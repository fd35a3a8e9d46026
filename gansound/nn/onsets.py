"""Quiet before what begins: no sound before an onset that the amplitudes say wasn't there.

An inverse STFT spreads what its phases don't place over a whole window, some of it before a plosive or a stroke, where
it was silent: pre-echo, as of audio codecs, whose decoders take it away by the energies of the frames before (Kövesi
et al., "Pre-echo reduction in the ITU-T G.729.1 embedded coder", EUSIPCO 2008). Here the amplitudes tell to the sample
how far that goes. What begins within a window and lasts is fainter there than a hop later, by a ratio that depends on
the moment alone; what is fainter still hasn't begun yet at that moment. Until then the sound is held to the level of
the frame before, softly and sample by sample. What dies away begins later than where it would if it lasted, so no
attack is cut.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.finer_frames import FinerFrames
from gansound.nn.istft import ISTFT
from gansound.nn.streaming import Cursor, stream
from gansound.precision import no_autocast

SPLIT_SECONDS = 0.6e-3
"""Of the mean that is the low band; at 1.7 kHz it is half."""
LOW_RISE = 0.005
"""Of energies, from a frame to the next: low sounds take their time, and what rises by less is no onset of theirs."""
RAMP_SECONDS = (3e-3, 5e-4)
"""Of the low and of the high band: so long it takes from the quiet to an onset, else it would click."""
OVER_BEFORE = 2.0
"""Times the power of the frame before: to that a sound is held before an onset."""
MASKED = 1e-5
"""Times the power of the frame that hears the onset: what is fainter beside it nobody hears."""
AT_MOST = 1.25
"""Times its power in the frame that hears its beginning, a sound may have there by chance."""
_SURE = 20.0  # 1 / 20 fainter than what begins at the moment is before it
_AT_ONCE = 16  # samples, as channels of a convolution
_LOUD = 1e10  # for powers, so that beside them 1e-7 is nothing
_SILENCE = 1e-7  # an ONNX exporter takes less than 1e-8 for nothing, and leaves it out


class SharpOnsets(nn.Sequential):
    """Layers from amplitudes to a sound, of which those with `applied` hear the amplitudes too, as `Beginnings` does.

    What such a layer makes of the amplitudes is applied to what the layers before it made; what is there first waits.
    Behind `FinerFrames` the amplitudes are what those are.

    Shape: what the first layer takes → `(B, F * hop_length)`.
    """

    def forward(self, amplitudes: Tensor) -> Tensor:
        sound = amplitudes
        layer: Any
        for layer in self:
            if isinstance(layer, FinerFrames):
                amplitudes = sound = layer(amplitudes)
            else:
                sound = layer.applied(sound, layer(amplitudes)) if hasattr(layer, "applied") else layer(sound)
        return sound

    def stream(self, amplitudes: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, columns)` → `(B, n * hop_length)`."""
        start, sound = cursor.fork(), amplitudes
        layer: Any
        for layer in self:
            if isinstance(layer, FinerFrames):
                amplitudes = sound = layer.stream(amplitudes, cursor)
                start = cursor.fork()
            elif hasattr(layer, "applied"):
                paths = [cursor.fork(), start.fork()]
                own = stream(layer, amplitudes, paths[1])
                sound = layer.applied(*cursor.join(paths, [sound, own], dim=layer.columns_dim))
            else:
                sound = stream(layer, sound, cursor)
        return sound


class TwoBands(nn.Module):
    """A sound as what is low of it and the rest. Looks half of `SPLIT_SECONDS` ahead.

    Shape: `(B, T)` → `(B, 2, T)`.
    """

    mean: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        mean = _mean(sample_rate)
        # A row for each of so many samples: one by one they take OpenVINO fifteen times as long.
        rows = [F.pad(mean, (place, _AT_ONCE - 1 - place)) for place in range(_AT_ONCE)]
        self.register_buffer("mean", torch.stack(rows)[:, None], persistent=False)
        self.ahead = len(mean) // 2

    def forward(self, sound: Tensor) -> Tensor:
        return self._bands(F.pad(sound, (self.ahead, self.ahead)))

    def stream(self, sound: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n)` → `(B, 2, n)`."""
        window = cursor.window(sound, 2 * self.ahead)
        cursor.late(self.ahead, self.ahead)
        return self._bands(window)

    def _bands(self, window: Tensor) -> Tensor:
        count = window.shape[-1] - 2 * self.ahead
        with no_autocast(window):
            rows = F.conv1d(F.pad(window, (0, -count % _AT_ONCE))[:, None], self.mean, stride=_AT_ONCE)
        low = rows.transpose(1, 2).flatten(1)[:, :count]
        return torch.stack([low, window[:, self.ahead : self.ahead + count] - low], dim=1)


class Beginnings(nn.Module):
    """One over the power to which a sound is held before an onset, of each sample and band; elsewhere 0.

    Nothing is learnt.

    Args:
        istft: what makes the sound of those frames.
        sample_rate: of the sound, in Hz.

    Shape: `(B, F, columns)`, amplitudes of `istft.bins` bins and what stands behind them → `(B, 2, F *
    hop_length)`, the bands of `TwoBands`.
    """

    columns_dim = -1
    gains: Tensor
    ratios: Tensor
    place: Tensor
    ramps: Tensor

    def __init__(self, istft: ISTFT, sample_rate: int) -> None:
        super().__init__()
        n_fft, hop = istft.n_fft, istft.hop_length
        self.bins, self.hop_length = min(istft.bins, n_fft // 2 + 1), hop
        self.late_samples = n_fft - hop - istft.trim_samples  # of frame f's last hop, after sample f * hop
        window = torch.hann_window(n_fft, dtype=torch.float64).square()
        rest = window.flip(0).cumsum(0).flip(0)  # of what begins at a sample and lasts
        ratios = (rest[-hop:] / rest[-2 * hop : -hop]).repeat(2, 1)
        ratios[0].clamp_(max=LOW_RISE)
        self.register_buffer("ratios", ratios.float(), persistent=False)
        self.register_buffer("place", torch.arange(hop).float(), persistent=False)
        ramps = sample_rate * torch.tensor(RAMP_SECONDS)
        self.register_buffer("ramps", ramps[:, None], persistent=False)
        mean = _mean(sample_rate).double()
        away = (torch.arange(len(mean)) - len(mean) // 2).double()
        low = (2 * math.pi / n_fft * torch.outer(torch.arange(self.bins).double(), away)).cos() @ mean
        gains = 2 * torch.stack([low, 1 - low]).square()
        own = torch.arange(self.bins) % (n_fft // 2) == 0
        gains[:, own] /= 2  # a bin and its conjugate
        # To the mean power of samples under the window.
        gains *= _LOUD * istft.louder**2 / n_fft / window.sum()
        self.register_buffer("gains", gains.float(), persistent=False)

    def forward(self, amplitudes: Tensor) -> Tensor:
        power = self._power(amplitudes)
        early = -(-self.late_samples // self.hop_length)  # frames before the first, whose last hops are heard
        before, after = power[:, :1].expand(-1, early + 1, -1), power[:, -1:].expand(-1, 2, -1)
        bound = self._bound(torch.cat([before, power, after], dim=1))
        first = early * self.hop_length - self.late_samples
        return bound[..., first : first + amplitudes.shape[1] * self.hop_length]

    def stream(self, amplitudes: Tensor, cursor: Cursor) -> Tensor:
        """Shape: `(B, n, columns)` → `(B, 2, n * hop_length)`."""
        bound = self._bound(cursor.window(self._power(amplitudes), 3, padding="replicate", dim=1))
        cursor.late(2, 1)
        cursor.upsample(self.hop_length)
        early = max(0, self.late_samples - 2 * self.hop_length)
        window = cursor.window(bound, early, padding=None)
        cursor.late(early - self.late_samples, self.late_samples + self.hop_length - 1)
        return window[..., : bound.shape[-1]]

    def applied(self, sound: Tensor, bound: Tensor) -> Tensor:
        """Two bands and by what they are bounded, `(B, 2, T)` → `(B, T)`."""
        held = sound * (1 + bound * sound.square()).rsqrt()
        return held[:, 0] + held[:, 1]

    def _power(self, amplitudes: Tensor) -> Tensor:
        """`(B, F, columns)` → `(B, F, 2)`. Products one by one: those of matrices are rounded by how many they are."""
        return (amplitudes[..., None, : self.bins].square() * self.gains).sum(-1)

    def _bound(self, power: Tensor) -> Tensor:
        """Of each frame's last hop, before an onset there and before one in the hop after, the last of the next frame.

        Shape: `(B, 1 + F + 2, 2)` → `(B, 2, F * hop_length)`.
        """
        power = power[..., None] + _SILENCE
        before, here, after = power[:, :-2], power[:, 1:-1], power[:, 2:]
        fall = (after / (OVER_BEFORE * before + MASKED * after)).clamp_min(1).log()
        earlier = (_SURE * (1 - AT_MOST * here / (self.ratios * after))).clamp(0, 1)
        onset, sure = earlier.sum(-1, keepdim=True), earlier[..., :1]

        def quiet(place: Tensor, share: Tensor) -> Tensor:
            share = share * ((onset - place) / self.ramps).clamp(0, 1)
            return share * (share * fall).exp() * (_LOUD / after)

        risen = (4 / self.hop_length * (self.place + 0.5)).clamp(max=1)
        bound = quiet(self.place, sure)[:, :-1] + quiet(self.place - self.hop_length, sure * risen)[:, 1:]
        return bound.transpose(1, 2).flatten(2)


def _mean(sample_rate: int) -> Tensor:
    """Weights of a Hann-shaped mean over `SPLIT_SECONDS`, an odd number."""
    samples = 2 * int(SPLIT_SECONDS * sample_rate / 2) + 1
    weights = torch.hann_window(samples + 2, periodic=False)[1:-1]
    return weights / weights.sum()
