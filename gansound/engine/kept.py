"""What a run keeps on the disk: its checkpoints, and the models that inference loads.

The newest checkpoints are kept, that of the best validation, and those at multiples of `keep_every`. `model/` is the
newest model, `best/` the best one. Training stands while a state is copied in memory, and goes on while the copy is
written; of a large state each process copies and writes a share.
"""

import contextlib
import copy
import functools
import json
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from gansound import __version__
from gansound.engine.beside import Beside
from gansound.engine.card import write_card
from gansound.engine.checkpoint import (
    checkpoints,
    newest_whole,
    prune,
    set_aside,
    step_of,
    sweep,
    tensors_of,
    write,
)
from gansound.engine.lock import RunLock
from gansound.engine.own_files import read_own
from gansound.engine.plan import Plan
from gansound.engine.start import model_of
from gansound.engine.state import RunState
from gansound.model_folder import model_info, save_model_folder

log = logging.getLogger(__name__)

_APART = timedelta(minutes=10)
"""The longest that processes may be apart in writing their shares of a checkpoint."""


class Best:
    """The lowest score of a validation, and when it was.

    Args:
        of: what is validated on, by its fingerprint; scores of something else aren't compared with.
    """

    def __init__(self, of: str = "") -> None:
        self.of = of
        self.score, self.step = math.inf, 0
        self.before: float | None = None
        """The score before the first step."""

    def improves(self, step: int, score: float) -> bool:
        """Whether this one is lower than all before it; remembers it then."""
        if not score < self.score:
            return False
        self.score, self.step = score, step
        return True

    def has_waited(self, step: int, validate_every: int, patience: int) -> bool:
        """Whether so many validations up to a step brought no better one."""
        return self.step > 0 and step - self.step >= patience * validate_every

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step, "before": self.before, "of": self.of}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("of", self.of) == self.of:
            self.score, self.step, self.before = state["score"], int(state["step"]), state.get("before")
        elif state["step"]:
            log.warning(
                "it isn't validated on what it was (other held-out sounds, another mel or pitch of them, or another "
                "validate_utterances): best/, of step %d, is compared no more, and the next validation takes its place",
                state["step"],
            )


class Kept:
    """The checkpoints and models of a run's folder; its main process writes all but the others' shares.

    Args:
        plan: of the run.
        folder: of the run.
        accelerator: says which process this is.
        generator: the one that is validated and shipped.
        state: all that a checkpoint holds.
        best: whose step is kept.
        corpus: how much the model learns from, for its card.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        accelerator: Accelerator,
        generator: nn.Module,
        state: RunState,
        best: Best,
        corpus: Mapping[str, Any],
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.accelerator = accelerator
        self.generator = generator
        self.state = state
        self.best = best
        self.corpus = dict(corpus)
        self.lock: RunLock | None = None
        """Of the folder, while this process has it."""
        self._beside = Beside()
        self._writers = None
        if accelerator.num_processes > 1:  # apart from training's sums, which go on meanwhile
            self._writers = torch.distributed.new_group(backend="gloo", timeout=_APART)

    def save(self, step: int) -> None:
        """Begin to write a checkpoint and the newest model, in all processes; they are there when `written` ends.

        Raises:
            OSError: those before can't be written.
        """
        accelerator, settings = self.accelerator, self.plan.settings
        if accelerator.is_main_process and self.lock is not None:
            self.lock.check()
        self._beside.take_turn()
        share = self.state.stage(step, accelerator.process_index, accelerator.num_processes)
        if share.rank >= 1 and share.writers == 1:
            return
        folder, best = self.folder / "checkpoints", copy.copy(self.best)
        # Here, where no step is under way that could have left something of itself in the net.
        twin = self._twin if share.rank == 0 else None

        def work() -> None:
            path = write(share, folder, None if share.writers == 1 else self._gather)
            if twin is not None:
                prune(folder, settings.keep_checkpoints, {best.step}, settings.keep_every)
                self._save_model("model", step, twin, self._take_up(twin, path), best)

        self._beside.start(f"the checkpoint of step {step}", work)

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Behind it, all that was saved in it is on the disk.

        Raises:
            OSError: it can't be.
        """
        try:
            yield
        except BaseException:
            self._beside.abandon()
            raise
        self._beside.wait()

    def check(self) -> None:
        """Raise what became of a checkpoint that is written beside training."""
        self._beside.check()

    def save_model(self, name: str, step: int, figures: Mapping[str, Any] | None = None) -> None:
        """`model` or `best`, with the discriminators to fine-tune it with."""
        judges = self.plan.task.discriminator.state_dict()
        self._save_model(name, step, self.generator, judges, self.best, figures)

    def _save_model(
        self,
        name: str,
        step: int,
        generator: nn.Module,
        discriminators: Mapping[str, Tensor],
        best: Best,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        task, settings = self.plan.task, self.plan.settings
        shipped, config = task.shipped(generator, self.plan.recipe["generator"])
        about: dict[str, Any] = {"gansound": __version__, "steps": step, "seed": settings.seed}
        if settings.init_from is not None:
            about |= {"init_from": settings.init_from, "corpus": self.corpus}
            about |= {key: value for key, value in self._origin.items() if key in ("origin", "licence")}
        if settings.data.one_shots is not None:
            # What a set of its sounds is to be compared with must be prepared as what it was trained on.
            about["data"] = {k: v for k, v in self.plan.recipe["data"].items() if k != "path"}
        else:  # by which `gansound evaluate` makes the split again, where the corpus doesn't say its own
            about["held_out"] = {"valid": settings.data.valid, "test": settings.data.test}
        save_model_folder(
            self.folder / name,
            shipped,
            task.takes,
            config=config,
            info=about | dict(figures or {}),
            discriminators=discriminators,
        )
        if settings.init_from is not None and task.mel is not None:
            write_card(self.folder / name, about, task.mel, best)

    def _take_up(self, twin: nn.Module, checkpoint: Path) -> Mapping[str, Tensor]:
        """Let a generator be that of a checkpoint, whose shares others have written; the discriminators of it."""
        average = "generator_average" in self.state
        found = tensors_of(checkpoint, "generator_average" if average else "generator")
        weights = {name.removeprefix("module."): value for name, value in found.items()} if average else found
        twin.load_state_dict({name: weights[name] for name in twin.state_dict()})
        return tensors_of(checkpoint, "discriminator") if "discriminator" in self.state else {}

    @functools.cached_property
    def _twin(self) -> nn.Module:
        """The generator once more, in the computer's memory."""
        return copy.deepcopy(self.generator).cpu()

    def _gather(self, mine: dict[str, Any]) -> list[dict[str, Any]]:
        everyone: list[Any] = [None] * self.accelerator.num_processes
        torch.distributed.all_gather_object(everyone, mine, group=self._writers)
        return everyone

    @functools.cached_property
    def _origin(self) -> Mapping[str, Any]:
        """What the model that the run started from says of itself; where it is gone, what the run's own does."""
        name = self.plan.settings.init_from
        assert name is not None
        try:
            return model_info(model_of(name))
        except ValueError:
            return _info(self.folder / "model")

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
        self._beside.wait()
        step = -1
        if accelerator.is_main_process:
            sweep(folder)
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
    step = _info(path).get("steps")
    return step if isinstance(step, int) else None


def _info(path: Path) -> Mapping[str, Any]:
    try:
        info = json.loads(read_own(path / "config.json"))["info"]
        return info if isinstance(info, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
