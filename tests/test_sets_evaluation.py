"""Evaluations of sets: floors, intervals, copies and collapses that are known, and what is shown of them."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gansound.metrics.sets import (
    LogMelBackbone,
    SetJudge,
    evaluate_sets,
    inception_score,
    kernel_distance,
    nearest_distances,
)
from gansound.metrics.sets.newness import newness
from gansound.metrics.sets.resampling import Estimate, halves_interval, spread
from gansound.report.pictures import png_bytes
from gansound.report.sets import STYLES, neighbours_picture, sets_record, sets_table, truncation_picture
from tests.test_sets import RATE, gaussian, hits

SAMPLES = 4096
PAIRED = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")


class Loudness:
    """A backbone of one number, and a classifier of loud and soft."""

    name = "loudness"
    sample_rate = RATE
    labels = ("loud", "soft")

    def embed(self, clips):
        return np.sqrt(np.square(np.asarray(clips, np.float64)).mean(axis=1, keepdims=True))

    def probabilities(self, clips):
        loud = (np.abs(clips).max(axis=1) > 0.4).astype(float)
        return np.stack([loud, 1 - loud], axis=1)


@pytest.fixture(scope="module")
def judge():
    return SetJudge(hits(1, 60, SAMPLES), hits(2, 120, SAMPLES), RATE, resamples=60)


@pytest.fixture(scope="module")
def good(judge):
    return judge.judge(hits(3, 150, SAMPLES))


def test_inception_score_of_known_probabilities():
    sure = np.eye(4)[np.arange(40) % 4]
    assert inception_score(sure, 5) == pytest.approx((4.0, 0.0))
    assert inception_score(np.full((40, 4), 0.25)) == pytest.approx((1.0, 0.0))
    assert inception_score(np.repeat(np.eye(4)[:1], 40, axis=0)) == pytest.approx((1.0, 0.0))
    # Two rows p and q: exp of the mean KL from their mean.
    rows = np.array([[0.9, 0.1], [0.3, 0.7]])
    mean = rows.mean(axis=0)
    expected = math.exp(
        np.mean([sum(p * math.log(p / m) for p, m in zip(r, mean, strict=True)) for r in rows])
    )
    assert inception_score(rows, 1).mean == pytest.approx(expected)
    first, second = inception_score(rows[:1], 1).mean, inception_score(rows[1:], 1).mean
    assert inception_score(rows, 2).mean == pytest.approx((first + second) / 2)
    assert inception_score(np.concatenate([np.eye(4), np.full((4, 4), 0.25)]), 2) == pytest.approx((2.5, 1.5))
    for none in (np.ones((9, 3)), np.tile([1.5, -0.5], (9, 1))):
        with pytest.raises(ValueError, match="add up to 1"):
            inception_score(none, 1)
    with pytest.raises(ValueError, match="splits: got 10 for 9 rows"):
        inception_score(np.full((9, 2), 0.5))


def mean_and_kernel(points, other, *chosen):
    a, b = points[chosen[0]], other[chosen[1]]
    return {"mean": float(a.mean()), "kernel_distance": kernel_distance(a, b)}


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_intervals_hold_the_truth_as_often_as_they_say(shift):
    # Where both sets are of one distribution the kernel distance is 0; shifted, a large sample says what it is.
    truth = {"mean": 0.0, "kernel_distance": 0.0}
    if shift:
        pairs = [(gaussian(9000 + i, 1500, 2), gaussian(9900 + i, 1500, 2, mean=shift)) for i in range(20)]
        truth["kernel_distance"] = float(np.mean([kernel_distance(a, b) for a, b in pairs]))
    held = dict.fromkeys(truth, 0)
    runs = 80
    for run in range(runs):
        a, b = gaussian(2 * run, 60, 2), gaussian(2 * run + 1, 50, 2, mean=shift)
        figures = partial(mean_and_kernel, a, b)
        whole = figures(np.arange(60), np.arange(50))
        found = halves_interval(whole, figures, (60, 50), np.random.default_rng(run), 60)
        for name, estimate in found.items():
            held[name] += estimate.low <= truth[name] <= estimate.high
    for name, count in held.items():
        assert count / runs > 0.85, (name, count)
    assert held["mean"] / runs < 0.995


def test_an_interval_of_a_mean_is_as_wide_as_its_standard_error():
    values = gaussian(1, 400, 1)[:, 0]

    def mean(chosen):
        return {"kernel_distance": float(values[chosen].mean())}

    found = halves_interval(mean(np.arange(400)), mean, (400,), np.random.default_rng(0), 2000)[
        "kernel_distance"
    ]
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_an_interval_keeps_to_what_a_figure_can_be():
    """Shares to 0 … 1, an Inception score to 1 and more, distances to 0 and more; a kernel distance to nothing."""
    least = {"precision": 0.0, "inception_score": 1.0, "frechet_distance": 0.0, "kernel_distance": -8.0}
    most = {"precision": 1.0, "inception_score": 10.0, "frechet_distance": 10.0, "kernel_distance": 10.0}
    whole = dict.fromkeys(least, 1.0)
    strays = iter([-9.0, 9.0] * 100)

    def figures(chosen):
        return dict.fromkeys(least, next(strays))

    found = halves_interval(whole, figures, (10,), np.random.default_rng(0))
    assert {name: (one.low, one.high) for name, one in found.items()} == {
        name: (least[name], most[name]) for name in least
    }


def test_a_range_holds_what_ninety_five_of_a_hundred_draws_gave():
    found = spread(
        [{"precision": value} for value in np.random.default_rng(0).permutation(np.arange(1001.0))]
    )
    assert found == {"precision": Estimate(500.0, 25.0, 975.0)}


def test_newness_is_that_of_a_loop():
    points, train = gaussian(1, 12, 3), gaussian(2, 30, 3)
    found = newness(points, train)
    for i, p in enumerate(points):
        away = np.linalg.norm(train - p, axis=1)
        j = int(away.argmin())
        own = min(np.linalg.norm(train[j] - t) for n, t in enumerate(train) if n != j)
        assert (found.nearest[i], found.authentic[i]) == (j, away[j] > own)
        assert found.distances[i] == pytest.approx(away[j])
    left_out = newness(train, train, same=True)
    assert left_out.distances == pytest.approx(nearest_distances(train))
    for i in range(30):  # the sound itself is no training sound while it is asked about
        j = left_out.nearest[i]
        own = min(np.linalg.norm(train[j] - t) for n, t in enumerate(train) if n not in (i, j))
        assert left_out.authentic[i] == (left_out.distances[i] > own)


def test_real_beside_real_is_at_the_floor(good):
    for name in PAIRED:
        figure = good.figures[name]
        for floor in (figure.split, figure.chance):
            assert figure.estimate.low <= floor.high, name
            assert figure.estimate.high >= floor.low, name
    for floor in (good.figures["kernel_distance"].split, good.figures["kernel_distance"].chance):
        assert floor.low <= 0 <= floor.high
        assert abs(floor.value) < 0.1
    assert good.figures["authenticity"].estimate.value == pytest.approx(0.5, abs=0.2)
    assert good.compared == (120, 60)
    assert (good.fake_count, good.train_count, good.real_count) == (150, 120, 60)


def test_a_copy_of_the_training_set_is_called_one(judge):
    found = judge.judge(hits(2, 120, SAMPLES)).figures
    assert found["coverage"].estimate.value > 0.9
    assert found["train_distance_db"].estimate.high < 0.1 * found["train_distance_db"].split.low
    assert found["authenticity"].estimate.high < found["authenticity"].split.low


def test_a_collapse_is_seen(judge):
    rng = np.random.default_rng(4)
    few = np.repeat(hits(3, 4, SAMPLES), 30, axis=0)
    few += 1e-3 * rng.standard_normal(few.shape).astype(np.float32)
    found = judge.judge(few).figures
    assert found["self_distance_db"].estimate.high < found["self_distance_db"].split.low
    assert found["coverage"].estimate.high < found["coverage"].split.low
    assert found["kernel_distance"].estimate.low > found["kernel_distance"].split.high


def test_a_distance_to_training_sounds_is_in_decibels():
    loud = hits(1, 20, SAMPLES)
    # Noise keeps every cell far above the floor, so a gain of 6 dB is 6 dB everywhere.
    noise = 0.05 * np.random.default_rng(1).standard_normal((20, SAMPLES)).astype(np.float32)
    found = evaluate_sets(loud, 0.5 * noise, noise, RATE, resamples=5, k=2)
    assert found.nearest_db == pytest.approx(np.full(20, 6.02), abs=0.3)
    assert sorted(set(found.nearest)) == list(range(20))


def test_the_same_seed_gives_the_same_figures(judge, good):
    again = judge.judge(hits(3, 150, SAMPLES))
    assert again.figures == good.figures


def test_a_classifying_backbone_adds_its_figures():
    real, train, fake = (hits(seed, 40, SAMPLES) for seed in (1, 2, 3))
    heard = [int(label) for label in Loudness().probabilities(fake).argmax(axis=1)]
    heard[:10] = [1 - label for label in heard[:10]]
    judge = SetJudge(real, train, RATE, backbone=Loudness(), resamples=10)
    found = judge.judge(fake).figures
    assert "label_agreement" not in found
    assert 1.5 < found["inception_score"].estimate.value <= 2.0
    own = [Loudness().probabilities(x).argmax(axis=1) for x in (real, train)]
    judge = SetJudge(
        real, train, RATE, backbone=Loudness(), resamples=10, real_labels=own[0], train_labels=own[1]
    )
    found = judge.judge(fake, heard).figures
    assert found["label_agreement"].estimate.value == pytest.approx(0.75)
    assert found["label_agreement"].split.value == 1.0


def test_a_backbone_of_another_rate_gets_its_clips_resampled():
    seen = []

    class Low(LogMelBackbone):
        def embed(self, clips):
            seen.append(clips.shape)
            return super().embed(clips)

    evaluate_sets(*(hits(s, 20, SAMPLES) for s in (1, 2, 3)), RATE, backbone=Low(RATE // 2), resamples=2)
    assert seen == [(20, SAMPLES // 2)] * 3


def test_sets_that_are_too_small_or_do_not_fit_are_refused(judge):
    with pytest.raises(ValueError, match="got 11 generated sounds, expected at least 12"):
        judge.judge(hits(1, 11, SAMPLES))
    with pytest.raises(ValueError, match="generated sounds are 5000 samples long and held-out ones 4096"):
        judge.judge(hits(1, 30, 5000))
    with pytest.raises(ValueError, match="generated sounds: 1 of 30 clips holds NaN"):
        judge.judge(np.where(np.arange(30)[:, None] == 7, np.nan, hits(1, 30, SAMPLES)))


def test_what_is_shown(good, tmp_path):
    from rich.console import Console

    console = Console(width=170, record=True, file=(tmp_path / "out").open("w"))
    console.print(sets_table(good, title="one"))
    text = console.export_text()
    for name, figure in good.figures.items():
        assert STYLES[name].heading in text
        assert f"{figure.estimate.value:.{STYLES[name].digits}f}" in text
    record = json.loads(json.dumps(sets_record(good, model="m"), allow_nan=False))
    assert record["model"] == "m"
    assert record["kernel_distance"] == good.figures["kernel_distance"].estimate.value
    assert record["coverage_floor_chance_low"] == good.figures["coverage"].chance.low
    assert record["train_distance_db_floor_split_high"] == good.figures["train_distance_db"].split.high
    fake, train = hits(3, 150, SAMPLES), hits(2, 120, SAMPLES)
    names = [f"sound {i}" for i in range(120)]
    picture = neighbours_picture(fake, train, good, names=names, count=3)
    titles = [axes.get_title() for axes in picture.axes if axes.get_title()]
    closest = int(good.nearest_db.argmin())
    assert titles[0] == f"generated {closest}"
    assert any(f"sound {good.nearest[closest]}, " in title for title in titles)
    curve = truncation_picture({0.5: good, 1.0: good})
    assert [axes.get_xlabel() for axes in curve.axes] == ["recall (variety)", "coverage (variety)"]
    assert png_bytes(curve).startswith(b"\x89PNG")
    for value in (0.05, 0.95, 1.0, 2.5):  # the same at every truncation
        figures = dict(good.figures)
        for name in ("precision", "density"):
            made, real = (Estimate(at, at, at) for at in (value, value - 0.05))
            figures[name] = replace(figures[name], estimate=made, split=real)
        level = replace(good, figures=figures)
        for axes in truncation_picture({0.3: level, 1.0: level}).axes:
            assert axes.get_ylim()[0] < -0.02
            assert axes.get_ylim()[1] > value + 0.02
