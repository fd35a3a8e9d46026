"""Ways between latents."""

import torch
from torch import Tensor


def lerp(a: Tensor, b: Tensor, at: Tensor) -> Tensor:
    """The straight line `(1 − t) a + t b`.

    Shape:
        a, b `(L,)`, at `(k,)` → `(k, L)`.
    """
    t = at.to(a)[:, None]
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, at: Tensor) -> Tensor:
    """The great circle from the direction of `a` to that of `b`, at constant speed, the length going straight.

    Latents of a normal prior lie near a sphere, which a straight line leaves: between two of 100 values its middle is
    nearer to the centre than any draw. White, "Sampling Generative Networks", arXiv 1609.04468. Where there is no
    one great circle (parallel or opposite latents, or one of length 0), it is `lerp`.

    Shape:
        a, b `(L,)`, at `(k,)` → `(k, L)`.
    """
    lengths = torch.stack([a.double().norm(), b.double().norm()])
    if float(lengths.min()) == 0:
        return lerp(a, b, at)
    first, second = a.double() / lengths[0], b.double() / lengths[1]
    # The angle by both its sine and cosine: an arc cosine alone is blunt near 0 and π.
    angle = 2 * torch.atan2((first - second).norm(), (first + second).norm())
    if float(angle.sin()) < 1e-6:
        return lerp(a, b, at)
    t = at.double()[:, None]
    direction = (((1 - t) * angle).sin() * first + (t * angle).sin() * second) / angle.sin()
    return (direction * ((1 - t) * lengths[0] + t * lengths[1])).to(a.dtype)


def attribute(liked: Tensor, others: Tensor) -> Tensor:
    """What one set of sounds has that another lacks: the difference of the means of their latents.

    Radford, Metz and Chintala (DCGAN), arXiv 1511.06434, section 6.3.2.

    Shape:
        `(n, L)`, `(m, L)` → `(L,)`.

    Raises:
        ValueError: an empty set.
    """
    if not len(liked) or not len(others):
        raise ValueError(f"expected sounds on both sides, got {len(liked)} and {len(others)}")
    return liked.mean(0) - others.mean(0)
