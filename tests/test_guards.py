"""What goes wrong in a training, done to it for real: it is noticed, survived where it can be, and said plainly."""

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gansound.engine.guards as guards
from gansound.engine.checkpoint import checkpoints
from gansound.engine.guards import (
    BLIND_STEPS,
    EXPLODED_STEPS,
    HISTORY_STEPS,
    WON_STEPS,
    DiscriminatorGuard,
    ExplosionGuard,
    SkippedSteps,
    TrainingError,
)
from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.engine.rollbacks import Rollbacks
from gansound.engine.run import Run
from gansound.metrics.level import is_out_of_range, level_figures
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, losses, tiny, weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def poison(run: Run, calls: set[int], side: str = "generator") -> None:
    """Let the loss be not a number at the given calls of a side's phase, counted from 1."""
    name = "generator_phase" if side == "generator" else "discriminator_phase"
    real: Callable[..., Any] = getattr(run.task, name)
    count = 0

    def poisoned(*args: Any) -> Any:
        nonlocal count
        count += 1
        found = real(*args)
        terms = found if side == "generator" else found.losses
        if count in calls:
            first = next(iter(terms))
            terms[first] = terms[first] * float("nan")
        return found

    setattr(run.task, name, poisoned)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_a_step_that_is_not_a_number_changes_nothing_and_is_named(
    corpus: Path, tmp_path: Path, side: str, fused: bool
) -> None:
    # A fused optimizer, as a GPU's parameters get it, is told to skip by the gradients' norm itself, without the
    # processor; and then nothing of the step is learnt, by either side.
    optimizers = {
        f"{one}_optimization.optimizer.init_args.fused": fused for one in ("generator", "discriminator")
    }
    run = Run(plan(tiny(corpus, 3, adversarial_from=0, **optimizers)), tmp_path / "run")
    poison(run, {2}, side)
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}
    real = run.step
    learning = {
        one: torch.nn.ModuleDict({"net": getattr(run.task, one)})
        for one in (("generator", "discriminator") if fused and side == "discriminator" else (side,))
    }

    def state() -> dict[str, torch.Tensor]:
        found = {
            f"{one}.{k}": v.clone() for one, net in learning.items() for k, v in net.state_dict().items()
        }
        for one in learning:
            for number, moments in run.plan.optimizers[one].state_dict()["state"].items():
                found |= {f"{one} optimizer {number} {k}": v.clone() for k, v in moments.items()}
        return found

    def watched(step: int, rounds: Any) -> dict[str, float]:
        if step == 1:
            before.update(state())
        figures = real(step, rounds)
        if step == 1:
            after.update(state())
        return figures

    run.step = watched  # type: ignore[method-assign]
    run.fit()
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)
    (event,) = events(tmp_path / "run")
    assert (event["step"], event["event"]) == (2, "skipped")
    assert "nan" in event["message"]
    assert event["files"]
    assert {Path(file).parent for file in event["files"]} == {corpus}
    lines = losses(tmp_path / "run")
    assert lines[1]["skipped_steps"] == 1
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(bool(torch.isfinite(value.float()).all()) for value in weights(tmp_path / "run").values())


def test_too_many_of_them_stop_the_run_with_their_files(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(corpus, 9, adversarial_from=0, **{"guards.max_skipped": 1})
    run = Run(plan(recipe), tmp_path / "run")
    poison(run, {4, 6})
    with pytest.raises(TrainingError, match=r"step 6: .*nan.*clip\d\d\.wav.*events\.jsonl.*learning rate"):
        run.fit()
    assert [event["step"] for event in events(tmp_path / "run")] == [4, 6]
    # Due after step 4, of which nothing was learnt, it waited for one of which something was.
    names = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["step_00000002", "step_00000005"]
    for value in weights(tmp_path / "run").values():
        assert torch.isfinite(value.float()).all()


def test_skipped_steps_are_counted_in_the_last_hundred() -> None:
    skipped = SkippedSteps(2)
    assert [skipped.add(step) for step in (1, 2, 150, 151, 152)] == [False, False, False, False, True]
    resumed = SkippedSteps(2)
    resumed.load_state_dict(json.loads(json.dumps(skipped.state_dict())))
    assert resumed.total == 5
    assert resumed.add(153)
    assert not resumed.add(300)


def test_an_explosion_is_one_that_stays() -> None:
    rng = np.random.default_rng(0)
    calm = np.exp(0.2 * rng.standard_normal(HISTORY_STEPS + 200))
    guard = ExplosionGuard(10)
    assert not any(guard.watch({"mel": value, "critic": 1e9 * value}, ["mel"]) for value in calm)
    assert not any(guard.watch({"mel": 50.0}, ["mel"]) for _ in range(EXPLODED_STEPS - 1))
    assert not guard.calm
    guard.watch({"mel": 1.0}, ["mel"])
    assert guard.calm, "a spike that goes is none"
    resumed = ExplosionGuard(10)
    for one in range(EXPLODED_STEPS):
        if one == 20:
            resumed.load_state_dict(json.loads(json.dumps(guard.state_dict())))
        message = guard.watch({"mel": 50.0}, ["mel"])
        again = resumed.watch({"mel": 50.0}, ["mel"]) if one >= 20 else None
        assert (message is None) == (one < EXPLODED_STEPS - 1)
        if one >= 20:
            assert message == again
    assert "mel has exploded: 50" in (message or "")
    young = ExplosionGuard(10)
    assert not any(young.watch({"mel": v}, ["mel"]) for v in [1.0] * 400 + [50.0] * 90), (
        "too little to judge by"
    )
    assert not any(ExplosionGuard(None).watch({"mel": v}, ["mel"]) for v in [1.0] * 600 + [50.0] * 90)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explosions are told after two steps, by the median of three."""
    monkeypatch.setattr(guards, "HISTORY_STEPS", 3)
    monkeypatch.setattr(guards, "EXPLODED_STEPS", 2)


def wreck(run: Run, positions: Callable[[int], bool]) -> list[int]:
    """Ruin the generator by an update a thousand times too large at batches that begin at such positions."""
    real, seen = run.step, []

    def ruined(step: int, rounds: Any) -> dict[str, float]:
        first = int(rounds[0]["position"][0])
        seen.append(first)
        if positions(first):
            with torch.no_grad():
                for parameter in run.task.generator.parameters():
                    parameter += 3.0 * torch.randn(
                        parameter.shape, generator=torch.Generator().manual_seed(0)
                    )
        return real(step, rounds)

    run.step = ruined  # type: ignore[method-assign]
    return seen


@pytest.mark.usefixtures("soon")
def test_an_explosion_goes_back_to_the_last_good_checkpoint_and_on_with_other_data(
    corpus: Path, tmp_path: Path
) -> None:
    recipe = tiny(corpus, 10, ema_decay=None, adversarial_from=99, **{"guards.explosion_factor": 1.5})
    run = Run(plan(recipe), tmp_path / "run")
    seen = wreck(run, lambda first: first == 2 * 5)  # a batch is of 2, so that is step 6's
    run.fit()
    # Step 6 and 7 are over the limit; the checkpoint of step 4 is the newest, since that of 6 was under suspicion.
    assert seen == [2 * i for i in range(7)] + [2 * (i + 3) for i in range(4, 10)]
    (event,) = events(tmp_path / "run")
    assert (event["event"], event["step"], event["from_step"]) == ("rollback", 4, 7)
    assert "exploded" in event["message"]
    assert json.loads((tmp_path / "run" / "rollbacks.json").read_text()) == [{"from_step": 7, "to_step": 4}]
    lines = losses(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert max(line["spectrum"] for line in lines) < 1.5 * np.median([line["spectrum"] for line in lines])

    # Killed after it went back, before it wrote another checkpoint: resumed, it comes to the same end.
    other = tmp_path / "other"
    killed = Run(plan(recipe), other)
    wreck(killed, lambda first: first == 2 * 5)
    save = killed.kept.save

    def dies(step: int) -> None:
        if len(killed.recovery.rollbacks):
            raise KeyboardInterrupt
        save(step)

    killed.kept.save = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.fit()
    assert checkpoints(other / "checkpoints")[-1].name == "step_00000004"
    resumed = Run(plan(recipe), other)
    wreck(resumed, lambda first: first == 2 * 5)
    resumed.fit()
    assert_same_run(other, tmp_path / "run")
    assert events(other) == events(tmp_path / "run")


@pytest.mark.usefixtures("soon")
def test_explosions_without_end_stop_the_run_at_a_good_checkpoint(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(
        corpus, 20, ema_decay=None, adversarial_from=99, keep_checkpoints=9,
        **{"guards.explosion_factor": 1.5, "guards.max_rollbacks": 2},
    )  # fmt: skip
    run = Run(plan(recipe), tmp_path / "run")
    wreck(run, lambda first: first >= 2 * 7)
    with pytest.raises(
        TrainingError, match=r"gone back 2 times; the last good checkpoint is that of step 2\b"
    ):
        run.fit()
    went = [(e["from_step"], e["step"]) for e in events(tmp_path / "run")]
    assert went == [(9, 6), (8, 4)], "what failed again from 6 goes back further"
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "step_00000002", "step_00000004.torn", "step_00000006.torn",
    }  # fmt: skip


@pytest.mark.usefixtures("soon")
def test_an_explosion_before_the_first_checkpoint_says_so(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(
        corpus,
        9,
        ema_decay=None,
        adversarial_from=99,
        checkpoint_every=100,
        **{"guards.explosion_factor": 1.5},
    )
    run = Run(plan(recipe), tmp_path / "run")
    wreck(run, lambda first: first == 2 * 5)
    with pytest.raises(TrainingError, match="no checkpoint from before"):
        run.fit()


def test_rollbacks_are_remembered(tmp_path: Path) -> None:
    rollbacks = Rollbacks(tmp_path)
    assert (len(rollbacks), rollbacks.skipped_steps, rollbacks.went_back_to(0)) == (0, 0, False)
    rollbacks.add(70, 40, write=True)
    rollbacks.add(90, 80, write=True)
    rollbacks.add(99, 80, write=False)
    assert rollbacks.skipped_steps == 59
    again = Rollbacks(tmp_path)
    assert (len(again), again.skipped_steps) == (2, 40)
    assert again.went_back_to(80)
    assert not again.went_back_to(40)


@pytest.mark.parametrize(
    "name, value, other, steps, says",
    [
        ("discriminator_wins/msd", 1.0, 0.9, WON_STEPS, "'msd' has won"),
        ("discriminator_wins/msd", 0.5, 0.6, BLIND_STEPS, "'msd' sees nothing"),
        ("critic_gap/wave", -0.1, 0.1, BLIND_STEPS, "'wave' sees nothing"),
    ],
)
def test_a_discriminator_too_strong_or_too_weak_is_said_once(
    name: str, value: float, other: float, steps: int, says: str
) -> None:
    guard = DiscriminatorGuard()
    said = [guard.watch({name: value, "loss": 1.0}) for _ in range(2 * steps)]
    assert [step for step, message in enumerate(said) if message] == [steps - 1]
    assert says in (said[steps - 1] or "")
    assert not any(guard.watch({name: other}) for _ in range(2 * steps))
    half = DiscriminatorGuard()
    for _ in range(steps // 2):
        half.watch({name: value})
    resumed = DiscriminatorGuard()
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    said = [resumed.watch({name: value}) for _ in range(steps)]
    assert [step for step, message in enumerate(said) if message] == [steps - steps // 2 - 1]


def test_levels_of_a_validation() -> None:
    real = np.sin(np.arange(8000) / 10).astype(np.float32)
    assert level_figures(real, real) == {"level_db": 0.0, "clipped_share": pytest.approx(0.028, abs=0.01)}
    assert level_figures(real, real / 10)["level_db"] == pytest.approx(-20)
    assert is_out_of_range(level_figures(real, 0.9 * real)) is None
    assert "fallen silent" in (is_out_of_range(level_figures(real, 0 * real)) or "")
    assert "full scale" in (is_out_of_range(level_figures(real, np.sign(real))) or "")


def test_a_generator_that_falls_silent_is_an_event(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(corpus, 2, ema_decay=None, validate_every=1, validate_utterances=1)
    run = Run(plan(recipe), tmp_path / "run")
    validate = run.task.validate
    run.task.validate = lambda generator, *a, **k: validate(lambda mel: 0 * generator(mel), *a, **k)  # type: ignore[method-assign]
    run.generator.eval()
    run.fit()
    assert [(e["step"], e["event"]) for e in events(tmp_path / "run")] == [(1, "trouble"), (2, "trouble")]
    assert "fallen silent" in events(tmp_path / "run")[0]["message"]


def test_every_piece_of_advice_is_there() -> None:
    root = Path(__file__).parents[1]
    text = (root / guards.ADVICE).read_text()
    anchors = {
        line.lstrip("# ").strip().lower().replace(" ", "-").replace(",", "")
        for line in text.splitlines()
        if line.startswith("#")
    }
    named = set()
    for file in (root / "gansound" / "engine").glob("*.py"):
        named |= {part.split('"')[0].split("'")[0] for part in file.read_text().split("{ADVICE}#")[1:]}
    assert len(named) >= 5
    assert named <= anchors, named - anchors


def test_fp16_scales_its_losses_and_finds_its_scale(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(corpus, 6, adversarial_from=0, precision="fp16")
    run = Run(plan(recipe), tmp_path / "run")
    run.phases.scalers["generator"]._init_scale = 2.0**40
    starts = {name: value.clone() for name, value in run.task.generator.named_parameters()}
    moved = []
    step = Phases.step

    def watched(self: Phases, *args: Any, **kwargs: Any) -> dict[str, float]:
        figures = step(self, *args, **kwargs)
        moved.append(any(not torch.equal(starts[k], v) for k, v in run.task.generator.named_parameters()))
        return figures

    run.phases.step = watched.__get__(run.phases)  # type: ignore[method-assign]
    run.fit()
    scales = [line["loss_scale/generator"] for line in losses(tmp_path / "run")]
    assert not moved[0], "at 2^40 the gradients overflow"
    assert "gradient_norm/generator" not in losses(tmp_path / "run")[0]
    assert all(later == earlier / 2 or later == earlier for earlier, later in itertools.pairwise(scales))
    assert scales[0] == 2.0**39
    assert not (tmp_path / "run" / "events.jsonl").exists(), "an overflow is no accident"


def test_the_share_of_waiting_for_data_is_that_of_all_steps_since_the_last_line(
    corpus: Path, tmp_path: Path
) -> None:
    run = Run(plan(tiny(corpus, 4, log_every=4)), tmp_path / "run")
    batches = run.feed.batches

    def slow(*args: Any, **more: Any) -> Any:
        for batch in batches(*args, **more):
            time.sleep(0.05)
            yield batch

    run.feed.batches = slow  # type: ignore[method-assign]
    run.fit()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if "data_share" in line]
    assert line["data_share"] * line["step_seconds"] >= 0.05  # waited for each of the four


def test_a_learning_rate_that_rises_with_the_steps_is_said(corpus: Path, tmp_path: Path, caplog: Any) -> None:
    decay = {
        "generator_optimization.schedule": {
            "decay": "cosine",
            "final": 0.02,
            "warmup_steps": 1,
            "constant_steps": 0,
        }
    }
    Run(plan(tiny(corpus, 4, **decay)), tmp_path / "run").fit()
    Run(plan(tiny(corpus, 2, **decay)), tmp_path / "other").fit()
    assert "the learning rate was" not in caplog.text
    Run(plan(tiny(corpus, 9, **decay)), tmp_path / "run").fit()
    assert "the learning rate was" in caplog.text
    assert "which are 9 now" in caplog.text
