"""One step of a GAN: the discriminators learn on what the generator made, then the generator learns from them.

One forward pass of the generator serves both phases (Goodfellow et al., arXiv 1406.2661, alternate in the same
order): the discriminators see it detached, the generator is then judged on the same output by the discriminators
just updated, which are frozen meanwhile. What the first phase found out about the real batch serves the second, as in
melgan-neurips. With several critic steps (WGAN) all but the last see batches of their own.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from gansound.draw import Draws
from gansound.engine.gradients import OneMessage, over_processes
from gansound.engine.guards import NonFiniteLoss
from gansound.engine.restoring import WAYS
from gansound.engine.task import Precision, Task, Verdict
from gansound.precision import full_precision
from gansound.sections import section

log = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]

_LEAST_SCALE = 2.0**-10
"""Of fp16's losses: gradients that overflow even so are not a matter of precision."""
_SMALL_ELEMENTS = 4096
"""Of a parameter, on average: a processor updates larger ones quicker one by one, while they are in its cache."""


class Phases:
    """The two phases over a task's networks.

    Args:
        task: says what the losses are.
        accelerator: places the networks, averages gradients over processes.
        optimizers: `generator` and, with discriminators, `discriminator`.
        precision: `bf16` and `fp16` run the networks under autocast, `fp16` with scaled losses.
        clip_norm: by side, the largest gradient norm, or None.
        seed: of every draw.
        compiled: `torch.compile` the networks, for one constant shape each; `graphs` has a GPU replay them as CUDA
            graphs, too.
    """

    def __init__(
        self,
        task: Task,
        accelerator: Accelerator,
        optimizers: Mapping[str, Optimizer],
        precision: str = "fp32",
        clip_norm: Mapping[str, float | None] | None = None,
        seed: int = 0,
        compiled: bool | str = False,
    ) -> None:
        self.task = task
        self.accelerator = accelerator
        self.optimizers = optimizers
        self.clip_norm = clip_norm or {}
        self.seed = seed
        self._half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # One for each side: where one overflows, the other's scale is none of its business.
        self.scalers = {
            side: torch.amp.GradScaler(accelerator.device.type, enabled=precision == "fp16")
            for side in optimizers
        }
        self._graphs = compiled == "graphs"
        self._lost: Tensor | None = None
        generator = task.generator
        if compiled:
            mode = "reduce-overhead" if self._graphs else None
            # The generator's own module stays as it is, for validation at other lengths; a discriminator has none.
            generator = torch.compile(generator, dynamic=False, mode=mode)  # type: ignore[assignment]
            for name, network in task.discriminator.items():
                if name in task.twice_differentiated:
                    log.info(
                        "discriminator %r isn't compiled: a penalty differentiates its gradients again", name
                    )
                else:
                    network.compile(dynamic=False, mode=mode)
        self.generator = over_processes(accelerator, generator)
        judges: nn.Module = _Judges(task, self._precision)
        # Where nothing of them learns there are no gradients for DDP to sum, which it refuses.
        self.judges = over_processes(accelerator, judges) if "discriminator" in optimizers else judges
        # Walking through all modules in each step would cost the processor more than the update does.
        self._learning = {
            side: [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for side, optimizer in optimizers.items()
        }
        for optimizer in optimizers.values():
            fuse(optimizer)
            keep_its_way(optimizer)

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
            NonFiniteLoss: a gradient is not a number, in all processes alike; no weight has been changed by its phase.
        """
        figures: dict[str, Tensor] = {}
        adversarial = adversarial and self.task.judged(step)
        self._lost = None
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the graphs made in the last step may be written over
        last = rounds[-1]
        verdicts: list[Any] = [None] * len(last)
        learnt: Callable[[], object] = _nothing
        with contextlib.ExitStack() as stack:
            for batch in rounds if adversarial else [last]:
                # While the gradients of the round before are on their way: they change nothing of the generator.
                kept = self._kept(batch, teaches=batch is last)
                learnt()
                if adversarial:
                    verdicts, learnt = self._discriminator_phase(batch, kept, figures, step, len(rounds))
            learnt()
            if adversarial:
                stack.enter_context(frozen(self._learning["discriminator"]))
            travelled = self._generator_phase(last, kept, verdicts, figures, step)
        with section("bookkeeping"):
            values = torch.stack([value.float() for value in figures.values()])
            if self.accelerator.num_processes > 1 and not travelled:
                with section("figures over processes"):
                    values = self.accelerator.reduce(values, "mean")
            told = dict(zip(figures, values.tolist(), strict=True))  # the one place where the processor waits
        if any(not math.isfinite(told.get(f"gradient_norm/{side}", 0.0)) for side in self.optimizers):
            raise NonFiniteLoss(told)
        return told

    def _kept(self, micro_batches: Sequence[Batch], *, teaches: bool) -> list[Tensor] | None:
        """What the generator makes of a round, with its graph for the round that it learns in.

        With several micro-batches keeping every graph would keep the memory they are there to save: None.
        """
        if len(micro_batches) > 1:
            return None
        with torch.set_grad_enabled(teaches):
            return [self._generate(micro_batches[0])]

    def _discriminator_phase(
        self,
        micro_batches: Sequence[Batch],
        kept: list[Tensor] | None,
        figures: dict[str, Tensor],
        step: int,
        rounds: int,
    ) -> tuple[list[Any], Callable[[], object]]:
        """Of each micro-batch what the generator's phase needs to know, and what waits for gradients and updates."""
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
                with section("discriminator losses"):
                    verdict: Verdict = self.judges(batch, fake, self._draws(batch), step)
                self._backward("discriminator", verdict.losses, figures, parts, rounds)
            for name, figure in verdict.figures.items():
                accumulate(figures, name, shared(figure, parts * rounds))
            verdicts.append(verdict.kept)
        arrived = self._sent(self.judges, {})

        def learnt() -> None:
            arrived()
            with section("discriminator optimizer"):
                self._update("discriminator", figures)
                self.task.constrain()

        return verdicts, learnt

    def _generator_phase(
        self,
        micro_batches: Sequence[Batch],
        kept: list[Tensor] | None,
        verdicts: Sequence[Any],
        figures: dict[str, Tensor],
        step: int,
    ) -> bool:
        """Returns whether the figures are those of all processes already."""
        self.optimizers["generator"].zero_grad(set_to_none=True)
        for i, batch in enumerate(micro_batches):
            with self._sync(self.generator, last=i == len(micro_batches) - 1):
                fake = self._generate(batch) if kept is None else kept[i]
                with section("adversarial losses"):
                    losses = self.task.generator_phase(
                        batch, fake, verdicts[i], self._draws(batch), step, self._precision
                    )
                self._backward("generator", losses, figures, len(micro_batches))
        travelled = self._sent(self.generator, figures)()
        with section("generator optimizer"):
            self._update("generator", figures)
        return travelled

    def _sent(self, module: nn.Module, figures: dict[str, Tensor]) -> Callable[[], bool]:
        """Send a small network's gradients; what waits for them puts into the figures those of all processes.

        It says whether it did: of one process, and by DDP, there is nothing left to wait for.
        """
        if not isinstance(module, OneMessage) or not module.sends:
            return _nothing
        with section("gradients over processes"):
            arrived = module.send([value.float() for value in figures.values()])

        def put() -> bool:
            with section("gradients over processes"):
                figures.update(zip(figures, arrived(), strict=True))
            return True

        return put

    def _generate(self, batch: Batch) -> Tensor:
        with section("conditioning"):
            inputs = self.task.generator_inputs(batch, self._draws(batch))
        with section("generator forward"), self._precision():
            fake: Tensor = self.generator(*inputs)
            return full_precision(fake)

    def _draws(self, batch: Batch) -> Draws:
        return Draws(self.seed, batch["position"].tolist(), self.accelerator.device)

    def _backward(
        self, side: str, losses: Mapping[str, Tensor], figures: dict[str, Tensor], parts: int, rounds: int = 1
    ) -> None:
        total = torch.stack([self.task.weights[name] * loss for name, loss in losses.items()]).sum()
        for name, loss in losses.items():
            accumulate(figures, name, shared(loss.detach(), parts * rounds))
        with section(f"{side} backward"):
            self.accelerator.backward(self.scalers[side].scale(shared(total, parts)))

    def _update(self, side: str, figures: dict[str, Tensor]) -> None:
        optimizer, scaler = self.optimizers[side], self.scalers[side]
        scaler.unscale_(optimizer)
        learning, limit = self._learning[side], self.clip_norm.get(side)
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(learning, limit, norm)
        # The gradients are summed over processes: what is not a number in one is none in any, so all decide alike.
        if skips_by_itself(optimizer) and not scaler.is_enabled():
            # The GPU decides, and says so at the end of the step. Once lost, nothing more of the step is learnt.
            lost = ~torch.isfinite(norm)
            self._lost = lost if self._lost is None else self._lost | lost
            optimizer.found_inf = self._lost.float()  # type: ignore[attr-defined]
            figures[f"gradient_norm/{side}"] = norm.masked_fill(self._lost, torch.nan)
            optimizer.step()
            return
        if torch.isfinite(norm):
            figures[f"gradient_norm/{side}"] = norm
        else:
            self._check_overflow(side, figures, norm)
        scaler.step(optimizer)  # under fp16 none where the scaled gradients overflowed
        scaler.update()
        if scaler.is_enabled():
            figures[f"loss_scale/{side}"] = norm.new_tensor(scaler.get_scale())

    def _check_overflow(self, side: str, figures: Mapping[str, Tensor], norm: Tensor) -> None:
        """Let fp16's scaler find a smaller scale where that can help; raises NonFiniteLoss where it can't."""
        values = {name: value.item() for name, value in figures.items()}
        lost = torch.tensor(
            float(not all(map(math.isfinite, values.values()))), device=self.accelerator.device
        )
        if self.accelerator.num_processes > 1:
            lost = self.accelerator.reduce(lost, "sum")
        scaler = self.scalers[side]
        if not scaler.is_enabled() or lost > 0 or scaler.get_scale() <= _LEAST_SCALE:
            self.optimizers[side].zero_grad(set_to_none=True)
            if scaler.is_enabled():
                scaler.update()
            raise NonFiniteLoss(values | {f"gradient_norm/{side}": norm.item()})

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, self._half, enabled=self._half is not None)

    def _sync(self, module: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.accelerator.no_sync(module)


def _nothing() -> bool:
    return False


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
def frozen(parameters: Iterable[nn.Parameter]) -> Any:
    """They take no gradients inside, which saves computing them."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def fuse(optimizer: Optimizer) -> None:
    """Let an optimizer update all parameters together, where it can and no other way was asked for.

    Made as it is before its parameters are placed, it can't choose by itself. On a GPU in a few kernels: unfused it
    takes a dozen and a walk over all parameters, and must be told by the processor whether to skip a step. Small ones
    of a processor list by list, to the bit as one by one, without most of the walk.
    """
    group = optimizer.defaults
    if (
        group.get("fused", True) is not None
        or group.get("foreach", True) is not None
        or group.get("differentiable")
    ):
        return
    tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not all(tensor.is_floating_point() for tensor in tensors):
        return
    devices = {tensor.device.type for tensor in tensors}
    if devices == {"cuda"}:
        way = "fused"
        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]
    elif devices == {"cpu"} and sum(tensor.numel() for tensor in tensors) <= _SMALL_ELEMENTS * len(tensors):
        way = "foreach"
    else:
        return
    for group in (optimizer.defaults, *optimizer.param_groups):
        group[way] = True


def keep_its_way(optimizer: Optimizer) -> None:
    """Let it go on as now after a checkpoint is loaded, which may be of another machine.

    torch would take over the way in which the checkpoint's updated, and place by it what it counts.
    """
    ways = [{way: group[way] for way in WAYS if way in group} for group in optimizer.param_groups]

    def keep(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [group | own for group, own in zip(state["param_groups"], ways, strict=True)]
        return state | {"param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(keep)


def skips_by_itself(optimizer: Optimizer) -> bool:
    """Whether it updates nothing where its `found_inf` is 1, without asking the processor: a fused one."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def shared(value: Tensor, parts: int) -> Tensor:
    """A part's share in a mean."""
    return value if parts == 1 else value / parts


def accumulate(figures: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Add to a figure, or begin it."""
    figures[name] = figures[name] + value if name in figures else value
