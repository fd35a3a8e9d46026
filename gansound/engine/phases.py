"""One step of a GAN: the discriminators learn on what the generator made, then the generator learns from them.

One forward pass of the generator serves both phases (Goodfellow et al., arXiv 1406.2661, alternate in the same
order): the discriminators see it detached, the generator is then judged on the same output by the discriminators
just updated, which are frozen meanwhile. What the first phase found out about the real batch serves the second, as in
melgan-neurips. With several critic steps (WGAN) all but the last see batches of their own.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from gansound.draw import Draws
from gansound.engine.guards import NonFiniteLoss
from gansound.engine.task import Precision, Task, Verdict

Batch = Mapping[str, Tensor]


class Phases:
    """The two phases over a task's networks.

    Args:
        task: says what the losses are.
        accelerator: places the networks, sums gradients over processes.
        optimizers: `generator` and, with discriminators, `discriminator`.
        precision: `bf16` runs the networks under autocast.
        clip_norm: by side, the largest gradient norm, or None.
        seed: of every draw.
    """

    def __init__(
        self,
        task: Task,
        accelerator: Accelerator,
        optimizers: Mapping[str, Optimizer],
        precision: str = "fp32",
        clip_norm: Mapping[str, float | None] | None = None,
        seed: int = 0,
    ) -> None:
        self.task = task
        self.accelerator = accelerator
        self.optimizers = optimizers
        self.clip_norm = clip_norm or {}
        self.seed = seed
        self.generator: nn.Module = accelerator.prepare_model(task.generator)
        judges: nn.Module = _Judges(task, self._precision)
        # Without discriminators there are no gradients for DDP to sum, which it refuses.
        self.judges = accelerator.prepare_model(judges) if task.discriminator else judges
        self._autocast = precision == "bf16"

    def step(
        self, rounds: Sequence[Sequence[Batch]], *, adversarial: bool, step: int = 0
    ) -> dict[str, float]:
        """One update of the generator after one of the discriminators a round.

        Args:
            rounds: for each critic step its batch, in micro-batches; the generator learns on the last.
            adversarial: whether the discriminators take part.
            step: how many came before.

        Returns:
            The unweighted losses and figures of the step, by name, over all processes.

        Raises:
            NonFiniteLoss: a loss or a gradient is not a number; no weight has been changed by its phase.
        """
        figures: dict[str, Tensor] = {}
        with contextlib.ExitStack() as stack:
            if adversarial:
                for early in rounds[:-1]:
                    self._discriminator_phase(early, None, figures, step, len(rounds))
            last = rounds[-1]
            # With several micro-batches keeping every graph would keep the memory they are there to save.
            kept = [self._generate(batch) for batch in last] if len(last) == 1 else None
            verdicts: list[Any] = [None] * len(last)
            if adversarial:
                verdicts = self._discriminator_phase(last, kept, figures, step, len(rounds))
                stack.enter_context(frozen(self.task.discriminator))
            self._generator_phase(last, kept, verdicts, figures, step)
        values = torch.stack([value.float() for value in figures.values()])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        return dict(zip(figures, values.tolist(), strict=True))

    def _discriminator_phase(
        self,
        micro_batches: Sequence[Batch],
        kept: list[Tensor] | None,
        figures: dict[str, Tensor],
        step: int,
        rounds: int,
    ) -> list[Any]:
        verdicts = []
        parts = len(micro_batches)
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        for i, batch in enumerate(micro_batches):
            if kept is None:
                with torch.no_grad():
                    fake = self._generate(batch)
            else:
                fake = kept[i].detach()
            with self._sync(self.judges, last=i == parts - 1):
                verdict: Verdict = self.judges(batch, fake, self._draws(batch), step)
                self._backward(verdict.losses, figures, parts, rounds)
            for name, figure in verdict.figures.items():
                accumulate(figures, name, figure / (parts * rounds))
            verdicts.append(verdict.kept)
        self._update("discriminator", self.judges, figures)
        self.task.constrain()
        return verdicts

    def _generator_phase(
        self,
        micro_batches: Sequence[Batch],
        kept: list[Tensor] | None,
        verdicts: Sequence[Any],
        figures: dict[str, Tensor],
        step: int,
    ) -> None:
        self.optimizers["generator"].zero_grad(set_to_none=True)
        for i, batch in enumerate(micro_batches):
            with self._sync(self.generator, last=i == len(micro_batches) - 1):
                fake = self._generate(batch) if kept is None else kept[i]
                losses = self.task.generator_phase(
                    batch, fake, verdicts[i], self._draws(batch), step, self._precision
                )
                self._backward(losses, figures, len(micro_batches))
        self._update("generator", self.generator, figures)

    def _generate(self, batch: Batch) -> Tensor:
        inputs = self.task.generator_inputs(batch, self._draws(batch))
        with self._precision():
            fake: Tensor = self.generator(*inputs)
        # What autocast made in half precision, in fp32; a run in double stays in double.
        return fake if fake.dtype == torch.float64 else fake.float()

    def _draws(self, batch: Batch) -> Draws:
        return Draws(self.seed, batch["position"].tolist(), self.accelerator.device)

    def _backward(
        self, losses: Mapping[str, Tensor], figures: dict[str, Tensor], parts: int, rounds: int = 1
    ) -> None:
        total = torch.stack([self.task.weights[name] * loss for name, loss in losses.items()]).sum() / parts
        for name, loss in losses.items():
            accumulate(figures, name, loss.detach() / (parts * rounds))
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
    """The discriminators' whole phase as one module: one DDP wrapper, one forward pass, one backward.

    So a gradient penalty, which differentiates inside the forward pass, is summed over processes like any loss.
    """

    def __init__(self, task: Task, precision: Precision) -> None:
        super().__init__()
        self.networks = task.discriminator
        self._task = task
        self._precision = precision

    def forward(self, batch: Batch, fake: Tensor, draws: Draws, step: int) -> Verdict:
        return self._task.discriminator_phase(batch, fake, draws, step, self._precision)


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
