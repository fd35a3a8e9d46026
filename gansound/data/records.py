"""The records of a corpus by index: arrays to draw from, and lines that become a Record when one is asked for.

A list of ten million objects takes gigabytes, and again in every forked worker, whose reference counts copy each page
they touch. Here a worker shares all with its parent.
"""

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from gansound.data.manifest import SPLITS, Record, as_values, parse_line
from gansound.data.store import is_url


@dataclass(frozen=True)
class Part:
    """What is known beforehand of the records of a split: ``rows`` of the table, their columns, and sums."""

    rows: np.ndarray  # (n,)
    frames: np.ndarray  # (n,)
    sample_rates: np.ndarray  # (n,) int32
    rates: np.ndarray  # those that occur, sorted
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class Table:
    """The lines of a manifest with what is drawn from in columns.

    ``read(start, stop)`` gives the bytes of the lines; line i is ``offsets[i]`` … ``offsets[i + 1]``. ``splits``: 0
    for none, else 1 + its index in ``SPLITS``. ``folder``: what relative paths are taken from. ``digest``: changes
    with the files that the lines name. ``store``: what names of shards are taken from. ``waits``: some of the sounds
    are waited for rather than read from a disk. ``parts``: by name of the split, where they were
    counted beforehand, so that 10^8 records are opened in a second.
    """

    read: Callable[[int, int], bytes]
    offsets: np.ndarray  # (n + 1,)
    frames: np.ndarray  # (n,)
    sample_rates: np.ndarray  # (n,) int32
    splits: np.ndarray  # (n,) uint8
    folder: Path
    digest: str
    name: str
    store: str | None = field(default=None, kw_only=True)
    waits: bool = field(default=False, kw_only=True)
    parts: Mapping[str, Part] = field(default_factory=dict, kw_only=True)


class Records(Sequence[Record]):
    """Some records of a table, or all: a sequence whose items are made when asked for.

    ``frames`` and ``sample_rates`` are those of the records, in their order.
    """

    def __init__(self, table: Table, rows: np.ndarray | None = None, part: str | None = None) -> None:
        self.table = table
        self._part = part
        self._given = rows

    @property
    def _known(self) -> Part | None:
        return None if self._part is None else self.table.parts[self._part]

    @property
    def _rows(self) -> np.ndarray | None:
        """Of the table; None for all."""
        return self._given if self._known is None else self._known.rows

    @classmethod
    def of(cls, records: "Iterable[Record] | Records") -> "Records":
        """The same records, in arrays."""
        return records if isinstance(records, Records) else cls(_in_memory(records))

    def __len__(self) -> int:
        return len(self.table.frames if self._rows is None else self._rows)

    @property
    def frames(self) -> np.ndarray:
        """Samples of one channel of each file: (n,)."""
        return self._column(self.table.frames) if self._known is None else self._known.frames

    @property
    def sample_rates(self) -> np.ndarray:
        """In Hz: (n,) int32."""
        return self._column(self.table.sample_rates) if self._known is None else self._known.sample_rates

    @property
    def rates(self) -> np.ndarray:
        """The sample rates that occur, sorted."""
        return np.unique(self.sample_rates) if self._known is None else self._known.rates

    @property
    def seconds(self) -> float:
        """Duration of all together."""
        return float((self.frames / self.sample_rates).sum()) if self._known is None else self._known.seconds

    def _column(self, column: np.ndarray) -> np.ndarray:
        return column if self._rows is None else column[self._rows]

    def record(self, index: int) -> Record:
        """The record at an index, negative ones counted from the end."""
        index = range(len(self))[index]
        rows = self._rows
        row = index if rows is None else int(rows[index])
        line = self.table.read(int(self.table.offsets[row]), int(self.table.offsets[row + 1]))
        return parse_line(line, self.table.folder, f"{self.table.name}, record {row}", self.table.store)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Record | Self:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.record(operator.index(index))

    def __iter__(self) -> Iterator[Record]:
        return map(self.record, range(len(self)))

    def take(self, indices: "np.ndarray | Sequence[int]") -> Self:
        """Those at some indices, in their order."""
        indices = np.asarray(indices, dtype=np.int64)
        return type(self)(self.table, narrowed(indices if self._rows is None else self._rows[indices]))

    def by_split(self) -> dict[str, Self]:
        """Those of ``train``, ``valid`` and ``test``; one without a split is for training."""
        if self._given is None and self._part is None and self.table.parts:
            return {name: type(self)(self.table, part=name) for name in SPLITS}
        splits = np.maximum(self._column(self.table.splits), 1)
        return {name: self.take(np.flatnonzero(splits == i)) for i, name in enumerate(SPLITS, start=1)}

    @property
    def have_splits(self) -> bool:
        """Whether any of them says its split."""
        if self._given is None and len(self.table.splits) and self.table.splits[0]:
            return True
        return bool(self._column(self.table.splits).any())

    @property
    def waits(self) -> bool:
        """Whether sounds are waited for rather than read from a disk, so that many should be asked for at once."""
        return self.table.waits

    @property
    def fingerprint(self) -> str:
        """Changes when a file is added, renamed, left out, put elsewhere in the order or becomes another sound.

        Another of the same length is noticed where the records have digests: those of a folder or of 'prepare'.
        """
        if self._known is not None:
            return self._known.fingerprint
        digest = hashlib.blake2b(self.table.digest.encode(), digest_size=16)
        digest.update(self.frames.astype("<i8").tobytes())
        digest.update(self.sample_rates.astype("<i4").tobytes())
        return digest.hexdigest()


def parts_of(table: Table) -> dict[str, Part]:
    """Each split's, counted through."""
    return {
        name: Part(
            records._rows if records._rows is not None else np.arange(0),
            records.frames,
            records.sample_rates,
            records.rates,
            records.seconds,
            records.fingerprint,
        )
        for name, records in Records(table).by_split().items()
    }


def narrowed(numbers: np.ndarray) -> np.ndarray:
    """The same whole numbers, none negative, in 32 bits where they fit: ten million take 40 MB instead of 80."""
    return numbers.astype(np.uint32 if not len(numbers) or numbers.max() < 2**32 else np.int64, copy=False)


def _in_memory(records: Iterable[Record]) -> Table:
    lines, names, waits = [], hashlib.blake2b(digest_size=16), False
    columns: dict[str, list[Any]] = {"frames": [], "sample_rate": [], "split": []}
    for record in records:
        lines.append(json.dumps(as_values(record)).encode())  # ASCII: a name on disk may be no Unicode
        names.update(json.dumps(record.path.name).encode())  # a corpus that moved is the same
        names.update((record.digest or "").encode())
        if record.mel is not None:
            names.update(json.dumps(record.mel.name).encode())
        waits = waits or (record.stored is not None and is_url(record.stored.shard))
        for column, values in columns.items():
            values.append(getattr(record, column))
    blob = b"".join(lines)
    return Table(
        read=_Bytes(blob),
        offsets=narrowed(np.cumsum([0, *map(len, lines)])),
        frames=narrowed(np.array(columns["frames"], dtype=np.int64)),
        sample_rates=np.array(columns["sample_rate"], dtype=np.int32),
        splits=np.array([number_of_split(split) for split in columns["split"]], dtype=np.uint8),
        folder=Path(),
        digest=names.hexdigest(),
        name="corpus",
        waits=waits,
    )


def number_of_split(split: str | None) -> int:
    """As in ``Table.splits``."""
    return 0 if split is None else 1 + SPLITS.index(split)


class _Bytes:
    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def __call__(self, start: int, stop: int) -> bytes:
        return self.blob[start:stop]
