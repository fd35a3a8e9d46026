"""From files to records: an LJSpeech layout or any folder of audio."""

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
from gansound.data.manifest import SPLITS, Record
from gansound.data.records import Records

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_UNREADABLE_SUFFIXES = frozenset({".m4a", ".aac", ".wma", ".ape", ".wv", ".mp4", ".webm", ".amr", ".mpc"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a corpus before it is opened, with what its place and the metadata say of it."""

    path: Path
    name: str  # relative to the corpus, in POSIX form
    speaker: str | None = None
    text: str | None = None
    label: str | None = None
    split: str | None = None  # train, valid or test, where the corpus itself says it


@dataclass
class Scan:
    """What a corpus holds: records in order of name, and (path, reason) of what can't be used."""

    root: Path
    records: list[Record] = field(default_factory=list)
    unusable: list[tuple[Path, str]] = field(default_factory=list)


def entries(
    root: str | os.PathLike[str], *, speaker_pattern: str | None = None
) -> tuple[list[Entry], list[tuple[Path, str]]]:
    """List the audio of a folder, and (path, reason) of what its metadata names but the folder lacks.

    With ``metadata.csv`` (``id|text`` or ``id|text|normalised text``) and ``wavs/`` it is an LJSpeech layout,
    else every file below with a suffix of audio. The label is the folder at the first level where files lie in
    several (``drums/kick/kit1/x.wav``: kick, where all lie in ``drums``); names that differ in case are one.
    ``speaker_pattern``: a regular expression whose first group, searched in the relative path, is the speaker.
    Raises ValueError when there is no folder, nothing in it, or a pattern that doesn't compile.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(
            f"{root}: {'is not a folder' if root.exists() else 'no such folder'}. Check the path"
        )
    try:
        speaker = re.compile(speaker_pattern) if speaker_pattern else None
    except re.error as error:
        raise ValueError(f"speaker pattern {speaker_pattern!r}: {error}") from None
    if speaker is not None and speaker.groups < 1:
        raise ValueError(
            f"speaker pattern {speaker_pattern!r} has no group: put the speaker in (parentheses)"
        )
    if (root / "metadata.csv").is_file() and (root / "wavs").is_dir():
        found, missing = _ljspeech(root)
    else:
        found, missing = _folder(root), []
    if not found and not missing:
        raise ValueError(
            f"{root}: no audio files in it or below. "
            f"Readable suffixes are {', '.join(sorted(audio.AUDIO_SUFFIXES))}"
        )
    if speaker is not None:
        matches = [speaker.search(entry.name) for entry in found]
        found = [
            dataclasses.replace(entry, speaker=match.group(1) if match else None)
            for entry, match in zip(found, matches, strict=True)
        ]
    return found, missing


def _walk(root: Path) -> Iterable[Path]:
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = sorted(n for n in names if not n.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _folder(root: Path) -> list[Entry]:
    found, foreign = [], 0
    for path in _walk(root):
        suffix = path.suffix.lower()
        foreign += suffix in _UNREADABLE_SUFFIXES
        if suffix in audio.AUDIO_SUFFIXES:
            found.append(Entry(path, path.relative_to(root).as_posix()))
    if foreign:
        logger.warning(
            "%s: %d files of formats that can't be read (%s): convert them first, for example with ffmpeg",
            root,
            foreign,
            ", ".join(sorted(_UNREADABLE_SUFFIXES)),
        )
    return _labelled(sorted(found, key=lambda entry: entry.name))


def _labelled(found: Sequence[Entry]) -> list[Entry]:
    places = [entry.name.split("/")[:-1] for entry in found]
    shared = 0
    while (
        places
        and all(place[: shared + 1] == places[0][: shared + 1] for place in places)
        and shared < len(places[0])
    ):
        shared += 1
    level = shared if any(len(place) > shared for place in places) else max(0, shared - 1)
    spelt: dict[str, str] = {}
    labelled = []
    for entry, place in zip(found, places, strict=True):
        name = place[level] if len(place) > level else None
        label = None if name is None else spelt.setdefault(name.casefold(), name)
        labelled.append(dataclasses.replace(entry, label=label))
    return labelled


def _ljspeech(root: Path) -> tuple[list[Entry], list[tuple[Path, str]]]:
    files = {path.stem: path for path in _walk(root / "wavs") if path.suffix.lower() in audio.AUDIO_SUFFIXES}
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    table = root / "metadata.csv"
    seen: set[str] = set()
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{table}: not UTF-8 text ({error.reason}). Expected lines of id|text|text"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        identifier, *texts = (part.strip() for part in line.split("|"))
        if Path(identifier).suffix.lower() in audio.AUDIO_SUFFIXES:
            identifier = Path(identifier).stem
        if not texts:
            raise ValueError(f"{table}:{number}: got {line[:60]!r}, expected id|text|text")
        if identifier in seen:
            missing.append((table, f"line {number} names {identifier!r} a second time"))
        elif identifier not in files:
            reason = f"line {number} of metadata.csv names it, but wavs/ lacks it"
            missing.append((root / "wavs" / identifier, reason))
        else:
            text = next((t for t in reversed(texts) if t), None)
            path = files[identifier]
            found.append(Entry(path, path.relative_to(root).as_posix(), text=text))
        seen.add(identifier)
    if unnamed := len(files.keys() - seen):
        logger.warning("%s: %d files in wavs/ aren't in metadata.csv and are left out", root, unnamed)
    return sorted(found, key=lambda entry: entry.name), missing


def scan(
    root: str | os.PathLike[str],
    *,
    speaker_pattern: str | None = None,
    inspect: Callable[[Path], audio.AudioInfo] = audio.probe,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Open every file of a corpus with ``inspect`` (the header only, unless told otherwise), on all cores.

    ``progress(done, total)`` is called along the way. Raises ValueError as :func:`entries`.
    """
    found, missing = entries(root, speaker_pattern=speaker_pattern)
    result = Scan(Path(root), unusable=missing)
    outcomes = in_threads(lambda entry: _attempt(inspect, entry.path), found, progress)
    for entry, outcome in zip(found, outcomes, strict=True):
        if isinstance(outcome, str):
            result.unusable.append((entry.path, outcome))
            continue
        known = {"speaker": entry.speaker, "text": entry.text, "label": entry.label, "split": entry.split}
        result.records.append(Record(entry.path, outcome.sample_rate, outcome.frames, **known))
    return result


def _attempt(inspect: Callable[[Path], audio.AudioInfo], path: Path) -> audio.AudioInfo | str:
    try:
        return inspect(path)
    except audio.AudioError as error:
        return str(error).removeprefix(f"{path}: ")


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
) -> Iterable[Result]:
    """Results in order, computed on all cores (decoding, FFTs and hashing run outside Python's lock)."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
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
