"""What a run does about a step that went wrong: leave it out, or go back to where all was well."""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator

from gansound.counts import counted
from gansound.engine.events import Events
from gansound.engine.guards import ADVICE, NonFiniteLoss, SkippedSteps, TrainingError
from gansound.engine.kept import Kept
from gansound.engine.rollbacks import Rollbacks
from gansound.engine.settings import GuardSettings


class Exploded(ArithmeticError):
    """A loss has left where it was, for good; `step` is how many were done."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Recovery:
    """Skips and goes back, in all processes alike.

    Args:
        guards: how often.
        accelerator: of the run.
        kept: its checkpoints.
        events: where it is written down.
        file: the path of a record that a batch names.
    """

    def __init__(
        self,
        guards: GuardSettings,
        accelerator: Accelerator,
        kept: Kept,
        events: Events,
        skipped: SkippedSteps,
        file: Callable[[int], str],
    ) -> None:
        self.guards = guards
        self.accelerator = accelerator
        self.kept = kept
        self.events = events
        self.skipped = skipped
        self.rollbacks = Rollbacks(kept.folder)
        self._file = file

    def skip(
        self, step: int, rounds: Sequence[dict[str, torch.Tensor]], error: NonFiniteLoss
    ) -> dict[str, float]:
        """Count a step whose gradients weren't finite, and write down its files.

        Raises:
            TrainingError: there were too many.
        """
        records = torch.cat([batch["record"] for batch in rounds]).to(self.accelerator.device)
        if self.accelerator.num_processes > 1:  # all of them are here: their gradients were one
            records = self.accelerator.gather(records)
        files = sorted({self._file(i) for i in records.tolist()})
        too_many = self.skipped.add(step)
        self.events.add(
            step, "skipped", f"nothing learnt, for {error}. See {ADVICE}#not-a-number", files=files
        )
        if too_many:
            raise TrainingError(
                f"step {step}: {error}; over {self.skipped.most} of the last 100 steps were like it. This batch came "
                f"from {', '.join(files)}; {self.kept.folder / 'events.jsonl'} has those of all. Start the command "
                "again to go on from the last checkpoint, without those files if it is always they; or begin another "
                "run from its weights (--init-from) with a lower learning rate or a clip_norm, with precision fp32 if "
                f"it is bf16 or fp16. See {ADVICE}#not-a-number"
            ) from error
        return {"skipped_steps": float(self.skipped.total)}

    def go_back(self, explosion: Exploded) -> int:
        """Go to the newest checkpoint, one before it where that failed before; the step it was written at.

        Raises:
            TrainingError: there is none, or the run went back too often.
        """
        target = self.kept.newest()
        if target is not None and self.rollbacks.went_back_to(target):
            self.kept.set_aside(target)
            target = self.kept.newest()
        end = (
            f"{explosion}. Begin another run from its weights (--init-from) with lower learning rates or a clip_norm, "
            f"and look at {ADVICE}#an-explosion"
        )
        if target is None:
            raise TrainingError(f"step {explosion.step}: {end}. There is no checkpoint from before it")
        if len(self.rollbacks) >= self.guards.max_rollbacks:
            raise TrainingError(
                f"step {explosion.step}: {end}. It has gone back {counted(len(self.rollbacks), 'time')}; the last good "
                f"checkpoint is that of step {target}"
            )
        self.rollbacks.add(explosion.step, target, write=self.accelerator.is_main_process)
        self.kept.load(target)
        self.events.add(
            target,
            "rollback",
            f"went back here from step {explosion.step}, since {explosion}, and on with other data. See "
            f"{ADVICE}#an-explosion",
            from_step=explosion.step,
        )
        return target
