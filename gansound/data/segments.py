"""Training segments by position: item ``position`` is a pure function of (seed, position) and the records.

A file is drawn in proportion to how many segments it holds, then a crop, then a gain. Nothing depends on the
order of access, on workers, on the cache or on the process, so resuming is knowing the next position.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch.utils.data import Sampler

from gansound import audio
from gansound.data.decoded import Source, shared_array
from gansound.data.disk_cache import DiskCache
from gansound.data.items import Item, PositionDataset
from gansound.data.manifest import Record
from gansound.data.pitch import Pitches
from gansound.data.records import narrowed
from gansound.draw import draw

log = logging.getLogger(__name__)

PEAK_LIMIT = 0.99
_CROP_TRIES = 4
_LEVEL_WINDOWS = 16
_ROUNDING_DB = 1e-3
_PIECE = 1 << 15
_FINENESS = 64  # of shares that are made whole numbers


class SegmentDataset(PositionDataset):
    """Segments of ``segment_samples`` at ``sample_rate``, mono, one for each position 0 … 2**64 - 1.

    An item: ``audio`` (segment_samples,) float32, ``position``, ``record`` (index into ``records``), ``start``
    (sample of the file where it begins, at the model's rate; negative: zeros before), ``gain_db``, ``retries``,
    ``bandwidth_hz``: half the lower of the file's rate and the model's, above which the segment is empty.

    records: usually one split. A file that isn't of the rate and length they say is drawn past, see
        :mod:`gansound.data.items`.
    speed: largest change of speed and pitch, in octaves: half of the segments, drawn, are resampled by a factor
        uniform on a logarithmic scale, so that one speaker sounds like several. Slowing lowers all frequencies: of a
        file of the model's rate the target would be empty at the top, and a net learns to leave it empty. So a
        segment is slowed only as far as the file's own rate is above the model's, from its own samples (read from
        disk each time); a file of the model's rate is only made faster. None changes none.
    gain_db: range of a uniform gain, lowered where a peak would pass 0.99; None leaves levels as they are.
    silence_db: a crop this far under its file's level is drawn anew, up to three times, so silence is still
        seen, but rarely; None keeps the first draw.
    crop: "random", or "start" for one-shots: every file equally often, from its first sample on.
    pad: where zeros go when a file is shorter than a segment: "end", or "random" for a drawn offset.
    balance: a speaker with h hours is drawn in proportion to h ** balance: 1 every second equally often, 0 every
        speaker equally often. Below 1 every record is read once, for its speaker.
    cache_bytes: decoded audio is kept in memory (shared by forked workers) when all of it fits in this; as
        16-bit integers where the files are 16-bit, mono and of the model's rate, else as float32.
    disk: keeps pieces of shards, so that a store is asked for less.
    pitch: of the records. Segments then begin at its frames, and an item has ``f0`` (segment_samples / hop,) too: of
        frame i at sample i * hop, as it sounds at the segment's speed.
    """

    purpose = "segment"

    def __init__(
        self,
        records: Sequence[Record],
        *,
        sample_rate: int,
        segment_samples: int,
        seed: int,
        speed: float | None = None,
        gain_db: tuple[float, float] | None = None,
        silence_db: float | None = 30.0,
        crop: Literal["random", "start"] = "random",
        pad: Literal["end", "random"] = "end",
        balance: float = 1.0,
        cache_bytes: int = 2**30,
        disk: DiskCache | None = None,
        pitch: Pitches | None = None,
    ) -> None:
        if not records:
            raise ValueError(
                "got no records to draw segments from, expected one or more. Check path and split"
            )
        if segment_samples < 1 or sample_rate < 1:
            raise ValueError(
                f"segment_samples and sample_rate must be 1 or more, got {segment_samples} and {sample_rate}"
            )
        if gain_db is not None and not (len(gain_db) == 2 and gain_db[0] <= gain_db[1]):
            raise ValueError(f"gain_db must be (lowest, highest) in dB, got {gain_db}")
        if crop not in ("random", "start") or pad not in ("end", "random"):
            raise ValueError(f"crop is 'random' or 'start', pad 'end' or 'random'; got {crop!r} and {pad!r}")
        self.sample_rate = sample_rate
        self.segment_samples = segment_samples
        if speed is not None and not 0 < speed <= 1:
            raise ValueError(f"speed must be above 0 and at most 1 octave, got {speed}")
        self.seed = seed
        self.speed = speed
        self.gain_db = gain_db
        self.silence_db = silence_db
        self.crop = crop
        self.pad = pad
        self.pitch = pitch
        self._grid = 1 if pitch is None else pitch.hop_length
        self.source = Source(records, sample_rate, cache_bytes, disk=disk)
        self.records = self.source.records
        self._rates = self.records.sample_rates
        length = segment_samples if crop == "random" else None
        if balance == 1:
            self._cumulative = _summed(self.source.frames, length)
        else:
            weights = _segments(self.source.frames, length)
            names = [record.speaker or record.label for record in self.records]
            if not any(names):
                log.warning(
                    "balance %g does nothing: no file says its speaker, nor lies in a label's folder", balance
                )
            weights = _balanced(weights, names, balance)
            self._cumulative = narrowed(np.cumsum(weights, dtype=np.int64))
        self._share_levels()

    def _share_levels(self) -> None:
        self._levels = shared_array(len(self.records), np.float64)  # dB by record; 0: not measured yet

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_levels": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._share_levels()  # a spawned worker keeps its own

    @property
    def seconds(self) -> float:
        """Duration of all the records."""
        return float(self.source.frames.sum()) / self.sample_rate

    def _choose(self, position: int, purpose: str) -> tuple[int, np.random.Generator]:
        rng = draw(self.seed, position, purpose)
        # As the array's own type: else numpy would copy all of it into the number's.
        number = self._cumulative.dtype.type(rng.integers(int(self._cumulative[-1])))
        return int(self._cumulative.searchsorted(number, side="right")), rng

    def _record(self, chosen: int) -> int:
        return chosen

    def _make(self, position: int, chosen: int, rng: np.random.Generator) -> Item:
        rate = self._rate(position, chosen)
        speed = rate / self.sample_rate
        # Rounded up, so that what is left after resampling still fills the segment.
        length = -(-self.segment_samples * rate // self.sample_rate)
        start, samples = self._crop(chosen, length, rng)
        if rate < self.sample_rate:
            samples, rate = self._native(chosen, start, rate)
        if rate != self.sample_rate:
            samples = np.ascontiguousarray(
                audio.resample(samples, rate, self.sample_rate)[: self.segment_samples]
            )
        gain = self._gain(position, samples)
        if gain:
            samples = samples * np.float32(10 ** (gain / 20))
        return {
            "audio": samples,
            "record": chosen,
            "start": start,
            "gain_db": float(gain),
            "bandwidth_hz": self.bandwidth_hz(chosen),
        } | self._f0(chosen, start, speed)

    def _f0(self, index: int, start: int, speed: float = 1.0) -> Item:
        """Of a segment that begins at a sample of the file, where a pitch is asked for."""
        if self.pitch is None:
            return {}
        hop = self.pitch.hop_length
        return {"f0": self.pitch.at(index, start / hop, self.segment_samples // hop, speed)}

    def bandwidth_hz(self, index: int) -> float:
        """Half the lower of a file's rate and the model's."""
        return min(int(self._rates[index]), self.sample_rate) / 2

    def _crop(self, index: int, length: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        spare = int(self.source.frames[index]) - length
        if spare <= 0:
            offset = self._grid * int(rng.integers(-spare // self._grid + 1)) if self.pad == "random" else 0
            samples = np.zeros(length, dtype=np.float32)
            file = self.source.read(index, 0, length + spare)[0]
            samples[offset : offset + len(file)] = file
            return -offset, samples
        if self.crop == "start":
            return 0, self.source.read(index, 0, length)[0]
        for _ in range(self.tries):
            start = self._grid * int(rng.integers(spare // self._grid + 1))
            samples = self.source.read(index, start, length)[0]
            if self.is_heard(index, samples):
                break
        return start, samples

    @property
    def tries(self) -> int:
        """Crops that are drawn until one is heard."""
        return 1 if self.silence_db is None else _CROP_TRIES

    def is_heard(self, index: int, samples: np.ndarray) -> bool:
        """Whether a crop isn't silence, by its file's level."""
        if self.silence_db is None:
            return True
        level = audio.rms_db(samples)
        return (
            level >= self._highest_level(index) - self.silence_db
            or level >= self._level(index) - self.silence_db
        )

    def _level_windows(self, index: int) -> tuple[int, int]:
        """How many windows a file's level is measured in, none over another, and how long they are."""
        # A slowed crop may come from a file that is shorter than a segment.
        length = min(self.segment_samples, int(self.source.frames[index]))
        spare = int(self.source.frames[index]) - length
        return min(_LEVEL_WINDOWS, 1 + spare // length), length

    def _highest_level(self, index: int) -> float:
        """What a file's level in dB is at most, without reading it; infinite where nothing is known.

        A shard's index says the energy of the whole, of which the windows have no more. Of most crops that is enough
        to know that they are heard, which spares a store the windows of each file.
        """
        record = self.records[index] if self.records.waits and not self._levels[index] else None
        if record is None or record.stored is None or record.sample_rate != self.sample_rate:
            return np.inf
        count, length = self._level_windows(index)
        return 10 * float(np.log10(max(record.stored.energy / (count * length), 1e-30))) + _ROUNDING_DB

    def _level(self, index: int) -> float:
        """RMS in dB over up to 16 segments spread evenly over the file, decoded once."""
        if not self._levels[index]:
            count, length = self._level_windows(index)
            spare = int(self.source.frames[index]) - length
            starts = np.linspace(0, spare, count).astype(int) if count > 1 else np.array([spare // 2])
            windows = self.source.windows(index, starts.tolist(), length)
            powers = [np.mean(np.square(window)) for window in windows]
            self._levels[index] = audio.rms_db(np.sqrt(powers))
        return float(self._levels[index])

    def _rate(self, position: int, index: int) -> int:
        """The rate this segment is taken to have been recorded at, had it been recorded at the model's."""
        if self.speed is None:
            return self.sample_rate
        rng = draw(self.seed, position, "speed")
        if rng.random() < 0.5:
            return self.sample_rate
        spare = np.log2(int(self.records.sample_rates[index]) / self.sample_rate)
        lowest = -min(self.speed, max(0.0, float(spare)))
        return max(1, round(self.sample_rate * 2 ** rng.uniform(lowest, self.speed)))

    def _native(self, index: int, start: int, rate: int) -> tuple[np.ndarray, int]:
        """What a crop holds at the file's own rate, and the rate that slows it as much as ``rate`` slows the crop."""
        own = int(self.records.sample_rates[index])
        slowed = -(-own * rate // self.sample_rate)
        wanted, frames = (
            -(-self.segment_samples * slowed // self.sample_rate),
            int(self.records.frames[index]),
        )
        begin = start * own // self.sample_rate
        lead = max(0, -begin)  # zeros before a file that is shorter
        begin = min(max(0, begin), max(0, frames - wanted))
        length = min(frames - begin, wanted - lead)
        samples = np.zeros(wanted, dtype=np.float32)
        samples[lead : lead + length] = self.source.native(index, begin, length)[0]
        return samples, slowed

    def _gain(self, position: int, samples: np.ndarray) -> float:
        """In dB; a peak already over the limit is brought down to it."""
        if self.gain_db is None:
            return 0.0
        gain = float(draw(self.seed, position, "gain").uniform(*self.gain_db))
        return min(gain, 20 * np.log10(PEAK_LIMIT) - 1e-4 - audio.peak_db(samples))


def _segments(frames: np.ndarray, length: int | None) -> np.ndarray:
    """How many segments of a length files hold, one at least; one each where there is no length."""
    return np.ones_like(frames) if length is None else (frames - 1) // length + 1


def _summed(frames: np.ndarray, length: int | None) -> np.ndarray:
    """Sums of the segments up to each file, in 32 bits where they fit: piece by piece, which stays in the cache."""
    most = len(frames) + (int(frames.sum(dtype=np.int64)) // length if length else 0)
    sums = np.empty(len(frames), np.uint32 if most < 2**32 else np.int64)
    before = sums.dtype.type(0)
    for start in range(0, len(frames), _PIECE):
        piece = sums[start : start + _PIECE]
        np.cumsum(_segments(frames[start : start + _PIECE], length), dtype=sums.dtype, out=piece)
        np.add(piece, before, out=piece)
        before = piece[-1]
    return sums


def _balanced(weights: np.ndarray, speakers: Sequence[str | None], balance: float) -> np.ndarray:
    """Weights of records such that a speaker's together are the power `balance` of what they were."""
    _, speaker = np.unique([name or "" for name in speakers], return_inverse=True)
    together = np.bincount(speaker, weights)
    shares = weights * (together ** (balance - 1))[speaker]
    return np.maximum(1, np.round(shares / shares.min() * _FINENESS)).astype(np.int64)


class PositionSampler(Sampler[int]):
    """Positions ``start`` … ``stop`` - 1 in order: to resume, start at step * global batch.

    With several ranks, each global batch of ``ranks * batch_size`` positions is dealt out in contiguous parts,
    so that step and global batch alone say which items train, whatever the number of ranks. ``stop - start``
    must then be a multiple of the global batch.
    """

    def __init__(self, start: int, stop: int, *, rank: int = 0, ranks: int = 1, batch_size: int = 1) -> None:
        if not 0 <= start <= stop:
            raise ValueError(f"expected 0 <= start <= stop, got {start} and {stop}")
        if not 0 <= rank < ranks or batch_size < 1 or (stop - start) % (ranks * batch_size):
            raise ValueError(
                f"{stop - start} positions can't be dealt to {ranks} ranks (this is {rank}) in batches of "
                f"{batch_size}: expected a multiple of {ranks * batch_size}"
            )
        self.start, self.stop = start, stop
        self.rank, self.ranks, self.batch_size = rank, ranks, batch_size

    def __iter__(self) -> Iterator[int]:
        whole = self.ranks * self.batch_size
        for first in range(self.start + self.rank * self.batch_size, self.stop, whole):
            yield from range(first, first + self.batch_size)

    def __len__(self) -> int:
        return (self.stop - self.start) // self.ranks
