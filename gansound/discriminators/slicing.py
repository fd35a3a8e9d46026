"""A head that slices features where real and generated ones lie furthest apart: the slicing adversarial network.

Takida et al., "SAN: Inducing Metrizability of GAN with Discriminative Normalized Linear Layer", ICLR 2024, arXiv
2301.12811, section 5, equation 10; for vocoders Shibuya et al., "BigVSAN", arXiv 2309.02836. A discriminator's last
layer is a direction of length 1, a length and a bias. The features, the length and the bias learn what any adversarial
loss asks; the direction learns from features that stand still to put real ones above generated ones.

A weight-normed last layer is already in these parts, so that every discriminator here takes a slicing head: it only
learns otherwise. What it computes is the same.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

_LENGTH, _DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"

Features = Sequence[Sequence[Tensor]]


def check_heads(network: nn.Module) -> None:
    """Raises ValueError unless a discriminator names its heads, and all of them are weight-normed."""
    heads = getattr(network, "heads", None)
    if not callable(heads):
        raise ValueError(
            f"{type(network).__name__} names no heads(), its last layers; it takes no slicing head"
        )
    for head in heads():
        if _LENGTH not in dict(head.named_parameters()):
            raise ValueError(
                f"a last layer of {type(network).__name__} isn't weight-normed; it takes no slicing head"
            )


def sliced_logits(network: nn.Module, maps: Features) -> tuple[list[Tensor], list[Tensor]]:
    """The logits again, once to learn everything but the direction from, and once the direction alone.

    Args:
        network: whose `heads()` are its weight-normed last layers, one for each sub-discriminator.
        maps: that it gave, the last hidden ones before the logits.
    """
    function, direction = [], []
    for head, features in zip(network.heads(), maps, strict=True):  # type: ignore[operator]
        own, columns = dict(head.named_parameters()), features[-1].shape[-1]
        still = {name: value.detach() for name, value in own.items()}
        value = functional_call(head, own | {_DIRECTION: still[_DIRECTION]}, (features[-2],))
        way = functional_call(head, still | {_DIRECTION: own[_DIRECTION]}, (features[-2].detach(),))
        function.append(value[..., :columns])
        direction.append(way[..., :columns])
    return function, direction
