"""What training opens: a manifest, a prepared folder, an LJSpeech layout or any folder of audio."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from gansound import audio
from gansound.counts import counted
from gansound.data.corpus import Scan, by_split, in_threads, scan
from gansound.data.index import open_index
from gansound.data.manifest import MANIFEST_NAME, Record, read_manifest
from gansound.data.shards import are_at, open_shards
from gansound.data.split import split

logger = logging.getLogger(__name__)

_NAMED = 5
INDEXED_BYTES = 16 << 20  # some hundred thousand records, which a list holds well and reads in a second
_MOST_SPLIT_HERE = 1_000_000


def open_corpus(
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    valid: float = 0.05,
    test: float = 0.05,
    speaker_pattern: str | None = None,
) -> Sequence[Record]:
    """Records, each with its split, of a manifest (``.jsonl``), a folder that holds one, shards, or a folder of audio.

    Splits given by a manifest are kept; where none is given they are made by ``seed``, ``valid`` and ``test``.
    Files that can't be read are skipped with a warning. A list, or for a manifest of 16 MiB and more Records, from
    its index. Shards lie in a folder or at a URL, see :mod:`gansound.data.shards`. Raises ValueError when nothing
    remains or there is none, and for millions of files without splits.
    """
    records: Sequence[Record]
    if are_at(path):
        return open_shards(path)
    path = Path(path)
    if path.is_dir() and not (path / MANIFEST_NAME).is_file():
        found = scan(path, speaker_pattern=speaker_pattern)
        records = usable(found)
    else:
        manifest = path / MANIFEST_NAME if path.is_dir() else path
        if not manifest.is_file():
            raise ValueError(f"{path}: no such folder or manifest. Check the path")
        if manifest.suffix.lower() not in (".jsonl", ".json"):
            raise ValueError(
                f"{path}: expected a folder of audio or a manifest (.jsonl), got a {path.suffix} file. How another "
                "project's list becomes a manifest: docs/training.md"
            )
        if manifest.stat().st_size >= INDEXED_BYTES:
            indexed = open_index(manifest)
            if indexed.have_splits:
                return indexed
            if len(indexed) > _MOST_SPLIT_HERE:
                raise ValueError(
                    f"{manifest}: none of {len(indexed):,} records has a split, and no more than "
                    f"{_MOST_SPLIT_HERE:,} are split on opening. Give each line a split, train, valid or test, which "
                    "'gansound data prepare' does"
                )
            records = list(indexed)
        else:
            records = read_manifest(manifest)
        if not records:
            raise ValueError(f"{manifest}: the manifest is empty. Run 'gansound data prepare' again")
    if any(record.split for record in records):
        return records
    records, rule = split(records, seed=seed, valid=valid, test=test, contents=_contents(records))
    shares = ", ".join(f"{name} {len(part)}" for name, part in by_split(records).items())
    logger.info("%s: split by %s: %s files", path, rule, shares)
    return records


def _contents(records: Sequence[Record]) -> list[str]:
    """What tells files of other bytes apart: sample packs share sounds, and a copy must not be held out."""
    return list(in_threads(_content, records))


def _content(record: Record) -> str:
    try:
        return audio.digest(record.path)
    except audio.AudioError:
        return str(record.path)  # whoever reads it says what is wrong with it


def usable(found: Scan) -> list[Record]:
    """The records of a scan; logs what is left out. Raises ValueError when nothing is left."""
    if found.unusable:
        named = "; ".join(f"{path}: {reason}" for path, reason in found.unusable[:_NAMED])
        more = f"; and {len(found.unusable) - _NAMED} more" if len(found.unusable) > _NAMED else ""
        if not found.records:
            raise ValueError(
                f"{found.root}: none of {counted(len(found.unusable), 'file')} can be used: {named}{more}"
            )
        logger.warning("%s: skipped %s: %s%s", found.root, counted(len(found.unusable), "file"), named, more)
    return found.records
