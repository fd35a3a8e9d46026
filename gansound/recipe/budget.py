"""How large a net may be that a recipe or a model folder describes, known while it is built and before it fills memory.

A layer registers its weights before it draws their first values, and memory that nobody has written to isn't taken
yet; so whoever counts at the registration is told of 30,000 channels by their number alone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)


@contextmanager
def budget(most_bytes: int, most_tensors: int, limit: str) -> Iterator[None]:
    """Within it, this thread builds no more than so much.

    Args:
        most_bytes: of parameters and buffers.
        most_tensors: parameters and buffers, and as many modules.
        limit: where that comes from, for the message.

    Raises:
        ValueError: it was more.
    """
    thread = threading.get_ident()
    total = tensors = modules = 0

    def count(module: nn.Module, name: str, tensor: object) -> None:
        nonlocal total, tensors
        if threading.get_ident() != thread or not hasattr(tensor, "element_size"):
            return
        total += tensor.numel() * tensor.element_size()  # type: ignore[attr-defined]
        tensors += 1
        if total > most_bytes:
            raise ValueError(
                f"weights of over {total / 2**20:,.0f} MiB, expected at most {most_bytes / 2**20:,.0f} MiB ({limit}); "
                "make it smaller"
            )
        if tensors > most_tensors:
            raise ValueError(f"over {most_tensors:,} tensors of weights, {limit}; take fewer layers")

    def count_modules(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        nonlocal modules
        if threading.get_ident() != thread:
            return
        modules += 1
        if modules > most_tensors:
            raise ValueError(f"over {most_tensors:,} layers, {limit}; take fewer")

    handles = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
        register_module_module_registration_hook(count_modules),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
