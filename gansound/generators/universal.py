"""A frame-rate vocoder for the mels of every convention of about its frame rate.

FreeV (Lv et al., arXiv 2406.08196) begins with the pseudo-inverse of the mel filter bank, but its network still reads
the mel itself, and so knows one convention only. Here the network reads what the inverse yields: amplitudes of linear
frequency, 0 in the bins that the convention never saw. A convention is then no more than a matrix before the first
layer, without a weight, and another one may be put in its place at any time. Nor does the net know the rate of its
samples: frames of another rate or hop are to it those of a voice that speaks faster or slower, higher or lower, and the
inverse STFT gives each as many samples as it lasts. Half as many frames are made twice as many by `FinerFrames`, first.
Of how loud the bins are that only another convention tells of it learnt nothing; `TopAsTold` says it.

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
from torch import nn

from gansound.generators.freev import FreeVGenerator
from gansound.generators.universal_conventions import fitted, has_too_few
from gansound.generators.universal_layers import (
    After,
    Clicks,
    Inverse,
    LoudBins,
    SeenBins,
    Spectrum,
    TopAsTold,
)
from gansound.generators.universal_weights import (
    PHASE_FEATURES,
    begin_as_filter_bank,
    begin_as_single_pass,
    taken_over,
)
from gansound.mel import MelSpec
from gansound.nn.between_partials import BetweenPartials
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.exact import Exactly
from gansound.nn.finer_frames import FinerFrames
from gansound.nn.generator import StreamingGenerator
from gansound.nn.griffin_lim import GriffinLim
from gansound.nn.group_delay import GroupDelay
from gansound.nn.onsets import Beginnings, SharpOnsets, TwoBands
from gansound.nn.single_pass import SinglePassPhases

NOISY_HZ = 8000.0
"""Above, phases are a noise's, whatever sounds."""
BETWEEN_HZ = 700.0
"""Above, phases between partials are as the partials' own: a third of the time to turn them is worth 0.005 of PESQ."""


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
                input=SeenBins(bins),
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
            core["finer"] = FinerFrames(bins, finer_frames, needed=has_too_few(mel, own))
        if single_pass_bins:
            core["single_pass"] = SinglePassPhases(
                n_fft, own.hop_length, single_pass_bins, lobes=single_pass_lobes
            )
        delay = None
        if group_delay_bands and not causal:
            noisy = math.ceil(NOISY_HZ * n_fft / own.sample_rate)
            delay = GroupDelay(n_fft, own.hop_length, group_delay_bands, noisy_bin=noisy)
        phases: nn.Module = After(bins)
        if between_partials:
            turned = min(single_pass_bins, max(2, int(BETWEEN_HZ * n_fft / own.sample_rate)))
            cycles = own.hop_length / n_fft
            phases = BetweenPartials(bins, single_pass_bins, turned, cycles, between_partials, causal=causal)
        core["spectrum"] = Spectrum(trunk, bins, single_pass_bins, phases, delay)
        if griffin_lim:
            ahead = look_ahead if causal else griffin_lim
            core["griffin_lim"] = GriffinLim(n_fft, own.hop_length, griffin_lim, ahead)
        if group_delay_bands and causal:  # behind what waits for the frame ahead anyway
            core["clicks"] = Clicks(n_fft, own.hop_length, group_delay_bands)
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
        begin_as_filter_bank(gathered, bands, own, n_fft)
        if single_pass_bins:
            begin_as_single_pass(gathered, head, bands, single_pass_bins)

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
        core: nn.Module = copy.deepcopy(self.layers.core)  # type: ignore[assignment]
        trained = other.layers if isinstance(other, FreeVGenerator) else other.layers.core
        louder = None
        if isinstance(other, UniversalGenerator) and self._hears_more_than(other):
            louder = math.log(self.n_fft / other.n_fft)
        state = taken_over(
            core,
            trained,  # type: ignore[arg-type]
            louder,
            new_phases=0 if getattr(other, "single_pass_bins", 0) else self.single_pass_bins,
        )
        core.load_state_dict(state)
        return core

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
        istft, halved = fitted(mel, self.learnt_by, self.n_fft, finer="finer" in core)
        if "finer" in core:
            core = OrderedDict(core, finer=core["finer"].where(halved))  # type: ignore[operator]
        inverse = Inverse(mel, self.n_fft, self.tones, self.learnt_by, istft.n_fft)
        own_end = math.ceil(self.n_fft * self.learnt_by.fmax / self.learnt_by.sample_rate) - 1
        core = OrderedDict(
            core,
            spectrum=core["spectrum"].where(TopAsTold.of(inverse, own_end)),  # type: ignore[operator]
            istft=istft,
            bands=TwoBands(mel.sample_rate),
            beginnings=Beginnings(istft, mel.sample_rate),
        )
        return OrderedDict(inverse=inverse, core=SharpOnsets(core))

    def _takes(self, mel: MelSpec) -> None:
        self.mel, self.n_mels, self.hop_length = mel, mel.n_mels, mel.hop_length

    def around(self, core: nn.Module) -> Self:
        """The same convention before another core, such as the average of its weights."""
        return self._with(inverse=self.layers.inverse, core=core)

    def for_inference(self) -> nn.Sequential:
        """A copy of the layers in which what the trunk hears of the convention's bins is part of its bands' bias.

        What stands before the trunk's blocks is told `Exactly`.
        """
        layers: Any = super().for_inference()  # whose names mypy doesn't know
        if hasattr(layers.core, "finer") and not layers.core.finer.needed:
            del layers.core.finer
        trunk, seen = layers.core.spectrum.trunk, layers.inverse.seen
        bins, bands = trunk.input.bins, trunk.bands
        with torch.no_grad():
            loud, told, others = bands.weight.split([bins, bins, bands.in_features - 2 * bins], 1)
            gathered = nn.Linear(bins + others.shape[1], len(loud)).to(bands.weight)
            gathered.weight.copy_(torch.cat([loud * seen.to(loud), others], 1))
            gathered.bias.copy_(bands.bias + told @ seen.to(told))
        trunk.input = LoudBins(bins)
        # What is rounded here the blocks and Griffin-Lim's steps make ten times as much of, and peaks are chosen by it.
        layers.inverse, trunk.bands, trunk.embed = map(Exactly, (layers.inverse, gathered, trunk.embed))
        return layers

    def _with(self, inverse: Any, core: nn.Module) -> Self:
        other = copy.copy(self)
        other._modules = {
            "layers": nn.Sequential(OrderedDict(inverse=inverse, core=core)).train(self.training)
        }
        return other
