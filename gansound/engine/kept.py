"""What a run keeps on the disk: its checkpoints, and the models that inference loads.

The newest checkpoints are kept, that of the best validation, and those at multiples of `keep_every`. `model/` is the
newest model, `best/` the best one.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from gansound import __version__
from gansound.engine.checkpoint import RunState, checkpoints, newest_whole, prune, set_aside, step_of
from gansound.engine.lock import RunLock
from gansound.engine.own_files import read_own
from gansound.engine.plan import Plan
from gansound.model_folder import save_model_folder


class Best:
    """The lowest score of a validation, and when it was."""

    def __init__(self) -> None:
        self.score, self.step = math.inf, 0

    def improves(self, step: int, score: float) -> bool:
        """Whether this one is lower than all before it; remembers it then."""
        if not score < self.score:
            return False
        self.score, self.step = score, step
        return True

    def state_dict(self) -> dict[str, float]:
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.score, self.step = state["score"], int(state["step"])


class Kept:
    """The checkpoints and models of a run's folder, which its main process writes.

    Args:
        plan: of the run.
        folder: of the run.
        accelerator: says which process this is.
        generator: the one that is validated and shipped.
        state: all that a checkpoint holds.
        best: whose step is kept.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        accelerator: Accelerator,
        generator: nn.Module,
        state: RunState,
        best: Best,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.accelerator = accelerator
        self.generator = generator
        self.state = state
        self.best = best
        self.lock: RunLock | None = None
        """Of the folder, while this process has it."""

    def save(self, step: int) -> None:
        """A checkpoint and the newest model."""
        if not self.accelerator.is_main_process:
            return
        if self.lock is not None:
            self.lock.check()
        folder, settings = self.folder / "checkpoints", self.plan.settings
        self.state.save(folder, step)
        prune(folder, settings.keep_checkpoints, {self.best.step}, settings.keep_every)
        self.save_model("model", step)

    def save_model(self, name: str, step: int, figures: Mapping[str, Any] | None = None) -> None:
        """`model` or `best`, with the discriminators to fine-tune it with."""
        task, settings = self.plan.task, self.plan.settings
        generator, config = task.shipped(self.generator, self.plan.recipe["generator"])
        about: dict[str, Any] = {"gansound": __version__, "steps": step, "seed": settings.seed}
        if settings.init_from is not None:
            about["init_from"] = settings.init_from
        if settings.data.one_shots is not None:
            # What a set of its sounds is to be compared with must be prepared as what it was trained on.
            about["data"] = {k: v for k, v in self.plan.recipe["data"].items() if k != "path"}
        save_model_folder(
            self.folder / name,
            generator,
            task.mel,
            config=config,
            info=about | dict(figures or {}),
            discriminators=task.discriminator.state_dict(),
        )

    def finish(self, step: int) -> None:
        """Write the model of the last step where a run was killed after its checkpoint and before its model."""
        if self.accelerator.is_main_process and steps_of_model(self.folder / "model") != step:
            self.save_model("model", step)

    def load(self, step: int) -> None:
        """Go to a checkpoint.

        Raises:
            ValueError: it is another run's, or cut.
        """
        self.state.load(self._path(step))

    def set_aside(self, step: int) -> None:
        """Let a checkpoint be one no longer."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            set_aside(self._path(step))

    def newest(self) -> int | None:
        """The step of the newest checkpoint that is whole, the same in all processes; torn newer ones are set aside.

        Raises:
            ValueError: the processes see different folders.
        """
        folder, accelerator = self.folder / "checkpoints", self.accelerator
        step = -1
        if accelerator.is_main_process:
            found = newest_whole(folder)
            step = -1 if found is None else step_of(found)
            for newer in checkpoints(folder):
                if step_of(newer) > step:
                    set_aside(newer)
        if accelerator.num_processes > 1:
            step = int(broadcast(torch.tensor([step], device=accelerator.device))[0])
            seen = [step_of(path) for path in checkpoints(folder)]
            same = torch.tensor([float(seen[-1:] == [step] or (step < 0 and not seen))])
            if accelerator.reduce(same.to(accelerator.device), "sum") < accelerator.num_processes:
                raise ValueError(
                    f"{self.folder}: the processes see different checkpoints; this one "
                    f"{f'has step {seen[-1]}' if seen else 'has none'}, the main one "
                    f"{step if step >= 0 else 'none'}. The run's folder must be one that all of them see, on a shared "
                    "file system"
                )
        return None if step < 0 else step

    def _path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step_{step:08d}"


def steps_of_model(path: Path) -> int | None:
    """The step at which a run's model folder was written."""
    try:
        step: int = json.loads(read_own(path / "config.json"))["info"]["steps"]
        return step
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
