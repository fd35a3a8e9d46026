"""A folder of generated sounds: written by threads beside the synthesis, each with what it takes to make it again."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from gansound import audio
from gansound.audio.writer import TAG_LIMIT_BYTES

LIST = "generated.json"
_HEAD = '{"format": "gansound generated 1", "clips": [\n'
_TAIL = "\n]}\n"
_WRITERS = 2
_WAITING = 64  # sounds in memory between synthesis and disk
_BESIDE_SOUND_BYTES = 2048  # of a file: header and tags; and as much in the list


class ClipFolder:
    """Writes sounds into a folder, and `generated.json` that lists them with those already there.

    Every file is there whole or not at all. When the `with` block ends early, what was written stays, listed.

    Args:
        folder: made when absent, with those above it.
        sample_rate: of the sounds, in Hz.
        bits: 16, 24, or 32 for float.
        beside: called with each file's path and sound, in the thread that wrote it, such as for a picture.

    Raises:
        ValueError: the folder is a file, or holds a `generated.json` that isn't gansound's.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        sample_rate: int,
        *,
        bits: int = 16,
        beside: Callable[[Path, NDArray[np.float32]], None] = lambda path, sound: None,
    ) -> None:
        self.folder = Path(folder)
        self.sample_rate = sample_rate
        self.subtype = audio.SUBTYPE_OF_BITS[bits]
        self._beside = beside
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: is there and not a folder. Choose another")
        self._earlier = {entry["file"]: entry for entry in entries(self.folder)}

    def existing(self, names: Iterable[str]) -> list[str]:
        """Those of these file names that the folder has already."""
        there = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        return [name for name in names if name in there] if there else []

    def __enter__(self) -> Self:
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._temporary = self.folder / f".{LIST}.{os.getpid()}.tmp"
        self._list: TextIO = self._temporary.open("w", encoding="utf-8")
        self._list.write(_HEAD)
        self._listed = 0
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[tuple[Future[None], dict[str, Any]]] = deque()
        return self

    def add(self, name: str, sound: NDArray[np.float32], origin: Mapping[str, Any], **facts: Any) -> None:
        """Write one sound.

        Args:
            name: of the file, with a suffix that `gansound.audio` writes.
            sound: `(C, T)`.
            origin: what the file itself carries, see `gansound.inference.latent.favourites.origin`.
            facts: what the list says besides; `title` and `group` are in the file too.

        Raises:
            OSError: a full disk, no permission, of this or of an earlier sound.
        """
        tags = {"title": facts.get("title"), "genre": facts.get("group"), "comment": _comment(origin)}
        tags |= {"software": f"gansound {origin['gansound']}", "album": origin.get("model")}
        kept = {key: str(text) for key, text in tags.items() if text}
        while len(self._waiting) >= _WAITING:
            self._settle()
        self._waiting.append(
            (
                self._pool.submit(self._write, name, sound, kept),
                {"file": name, "sample_rate": self.sample_rate, **facts, **origin},
            )
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for future, _ in self._waiting if kind is not None else ():
                future.cancel()
            failure: BaseException | None = None
            while self._waiting:
                try:
                    self._settle()
                except OSError as caught:  # the others that are written are listed all the same
                    failure = failure or caught
            self._finish()
            if failure is not None and error is None:
                raise failure
        except OSError as full:
            if error is None:
                raise OSError(full.errno, full.strerror, full.filename or str(self.folder / LIST)) from full
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._list.close()
            self._temporary.unlink(missing_ok=True)
            for folder in self._made:
                try:
                    folder.rmdir()  # goes only where nothing was written
                except OSError:
                    break

    def _write(self, name: str, sound: NDArray[np.float32], tags: Mapping[str, str]) -> None:
        path = self.folder / name
        audio.write(path, sound, self.sample_rate, subtype=self.subtype, tags=tags)
        self._beside(path, sound)

    def _settle(self) -> None:
        future, entry = self._waiting.popleft()
        if future.cancelled():
            return
        future.result()
        self._earlier.pop(entry["file"], None)
        self._put(entry)

    def _put(self, entry: Mapping[str, Any]) -> None:
        self._list.write(
            (",\n" if self._listed else "") + json.dumps(entry, ensure_ascii=False, allow_nan=False)
        )
        self._listed += 1

    def _finish(self) -> None:
        if not self._listed:  # nothing was written: the list stays as it is
            return
        for entry in self._earlier.values():
            self._put(entry)
        self._list.write(_TAIL)
        self._list.flush()
        os.fsync(self._list.fileno())
        self._list.close()
        self._temporary.replace(self.folder / LIST)


def entries(folder: str | os.PathLike[str], limit: int | None = None) -> Iterator[dict[str, Any]]:
    """What `generated.json` of a folder lists, line by line; nothing where there is none.

    Raises:
        ValueError: the file isn't gansound's, or damaged.
    """
    path = Path(folder) / LIST
    if not path.exists():
        return
    what_to_do = "Move it away, or choose another folder"
    with path.open(encoding="utf-8") as file:
        try:
            if next(file, "") != _HEAD:
                raise ValueError("isn't a list that gansound wrote")
            for line in islice(file, limit):
                if line.strip() != "]}":
                    entry = json.loads(line.rstrip().rstrip(","))
                    if not isinstance(entry.get("file"), str) or Path(entry["file"]).name != entry["file"]:
                        raise ValueError("names a file that isn't in the folder")
                    yield entry
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path}: {error}. {what_to_do}") from None


def needed_bytes(n: int, channels: int, clip_samples: int, bits: int) -> int:
    """What so many sounds take on a disk at most."""
    return n * (channels * clip_samples * bits // 8 + 2 * _BESIDE_SOUND_BYTES)


def latent_hash(latent: str) -> str:
    """What stands in a sound file's tag for a latent, as `origin` writes it, that is in the list alone."""
    return hashlib.blake2b(latent.encode(), digest_size=8).hexdigest()


def _comment(origin: Mapping[str, Any]) -> str:
    text = json.dumps(origin, ensure_ascii=False, allow_nan=False)
    if "latent" in origin and len(text.encode()) > TAG_LIMIT_BYTES:  # one of many values is in the list alone
        told = {key: value for key, value in origin.items() if key != "latent"}
        told["latent_hash"] = latent_hash(origin["latent"])
        text = json.dumps(told, ensure_ascii=False, allow_nan=False)
    return text
