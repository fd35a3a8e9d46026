"""Shards: a prepared corpus in tar files that a store serves by byte ranges. What lies where, and opening it.

    PLACE/shards.json                 what it is, written last; its ``shardlist`` is that of WebDataset's wids
    PLACE/ID/shard-000000.tar         NNNNNNNNN.wav and NNNNNNNNN.json of each recording: a WebDataset
    PLACE/ID/shard-000000.jsonl       the lines of its records
    PLACE/ID/corpus.index             the lines of all, and columns, to be mapped (`gansound.data.index`)

WAV, since any segment of it is one range: of 42 recordings FLAC took half of the bytes, but to enter it at a segment of
8,192 samples 2.5 requests one after the other and 45 KiB by pages of 16, instead of one and 16 KiB. ID is a hash of the
records: other sounds never lie under a name that a run reads from.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gansound.counts import counted
from gansound.data import store
from gansound.data.index import cache_folder, locked, map_index
from gansound.data.manifest import Record

logger = logging.getLogger(__name__)

ABOUT = "shards.json"
INDEX = "corpus.index"
FORMAT = "gansound shards 1"
_ID = re.compile(r"[0-9a-f]{16}")
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class About:
    """What ``shards.json`` says.

    Args:
        id: the folder of the shards.
        records: how many.
        hours: how long together.
        sample_rates: of the recordings, in Hz.
        index_bytes: size of the index.
        index_digest: BLAKE2b of it, 128 bits.
        listed: whether they are opened as a list, as the manifest that they were made from is, or by their index: that
            decides of what the fingerprint is made.
    """

    id: str
    records: int
    hours: float
    sample_rates: list[int]
    index_bytes: int
    index_digest: str
    listed: bool

    @classmethod
    def read(cls, place: str) -> "About":
        """That of a place. Raises ValueError where there is none, or another version's."""
        name = store.join(place, ABOUT)
        try:
            raw = store.read(name)
        except store.StoreError as error:
            raise ValueError(
                f"{error}. Shards are written by 'gansound data prepare DIR -o OUT --shards {place}'"
            ) from None
        try:
            values: Any = json.loads(raw)
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']!r}, expected {FORMAT!r}")
            about = cls(**{key: values[key] for key in cls.__slots__})
            numbers = (about.records, about.index_bytes, *about.sample_rates)
            if not _ID.fullmatch(about.id) or not all(type(n) is int and n > 0 for n in numbers):
                raise ValueError("its numbers can't be")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{name}: describes no shards ({error!s}). Write them with this version's "
                "'gansound data prepare --shards'"
            ) from None
        return about

    def written(self, shards: Sequence[tuple[str, int]]) -> bytes:
        """The file; ``shards``: name and number of records of each."""
        values = {"format": FORMAT, **asdict(self)}
        wids = {"__kind__": "wids-shard-index-v1", "wids_version": 1}
        listed = [{"url": f"{self.id}/{name}", "nsamples": count} for name, count in shards]
        return f"{json.dumps({**values, **wids, 'shardlist': listed}, indent=1)}\n".encode()


def are_at(place: str | os.PathLike[str]) -> bool:
    """Whether a place is one of shards: any URL, or a folder that holds their ``shards.json``."""
    return store.is_url(place) or (Path(place) / ABOUT).is_file()


def open_shards(place: str | os.PathLike[str]) -> Sequence[Record]:
    """The records of the shards at a path or URL: as those of the manifest that they were made from, list or index.

    Of a URL the index is copied into the user's cache once (`$XDG_CACHE_HOME`). Raises ValueError where there are none,
    they aren't complete, or the URL can't be opened here.
    """
    place = os.fspath(place)
    store.check(place)
    about = About.read(place)
    folder = store.join(place, about.id)
    index = store.join(folder, INDEX)
    with contextlib.ExitStack() as held:
        path = _copied(index, about, held) if store.is_url(place) else Path(index)
        records = map_index(path, folder)
    if len(records) != about.records:
        raise ValueError(f"{index}: holds {len(records)} records, {ABOUT} says {about.records}")
    logger.info("%s: %s, %.1f h in shards", place, counted(about.records, "recording"), about.hours)
    return list(records) if about.listed else records


def _copied(index: str, about: About, held: contextlib.ExitStack) -> Path:
    """The index of a URL as a file: kept by its digest, or where nothing can be kept for as long as it takes to map."""
    kept = cache_folder() / f"shards-{about.index_digest}.index"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".lock").open("wb") as lock, locked(lock):
            if not kept.is_file() or kept.stat().st_size != about.index_bytes:
                beside = kept.with_name(f".{kept.name}.{secrets.token_hex(4)}.tmp")
                try:
                    _copy(index, beside, about)
                    beside.replace(kept)
                finally:
                    beside.unlink(missing_ok=True)
        return kept
    except OSError as error:
        logger.info("%s: no index can be kept there (%s)", kept.parent, error.strerror)
    path = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="gansound-"))) / INDEX
    _copy(index, path, about)
    return path


def _copy(index: str, path: Path, about: About) -> None:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("xb") as file:
        for start in range(0, about.index_bytes, _PIECE_BYTES):
            piece = store.read(index, start, min(start + _PIECE_BYTES, about.index_bytes))
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != about.index_digest:
        raise ValueError(f"{index}: isn't the index that {ABOUT} names. Write the shards again")
