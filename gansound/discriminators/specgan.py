"""SpecGAN's discriminator: a log-mel to one logit.

Donahue, McAuley and Puckette, "Adversarial Audio Synthesis", ICLR 2019, arXiv 1802.04208, section 3.2: DCGAN's over
(bands, frames). Departures: see `gansound.generators.specgan`; kernels of 4 in place of 5, their stride dividing them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as parametrized_spectral_norm

from gansound.discriminators.heads import Dense, Head, Projection
from gansound.mel import MelSpec
from gansound.mel.levels import Levels
from gansound.nn.activation import leaky_relu
from gansound.precision import full_precision

NEGATIVE_SLOPE = 0.2
LEAST_SIDE = 4  # cells along the shorter side of the last map


class SpecGANDiscriminator(nn.Module):
    """Strided convolutions that halve the sides and double the width, then a head over all that is left.

    The sides are halved until the shorter has 4 to 7 cells. Values are first brought to ±1 by the convention's own
    range (`gansound.mel.levels`), so it takes what `SpecGANGenerator` makes and what a waveform's mel is alike.

    A waveform that learns from it wants a mel with a floor near what can be heard, 60 dB under full scale
    (`{preset: hifigan, floor: 1.0e-2}`). The slope of the logarithm is the inverse of the magnitude: with a floor of
    1e-5 the gradient at a silent tail is a thousand times that at the attack, with 1e-2 it is the smaller of the two.

    Args:
        mel: the convention of what it judges.
        frames: length of a clip in frames.
        dim: width after the first layer.
        labels: names of the classes; none by default.
        head: how features become logits; a projection where there are labels, else one dense logit. Without labels
            any other is unused.
        spectral_norm: divide every weight by its largest singular value (Miyato et al., arXiv 1802.05957).
        minibatch_deviation: a further channel before the last convolution says how much the features differ over the
            batch, which a collapsed generator can't hide (Karras et al., arXiv 1710.10196, section 3). It couples the
            items: a batch in parts, by accumulation or over processes, is then judged otherwise than whole.

    Attributes:
        labels: names of the classes; () when it does nothing with them.
        class_logits: logits behind the first, one for each class, of an auxiliary classifier; else 0.
        shuffle_layers, phase_shuffle: 0, it shifts no features.
        bounds_lipschitz: its layers are bounded by spectral norm.
        over_batch: it compares the items of a batch, by `minibatch_deviation`.

    Shape:
        log-mel `(B, n_mels, frames)` → one list: feature maps `(B, C, H, W)`, the last being `(B, 1 + class_logits)`.

    Raises:
        ValueError: a size that isn't positive, fewer than 2 bands or frames, or spectral norm beside
            `minibatch_deviation`, which no norm of weights bounds.
    """

    shuffle_layers = 0
    phase_shuffle = 0

    def __init__(
        self,
        mel: MelSpec,
        frames: int = 64,
        dim: int = 64,
        labels: Sequence[str] = (),
        head: Head | None = None,
        spectral_norm: bool = False,
        minibatch_deviation: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1 or min(mel.n_mels, frames) < 2:
            raise ValueError(
                "expected dim 1 or more, and 2 or more bands and frames, got "
                f"dim={dim}, {mel.n_mels} bands and {frames} frames"
            )
        if spectral_norm and minibatch_deviation:
            raise ValueError(
                "spectral_norm bounds how fast the logit changes and minibatch_deviation breaks that bound; set one"
            )
        classes = len(labels)
        if head is None:
            head = Projection() if classes else Dense()
        elif not classes and head.needs_labels:
            head = Dense()
        self.mel, self.frames = mel, frames
        self.takes_labels = head.takes_labels
        self.class_logits = head.class_logits(classes)
        self.labels = tuple(labels) if self.takes_labels or self.class_logits else ()
        self.bounds_lipschitz = spectral_norm
        self.minibatch_deviation = self.over_batch = minibatch_deviation
        self.levels = Levels(mel)
        rows, columns, widths = mel.n_mels, frames, [1]
        while len(widths) == 1 or min(rows, columns) >= 2 * LEAST_SIDE:
            rows, columns = rows // 2, columns // 2
            widths.append(dim * 2 ** (len(widths) - 1))
        inputs = list(widths[:-1])
        inputs[-1] += minibatch_deviation
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in zip(inputs, widths[1:], strict=True)
        )
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, NEGATIVE_SLOPE)
            nn.init.zeros_(layer.bias)
        self.head = head.layer(widths[-1] * rows * columns, classes)
        if spectral_norm:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    parametrized_spectral_norm(module)

    def forward(
        self, x: Tensor, labels: Tensor | None = None, shifts: Tensor | None = None
    ) -> list[list[Tensor]]:
        """Judge.

        Args:
            x: log-mel `(B, n_mels, frames)`.
            labels: `(B,)` int64, where it takes them; else unused.
            shifts: unused, it shuffles no phase.

        Raises:
            ValueError: other shapes than these.
        """
        self._check(x, labels)
        x = self.levels.unit(x).unsqueeze(1)
        maps = []
        for number, layer in enumerate(self.layers, start=1):
            if self.minibatch_deviation and number == len(self.layers):
                x = torch.cat([x, _deviation(x)], 1)
            x = leaky_relu(layer(x), NEGATIVE_SLOPE)
            maps.append(x)
        maps.append(self.head(x.flatten(1), labels))
        return [maps]

    def _check(self, x: Tensor, labels: Tensor | None) -> None:
        if x.dim() != 3 or x.shape[1:] != (self.mel.n_mels, self.frames):
            raise ValueError(
                f"expected a log-mel of shape (batch, {self.mel.n_mels} bands, {self.frames} frames), got "
                f"{tuple(x.shape)}"
            )
        if self.takes_labels and (labels is None or labels.shape != x.shape[:1]):
            got = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise ValueError(f"expected a label for each of {len(x)} clips, got {got}")


def _deviation(x: Tensor) -> Tensor:
    """The standard deviation over the batch, averaged over features. Shape: `(B, C, H, W)` → `(B, 1, H, W)`."""
    full = full_precision(x)
    deviation = (full.var(0, unbiased=False) + 1e-8).sqrt().mean()
    return deviation.to(x.dtype).expand(len(x), 1, *x.shape[2:])
