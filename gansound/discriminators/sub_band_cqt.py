"""The multi-scale sub-band constant-Q discriminator: nets that see as many bins of each octave, low or high.

Gu et al., "Multi-Scale Sub-Band Constant-Q Transform Discriminator for High-Fidelity Vocoder", ICASSP 2024, arXiv
2311.14957; sizes as published in open-mmlab/Amphion and NVIDIA/BigVGAN (v2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.discriminators.waveform import WaveformDiscriminator
from gansound.mel import MelSpec
from gansound.nn.conv import weight_norm
from gansound.nn.conv2d import Conv2d
from gansound.nn.cqt import CQT

NEGATIVE_SLOPE = 0.1
KERNEL, LAST_KERNEL = (3, 9), (3, 3)  # along time and along frequency
LOWEST_HZ = 32.703  # C1
DILATIONS = (1, 2, 4)  # along time, of the layers with stride 2 along frequency


class CQTDiscriminator(nn.Module):
    """One resolution: a convolution for each octave, which lie apart in time, then one stack over all of them.

    Args:
        cqt: of the signal at twice its rate, as published, so that the highest octave's windows don't fold.
        channels: width of every layer.

    Shape:
        audio `(B, T)` → 5 feature maps `(B, channels, F, K)`, then the logits `(B, 1, F, K)`,
        F = 1 + 2 T // cqt.hop_length.
    """

    def __init__(self, cqt: CQT, channels: int) -> None:
        super().__init__()
        self.cqt = cqt
        self.octaves = nn.ModuleList(Conv2d(2, 2, KERNEL) for _ in range(cqt.octaves))
        strided = [
            weight_norm(Conv2d(channels, channels, KERNEL, stride=(1, 2), dilation=(dilation, 1)))
            for dilation in DILATIONS
        ]
        self.layers = nn.ModuleList(
            [Conv2d(2, channels, KERNEL), *strided, weight_norm(Conv2d(channels, channels, LAST_KERNEL))]
        )
        self.last = weight_norm(Conv2d(channels, 1, LAST_KERNEL))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Shape: `(B, T)` → feature maps `(B, C, F, K)`, the last being the logits."""
        x = self.octave_by_octave(self.cqt.at_twice_the_rate(audio))
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), NEGATIVE_SLOPE)
            maps.append(x)
        return [*maps, self.last(x)]

    def octave_by_octave(self, spectrum: Tensor) -> Tensor:
        """Shape: `(B, 2, F, K)` → the same."""
        parts = spectrum.split(self.cqt.bins_per_octave, dim=3)
        return torch.cat([conv(part) for conv, part in zip(self.octaves, parts, strict=True)], 3)


class SubBandCQTDiscriminator(WaveformDiscriminator):
    """Equal nets, each on a constant-Q transform of its own resolution.

    Args:
        mel: whose sample rate it is; in a recipe the task's.
        hop_lengths: of each transform, in samples of twice the rate, multiples of `2**(octaves - 1)`.
        bins_per_octave: of each.
        octaves: of all, from 32.7 Hz (C1) on; null takes the most that the rate has, and at most 9.
        channels: width of each net.

    Attributes:
        octaves: how many.
        shortest_samples: of what it can judge, a frame of each.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` → for each transform 5 feature maps `(B, C, F, K)`, then the logits.

    Raises:
        ValueError: a highest octave that lies above half the rate, other numbers of hops and bins, hops that can't be
            halved for each octave, or sizes that aren't positive.
    """

    shortest_is = "a frame"

    def __init__(
        self,
        mel: MelSpec,
        hop_lengths: tuple[int, ...] = (512, 256, 256),
        bins_per_octave: tuple[int, ...] = (24, 36, 48),
        octaves: int | None = None,
        channels: int = 32,
    ) -> None:
        super().__init__()
        if not hop_lengths or len(hop_lengths) != len(bins_per_octave) or channels < 1:
            raise ValueError(
                "expected one or more hop_lengths, bins_per_octave for each and a positive width, got "
                f"{hop_lengths}, {bins_per_octave} and channels={channels}"
            )
        half = mel.sample_rate / 2
        if octaves is None:
            # The last may reach beyond half the rate, but not begin there.
            octaves = next((count for count in range(9, 1, -1) if LOWEST_HZ * 2 ** (count - 1) < half), 1)
        begins = LOWEST_HZ * 2.0 ** (octaves - 1)
        if begins >= half:
            raise ValueError(
                f"octaves: the highest of {octaves} octaves from {LOWEST_HZ:g} Hz begins at {begins:.0f} Hz, above "
                f"half the rate of {mel.sample_rate} Hz; take fewer"
            )
        self.octaves = octaves
        self.sample_rate = mel.sample_rate
        self.resolutions = nn.ModuleList(
            CQTDiscriminator(CQT(2 * mel.sample_rate, hop, octaves, bins, LOWEST_HZ), channels)
            for hop, bins in zip(hop_lengths, bins_per_octave, strict=True)
        )
        self.shortest_samples = max(hop_lengths)

    def heads(self) -> list[nn.Module]:
        """The last layer of each net."""
        return [resolution.get_submodule("last") for resolution in self.resolutions]

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        return [resolution(audio) for resolution in self.resolutions]
