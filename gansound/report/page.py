"""An evaluation as an HTML page with players and spectrograms, read offline in a plain browser.

No script and nothing from the network. Small pages carry their sound and pictures inside, as base64, in one file that
can be mailed; larger ones keep them in `assets/` beside `index.html`.
"""

import base64
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gansound.audio import write
from gansound.counts import counted
from gansound.extras import require
from gansound.metrics.evaluation import GROUND_TRUTH, Evaluation, Item, Utterance
from gansound.report.figures import over_how_many, style
from gansound.report.pictures import colour_range_db, png_bytes, spectrogram, write_bytes
from gansound.report.tables import alarm_lines, figure_names, left_out
from gansound.visible import visible_html as escape

EMBED_LIMIT_BYTES = 12_000_000
"""Pages whose sound and pictures are smaller than this become one file."""
_MIME = {".flac": "audio/flac", ".png": "image/png"}
_UNDER_PLAYER = ("pesq_wb", "mel_distance", "f0_rmse_cents", "dnsmos_p808", "word_error_rate")


class EvaluationPage:
    """Gathers sound and pictures while an evaluation runs, then writes the page.

    `add` fits `evaluate(on_audio=...)`. Assets wait in a temporary folder, which `close` (or leaving the `with`
    block) removes; nothing appears in `folder` before `write`.

    Args:
        folder: where `index.html` goes; made when absent.
        sample_rate: of the waveforms that come.
        title: headline.
        about: names and values under the headline (model, data, date, licence).
        embed: sound and pictures inside the page (True), beside it (False), or by size ("auto").
        limit: utterances with players; the others have their figures only.

    Raises:
        MissingPackage: matplotlib isn't installed.
        ValueError: `folder` is a file, or can't be made.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_rate: int,
        *,
        title: str,
        about: Mapping[str, str] | None = None,
        embed: bool | Literal["auto"] = "auto",
        limit: int | None = None,
    ) -> None:
        require("A page with spectrograms", "matplotlib")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: is a file, expected a folder to write the page into")
        self.sample_rate = sample_rate
        self.title = title
        self.about = dict(about or {})
        self.embed = embed
        self.limit = limit
        self._waiting = tempfile.TemporaryDirectory(prefix="gansound-page-")
        self._assets: dict[str, dict[str, str]] = {}

    def __enter__(self) -> "EvaluationPage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what waits."""
        self._waiting.cleanup()

    def add(self, item: Item, waveforms: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the sound and the spectrograms of one item: 16-bit FLAC, one colour scale for all its systems."""
        if self.limit is not None and len(self._assets) >= self.limit:
            return
        number = len(self._assets) + 1
        limits = colour_range_db(list(waveforms.values()), self.sample_rate)
        names = self._assets.setdefault(item.id, {})
        for index, (system, audio) in enumerate(waveforms.items()):
            names[system] = f"{number:04d}-{index}"
            stem = Path(self._waiting.name) / names[system]
            write(stem.with_suffix(".flac"), audio, self.sample_rate, subtype="PCM_16")
            picture = spectrogram(
                audio, self.sample_rate, range_db=limits, size_inches=(4.6, 2.4), colour_bar=False
            )
            stem.with_suffix(".png").write_bytes(png_bytes(picture))

    def write(self, evaluation: Evaluation) -> Path:
        """Write `index.html`, and `assets/` where they are too large to go inside; returns the page's path."""
        kept = [path for path in sorted(Path(self._waiting.name).iterdir()) if path.suffix in _MIME]
        small = sum(path.stat().st_size for path in kept) <= EMBED_LIMIT_BYTES
        inside = small if self.embed == "auto" else self.embed
        self.folder.mkdir(parents=True, exist_ok=True)
        if not inside and kept:
            (self.folder / "assets").mkdir(exist_ok=True)
            for path in kept:
                write_bytes(self.folder / "assets" / path.name, path.read_bytes())
        page = self.folder / "index.html"
        write_bytes(page, self.html(evaluation, inside=inside).encode())
        return page

    def html(self, evaluation: Evaluation, *, inside: bool = True) -> str:
        """The page as text; `inside` puts sound and pictures into it."""
        return "\n".join(self._lines(evaluation, inside))

    def _lines(self, evaluation: Evaluation, inside: bool) -> Iterator[str]:
        css = files("gansound.report").joinpath("page.css").read_text(encoding="utf-8")
        yield "<!doctype html>"
        yield '<html lang="en"><head><meta charset="utf-8">'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<title>{escape(self.title)}</title>"
        yield f"<style>{css}</style></head><body>"
        yield f"<header><h1>{escape(self.title)}</h1>"
        minutes = sum(u.seconds for u in evaluation.utterances) / 60
        yield (
            f"<p class=dim>{counted(len(evaluation.utterances), 'utterance')}, {minutes:.1f} minutes, "
            f"{evaluation.sample_rate} Hz. Copy synthesis: each recording's mel spectrogram turned back into sound."
            "</p>"
        )
        if self.about:
            rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in self.about.items())
            yield f"<dl class=about>{''.join(rows)}</dl>"
        yield "</header><main>"
        if evaluation.utterances:
            yield from _summary(evaluation)
            yield from _listed("Alarms", alarm_lines(evaluation))
            yield from _listed("Not in the means", left_out(evaluation))
            yield from _differences(evaluation)
            yield "<section><h2>Listen</h2>"
            for utterance in evaluation.utterances:
                if utterance.id in self._assets:
                    yield from self._utterance(utterance, inside)
            yield "</section>"
            yield from _per_utterance(evaluation)
        yield from _listed("Failed", [f"{failure.id}: {failure.reason}" for failure in evaluation.failures])
        yield from _legend(evaluation)
        yield "</main></body></html>"

    def _utterance(self, utterance: Utterance, inside: bool) -> Iterator[str]:
        yield f"<article><h3>{escape(utterance.id)}</h3>"
        yield f"<p class=dim>{escape(utterance.text or '')} {utterance.seconds:.1f} s</p><div class=systems>"
        preload = "metadata" if inside else "none"
        for system, name in self._assets[utterance.id].items():
            sound, picture = (self._source(name + suffix, inside) for suffix in (".flac", ".png"))
            figures = utterance.systems[system]
            shown = [f for f in _UNDER_PLAYER if f in figures]
            text = ", ".join(f"{escape(style(f).label)} <b>{style(f).text(figures[f])}</b>" for f in shown)
            yield (
                f"<figure><figcaption>{escape(system)}</figcaption>"
                f'<audio controls preload="{preload}" src="{sound}" '
                f'aria-label="{escape(utterance.id)}, {escape(system)}"></audio>'
                f'<img src="{picture}" loading="lazy" alt="Spectrogram of {escape(utterance.id)}, {escape(system)}">'
                f"<p>{text}</p></figure>"
            )
        yield "</div></article>"

    def _source(self, name: str, inside: bool) -> str:
        if not inside:
            return f"assets/{name}"
        path = Path(self._waiting.name) / name
        return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _summary(evaluation: Evaluation) -> Iterator[str]:
    summaries = {system: evaluation.summary(system) for system in evaluation.systems}
    shown = [system for system in evaluation.systems if summaries[system]]
    yield "<section><h2>In all</h2><div class=scroll><table>"
    yield "<caption>Mean and 95 % bootstrap interval over utterances. The arrow points to better.</caption>"
    headings = "".join(f"<th>{escape(system)}</th>" for system in shown)
    yield f"<thead><tr><th></th>{headings}<th>utterances</th></tr></thead><tbody>"
    for figure in figure_names(evaluation):
        yield f"<tr><th>{escape(style(figure).heading)}</th>"
        for system in shown:
            mean, interval = style(figure).interval(summaries[system].get(figure))
            yield f"<td>{mean}<small>{interval}</small></td>"
        yield f"<td>{over_how_many(summaries[system].get(figure) for system in shown)}</td></tr>"
    yield "</tbody></table></div></section>"


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"<section><h2>{title}</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul></section>"


def _differences(evaluation: Evaluation) -> Iterator[str]:
    model = evaluation.systems[1]
    for other in (*evaluation.systems[2:], GROUND_TRUTH):
        differences = evaluation.difference(model, other)
        if not differences:
            continue
        yield f"<section><h2>{escape(model)} against {escape(other)}</h2><div class=scroll><table>"
        yield (
            f"<caption>Paired difference, {escape(model)} minus {escape(other)}; coloured where its interval is "
            "clear of zero.</caption><thead><tr><th></th><th>difference</th><th>95 % interval</th>"
            "<th>utterances</th></tr></thead><tbody>"
        )
        for figure, difference in differences.items():
            mean, interval = style(figure).interval(difference, signed=True)
            verdict = style(figure).verdict(difference)
            said = "" if verdict == "open" else f" {verdict}"
            yield (
                f"<tr><th>{escape(style(figure).heading)}</th><td class={verdict}>{mean}{said}</td>"
                f"<td>{interval}</td><td>{difference.count}</td></tr>"
            )
        yield "</tbody></table></div></section>"


def _per_utterance(evaluation: Evaluation) -> Iterator[str]:
    yield "<section><h2>Each utterance</h2>"
    for system in evaluation.systems:
        figures = evaluation.figures(system)
        if not figures:
            continue
        yield f"<h3>{escape(system)}</h3><div class=scroll><table><thead><tr><th>utterance</th><th>seconds</th>"
        yield "".join(f"<th>{escape(style(figure).heading)}</th>" for figure in figures)
        yield "</tr></thead><tbody>"
        for utterance in evaluation.utterances:
            reasons = utterance.undefined.get(system, {})
            yield f"<tr><th>{escape(utterance.id)}</th><td>{utterance.seconds:.2f}</td>"
            for figure in figures:
                why = f' title="{escape(reasons[figure])}"' if figure in reasons else ""
                yield f"<td{why}>{style(figure).text(utterance.systems[system].get(figure))}</td>"
            yield "</tr>"
        yield "</tbody></table></div>"
    yield "</section>"


def _legend(evaluation: Evaluation) -> Iterator[str]:
    yield "<section><h2>What the figures are</h2><dl class=about>"
    for figure in figure_names(evaluation):
        yield f"<dt>{escape(style(figure).label)}</dt><dd>{escape(style(figure).meaning)}</dd>"
    yield "</dl></section>"
