"""A generator of log-mels, whose sound comes from a vocoder.

After SpecGAN (Donahue, McAuley and Puckette, "Adversarial Audio Synthesis", ICLR 2019, arXiv 1802.04208, section 3.2):
a DCGAN over (bands, frames) of a log spectrogram. Departures, and why:

- mel bands in a vocoder's own convention in place of linear bins inverted by Griffin-Lim;
- the range is the convention's, from silence to full scale, in place of each bin's mean and deviation over the corpus
  clipped at three deviations: that clipping loses peaks, and one-shots are mostly silence, which here is exact;
- 4 x 4 transposed convolutions, whose stride divides their kernel, that start as a 3 x 3 convolution of the nearest
  neighbours: kernels of 5 with stride 2 overlap unevenly and draw checkerboards (Odena et al., Distill 2016,
  doi 10.23915/distill.00003; the start after Aitken et al., arXiv 1707.02937). A nearest neighbour and a 3 x 3
  convolution are a special case of these, at 2.25 times the multiplications;
- the features of each cell are normalised (Karras et al., "Progressive Growing of GANs", arXiv 1710.10196, section
  4.2), and a 3 x 3 convolution at full resolution comes last.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.generators.latent import LatentGenerator
from gansound.generators.prior import Prior, Uniform
from gansound.mel import MelSpec
from gansound.mel.levels import Levels
from gansound.nn.conditioning import Concatenation, Conditioner, Conditioning

NEGATIVE_SLOPE = 0.2
LEAST_SIDE = 4  # cells along the shorter side of the first map
STRETCH = 1.05  # of the tanh, so that silence is reached and not only approached


class SpecGANGenerator(nn.Module):
    """A dense layer makes a coarse map of many channels; each transposed convolution doubles its sides.

    The sides are halved until the shorter has 4 to 7 cells, rounding up: 80 bands of 64 frames grow from 5 x 4 by four
    layers, of widths 8, 4, 2, 1 and 1/2 times `dim`. What rounding adds is cut off at the highest bands and the last
    frames. The output lies between what silence and full scale read in the mel's convention (`gansound.mel.levels`).

    It has 3.8 million parameters with `dim` 64 and 1.2 million with 32, for 80 bands of 64 frames.

    Args:
        mel: the convention of what it makes, which is that of the vocoder to come.
        frames: length of a clip in frames; 64 of 256 samples are 16384.
        dim: width at half the resolution; at the full one, where cells are many, half of it.
        prior: what latents are drawn from; 100 uniform values by default.
        labels: names of the classes; none by default.
        conditioner: how a label enters; an embedding beside the latent by default. Unused without labels.

    Attributes:
        prior, labels, mel, frames: as given.

    Shape:
        latents `(B, prior.dim)`, labels `(B,)` int64 → log-mel `(B, n_mels, frames)` float32.

    Raises:
        ValueError: a size that isn't positive, or fewer than 2 bands or frames.
    """

    def __init__(
        self,
        mel: MelSpec,
        frames: int = 64,
        dim: int = 64,
        prior: Prior | None = None,
        labels: Sequence[str] = (),
        conditioner: Conditioner | None = None,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        halvings = halvings_of(mel.n_mels, frames)
        widths = [dim * 2**i for i in reversed(range(halvings))] + [-(-dim // 2)]
        self.prior = prior or Uniform()
        self.labels = tuple(labels)
        self.mel, self.frames = mel, frames
        self.conditioning: Conditioning | None = None
        if self.labels:
            self.conditioning = (conditioner or Concatenation()).layers(len(self.labels), widths)
        beside = self.conditioning.values if self.conditioning is not None else 0
        self.first = widths[0], -(-mel.n_mels // 2**halvings), -(-frames // 2**halvings)
        self.dense = nn.Linear(self.prior.dim + beside, math.prod(self.first))
        self.layers = nn.ModuleList(Doubling(before, after) for before, after in itertools.pairwise(widths))
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.levels = Levels(mel)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Shape: latents `(B, prior.dim)`, labels `(B,)` int64 → log-mel `(B, n_mels, frames)`."""
        LatentGenerator.check_inputs(self, latents, labels)  # type: ignore[arg-type]
        if self.conditioning is not None and labels is not None:
            latents = self.conditioning.latents(latents, labels)
        x = self._activated(self.dense(latents).unflatten(1, self.first), labels, 0)
        for number, layer in enumerate(self.layers, start=1):
            x = self._activated(layer(x), labels, number)
        x = self.last(x)[:, 0, : self.mel.n_mels, : self.frames]
        # In full precision: bf16 has steps of 0.06 where a mel is -11.
        return self.levels.value(_limited(STRETCH * x.float().tanh()))

    def _activated(self, x: Tensor, labels: Tensor | None, layer: int) -> Tensor:
        x = x * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-8).to(x.dtype)
        if self.conditioning is not None and labels is not None:
            x = self.conditioning.features(x, labels, layer)
        return F.leaky_relu(x, NEGATIVE_SLOPE)


class Doubling(nn.ConvTranspose2d):
    """Twice as many rows and columns, by a 4 x 4 transposed convolution of stride 2.

    It starts as what a 3 x 3 convolution makes of the nearest neighbours.

    Shape:
        `(B, in_channels, H, W)` → `(B, out_channels, 2 H, 2 W)`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1)

    def reset_parameters(self) -> None:
        """He's normal draw (arXiv 1502.01852) of the 3 x 3 kernel, spread over the 4 x 4 one; no bias."""
        kernel = torch.randn(self.in_channels, self.out_channels, 3, 3) * math.sqrt(
            2 / (9 * self.in_channels)
        )
        # Each output cell sees two input cells along a side; which of the three taps fall onto which of the two.
        spread = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        with torch.no_grad():
            self.weight.copy_(spread @ kernel @ spread.T)
            assert self.bias is not None
            self.bias.zero_()


def halvings_of(n_mels: int, frames: int) -> int:
    """How often both sides of a map are halved until the shorter has 4 to 7 cells; at least once.

    Raises:
        ValueError: fewer than 2 bands or frames.
    """
    if min(n_mels, frames) < 2:
        raise ValueError(f"expected 2 or more bands and frames, got {n_mels} and {frames}")
    return max(1, int(math.log2(min(n_mels, frames) / LEAST_SIDE)))


def _limited(x: Tensor) -> Tensor:
    """Clamped to ±1, with the gradient of the unclamped: what went too far can come back."""
    return x.clamp(-1, 1).detach() + (x - x.detach())
