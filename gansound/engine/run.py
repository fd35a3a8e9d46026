"""The loop of a run: draw a batch, two phases, average, write down, and stop at the last step.

A run lives in a folder: `recipe.yaml` as resolved, `metrics.jsonl`, `sessions.jsonl`, `tensorboard/`, `checkpoints/`,
and `model/`, which inference loads. Started again with the same folder it goes on from its newest checkpoint, and on a
CPU it ends with the weights of a run that was never interrupted: every draw is a function of the position alone.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gansound import __version__
from gansound.engine.average import moving_average
from gansound.engine.checkpoint import RunState, checkpoints, prune
from gansound.engine.feed import Feed
from gansound.engine.folder import check_same_recipe, write_beside
from gansound.engine.guards import DiscriminatorGuard, NonFiniteLoss, TrainingError
from gansound.engine.log import RunLog
from gansound.engine.phases import Phases
from gansound.engine.plan import Plan
from gansound.engine.schedule import factor, set_learning_rate
from gansound.engine.trackers import check_trackers
from gansound.model_folder import save_model_folder
from gansound.recipe import RecipeError, to_yaml

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever shows it."""

    step: int
    steps: int
    figures: Mapping[str, float]
    audio_seconds_per_second: float
    seconds_left: float


Observer = Callable[[Progress], None]


class Run:
    """A plan carried out in a folder.

    Args:
        plan: the recipe as objects.
        folder: of the run; one that holds a run is resumed.

    Raises:
        RecipeError: the folder holds a run of another recipe, or the batch can't be dealt to the processes.
        ValueError: the corpus can't be opened or holds nothing to train on.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.settings = plan.settings
        self.task = plan.task
        check_same_recipe(folder / "recipe.yaml", plan.recipe)
        check_trackers(self.settings.trackers)
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        # Autocast is ours to enter (phases), whatever `accelerate launch` was told. Buffers are constants, and
        # broadcasting them would change in place what a backward pass has yet to read.
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision="no",
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        ranks, parts = self.accelerator.num_processes, self.settings.micro_batches
        if self.settings.batch_size % (ranks * parts):
            raise RecipeError(
                f"batch_size {self.settings.batch_size} must be a multiple of {ranks} processes times "
                f"micro_batches {parts}"
            )
        if self.task.over_batch and ranks > 1:
            raise RecipeError(
                f"adversarial: its loss or a discriminator compares all items of a batch, which {ranks} processes "
                "don't see together; train on one"
            )
        self.feed = Feed(self.settings, self.task)
        self.task.to(self.accelerator.device)
        clip_norm = {"generator": self.settings.generator_optimization.clip_norm}
        if self.settings.discriminator_optimization is not None:
            clip_norm["discriminator"] = self.settings.discriminator_optimization.clip_norm
        self.phases = Phases(
            self.task,
            self.accelerator,
            plan.optimizers,
            self.settings.precision,
            clip_norm,
            self.settings.seed,
        )
        self.guard = DiscriminatorGuard()
        self.best = Best()
        self.latest = Latest()
        self.average = self._average()
        self.state = self._register()

    @property
    def generator(self) -> nn.Module:
        """The one that is validated and shipped: the average, where the recipe has one."""
        return self.task.generator if self.average is None else self.average.module

    def fit(self, observe: Observer | None = None) -> None:
        """Train to the last step.

        Raises:
            TrainingError: a loss is not finite; the message says what to do.
            OSError: a full disk; checkpoints already written stay good.
            ValueError: the processes see different folders, or a checkpoint was cut.
        """
        start = self._resume()
        steps = self.settings.steps
        if start >= steps:
            if self.accelerator.is_main_process and steps_of_model(self.folder / "model") != start:
                self._save_model("model", start)  # a run was killed after its last checkpoint and before this
            log.info("%s: all %d steps are done; raise --steps to go on", self.folder, start)
            return
        with self._log(start) if self.accelerator.is_main_process else nullcontext() as run_log:
            if start == 0 and run_log is not None and (figures := self._validate(0, run_log)):
                run_log.scalars(0, figures)
            self._loop(start, run_log, observe)

    def _log(self, start: int) -> RunLog:
        about = {"processes": self.accelerator.num_processes, "precision": self.settings.precision}
        return RunLog(
            self.folder, start, trackers=self.settings.trackers, recipe=self.plan.recipe, about=about
        )

    def _loop(self, start: int, run_log: RunLog | None, observe: Observer | None) -> None:
        settings = self.settings
        batches = self.feed.batches(
            start,
            rank=self.accelerator.process_index,
            ranks=self.accelerator.num_processes,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        begun = last = time.perf_counter()
        waited = 0.0
        segment_seconds = settings.data.segment_samples / self.task.sample_rate
        for step in range(start, settings.steps):
            before = time.perf_counter()
            rounds = [next(batches) for _ in range(self.task.critic_steps)]
            waited += time.perf_counter() - before
            figures = self._step(step, rounds)
            self.latest.figures |= figures
            done = step + 1
            if run_log is not None:
                run_log.step = done
            record: dict[str, float] = {}
            if run_log is not None and (done % settings.log_every == 0 or done == settings.steps):
                now = time.perf_counter()
                count = done % settings.log_every or settings.log_every
                seconds = (now - last) / min(count, done - start)
                timing = {"step_seconds": seconds, "data_share": waited / (now - last)}
                record = self.latest.figures | timing
                last, waited = now, 0.0
            if observe is not None and run_log is not None:
                pace = (time.perf_counter() - begun) / (done - start)
                rate = settings.batch_size * self.task.critic_steps * segment_seconds / pace
                observe(Progress(done, settings.steps, figures, rate, pace * (settings.steps - done)))
            self.guard.watch(done, figures)
            if settings.validate_every is not None and (
                done % settings.validate_every == 0 or done == settings.steps
            ):
                before = time.perf_counter()
                record |= self._validate(done, run_log)
                paused = time.perf_counter() - before  # no part of a step
                last, begun = last + paused, begun + paused
            if run_log is not None and record:
                run_log.scalars(done, record)
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                self._save(done)

    def _step(self, step: int, rounds: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
        for side, how in (
            ("generator", self.settings.generator_optimization),
            ("discriminator", self.settings.discriminator_optimization),
        ):
            if side in self.plan.optimizers and how is not None:
                by = factor(how.schedule, step, self.settings.steps)
                set_learning_rate(self.plan.optimizers[side], by)
        adversarial = "discriminator" in self.plan.optimizers and step >= self.settings.adversarial_from
        try:
            figures = self.phases.step(
                [self._micro_batches(batch) for batch in rounds], adversarial=adversarial, step=step
            )
        except NonFiniteLoss as error:
            names = sorted({self.feed.file(i) for batch in rounds for i in batch["record"].tolist()})
            raise TrainingError(
                f"step {step + 1}: {error}. Its batch came from {', '.join(names)}. Nothing was written; start the "
                "command again to go on from the last checkpoint, with a lower learning rate or a clip_norm if it "
                "happens again, with precision fp32 if it is bf16, and without those files if it is always they"
            ) from error
        self.task.observe(figures, len(rounds) * self.settings.batch_size)
        if self.average is not None:
            self.average.update_parameters(self.task.generator)
        figures["learning_rate"] = self.plan.optimizers["generator"].param_groups[0]["lr"]
        return figures

    def _micro_batches(self, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        placed = {name: value.to(self.accelerator.device) for name, value in batch.items()}
        parts = self.settings.micro_batches
        size = len(placed["audio"]) // parts
        return [
            {name: value[i * size : (i + 1) * size] for name, value in placed.items()} for i in range(parts)
        ]

    def _validate(self, step: int, run_log: RunLog | None) -> dict[str, float]:
        if run_log is None or not self.feed.valid_records or self.settings.validate_every is None:
            return {}
        sounds, labels = self.feed.held_out
        generator, was_training = self.generator, self.generator.training
        try:
            figures, examples = self.task.validate(
                generator.eval(), sounds, self.accelerator.device, labels=labels
            )
        finally:
            generator.train(was_training)
        run_log.examples(step, examples[:4])
        if figures:
            log.info("step %d, held out: %s", step, ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        if step and (trouble := self.task.trouble(figures)):
            log.warning("step %d: %s", step, trouble)
        score = self.task.score(figures)
        if step and score is not None and self.best.improves(step, score):
            self._save_model("best", step, {"validation": figures})
        return {f"valid/{name}": value for name, value in figures.items()}

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        folder = self.folder / "checkpoints"
        self.state.save(folder, step)
        prune(folder, self.settings.keep_checkpoints)
        self._save_model("model", step)

    def _save_model(self, name: str, step: int, figures: Mapping[str, Any] | None = None) -> None:
        """`model/` is the newest and `best/` the best that a validation has seen."""
        generator, config = self.task.shipped(self.generator, self.plan.recipe["generator"])
        about: dict[str, Any] = {"gansound": __version__, "steps": step, "seed": self.settings.seed}
        if self.settings.data.one_shots is not None:
            # What a set of its sounds is to be compared with must be prepared as what it was trained on.
            about["data"] = {k: v for k, v in self.plan.recipe["data"].items() if k != "path"}
        save_model_folder(
            self.folder / name, generator, self.task.mel, config=config, info=about | dict(figures or {})
        )

    def _resume(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoints(self.folder / "checkpoints")
        if self.accelerator.is_main_process:
            write_beside(self.folder / "recipe.yaml", to_yaml(self.plan.recipe))
        step = self.state.load(found[-1]) if found else 0
        if self.accelerator.num_processes > 1:
            steps = self.accelerator.gather(torch.tensor([step], device=self.accelerator.device))
            if int(steps.min()) != int(steps.max()):
                raise ValueError(
                    f"{self.folder}: the processes would start from steps {', '.join(map(str, steps.tolist()))}; "
                    "the run's folder must be one that all of them see, on a shared file system"
                )
        if found:
            log.info("resuming %s from step %d", self.folder, step)
        return step

    def _register(self) -> RunState:
        state = RunState()
        state.register("generator", self.task.generator)
        state.register("generator_optimizer", self.plan.optimizers["generator"])
        if self.average is not None:
            state.register("generator_average", self.average)
        if "discriminator" in self.plan.optimizers:
            state.register("discriminator", self.task.discriminator)
            state.register("discriminator_optimizer", self.plan.optimizers["discriminator"])
            state.register("discriminator_guard", self.guard)
        if self.task.memory is not None:
            state.register("task", self.task.memory)
        state.register("best", self.best)
        state.register("latest", self.latest)
        return state

    def _average(self) -> AveragedModel | None:
        decay = self.settings.ema_decay
        if decay is None:
            return None
        return AveragedModel(self.task.generator, multi_avg_fn=moving_average(decay))


def steps_of_model(path: Path) -> int | None:
    """The step at which a run's model folder was written."""
    try:
        step: int = json.loads((path / "config.json").read_text())["info"]["steps"]
        return step
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Latest:
    """The last value of each figure, since a lazy penalty has one in some steps only."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def state_dict(self) -> dict[str, float]:
        return dict(self.figures)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.figures = dict(state)


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
