"""A bench as tables for the terminal and as a picture. It is read as JSON holds it, see `gansound bench --json`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from gansound.counts import counted
from gansound.report.pictures import GREY, LINE_COLOURS, _bare, _dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]
RIVALS = ("plain eager", "own code", "context recomputed")


def bench_tables(bench: Record) -> list[Table]:
    """Offline, streaming and first audio for each number of threads, then memory; those with something in them."""
    tables = []
    for threads in sorted({record["threads"] for record in bench["offline"] + bench["streaming"]}):
        own = {
            name: [record for record in bench[name] if record["threads"] == threads]
            for name in ("offline", "streaming", "whole_stream")
        }
        with_threads = counted(threads, "thread")
        tables += [
            _speeds(own["offline"], "audio_s", "{:.2g} s", f"Offline, {with_threads}: times real time"),
            _speeds(
                own["streaming"], "chunk_frames", "{} fr.", f"Streaming, {with_threads}: times real time"
            ),
            _latencies(own["streaming"], own["whole_stream"], f"Latency, {with_threads}, frame by frame"),
        ]
    tables.append(_memory(bench["memory"]))
    return [table for table in tables if table.row_count]


def noise_percent(bench: Record) -> float | None:
    """Half the range of the rounds as a percentage of their median, in the middle of all timings."""
    halves = sorted(
        50 * (record["x_real_time_max"] - record["x_real_time_min"]) / record["x_real_time_median"]
        for record in bench["offline"] + bench["streaming"]
    )
    return halves[len(halves) // 2] if halves else None


def bench_picture(bench: Record) -> "Figure":
    """Times real time against the chunk, then offline; a line for each backend and precision, the rival dashed."""
    threads = sorted({record["threads"] for record in bench["streaming"]})
    names = _names(bench["offline"] + bench["streaming"])
    colours = {
        name: LINE_COLOURS[index % len(LINE_COLOURS)]
        for index, name in enumerate(name for name in names if not _is_rival(name))
    }
    figure = _bare((9.6, 0.8 + 3.2 * len(threads)))
    grid = figure.subplots(len(threads), 2, squeeze=False)
    for count, (streaming, offline) in zip(threads, grid, strict=True):
        label = counted(count, "thread")
        _draw_streaming(streaming, [r for r in bench["streaming"] if r["threads"] == count], colours)
        streaming.set_title(f"streaming, {label}", color=GREY, fontsize=10)
        _draw_offline(offline, [r for r in bench["offline"] if r["threads"] == count], colours)
        offline.set_title(f"offline, {label}", color=GREY, fontsize=10)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=8, labelcolor=GREY, frameon=False
    )
    return figure


def _speeds(records: Sequence[Record], key: str, heading: str, title: str) -> Table:
    """A row each contestant, a column each case: median (range), times the rival's, percent of the limit."""
    table = _table(
        title, "median (slowest–fastest round), times the rival's speed, share of the machine's limit"
    )
    cases = sorted({record[key] for record in records})
    for case in cases:
        table.add_column(heading.format(case), justify="right")
    for name in _names(records):
        cells = []
        for case in cases:
            found = [r for r in records if _name(r) == name and r[key] == case]
            cells.append(_speed(found[0], rival=_is_rival(name)) if found else Text("–", "dim"))
        table.add_row(Text(name, "dim" if _is_rival(name) else ""), *cells)
    return table


def _speed(record: Record, *, rival: bool) -> Text:
    digits = _digits(record["x_real_time_median"])
    low, high = _digits(record["x_real_time_min"]), _digits(record["x_real_time_max"])
    text = Text(digits, "" if rival else "bold") + Text(f" ({low}–{high})", "dim")
    more = [] if rival else [f"×{_digits(record['times_rival_median'])}"]
    if record.get("fraction_of_limit") is not None:
        more.append(f"{100 * record['fraction_of_limit']:.0f} %")
    return text + (Text("\n" + ", ".join(more)) if more else Text(""))


def _latencies(streaming: Sequence[Record], whole: Sequence[Record], title: str) -> Table:
    table = _table(
        title,
        "first audio: from the first frame, where frames come at their own pace, each pushed as it comes",
    )
    for heading in ("push, median", "99 %", "worst", "first audio", "of it waiting", "its push", "SNR"):
        table.add_column(heading, justify="right")
    for name in _names([*streaming, *whole]):
        push = next((r for r in streaming if _name(r) == name and r["chunk_frames"] == 1), {})
        first = next((r for r in whole if _name(r) == name), {})
        milliseconds = [
            push.get("push_ms_median"), push.get("push_ms_p99"), push.get("push_ms_max"),
            first.get("first_audio_ms_median"), first.get("first_audio_waits_ms"), first.get("first_audio_push_ms"),
        ]  # fmt: skip
        snr = first.get("snr_db")
        equal = "equal" if first and first["max_abs_error"] == 0 else "–"
        table.add_row(
            Text(name, "dim" if _is_rival(name) else ""),
            *("–" if value is None else f"{_digits(value)} ms" for value in milliseconds),
            equal if snr is None else f"{snr:.0f} dB",
        )
    return table


def _memory(records: Sequence[Record]) -> Table:
    seconds = f", {records[0]['audio_s']:g} s of audio" if records else ""
    table = _table(f"Memory{seconds}, 1 thread", "most that was resident while it ran; above what was before")
    table.add_column("streaming", justify="right")
    table.add_column("offline", justify="right")
    for name in _names(records):
        ways = {record["way"]: record for record in records if _name(record) == name}
        table.add_row(
            Text(name, "dim" if _is_rival(name) else ""),
            *(
                f"{ways[way]['peak_mib']:.0f} MiB (+{ways[way]['growth_mib']:.0f})" if way in ways else "–"
                for way in ("streaming", "offline")
            ),
        )
    return table


def _table(title: str, caption: str) -> Table:
    table = Table(title=Text(title), title_style="bold", caption=caption)
    table.add_column("", no_wrap=True)
    return table


def _draw_streaming(axes: "Axes", records: Sequence[Record], colours: dict[str, str]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    _dress(axes)
    for name in _names(records):
        own = sorted((r for r in records if _name(r) == name), key=lambda r: r["chunk_frames"])
        axes.errorbar(
            [r["chunk_frames"] for r in own],
            [r["x_real_time_median"] for r in own],
            yerr=[
                [r["x_real_time_median"] - r["x_real_time_min"] for r in own],
                [r["x_real_time_max"] - r["x_real_time_median"] for r in own],
            ],
            color=colours.get(name, GREY),
            linestyle="--" if _is_rival(name) else "-",
            marker="o",
            markersize=3,
            linewidth=1.2,
            elinewidth=0.7,
            label=name,
        )
    axes.axhline(1.0, color=GREY, linewidth=0.6, linestyle=":")  # below it the sound comes too late
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    chunks = sorted({r["chunk_frames"] for r in records})
    axes.xaxis.set_major_locator(FixedLocator(chunks))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("frames a push", color=GREY)
    axes.set_ylabel("times real time", color=GREY)


def _draw_offline(axes: "Axes", records: Sequence[Record], colours: dict[str, str]) -> None:
    _dress(axes)
    names, lengths = _names(records), sorted({r["audio_s"] for r in records})
    width = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        own = {r["audio_s"]: r for r in records if _name(r) == name}
        places = [
            place + (index - (len(names) - 1) / 2) * width for place, s in enumerate(lengths) if s in own
        ]
        shown = [own[s] for s in lengths if s in own]
        medians = [r["x_real_time_median"] for r in shown]
        axes.bar(
            places,
            medians,
            width,
            yerr=[
                [r["x_real_time_median"] - r["x_real_time_min"] for r in shown],
                [r["x_real_time_max"] - r["x_real_time_median"] for r in shown],
            ],
            facecolor="none" if _is_rival(name) else colours[name],
            edgecolor=GREY if _is_rival(name) else colours[name],
            linestyle="--" if _is_rival(name) else "-",
            error_kw={"ecolor": GREY, "elinewidth": 0.7},
        )
    axes.set_xticks(range(len(lengths)), [f"{seconds:.2g} s" for seconds in lengths])
    axes.set_xlabel("audio made at once", color=GREY)
    axes.set_ylabel("times real time", color=GREY)


def _name(record: Record) -> str:
    return f"{record['backend']} {record['precision']}"


def _names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(_name(record) for record in records))


def _is_rival(name: str) -> bool:
    return name.startswith(RIVALS)


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
