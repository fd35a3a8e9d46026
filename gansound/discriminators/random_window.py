"""A discriminator of short windows: one of GAN-TTS's, which are shown a random window of each sound.

Binkowski et al., "High Fidelity Speech Synthesis with Adversarial Networks" (GAN-TTS), ICLR 2020, arXiv 1909.11646,
section 3.2: several of them, unconditional, each of its own window, whose samples are folded into channels so that all
look at as many columns. The window is the recipe's `crop_samples`:

    discriminators:
      window_240: {network: {class_path: …RandomWindowDiscriminator}, crop_samples: 240}
      window_960: {network: {class_path: …RandomWindowDiscriminator, init_args: {fold: 4}}, crop_samples: 960}

Departures: weight norm instead of spectral norm, like the other discriminators here, and one logit a column instead of
one in all, their mean being the same to a hinge that isn't reached.
"""

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from gansound.discriminators.waveform import WaveformDiscriminator
from gansound.nn.conv import Conv1d, weight_norm

NEGATIVE_SLOPE = 0.2


class _Block(nn.Module):
    """Two convolutions, the second dilated, beside a pointwise one; then a mean over `factor` columns.

    Shape:
        `(B, in, T)` → `(B, out, T // factor)`.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.first = weight_norm(Conv1d(in_channels, out_channels, 3))
        self.second = weight_norm(Conv1d(out_channels, out_channels, 3, dilation=2))
        self.shortcut = weight_norm(Conv1d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.second(F.leaky_relu(self.first(F.leaky_relu(x, NEGATIVE_SLOPE)), NEGATIVE_SLOPE))
        y = branch + self.shortcut(x)
        return F.avg_pool1d(y, self.factor) if self.factor > 1 else y


class RandomWindowDiscriminator(WaveformDiscriminator):
    """Residual blocks over a window's samples, so many a column.

    Args:
        fold: samples a column; the paper's windows of 240, 480, 960, 1920 and 3600 samples have 1, 2, 4, 8 and 15.
        channels: width of the first block, doubled where the length is divided.
        factors: what the blocks after the first divide the length by, in turn.

    Attributes:
        shortest_samples: of what it can judge, one column at the end.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` = fold * prod(factors) → one list: `len(factors) + 2` feature maps
        `(B, C, T')`, then the logits `(B, 1, T')`.

    Raises:
        ValueError: a size that isn't positive.
    """

    shortest_is = "a column at the end"

    def __init__(self, fold: int = 1, channels: int = 64, factors: tuple[int, ...] = (5, 3)) -> None:
        super().__init__()
        if min(fold, channels, *factors) < 1:
            raise ValueError(
                f"fold, channels and factors must be positive, got {fold}, {channels} and {factors}"
            )
        self.fold = fold
        widths = [channels * 2**i for i in range(len(factors) + 1)]
        blocks = [_Block(fold, channels, 1)]
        blocks += [_Block(a, b, by) for (a, b), by in zip(itertools.pairwise(widths), factors, strict=True)]
        self.blocks = nn.ModuleList([*blocks, _Block(widths[-1], widths[-1], 1)])
        self.last = weight_norm(Conv1d(widths[-1], 1, 1))
        self.shortest_samples = fold
        for factor in factors:
            self.shortest_samples *= factor

    def heads(self) -> list[nn.Module]:
        """Its last layer."""
        return [self.last]

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        """Samples that don't fill a last column are left out."""
        whole = audio.shape[1] // self.fold * self.fold
        x = audio[:, :whole].unflatten(1, (-1, self.fold)).transpose(1, 2)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        maps[-1] = F.leaky_relu(x, NEGATIVE_SLOPE)
        return [[*maps, self.last(maps[-1])]]
