"""From files to records: an LJSpeech layout or any folder of audio, and splits through which nothing leaks.

What must not be on both sides of a split (the takes of one prompt, the velocity layers of one drum, a
speaker) is a group, and a group is put into a split as a whole by a hash of its name and the seed: a file
added later doesn't move the others.
"""

import dataclasses
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gansound import audio
from gansound.data.manifest import SPLITS, Record
from gansound.draw import unit_hash

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_LARGEST_GROUP = 0.2  # of all files: more, and a common prefix says nothing of takes
_ALWAYS_TRAINED = 0.3  # of all audio: a group this large would leave too little to train on
_UNREADABLE_SUFFIXES = frozenset({".m4a", ".aac", ".wma", ".ape", ".wv", ".mp4", ".webm", ".amr", ".mpc"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a corpus before it is opened, with what its place and the metadata say of it."""

    path: Path
    name: str  # relative to the corpus, in POSIX form
    speaker: str | None = None
    text: str | None = None
    label: str | None = None


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
    else every file below with a suffix of audio. In a folder of label folders the first one is the label.
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
            parts = path.relative_to(root).parts
            label = parts[0] if len(parts) > 1 else None
            found.append(Entry(path, "/".join(parts), label=label))
    if foreign:
        logger.warning(
            "%s: %d files of formats that can't be read (%s): convert them first, for example with ffmpeg",
            root,
            foreign,
            ", ".join(sorted(_UNREADABLE_SUFFIXES)),
        )
    return sorted(found, key=lambda entry: entry.name)


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
        known = {"speaker": entry.speaker, "text": entry.text, "label": entry.label}
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


def groups(records: Sequence[Record]) -> tuple[list[str], str]:
    """The group of each record, and in words what a group is.

    The first that applies: the speaker, when there are three or more; the prompt, by equal text (and by equal
    name up to the last ``_`` where that agrees with the texts); the name up to ``__`` (a kit) or up to the last
    ``_`` where that makes three groups or more, none larger than a fifth of the files (a common prefix such as
    ``recording_`` says nothing); else each file for itself. Labels don't count: a speaker's name is the same
    speaker under every word.
    """
    if all(r.speaker for r in records) and len({r.speaker for r in records}) >= 3:
        return [f"speaker {r.speaker}" for r in records], "speaker"
    prefixes = [r.path.stem.rpartition("_")[0] or r.path.stem for r in records]
    if any(r.text for r in records):
        texts = [_plain(r.text) or f"file {r.path.stem}" for r in records]
        return _joined(texts, prefixes) if _agree(prefixes, texts) else texts, "prompt"
    kits = [r.path.stem.partition("__")[0] for r in records]
    if all("__" in r.path.stem for r in records) and len(set(kits)) >= 3:
        return kits, "name up to the first __"
    sizes = Counter(prefixes)
    if 3 <= len(sizes) < len(records) and max(sizes.values()) <= max(2, _LARGEST_GROUP * len(records)):
        return prefixes, "name up to the last _"
    return [r.path.stem for r in records], "file"


def _plain(text: str | None) -> str:
    return " ".join(re.findall(r"\w+", (text or "").lower()))


def _agree(prefixes: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether files of one prefix mostly share their text, so that the prefix names a prompt."""
    by_prefix: dict[str, Counter[str]] = defaultdict(Counter)
    for prefix, text in zip(prefixes, texts, strict=True):
        by_prefix[prefix][text] += 1
    several = [texts_of for texts_of in by_prefix.values() if texts_of.total() > 1]
    same = sum(texts_of.most_common(1)[0][1] for texts_of in several)
    return bool(several) and same >= 0.8 * sum(texts_of.total() for texts_of in several)


def _joined(texts: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """Groups linked by an equal text or an equal prefix, named by their first text in the alphabet."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for text, prefix in zip(texts, prefixes, strict=True):
        one, other = sorted((find(f"t{text}"), find(f"p{prefix}")))
        parent[one] = other  # "t…" sorts after "p…": a text ends up on top
    first: dict[str, str] = {}
    for text in texts:
        top = find(f"t{text}")
        first[top] = min(first.get(top, text), text)
    return [first[find(f"t{text}")] for text in texts]


def split(
    records: Sequence[Record],
    *,
    seed: int,
    valid: float = 0.05,
    test: float = 0.05,
    contents: Sequence[str] | None = None,
) -> tuple[list[Record], str]:
    """Fill in ``split`` group by group, and say in words what a group is.

    ``valid`` and ``test`` are the expected shares. With three groups or more no split is empty (unless its share
    is 0), and a group with over 30 % of the audio is trained on. ``contents``, a hash of each file's samples,
    joins the groups that share a file. Raises ValueError for shares that don't fit.
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid and test are shares of the corpus, together below 1; got {valid} and {test}")
    names, rule = groups(records)
    if contents is not None:
        names = _joined(names, contents)
    seconds: dict[str, float] = defaultdict(float)
    for name, record in zip(names, records, strict=True):
        seconds[name] += record.seconds
    hashes = {name: unit_hash(seed, name, "split") for name in seconds}
    small = [n for n in seconds if seconds[n] <= _ALWAYS_TRAINED * sum(seconds.values())]
    order = sorted(small if len(small) >= 3 or len(seconds) < 3 else seconds, key=lambda n: (hashes[n], n))
    chosen = dict.fromkeys(seconds, "train")
    for name in order:
        if hashes[name] < valid + test:
            chosen[name] = "valid" if hashes[name] < valid else "test"
    if len(seconds) >= 3:
        _fill(chosen, order, [s for s, share in (("valid", valid), ("test", test)) if share])
    return [dataclasses.replace(r, split=chosen[n]) for n, r in zip(names, records, strict=True)], rule


def _fill(chosen: dict[str, str], order: Sequence[str], wanted: Sequence[str]) -> None:
    """Give each empty split a group: held-out ones the first by hash that is free, training the last of all."""
    for name in wanted:
        if name not in chosen.values():
            count = Counter(chosen.values())
            free = next(n for n in order if count[chosen[n]] > 1 or chosen[n] == "train")
            chosen[free] = name
    if "train" not in chosen.values():
        chosen[next(n for n in reversed(order) if Counter(chosen.values())[chosen[n]] > 1)] = "train"


def by_split(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records under ``train``, ``valid`` and ``test``; one without a split is for training."""
    parts: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record in records:
        parts[record.split or "train"].append(record)
    return parts
