"""LJSpeech (https://keithito.com/LJ-Speech-Dataset/), and the many corpora laid out as it is: one speaker, texts."""

import logging
from pathlib import Path

from gansound.counts import counted
from gansound.data.readers.entry import Entry, Found, in_order
from gansound.data.walk import is_audio, walk

logger = logging.getLogger(__name__)

EXPECTED = "metadata.csv with lines of id|text or id|text|normalised text, and wavs/ID.wav"


def recognises(root: Path) -> bool:
    """The table and the folder, by their names."""
    return (root / "metadata.csv").is_file() and (root / "wavs").is_dir()


def read(root: Path) -> Found:
    """The files that the table names, with the last text of their lines; files of any suffix that can be read.

    A line names a file by its path in ``wavs/``, or by its name alone where no two files have it; with or without
    the suffix, with the separators of any system. A folder before it that isn't in ``wavs/`` counts where that holds
    no folders, as the lists of some projects have one.
    """
    files = _Files(root / "wavs")
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    table = root / "metadata.csv"
    seen: set[Path] = set()
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
        if not texts:
            raise ValueError(
                f"{table}:{number}: got {line[:60]!r}, expected id|text|text, parted by bars. Write it so, or read the "
                f"sounds without their texts: {root / 'wavs'}"
            )
        path = files.named(identifier)
        if isinstance(path, str):
            missing.append(
                (root / "wavs" / identifier, f"line {number} of metadata.csv names it, but {path}")
            )
        elif path in seen:
            missing.append((table, f"line {number} names {identifier!r} a second time"))
        else:
            text = next((t for t in reversed(texts) if t), None)
            found.append(Entry(path, path.relative_to(root).as_posix(), text=text))
            seen.add(path)
    if unnamed := files.count - len(seen):
        logger.warning(
            "%s: left out %s in wavs/ that metadata.csv doesn't name", root, counted(unnamed, "file")
        )
    return in_order(found), missing


class _Files:
    """What lies in a folder, by what a table may call it."""

    def __init__(self, folder: Path) -> None:
        self._by_path: dict[str, list[Path]] = {}  # without the suffix
        self._by_name: dict[str, list[Path]] = {}
        self._folder = folder
        self.count = 0
        for path in walk(folder):
            if is_audio(path.name):
                inside = path.relative_to(folder)
                self._by_path.setdefault(inside.with_suffix("").as_posix(), []).append(path)
                self._by_name.setdefault(path.stem, []).append(path)
                self.count += 1
        self._flat = all("/" not in name for name in self._by_path)

    def named(self, identifier: str) -> Path | str:
        """The file that is meant, or why none is."""
        parts = [part for part in identifier.replace("\\", "/").split("/") if part not in ("", ".")]
        suffix = Path(parts[-1]).suffix if parts and is_audio(parts[-1]) else ""
        if suffix:
            parts[-1] = parts[-1].removesuffix(suffix)
        if self._flat:
            parts = parts[-1:]
        elif self._folder.name in parts[:-1] and "/".join(parts) not in self._by_path:
            parts = parts[parts.index(self._folder.name) + 1 :]
        meant = self._by_path.get("/".join(parts), [])
        if not meant and len(parts) == 1:
            meant = self._by_name.get(parts[0], [])
        if len(meant) > 1 and suffix:
            meant = [path for path in meant if path.suffix == suffix] or meant
        if len(meant) == 1:
            return meant[0]
        if meant:
            named = ", ".join(path.relative_to(self._folder).as_posix() for path in meant[:3])
            return f"{len(meant)} files in wavs/ are called so ({named}): write the whole path into the table"
        return "wavs/ lacks it"
