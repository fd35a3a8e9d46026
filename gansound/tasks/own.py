"""Classes of a user's own that a recipe names, tried on noise: what they lack is said by key before a file is read."""

import inspect
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def is_own(module: nn.Module) -> bool:
    """Whether a class isn't gansound's."""
    return type(module).__module__.partition(".")[0] != "gansound"


@contextmanager
def trying(key: str, module: nn.Module, given: str) -> Iterator[None]:
    """Inside, a module may be called: its buffers and torch's draws are afterwards as if it hadn't been.

    Args:
        key: of the module, in the recipe.
        module: to be called.
        given: with what, in words.

    Raises:
        ValueError: for whatever is raised inside, with the key in the recipe, the class, and where in its file.
    """
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    # By itself torch would begin with all GPUs.
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(gpus):
            yield
    except Exception as error:  # somebody's own may fail in any way
        kind = type(module)
        text = str(error).strip().splitlines()
        said = (
            text[0] if text and isinstance(error, ValueError) else f"{type(error).__name__}: {' '.join(text)}"
        )
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == inspect.getsourcefile(kind)
        ]
        where = f" (line {lines[-1]} of {inspect.getsourcefile(kind)})" if lines else ""
        raise ValueError(
            f"{key}: {kind.__module__}.{kind.__qualname__}, given {given}: {said}{where}"
        ) from error
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def try_loss(key: str, loss: nn.Module, fake: Tensor, real: Tensor) -> None:
    """Call a loss as a step does; its own parameters are frozen, with a warning, for nothing trains or saves them.

    Raises:
        ValueError: it fails, or gives no scalar that depends on the generated sounds.
    """
    with trying(key, loss, f"generated and real sounds {tuple(fake.shape)}"):
        fake = fake.clone().requires_grad_()
        value = loss(fake, real)
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            raise ValueError(f"it gave {_shown(value)}, expected a tensor of one number")
        if not value.requires_grad or torch.autograd.grad(value, fake, allow_unused=True)[0] is None:
            raise ValueError("what it gave has no gradient for the generated sounds, which come first")
    if learning := [p for p in loss.parameters() if p.requires_grad]:
        log.warning(
            "%s: %s has %s parameters of its own, which stay as they are: a loss judges, and what it has isn't trained "
            "or saved. What is to learn belongs into a discriminator",
            key,
            type(loss).__qualname__,
            f"{sum(p.numel() for p in learning):,}",
        )
        loss.requires_grad_(False)


def check_maps(maps: Any, items: int) -> None:
    """Raises ValueError unless a discriminator gave, over sub-discriminators, lists of maps, the batch first."""
    if (
        not isinstance(maps, Sequence)
        or not maps
        or not all(isinstance(one, Sequence) and one for one in maps)
    ):
        raise ValueError(
            f"it gave {_shown(maps)}, expected a list over sub-discriminators of lists of feature maps, the logits last"
        )
    wrong = [m for one in maps for m in one if not isinstance(m, Tensor) or m.ndim < 2 or len(m) != items]
    if wrong:
        raise ValueError(
            f"it gave a map of {_shown(wrong[0])} for a batch of {items}, expected (B, ...): batch first, then what "
            "each sound's maps hold"
        )


def check_shape(made: Any, shape: Sequence[int]) -> None:
    """Raises ValueError unless a generator gave a tensor of that shape."""
    if not isinstance(made, Tensor) or made.shape != torch.Size(shape):
        raise ValueError(f"it made {_shown(made)}, expected {tuple(shape)}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(map(_shown, value[:3]))}{', …' if len(value) > 3 else ''}"
    return f"a {type(value).__name__}"
