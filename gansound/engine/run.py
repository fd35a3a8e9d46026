"""The loop of a run: draw a batch, two phases, average, write down, and stop at the last step.

A run lives in a folder: `recipe.yaml` as resolved, `metrics.jsonl`, `sessions.jsonl`, `tensorboard/`, `checkpoints/`,
and `model/`, which inference loads. Started again with the same folder it goes on from its newest checkpoint, and on a
CPU it ends with the weights of a run that was never interrupted: every draw is a function of the position alone.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from gansound.data.items import BOOKKEEPING
from gansound.draw import placed
from gansound.engine.average import MovingAverage
from gansound.engine.checkpoint import checkpoints
from gansound.engine.events import Events
from gansound.engine.feed import Feed
from gansound.engine.folder import as_the_run_says_it, check_same_recipe, identity, write_beside
from gansound.engine.guards import (
    ADVICE,
    DiscriminatorGuard,
    ExplosionGuard,
    NonFiniteLoss,
    SkippedSteps,
    StoppedError,
)
from gansound.engine.heartbeat import Heartbeat, beating
from gansound.engine.kept import Best, Kept
from gansound.engine.lock import RunLock
from gansound.engine.log import RunLog
from gansound.engine.memory import check_room, fit_to_memory
from gansound.engine.own_files import check_own
from gansound.engine.phases import Phases
from gansound.engine.plan import Plan
from gansound.engine.processes import done_by_one, failing_together, leave, said_by_one, set_up
from gansound.engine.recovery import Exploded, Recovery
from gansound.engine.schedule import factor, idle_warmups, set_learning_rate
from gansound.engine.start import start_from
from gansound.engine.state import RunState
from gansound.engine.trackers import check_trackers
from gansound.recipe import RecipeError, to_yaml
from gansound.sections import section

log = logging.getLogger(__name__)

_RISE = 1.5
_HEARD_WITHIN_STEPS = 10


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
        RecipeError: the folder holds a run of another recipe, the batch can't be dealt to the processes, the
            model to start from doesn't fit, or a class of the user's own does something else than is asked of it.
        ValueError: the corpus can't be opened or holds nothing to train on.
    """

    @said_by_one()
    def __init__(self, plan: Plan, folder: Path) -> None:
        check_own(folder)
        plan = replace(plan, recipe=as_the_run_says_it(folder / "recipe.yaml", plan.recipe))
        self.plan = plan
        self.folder = folder
        self.settings = plan.settings
        self.task = plan.task
        self._corpus_was = check_same_recipe(folder / "recipe.yaml", plan.recipe)
        check_trackers(self.settings.trackers)
        self.accelerator = set_up(self.settings, self.task)
        # Before the corpus is read, which may take long: a model that can't be had is known by its name.
        if self.settings.init_from is not None and not checkpoints(folder / "checkpoints"):
            start_from(self.settings.init_from, self.task, plan.allow)
        device = self.accelerator.device
        for part in (self.task, self.task.generator, self.task.discriminator):
            part.to(device)
        check_room(self.task, self.settings, self.accelerator.num_processes, device)
        try:
            self.task.try_own(self.settings.data.segment_samples, device)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        self.feed = Feed(self.settings, self.task, plan.corpus, partial(done_by_one, self.accelerator))
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
            self.settings.compile,
        )
        self.guard = DiscriminatorGuard()
        self.explosions = ExplosionGuard(self.settings.guards.explosion_factor)
        self.skipped = SkippedSteps(self.settings.guards.max_skipped)
        self.events = Events(folder, self.accelerator.is_main_process)
        self.best = Best(self.feed.held_out_fingerprint)
        self._asked_to_stop = False
        self.heartbeat = Heartbeat()
        self.latest = Latest()
        self.micro_batches = self.settings.micro_batches
        self.average = self._average()
        self.kept = Kept(
            plan, folder, self.accelerator, self.generator, self._register(), self.best, self.feed.about
        )
        self.recovery = Recovery(
            self.settings.guards, self.accelerator, self.kept, self.events, self.skipped, self.feed.file
        )

    @property
    def generator(self) -> nn.Module:
        """The one that is validated and shipped: the average, where the recipe has one."""
        return self.task.generator if self.average is None else self.average.module

    def fit(self, observe: Observer | None = None) -> None:
        """Train to the last step.

        Raises:
            TrainingError: it can't go on; the message says why and what to do.
            OSError: a full disk; checkpoints already written stay good.
            StoppedError: it was asked to (`stop`), and has written a checkpoint.
            ValueError: the processes see different folders, a corpus has gone bad, or a checkpoint is another run's.
        """
        with failing_together(self.accelerator, self.folder), beating(self.accelerator) as self.heartbeat:
            if not self.accelerator.is_main_process:
                self._fit(observe)
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            with RunLock(self.folder) as self.kept.lock:
                self._fit(observe)

    def stop(self) -> None:
        """Ask the run, from a signal's handler or another thread, to end after a step, with a checkpoint."""
        self._asked_to_stop = True

    def close(self) -> None:
        """Part from the other processes, after `fit`, and learn no more; without it the last may crash when it ends."""
        del self.phases
        leave(self.accelerator)

    def _stops(self, step: int) -> bool:
        """Whether any process was asked to; the others hear of it within some steps."""
        if self.accelerator.num_processes == 1:
            return self._asked_to_stop
        if step % _HEARD_WITHIN_STEPS:
            return False
        asked = torch.tensor([float(self._asked_to_stop)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    @said_by_one()
    def _begin(self) -> int | None:
        """The step to go on from; None where nothing is left to do."""
        start = self._resume()
        steps = self.settings.steps
        if start >= steps:
            self.kept.finish(start)
            more = f"; it is at step {start}" if start > steps else ""
            log.info("%s: all %d steps are done%s; raise --steps to go on", self.folder, steps, more)
            return None
        if self._has_waited(start):
            self.kept.finish(start)
            log.info("%s: ended at step %d, as its patience says; raise that to go on", self.folder, start)
            return None
        self._warn_of_a_rise(start)
        for warning in idle_warmups(self.settings):
            log.warning("%s", warning)
        return start

    def _fit(self, observe: Observer | None) -> None:
        start = self._begin()
        if start is None:
            return
        steps = self.settings.steps
        fit_to_memory(self, start)
        logged = self._log(start) if self.accelerator.is_main_process else nullcontext()
        with logged as run_log, self.kept.written():
            if start == 0 and run_log is not None and (figures := self._validate(0, run_log)[0]):
                run_log.scalars(0, figures)
            while start < steps:
                try:
                    self._loop(start, run_log, observe)
                    start = steps
                except Exploded as explosion:
                    start = self.recovery.go_back(explosion)
                    if run_log is not None:
                        run_log.rewind(start)

    def _warn_of_a_rise(self, start: int) -> None:
        """A schedule that ends with the steps begins to fall later where they have become more."""
        how = self.settings.generator_optimization.schedule
        group = self.plan.optimizers["generator"].param_groups[0]
        then = group["initial_lr"] * factor(how, start, self.settings.steps)
        if start > how.warmup_steps and then > _RISE * group["lr"]:
            log.warning(
                "the learning rate was %.2g at step %d and is %.2g from here on: it decays over all steps, which are "
                "%d now. Where that isn't meant, begin another run from its model (--init-from %s) with a lower one",
                group["lr"],
                start,
                then,
                self.settings.steps,
                self.folder,
            )

    def _log(self, start: int) -> RunLog:
        about = {
            "processes": self.accelerator.num_processes,
            "precision": self.settings.precision,
            "micro_batches": self.micro_batches,
        }
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
            left_out_steps=self.recovery.rollbacks.skipped_steps,
        )
        begun = last = time.perf_counter()
        waited, owed = 0.0, False
        segment_seconds = settings.data.segment_samples / self.task.sample_rate
        for step in range(start, settings.steps):
            before = time.perf_counter()
            self.kept.check()
            self.heartbeat.at(step, waits_for_data=True)
            rounds = [next(batches) for _ in range(self.task.critic_steps)]
            waited += time.perf_counter() - before
            self.heartbeat.at(step, waits_for_data=False)
            figures = self.step(step, rounds)
            self.latest.figures |= figures
            if bad := sum(int(batch["retries"].sum()) for batch in rounds):
                bad_draws = self.latest.figures.get("bad_draws", 0.0) + bad  # of this process
                self.latest.figures["bad_draws"] = bad_draws
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
            if message := self.guard.watch(figures):
                self.events.add(done, "discriminator", message)
            if explosion := self.explosions.watch(figures, self.task.steady):
                raise Exploded(done, explosion)
            improved = False
            if settings.validate_every is not None and (
                done % settings.validate_every == 0 or done == settings.steps
            ):
                before = time.perf_counter()
                found, improved = self._validate(done, run_log)
                record |= found
                paused = time.perf_counter() - before  # no part of a step
                last, begun = last + paused, begun + paused
            if run_log is not None and record:
                run_log.scalars(done, record)
            stops = done < settings.steps and self._stops(done)
            ends = done < settings.steps and self._has_waited(done)
            due = owed or done % settings.checkpoint_every == 0 or improved
            # What may be the beginning of an explosion is nothing to go back to, nor weights of which a loss just came
            # to no number: these wait for a step that does.
            owed = due and "skipped_steps" in figures
            if stops or ends or done == settings.steps or (due and not owed and self.explosions.calm):
                self.kept.save(done)
            if ends:
                log.info("nothing better than best/, of step %d: the run ends at %d", self.best.step, done)
                return
            if stops:
                raise StoppedError(f"stopped as asked at step {done}; the same command goes on from there")

    def _has_waited(self, step: int) -> bool:
        """Whether the run's patience is at its end, the same in all processes."""
        settings, accelerator = self.settings, self.accelerator
        if settings.patience is None or settings.validate_every is None or step % settings.validate_every:
            return False
        ends = self.best.has_waited(step, settings.validate_every, settings.patience)
        if accelerator.num_processes == 1:
            return ends
        said = torch.tensor([float(ends and accelerator.is_main_process)], device=accelerator.device)
        return bool(accelerator.reduce(said, "sum") > 0)

    def step(self, step: int, rounds: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Learn from a batch a critic round, as step `step`; what it found, by name."""
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
                [self.parts(batch) for batch in rounds], adversarial=adversarial, step=step
            )
        except NonFiniteLoss as error:
            return self.recovery.skip(step + 1, rounds, error)
        self.task.observe(figures, len(rounds) * self.settings.batch_size)
        if self.average is not None:
            with section("average"):
                self.average.update_parameters(self.task.generator)
        figures["learning_rate"] = self.plan.optimizers["generator"].param_groups[0]["lr"]
        return figures

    def parts(self, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """A batch on the device, in the parts that it is worked through in."""
        with section("transfer"):
            there = {
                name: value if name in BOOKKEEPING else placed(value, self.accelerator.device)
                for name, value in batch.items()
            }
        size = len(there["audio"]) // self.micro_batches
        return [
            {name: value[i * size : (i + 1) * size] for name, value in there.items()}
            for i in range(self.micro_batches)
        ]

    def _validate(self, step: int, run_log: RunLog | None) -> tuple[dict[str, float], bool]:
        """What the held-out sounds say, and whether it is the best so far; nothing in all processes but the main."""
        figures: dict[str, float] = {}
        improved = False
        if run_log is not None and self.feed.valid_records and self.settings.validate_every is not None:
            sounds, labels, given = self.feed.held_out
            generator, was_training = self.generator, self.generator.training
            try:
                figures, examples = self.task.validate(
                    generator.eval(), sounds, self.accelerator.device, labels=labels, given=given
                )
            finally:
                generator.train(was_training)
            run_log.examples(step, examples[:4])
            if figures:
                log.info("step %d, held out: %s", step, ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
            if step and (trouble := self.task.trouble(figures)):
                self.events.add(step, "trouble", f"{trouble}. See {ADVICE}#silence-and-collapse")
            score = self.task.score(figures)
            if not step:
                self.best.before = score
            improved = bool(step) and score is not None and self.best.improves(step, score)
            if improved:
                self.kept.save_model("best", step, {"validation": figures})
        return {f"valid/{name}": value for name, value in figures.items()}, improved

    def _resume(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        step = self.kept.newest()
        if step is not None:
            self.kept.load(step)
        # Behind what may refuse: a command that was refused once would else be taken for the run's own the next time.
        if self.accelerator.is_main_process:
            write_beside(self.folder / "recipe.yaml", to_yaml(self.plan.recipe))
        self.events.resume(-1 if step is None else step)
        if step is None:
            return 0
        log.info("resuming %s from step %d", self.folder, step)
        return step

    def _register(self) -> RunState:
        state = RunState(identity(self.plan.recipe))
        state.register("generator", self.task.generator)
        state.register("generator_optimizer", self.plan.optimizers["generator"])
        if self.average is not None:
            state.register("generator_average", self.average)
        if "discriminator" in self.plan.optimizers:
            state.register("discriminator", self.task.discriminator)
            state.register("discriminator_optimizer", self.plan.optimizers["discriminator"])
            state.register("discriminator_guard", self.guard)
        for side, scaler in self.phases.scalers.items():
            if scaler.is_enabled():
                state.register(f"{side}_scaler", scaler)
        if self.task.memory is not None:
            state.register("task", self.task.memory)
        state.register("corpus", Corpus(self.feed.fingerprint, self._corpus_was))
        state.register("explosions", self.explosions)
        state.register("skipped", self.skipped)
        state.register("best", self.best)
        state.register("latest", self.latest)
        return state

    def _average(self) -> MovingAverage | None:
        decay = self.settings.ema_decay
        if decay is None:
            return None
        return MovingAverage(self.task.generator, decay)


class Corpus:
    """What a run is fed, by its fingerprint: positions name other sounds in another one.

    Args:
        fingerprint: of what it is fed now.
        was: where it was before, if it was elsewhere.
    """

    def __init__(self, fingerprint: str, was: str | None = None) -> None:
        self.fingerprint = fingerprint
        self.was = was

    def state_dict(self) -> dict[str, str]:
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        if state["fingerprint"] != self.fingerprint:
            if self.was is not None:
                raise ValueError(
                    f"data.path: holds other sounds than {self.was}, which this run was trained on; a corpus may move, "
                    "but not change with it. Give its new place, or another --run"
                )
            log.warning(
                "the corpus isn't the one that this checkpoint was trained on (files added, changed or gone): the run "
                "goes on with it, and doesn't end as it would have without the change"
            )


class Latest:
    """The last value of each figure, since a lazy penalty has one in some steps only."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def state_dict(self) -> dict[str, float]:
        return dict(self.figures)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.figures = dict(state)
