"""WaveGAN's generator: a latent to a whole clip.

Donahue, McAuley and Puckette, "Adversarial Audio Synthesis", ICLR 2019, arXiv 1802.04208, appendix D; longer clips,
padding and initial weights as published in chrisdonahue/wavegan.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.generators.latent import LatentGenerator
from gansound.generators.prior import Prior, Uniform
from gansound.nn.attention import attention_after
from gansound.nn.conditioning import Concatenation, Conditioner, Conditioning
from gansound.nn.same_conv import SameTransposedConv1d, clip_strides


class WaveGANGenerator(LatentGenerator):
    """A dense layer makes a few columns of many channels; each transposed convolution makes 4 samples of one.

    The width halves from layer to layer down to `dim`. A clip of 16384 samples takes five layers from 16 columns, one
    of 8192 the same five from 8, one of 32768 or 65536 a sixth of stride 2 or 4 (`gansound.nn.same_conv.clip_strides`).

    Args:
        clip_samples: length of a clip, a multiple of 1024 up to 16384, of 2048 up to 32768, of 4096 from there on.
        channels: of the waveform.
        dim: width before the last layer.
        prior: what latents are drawn from; 100 uniform values by default.
        kernel_size: taps of the transposed convolutions, 4 or more.
        sample_rate: of the clips in Hz; the net doesn't depend on it.
        post_filter_samples: length of a learnt filter over each channel of the finished clip (the paper's, section
            3.4, has 512); none by default. Behind it the clip may exceed ±1.
        labels: names of the classes; none by default.
        conditioner: how a label enters; an embedding beside the latent by default. Unused without labels.
        attention: layers that self-attention follows, counted from 1; the last is the waveform and has none.

    Shape:
        latents `(B, prior.dim)`, labels `(B,)` int64 → `(B, channels, clip_samples)`.

    Raises:
        ValueError: a clip length that the layers can't make, a size that isn't positive, an attention beyond the
            layers.
    """

    def __init__(
        self,
        clip_samples: int = 16384,
        channels: int = 1,
        dim: int = 64,
        prior: Prior | None = None,
        kernel_size: int = 25,
        sample_rate: int = 16000,
        post_filter_samples: int | None = None,
        labels: Sequence[str] = (),
        conditioner: Conditioner | None = None,
        attention: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if min(channels, dim, sample_rate) < 1 or (
            post_filter_samples is not None and post_filter_samples < 1
        ):
            raise ValueError(
                "channels, dim, sample_rate and post_filter_samples must be positive, got "
                f"{channels}, {dim}, {sample_rate}, {post_filter_samples}"
            )
        strides = clip_strides(clip_samples)
        widths = [dim * 2**i for i in reversed(range(len(strides)))]
        self.prior = prior or Uniform()
        self.labels = tuple(labels)
        self.sample_rate, self.channels, self.clip_samples = sample_rate, channels, clip_samples
        self.conditioning: Conditioning | None = None
        if self.labels:
            self.conditioning = (conditioner or Concatenation()).layers(len(self.labels), widths)
        beside = self.conditioning.values if self.conditioning is not None else 0
        columns = clip_samples // math.prod(strides)
        self.dense = nn.Linear(self.prior.dim + beside, columns * widths[0])
        nn.init.xavier_uniform_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.layers = nn.ModuleList(
            SameTransposedConv1d(before, after, kernel_size, stride=stride)
            for before, after, stride in zip(widths, [*widths[1:], channels], strides, strict=True)
        )
        self.attention = attention_after(attention, widths[1:])
        self.post_filter = None if post_filter_samples is None else PostFilter(channels, post_filter_samples)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Shape: latents `(B, prior.dim)`, labels `(B,)` int64 → `(B, channels, clip_samples)`."""
        self.check_inputs(latents, labels)
        if self.conditioning is not None and labels is not None:
            latents = self.conditioning.latents(latents, labels)
        first: SameTransposedConv1d = self.layers[0]  # type: ignore[assignment]
        # Columns first, then channels, as TensorFlow flattens.
        x = self.dense(latents).unflatten(1, (-1, first.in_channels)).transpose(1, 2)
        for number, layer in enumerate(self.layers):
            if self.conditioning is not None and labels is not None:
                x = self.conditioning.features(x, labels, number)
            x = F.relu(x)
            if str(number) in self.attention:
                x = self.attention[str(number)](x)
            x = layer(x)
        x = x.tanh()
        return x if self.post_filter is None else self.post_filter(x)


class PostFilter(nn.Module):
    """A learnt filter over the finished clip, each channel its own, without bias.

    Args:
        channels: of the clip.
        samples: taps.

    Shape:
        `(B, channels, T)` → the same.
    """

    def __init__(self, channels: int, samples: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, 1, samples)))

    def forward(self, x: Tensor) -> Tensor:
        reach = self.weight.shape[-1] - 1
        padded = F.pad(x, (reach // 2, reach - reach // 2))
        return F.conv1d(padded, self.weight, groups=x.shape[1])
