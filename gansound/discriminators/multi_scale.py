"""MelGAN's multi-scale discriminator: the same net on the waveform and on its slower copies.

Kumar et al., "MelGAN", NeurIPS 2019, arXiv 1910.06711, section 2.2; widths and kernels as published in
descriptinc/melgan-neurips.
"""

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from gansound.nn.conv import Conv1d, weight_norm

NEGATIVE_SLOPE = 0.2
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


class MultiScaleDiscriminator(nn.Module):
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
        super().__init__()
        if min(scales, channels, layers, downsampling, max_channels) < 1:
            raise ValueError(
                f"scales, channels, layers, downsampling and max_channels must be positive, got {scales}, "
                f"{channels}, {layers}, {downsampling}, {max_channels}"
            )
        self.scales = nn.ModuleList(
            ScaleDiscriminator(channels, layers, downsampling, max_channels) for _ in range(scales)
        )
        self.shortest_samples = 2 ** (scales - 1)

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Judge.

        Shape:
            audio `(B, T)` → over scales, over layers: feature maps `(B, C, T')`, the last being the logits.

        Raises:
            ValueError: when the audio isn't `(B, T)` or is too short to be halved for the last scale.
        """
        if audio.dim() != 2 or audio.shape[1] < self.shortest_samples:
            raise ValueError(
                f"expected audio of shape (batch, {self.shortest_samples} or more samples), for {len(self.scales)} "
                f"scales, got {tuple(audio.shape)}"
            )
        x = audio.unsqueeze(1)
        results = []
        for number, scale in enumerate(self.scales):
            if number:
                x = F.avg_pool1d(x, kernel_size=4, stride=2, padding=1, count_include_pad=False)
            results.append(scale(x))
        return results


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
