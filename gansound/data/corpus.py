"""From files to records: public corpora in their own layouts, or any folder of audio."""

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gansound import audio
from gansound.counts import counted, some_of
from gansound.data.manifest import SPLITS, Record, read_manifest
from gansound.data.readers import READERS
from gansound.data.readers.entry import Entry, Reader, names
from gansound.data.records import Records
from gansound.machine import usable_cores

logger = logging.getLogger(__name__)

__all__ = ["LAYOUTS", "Entry", "Scan", "by_split", "entries", "in_threads", "listed", "recognised", "scan"]

Item = TypeVar("Item")
Result = TypeVar("Result")

LAYOUTS: tuple[str, ...] = tuple(READERS)
"""Names of the layouts that are read, in order of recognition."""
_SHOWN = 5  # names of a folder in a message


@dataclass
class Scan:
    """What a corpus holds: records in order of name, and (path, reason) of what can't be used."""

    root: Path
    records: list[Record] = field(default_factory=list)
    unusable: list[tuple[Path, str]] = field(default_factory=list)


def entries(
    root: str | os.PathLike[str], *, speaker_pattern: str | None = None, layout: str | None = None
) -> tuple[list[Entry], list[tuple[Path, str]]]:
    """List the audio of a corpus, and (path, reason) of what its metadata names but the folder lacks.

    ``layout``: one of LAYOUTS, None for the one that it is recognised to have.
    ``speaker_pattern``: a regular expression whose first group, searched in the relative path, is the speaker.
    Raises ValueError when there is no folder, nothing in it, a table that can't be understood, not that layout, a
    pattern that doesn't compile, or audio inside of a Hugging Face data set's files.
    """
    root = _existing(root)
    try:
        speaker = re.compile(speaker_pattern) if speaker_pattern else None
    except re.error as error:
        raise ValueError(f"speaker pattern {speaker_pattern!r}: {error}") from None
    if speaker is not None and speaker.groups < 1:
        raise ValueError(
            f"speaker pattern {speaker_pattern!r} has no group: put the speaker in (parentheses)"
        )
    found, missing = _reader(root, layout).read(root)
    if not found and not missing:
        raise ValueError(
            f"{root}: no audio files in it or below. "
            f"Readable suffixes are {', '.join(sorted(audio.AUDIO_SUFFIXES))}"
        )
    if speaker is not None:
        matches = [speaker.search(entry.name) for entry in found]
        unmatched = [entry.name for entry, match in zip(found, matches, strict=True) if not match]
        if found and len(unmatched) == len(found):
            raise ValueError(
                f"speaker pattern {speaker_pattern!r} is found in none of {counted(len(found), 'path')} such as "
                f"{unmatched[0]}. Its first (group) must be the speaker's part of such a path"
            )
        if unmatched:
            logger.warning(
                "speaker pattern %r isn't found in %s, which get no speaker, such as %s",
                speaker_pattern,
                some_of(len(unmatched), len(found), "path"),
                unmatched[0],
            )
        found = [
            dataclasses.replace(entry, speaker=match.group(1) if match else None)
            for entry, match in zip(found, matches, strict=True)
        ]
    return found, missing


def listed(manifest: Path) -> list[tuple[Entry, Record]]:
    """The files that a manifest names, with its records; an entry's name is taken from the folder that all lie in.

    Raises ValueError when there is none, they lie in shards, or the manifest can't be read.
    """
    records = read_manifest(manifest)
    if any(record.stored is not None for record in records):
        raise ValueError(
            f"{manifest}: names sounds in shards, which are made of what was looked at and prepared before"
        )
    if not records:
        raise ValueError(f"{manifest}: the manifest is empty. Run 'gansound data prepare' again")
    paths = [record.path.absolute() for record in records]
    above = os.path.commonpath([path.parent for path in paths])
    return [
        (Entry(r.path, path.relative_to(above).as_posix(), r.speaker, r.text, r.label, r.split), r)
        for r, path in zip(records, paths, strict=True)
    ]


def recognised(root: str | os.PathLike[str]) -> str:
    """The layout that a folder has, one of LAYOUTS. Raises ValueError when there is no folder."""
    root = _existing(root)
    return next(name for name, reader in READERS.items() if reader.recognises(root))


def _existing(root: str | os.PathLike[str]) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise ValueError(
            f"{root}: {'is not a folder' if root.exists() else 'no such folder'}. Check the path"
        )
    return root


def _reader(root: Path, layout: str | None) -> Reader:
    if layout is None:
        return READERS[recognised(root)]
    if layout not in READERS:
        raise ValueError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    reader = READERS[layout]
    if not reader.recognises(root):
        here = names(root, _SHOWN + 1)
        held = ", ".join(here[:_SHOWN]) + (", ..." if len(here) > _SHOWN else "") or "nothing"
        raise ValueError(
            f"{root}: not of the layout {layout!r}. Expected {reader.EXPECTED}; found {held}. "
            f"It is recognised as {recognised(root)!r}: leave the layout out, or check the path"
        )
    return reader


def scan(
    root: str | os.PathLike[str],
    *,
    speaker_pattern: str | None = None,
    layout: str | None = None,
    inspect: Callable[[Path], audio.AudioInfo] = audio.probe,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Open every file of a corpus with ``inspect`` (the header only, unless told otherwise), on all cores.

    ``progress(done, total)`` is called along the way. Raises ValueError as :func:`entries`.
    """
    found, missing = entries(root, speaker_pattern=speaker_pattern, layout=layout)
    result = Scan(Path(root), unusable=missing)
    outcomes = in_threads(lambda entry: _attempt(inspect, entry.path), found, progress)
    for entry, outcome in zip(found, outcomes, strict=True):
        if isinstance(outcome, str):
            result.unusable.append((entry.path, outcome))
            continue
        info, digest = outcome
        result.records.append(Record(entry.path, info.sample_rate, info.frames, digest=digest, **entry.known))
    return result


def _attempt(inspect: Callable[[Path], audio.AudioInfo], path: Path) -> tuple[audio.AudioInfo, str] | str:
    try:
        return inspect(path), audio.digest(path)
    except audio.AudioError as error:
        return str(error).removeprefix(f"{path}: ")


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Iterable[Result]:
    """Results in order, computed on all cores (decoding, FFTs and hashing run outside Python's lock)."""
    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        for first in range(0, len(items), 1024):
            for done, result in enumerate(pool.map(function, items[first : first + 1024]), start=first + 1):
                if progress is not None:
                    progress(done, len(items))
                yield result


def by_split(records: Iterable[Record]) -> Mapping[str, Sequence[Record]]:
    """Records under ``train``, ``valid`` and ``test``; one without a split is for training."""
    if isinstance(records, Records):
        return records.by_split()
    parts: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record in records:
        parts[record.split or "train"].append(record)
    return parts
