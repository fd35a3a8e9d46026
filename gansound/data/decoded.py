"""Decoded audio of a corpus at one rate and number of channels, from disk or from memory, the same either way."""

import functools
import logging
import mmap
from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any

import numpy as np

from gansound import audio
from gansound.counts import counted
from gansound.data import sound
from gansound.data.corpus import in_threads
from gansound.data.disk_cache import DiskCache
from gansound.data.manifest import Record
from gansound.data.records import Records, narrowed

logger = logging.getLogger(__name__)

_LOSSLESS_IN_INT16 = ("PCM_16", "PCM_S8", "PCM_U8")
_WHOLE_SAMPLES = 1 << 18  # decoding so many takes less than opening and seeking 16 times


class Source:
    """Decoded audio of the records at one rate, from disk or from memory, the same either way.

    A file of as many channels keeps them; any other is mixed to mono, and that is copied to each channel.
    ``cache_bytes``: audio stays in memory, shared by forked workers, when all of it fits in this; as 16-bit
    integers where that loses nothing, else as float32. ``frames``: (n,) at the source's rate, in 32 bits where
    they fit. ``disk``: where pieces of shards are kept.

    Each time a file is opened its header must say what its record says, and a file that was put in its place must
    have the record's digest (:func:`gansound.audio.digest`), where that has one, or AudioError is raised: files change
    while a run lasts. What is in memory stays what it was.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sample_rate: int,
        cache_bytes: int,
        channels: int = 1,
        disk: DiskCache | None = None,
    ) -> None:
        self.records = Records.of(records)
        self.sample_rate = sample_rate
        self.channels = channels
        self.disk = disk
        others = [int(rate) for rate in self.records.rates if rate != sample_rate]
        self.frames = self.records.frames
        if others:
            rates = self.records.sample_rates
            self.frames = self.frames.astype(np.int64)
            for rate in others:
                chosen = rates == rate
                self.frames[chosen] = audio.resampled_frames(self.frames[chosen], rate, sample_rate)
            self.frames = narrowed(self.frames)
        if len(self.frames) and not self.frames.min():
            record = self.records[int(self.frames.argmin())]
            rate = record.sample_rate
            samples = counted(record.frames, f"sample at {rate} Hz is", f"samples at {rate} Hz are")
            raise ValueError(f"{record.place}: {samples} none at {sample_rate} Hz. Leave it out")
        if others:
            empty = (
                f", which leaves nothing above {others[0] // 2} Hz of some" if others[0] < sample_rate else ""
            )
            logger.info(
                "resampling %s Hz to %d Hz on reading%s; 'gansound data prepare --sample-rate %d' does it once",
                ", ".join(map(str, others)),
                sample_rate,
                empty,
                sample_rate,
            )
        self._cache: _Cache | None = None
        self._share_seen()
        self._open_cache(cache_bytes)

    def _share_seen(self) -> None:
        """A hash of the stamp that each file had when its digest was right, 0 before; shared by forked workers."""
        self._stamps = shared_array(len(self.records), np.uint64)

    def _open_cache(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        if 2 * int(self.frames.sum()) * self.channels > cache_bytes:
            return  # not even as 16 bits: spare a million files their probing
        narrow = list(in_threads(self._is_narrow, range(len(self.records))))
        widths = np.where(narrow, 2, 4).astype(np.uint8)
        samples = self.frames.astype(np.int64) * self.channels
        if int((samples * widths).sum()) <= cache_bytes:
            self._cache = _Cache(samples, widths, self.channels)

    def _is_narrow(self, index: int) -> bool:
        try:
            info = self.check(index)
        except audio.AudioError:
            return False  # whoever draws from it says what is wrong with it
        return (
            info.channels in (1, self.channels)
            and info.sample_rate == self.sample_rate
            and info.subtype in _LOSSLESS_IN_INT16
        )

    def check(self, index: int) -> audio.AudioInfo:
        """What the file's header says. Raises AudioError when that isn't what its record says."""
        record = self.records[index]
        info = sound.info(record)
        if record.stored is None:
            self._check(index, record, info)
        return info

    def _check(self, index: int, record: Record, info: audio.AudioInfo) -> None:
        if (info.sample_rate, info.frames) != (record.sample_rate, record.frames):
            raise audio.AudioError(
                f"{record.path}: holds {info.frames} samples at {info.sample_rate} Hz, the manifest says "
                f"{record.frames} at {record.sample_rate} Hz. Run 'gansound data prepare' again"
            )
        stamp = hash(info.stamp) & (2**64 - 1)
        if record.digest is None or stamp == int(self._stamps[index]):
            return
        if audio.digest(record.path) != record.digest:
            raise audio.AudioError(
                f"{record.path}: holds another sound than it did, of the same length. Put the old one back, or run "
                "'gansound data prepare' again and start anew"
            )
        self._stamps[index] = stamp

    def read(self, index: int, start: int, length: int) -> np.ndarray:
        """``length`` samples from ``start`` on, (channels, length) float32, at the source's rate."""
        if self._cache is None:
            return self._decode(index, start, length)
        if not self._cache.filled[index] and not self._cache.fill(
            index, self._decode(index, 0, int(self.frames[index]))
        ):
            raise audio.AudioError(
                f"{self.records[index].place}: was a 16-bit file when the run began, and is finer now. Start it again"
            )
        return self._cache.read(index, start, length)

    def windows(self, index: int, starts: Sequence[int], length: int) -> list[np.ndarray]:
        """``length`` samples from each of some starts on, as :meth:`read`; a file that isn't long is opened once."""
        frames = int(self.frames[index])
        if self._cache is not None or frames > _WHOLE_SAMPLES:
            return [self.read(index, start, length) for start in starts]
        whole = self._decode(index, 0, frames)
        return [whole[:, start : start + length] for start in starts]

    def _decode(self, index: int, start: int, length: int) -> np.ndarray:
        record = self.records[index]
        if record.sample_rate == self.sample_rate:
            return self.native(index, start, length)
        return self._decode_resampled(index, record, start, length)

    def native(self, index: int, start: int, length: int) -> np.ndarray:
        """``length`` samples from ``start`` on, (channels, length) float32, at its own rate, from where it lies."""
        record = self.records[index]
        check = functools.partial(self._check, index, record)
        read = functools.partial(sound.read, record, start=start, frames=length, check=check, cache=self.disk)
        if self.channels == 1:
            return read()[0][None]
        samples = read(mono=False)[0]
        return samples if len(samples) == self.channels else np.tile(read()[0], (self.channels, 1))

    def _decode_resampled(self, index: int, record: Record, start: int, length: int) -> np.ndarray:
        """From blocks of two seconds, each resampled on its own with 50 ms more on both sides for the filter.

        That equals cutting from the whole file resampled to rounding errors. The blocks' places are fixed (where
        samples of the two rates coincide), so any cut through them, of one segment or of a whole file for the
        cache, gives the very same bits.
        """
        divisor = gcd(record.sample_rate, self.sample_rate)
        down, up = record.sample_rate // divisor, self.sample_rate // divisor
        units, margin = 2 * divisor, -(-divisor // 20)  # a unit is 1 / divisor seconds at either rate
        first, last = start // (units * up), (start + length - 1) // (units * up)
        earliest = max(0, first * units - margin) * down
        latest = min(record.frames, (last * units + units + margin) * down)
        native = self.native(index, earliest, latest - earliest)  # at once: some codecs decode from the start
        blocks = []
        for block in range(first, last + 1):
            begin = max(0, block * units - margin) * down
            end = min(record.frames, (block * units + units + margin) * down)
            piece = native[:, begin - earliest : end - earliest]
            offset = block * units * up - begin // down * up
            resampled = audio.resample(piece, record.sample_rate, self.sample_rate)
            blocks.append(resampled[:, offset : offset + units * up])
        offset = start - first * units * up
        return np.concatenate(blocks, axis=1)[:, offset : offset + length]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None, "_stamps": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._share_seen()  # a spawned worker keeps its own
        self._open_cache(self.cache_bytes)


def shared_array(length: int, dtype: type) -> np.ndarray:
    """Zeros that forked workers see each other write; pages that nobody writes cost nothing."""
    return np.frombuffer(mmap.mmap(-1, length * np.dtype(dtype).itemsize), dtype=dtype)


class _Cache:
    """All files behind one another in anonymous shared memory, which forked workers fill for each other."""

    def __init__(self, samples: np.ndarray, widths: np.ndarray, channels: int) -> None:
        self.channels = channels
        self.samples = samples
        self.widths = widths
        # float32 stays aligned after odd 16-bit files
        ends = np.cumsum(self.samples * widths + 2 * (self.samples % 2))
        self.offsets = np.concatenate([[0], ends[:-1]])
        self._memory = mmap.mmap(-1, int(ends[-1]))
        self.filled = shared_array(len(samples), np.uint8)

    def _view(self, index: int) -> np.ndarray:
        kind = np.int16 if self.widths[index] == 2 else np.float32
        samples = np.frombuffer(self._memory, kind, int(self.samples[index]), int(self.offsets[index]))
        return samples.reshape(self.channels, -1)

    def fill(self, index: int, samples: np.ndarray) -> bool:
        """Whether they could be kept without loss, and are."""
        view = self._view(index)
        if view.dtype == np.int16:
            samples = samples * np.float32(32768)
            if (samples != np.rint(samples)).any() or samples.min() < -32768 or samples.max() > 32767:
                return False
        view[:] = samples
        self.filled[index] = 1  # after the samples: another worker may look at any moment
        return True

    def read(self, index: int, start: int, length: int) -> np.ndarray:
        view = self._view(index)[:, start : start + length]
        return view.copy() if view.dtype == np.float32 else view.astype(np.float32) / np.float32(32768)
