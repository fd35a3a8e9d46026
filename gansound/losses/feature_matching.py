"""Feature matching: the generator's waveform should excite the discriminators as the real one does.

Larsen et al., arXiv 1512.09300; for waveforms Kumar et al., "MelGAN", arXiv 1910.06711.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gansound.precision import full_precision

Convention = Literal["melgan", "sum"]


def feature_matching(
    real: Sequence[Sequence[Tensor]],
    fake: Sequence[Sequence[Tensor]],
    convention: Convention = "melgan",
) -> Tensor:
    """Mean absolute difference of each feature map, weighted and summed; the real maps get no gradient.

    There are two published ways of weighting. With MelGAN's three discriminators a map counts 0.27 by the
    first and 1 by the second, so a recipe that changes the convention must change the coefficient too:

    - "melgan": the logits are left out; each map counts 4 / (n_layers + 1), n_layers being the downsampling
      convolutions, two fewer than the maps that count; and each sub-discriminator 1 / their number
      (descriptinc/melgan-neurips, coefficient 10);
    - "sum": every map counts 1, the logits too (jik876/hifi-gan, coefficient 2).

    Shape:
        over sub-discriminators, over layers: maps `(B, ...)`, the last being the logits → scalar, float32.

    Raises:
        ValueError: another convention; or when a discriminator has fewer than two maps before the logits, for "melgan".
    """
    if convention not in get_args(Convention):
        raise ValueError(f"convention is {' or '.join(get_args(Convention))}, got {convention!r}")
    terms = []
    for real_maps, fake_maps in zip(real, fake, strict=True):
        weight = 1.0
        if convention == "melgan":
            if len(real_maps) < 3:
                raise ValueError(
                    "MelGAN's weighting of feature matching needs two or more maps before the logits, got "
                    f'{len(real_maps)} maps in all; use convention "sum"'
                )
            real_maps, fake_maps = real_maps[:-1], fake_maps[:-1]
            weight = 4 / (len(real_maps) - 1) / len(real)
        terms += [
            weight * (full_precision(b) - full_precision(a.detach())).abs().mean()
            for a, b in zip(real_maps, fake_maps, strict=True)
        ]
    return torch.stack(terms).sum()


class FeatureMatching(nn.Module):
    """`feature_matching` as a recipe names it.

    Args:
        convention: whose weighting, "melgan" or "sum".
    """

    def __init__(self, convention: Convention = "melgan") -> None:
        super().__init__()
        self.convention: Convention = convention

    def forward(self, real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
        """See `feature_matching`."""
        return feature_matching(real, fake, self.convention)
