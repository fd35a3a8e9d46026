"""memory_gb: the fewest parts with which a step fits, as measured; and the run is the one with those parts given."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gansound.engine.memory as memory
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.recipe import RecipeError
from tests.clips import small_wave, write_sounds
from tests.corpus import write_corpus
from tests.test_engine import assert_same_run, tiny

ROOM = 1.2
THIRDS = json.dumps(
    {"memory_gb": 50, "processes": 1, "device": "cpu", "precision": "fp32", "micro_batches": 3}
)
MEAN = {"adversarial_from": 0, "batch_size": 4}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def line(parts: int, size: int) -> float:
    """100 bytes besides 10 a segment in a part, 3 a segment of the batch; in one part 15 a segment."""
    return 100 + 15 * size if parts == 1 else 100 + 10 * size + 3 * parts * size


@pytest.mark.parametrize("segments", [1, 2, 6, 16])
def test_the_fewest_parts_that_fit(segments: int) -> None:
    splits = [parts for parts in range(1, segments + 1) if segments % parts == 0]
    for bytes_ in range(100, 400):
        fitting = [parts for parts in splits if line(parts, segments // parts) <= bytes_]
        if fitting:
            expected = min(fitting)
            assert memory.choose(bytes_ * ROOM + 1e-6, segments, line) == (
                expected,
                line(expected, segments // expected),
            )
        else:
            with pytest.raises(RecipeError, match=r"memory_gb: got .* give it more"):
                memory.choose(bytes_ * ROOM, segments, line)


def test_what_takes_more_than_a_line_says_is_measured() -> None:
    seen = []

    def steeper(parts: int, size: int) -> float:
        seen.append((parts, size))
        return line(parts, size) * (1.5 if size == 8 else 1.0)

    assert memory.choose(250 * ROOM, 16, steeper)[0] == 4
    assert seen[-2:] == [(2, 8), (4, 4)]


def heaviest(task: Any, segments: int, samples: int) -> float:
    """The bytes that the forward pass of a generator takes."""
    mel = torch.randn(segments, task.mel.n_mels, samples // task.mel.hop_length)
    return memory.peak_bytes(torch.device("cpu"), lambda: task.generator(mel))


@pytest.mark.parametrize("more", [{}, {"batch_size": 6, "micro_batches": 3}, {"memory_gb": 50, **MEAN}])
def test_what_cannot_fit_is_refused_before_it_is_made(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """Of 64 times the usual length, where a machine has half, then four thirds of what their forward pass takes."""
    segments = 1 if "memory_gb" in more else 2
    made = plan(tiny(corpus, 2, **{"data.segment_samples": 2**17} | more))
    bands, layers = made.task.mel.n_mels, made.task.generator.layers
    made.task.generator.layers = nn.Sequential(
        nn.BatchNorm1d(bands), nn.Dropout(0.1), *layers
    )  # a state, draws
    taken = heaviest(made.task, segments, 2**17)
    before = {name: value.clone() for name, value in made.task.generator.state_dict().items()}
    for there, fits in ((taken / 2, False), (taken * 4 / 3, True)):
        monkeypatch.setattr(memory.machine, "memory_bytes", lambda there=there: int(there))
        rng = torch.get_rng_state()
        longest = memory.peak_bytes(torch.device("cpu"), functools.partial(check, made, fits))
        assert longest < taken / 8  # measured on segments far shorter
        assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, before[name]) for name, value in made.task.generator.state_dict().items())


def test_memory_gb_is_what_segments_must_fit(corpus: Path) -> None:
    made = plan(tiny(corpus, 2, memory_gb=4, **{"data.segment_samples": 99_999_744} | MEAN))
    with pytest.raises(
        RecipeError, match=r"takes 11 GiB for 1 segment of .*, memory_gb gives 4; take shorter ones$"
    ):
        memory.check_room(made.task, made.settings, 1, torch.device("cpu"))


def check(made: Any, fits: bool) -> None:
    arguments = made.task, made.settings, 1, torch.device("cpu")
    if fits:
        memory.check_room(*arguments)
        return
    with pytest.raises(
        RecipeError, match=r"data.segment_samples: the generator alone takes .*; take shorter ones"
    ):
        memory.check_room(*arguments)


def test_a_run_of_segments_that_cannot_be_is_refused_with_what_to_do(corpus: Path, tmp_path: Path) -> None:
    """A hundred million samples, 2.4 GB of audio, which the machine may have: it was killed at the first step."""
    with pytest.raises(
        RecipeError,
        match=r"for 6 segments of .*; take shorter ones, a smaller batch_size, or micro_batches, up to 6$",
    ):
        Run(plan(tiny(corpus, 2, **{"data.segment_samples": 99_999_744, "batch_size": 6})), tmp_path / "run")


def chosen(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "micro_batches.json").read_text())
    return found


def test_a_run_that_chooses_is_the_one_with_its_parts_given(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 0.0)  # of the tests, which is anything
    roomy, tight, given = (tmp_path / name for name in ("roomy", "tight", "given"))
    Run(plan(tiny(corpus, 2, memory_gb=50, **MEAN)), roomy).fit()
    Run(plan(tiny(corpus, 2, **MEAN)), tmp_path / "plain").fit()
    assert chosen(roomy)["micro_batches"] == 1
    assert_same_run(roomy, tmp_path / "plain")
    less = chosen(roomy)["step_gb"] * ROOM * 0.8
    Run(plan(tiny(corpus, 4, memory_gb=less, **MEAN)), tight).fit()
    parts = chosen(tight)["micro_batches"]
    assert parts in (2, 4)
    assert chosen(tight)["step_gb"] < 0.81 * chosen(roomy)["step_gb"]
    Run(plan(tiny(corpus, 6, micro_batches=parts, **MEAN)), given).fit()

    def measures(*_: object) -> None:
        raise AssertionError("chosen before")

    monkeypatch.setattr(memory, "choose", measures)
    Run(plan(tiny(corpus, 6, memory_gb=less, **MEAN)), tight).fit()
    assert_same_run(tight, given)
    with pytest.raises(AssertionError, match="chosen before"):  # for another size it is measured anew
        Run(plan(tiny(corpus, 8, memory_gb=50, **MEAN)), tight).fit()


def test_a_choice_that_no_run_wrote_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for text in ("{", "[]", '{"micro_batches": 0}', '{"micro_batches": "2"}', THIRDS):
        (tmp_path / "run" / "micro_batches.json").write_text(text)
        with pytest.raises(ValueError, match=r"micro_batches\.json: .*Delete it"):
            Run(plan(tiny(corpus, 2, memory_gb=50, **MEAN)), tmp_path / "run").fit()


def test_a_step_that_fits_nowhere_is_told(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"memory_gb: got 0\.01, but a step on one segment takes \d"):
        Run(plan(tiny(corpus, 2, memory_gb=0.01, **MEAN)), tmp_path / "run").fit()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"memory_gb": 0}, "memory_gb must be above 0"),
        ({"memory_gb": "much"}, "memory_gb"),
        ({"memory_gb": float("nan")}, "memory_gb"),
        ({"memory_gb": 4, "micro_batches": 2}, "are both given"),
        ({"memory_gb": 4, "compile": True}, "compile would compile each"),
    ],
)
def test_what_is_refused_before_a_file_is_read(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(tiny(tmp_path / "nowhere", 2, **changes))


def test_what_compares_a_batch_is_in_one_part(tmp_path: Path) -> None:
    distance = {"class_path": "gansound.losses.mmd.MMD"}
    recipe = small_wave(write_sounds(tmp_path / "sounds"), 1, memory_gb=4)
    with pytest.raises(RecipeError, match="memory_gb: got 4, but the adversarial loss or a discriminator"):
        plan(recipe | {"adversarial": distance})


@pytest.mark.parametrize("key", ["micro_batches", "memory_gb"])
def test_a_net_with_batch_norm_takes_its_batch_whole(
    key: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gansound.generators.freev import FreeVGenerator

    real = FreeVGenerator.__init__

    def normed(self: FreeVGenerator, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        self.norm = torch.nn.BatchNorm1d(4)

    monkeypatch.setattr(FreeVGenerator, "__init__", functools.wraps(real)(normed))
    with pytest.raises(
        RecipeError, match=f"{key}: got 2, but a batch norm takes its statistics of all items"
    ):
        plan(tiny(corpus, 2, **{key: 2}))
