"""Gradients over processes: by DDP, and of small networks in one message that other work needn't wait for.

DDP sends a bucket of gradients while backward makes the next. A network that fills none has nothing to send meanwhile:
each of its backward passes ends with a wait, and with a walk over all parameters.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

_SMALL_BYTES = 1 << 20  # DDP's first bucket


def over_processes(accelerator: Accelerator, module: nn.Module) -> nn.Module:
    """The module on its device, begun with the first process's weights and learning with all processes' gradients."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() * parameter.element_size() for parameter in learning)
    if accelerator.num_processes == 1 or not learning or size > _SMALL_BYTES:
        prepared: nn.Module = accelerator.prepare_model(module)
        return prepared
    return OneMessage(
        accelerator.prepare_model(module, evaluation_mode=True), learning, accelerator.num_processes
    )


class OneMessage(nn.Module):
    """A module whose gradients are averaged over processes when that is asked for, after the backward pass.

    Args:
        module: the same in all processes but for its weights, which become the first one's.
        learning: its parameters that learn; in each step the same ones have a gradient in all processes.
        processes: how many there are.
    """

    def __init__(self, module: nn.Module, learning: list[nn.Parameter], processes: int) -> None:
        super().__init__()
        self.module = module
        self.sends = True
        self._learning = learning
        self._processes = processes
        with torch.no_grad():
            for state in module.state_dict().values():
                first = state.contiguous()
                torch.distributed.broadcast(first, 0)
                state.copy_(first)

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients stay in their process: `sends` is false."""
        self.sends = False
        try:
            yield
        finally:
            self.sends = True

    def send(self, figures: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
        """Begin to average the gradients, and figures, scalars, that travel with them.

        Returns:
            What waits for them: the gradients are then the averages, and so are the figures that it returns.
        """
        learnt = [parameter for parameter in self._learning if parameter.grad is not None]
        pieces = [parameter.grad.flatten() for parameter in learnt if parameter.grad is not None]
        message = torch.cat([*pieces, *(figure.flatten() for figure in figures)]).mul_(1 / self._processes)
        work = torch.distributed.all_reduce(message, async_op=True)

        def arrived() -> Sequence[Tensor]:
            work.wait()
            parts = message.split([*(piece.numel() for piece in pieces), *(1 for _ in figures)])
            for parameter, part in zip(learnt, parts, strict=False):
                parameter.grad = part.view(parameter.shape)
            return [part[0] for part in parts[len(pieces) :]]

        return arrived
