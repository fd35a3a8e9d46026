"""The profile of a step: sections that add up, steps that stay the steps they were, a folder that isn't touched."""

import gzip
import io
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
import torch
from rich.console import Console

from gansound.cli import main
from gansound.engine import profile as engine_profile
from gansound.engine.plan import plan
from gansound.engine.profile import TRACED_STEPS, WARM_UP_STEPS, profile, summary, verdict
from gansound.engine.run import Run
from gansound.recipe import load_recipe
from gansound.report.pictures import png_bytes
from gansound.report.profile import operator_table, profile_picture, section_table
from gansound.sections import REST, Stopwatch, section
from tests.corpus import write_corpus
from tests.test_distributed import started
from tests.tiny import arguments

WAVEGAN = {
    "generator.init_args": {"clip_samples": 2048, "dim": 2},
    "discriminators.wave.network.init_args": {"clip_samples": 2048, "dim": 2},
    "data": {"segment_samples": 2048, "workers": 0, "one_shots": {"align": True}},
    "batch_size": 2,
    "critic_steps": 2,
    "threads": 1,
    "validate_every": None,
}
VOCODER = {
    "generator.init_args": {"channels": 16, "hidden_channels": 32, "blocks": 1},
    "discriminators.msd.network.init_args": {"scales": 2, "channels": 4, "layers": 2, "max_channels": 16},
    "data.segment_samples": 2048,
    "data.workers": 0,
    "batch_size": 2,
    "threads": 1,
    "adversarial_from": 1,
    "validate_every": None,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


class Ticks:
    """A clock that stands still between ticks, which are whole numbers, so that sums are exact."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: int) -> None:
        self.now += seconds


def test_time_belongs_to_the_innermost_section() -> None:
    clock = Ticks()
    with Stopwatch(clock).running() as watch:
        clock.tick(1)
        with section("outer"):
            clock.tick(2)
            with section("inner"):
                clock.tick(4)
            clock.tick(8)
            with section("outer"), section("inner"):
                clock.tick(16)
        clock.tick(32)
        assert watch.lap() == {REST: 33, "outer": 10, "inner": 20}
        assert sum(watch.lap().values()) == 0
    with section("after"):
        clock.tick(1)
    assert sum(watch.lap().values()) == 1
    assert "after" not in watch.lap(), "it doesn't run any more"


@pytest.mark.parametrize("seed", range(5))
def test_sections_add_up_to_the_whole_however_they_nest_and_fail(seed: int) -> None:
    clock, rng = Ticks(), random.Random(seed)
    expected: dict[str, float] = {}

    def work(name: str, depth: int) -> None:
        for _ in range(rng.randrange(4)):
            seconds = rng.randrange(100)
            clock.tick(seconds)
            expected[name] = expected.get(name, 0) + seconds
            if depth and rng.random() < 0.7:
                inner = rng.choice("abc")
                try:
                    with section(inner):
                        work(inner, depth - 1)
                        if rng.random() < 0.3:
                            raise ArithmeticError
                except ArithmeticError:
                    pass

    with Stopwatch(clock).running() as watch:
        for _ in range(10):
            work(REST, 4)
        spent = watch.lap()
    assert sum(expected.values()) > 0
    assert sum(spent.values()) == clock.now
    assert {k: v for k, v in spent.items() if v} == {k: v for k, v in expected.items() if v}


def test_the_device_is_waited_for_before_the_clock_is_read() -> None:
    """As if every section had given the device 10 s of work, and had been done with that at once."""
    clock = Ticks()
    queued = [0]

    def synchronize() -> None:
        clock.tick(queued.pop())
        queued.append(0)

    with Stopwatch(clock, synchronize).running() as watch:
        for name in ("first", "second"):
            with section(name):
                queued[0] += 10
        assert watch.lap() == {REST: 0, "first": 10, "second": 10}


def counting() -> Callable[[], float]:
    """A clock on which every reading comes a second after the one before."""
    numbers = itertools.count()
    return lambda: float(next(numbers))


RECIPES = {
    "tiny_cpu": (
        VOCODER,
        ("conditioning", "spectral losses", "feature matching", "discriminator forward, for the generator"),
        (),
    ),
    "wavegan_tiny_cpu": (WAVEGAN, ("penalties",), ("spectral losses", "feature matching")),
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_profile_holds_the_sections_of_its_recipe_and_they_add_up(name: str, corpus: Path) -> None:
    changes, there, absent = RECIPES[name]
    record = profile(
        plan(load_recipe(name, changes | {"data.path": str(corpus), "steps": 1})), 3, clock=counting()
    )
    sections = {one["section"]: one for one in record["sections"]}
    always = {
        "data", "generator forward", "discriminator forward", "discriminator backward", "discriminator optimizer",
        "generator backward", "generator optimizer",
    }  # fmt: skip
    assert always | set(there) <= sections.keys()
    assert not sections.keys() & set(absent)
    assert not sections.keys() & {"figures over processes", "gradients over processes"}, (
        "there is one process"
    )
    # Whole seconds on the clock, so the sums are exact but for the division by the steps.
    assert sum(one["ms_mean"] for one in sections.values()) == pytest.approx(
        record["step"]["ms_mean"], rel=1e-12
    )
    assert sum(one["share"] for one in sections.values()) == pytest.approx(1, rel=1e-12)
    assert sum(record["group_shares"].values()) == pytest.approx(1, rel=1e-12)
    assert record["steps_per_second"] == pytest.approx(1e3 / record["step"]["ms_mean"], rel=1e-12)
    seconds = record["batch_size"] * record["critic_steps"] * 2048 / record["sample_rate_hz"]
    assert record["audio_seconds_per_second"] == pytest.approx(record["steps_per_second"] * seconds)
    operators = record["operators"]
    assert any(one["operator"].startswith("aten::") for one in operators)
    assert all(one["operator"] not in sections and one["calls_a_step"] > 0 for one in operators)
    shares = [one["share"] for one in operators]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_profile_changes_neither_losses_nor_weights(
    name: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, _, _ = RECIPES[name]
    steps = WARM_UP_STEPS + 2 + TRACED_STEPS
    recipe = load_recipe(
        name, changes | {"data.path": str(corpus), "steps": steps + 9, "adversarial_from": 0}
    )
    plain = Run(plan(recipe), tmp_path)
    batches = plain.feed.batches(0, rank=0, ranks=1, pin_memory=False)
    expected = [
        plain.step(step, [next(batches) for _ in range(plain.task.critic_steps)]) for step in range(steps)
    ]
    figures = []

    class Watched(Run):
        def step(self, step: int, rounds: list) -> dict[str, float]:
            figures.append(super().step(step, rounds))
            return figures[-1]

    monkeypatch.setattr(engine_profile, "Run", Watched)
    profiled = plan(recipe)
    profile(profiled, 2)
    assert figures == expected
    for side in ("generator", "discriminator"):
        ours, theirs = getattr(profiled.task, side).state_dict(), getattr(plain.task, side).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    start = plan(recipe).task.generator.state_dict()
    assert any(
        not torch.equal(start[key], theirs) for key, theirs in plain.task.generator.state_dict().items()
    )


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in found}


def test_the_command_leaves_an_existing_run_as_it_is(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", "tiny_cpu", "--data.path", str(corpus), "--run", str(run), *arguments(steps="2")]
    assert main(command) == 0
    before = files(run)
    assert any(name.startswith("checkpoints/") for name in before)
    capsys.readouterr()
    assert main([*command, "--profile", "2"]) == 0
    after = files(run)
    assert after.keys() - before.keys() == {"profile.json", "profile.png", "profile.trace.json.gz"}
    assert {name: after[name] for name in before} == before
    record = json.loads((run / "profile.json").read_text())
    assert (record["recipe"], record["steps"], record["discriminators_join_at_step"]) == ("tiny_cpu", 2, 1)
    assert any(one["section"] == "discriminator backward" for one in record["sections"])
    said = capsys.readouterr().out
    assert record["verdict"] in said
    assert "generator backward" in said
    with gzip.open(run / "profile.trace.json.gz") as trace:
        ranges = [event.get("name") for event in json.load(trace)["traceEvents"]]
    assert ranges.count("generator forward") == TRACED_STEPS
    assert "aten::convolution_backward" in ranges


@pytest.mark.parametrize("steps", ["0", "-1", "tiny_cpu", "2.5"])
def test_a_number_of_steps_that_is_none_is_refused(steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny_cpu", f"--profile={steps}"]) == 2
    assert "expected a number of steps" in capsys.readouterr().err


def record_of(milliseconds: dict[str, float], apart: dict[str, float] | None = None) -> dict:
    """A record whose steps all take the same."""
    laps = [{name: ms / 1e3 for name, ms in milliseconds.items()}] * 3
    others = [{name: ms / 1e3 for name, ms in apart.items()}] * 3 if apart else []
    about = {
        "recipe": "made_up", "device": "CPU", "processes": 2 if apart else 1, "threads": 1, "precision": "bf16",
        "compile": True, "batch_size": 8, "micro_batches": 2, "critic_steps": 1, "data_workers": 1,
        "sample_rate_hz": 22050, "steps": 3, "discriminators_join_at_step": 7, "audio_seconds_per_second": 1.5,
        "operators": [{"operator": "aten::[bold]mm", "calls_a_step": 2, "self_ms_a_step": 0.5, "share": 0.25}],
    }  # fmt: skip
    return about | summary(laps, others)


def test_communication_is_what_backward_takes_longer_with_it() -> None:
    steps = {
        "discriminator backward": 50.0,
        "generator backward": 30.0,
        "figures over processes": 2.0,
        REST: 18.0,
    }
    apart = {"discriminator backward": 40.0, "generator backward": 31.0, "figures over processes": 9.0}
    record = record_of(steps, apart)
    sections = {one["section"]: one["ms_median"] for one in record["sections"]}
    assert sections == pytest.approx(
        {
            "discriminator backward": 40, "generator backward": 30, "gradients over processes": 10,
            "figures over processes": 2, REST: 18,
        }
    )  # fmt: skip
    assert record["step"]["ms_mean"] == pytest.approx(100)
    assert record["group_shares"]["communication"] == pytest.approx(0.12)


@pytest.mark.parametrize(
    "milliseconds,apart,words",
    [
        (
            {"data": 1, "generator backward": 99},
            None,
            "keeps up: 1% waiting; most goes to generator backward, 99%",
        ),
        ({"data": 38, "generator backward": 62}, None, "waiting for data 38%: raise data.workers (now 1)"),
        ({"data": 38, "generator backward": 62}, None, "--sample-rate 22050"),
        ({"penalties": 40, "generator backward": 60}, None, "penalties take 40%"),
        ({"data": 12, "penalties": 60, REST: 28}, None, "penalties take 60%"),
        ({"generator backward": 100}, {"generator backward": 80}, "communication 20%"),
    ],
)
def test_the_verdict_is_about_what_stands_out(milliseconds: dict, apart: dict | None, words: str) -> None:
    assert words in verdict(record_of(milliseconds, apart))


def test_tables_and_picture_show_every_section() -> None:
    record = record_of({"data": 0.004, "generator forward": 20, "my own [section]": 70, REST: 10})
    console = Console(width=120, file=io.StringIO())
    console.print(section_table(record), operator_table(record))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "my own [section]",
        "70.0%",
        "aten::[bold]mm",
        "bf16, compiled",
        "in 2 parts",
        "from step 7",
    ):
        assert words in text
    picture = matplotlib.image.imread(io.BytesIO(png_bytes(profile_picture(record))))
    opaque = picture[picture[..., 3] > 0.99][:, :3]
    blue = abs(opaque - [0x3B / 255, 0x82 / 255, 0xC4 / 255]).max(1) < 0.01
    grey = abs(opaque - [0x88 / 255, 0x88 / 255, 0x88 / 255]).max(1) < 0.01
    # Of the step 20 % are the generator's, 80 % the rest's, in the bar of groups and in those of sections.
    assert grey.sum() / blue.sum() == pytest.approx(80 / 20, rel=0.1)


COMMAND_WATCHED = """
import sys
from gansound.cli import main
from gansound.engine import profile

class Watched(profile.Run):
    def step(self, step, rounds):
        figures = super().step(step, rounds)
        weights = [p.detach().double().sum().item() for p in self.task.generator.parameters()]
        print("weights", step, sum(weights), file=sys.stderr)
        return figures

profile.Run = Watched
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow  # two processes that import torch
def test_two_processes_profile_what_their_sums_cost(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", "tiny_cpu", "--data.path", str(corpus), "--run", str(run), *arguments()]
    command = [sys.executable, "-c", COMMAND_WATCHED, *command, "--profile", "3"]
    with started(command, stderr=subprocess.PIPE) as processes:
        said = [process.communicate(timeout=800) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (
        [line.split()[2] for line in errors.splitlines() if line.startswith("weights")] for _, errors in said
    )
    assert len(first) == WARM_UP_STEPS + 2 * 3 + TRACED_STEPS
    assert first[: WARM_UP_STEPS + 1] == second[: WARM_UP_STEPS + 1]
    assert first[WARM_UP_STEPS + 1] != second[WARM_UP_STEPS + 1], "a step to compare with sums no gradients"
    assert "waiting for other processes" in said[0][0]
    assert said[1][0] == "", "one of them speaks"
    assert {path.name for path in run.iterdir()} == {"profile.json", "profile.png", "profile.trace.json.gz"}
    record = json.loads((run / "profile.json").read_text())
    communication = {one["section"] for one in record["sections"] if one["group"] == "communication"}
    assert communication == {"waiting for other processes", "gradients over processes"}, (
        "figures travel along"
    )
    assert record["processes"] == 2
    assert sum(one["share"] for one in record["sections"]) == pytest.approx(1)
