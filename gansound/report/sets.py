"""An evaluation of sets of sounds as a table, a JSON record and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from rich.table import Table
from rich.text import Text

from gansound.metrics.sets import SetEvaluation
from gansound.metrics.sets.resampling import Estimate
from gansound.report.pictures import (
    GREY,
    LINE_COLOURS,
    _bare,
    _colour_bar,
    _draw_spectrogram,
    _dress,
    _plain,
    colour_range_db,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class SetStyle:
    """Label, which way is better (`floor`: as real sounds are), digits, and one line of meaning."""

    label: str
    better: Literal["higher", "lower", "floor"]
    digits: int
    meaning: str

    @property
    def heading(self) -> str:
        """The label with its arrow; ≈ where better is neither more nor less, but what real sounds get."""
        return f"{self.label} {({'higher': '↑', 'lower': '↓', 'floor': '≈'})[self.better]}"


STYLES = {
    "frechet_distance": SetStyle("Fréchet distance", "lower", 2, "of Gaussians; too high for small sets"),
    "kernel_distance": SetStyle("kernel distance", "lower", 4, "unbiased, may be below 0"),
    "told_apart": SetStyle(
        "told apart", "lower", 3, "the nearest other is of the same set; 0.5: nobody can tell"
    ),
    "precision": SetStyle("precision", "higher", 3, "generated sounds near a real one; outliers inflate it"),
    "recall": SetStyle("recall", "higher", 3, "real sounds near a generated one; noise inflates it"),
    "density": SetStyle("density", "higher", 3, "how many real ones a generated sound is near to; real: 1"),
    "coverage": SetStyle("coverage", "higher", 3, "real sounds with a generated one near them"),
    "self_distance_db": SetStyle(
        "nearest other, dB", "floor", 2, "within the set; low: the generator repeats itself"
    ),
    "train_distance_db": SetStyle("nearest trained on, dB", "floor", 2, "low: it copies the training set"),
    "authenticity": SetStyle(
        "authenticity", "floor", 3, "farther from its nearest training sound than that is from the next"
    ),
    "inception_score": SetStyle("Inception score", "higher", 2, "sure of each sound, all classes there"),
    "label_agreement": SetStyle("label agreement", "higher", 3, "the classifier hears the label asked for"),
}


def sets_table(evaluation: SetEvaluation, *, title: str = "") -> Table:
    """One row a figure: generated, held-out beside training sounds, random parts of all real ones."""
    fake, real = evaluation.compared
    table = Table(
        title=Text(title) if title else None,
        title_style="bold",
        caption=Text(
            f"{evaluation.backbone}; {fake} sounds against {real} held out, {evaluation.single} where one set is "
            "measured alone. 95 % intervals from halves of the sets; by chance: range over random parts"
        ),
    )
    table.add_column("", no_wrap=True)
    for heading in ("generated", "real: training", "real: by chance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("meaning")
    for name, figure in evaluation.figures.items():
        style = STYLES[name]
        cells = [_cell(estimate, style) for estimate in (figure.estimate, figure.split, figure.chance)]
        table.add_row(style.heading, *cells, Text(style.meaning, "dim"))
    return table


def _cell(estimate: Estimate | None, style: SetStyle) -> Text:
    if estimate is None:
        return Text("–", "dim")
    value, low, high = (f"{number:.{style.digits}f}" for number in _numbers(estimate))
    return Text(value, "bold") + Text(f"  {low} … {high}", "dim")


def _numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def sets_record(evaluation: SetEvaluation, **about: Any) -> dict[str, Any]:
    """The evaluation as JSON holds it: each figure as `NAME`, `NAME_low`, `NAME_high`, its floors as
    `NAME_floor_split` and `NAME_floor_chance` with `_low` and `_high`.
    """
    record: dict[str, Any] = {
        **about,
        "backbone": evaluation.backbone,
        "sample_rate_hz": evaluation.sample_rate,
        "clip_seconds": evaluation.clip_seconds,
        "neighbours": evaluation.k,
        "seed": evaluation.seed,
        "held_out_count": evaluation.real_count,
        "training_count": evaluation.train_count,
        "generated_count": evaluation.fake_count,
        "compared_generated_count": evaluation.compared[0],
        "compared_held_out_count": evaluation.compared[1],
        "single_set_count": evaluation.single,
    }
    for name, figure in evaluation.figures.items():
        for suffix, estimate in (
            ("", figure.estimate),
            ("_floor_split", figure.split),
            ("_floor_chance", figure.chance),
        ):
            value, low, high = (None, None, None) if estimate is None else _numbers(estimate)
            record |= {f"{name}{suffix}": value, f"{name}{suffix}_low": low, f"{name}{suffix}_high": high}
    return record


def truncation_picture(evaluations: Mapping[float, SetEvaluation]) -> "Figure":
    """Fidelity against variety: precision over recall and density over coverage, a point for each truncation.

    Crosses are intervals, squares the training set in the generated one's place. Right and up is better.

    Raises:
        ValueError: no truncation.
    """
    if not evaluations:
        raise ValueError("got no truncation, expected at least one")
    figure = _bare((9.6, 4.2))
    pairs = ("recall", "precision"), ("coverage", "density")
    for axes, (variety, fidelity), colour in zip(
        figure.subplots(1, 2, squeeze=False)[0], pairs, LINE_COLOURS, strict=False
    ):
        _dress(axes)
        _draw_curve(axes, evaluations, variety, fidelity, colour)
    return figure


def _draw_curve(
    axes: "Axes", evaluations: Mapping[float, SetEvaluation], variety: str, fidelity: str, colour: str
) -> None:
    ordered = sorted(evaluations)
    points = [[evaluations[t].figures[name].estimate for t in ordered] for name in (variety, fidelity)]
    values = [[estimate.value for estimate in estimates] for estimates in points]
    errors = [
        [
            [max(0.0, e.value - e.low) for e in estimates],
            [max(0.0, e.high - e.value) for e in estimates],
        ]
        for estimates in points
    ]
    axes.errorbar(
        values[0], values[1], xerr=errors[0], yerr=errors[1], color=colour, marker="o", markersize=4, linewidth=1.2,
        elinewidth=0.6,
    )  # fmt: skip
    for truncation, x, y in zip(ordered, *values, strict=True):
        axes.annotate(
            f"{truncation:g}", (x, y), textcoords="offset points", xytext=(5, 4), color=GREY, fontsize=8
        )
    real = evaluations[ordered[-1]].figures
    axes.plot(
        [real[variety].split.value], [real[fidelity].split.value], "s", color=GREY, label="training sounds"
    )
    axes.set_xlabel(f"{variety} (variety)", color=GREY)
    axes.set_ylabel(f"{fidelity} (fidelity)", color=GREY)
    axes.set_xlim(-0.03, 1.03)
    highest = max(1.0, real[fidelity].split.value, *(max(e.value, e.high) for e in points[1]))
    axes.set_ylim(-0.03, 1.03 * highest)
    axes.legend(fontsize=8, labelcolor=GREY, frameon=False)


def neighbours_picture(
    fake: ArrayLike,
    train: ArrayLike,
    evaluation: SetEvaluation,
    *,
    count: int = 4,
    names: Sequence[str] | None = None,
) -> "Figure":
    """Spectrograms of generated sounds above the training sound nearest to each.

    The nearest of all come first, then evenly spread ones up to the farthest: a copy shows in the first column.
    `names` are the training sounds', `fake` and `train` `(N, T)`.
    """
    generated, trained = np.asarray(fake), np.asarray(train)
    order = np.argsort(evaluation.nearest_db)
    chosen = [int(order[round(i)]) for i in np.linspace(0, len(order) - 1, min(count, len(order)))]
    waves = [(generated[i], trained[evaluation.nearest[i]]) for i in chosen]
    limits = colour_range_db([wave for pair in waves for wave in pair], evaluation.sample_rate)
    figure = _bare((1.2 + 2.5 * len(chosen), 4.6))
    grid = figure.subplots(2, len(chosen), sharex=True, sharey=True, squeeze=False)
    for column, (i, pair) in enumerate(zip(chosen, waves, strict=True)):
        near = names[evaluation.nearest[i]] if names else "nearest trained on"
        titles = f"generated {i}", f"{near}, {evaluation.nearest_db[i]:.1f} dB"
        for row, (wave, title) in enumerate(zip(pair, titles, strict=True)):
            axes = grid[row][column]
            _dress(axes)
            _draw_spectrogram(axes, wave, evaluation.sample_rate, limits, mel=True)
            axes.set_title(_plain(title), color=GREY, fontsize=8)
            axes.label_outer()
    _colour_bar(figure, [axes for row in grid for axes in row])
    return figure


def confusion_table(confusion: ArrayLike, labels: Sequence[str]) -> Table:
    """Held-out sounds: a row for what each is, a column for what it was named."""
    counts = np.asarray(confusion)
    table = Table(title="held-out sounds: what they are, and what they were named", title_style="bold")
    table.add_column("", no_wrap=True)
    for label in labels:
        table.add_column(Text(label), justify="right")
    table.add_column("right", justify="right")
    for i, label in enumerate(labels):
        cells = [
            Text(str(n) if n else "·", "bold" if i == j else "dim" if not n else "")
            for j, n in enumerate(counts[i])
        ]
        total = counts[i].sum()
        table.add_row(Text(label), *cells, f"{counts[i, i] / total:.0%}" if total else "–")
    return table


def confusion_picture(confusion: ArrayLike, labels: Sequence[str]) -> "Figure":
    """The same in colours, as shares of each row."""
    counts = np.asarray(confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 1.6 + 0.55 * len(labels)
    figure = _bare((side + 0.6, side))
    axes = figure.subplots()
    _dress(axes)
    axes.imshow(shares, cmap="magma", vmin=0, vmax=1)
    names = [_plain(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set_xlabel("named", color=GREY)
    axes.set_ylabel("is", color=GREY)
    for i, row in enumerate(counts):
        for j, n in enumerate(row):
            if n:
                axes.text(
                    j,
                    i,
                    str(n),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if shares[i, j] > 0.6 else "white",
                )
    return figure
