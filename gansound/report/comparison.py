"""A comparison of systems as a picture and as JSON, and what listeners answered as tables."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from gansound.metrics.evaluation import Evaluation
from gansound.metrics.listening import (
    ANCHOR,
    REFERENCE,
    Answers,
    mean_ratings,
    pairs_of,
    rating_difference,
    told_apart,
)
from gansound.report.figures import style
from gansound.report.pictures import GREY, _bare, _dress
from gansound.report.record import evaluation_record, flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"better": "#3a9d6e", "worse": "#c94f4f", "open": GREY}


def comparison_record(evaluation: Evaluation, **about: Any) -> dict[str, Any]:
    """As `evaluation_record`, without a chief system of its own: the differences are of every two systems."""
    record = evaluation_record(evaluation, **about)
    chief = set(record["systems"][evaluation.systems[1]])
    return {
        **{name: value for name, value in record.items() if name not in chief},
        "differences": {
            f"{first} - {second}": flat(evaluation.difference(first, second))
            for first, second in pairs_of(evaluation.systems[1:])
        },
    }


def differences_picture(evaluation: Evaluation) -> "Figure":
    """The paired difference of every two systems, a row a figure: mean and interval, over the half width of the widest.

    The bar points to the right where the first of the two is better; green and red where zero is outside.
    """
    pairs = pairs_of(evaluation.systems[1:])
    found = {pair: evaluation.difference(*pair) for pair in pairs}
    names = list(dict.fromkeys(name for differences in found.values() for name in differences))
    figure = _bare((2.6 + 4.2 * len(pairs), 1.1 + 0.26 * max(1, len(names))))
    for axes, pair in zip(figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0], pairs, strict=True):
        for row, name in enumerate(names):
            if name not in found[pair]:
                continue
            difference, look = found[pair][name], style(name)
            sign = 1 if look.better == "higher" else -1
            reach = max(abs(difference.low), abs(difference.high), 1e-12)
            ends = sorted(sign * end / reach for end in (difference.low, difference.high))
            colour = _COLOURS[look.verdict(difference)]
            axes.plot(ends, [row, row], color=colour, linewidth=2)
            axes.plot([sign * difference.mean / reach], [row], "o", color=colour, markersize=5)
            mean, _ = look.interval(difference, signed=True)
            axes.text(1.08, row, mean, color=colour, fontsize=8, va="center")
        _dress(axes)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlim(-1.05, 1.5)
        axes.set_xticks([])
        axes.set_title(f"← {pair[1]} better      {pair[0]} better →", color=GREY, fontsize=9)
        axes.set_yticks(range(len(names)), [style(name).heading for name in names], fontsize=8, color=GREY)
        axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


def rating_table(answers: Answers, *, seed: int = 0) -> Table:
    """Mean ratings of a MUSHRA test, and the first system's difference from each of the others."""
    table = Table(
        title="ratings, 0 to 100", title_style="bold", caption="mean and 95 % bootstrap interval over items"
    )
    for name in ("", "rating", "items"):
        table.add_column(name, justify="left" if not name else "right")
    means = mean_ratings(answers, seed=seed)
    systems = [system for system in means if system not in (REFERENCE, ANCHOR)]
    for other in systems[1:]:
        table.add_column(Text(f"{systems[0]} − {other}"), justify="right")
    for system, mean in means.items():
        cells = [f"{mean.mean:.1f}  {mean.low:.1f} … {mean.high:.1f}", str(mean.count)]
        for other in systems[1:]:
            if system == systems[0]:
                difference = rating_difference(answers, system, other, seed=seed)
                cells.append(f"{difference.mean:+.1f}  {difference.low:.1f} … {difference.high:.1f}")
            else:
                cells.append("")
        table.add_row(Text(system), *cells)
    return table


def choice_table(answers: Answers) -> Table:
    """A/B/X trials: how many were right, and how likely that is by guessing."""
    table = Table(title="told apart (A/B/X)", title_style="bold")
    for name in ("", "right", "chance of as many by guessing"):
        table.add_column(name, justify="left" if not name else "right")
    for told in told_apart(answers):
        colour = "green" if told.guessing < 0.05 else ""
        table.add_row(
            Text(" / ".join(told.pair)),
            f"{told.correct} of {told.count}",
            Text(f"{told.guessing:.3f}", colour),
        )
    return table


def listening_record(answers: Answers, *, seed: int = 0) -> dict[str, Any]:
    """The same as JSON holds it."""
    systems = [system for system in answers.systems() if system not in (REFERENCE, ANCHOR)]
    means = mean_ratings(answers, seed=seed)
    return {
        "listener_count": len(answers.listeners),
        "listeners_left_out": answers.screened(),
        "ratings": {system: flat({"rating": mean}) for system, mean in means.items()},
        "rating_differences": {
            f"{first} - {second}": flat({"rating": rating_difference(answers, first, second, seed=seed)})
            for first, second in pairs_of(systems)
            if first in means and second in means
        },
        "told_apart": [
            {
                "pair": list(told.pair),
                "correct_count": told.correct,
                "trial_count": told.count,
                "guessing_probability": told.guessing,
            }
            for told in told_apart(answers)
        ],
    }
