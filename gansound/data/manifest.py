"""The manifest: one JSON object a line for each file of a corpus."""

import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gansound.data.store import join

MANIFEST_NAME = "manifest.jsonl"
SPLITS = ("train", "valid", "test")
_FIELDS = {
    "path": str,
    "sample_rate": int,
    "frames": int,
    "speaker": str,
    "text": str,
    "label": str,
    "split": str,
    "digest": str,
    "mel": str,
    "stored": dict,
}
_REQUIRED = ("path", "sample_rate", "frames")
_LIMITS = {"sample_rate": 2**31 - 1, "frames": 2**62}


ENCODINGS = {"PCM_16": "<i2", "FLOAT": "<f4"}
"""Of stored samples, as NumPy names their bytes."""
_MOST_CHANNELS = 1024
_INSIDE = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the samples of a recording lie in a shard, see :mod:`gansound.data.shards`.

    Args:
        shard: path or URL of the tar file.
        at: byte of the first sample in it.
        encoding: of :data:`ENCODINGS`, the channels of a sample side by side.
        channels: how many.
        mono: the channel that is read as mono, where mixing them would cancel (`audio.cancelling`); None mixes them.
        energy: sum of the squares of all samples, mixed to mono.
    """

    shard: str
    at: int
    encoding: str
    channels: int
    mono: int | None
    energy: float

    def __post_init__(self) -> None:
        fits = (
            type(self.shard) is str
            and type(self.at) is int
            and 0 <= self.at <= 2**62
            and self.encoding in ENCODINGS
            and type(self.channels) is int
            and 1 <= self.channels <= _MOST_CHANNELS
            and (self.mono is None or (type(self.mono) is int and 0 <= self.mono < self.channels))
            and type(self.energy) in (int, float)
            and self.energy >= 0
        )
        if not fits:
            raise ValueError(f"{self!r} names no samples in a shard")


@dataclass(frozen=True, slots=True)
class Record:
    """One file: where, at what rate, how many samples a channel, and what is known of it."""

    path: Path
    sample_rate: int
    frames: int
    speaker: str | None = None
    text: str | None = None
    label: str | None = None  # the class of a sound, from the label folders of a sample pack
    split: str | None = None
    digest: str | None = None  # of the file, see `audio.digest`: one that was put in its place is noticed
    mel: Path | None = None  # a file of an acoustic model's mel of it, see `gansound.data.pairs`
    stored: Stored | None = None  # where the samples lie, for one of a store; its path then only names it

    @property
    def place(self) -> str:
        """Where the sound is, in words."""
        return str(self.path) if self.stored is None else f"{self.path} in {self.stored.shard}"

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.sample_rate


def read_manifest(path: str | os.PathLike[str]) -> list[Record]:
    """Read the records; relative paths are taken from the manifest's own folder.

    Raises ValueError naming file and line for what isn't a record, OSError when the file can't be read.
    """
    path = Path(path)
    with path.open("rb") as lines:
        return [
            parse_line(line, path.parent, f"{path}:{number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]


def parse_line(line: bytes, folder: Path, where: str, store: str | None = None) -> Record:
    """A line as a record, its path taken from ``folder``. Raises ValueError, which begins with ``where``.

    ``store``: what the names of shards are taken from, which then may not lead out of it.
    """
    try:
        values: Any = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not text ({error.reason}). A manifest is JSON Lines in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}). A manifest has one object a line") from None
    check_values(values, where)
    files: dict[str, Any] = {
        name: folder / values[name] for name in ("path", "mel") if values.get(name) is not None
    }
    if (stored := values.get("stored")) is not None:
        try:
            files["stored"] = _stored(stored, store)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: stored: {error}") from None
    return Record(**{**values, **files})


def _stored(values: dict[str, Any], store: str | None) -> Stored:
    if store is None:
        return Stored(**values)
    if not isinstance(shard := values.get("shard"), str) or not _INSIDE.fullmatch(shard):
        raise ValueError(f"shard is {shard!r}, expected a name below {store}")
    return Stored(**{**values, "shard": join(store, shard)})


def check_values(values: Any, where: str) -> None:
    """Raises ValueError, which begins with ``where``, for an object that is no record."""
    if not isinstance(values, dict):
        raise ValueError(
            f"{where}: got a {type(values).__name__}, expected an object with {', '.join(_FIELDS)}"
        )
    if missing := [name for name in _REQUIRED if values.get(name) is None]:
        raise ValueError(
            f"{where}: {', '.join(missing)} is missing. Run 'gansound data prepare' to make it anew"
        )
    if not values.keys() <= _FIELDS.keys():
        unknown = sorted(values.keys() - _FIELDS.keys())
        raise ValueError(f"{where}: unknown {', '.join(unknown)}, expected some of {', '.join(_FIELDS)}")
    for name, value in values.items():
        if value is not None and type(value) is not _FIELDS[name]:
            raise ValueError(f"{where}: {name} is {value!r}, expected {_FIELDS[name].__name__}")
    for name, most in _LIMITS.items():
        if not 1 <= values[name] <= most:
            raise ValueError(f"{where}: {name} is {values[name]}, expected 1 to {most:,}")
    if values.get("split") not in (None, *SPLITS):
        raise ValueError(f"{where}: split is {values['split']!r}, expected one of {', '.join(SPLITS)}")


def write_manifest(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Write the records, whole or not at all, and return how many.

    Paths under the manifest's folder are written relative to it, so the folder can be moved; others absolute.
    """
    path = Path(path)
    folder = path.parent.absolute()
    count = 0
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            for record in records:
                file.write(json_line(as_values(record, folder)))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # that of a write names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def json_line(value: Any) -> bytes:
    """A line of JSON in UTF-8; a name on disk that is no Unicode is escaped, and comes back as it was."""
    try:
        return f"{json.dumps(value, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(value)}\n".encode()


def as_values(record: Record, folder: Path | None = None) -> dict[str, Any]:
    """What a line says of a record; paths under ``folder`` relative to it and others absolute, or all as they are."""
    values = {name: getattr(record, name) for name in _FIELDS}
    values |= {name: _location(values[name], folder) for name in ("path", "mel") if values[name] is not None}
    if record.stored is not None:
        values["stored"] = asdict(record.stored)
    return {name: value for name, value in values.items() if value is not None}


def _location(path: Path, folder: Path | None) -> str:
    if folder is not None:
        path = path.absolute()
        if path.is_relative_to(folder):
            path = path.relative_to(folder)
    return path.as_posix()
