"""Where a model runs."""

import torch


def choose_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; CUDA where there is one, else the CPU, for None.

    Raises:
        ValueError: torch knows no such device, or this machine lacks it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        here = ["cpu", *(f"cuda:{i}" for i in range(count))]
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device {str(name)!r}: {reason}. Here there is {', '.join(here)}") from None
    if device.type == "meta":
        raise ValueError("device 'meta' holds no values; take cpu or cuda")
    return device
