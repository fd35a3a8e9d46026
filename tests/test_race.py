"""The race's own arithmetic: what is held out, which schedule fits a budget, and how a table compares."""

import json
from pathlib import Path

import pytest

from gansound.data.manifest import Record, write_manifest
from gansound.engine.plan import plan
from gansound.recipe import load_recipe
from tests.reference import race
from tests.reference.race_rows import PILOTS, ROWS, Entry

DATA = Path(__file__).parents[2] / "shared" / "data"
ENTRIES = ROWS | PILOTS


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a file that nobody opens."""
    folder = tmp_path_factory.mktemp("race")
    write_manifest(folder / "manifest.jsonl", [Record(folder / "a.flac", 22050, 66150, split="train")])
    return folder / "manifest.jsonl"


@pytest.mark.parametrize("name", ENTRIES)
def test_what_takes_part_is_a_recipe_whose_schedules_fit_the_steps(name: str, manifest: Path) -> None:
    entry = ENTRIES[name]
    recipe = race.recipe_of(entry, manifest, steps=400)
    settings = plan(recipe).settings
    assert (settings.steps, settings.threads, settings.precision) == (400, 1, "bf16")
    assert (settings.data.workers, settings.validate_every) == (0, None)
    assert settings.adversarial_from == round(400 * entry.alone)
    for how in (settings.generator_optimization, settings.discriminator_optimization):
        if how is not None:
            assert how.schedule.warmup_steps + how.schedule.constant_steps == 200
            assert (how.schedule.decay, how.schedule.final) == ("cosine", 0.02)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trains_the_published_losses_and_rates(name: str, manifest: Path) -> None:
    entry = ROWS[name]
    published, raced = load_recipe(entry.recipe, {}), race.recipe_of(entry, manifest)
    same = {"task", "discriminators", "adversarial", "feature_matching", "losses", "generator_optimization"}
    assert {key: raced.get(key) for key in same} == {key: published.get(key) for key in same}


def test_pilots_differ_in_their_discriminators_alone(manifest: Path) -> None:
    recipes = [race.recipe_of(entry, manifest) for entry in PILOTS.values()]
    judging = {
        "discriminators", "adversarial", "feature_matching", "phase_augmentation", "discriminator_optimization"
    }  # fmt: skip
    for recipe in recipes:
        assert {k: v for k, v in recipe.items() if k not in judging} == recipes[0]


def test_as_many_steps_as_fit(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "step_seconds", lambda recipe, adversarial: 0.5 if adversarial else 0.1)
    steps, measured = race.steps_that_fit(Entry("", "freev_cpu"), manifest, 60)
    assert (steps, measured) == (600, {"alone": 0.1})
    steps, measured = race.steps_that_fit(Entry("", "melgan_ljspeech"), manifest, 60)
    assert (steps, measured) == (120, {"adversarial": 0.5})
    # A quarter of the steps cost 0.1 s and the others 0.5 s.
    steps, measured = race.steps_that_fit(
        Entry("", "multi_band_melgan_v2_ljspeech", alone=0.25), manifest, 60
    )
    assert (steps, measured) == (150, {"alone": 0.1, "adversarial": 0.5})


def test_a_run_ends_over_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        asked = 0

        def stop(self) -> None:
            self.asked += 1

    clock = iter([10.5, 11.9, 12.1])
    monkeypatch.setattr(race.time, "process_time", lambda: next(clock))
    run = Stopped()
    watch = race.Watch(limit=2.0, run=run, begun=10.0)
    for expected in (0, 0, 1):
        watch(None)
        assert run.asked == expected
    assert watch.ends == [10.5, 11.9, 12.1]


def test_rows_and_pilots_are_judged_on_other_files_than_they_learn_from(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data")
    lines = [json.loads(line) for line in race.corpus(DATA, tmp_path).read_text().splitlines()]
    files = {split: [r for r in lines if r.get("split") == split] for split in ("train", "valid", "test")}
    assert len(lines) == len({r["path"] for r in lines}) == sum(map(len, files.values()))
    prompts = {
        split: {Path(r["path"]).stem.rpartition("_")[0] for r in found if r["speaker"] == "kathleen"}
        for split, found in files.items()
    }
    for one, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        assert not prompts[one] & prompts[other]
    assert {r["speaker"] for r in files["train"]} == {"kathleen"}
    for split in ("valid", "test"):
        speakers = [r["speaker"] for r in files[split]]
        assert (speakers.count("kathleen"), speakers.count("allison")) == (16, 8)


def row(name: str, scores: list[float | None], alarms: int = 0) -> dict:
    return {
        "name": name,
        "what": name.upper(),
        "steps": 7,
        "cpu_seconds": 61.4,
        "alarms": {"pause_tone_db": alarms, "step_db": 0},
        "utterances": [{"pesq_wb": score} for score in scores],
    }


def test_a_table_pairs_utterances_and_marks_what_is_clear_of_zero() -> None:
    rows = [
        row("base", [1.0, 2.0, 3.0, None]),
        row("better", [1.5, 2.5, 3.5, 8.5], 2),
        row("same", [2.0, 1.0, 3.0, 1.0]),
    ]
    _, _, base, better, same = race.table(rows, "base").splitlines()
    assert base.startswith("| BASE | 7 | 61 | 2.00 ± ")
    assert base.endswith("| – | – | – | – | none |")
    # The fourth has no pair: the mean is of all four, the difference of three.
    assert "| 4.00 (**+0.50 ± 0.00**) |" in better
    assert better.endswith("| pause_tone_db 2 |")
    assert "| 1.75 (+0.00 ± " in same
    assert "(" not in race.table(rows)
