"""Pictures of sound, by matplotlib without its global state: every function returns a Figure.

Text is mid grey on nothing, so that a picture reads on a light page and on a dark one.
"""

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gansound.extras import require
from gansound.mel.filters import hz_to_mel, mel_to_hz
from gansound.metrics.pair import one_waveform
from gansound.metrics.spectral import magnitude_stft, mel_window_samples
from gansound.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#7d7d7d"
LINE_COLOURS = ("#3b82c4", "#d9822b", "#3a9d6e", "#b45fc2", "#c94f4f", "#8a7a2f", "#4aa3a3", "#888888")
RANGE_DB = 80.0
FLOOR_DB = -160.0
_MEL_ROWS = 96
_MEL_TICKS_HZ = (0, 500, 2000, 5000, 10000, 20000)


def spectrogram_db(audio: ArrayLike, sample_rate: int) -> NDArray[np.float32]:
    """Magnitudes in dB, 46 ms windows, a full-scale sine at 0 dB. Shape: `(T,)` -> `(n_fft // 2 + 1, F)`."""
    n_fft = mel_window_samples(sample_rate)
    magnitudes = magnitude_stft(one_waveform(audio, "audio", sample_rate), n_fft, n_fft // 4, n_fft)
    scaled = magnitudes.T / (n_fft / 4)
    decibels: NDArray[np.float32] = 20.0 * np.log10(np.maximum(scaled, 10.0 ** (FLOOR_DB / 20.0)))
    return decibels.astype(np.float32, copy=False)


def mel_edges(bins: int, sample_rate: int, rows: int) -> NDArray[np.intp]:
    """The bin at which each of `rows` rows begins that are equally high in mel, from 0 Hz to half the rate: `(rows,)`.

    On an axis of hertz a kick drum is a line at the bottom.
    """
    mels = np.linspace(0, _mel(sample_rate / 2), rows, endpoint=False)
    hertz = mel_to_hz(torch.from_numpy(mels), "htk").numpy()
    return np.rint(hertz / (sample_rate / 2) * (bins - 1)).astype(np.intp)


def colour_range_db(waveforms: Sequence[ArrayLike], sample_rate: int) -> tuple[float, float]:
    """One range for several pictures: 80 dB down from the loudest point of all."""
    top = max(float(spectrogram_db(audio, sample_rate).max()) for audio in waveforms)
    return top - RANGE_DB, top


def spectrogram(
    audio: ArrayLike,
    sample_rate: int,
    *,
    title: str = "",
    range_db: tuple[float, float] | None = None,
    size_inches: tuple[float, float] = (6.4, 2.6),
    colour_bar: bool = True,
) -> "Figure":
    """Spectrogram of `(T,)` audio, axes in seconds and hertz, colours in dB relative to a full-scale sine."""
    figure, axes = _figure(size_inches)
    _draw_spectrogram(axes, audio, sample_rate, range_db or colour_range_db([audio], sample_rate))
    axes.set_title(_plain(title), color=GREY, fontsize=10)
    if colour_bar:
        _colour_bar(figure, [axes])
    return figure


def waveform(
    audio: ArrayLike, sample_rate: int, *, title: str = "", size_inches: tuple[float, float] = (6.4, 1.8)
) -> "Figure":
    """Waveform of `(T,)` audio against seconds, as the extremes of each pixel's worth of samples."""
    samples = one_waveform(audio, "audio", sample_rate)
    figure, axes = _figure(size_inches)
    columns = min(2000, samples.size)
    edges = np.linspace(0, samples.size, columns + 1).astype(int)[:-1]
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    axes.fill_between(edges / sample_rate, low, high, color=LINE_COLOURS[0], linewidth=0.5, step="mid")
    axes.set_xlim(0, samples.size / sample_rate)
    limit = max(1e-3, 1.05 * float(np.abs(samples).max()))
    axes.set_ylim(-limit, limit)
    axes.set_xlabel("seconds", color=GREY)
    axes.set_ylabel("amplitude", color=GREY)
    axes.set_title(_plain(title), color=GREY, fontsize=10)
    return figure


def comparison(
    systems: Mapping[str, ArrayLike],
    sample_rate: int,
    *,
    title: str = "",
    zoom_seconds: tuple[float, float] | None = None,
) -> "Figure":
    """Spectrograms of several systems side by side, one colour scale for all.

    `zoom_seconds` (from, to) cuts all of them alike.

    Raises:
        ValueError: no system, or a zoom outside the shortest waveform.
    """
    if not systems:
        raise ValueError("got no waveforms, expected at least one system to draw")
    waves = {name: one_waveform(audio, name, sample_rate) for name, audio in systems.items()}
    offset_seconds = 0.0
    if zoom_seconds is not None:
        shortest = min(audio.size for audio in waves.values()) / sample_rate
        if not 0 <= zoom_seconds[0] < zoom_seconds[1] <= shortest:
            raise ValueError(f"got zoom_seconds {zoom_seconds}, expected 0 <= from < to <= {shortest:.3f}")
        first, last = (round(seconds * sample_rate) for seconds in zoom_seconds)
        waves = {name: audio[first:last] for name, audio in waves.items()}
        offset_seconds = zoom_seconds[0]
    figure = _bare((1.4 + 3.4 * len(waves), 3.0))
    grid = figure.subplots(1, len(waves), sharey=True, squeeze=False)[0]
    limits = colour_range_db(list(waves.values()), sample_rate)
    for axes, (name, audio) in zip(grid, waves.items(), strict=True):
        _dress(axes)
        _draw_spectrogram(axes, audio, sample_rate, limits, offset_seconds=offset_seconds)
        axes.set_title(_plain(name), color=GREY, fontsize=10)
        if axes is not grid[0]:
            axes.set_ylabel("")
    if title:
        figure.suptitle(_plain(title), color=GREY, fontsize=11)
    _colour_bar(figure, list(grid))
    return figure


def png_bytes(figure: "Figure", *, dpi: int = 110) -> bytes:
    """The figure as a PNG with a transparent background."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # No date and no version inside: the same figure gives the same bytes.
    figure.savefig(buffer, format="png", dpi=dpi, transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: "Figure", path: str | Path, *, dpi: int = 110) -> None:
    """Write the figure as a PNG, beside and then renamed."""
    write_bytes(path, png_bytes(figure, dpi=dpi))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file beside its place and rename it, so that it is there whole or not at all.

    A device, a pipe or a link (`/dev/stdout`) is written through, never replaced.
    """
    path = Path(path)
    try:
        _write_bytes(path, data)
    except OSError as error:  # that of a write names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_bytes(path: Path, data: bytes) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(data)
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar sign would start its mathematics."""
    return visible(text).replace("$", r"\$")


def _mel(hertz: float) -> float:
    return float(hz_to_mel(torch.tensor(hertz, dtype=torch.float64), "htk"))


def _bare(size_inches: tuple[float, float]) -> "Figure":
    require("A picture", "matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=size_inches, layout="constrained", facecolor="none")


def _figure(size_inches: tuple[float, float]) -> "tuple[Figure, Axes]":
    figure = _bare(size_inches)
    axes = figure.subplots()
    _dress(axes)
    return figure, axes


def _dress(axes: "Axes") -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=GREY, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(GREY)


def _draw_spectrogram(
    axes: "Axes",
    audio: ArrayLike,
    sample_rate: int,
    range_db: tuple[float, float],
    *,
    offset_seconds: float = 0.0,
    mel: bool = False,
) -> None:
    from matplotlib.ticker import FuncFormatter

    decibels = spectrogram_db(audio, sample_rate)
    hop_seconds = mel_window_samples(sample_rate) / 4 / sample_rate
    half_bin, top = sample_rate / 4 / (decibels.shape[0] - 1), sample_rate / 2
    if mel:
        decibels = np.maximum.reduceat(decibels, mel_edges(len(decibels), sample_rate, _MEL_ROWS), axis=0)
        half_bin, top = 0.0, _mel(top)
    # Frames and bins are centred on their time and frequency, so the picture reaches half of one further each way.
    edges_seconds = (
        offset_seconds - hop_seconds / 2,
        offset_seconds + (decibels.shape[1] - 0.5) * hop_seconds,
    )
    axes.imshow(
        decibels,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=range_db[0],
        vmax=range_db[1],
        extent=(*edges_seconds, -half_bin, top + half_bin),
    )
    seconds = np.asarray(audio).size / sample_rate
    axes.set_xlim(offset_seconds, offset_seconds + seconds)
    axes.set_ylim(0, top)
    if mel:
        ticks = [hertz for hertz in _MEL_TICKS_HZ if hertz <= sample_rate / 2]
        axes.set_yticks([_mel(hertz) for hertz in ticks], [f"{hertz}" for hertz in ticks])
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda hz, _: f"{hz:g}"))
    axes.set_xlabel("seconds", color=GREY)
    axes.set_ylabel("hertz", color=GREY)


def _colour_bar(figure: "Figure", axes: "list[Axes]") -> None:
    bar = figure.colorbar(axes[0].images[0], ax=axes, pad=0.01, fraction=0.03)
    bar.set_label("dB", color=GREY)
    bar.ax.tick_params(colors=GREY, labelsize=8)
    bar.outline.set_edgecolor(GREY)  # type: ignore[operator]
