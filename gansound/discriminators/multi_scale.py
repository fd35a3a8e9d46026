"""Multi-scale discriminators: the same net on the waveform and on its slower copies.

MelGAN's: Kumar et al., "MelGAN", NeurIPS 2019, arXiv 1910.06711, section 2.2; widths and kernels as published in
descriptinc/melgan-neurips. HiFi-GAN's: Kong et al., NeurIPS 2020, arXiv 2010.05646, section 2.2; as published in
jik876/hifi-gan.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from gansound.discriminators.waveform import WaveformDiscriminator
from gansound.nn.conv import Conv1d, published_keys, spectral_norm, weight_norm

NEGATIVE_SLOPE = 0.2
HIFIGAN_NEGATIVE_SLOPE = 0.1
GROUP_CHANNELS = 4  # input channels that one group of a downsampling convolution sees


class ScaleDiscriminator(nn.Module):
    """One scale: strided grouped convolutions with long kernels, judging overlapping windows.

    Args:
        channels: width after the first convolution, a multiple of 4.
        layers: downsampling convolutions.
        downsampling: stride of each, and what it multiplies the width by; its kernel is 10 times that plus 1.
        max_channels: the width never exceeds this.

    Shape:
        audio `(B, 1, T)` → `layers + 3` feature maps `(B, C, T')`, the last being the logits `(B, 1, T')`,
        T' = ceil(T / downsampling**i) after i downsamplings.
    """

    def __init__(self, channels: int, layers: int, downsampling: int, max_channels: int) -> None:
        super().__init__()
        widths = [min(channels, max_channels)]
        for _ in range(layers):
            widths.append(min(widths[-1] * downsampling, max_channels))
        for before, after in itertools.pairwise(widths):
            if before % GROUP_CHANNELS or after % (before // GROUP_CHANNELS):
                raise ValueError(
                    f"a grouped convolution needs {GROUP_CHANNELS}n channels before and a multiple of n after, got "
                    f"{before} → {after} from channels={channels}, downsampling={downsampling}, "
                    f"max_channels={max_channels}; take powers of two"
                )
        last = min(2 * widths[-1], max_channels)
        self.layers = nn.ModuleList(
            [
                weight_norm(Conv1d(1, widths[0], 15, padding_mode="reflect")),
                *(
                    weight_norm(
                        Conv1d(
                            before,
                            after,
                            10 * downsampling + 1,
                            stride=downsampling,
                            groups=before // GROUP_CHANNELS,
                        )
                    )
                    for before, after in itertools.pairwise(widths)
                ),
                weight_norm(Conv1d(widths[-1], last, 5)),
                weight_norm(Conv1d(last, 1, 3)),
            ]
        )

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Shape: `(B, 1, T)` → feature maps `(B, C, T')`, the last being the logits `(B, 1, T')`."""
        *hidden, last = self.layers
        maps = [audio]
        for layer in hidden:
            maps.append(F.leaky_relu(layer(maps[-1]), NEGATIVE_SLOPE))
        maps.append(last(maps[-1]))
        return maps[1:]


class _OverScales(WaveformDiscriminator):
    """Nets on the waveform, on its half, on the half of that: what both kinds of multi-scale discriminators are."""

    shortest_is = "to be halved for every scale"

    def __init__(self, scales: Iterable[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)
        self.shortest_samples = 2 ** (len(self.scales) - 1)

    @abstractmethod
    def halved(self, x: Tensor) -> Tensor:
        """What the next net hears."""

    def heads(self) -> list[nn.Module]:
        """The last layer of each net."""
        return [_last(scale) for scale in self.scales]

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        x = audio.unsqueeze(1)
        results = []
        for number, scale in enumerate(self.scales):
            if number:
                x = self.halved(x)
            results.append(scale(x))
        return results


class MultiScaleDiscriminator(_OverScales):
    """Equal nets on the waveform and on its average-pooled halves.

    Args:
        scales: how many nets; net i hears the signal at 1/2**i of its rate.
        channels: width of each net after its first convolution, a multiple of 4.
        layers: downsampling convolutions of each net.
        downsampling: stride of each, and what it multiplies the width by.
        max_channels: the width never exceeds this.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` = 2**(scales - 1) → for each scale `layers + 3` feature maps
        `(B, C, T')`, the last being the logits `(B, 1, T')`.

    Raises:
        ValueError: when a size isn't positive or the widths don't fit the groups.
    """

    def __init__(
        self,
        scales: int = 3,
        channels: int = 16,
        layers: int = 4,
        downsampling: int = 4,
        max_channels: int = 1024,
    ) -> None:
        if min(scales, channels, layers, downsampling, max_channels) < 1:
            raise ValueError(
                f"scales, channels, layers, downsampling and max_channels must be positive, got {scales}, "
                f"{channels}, {layers}, {downsampling}, {max_channels}"
            )
        super().__init__(
            ScaleDiscriminator(channels, layers, downsampling, max_channels) for _ in range(scales)
        )

    def halved(self, x: Tensor) -> Tensor:
        """At half the rate: `(B, 1, T)` → `(B, 1, T // 2)`; what is padded doesn't count."""
        return F.avg_pool1d(x, kernel_size=4, stride=2, padding=1, count_include_pad=False)


def melgan_neurips_keys(discriminator: MultiScaleDiscriminator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that descriptinc/melgan-neurips uses for the same tensor.

    `scales.i.layers.j` is `model.disc_i.model.layer_j`, followed by the convolution's place in a Sequential:
    1 behind the first layer's padding, 0 in the others, none for the bare last one. Weight norm's pair is
    `weight_g`, `weight_v`.
    """
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    keys = {}
    for key in discriminator.state_dict():
        _, scale, _, layer, tensor = key.split(".", 4)
        depth = len(discriminator.get_submodule(f"scales.{scale}.layers"))  # type: ignore[arg-type]
        place = {0: ".1", depth - 1: ""}.get(int(layer), ".0")
        keys[key] = f"model.disc_{scale}.model.layer_{layer}{place}.{names.get(tensor, tensor)}"
    return keys


# Of each layer: what it multiplies the first width by, its kernel, its stride, its groups.
_HIFIGAN_LAYERS = (
    (1, 15, 1, 1), (1, 41, 2, 4), (2, 41, 2, 16), (4, 41, 4, 16), (8, 41, 4, 16), (8, 41, 1, 16), (8, 5, 1, 1),
)  # fmt: skip


class HiFiGANScaleDiscriminator(nn.Module):
    """One of HiFi-GAN's scales.

    Args:
        channels: width after the first two convolutions; then 2, 4 and 8 times that. A multiple of 16.
        spectral: divide each weight by its largest singular value, instead of splitting off its length.

    Shape:
        audio `(B, 1, T)` → 8 feature maps `(B, C, T')`, the last being the logits `(B, 1, T')`, T' = ceil(T / 64).
    """

    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        if channels < 1 or channels % 16:
            raise ValueError(f"channels must be a multiple of 16, one for each group, got {channels}")
        normed = spectral_norm if spectral else weight_norm
        layers, width = [], 1
        for times, kernel_size, stride, groups in _HIFIGAN_LAYERS:
            layers.append(Conv1d(width, channels * times, kernel_size, stride=stride, groups=groups))
            width = channels * times
        self.layers = nn.ModuleList(normed(layer) for layer in (*layers, Conv1d(width, 1, 3)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Shape: `(B, 1, T)` → feature maps `(B, C, T')`, the last being the logits `(B, 1, T')`."""
        *hidden, last = self.layers
        maps = [audio]
        for layer in hidden:
            maps.append(F.leaky_relu(layer(maps[-1]), HIFIGAN_NEGATIVE_SLOPE))
        maps.append(last(maps[-1]))
        return maps[1:]


class HiFiGANMultiScaleDiscriminator(_OverScales):
    """Equal nets on the waveform and its average-pooled halves, the first spectral-normed, the others weight-normed.

    Args:
        scales: how many nets; net i hears the signal at 1/2**i of its rate.
        channels: width of each net after its first convolution, a multiple of 16.

    Attributes:
        judged_apart: each pass takes a step of the spectral norm's power iteration; the published code takes one for
            the real and one for the generated sounds.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` = 2**(scales - 1) → for each scale 8 feature maps `(B, C, T')`, the
        last being the logits `(B, 1, T')`.

    Raises:
        ValueError: when a size isn't positive or the width doesn't fit the groups.
    """

    judged_apart = True

    def __init__(self, scales: int = 3, channels: int = 128) -> None:
        if scales < 1:
            raise ValueError(f"scales must be positive, got {scales}")
        super().__init__(
            HiFiGANScaleDiscriminator(channels, spectral=number == 0) for number in range(scales)
        )

    def halved(self, x: Tensor) -> Tensor:
        """At half the rate: `(B, 1, T)` → `(B, 1, T // 2 + 1)`; padded zeros count, as published."""
        return F.avg_pool1d(x, kernel_size=4, stride=2, padding=2)


def hifigan_keys(discriminator: HiFiGANMultiScaleDiscriminator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that jik876/hifi-gan uses for the same tensor.

    `scales.i.layers.j` is `discriminators.i.convs.j`, the last layer `discriminators.i.conv_post`.
    """
    depth = len(_HIFIGAN_LAYERS)
    layers = {
        f"scales.{i}.layers.{j}": f"discriminators.{i}." + (f"convs.{j}" if j < depth else "conv_post")
        for i in range(len(discriminator.scales))
        for j in range(depth + 1)
    }
    return published_keys(discriminator, layers)


def _last(scale: nn.Module) -> nn.Module:
    layers = scale.get_submodule("layers")
    assert isinstance(layers, nn.ModuleList)
    return layers[-1]
