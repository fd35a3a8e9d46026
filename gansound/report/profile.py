"""The profile of a training step as tables for the terminal and as a picture, from what `profile.json` holds."""

import textwrap
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from gansound.counts import counted
from gansound.report.pictures import GREY, LINE_COLOURS, _bare, _dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]

_COLOURS = {
    "data": LINE_COLOURS[1],
    "generator": LINE_COLOURS[0],
    "discriminators": LINE_COLOURS[3],
    "communication": LINE_COLOURS[4],
    "rest": LINE_COLOURS[7],
}
_LEAST_NAMED = 0.07
"""Share of the step from which a group's name fits into its part of the bar."""


def section_table(record: Record) -> Table:
    """A row each section that took time, by group; the means add up to the step."""
    table = Table(
        title=Text(f"A training step, mean of {record['steps']}: {_ms(record['step']['ms_mean'])} ms"),
        title_style="bold",
        caption=_about(record),
    )
    table.add_column("", no_wrap=True)
    for heading in ("mean ms", "median", "p95", "share"):
        table.add_column(heading, justify="right")
    group = ""
    for one in record["sections"]:
        if one["ms_mean"] <= 0:
            continue
        if one["group"] != group:
            group = one["group"]
            table.add_section()
        table.add_row(
            Text(one["section"], _COLOURS[group]),
            _ms(one["ms_mean"]),
            Text(_ms(one["ms_median"]), "dim"),
            Text(_ms(one["ms_p95"]), "dim"),
            Text(f"{one['share']:.1%}", "bold" if one["share"] >= 0.1 else ""),
        )
    table.add_section()
    step = record["step"]
    table.add_row("a step", *(_ms(step[name]) for name in ("ms_mean", "ms_median", "ms_p95")), "100%")
    return table


def operator_table(record: Record) -> Table:
    """The operators that take most time by themselves."""
    table = Table(title="Operators, by the time they take themselves", title_style="bold")
    table.add_column("", overflow="fold")
    for heading in ("ms a step", "calls", "share"):
        table.add_column(heading, justify="right")
    for one in record["operators"]:
        table.add_row(
            Text(one["operator"]),
            _ms(one["self_ms_a_step"]),
            f"{one['calls_a_step']:.0f}",
            f"{one['share']:.1%}",
        )
    return table


def profile_picture(record: Record) -> "Figure":
    """The step as one bar by group, and below it a bar each section, each from where the one above ends."""
    sections = [one for one in record["sections"] if one["share"] >= 0.0005]
    figure = _bare((8.4, 1.7 + 0.24 * len(sections)))
    above, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [1.6, len(sections)], "hspace": 0.02}
    )
    whole = record["step"]["ms_mean"]
    _draw_groups(above, record, whole)
    _draw_sections(below, sections, whole)
    pace = f"{_ms(whole)} ms a step, {record['audio_seconds_per_second']:.3g} s of audio a second"
    lines = [pace, *textwrap.wrap(_about(record), 100)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", color=GREY, fontsize=9)
    return figure


def _draw_groups(axes: "Axes", record: Record, whole: float) -> None:
    axes.axis("off")
    at = 0.0
    for group, colour in _COLOURS.items():
        share = record["group_shares"].get(group, 0.0)
        axes.barh(0, share * whole, left=at, color=colour, height=0.8)
        if share >= _LEAST_NAMED:
            fits = share * 60 > len(group) + 5
            axes.text(
                at + share * whole / 2,
                0,
                f"{group} {share:.0%}" if fits else f"{share:.0%}",
                ha="center",
                va="center",
                color="white",
                fontsize=8,
            )
        at += share * whole


def _draw_sections(axes: "Axes", sections: list[Record], whole: float) -> None:
    _dress(axes)
    at = 0.0
    for row, one in enumerate(sections):
        axes.barh(row, one["ms_mean"], left=at, color=_COLOURS[one["group"]], height=0.7)
        end = at + one["ms_mean"]
        # Beside the bar, where there is room, else in it.
        where, shift, side, colour = (end, 4, "left", GREY)
        if end > 0.8 * whole:
            where, shift, side, colour = (
                (at, -4, "right", GREY) if at > 0.2 * whole else (at, 4, "left", "white")
            )
        axes.annotate(
            f"{_ms(one['ms_mean'])} ms  {_percent(one['share'])}",
            (where, row),
            (shift, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            color=colour,
            fontsize=8,
        )
        at = end
    axes.set_yticks(range(len(sections)), [one["section"] for one in sections])
    for tick, one in zip(axes.get_yticklabels(), sections, strict=True):
        tick.set_color(_COLOURS[one["group"]])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, whole)
    axes.set_xlabel("ms", color=GREY)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _about(record: Record) -> str:
    parts = [
        record["recipe"],
        f"batch {record['batch_size']}"
        + f" in {record['micro_batches']} parts" * (record["micro_batches"] > 1),
        f"{record['critic_steps']} critic steps" * (record["critic_steps"] > 1),
        record["precision"] + ", compiled" * record["compile"],
        record["device"] + f", {record['processes']} processes" * (record["processes"] > 1),
        counted(record["threads"], "thread"),
    ]
    if record["discriminators_join_at_step"]:
        parts.append(f"as from step {record['discriminators_join_at_step']}, where the discriminators join")
    return "; ".join(part for part in parts if part)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
