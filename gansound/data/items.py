"""Items by position, and what happens at a position whose file can't be used any more.

A file may vanish or change while a run lasts. The position is then drawn anew, from the stream of another purpose: so
it is again a function of (seed, position) and of which files are good, and a batch is never short or corrupt.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from gansound import audio
from gansound.data.records import Records

TRIES = 16
_NAMED = 3
_AT_ONCE = 32

BOOKKEEPING = frozenset({"position", "record", "retries", "start", "gain_db"})
"""Of a batch: where its items come from. They stay with the processor, which draws and counts by them."""

BAD = "bad"
"""Of a batch: (record, what is wrong with its file) for each draw that failed; only there where one did."""

Item = dict[str, Any]


class PositionDataset(Dataset[dict[str, torch.Tensor]], ABC):
    """A data set of one item for each position 0 … 2**64 - 1.

    ``retries`` of an item says how many draws failed before it: 0, but for files that went bad. ValueError names
    them when 16 in a row did.
    """

    records: Records
    purpose: str
    """Of the draw that says which file."""

    @abstractmethod
    def _choose(self, position: int, purpose: str) -> tuple[int, np.random.Generator]:
        """What the draw of a purpose takes at a position, and the generator for what is drawn of it."""

    @abstractmethod
    def _record(self, chosen: int) -> int:
        """The record of what was chosen."""

    @abstractmethod
    def _make(self, position: int, chosen: int, rng: np.random.Generator) -> Item:
        """An item of arrays and numbers. Raises AudioError when its file can't be used."""

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        item = self._item(position)
        item.pop(BAD, None)
        return {name: stacked([value])[0] for name, value in item.items()}

    def __getitems__(self, positions: Sequence[int]) -> list[Item]:
        """Items of a batch, for :func:`collate`; what DataLoader calls.

        Where sounds are waited for, all items of the batch wait at once: their positions are known beforehand.
        """
        if not self.records.waits:
            return [self._item(position) for position in positions]
        with ThreadPoolExecutor(min(len(positions), _AT_ONCE)) as pool:
            return list(pool.map(self._item, positions))

    def file(self, position: int) -> str:
        """The file that is drawn first at a position."""
        return self.records[self._record(self._choose(position, self.purpose)[0])].place

    def _item(self, position: int) -> Item:
        position = int(position)
        bad: list[tuple[int, str]] = []
        for attempt in range(TRIES):
            purpose = f"{self.purpose} retry {attempt}" if attempt else self.purpose
            chosen, rng = self._choose(position, purpose)
            try:
                item = self._make(position, chosen, rng)
            except audio.AudioError as error:
                bad.append((self._record(chosen), str(error)))
            else:
                item |= {"position": int(np.uint64(position).astype(np.int64)), "retries": len(bad)}
                return item | {BAD: bad} if bad else item
        reasons = list(dict.fromkeys(reason for _, reason in bad))
        more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        raise ValueError(
            f"{TRIES} draws in a row met files that can't be used: {'; '.join(reasons[:_NAMED])}{more}. Put them "
            "back, or prepare the corpus again without them ('gansound data prepare')"
        )


def stacked(values: Sequence[Any]) -> torch.Tensor:
    """Arrays or numbers of several items as one tensor, the items first."""
    if isinstance(values[0], np.ndarray):
        return torch.from_numpy(np.stack(values))
    return torch.tensor(values, dtype=torch.float32 if isinstance(values[0], float) else torch.int64)


class Batch(dict[str, Any]):
    """Tensors by name, of which a worker process shares only the large ones: sharing one takes half a millisecond."""

    def __reduce__(self) -> tuple[Any, ...]:
        small = {
            name: value.numpy()
            for name, value in self.items()
            if isinstance(value, torch.Tensor) and value.ndim == 1
        }
        return _received, (small, {name: value for name, value in self.items() if name not in small})


def _received(small: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> Batch:
    return Batch({name: torch.from_numpy(value) for name, value in small.items()} | dict(rest))


def collate(items: Sequence[Item]) -> Batch:
    """Stack items: ``audio`` (B, …), the rest (B,); and what is :data:`BAD`, where something is."""
    batch = Batch({name: stacked([item[name] for item in items]) for name in items[0] if name != BAD})
    if get_worker_info() is not None:
        # Else that is done in a thread of the worker which drops the batch for good where /dev/shm has no room.
        for tensor in batch.values():
            if tensor.ndim > 1:
                tensor.share_memory_()
    if bad := [one for item in items for one in item.get(BAD, ())]:
        batch[BAD] = bad
    return batch
