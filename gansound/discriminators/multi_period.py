"""HiFi-GAN's multi-period discriminator: nets that look at every second, third, fifth, … sample.

Kong et al., "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646, section 2.2; widths and kernels as published in
jik876/hifi-gan.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from gansound.discriminators.waveform import WaveformDiscriminator, published_nets
from gansound.nn import images
from gansound.nn.conv import reflect_pad, weight_norm

NEGATIVE_SLOPE = 0.1
KERNEL_SIZE, LAST_KERNEL_SIZE = 5, 3
STRIDE = 3


class _AlongTime(nn.Conv2d):
    """A convolution whose published kernel is `(kernel_size, 1)`, over images that lie on their side.

    Time runs along the rows here, and a period's phases are its rows: the layout that is quick on a CPU.

    Shape:
        `(B, in, period, T)` → `(B, out, period, ceil(T / stride))`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, (kernel_size, 1), (stride, 1), (kernel_size // 2, 0))

    def forward(self, x: Tensor) -> Tensor:
        return images.convolve_image(
            x,
            self.weight.transpose(2, 3),
            self.bias,
            stride=(1, self.stride[0]),
            padding=(0, int(self.padding[0])),
        )


class PeriodDiscriminator(nn.Module):
    """One period: each of its phases is a signal of its own, and all are judged by the same strided convolutions.

    Args:
        period: samples from one that it sees to the next.
        widths: channels after each convolution; the last has stride 1, those before it 3.

    Shape:
        audio `(B, T)` → `len(widths) + 1` feature maps `(B, C, period, T')`, the last being the logits
        `(B, 1, period, T')`; T' = ceil(T / period), then ceil(T' / 3) after each strided convolution.
    """

    def __init__(self, period: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        strides = [STRIDE] * (len(widths) - 1) + [1]
        self.layers = nn.ModuleList(
            weight_norm(_AlongTime(before, after, KERNEL_SIZE, stride))
            for (before, after), stride in zip(itertools.pairwise([1, *widths]), strides, strict=True)
        )
        self.last = weight_norm(_AlongTime(widths[-1], 1, LAST_KERNEL_SIZE))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Shape: `(B, T)` → feature maps `(B, C, period, T')`, the last being the logits."""
        missing = -audio.shape[1] % self.period
        padded = reflect_pad(audio.unsqueeze(1), 0, missing) if missing else audio.unsqueeze(1)
        x = padded.unflatten(2, (-1, self.period)).transpose(2, 3)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), NEGATIVE_SLOPE)
            maps.append(x)
        return [*maps, self.last(x)]


class MultiPeriodDiscriminator(WaveformDiscriminator):
    """Equal nets, each on the samples of its own period.

    Args:
        periods: in samples; primes see the least in common.
        channels: width of each net after its first convolution; then 4, 16, 32 and 32 times that.
        max_channels: the width never exceeds this.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` → for each period 6 feature maps `(B, C, period, T')`, the last being
        the logits.

    Raises:
        ValueError: no period, one below 2, one twice, or a width that isn't positive.
    """

    shortest_is = "the longest period"

    def __init__(
        self, periods: tuple[int, ...] = (2, 3, 5, 7, 11), channels: int = 32, max_channels: int = 1024
    ) -> None:
        super().__init__()
        if not periods or min(periods) < 2 or len(set(periods)) < len(periods):
            raise ValueError(f"expected one or more periods, each 2 or more and there once, got {periods}")
        if min(channels, max_channels) < 1:
            raise ValueError(f"channels and max_channels must be positive, got {channels} and {max_channels}")
        widths = [min(channels * times, max_channels) for times in (1, 4, 16, 32, 32)]
        self.periods = nn.ModuleList(PeriodDiscriminator(period, widths) for period in periods)
        self.shortest_samples = max(periods)

    def heads(self) -> list[nn.Module]:
        """The last layer of each net."""
        return [period.get_submodule("last") for period in self.periods]

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        return [period(audio) for period in self.periods]


def hifigan_keys(discriminator: MultiPeriodDiscriminator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that jik876/hifi-gan uses for the same tensor.

    `periods.i.layers.j` is `discriminators.i.convs.j`, `periods.i.last` is `discriminators.i.conv_post`.
    """
    return published_nets(discriminator, "periods")
