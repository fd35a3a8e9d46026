"""One step of a GAN: the discriminators learn on what the generator made, then the generator learns from them.

One forward pass of the generator serves both phases (Goodfellow et al., arXiv 1406.2661, alternate in the same
order): the discriminators see it detached, the generator is then judged on the same output by the discriminators
just updated, which are frozen meanwhile. The features of the real batch from the first phase serve feature matching
in the second, as in melgan-neurips.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from gansound.engine.guards import NonFiniteLoss
from gansound.engine.task import Features, Task

Batch = Mapping[str, Any]


class Phases:
    """The two phases over a task's networks.

    Args:
        task: says what the losses are.
        accelerator: places the networks, sums gradients over processes.
        optimizers: `generator` and, with discriminators, `discriminator`.
        precision: `bf16` runs the networks under autocast.
        clip_norm: by side, the largest gradient norm, or None.
    """

    def __init__(
        self,
        task: Task,
        accelerator: Accelerator,
        optimizers: Mapping[str, Optimizer],
        precision: str = "fp32",
        clip_norm: Mapping[str, float | None] | None = None,
    ) -> None:
        self.task = task
        self.accelerator = accelerator
        self.optimizers = optimizers
        self.clip_norm = clip_norm or {}
        self.generator: nn.Module = accelerator.prepare_model(task.generator)
        judges: nn.Module = _Judges(task.discriminator)
        # Without discriminators there are no gradients for DDP to sum, which it refuses.
        self.judges = accelerator.prepare_model(judges) if task.discriminator else judges
        self.frozen_judges: nn.Module = accelerator.unwrap_model(self.judges)
        self._autocast = precision == "bf16"

    def step(self, micro_batches: Sequence[Batch], *, adversarial: bool) -> dict[str, float]:
        """One update of each side; the unweighted losses and figures of the step, by name, over all processes.

        Raises:
            NonFiniteLoss: a loss or a gradient is not a number; no weight has been changed by its phase.
        """
        figures: dict[str, Tensor] = {}
        with contextlib.ExitStack() as stack:
            # With several micro-batches keeping every graph would keep the memory they are there to save.
            kept = [self._generate(batch) for batch in micro_batches] if len(micro_batches) == 1 else None
            real_features: list[dict[str, Features]] = [{} for _ in micro_batches]
            if adversarial:
                real_features = self._discriminator_phase(micro_batches, kept, figures)
                stack.enter_context(frozen(self.frozen_judges))
            self._generator_phase(micro_batches, kept, real_features, figures)
        values = torch.stack([value.float() for value in figures.values()])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        return dict(zip(figures, values.tolist(), strict=True))

    def _discriminator_phase(
        self, micro_batches: Sequence[Batch], kept: list[Tensor] | None, figures: dict[str, Tensor]
    ) -> list[dict[str, Features]]:
        real_features: list[dict[str, Features]] = []
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        for i, batch in enumerate(micro_batches):
            if kept is None:
                with torch.no_grad():
                    fake = self._generate(batch)
            else:
                fake = kept[i].detach()
            with self._sync(self.judges, last=i == len(micro_batches) - 1):
                with self._precision():
                    # One forward pass for both, since DDP allows one a backward.
                    both = self.judges(torch.cat([self.task.real(batch), fake]))
                real, made = halves(both)
                losses = self.task.discriminator_losses(real, made)
                self._backward(losses, figures, len(micro_batches))
            for name in real:
                wins = [(r[-1] > f[-1]).float().mean() for r, f in zip(real[name], made[name], strict=True)]
                accumulate(
                    figures, f"discriminator_wins/{name}", torch.stack(wins).mean() / len(micro_batches)
                )
            real_features.append({n: [[m.detach() for m in maps] for maps in real[n]] for n in real})
        self._update("discriminator", self.judges, figures)
        return real_features

    def _generator_phase(
        self,
        micro_batches: Sequence[Batch],
        kept: list[Tensor] | None,
        real_features: list[dict[str, Features]],
        figures: dict[str, Tensor],
    ) -> None:
        self.optimizers["generator"].zero_grad(set_to_none=True)
        for i, batch in enumerate(micro_batches):
            with self._sync(self.generator, last=i == len(micro_batches) - 1):
                fake = self._generate(batch) if kept is None else kept[i]
                made: dict[str, Features] = {}
                if real_features[i]:
                    with self._precision():
                        made = self.frozen_judges(fake)
                    made = all_widened(made)
                losses = self.task.generator_losses(fake, self.task.real(batch), made, real_features[i])
                self._backward(losses, figures, len(micro_batches))
        self._update("generator", self.generator, figures)

    def _generate(self, batch: Batch) -> Tensor:
        condition = self.task.condition(batch)
        with self._precision():
            fake: Tensor = self.generator(condition)
        return widened(fake)

    def _backward(self, losses: Mapping[str, Tensor], figures: dict[str, Tensor], parts: int) -> None:
        total = torch.stack([self.task.weights[name] * loss for name, loss in losses.items()]).sum() / parts
        for name, loss in losses.items():
            accumulate(figures, name, loss.detach() / parts)
        if not torch.isfinite(total):
            raise NonFiniteLoss({name: loss.item() for name, loss in losses.items()})
        self.accelerator.backward(total)

    def _update(self, side: str, module: nn.Module, figures: dict[str, Tensor]) -> None:
        limit = self.clip_norm.get(side)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), torch.inf if limit is None else limit)
        if not torch.isfinite(norm):
            raise NonFiniteLoss({f"gradient_norm/{side}": norm.item()})
        figures[f"gradient_norm/{side}"] = norm
        self.optimizers[side].step()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self._autocast)

    def _sync(self, module: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.accelerator.no_sync(module)


class _Judges(nn.Module):
    """All discriminators as one module: one DDP wrapper, one forward pass."""

    def __init__(self, networks: nn.ModuleDict) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, audio: Tensor) -> dict[str, Features]:
        return {name: network(audio) for name, network in self.networks.items()}


def widened(x: Tensor) -> Tensor:
    """What autocast made in half precision, in fp32; a run in double stays in double."""
    return x if x.dtype == torch.float64 else x.float()


def halves(features: dict[str, Features]) -> tuple[dict[str, Features], dict[str, Features]]:
    """The maps of the first and of the second half of a batch, as the losses want them."""
    pairs = {name: [[widened(m).chunk(2) for m in maps] for maps in subs] for name, subs in features.items()}
    first = {name: [[p[0] for p in maps] for maps in subs] for name, subs in pairs.items()}
    second = {name: [[p[1] for p in maps] for maps in subs] for name, subs in pairs.items()}
    return first, second


def all_widened(features: dict[str, Features]) -> dict[str, Features]:
    """The same maps as the losses want them."""
    return {name: [[widened(m) for m in maps] for maps in subs] for name, subs in features.items()}


@contextlib.contextmanager
def frozen(module: nn.Module) -> Any:
    """Its parameters take no gradients inside, which saves computing them."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def accumulate(figures: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Add to a figure, or begin it."""
    figures[name] = figures[name] + value if name in figures else value
