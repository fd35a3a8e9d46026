"""Curves of several runs of training beside one another."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gansound.report.figures import STYLES
from gansound.report.pictures import GREY, LINE_COLOURS, _bare, _dress, _plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OF_CLIPS = {"kernel_distance": "kernel distance ↓", "coverage": "coverage ↑"}
_DASHES = ("-", "--", ":", "-.")
_FEW = 6
_BEHIND, _IN_FRONT = 1, 3


def runs_picture(
    logs: Mapping[str, tuple[Sequence[Mapping[str, Any]], Sequence[float]]],
    figures: Sequence[str],
    *,
    x: str = "step",
) -> "Figure":
    """One panel a figure, one colour a run; losses of training smoothed.

    What they were before is faint behind, unless many runs would hide one another.

    Args:
        logs: by the run's name the objects of its metrics.jsonl, and the hours of training up to each.
        figures: their names.
        x: `step` or `hours`.

    Raises:
        ValueError: no figure, or no run has one of them.
    """
    missing = [
        f for f in figures if not any(f in record for records, _ in logs.values() for record in records)
    ]
    if missing or not figures:
        raise ValueError(f"got figures {', '.join(missing) or 'none'}, expected some that a run has")
    columns = min(3, len(figures)) if len(figures) != 4 else 2
    rows = math.ceil(len(figures) / columns)
    width = max(6.4, 4.0 * columns)
    in_legend = len(logs) if len(logs) > 1 else 0
    legend_columns = max(1, min(6, int(width * 11 / (6 + max(map(len, logs), default=1)))))
    legend_rows = math.ceil(in_legend / legend_columns)
    figure = _bare((width, 2.7 * rows + 0.2 * legend_rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, figures, strict=False):
        _dress(axes)
        for index, (run, (records, hours)) in enumerate(logs.items()):
            over = hours if x == "hours" else [record["step"] for record in records]
            points = [(at, record[name]) for at, record in zip(over, records, strict=True) if name in record]
            if points:
                _draw(axes, np.array(points, dtype=float).T, run, index, name, faint=len(logs) <= _FEW)
        _scale(axes, x)
        axes.set_title(_plain(heading(name)), color=GREY, fontsize=10)
        axes.grid(color=GREY, alpha=0.2, linewidth=0.5)
    # One span for all: a figure of one validation would have a thousandth of a step as its own.
    spans = [axes.get_xlim() for axes in grid[: len(figures)]]
    for axes in grid[: len(figures)]:
        axes.set_xlim(min(low for low, _ in spans), max(high for _, high in spans))
    for axes in grid[len(figures) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(figures) - columns) : len(figures)]:
        axes.set_xlabel("hours of training" if x == "hours" else "step", color=GREY)
    if in_legend:
        lines = {line.get_label(): line for axes in grid for line in axes.lines if line.get_label() in logs}
        figure.legend(
            [lines[run] for run in logs if run in lines],
            [_plain(run) for run in logs if run in lines],
            loc="outside lower center",
            ncols=legend_columns,
            fontsize=9,
            labelcolor=GREY,
            frameon=False,
        )
    else:
        figure.suptitle(_plain(next(iter(logs))), color=GREY, fontsize=11)
    return figure


def smooth(values: np.ndarray) -> np.ndarray:
    """Average with weights that fall off exponentially on both sides, by e over a fiftieth of the curve.

    It doesn't lag behind a trend, and at the ends takes what there is. Shape: `(N,)` -> `(N,)`.
    """
    keep = np.exp(-50 / max(50, len(values)))
    before, after = _decaying(values, keep), _decaying(values[::-1], keep)[::-1]
    ones = _decaying(np.ones(len(values)), keep)
    averages: np.ndarray = (before + after - values) / (ones + ones[::-1] - 1)
    return averages


def _decaying(values: np.ndarray, keep: float) -> np.ndarray:
    """The sum of each value and all before it, each weighted by `keep` to the power of how long ago it was."""
    total = 0.0
    sums = np.empty(len(values))
    for i, value in enumerate(values):
        total = keep * total + value
        sums[i] = total
    return sums


def _draw(axes: "Axes", points: np.ndarray, run: str, index: int, name: str, *, faint: bool) -> None:
    colour = LINE_COLOURS[index % len(LINE_COLOURS)]
    dashes = _DASHES[index // len(LINE_COLOURS) % len(_DASHES)]
    x, values = points
    marker = ""
    if name.startswith("valid/"):
        marker = "o" if len(x) <= 40 else ""
    else:
        if faint:
            axes.plot(x, values, color=colour, linewidth=0.6, alpha=0.25, zorder=_BEHIND, label=f"_{run}")
        values = smooth(values)
    axes.plot(
        x, values, color=colour, linestyle=dashes, linewidth=1.4, marker=marker, markersize=3, zorder=_IN_FRONT,
        label=run,
    )  # fmt: skip


def _scale(axes: "Axes", x: str) -> None:
    """Limits that a single outlier doesn't set; logarithmic where all is positive and spans a decade and a half."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    drawn = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_zorder() == _IN_FRONT]
    faint = [
        np.percentile(np.asarray(line.get_ydata()), (1, 99))
        for line in axes.lines
        if line.get_zorder() == _BEHIND
    ]
    values = np.concatenate([*drawn, *faint])
    low, high = values.min(), values.max()
    if low > 0 and high / low > 30:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / 1.1, high * 1.1)
    elif high > low:
        margin = 0.05 * (high - low)
        axes.set_ylim(low - margin, high + margin)
    if x == "step":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def heading(figure: str) -> str:
    """A validation's figure by its label with an arrow to better, where one is known; a loss by its name."""
    if not figure.startswith("valid/"):
        return figure
    name = figure.removeprefix("valid/")
    return _OF_CLIPS.get(name) or (STYLES[name].heading if name in STYLES else name)
