"""An evaluation as tables for the terminal, by rich."""

from rich.table import Table
from rich.text import Text

from gansound.counts import some_of
from gansound.metrics.evaluation import Evaluation
from gansound.report.figures import over_how_many, style

_NARROW = (
    "pesq_wb",
    "stoi",
    "mel_distance",
    "f0_rmse_cents",
    "empty_band_percent",
    "pitch_modulation_kept_percent",
    "visqol_speech",
    "dnsmos_p808",
    "word_error_rate",
)
"""What a terminal's width holds beside a file's name; the JSON and the page have the rest."""
_COLOURS = {"better": "green", "worse": "red", "open": ""}


def summary_table(evaluation: Evaluation, *, title: str = "") -> Table:
    """One row a figure, one column a system: mean and 95 % interval. An arrow points to better."""
    table = Table(
        title=Text(title) if title else None, title_style="bold", caption="mean and 95 % bootstrap interval"
    )
    table.add_column("", no_wrap=True)
    summaries = {system: evaluation.summary(system) for system in evaluation.systems}
    shown = [system for system in evaluation.systems if summaries[system]]
    for system in shown:
        table.add_column(Text(system), justify="right")
    table.add_column("utterances", justify="right")
    for figure in figure_names(evaluation):
        cells = []
        for system in shown:
            mean, interval = style(figure).interval(summaries[system].get(figure))
            cells.append(Text(mean, "bold") + Text(f"  {interval}" if interval else "", "dim"))
        count = over_how_many(summaries[system].get(figure) for system in shown)
        all_of_them = count == str(len(evaluation.utterances))
        table.add_row(Text(style(figure).heading), *cells, Text(count, "" if all_of_them else "yellow"))
    return table


def left_out(evaluation: Evaluation) -> list[str]:
    """What is in no mean, and why: a line for each system and reason, with the first utterances of it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for utterance in evaluation.utterances:
        for system, undefined in utterance.undefined.items():
            for reason in dict.fromkeys(undefined.values()):
                reasons.setdefault((system, reason), []).append(utterance.id)
    return [
        f"{system}, {some_of(len(names), len(evaluation.utterances), 'utterance')}: {reason} ({', '.join(names[:3])}"
        f"{', …' if len(names) > 3 else ''})"
        for (system, reason), names in reasons.items()
    ]


def alarm_lines(evaluation: Evaluation) -> list[str]:
    """A line for each detector that raised an alarm on a system: on how many utterances, and the worst."""
    lines = []
    for system in evaluation.systems:
        for figure, ids in evaluation.alarms(system).items():
            values = dict(
                zip((u.id for u in evaluation.utterances), evaluation.values(system, figure), strict=True)
            )
            worst = max(ids, key=lambda name: values[name] or float("-inf"))
            judged = sum(value is not None for value in values.values())
            lines.append(
                f"{system}: {style(figure).label} in {some_of(len(ids), judged, 'utterance')}, "
                f"{style(figure).text(values[worst])} {style(figure).unit} in {worst} at most"
            )
    return lines


def difference_table(evaluation: Evaluation, first: str, second: str) -> Table:
    """Paired differences of two systems, green where `first` is better beyond doubt, red where worse."""
    table = Table(title=Text(f"{first} − {second}, paired"), title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("difference", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("utterances", justify="right")
    for figure, difference in evaluation.difference(first, second).items():
        mean, interval = style(figure).interval(difference, signed=True)
        colour = _COLOURS[style(figure).verdict(difference)]
        table.add_row(
            Text(style(figure).heading), Text(mean, colour), Text(interval, colour), str(difference.count)
        )
    return table


def speaker_table(evaluation: Evaluation, system: str) -> Table:
    """One row a speaker, one column for each of the chief figures: means, and how many utterances there are."""
    table = Table(title=Text(f"{system}, by speaker"), title_style="bold")
    table.add_column("speaker", overflow="fold")
    table.add_column("utterances", justify="right")
    figures = [figure for figure in evaluation.figures(system) if figure in _NARROW]
    for figure in figures:
        table.add_column(Text(style(figure).heading), justify="right")
    for speaker, of_speaker in evaluation.by_speaker().items():
        means = of_speaker.summary(system)
        values = [style(f).text(means[f].mean if f in means else None) for f in figures]
        table.add_row(Text(speaker), str(len(of_speaker.utterances)), *values)
    return table


def utterance_table(evaluation: Evaluation, system: str) -> Table:
    """One row an utterance, one column for each of the chief figures."""
    table = Table(title=Text(system), title_style="bold")
    table.add_column("utterance", overflow="fold")
    table.add_column("seconds", justify="right")
    figures = [figure for figure in evaluation.figures(system) if figure in _NARROW]
    for figure in figures:
        table.add_column(Text(style(figure).heading), justify="right")
    for utterance in evaluation.utterances:
        values = [style(figure).text(utterance.systems[system].get(figure)) for figure in figures]
        table.add_row(Text(utterance.id), f"{utterance.seconds:.2f}", *values)
    return table


def figure_names(evaluation: Evaluation) -> list[str]:
    """Every figure that some system has, in the order of the last system that has most of them."""
    names: dict[str, None] = {}
    for system in sorted(evaluation.systems, key=lambda s: -len(evaluation.figures(s))):
        names |= dict.fromkeys(evaluation.figures(system))
    for probes in evaluation.probes.values():
        names |= {name: None for name, value in probes.items() if value is not None}
    return list(names)
