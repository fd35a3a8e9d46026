"""Runs of training as tables for the terminal; they take runs as `gansound runs --json` has them."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from gansound.counts import counted
from gansound.report.run_curves import heading

Record = Mapping[str, Any]
_STATES = {
    "finished": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "interrupted": "yellow",
    "empty": "dim", "unreadable": "red",
}  # fmt: skip
_DISPENSABLE = ("gansound", "resumed", "recipe", "started", "s/step", "trained")


def runs_table(runs: Sequence[Record], figures: Sequence[str], *, width: int = 200) -> Table:
    """One row a run, one column for each of the figures; what doesn't fit into the width is left out, and named."""
    for count in range(len(_DISPENSABLE) + 1):
        left_out = _DISPENSABLE[:count]
        table = _runs_table(runs, figures, left_out)
        if Console(width=10_000).measure(table).maximum <= width:
            break
    if left_out:
        table.caption = f"left out, for want of width: {', '.join(left_out)}"
    return table


def _runs_table(runs: Sequence[Record], figures: Sequence[str], left_out: Sequence[str]) -> Table:
    columns: dict[str, tuple[JustifyMethod, list[Text]]] = {
        "run": ("left", [Text(run["name"], "bold") for run in runs]),
        "recipe": ("left", [Text(run["recipe"] or run["task"] or "–") for run in runs]),
        "step": ("right", [_of_steps(run) for run in runs]),
        **({"checkpoint": ("right", [_checkpoint(run) for run in runs])} if any(map(_differs, runs)) else {}),
        "state": ("left", [Text(run["state"], _STATES.get(run["state"], "")) for run in runs]),
        **{
            heading(name): ("right", [_figure_cell(run["figures"].get(name)) for run in runs])
            for name in figures
        },
        "s/step": ("right", [Text(_number(run["step_seconds_median"])) for run in runs]),
        "trained": ("right", [Text(_time(run["training_hours"])) for run in runs]),
        "started": ("left", [Text(_minute(run["started"])) for run in runs]),
        "resumed": ("right", [Text(str(run["resumes"])) for run in runs]),
        "gansound": ("left", [_version(run) for run in runs]),
    }
    shown = {name: column for name, column in columns.items() if name not in left_out}
    table = Table(box=None, header_style="bold", pad_edge=False, caption_style="dim", caption_justify="left")
    for name, (justify, _) in shown.items():
        table.add_column(name, justify=justify, overflow="fold")
    for cells in zip(*(cells for _, cells in shown.values()), strict=True):
        table.add_row(*cells)
    return table


def run_detail(run: Record) -> RenderableType:
    """All there is to say of one run."""
    head = Text.assemble((run["name"], "bold"), "  ", _state(run))
    what = " · ".join(part for part in (run["recipe"], run["task"], run["generator"]) if part)
    lines = [
        head,
        Text(f"{what or 'unknown recipe'}, step ") + _of_steps(run) + (_newest(run) if _differs(run) else ""),
        Text(
            f"{_time(run['training_hours'])} of training, {_number(run['step_seconds_median'])} s a step, resumed "
            f"{counted(run['resumes'], 'time')}"
        ),
    ]
    parts: list[RenderableType] = [*lines]
    if run["figures"]:
        parts += [Text(), _figures_table(run["figures"])]
    if run["sessions"]:
        parts += [Text(), _sessions_table(run["sessions"]), *_last_session(run["sessions"][-1])]
    counts = run["events"]["counts"]
    if counts:
        parts += [Text(), Text("events: " + ", ".join(f"{count} {name}" for name, count in counts.items()))]
        for event in run["events"]["last"]:
            parts.append(
                Text(f"  step {event.get('step', '?')}: {event.get('event', '')}: {event.get('message', '')}")
            )
    parts.append(Text())
    for checkpoint in run["checkpoints"]:
        parts.append(Text(f"checkpoints/{checkpoint['name']}, {checkpoint['mib']:.1f} MiB"))
    if not run["checkpoints"]:
        parts.append(Text("no checkpoint"))
    if run["best_model"]:
        best = run["best_model"]
        how = ", ".join(f"{name} {value:.4g}" for name, value in best["validation"].items())
        parts.append(Text(f"the best model, of step {best['step']} ({how}): {best['folder']}"))
    return Group(*parts)


def differences_table(found: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Table:
    """The keys in which recipes differ, as `gansound.engine.history.differences` finds them: who has which value."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("key", "value", "runs"):
        table.add_column(column, overflow="fold")
    for key, values in found.items():
        runs: dict[str, list[str]] = {}
        for name in names:
            runs.setdefault(_value(values[name]) if name in values else "(not set)", []).append(name)
        for i, (value, own) in enumerate(runs.items()):
            table.add_row(Text("" if i else key), Text(value, "bold"), Text(", ".join(own)))
    return table


def _figures_table(figures: Mapping[str, Record]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("figure")
    for column in ("last", "at step", "best", "at step"):
        table.add_column(column, justify="right")
    for name, own in figures.items():
        best = () if own["best"] is None else (_number(own["best"]), str(own["best_step"]))
        table.add_row(Text(name), _number(own["last"]), str(own["last_step"]), *best)
    return table


def _sessions_table(sessions: Sequence[Record]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("started", "from step", "ended", "at step", "how", "host", "devices", "gansound", "torch"):
        table.add_column(name, overflow="fold", justify="right" if name.endswith("step") else "left")
    for session in sessions:
        end = session.get("end") or {}
        gpus = [str(gpu.get("name")) for gpu in session.get("gpus") or ()]
        devices = (
            f"{len(gpus)} × {gpus[0]}"
            if gpus
            else f"{session.get('cpu')}, {counted(session.get('threads', 1), 'thread')}"
        )
        processes = session.get("processes", 1)
        table.add_row(
            Text(_minute(session["started"])),
            Text(str(session["step"])),
            Text(_minute(end.get("ended"))),
            Text(str(end.get("step", "–"))),
            Text(str(end.get("message") or end.get("how", "no end written"))),
            Text(str(session.get("host"))),
            Text(devices + (f", {processes} processes" if processes != 1 else "")),
            _version({
                "gansound": session.get("gansound"), **(session.get("gansound_git") or {"commit": None, "dirty": None})
            }),
            Text(str(session.get("torch"))),
        )  # fmt: skip
    return table


def _last_session(session: Record) -> list[Text]:
    command = shlex.join(str(part) for part in session.get("command") or ())
    git = session.get("git") or {}
    at = (
        f", commit {git['commit'][:7]}{' and changes' if git.get('dirty') else ''}"
        if git.get("commit")
        else ""
    )
    return [
        Text(f"command: {command}", "dim"),
        Text(f"in {session.get('working_directory')}{at}", "dim"),
    ]


def _state(run: Record) -> Text:
    state, why = run["state"], run["why"]
    text = Text(state, _STATES.get(state, ""))
    return text + Text(f": {why if len(why) <= 100 else why[:99] + '…'}") if why else text


def _of_steps(run: Record) -> Text:
    return Text(f"{run['step']}/{run['steps'] if run['steps'] is not None else '?'}")


def _differs(run: Record) -> bool:
    """Whether the run goes on from another step than the last that is logged."""
    return bool((run["checkpoint_step"] or 0) != run["step"])


def _checkpoint(run: Record) -> Text:
    return Text("–", "dim") if run["checkpoint_step"] is None else Text(str(run["checkpoint_step"]))


def _newest(run: Record) -> Text:
    step = run["checkpoint_step"]
    return Text(" logged, " + ("no checkpoint yet" if step is None else f"goes on from step {step}"))


def _figure_cell(figure: Record | None) -> Text:
    if figure is None:
        return Text("–", "dim")
    if figure["best"] is None:
        return Text(_number(figure["last"]), "bold")
    best = Text(_number(figure["best"]), "bold") + Text(f" @ {figure['best_step']}", "dim")
    return (
        best
        if figure["best_step"] == figure["last_step"]
        else best + Text(f", last {_number(figure['last'])}")
    )


def _version(run: Record) -> Text:
    commit = f" {run['commit'][:7]}{'+' if run['dirty'] else ''}" if run["commit"] else ""
    return Text(f"{run['gansound'] or '–'}{commit}")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("gansound.") else value
    return json.dumps(value, ensure_ascii=False, default=str)


def _minute(moment: Any) -> str:
    return str(moment or "–")[:16].replace("T", " ")


def _time(hours: float | None) -> str:
    """In the unit that reads best; a dash where it isn't known."""
    if hours is None:
        return "–"
    if hours < 2:
        return f"{hours * 60:.3g} min" if hours * 60 >= 2 else f"{hours * 3600:.3g} s"
    return f"{hours:.1f} h"


def _number(value: float | None) -> str:
    """Three significant digits, without an exponent where that is readable."""
    if value is None:
        return "–"
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
