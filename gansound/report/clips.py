"""Generated sounds to look at and to hear: grids of spectrograms, and a page with players.

The page is read offline in a plain browser: no script, nothing from the network, and relative links to the sounds
beside it.
"""

import struct
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansound.audio import read
from gansound.metrics.spectral import magnitude_stft, mel_window_samples
from gansound.report.pictures import (
    GREY,
    RANGE_DB,
    _bare,
    _draw_spectrogram,
    colour_range_db,
    mel_edges,
    write_bytes,
)
from gansound.visible import visible_html as escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = "spectrograms"
PAGE_LIMIT = 2000
"""Players on a page; a browser takes no more gladly."""
_CAPTION = 20  # characters that fit over a spectrogram of a grid, and beside it
_ROWS, _COLUMNS = 96, 192  # pixels of a small picture
# Every fifteenth colour of matplotlib's magma, as the larger pictures are drawn, and straight lines between them.
_MAGMA = (
    "000003", "09071f", "1a1041", "301065", "4a1079", "61187f", "792281", "912a80", "a9327c",
    "c23a75", "d9466a", "ec585f", "f7715b", "fc8e63", "feaa74", "fec689", "fde1a3", "fbfcbf",
)  # fmt: skip
_STYLE = """
.clips { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
.clips figure { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .6rem; }
.clips figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.clips img { height: 6rem; image-rendering: pixelated; border-radius: .3rem; }
.clips summary { font-size: .85rem; color: var(--dim); cursor: pointer; }
.clips code { font-size: .75rem; overflow-wrap: anywhere; user-select: all; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.grid { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Card:
    """One sound on a page: its file in the page's folder, what it is called, its section, how it is made again, its
    rate in Hz where it isn't the page's."""

    file: str
    title: str
    group: str = ""
    command: str = ""
    sample_rate: int | None = None


def thumbnail(sound: ArrayLike, sample_rate: int) -> bytes:
    """A small spectrogram as a PNG: all the clip across, 0 Hz to half the rate upwards, in mel.

    One scale for all sounds, 0 dB being a full-scale sine and 80 dB below it black, so that they compare.

    Shape: `(C, T)` or `(T,)`.
    """
    mono = np.atleast_2d(np.asarray(sound, np.float32)).mean(0)
    n_fft = mel_window_samples(sample_rate)
    magnitudes = magnitude_stft(mono, n_fft, max(1, mono.size // _COLUMNS), n_fft)[:_COLUMNS]
    edges = mel_edges(magnitudes.shape[1], sample_rate, _ROWS)
    loudest = np.maximum.reduceat(magnitudes, edges, axis=1) / (n_fft / 4)
    decibels = 20 * np.log10(np.maximum(loudest.T[::-1], 1e-8))
    return _png(np.clip(255 * (1 + decibels / RANGE_DB), 0, 255).astype(np.uint8))


def write_thumbnail(path: Path, sound: ArrayLike, sample_rate: int) -> None:
    """The small spectrogram of a sound file, where `write_clip_page` looks for it."""
    picture = _picture_of(path)
    picture.parent.mkdir(exist_ok=True)
    write_bytes(picture, thumbnail(sound, sample_rate))


def spectrogram_grid(
    rows: Sequence[tuple[str, Sequence[tuple[str, ArrayLike]]]], sample_rate: int, *, title: str = ""
) -> "Figure":
    """Spectrograms in rows, one colour scale for all, axes in seconds and, spaced in mel, hertz.

    Args:
        rows: each its name, and its sounds `(C, T)` or `(T,)` with their titles; rows may differ in length.
        sample_rate: of all, in Hz.
        title: above.

    Raises:
        ValueError: no sound.
    """
    columns = max((len(sounds) for _, sounds in rows), default=0)
    if not columns:
        raise ValueError("got no sounds, expected at least one to draw")
    figure = _bare((1.0 + 1.7 * columns, 0.9 + 1.35 * len(rows)))
    grid = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    drawn = [[(name, np.atleast_2d(one).mean(0)) for name, one in sounds] for _, sounds in rows]
    limits = colour_range_db([sound for row in drawn for _, sound in row], sample_rate)
    for number, ((name, _), row) in enumerate(zip(rows, drawn, strict=True)):
        for axes in grid[number, len(row) :]:
            axes.set_visible(False)
        for axes, (caption, sound) in zip(grid[number], row, strict=False):
            _draw_spectrogram(axes, sound, sample_rate, limits, mel=True)
            axes.set_title(_plain(_fitted(caption)), color=GREY, fontsize=8)
            axes.tick_params(colors=GREY, labelsize=7)
            for spine in axes.spines.values():
                spine.set_color(GREY)
            last = number == len(rows) - 1 or len(drawn[number + 1]) <= list(grid[number]).index(axes)
            axes.tick_params(labelbottom=last)
            axes.set_xlabel("seconds" if last else "", color=GREY, fontsize=8)
            axes.set_ylabel("")
        grid[number, 0].set_ylabel(
            f"{_plain(_fitted(name))}\nhertz" if name else "hertz", color=GREY, fontsize=8
        )
    grid[0, 0].set_xlim(0, max(sound.size for row in drawn for _, sound in row) / sample_rate)
    if title:
        figure.suptitle(_plain(title), color=GREY, fontsize=10)
    return figure


def write_clip_page(
    folder: Path,
    cards: Iterable[Card],
    sample_rate: int,
    *,
    title: str,
    about: Mapping[str, str],
    picture: str | None = None,
    left_out: int = 0,
) -> Path:
    """Write `index.html` with a player and a spectrogram for each sound, in sections by group.

    A sound that is newer than its small picture, or has none, gets one; one whose file is gone is left out.

    Args:
        folder: where the sounds are, and the page goes.
        cards: the sounds; the first 2,000 are shown.
        sample_rate: for the axis of the pictures, in Hz.
        title: headline.
        about: names and values under the headline.
        picture: file in the folder with all of them at one look.
        left_out: sounds that have no card, to be said.

    Raises:
        OSError: a full disk, no permission.
    """
    shown: dict[str, list[Card]] = {}
    count = 0
    for card in cards:
        path = folder / card.file
        if not path.is_file():
            continue
        if count >= PAGE_LIMIT:
            left_out += 1
            continue
        small = _picture_of(path)
        if not small.is_file() or small.stat().st_mtime_ns < path.stat().st_mtime_ns:
            write_thumbnail(path, *read(path, mono=False))
        shown.setdefault(card.group, []).append(card)
        count += 1
    page = folder / "index.html"
    lines = _lines(shown, count, sample_rate, title, about, picture, left_out)
    write_bytes(page, "\n".join(lines).encode())
    return page


def _lines(
    shown: Mapping[str, list[Card]],
    count: int,
    sample_rate: int,
    title: str,
    about: Mapping[str, str],
    picture: str | None,
    left_out: int,
) -> Iterator[str]:
    css = files("gansound.report").joinpath("page.css").read_text(encoding="utf-8")
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta name="generator" content="gansound">\n<title>{escape(title)}</title>'
    yield f"<style>{css}{_STYLE}</style></head><body><header><h1>{escape(title)}</h1>"
    rates = {card.sample_rate or sample_rate for cards in shown.values() for card in cards} or {sample_rate}
    top = f"{rates.pop() / 2000:g} kHz" if len(rates) == 1 else "half its sample rate"
    more = f"; {left_out:,} more in the folder" if left_out else ""
    yield (
        f"<p class=dim>{count:,} sound{'s' * (count != 1)}{more}. Pictures: the whole clip across, "
        f"0 to {top} upwards in mel, black {RANGE_DB:g} dB below full scale.</p>"
    )
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in about.items())
    yield f"<dl class=about>{''.join(rows)}</dl>"
    if len(shown) > 1:
        links = (
            f'<a href="#group-{i}">{escape(group) or "others"}</a> ({len(cards)})'
            for i, (group, cards) in enumerate(shown.items())
        )
        yield f"<nav>{''.join(f'<span>{link}</span>' for link in links)}</nav>"
    yield "</header><main>"
    for i, (group, cards) in enumerate(shown.items()):
        heading = escape(group) or ("others" if len(shown) > 1 else "Listen")
        yield f'<section id="group-{i}"><h2>{heading}</h2><div class=clips>'
        for card in cards:
            sound, small = quote(card.file), quote(f"{PICTURES}/{Path(card.file).stem}.png")
            again = (
                f"<details><summary>make it again</summary><code>{escape(card.command)}</code></details>"
                if card.command
                else ""
            )
            yield (
                f'<figure><figcaption><a href="{sound}">{escape(card.title)}</a></figcaption>'
                f'<img src="{small}" loading="lazy" alt="Spectrogram of {escape(card.title)}">'
                f'<audio controls preload="none" src="{sound}" aria-label="{escape(card.title)}"></audio>'
                f"{again}</figure>"
            )
        yield "</div></section>"
    if picture is not None:
        yield f'<section><h2>At one look</h2><img class=grid src="{quote(picture)}" alt="Spectrograms of the sounds">'
        yield "</section>"
    yield "</main></body></html>\n"


def _picture_of(path: Path) -> Path:
    return path.parent / PICTURES / f"{path.stem}.png"


def _fitted(text: str) -> str:
    """Two lines at most, the middle left out of what is longer: names differ at their ends."""
    if len(text) > 2 * _CAPTION:
        text = f"{text[: _CAPTION - 1]}…{text[-_CAPTION:]}"
    return "\n".join(textwrap.wrap(text, _CAPTION))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


@lru_cache(maxsize=1)
def _palette() -> bytes:
    stops = np.array([list(bytes.fromhex(colour)) for colour in _MAGMA])
    at = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8).tobytes()


def _png(indices: NDArray[np.uint8]) -> bytes:
    """A picture `(H, W)` of palette indices; matplotlib takes ten times as long, and pages have many."""
    height, width = indices.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter: none
    rows[:, 1:] = indices
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": _palette(),
        b"IDAT": zlib.compress(rows.tobytes(), 6),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
