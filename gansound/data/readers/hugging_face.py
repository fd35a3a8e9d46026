"""Data sets of Hugging Face's ``datasets`` with a column of audio: what ``save_to_disk`` writes, or parquet files.

The sound lies inside the files, as the bytes of a WAV, FLAC or MP3 file a row (a column of struct<bytes, path>), so
it is written out before it is read as any other: :func:`extract`. Needs pyarrow alone; ``datasets`` itself would
decode it, through torchcodec. https://huggingface.co/docs/datasets/audio_dataset
"""

import json
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from gansound.data.readers import tables
from gansound.data.readers.entry import Entry, Found, in_order, names
from gansound.data.walk import is_audio

logger = logging.getLogger(__name__)

EXPECTED = (
    "a folder of Dataset.save_to_disk (state.json, data-00000-of-00001.arrow) or DatasetDict.save_to_disk "
    "(dataset_dict.json), or parquet files in it or in data/ (data/train-00000-of-00001.parquet), with a column "
    "of audio: struct<bytes, path>"
)
_MEANINGS = {
    "text": ("text", "sentence", "transcription", "normalized_text"),
    "speaker": ("speaker_id", "speaker", "client_id"),
    "label": ("label",),
}
_SPLITS = {
    "train": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")  # as push_to_hub names them
_LOOK = 1000  # so many names of a folder tell what it is
# What formats begin with: the bytes have no name of their own, at most that of a file they once were.
_MAGIC = (
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL), ".wav"),
    (re.compile(rb"RF64.{4}WAVE", re.DOTALL), ".rf64"),
    (re.compile(rb"fLaC"), ".flac"),
    (re.compile(rb"OggS.{24}OpusHead", re.DOTALL), ".opus"),
    (re.compile(rb"OggS"), ".ogg"),
    (re.compile(rb"FORM.{4}AIF[FC]", re.DOTALL), ".aiff"),
    (re.compile(rb"\.snd"), ".au"),
    (re.compile(rb"caff"), ".caf"),
    (re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), ".mp3"),  # a tag, or a frame of layer III
)


def recognises(root: Path) -> bool:
    """The files of ``save_to_disk`` by their names, parquet files by a column of audio.

    Those that can't be opened (no pyarrow, a pointer of Git LFS) count if they are named as the hub's.
    """
    if _json(root / "dataset_dict.json").get("splits") or _arrow(root):
        return True
    shards = _parquet(root)
    try:
        return bool(shards) and _columns(tables.schema(shards[0])) is not None
    except ValueError:
        return _SHARD.fullmatch(shards[0].stem) is not None


def read(root: Path) -> Found:
    """Raises ValueError, always: there are no files of audio yet."""
    raise ValueError(
        f"{root}: a Hugging Face data set, whose audio lies inside its .arrow or .parquet files. "
        f"Write it out first: gansound data prepare {root} -o OUT"
    )


def extract(root: Path, folder: Path, progress: Callable[[int, int], None] | None = None) -> Found:
    """Write the audio of each row as a file under ``folder``, undecoded, and list the files.

    They are named by split, row and the name that the data set has for it; the suffix is that of the bytes' format.
    A file that is there with the same bytes is kept, so that an interrupted run goes on. A row without bytes but
    with a path counts if there is such a file, which stays in its place. Rows are read a few at a time.
    ``progress(done, total)`` counts rows.

    Raises:
        ValueError: no data set, no column of audio, a damaged file, or no pyarrow.
        OSError: ``folder`` can't be written.
    """
    root, folder = Path(root), Path(folder)
    shards = _shards(root)
    total = sum(tables.count(shard) for _, shard in shards)
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    numbers: dict[str, int] = {}  # rows of each split so far
    done = 0
    for split, shard in shards:
        columns = _columns(tables.schema(shard))
        if columns is None:
            raise ValueError(f"{shard}: no column of audio. Expected struct<bytes: binary, path: string>")
        for row in tables.rows(shard, list(columns.used.values())):
            number = numbers.get(split, 0)
            numbers[split] = number + 1
            outcome = _file(root, folder, split, number, row[columns.used["audio"]] or {})
            if isinstance(outcome, str):
                missing.append((shard, f"row {number}{f' of {split}' if split else ''}: {outcome}"))
            else:
                path, name = outcome
                found.append(Entry(path, name, **columns.known(row), split=_split(split)))
            done += 1
            if progress is not None:
                progress(done, total)
    return in_order(found), missing


def _file(root: Path, folder: Path, split: str, number: int, cell: dict[str, Any]) -> tuple[Path, str] | str:
    """Path and name of a row's file, which is written unless it is there; or why there is none."""
    content, given = cell.get("bytes"), cell.get("path") or ""
    # Its last part alone, of letters, digits and the like, no longer than file systems allow in any script.
    plain = re.sub(r"[^\w.+-]+", "_", PureWindowsPath(given).name)
    name = "_".join(filter(None, (f"{number:08d}", Path(plain).stem[:40])))
    name = f"{split}/{name}" if split else name
    if content is None:
        path = root / given
        if not given or not path.is_file():
            return f"no bytes, and no file {str(path)!r}" if given else "neither bytes nor a path"
        return path, name + path.suffix
    suffix = next((suffix for magic, suffix in _MAGIC if magic.match(content)), None)
    if suffix is None and is_audio(plain):
        suffix = Path(plain).suffix.lower()
    if suffix is None:
        return (
            f"bytes of no format that can be read: they begin with {content[:8]!r}, their path is {given!r}"
        )
    path = folder / (name + suffix)
    # Rows of one size may have changed places since: the bytes are compared, not their number.
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            beside.write_bytes(content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return path, name + suffix


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns that are read: their names by what they mean, and of those with classes the classes' names."""

    used: dict[str, str]
    classes: dict[str, list[str]]

    def known(self, row: dict[str, Any]) -> dict[str, str | None]:
        """Text, speaker and label of a row."""
        return {
            meaning: self._value(self.used[meaning], row[self.used[meaning]])
            for meaning in _MEANINGS
            if meaning in self.used
        }

    def _value(self, column: str, value: Any) -> str | None:
        if value is None:
            return None
        if classes := self.classes.get(column):
            return classes[value] if 0 <= value < len(classes) else None  # -1 says: unlabelled
        return str(value).strip() or None


def _columns(schema: Any) -> _Columns | None:
    """The columns of a table, None where none is of audio.

    Images have the same type: what ``datasets`` writes beside the schema tells them apart.
    """
    stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = stated.get("info", {}).get("features", {})

    def is_sound(field: Any) -> bool:
        inner = {str(part.name): str(part.type) for part in field.flatten()}
        bytes_type = inner.get(f"{field.name}.bytes")
        return (
            len(inner) == 2
            and f"{field.name}.path" in inner
            and bytes_type in ("binary", "large_binary", "null")
            and features.get(field.name, {}).get("_type", "Audio") == "Audio"
        )

    sound = next((field.name for field in schema if is_sound(field)), None)
    if sound is None:
        return None
    used = {"audio": sound}
    for meaning, known in _MEANINGS.items():
        if column := next((name for name in known if name in schema.names), None):
            used[meaning] = column
    classes = {c: features[c]["names"] for c in used.values() if "names" in features.get(c, {})}
    return _Columns(used, classes)


def _shards(root: Path) -> list[tuple[str, Path]]:
    """Name of the split ("" for none) and path of each file, in the order of their rows."""
    if splits := _json(root / "dataset_dict.json").get("splits"):
        shards = [(split, shard) for split in splits for shard in _arrow(root / split)]
        if lacking := [split for split in splits if not _arrow(root / split)]:
            raise ValueError(
                f"{root}: dataset_dict.json names {', '.join(lacking)}, but there is no state.json of it that names "
                "its files. Copy the whole folder again"
            )
    elif arrow := _arrow(root):
        shards = [("", shard) for shard in arrow]
    else:
        shards = [(match[1] if (match := _SHARD.fullmatch(p.stem)) else p.stem, p) for p in _parquet(root)]
    if not shards:
        raise ValueError(f"{root}: no Hugging Face data set. Expected {EXPECTED}")
    # A split's name becomes a folder's: it must not lead out of it.
    shards = [(re.sub(r"[^\w.-]+", "_", split).lstrip("."), shard) for split, shard in shards]
    other = sorted({split for split, _ in shards if _split(split) is None})
    if other and "train" in {_split(split) for split, _ in shards}:
        # Such as "invalidated": what is beside the data for training must not become it unasked.
        logger.warning("%s: left out, being neither train, valid nor test: %s", root, ", ".join(other))
        shards = [(split, shard) for split, shard in shards if split not in other]
    return shards


def _split(name: str) -> str | None:
    match = re.match(r"[a-z]+", name)  # train.clean.100, test-other
    return _SPLITS.get(match[0]) if match else None


def _arrow(folder: Path) -> list[Path]:
    """The files of a folder of ``save_to_disk``."""
    return [folder / part["filename"] for part in _json(folder / "state.json").get("_data_files", [])]


def _parquet(root: Path) -> list[Path]:
    return [
        folder / name
        for folder in (root, root / "data")
        for name in names(folder, _LOOK)
        if name.endswith(".parquet") and name != "metadata.parquet"  # that stands beside files of audio
    ]


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file, or it holds anything else."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
