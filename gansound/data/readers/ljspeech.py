"""LJSpeech (https://keithito.com/LJ-Speech-Dataset/), and the many corpora laid out as it is: one speaker, texts."""

import logging
from pathlib import Path

from gansound.data.readers.entry import Entry, Found, in_order, is_audio, walk

logger = logging.getLogger(__name__)

EXPECTED = "metadata.csv with lines of id|text or id|text|normalised text, and wavs/ID.wav"


def recognises(root: Path) -> bool:
    """The table and the folder, by their names."""
    return (root / "metadata.csv").is_file() and (root / "wavs").is_dir()


def read(root: Path) -> Found:
    """The files that the table names, with the last text of their lines; files of any suffix that can be read."""
    files = {path.stem: path for path in walk(root / "wavs") if is_audio(path.name)}
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    table = root / "metadata.csv"
    seen: set[str] = set()
    try:
        # Not splitlines(): a text may hold one of Unicode's other line separators.
        lines = table.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{table}: not UTF-8 text ({error.reason}). Expected lines of id|text|text"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        identifier, *texts = (part.strip() for part in line.split("|"))
        if is_audio(identifier):
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
    return in_order(found), missing
