"""Learning rate as a function of the step, so that nothing of it needs to be saved."""

import math
from collections.abc import Iterator

from torch.optim import Optimizer

from gansound.engine.settings import RunSettings, Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at `step` (from 0) of `steps`."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    held = schedule.warmup_steps + schedule.constant_steps
    since = max(0, step - held)
    if schedule.decay == "cosine":
        progress = min(1.0, since / max(1, steps - held))
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    if schedule.decay == "exponential":
        return max(schedule.final, schedule.gamma ** (since // schedule.gamma_steps))
    return 1.0


def idle_warmups(settings: RunSettings) -> Iterator[str]:
    """What is to be said of warm-ups that a run doesn't come to the end of, or that end before there is what learns."""
    steps, joins = settings.steps, settings.adversarial_from
    sides = {"generator": settings.generator_optimization}
    if settings.discriminator_optimization is not None and joins < steps:
        sides["discriminator"] = settings.discriminator_optimization
    for side, how in sides.items():
        warmup = how.schedule.warmup_steps
        key = f"{side}_optimization.schedule.warmup_steps"
        if warmup >= steps:
            most = factor(how.schedule, steps - 1, steps)
            yield (
                f"{key}: {warmup}, and the run ends at step {steps}: its last step has {most:.2g} of the learning rate"
            )
        elif side == "discriminator" and 0 < warmup <= joins:
            yield (
                f"{key}: {warmup}, counted from the run's first step, are over when the discriminators join at step "
                f"{joins} (adversarial_from), which begin with the whole learning rate"
            )


def set_learning_rate(optimizer: Optimizer, by: float) -> None:
    """Each group's own rate, kept as `initial_lr` when the optimizer was made, times `by`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * by
