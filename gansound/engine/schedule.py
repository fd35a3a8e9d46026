"""Learning rate as a function of the step, so that nothing of it needs to be saved."""

import math

from torch.optim import Optimizer

from gansound.engine.settings import Schedule


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


def set_learning_rate(optimizer: Optimizer, by: float) -> None:
    """Each group's own rate, kept as `initial_lr` when the optimizer was made, times `by`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * by
