"""WaveGAN's discriminator: a whole clip to one logit.

Donahue, McAuley and Puckette, "Adversarial Audio Synthesis", ICLR 2019, arXiv 1802.04208, appendix D; longer clips,
padding and initial weights as published in chrisdonahue/wavegan.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as parametrized_spectral_norm

from gansound.discriminators.heads import Dense, Head, Projection
from gansound.nn.activation import leaky_relu
from gansound.nn.attention import attention_after
from gansound.nn.phase_shuffle import draw_shifts, phase_shuffle
from gansound.nn.same_conv import SameConv1d, clip_strides

NEGATIVE_SLOPE = 0.2
SHUFFLED_LAYERS = 4  # of the published nets, however many layers they have


class WaveGANDiscriminator(nn.Module):
    """Strided convolutions, the width doubling from one to the next, then a head over all that is left.

    Args:
        clip_samples: length of a clip; see `gansound.nn.same_conv.clip_strides`.
        channels: of the waveform.
        dim: width after the first layer.
        phase_shuffle: the most samples by which each of the first four layers' features are shifted; 0 for none.
        kernel_size: taps of the convolutions, 4 or more.
        labels: names of the classes; none by default.
        head: how features become logits; a projection where there are labels, else one dense logit. Without labels
            any other is unused.
        concatenate_labels: give the label as further channels of the input, one for each class, 1 throughout where
            it is the item's and 0 elsewhere (Mirza and Osindero, arXiv 1411.1784); the head is then dense by default.
        spectral_norm: divide every weight by its largest singular value (Miyato et al., arXiv 1802.05957).
        attention: layers that self-attention follows, counted from 1.

    Attributes:
        labels: names of the classes; () when it does nothing with them.
        class_logits: logits behind the first, one for each class, of an auxiliary classifier; else 0.
        shuffle_layers: layers whose features are shifted.
        phase_shuffle: the most samples of a shift.
        bounds_lipschitz: its layers are bounded by spectral norm.

    Shape:
        `(B, channels, clip_samples)` → one list: feature maps `(B, C, T')`, the last being `(B, 1 + class_logits)`.

    Raises:
        ValueError: a clip length that the layers can't take, a size that isn't positive, shifts as long as the
            features, an attention beyond the layers.
    """

    def __init__(
        self,
        clip_samples: int = 16384,
        channels: int = 1,
        dim: int = 64,
        phase_shuffle: int = 2,
        kernel_size: int = 25,
        labels: Sequence[str] = (),
        head: Head | None = None,
        concatenate_labels: bool = False,
        spectral_norm: bool = False,
        attention: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if min(channels, dim) < 1 or phase_shuffle < 0:
            raise ValueError(
                "channels and dim must be positive and phase_shuffle 0 or more, got "
                f"{channels}, {dim}, {phase_shuffle}"
            )
        strides = clip_strides(clip_samples)
        shortest = clip_samples // math.prod(strides[:SHUFFLED_LAYERS])
        if phase_shuffle >= shortest:
            raise ValueError(
                f"phase_shuffle must be less than the {shortest} samples that {clip_samples} are after "
                f"{SHUFFLED_LAYERS} layers, got {phase_shuffle}"
            )
        classes = len(labels)
        if head is None:
            head = Projection() if classes and not concatenate_labels else Dense()
        elif not classes and head.needs_labels:
            head = Dense()
        self.channels, self.clip_samples = channels, clip_samples
        self.phase_shuffle = phase_shuffle
        self.shuffle_layers = SHUFFLED_LAYERS if phase_shuffle else 0
        self.label_channels = classes if concatenate_labels else 0
        self.takes_labels = self.label_channels > 0 or head.takes_labels
        self.class_logits = head.class_logits(classes)
        self.labels = tuple(labels) if self.takes_labels or self.class_logits else ()
        self.bounds_lipschitz = spectral_norm
        widths = [dim * 2**i for i in range(len(strides))]
        self.layers = nn.ModuleList(
            SameConv1d(before, after, kernel_size, stride=stride)
            for before, after, stride in zip(
                [channels + self.label_channels, *widths], widths, strides, strict=False
            )
        )
        self.attention = attention_after(attention, widths)
        self.head = head.layer(clip_samples // math.prod(strides) * widths[-1], classes)
        if spectral_norm:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv1d | nn.Linear | nn.Embedding):
                    parametrized_spectral_norm(module)

    def forward(
        self, x: Tensor, labels: Tensor | None = None, shifts: Tensor | None = None
    ) -> list[list[Tensor]]:
        """Judge.

        Args:
            x: waveform `(B, channels, clip_samples)`.
            labels: `(B,)` int64, where it takes them; else unused.
            shifts: of phase shuffle, `(B, shuffle_layers)` int64 in ±phase_shuffle. Without, training mode draws them
                from torch's generator and eval mode shifts nothing.

        Raises:
            ValueError: other shapes than these.
        """
        self._check(x, labels, shifts)
        if shifts is None and self.training and self.shuffle_layers:
            shifts = draw_shifts(len(x), self.shuffle_layers, self.phase_shuffle, x.device)
        if self.label_channels and labels is not None:
            planes = F.one_hot(labels, self.label_channels).to(x.dtype)
            x = torch.cat([x, planes[:, :, None].expand(-1, -1, x.shape[2])], 1)
        maps = []
        for number, layer in enumerate(self.layers):
            x = leaky_relu(layer(x), NEGATIVE_SLOPE)
            if str(number + 1) in self.attention:
                x = self.attention[str(number + 1)](x)
            maps.append(x)
            if shifts is not None and number < self.shuffle_layers:
                x = phase_shuffle(x, shifts[:, number])
        maps.append(self.head(x.transpose(1, 2).flatten(1), labels))  # columns first, as TensorFlow flattens
        return [maps]

    def _check(self, x: Tensor, labels: Tensor | None, shifts: Tensor | None) -> None:
        if x.dim() != 3 or x.shape[1:] != (self.channels, self.clip_samples):
            raise ValueError(
                f"expected a waveform of shape (batch, {self.channels}, {self.clip_samples}), got {tuple(x.shape)}"
            )
        if self.takes_labels and (labels is None or labels.shape != x.shape[:1]):
            got = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise ValueError(f"expected a label for each of {len(x)} clips, got {got}")
        if shifts is not None and shifts.shape != (len(x), self.shuffle_layers):
            raise ValueError(
                f"expected shifts of shape ({len(x)}, {self.shuffle_layers}), got {tuple(shifts.shape)}"
            )
