"""A frame-rate vocoder for the mels of every convention of about its frame rate.

FreeV (Lv et al., arXiv 2406.08196) begins with the pseudo-inverse of the mel filter bank, but its network still reads
the mel itself, and so knows one convention only. Here the network reads what the inverse yields: amplitudes of linear
frequency, 0 in the bins that the convention never saw. A convention is then no more than a matrix before the first
layer, without a weight, and another one may be put in its place at any time. Nor does the net know the rate of its
samples: frames of another rate or hop are to it those of a voice that speaks faster or slower, higher or lower, and the
inverse STFT gives each as many samples as it lasts. Half as many frames are made twice as many by `FinerFrames`, first.

What moves on from frame to frame, the phases of the partials of the lowest bins, a net that sees one frame like another
cannot tell; `SinglePassPhases` follows them before the trunk, which hears them and turns its own phases by them, once
`BetweenPartials` has told those between the partials. What
comes at one moment, a click, has phases as many as there are moments in a frame; `GroupDelay` reads the moment from the
amplitudes; there a click's phases are added to what the trunk says, and both are turned to that moment. What is made
before an onset where the amplitudes tell of none is held down by `SharpOnsets`.

The rest is FreeV's and APNet 2's (arXiv 2311.11545) as in `gansound.generators.freev`: the log-amplitude corrected by
the trunk, the phase as the angle of two learned maps, and an inverse STFT; little else runs above the frame rate.
Before the trunk stand bands of the net's own, which begin as a mel filter bank's; behind them the layers are those of
`FreeVGenerator`, so that a net that was trained on one convention can go on as a universal one.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from gansound.generators.freev import FreeVGenerator
from gansound.mel import MelSpec, filters
from gansound.mel.inverse import AMPLITUDE_FLOOR, MelInverse
from gansound.nn.between_partials import BetweenPartials
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.finer_frames import FinerFrames
from gansound.nn.generator import StreamingGenerator
from gansound.nn.griffin_lim import GriffinLim
from gansound.nn.group_delay import GroupDelay
from gansound.nn.istft import ISTFT
from gansound.nn.onsets import Beginnings, SharpOnsets, TwoBands
from gansound.nn.residual import Parallel
from gansound.nn.single_pass import SinglePassPhases
from gansound.nn.streaming import Pointwise
from gansound.precision import full_precision

PHASE_RADIUS = 0.1
"""Of the two maps whose angle is the phase; within it the amplitude falls with them."""
AT_ONCE = 5.0
"""Where a frame's sound comes at one moment, a click is added to those maps, so much louder than what they say."""
NOISY_HZ = 8000.0
"""Above, phases are a noise's, whatever sounds."""
BETWEEN_HZ = 700.0
"""Above, phases between partials are as the partials' own: a third of the time to turn them is worth 0.005 of PESQ."""
PHASE_FEATURES = 32
"""Of the phases that the trunk hears beside its bands."""
FRAME_RATES = (0.69, 1.3)
"""Of another convention, times the net's own: beyond, voices are to it such as it has hardly heard."""
FINER_RATES = (0.95, 1.3)
"""Of a convention whose frames are to be twice as many, so many then, times the net's own."""
LEAST_TOP = 0.8
"""Of what another convention tells of, up to which the net must make sound."""
_SILENCE = 1e-20  # of a power, so that its root has a finite slope


class UniversalGenerator(StreamingGenerator):
    """Mel spectrogram of any convention to waveform.

    `layers.inverse` is the convention, without weights; `layers.core` is all the rest, and takes amplitudes
    `(B, F, n_fft // 2 + 1)`.

    Args:
        mel: the convention of the mels it is given; everything of it may be another than in training.
        n_fft: window of the inverse STFT, and of the amplitudes that the network reads, in samples.
        channels: width of the trunk.
        hidden_channels: width inside each block.
        blocks: ConvNeXt blocks in the trunk.
        kernel_size: frames each block's depthwise convolution sees.
        bands: learned bands into which the amplitudes are gathered before the trunk.
        causal: look at the past only; the inverse STFT still waits.
        griffin_lim: steps of `GriffinLim` before the inverse STFT; unless causal, each looks a frame ahead.
        look_ahead: of a causal net, how many of those steps look a frame ahead too.
        single_pass_bins: so many of the lowest bins have phases that go on from frame to frame, see `SinglePassPhases`;
            48 are a kilohertz of 22.05 kHz. Such a net remembers what its receptive field doesn't tell.
        group_delay_bands: in so many bands what comes at one moment is told by amplitudes and the frame ahead, see
            `GroupDelay`; in a causal net clicks alone, behind the steps of `griffin_lim`: where the last of these looks
            a frame ahead too, it waits no longer.
        single_pass_lobes: around a partial its phases go as its amplitudes grow, see `SinglePassPhases`.
        tones: in so many of the lowest bins the convention is undone as if sounds were tones, see `MelInverse`.
        between_partials: width of the convolutions that turn the phases between the partials of the lowest bins, see
            `BetweenPartials`; 0: none.
        finer_frames: width of what makes two frames of one where a convention has half as many, see `FinerFrames`; 0:
            such a one is refused.
        learnt_by: fields of the convention that the layers were trained for, where it isn't `mel`. `n_fft` is of its
            rate.

    Shape: `(B, n_mels, F)` -> `(B, F * hop_length)`.

    Raises:
        ValueError: the mel's window lasts more than twice or less than half as long as `n_fft`, its frames' rate is too
            far from that of training or tells of more than the net makes (`FRAME_RATES`, `LEAST_TOP`), the STFT cannot
            be inverted hop by hop, a size isn't positive, `griffin_lim` is negative, `look_ahead` isn't within it or
            the net isn't causal, `single_pass_bins` is 1 or not below `n_fft // 2`, `between_partials` or
            `finer_frames` is negative, the former is without those bins, `group_delay_bands` is 1 or more than bins,
            `tones` isn't between 0 and `n_fft // 4`, or the kernel is even and not causal.
    """

    def __init__(
        self,
        mel: MelSpec,
        n_fft: int = 1024,
        channels: int = 256,
        hidden_channels: int = 768,
        blocks: int = 6,
        kernel_size: int = 7,
        bands: int = 80,
        causal: bool = False,
        griffin_lim: int = 0,
        look_ahead: int = 0,
        single_pass_bins: int = 0,
        group_delay_bands: int = 0,
        single_pass_lobes: bool = False,
        tones: int = 0,
        between_partials: int = 0,
        finer_frames: int = 0,
        learnt_by: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        own = mel if learnt_by is None else MelSpec.from_dict(dict(learnt_by))
        if min(channels, hidden_channels, blocks, bands) < 1:
            raise ValueError(
                "channels, hidden_channels, blocks and bands must be 1 or more, got "
                f"{channels}, {hidden_channels}, {blocks}, {bands}"
            )
        if griffin_lim < 0:
            raise ValueError(f"griffin_lim must be 0 or more steps, got {griffin_lim}")
        if not 0 <= look_ahead <= (griffin_lim if causal else 0):
            raise ValueError(
                f"look_ahead must be 0 to griffin_lim of a causal net, and 0 of another, which always looks ahead; got "
                f"look_ahead {look_ahead}, griffin_lim {griffin_lim}, causal {causal}"
            )
        bins = n_fft // 2 + 1
        if single_pass_bins not in (0, *range(2, bins - 1)):
            raise ValueError(
                f"single_pass_bins must be 0, or 2 to {bins - 2} with n_fft {n_fft}; got {single_pass_bins}"
            )
        if group_delay_bands not in (0, *range(2, bins + 1)):
            raise ValueError(
                f"group_delay_bands must be 0, or 2 to {bins} with n_fft {n_fft}; got {group_delay_bands}"
            )
        if between_partials < 0 or (between_partials and not single_pass_bins):
            raise ValueError(
                "between_partials must be 0, or the width of convolutions over the phases of single_pass_bins; got "
                f"{between_partials} with single_pass_bins {single_pass_bins}"
            )
        self.n_fft = n_fft
        self.single_pass_bins = single_pass_bins
        self.tones = tones
        if finer_frames < 0:
            raise ValueError(f"finer_frames must be a width, or 0 for none; got {finer_frames}")
        convnext = [
            ConvNeXtBlock(channels, hidden_channels, kernel_size, initial_scale=1 / blocks, causal=causal)
            for _ in range(blocks)
        ]
        heard = PHASE_FEATURES if single_pass_bins else 0
        gathered = nn.Linear(2 * bins + 2 * single_pass_bins, bands + heard)
        head = nn.Linear(channels, 3 * bins)  # log-amplitude correction, real, imaginary
        trunk = nn.Sequential(
            OrderedDict(
                input=_SeenBins(bins),
                bands=gathered,
                embed=FrameConv(bands + heard, channels, kernel_size, causal=causal),
                embed_norm=nn.LayerNorm(channels, eps=1e-6),
                blocks=nn.Sequential(*convnext),
                final_norm=nn.LayerNorm(channels, eps=1e-6),
                head=head,
            )
        )
        core = OrderedDict[str, nn.Module]()
        if finer_frames:
            core["finer"] = FinerFrames(bins, finer_frames, needed=_has_too_few(mel, own))
        if single_pass_bins:
            core["single_pass"] = SinglePassPhases(
                n_fft, own.hop_length, single_pass_bins, lobes=single_pass_lobes
            )
        delay = None
        if group_delay_bands and not causal:
            noisy = math.ceil(NOISY_HZ * n_fft / own.sample_rate)
            delay = GroupDelay(n_fft, own.hop_length, group_delay_bands, noisy_bin=noisy)
        phases: nn.Module = _After(bins)
        if between_partials:
            turned = min(single_pass_bins, max(2, int(BETWEEN_HZ * n_fft / own.sample_rate)))
            cycles = own.hop_length / n_fft
            phases = BetweenPartials(bins, single_pass_bins, turned, cycles, between_partials, causal=causal)
        core["spectrum"] = _Spectrum(trunk, bins, single_pass_bins, phases, delay)
        if griffin_lim:
            ahead = look_ahead if causal else griffin_lim
            core["griffin_lim"] = GriffinLim(n_fft, own.hop_length, griffin_lim, ahead)
        if group_delay_bands and causal:  # behind what waits for the frame ahead anyway
            core["clicks"] = _Clicks(n_fft, own.hop_length, group_delay_bands)
        self.learnt_by = own
        self.layers = nn.Sequential(self._layers_for(mel, core))
        self._takes(mel)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if finer_frames:
            nn.init.zeros_(core["finer"].sharper[-1].weight)  # type: ignore[index, union-attr]
        _begin_as_filter_bank(gathered, bands, own, n_fft)
        if single_pass_bins:
            _begin_as_single_pass(gathered, head, bands, single_pass_bins)

    def begun_as(self, other: "FreeVGenerator | UniversalGenerator") -> nn.Module:
        """This net's core with the weights of a net that was trained for one convention, may look ahead or hears less.

        A FreeV reads the logarithm of a band's weighted sum, this net the weighted sum of the bins' logarithms: equal
        where a band's bins are, so that behind bands that are the filter bank of `mel`, which must be the other's, it
        starts nearly where that one ended. A causal net takes the kernels of one that isn't as if the frames to come
        were all as the last. Steps of Griffin-Lim are taken over where both have the same. Where this net's phases go
        on from frame to frame and the other's don't, the lowest bins begin with those. A net of a higher rate, whose
        bins and frames lie as far apart in hertz and in seconds, does below the other's Nyquist what that one did; its
        further bins and bands stay as they were drawn.

        Raises:
            ValueError: a net of other sizes.
        """
        core = copy.deepcopy(self.layers.core)
        trained = other.layers if isinstance(other, FreeVGenerator) else other.layers.core
        state, given = core.state_dict(), trained.state_dict()  # type: ignore[union-attr]
        layers = dict(core.named_modules())  # type: ignore[union-attr]
        for name, module in trained.named_modules():  # type: ignore[union-attr]
            mine = layers.get(name)
            if isinstance(module, FrameConv) and isinstance(mine, FrameConv) and not mine.right_frames:
                given[f"{name}.conv.weight"] = _without_future(
                    module.conv.weight.detach(), module.right_frames
                )
            if isinstance(module, BetweenPartials) and getattr(mine, "ahead", module.ahead) < module.ahead:
                for at, conv in module.layers.named_children():
                    if isinstance(conv, nn.Conv2d):
                        turned = conv.weight.detach().transpose(2, 3)
                        ahead = conv.kernel_size[0] // 2
                        given[f"{name}.layers.{at}.weight"] = _without_future(turned, ahead).transpose(2, 3)
        if "finer" not in layers:
            given = {name: value for name, value in given.items() if not name.startswith("finer.")}
        steps = {name: value for name, value in state.items() if name.startswith("griffin_lim.")}
        if {name: value.shape for name, value in steps.items()} != {
            name: value.shape for name, value in given.items() if name.startswith("griffin_lim.")
        }:
            given = {name: value for name, value in given.items() if not name.startswith("griffin_lim.")}
        if isinstance(other, UniversalGenerator) and self._hears_more_than(other):
            given |= _widened(given, state, math.log(self.n_fft / other.n_fft))
        if self.single_pass_bins and not getattr(other, "single_pass_bins", 0):
            given |= _with_phases(given, state, self.single_pass_bins)
        for name, value in given.items():
            if name not in state or state[name].shape != value.shape:
                expected = tuple(state[name].shape) if name in state else "none"
                raise ValueError(f"{name}: got {tuple(value.shape)}, expected {expected}")
            state[name] = value
        core.load_state_dict(state)  # type: ignore[union-attr]
        return core  # type: ignore[return-value]

    def _hears_more_than(self, other: "UniversalGenerator") -> bool:
        """Bins and frames as far apart as the other's, and more bins."""
        higher = self.learnt_by.sample_rate / other.learnt_by.sample_rate
        sizes = (
            (self.n_fft, self.learnt_by.hop_length),
            (other.n_fft * higher, other.learnt_by.hop_length * higher),
        )
        return higher > 1 and sizes[0] == sizes[1]

    def for_mel(self, mel: MelSpec) -> Self:
        """The same net, sharing its weights, for mels of another convention, and another rate or hop.

        Raises:
            ValueError: see the class.
        """
        core = OrderedDict(self.layers.core.named_children())  # type: ignore[union-attr]
        other = self._with(**self._layers_for(mel, core))
        other._takes(mel)
        return other.to(next(self.parameters()).device)

    def _layers_for(self, mel: MelSpec, core: OrderedDict[str, nn.Module]) -> OrderedDict[str, nn.Module]:
        """Those of a convention about what has weights, up to the spectrum."""
        own, n_fft = self.learnt_by, self.n_fft
        frames_a_second, usual = (spec.sample_rate / spec.hop_length for spec in (mel, own))
        least, most = (share * usual for share in FRAME_RATES)
        halved = "finer" in core and _has_too_few(mel, own)
        if not (halved or least <= frames_a_second <= most):
            half = " to ".join(f"{share * usual / 2:.3g}" for share in FINER_RATES)
            raise ValueError(
                f"mel sample_rate, hop_length: got {mel.sample_rate} Hz and {mel.hop_length}, {frames_a_second:.3g} "
                f"frames a second, expected {least:.3g} to {most:.3g}"
                f"{f', or {half} with an even hop' * ('finer' in core)}: this universal vocoder was trained on "
                f"{usual:.3g} and takes every convention of about as many"
            )
        hop_length = mel.hop_length // 2 if halved else mel.hop_length
        lasting = n_fft * hop_length // own.hop_length
        top_hz = n_fft // 2 * mel.sample_rate / lasting
        if top_hz < LEAST_TOP * mel.fmax:
            raise ValueError(
                f"mel fmax: got {mel.fmax:g} Hz, expected at most {top_hz / LEAST_TOP:.0f} with a hop of "
                f"{mel.hop_length} at {mel.sample_rate} Hz: this universal vocoder makes sound up to {top_hz:.0f} Hz "
                "of such frames. Take one of a higher rate, such as default-44khz"
            )
        if halved:  # two frames a quarter of a hop about the middle of each, wherever that is
            skipped = hop_length if mel.framing == "center" else 0
            istft = ISTFT(lasting, hop_length, "same", n_fft // 2 + 1, skipped)
        else:
            istft = ISTFT(lasting, hop_length, mel.framing, n_fft // 2 + 1)
        if "finer" in core:
            core = OrderedDict(core, finer=core["finer"].where(halved))  # type: ignore[operator]
        core = OrderedDict(
            core, istft=istft, bands=TwoBands(mel.sample_rate), beginnings=Beginnings(istft, mel.sample_rate)
        )
        inverse = _Inverse(mel, n_fft, self.tones, own, lasting)
        return OrderedDict(inverse=inverse, core=SharpOnsets(core))

    def _takes(self, mel: MelSpec) -> None:
        self.mel, self.n_mels, self.hop_length = mel, mel.n_mels, mel.hop_length

    def around(self, core: nn.Module) -> Self:
        """The same convention before another core, such as the average of its weights."""
        return self._with(inverse=self.layers.inverse, core=core)

    def for_inference(self) -> nn.Sequential:
        """A copy of the layers in which what the trunk hears of the convention's bins is part of its bands' bias."""
        layers: Any = super().for_inference()  # whose names mypy doesn't know
        if hasattr(layers.core, "finer") and not layers.core.finer.needed:
            del layers.core.finer
        trunk, seen = layers.core.spectrum.trunk, layers.inverse.seen
        bins, bands = trunk.input.bins, trunk.bands
        with torch.no_grad():
            loud, told, others = bands.weight.split([bins, bins, bands.in_features - 2 * bins], 1)
            trunk.bands = gathered = nn.Linear(bins + others.shape[1], len(loud)).to(bands.weight)
            gathered.weight.copy_(torch.cat([loud * seen.to(loud), others], 1))
            gathered.bias.copy_(bands.bias + told @ seen.to(told))
        trunk.input = _LoudBins(bins)
        return layers

    def _with(self, inverse: Any, core: nn.Module) -> Self:
        other = copy.copy(self)
        other._modules = {
            "layers": nn.Sequential(OrderedDict(inverse=inverse, core=core)).train(self.training)
        }
        return other


def _has_too_few(mel: MelSpec, own: MelSpec) -> bool:
    """Frames that are made twice as many before a net that was trained on those of another convention."""
    doubled = 2 * mel.sample_rate / mel.hop_length * own.hop_length / own.sample_rate
    return mel.hop_length % 2 == 0 and FINER_RATES[0] <= doubled <= FINER_RATES[1]


def _without_future(kernel: Tensor, ahead: int) -> Tensor:
    """A kernel of the same size whose last tap is the present, which stands for the `ahead` frames after it too.

    Shape: `(..., k)` -> the same.
    """
    if not ahead:
        return kernel
    past, future = kernel[..., :-ahead], kernel[..., -ahead:]
    now = past[..., -1:] + future.sum(-1, keepdim=True)
    return torch.cat([torch.zeros_like(future), past[..., :-1], now], dim=-1)


def _with_phases(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], low: int) -> dict[str, Tensor]:
    """The layers that phases are handed to, of a net that has none: as that one for the rest, these as they begin."""
    made = {}
    for name in ("bands.weight", "bands.bias", "embed.conv.weight", "head.weight", "head.bias"):
        name = "spectrum.trunk." + name
        new, old = wanted[name].clone(), given.get(name)  # a FreeV has no bands
        if "embed" in name:
            new.zero_()  # of the phases the trunk hears nothing yet
        if old is not None:
            new[tuple(map(slice, old.shape))] = old
        made[name] = new
    for name in ("head.weight", "head.bias"):
        name = "spectrum.trunk." + name
        for own, begun in zip(made[name].chunk(3)[1:], wanted[name].chunk(3)[1:], strict=True):
            own[:low] = begun[:low]
    return made


def _widened(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], louder: float) -> dict[str, Tensor]:
    """The layers between bins, bands and trunk of a net of few bins and bands inside those of a net of more.

    The same sound has amplitudes larger by a factor, whose logarithm is `louder`, in a window of so many more samples.
    """
    prefix = "spectrum.trunk."
    names = ("bands.weight", "bands.bias", "embed.conv.weight", "head.weight", "head.bias")
    made = {prefix + name: wanted[prefix + name].clone() for name in names}
    few, many = (state[prefix + "head.bias"].numel() // 3 for state in (given, wanted))
    weight, new = given[prefix + "bands.weight"].clone(), made[prefix + "bands.weight"]
    further = new.shape[1] - 2 * many  # columns, of phases
    heard = PHASE_FEATURES if weight.shape[1] > 2 * few else 0
    rows, more_rows = len(weight) - heard, len(new) - (PHASE_FEATURES if further else 0)
    if rows > more_rows or (heard and weight.shape[1] - 2 * few != further):
        return {}
    weight[:, few : 2 * few] -= weight[:, :few] * (louder / 3)  # as `_SeenBins` scales it
    columns = torch.arange(weight.shape[1])
    columns += (many - few) * ((columns >= few).long() + (columns >= 2 * few))
    place = torch.arange(len(weight))
    place += (more_rows - rows) * (place >= rows)
    new[place] = torch.zeros_like(new[place]).index_copy(1, columns, weight)
    made[prefix + "bands.bias"][place] = given[prefix + "bands.bias"]
    made[prefix + "embed.conv.weight"].zero_()  # of the further bands the trunk hears nothing yet
    made[prefix + "embed.conv.weight"][:, place] = given[prefix + "embed.conv.weight"]
    for name in ("head.weight", "head.bias"):
        parts = made[prefix + name].chunk(3), given[prefix + name].chunk(3)
        for mine, its in zip(*parts, strict=True):
            mine[:few] = its
    return made


def _begin_as_filter_bank(gathered: nn.Linear, bands: int, mel: MelSpec, n_fft: int) -> None:
    """(ln(m) + 5) / 3 of a band m, from the same of its bins, as `_SeenBins` gives them."""
    bank = filters.filter_bank(mel.sample_rate, n_fft, bands, mel.fmin, mel.fmax, mel.mel_scale, mel.mel_norm)
    total = bank.sum(1)
    total = torch.where(total > 0, total, 1.0)  # a band narrower than a bin has none
    with torch.no_grad():
        gathered.weight.zero_()
        gathered.weight[:bands, : bank.shape[1]] = bank / total[:, None]
        gathered.bias[:bands] = total.log() / 3


def _begin_as_single_pass(gathered: nn.Linear, head: nn.Linear, bands: int, low: int) -> None:
    """Phases of the lowest bins as they are handed in, turned from a frame's middle to its start: by pi a bin."""
    with torch.no_grad():
        nn.init.trunc_normal_(gathered.weight[bands:, -2 * low :], std=0.1)
        _, real, imaginary = head.weight.chunk(3)
        real[:low] = imaginary[:low] = 0
        head.bias.chunk(3)[1][:low] = 0.5 * (-1.0) ** torch.arange(low)


class _Inverse(MelInverse, Pointwise):
    """The mel's log, affine and filter bank undone. Shape: `(B, n_mels, F)` -> `(B, F, n_fft // 2 + 1)`."""


class _LoudBins(Pointwise):
    """What the trunk hears: ln(amplitude) of speech lies around -5 with a spread of 3; then what else it is given.

    Shape: `(B, F, bins + others)` -> the same.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, given: Tensor) -> Tensor:
        amplitude, others = given[..., : self.bins], given[..., self.bins :]
        return torch.cat([(_log(amplitude) + 5) / 3, others], dim=-1)


class _SeenBins(_LoudBins):
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


class _After(Pointwise):
    """What stands behind that."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, given: Tensor) -> Tensor:
        return given[..., self.bins :]


class _Spectrum(Parallel):
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


class _Clicks(GroupDelay):
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
