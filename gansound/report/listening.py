"""A page for blind listening, which needs nothing but a browser: A/B/X trials and ratings beside a hidden reference.

Sounds lie beside the page under names drawn by lot, so neither a file's name nor its place tells the system; which is
which is in the page for the CSV's sake, encoded, to be found only by who looks for it. The reference and its hidden
copy, and X and the one it is, are files of their own. Order and X are drawn anew for each listener, in the browser.
"""

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansound.audio import write
from gansound.counts import counted
from gansound.metrics.evaluation import GROUND_TRUTH, Item
from gansound.metrics.listening import ANCHOR, COLUMNS, REFERENCE, pairs_of
from gansound.report.pictures import write_bytes

ANCHOR_HZ = 3500.0
_EDGE_HZ = 250.0


class ListeningPage:
    """Gathers sounds while a comparison runs, then writes the page.

    `add` fits `evaluate(on_audio=...)`. Nothing appears in `folder` before `write`.

    Args:
        folder: where `index.html` and `sounds/` go; made when absent.
        sample_rate: of the waveforms that come.
        items: ids of the recordings to listen to; None for all.
        seed: of the files' names.

    Raises:
        ValueError: `folder` is a file.
    """

    def __init__(
        self, folder: str | Path, sample_rate: int, *, items: set[str] | None = None, seed: int = 0
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: is a file, expected a folder to write the page into")
        self.sample_rate = sample_rate
        self.items = items
        self._generator = np.random.default_rng(seed)
        self._waiting = tempfile.TemporaryDirectory(prefix="gansound-listening-")
        self._names: set[str] = set()
        self.trials: list[dict[str, Any]] = []
        """What the page asks, in the order of adding; sounds are names of files, `key` tells whose."""
        self.key: dict[str, str] = {}

    def __enter__(self) -> "ListeningPage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what waits."""
        self._waiting.cleanup()

    def add(self, item: Item, waveforms: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the sounds of one item, ground truth among them, for a trial of ratings and one of A/B/X a pair."""
        if self.items is not None and item.id not in self.items:
            return
        reference = waveforms[GROUND_TRUTH]
        systems = {name: audio for name, audio in waveforms.items() if name != GROUND_TRUTH}
        rated = {REFERENCE: reference, **systems, ANCHOR: anchor(reference, self.sample_rate)}
        self.trials.append(
            {
                "test": "mushra",
                "item": item.id,
                "open": self._keep(reference, REFERENCE),
                "sounds": [self._keep(audio, system) for system, audio in rated.items()],
            }
        )
        for first, second in pairs_of(list(systems)):
            self.trials.append(
                {
                    "test": "abx",
                    "item": item.id,
                    "sounds": [self._keep(systems[name], name) for name in (first, second)],
                    "x": [self._keep(systems[name], name) for name in (first, second)],
                }
            )

    def write(self) -> Path:
        """Write `index.html` and `sounds/`; returns the page's path.

        Raises:
            ValueError: no item was kept.
        """
        if not self.trials:
            raise ValueError(
                "got no recording to listen to, expected at least one that every system could be judged on"
            )
        (self.folder / "sounds").mkdir(parents=True, exist_ok=True)
        told = hashlib.blake2b(json.dumps([self.trials, self.key]).encode(), digest_size=8)
        for path in sorted(Path(self._waiting.name).iterdir()):
            sound = path.read_bytes()
            told.update(sound)
            write_bytes(self.folder / "sounds" / path.name, sound)
        page = self.folder / "index.html"
        write_bytes(page, "\n".join(self._lines(told.hexdigest())).encode())
        return page

    def _keep(self, audio: NDArray[np.float32], system: str) -> str:
        name = ""
        while not name or name in self._names:
            name = self._generator.bytes(5).hex()
        self._names.add(name)
        self.key[name] = system
        write(Path(self._waiting.name) / f"{name}.flac", audio, self.sample_rate, subtype="PCM_16")
        return name

    def _lines(self, told: str) -> Iterator[str]:
        room = files("gansound.report")
        style, script = (
            room.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "listening.js")
        )
        extra = room.joinpath("listening.css").read_text(encoding="utf-8")
        data = {
            "id": told,  # the browser keeps answers by it: those to another page's sounds aren't taken for this one's
            "trials": self.trials,
            "columns": COLUMNS,
            "key": base64.b64encode(json.dumps(self.key).encode()).decode(),
        }
        # "</" would end the script; JSON may write it otherwise.
        packed = json.dumps(data).replace("</", "<\\/")
        ratings = sum(trial["test"] == "mushra" for trial in self.trials)
        yield "<!doctype html>"
        yield '<html lang="en"><head><meta charset="utf-8">'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<title>Listening test</title><style>{style}{extra}</style></head><body>"
        yield "<header><h1>Listening test</h1>"
        yield (
            f"<p>{counted(ratings, 'recording')} to rate, then {counted(len(self.trials) - ratings, 'trial')} of "
            f"“which of the two is X?”. "
            "Use headphones in a quiet room and set the volume once. Answers stay in this browser until you save "
            "them; you may stop and come back.</p></header>"
        )
        yield '<main id="test"><noscript>This page needs JavaScript; it loads nothing from afar.</noscript></main>'
        yield f'<script type="application/json" id="data">{packed}</script>'
        yield f"<script>{script}</script></body></html>"


def anchor(audio: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """The low anchor of ITU-R BS.1534: low-passed at 3.5 kHz, linear phase. Shape: `(T,)` -> `(T,)`."""
    pad = round(0.05 * sample_rate)
    size = 1 << (audio.size + 2 * pad - 1).bit_length()
    spectrum = np.fft.rfft(np.pad(audio, (pad, size - pad - audio.size)))
    beyond = np.clip((np.fft.rfftfreq(size, 1 / sample_rate) - ANCHOR_HZ) / _EDGE_HZ, 0.0, 1.0)
    low = np.fft.irfft(spectrum * np.cos(np.pi / 2 * beyond) ** 2, size)[pad : pad + audio.size]
    return low.astype(np.float32)
