"""Common Voice (https://commonvoice.mozilla.org): anyone's recordings of sentences, judged by listeners.

A folder of a language holds ``clips/`` and tables of tab-separated columns, whose order and number change with the
release. The sentences hold quotes that are no quoting.
"""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

from gansound.counts import counted
from gansound.data.readers.entry import Entry, Found, in_order, names
from gansound.data.walk import is_audio

logger = logging.getLogger(__name__)

EXPECTED = (
    "clips/ and validated.tsv, or train.tsv, dev.tsv and test.tsv, with columns client_id, path and sentence; "
    "or a release's folder of such folders of languages"
)
_COLUMNS = ("client_id", "path", "sentence")
_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_LOOK = 1000  # so many names of a release's folder tell what it is; there are less than 200 languages


def recognises(root: Path) -> bool:
    """The clips, and a table whose first line names the columns."""
    return bool(_languages(root))


def read(root: Path) -> Found:
    """The clips that listeners found good, in the release's own splits.

    They are those of ``validated.tsv``. What of it is in none of ``train.tsv``, ``dev.tsv`` and ``test.tsv`` (the
    release caps what one sentence or speaker brings) is for training too, but for speakers of the latter two.
    Where there is no ``validated.tsv``, those three are read.
    """
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    for language in _languages(root):
        clips = {Path(name).stem: name for name in names(language / "clips") if is_audio(name)}
        for place, client, clip, sentence, split in _rows(language):
            stem = Path(clip).stem if is_audio(clip) else clip  # early releases leave .mp3 out
            if stem not in clips:
                missing.append((language / "clips" / clip, f"{place} names it, but clips/ lacks it"))
                continue
            path = language / "clips" / clips[stem]
            name = path.relative_to(root).as_posix()
            found.append(Entry(path, name, client or None, sentence or None, split=split))
    return in_order(found), missing


def _rows(language: Path) -> Iterator[tuple[str, str, str, str, str | None]]:
    """Place, speaker, clip, sentence and split of what is to be read, each clip once."""
    validated = language / "validated.tsv"
    split_of: dict[str, str] = {}
    held: set[str] = set()  # speakers
    for name, split in _SPLITS.items():
        for place, client, clip, sentence in _table(language / f"{name}.tsv"):
            if clip in split_of:
                continue
            split_of[clip] = split
            if split != "train":
                held.add(client)
            if not validated.is_file():
                yield place, client, clip, sentence, split
    left_out = 0
    seen: set[str] = set()
    for place, client, clip, sentence in _table(validated):
        if clip in seen:
            continue
        seen.add(clip)
        if clip not in split_of and client in held:
            left_out += 1
        else:
            yield place, client, clip, sentence, split_of.get(clip, "train") if split_of else None
    if left_out:
        held_out = "of speakers held out by dev.tsv or test.tsv"
        logger.info(
            "%s: %s left out",
            language,
            counted(left_out, f"validated clip {held_out} is", f"validated clips {held_out} are"),
        )


def _table(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, client_id, path and sentence of each row; nothing where there is no such table."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            header = next(reader, [])
            if lacking := [column for column in _COLUMNS if column not in header]:
                raise ValueError(
                    f"{path}: its first line lacks {', '.join(lacking)}; got {', '.join(header)[:200]}"
                )
            client, clip, sentence = (header.index(column) for column in _COLUMNS)
            for row in reader:
                if len(row) <= max(client, clip, sentence):
                    if not row:
                        continue
                    raise ValueError(
                        f"{path}:{reader.line_num}: got {counted(len(row), 'column')}, expected {len(header)}"
                    )
                yield f"{path.name}:{reader.line_num}", row[client], row[clip], row[sentence].strip()
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}:{reader.line_num + 1}: {error}. Expected UTF-8 with a tab between columns"
            ) from None


def _languages(root: Path) -> list[Path]:
    if _is_language(root):
        return [root]
    return [root / name for name in names(root, _LOOK) if _is_language(root / name)]


def _is_language(folder: Path) -> bool:
    if not (folder / "clips").is_dir():
        return False
    for name in ("validated", *_SPLITS):
        if (folder / f"{name}.tsv").is_file():
            with (folder / f"{name}.tsv").open(encoding="utf-8-sig", errors="replace") as lines:
                header = lines.readline(10_000).rstrip("\r\n").split("\t")
            if all(column in header for column in _COLUMNS):
                return True
    return False
