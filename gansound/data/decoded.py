"""Decoded audio of a corpus at one rate and number of channels, from disk or from memory, the same either way."""

import logging
import mmap
from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any

import numpy as np

from gansound import audio
from gansound.data.manifest import Record

logger = logging.getLogger(__name__)

_LOSSLESS_IN_INT16 = ("PCM_16", "PCM_S8", "PCM_U8")


class Source:
    """Decoded audio of the records at one rate, from disk or from memory, the same either way.

    A file of as many channels keeps them; any other is mixed to mono, and that is copied to each channel.
    ``cache_bytes``: audio stays in memory, shared by forked workers, when all of it fits in this; as 16-bit
    integers where that loses nothing, else as float32.
    """

    def __init__(
        self, records: Sequence[Record], sample_rate: int, cache_bytes: int, channels: int = 1
    ) -> None:
        self.records = records
        self.sample_rate = sample_rate
        self.channels = channels
        self.frames = np.array(
            [audio.resampled_frames(r.frames, r.sample_rate, sample_rate) for r in records], dtype=np.int64
        )
        if len(silent := np.flatnonzero(self.frames == 0)):
            record = records[silent[0]]
            raise ValueError(
                f"{record.path}: {record.frames} samples at {record.sample_rate} Hz are none at {sample_rate} Hz. "
                "Leave it out"
            )
        others = sorted({r.sample_rate for r in records} - {sample_rate})
        if others:
            logger.info(
                "resampling %s Hz to %d Hz on reading; 'gansound data prepare --sample-rate %d' does it once",
                ", ".join(map(str, others)),
                sample_rate,
                sample_rate,
            )
        self.file_channels = np.zeros(len(records), dtype=np.int64)  # 0: not opened yet
        self._cache: _Cache | None = None
        self._open_cache(cache_bytes)

    def _open_cache(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        samples = self.frames * self.channels
        if 2 * int(samples.sum()) > cache_bytes:
            return  # not even as 16 bits: spare a million files their probing
        narrow = [self._is_narrow(index) for index in range(len(self.records))]
        widths = np.where(narrow, 2, 4)
        if int((samples * widths).sum()) <= cache_bytes:
            self._cache = _Cache(self.frames, widths, self.channels)

    def _is_narrow(self, index: int) -> bool:
        info = self.check(index)
        return (
            info.channels in (1, self.channels)
            and info.sample_rate == self.sample_rate
            and info.subtype in _LOSSLESS_IN_INT16
        )

    def check(self, index: int) -> audio.AudioInfo:
        """What the file's header says. Raises AudioError when that isn't what its record says."""
        record = self.records[index]
        info = audio.probe(record.path)
        if (info.sample_rate, info.frames) != (record.sample_rate, record.frames):
            raise audio.AudioError(
                f"{record.path}: holds {info.frames} samples at {info.sample_rate} Hz, the manifest says "
                f"{record.frames} at {record.sample_rate} Hz. Run 'gansound data prepare' again"
            )
        self.file_channels[index] = info.channels
        return info

    def read(self, index: int, start: int, length: int) -> np.ndarray:
        """``length`` samples from ``start`` on, (channels, length) float32, at the source's rate."""
        if self._cache is None:
            return self._decode(index, start, length)
        if not self._cache.filled[index]:
            self._cache.fill(index, self._decode(index, 0, int(self.frames[index])))
        return self._cache.read(index, start, length)

    def _decode(self, index: int, start: int, length: int) -> np.ndarray:
        if not self.file_channels[index]:
            self.check(index)
        record = self.records[index]
        if record.sample_rate == self.sample_rate:
            return self._read(record, start, length)
        return self._decode_resampled(record, start, length)

    def _read(self, record: Record, start: int, length: int) -> np.ndarray:
        if self.channels == 1:
            return audio.read(record.path, start=start, frames=length)[0][None]
        samples = audio.read(record.path, start=start, frames=length, mono=False)[0]
        if len(samples) == self.channels:
            return samples
        return np.repeat(samples.mean(axis=0, dtype=np.float32, keepdims=True), self.channels, axis=0)

    def _decode_resampled(self, record: Record, start: int, length: int) -> np.ndarray:
        """From blocks of two seconds, each resampled on its own with 50 ms more on both sides for the filter.

        That equals cutting from the whole file resampled to rounding errors. The blocks' places are fixed (where
        samples of the two rates coincide), so any cut through them, of one segment or of a whole file for the
        cache, gives the very same bits.
        """
        divisor = gcd(record.sample_rate, self.sample_rate)
        down, up = record.sample_rate // divisor, self.sample_rate // divisor
        units, margin = 2 * divisor, -(-divisor // 20)  # a unit is 1 / divisor seconds at either rate
        first, last = start // (units * up), (start + length - 1) // (units * up)
        blocks = []
        for block in range(first, last + 1):
            begin = max(0, block * units - margin) * down
            end = min(record.frames, (block * units + units + margin) * down)
            piece = self._read(record, begin, end - begin)
            offset = block * units * up - begin // down * up
            resampled = audio.resample(piece, record.sample_rate, self.sample_rate)
            blocks.append(resampled[:, offset : offset + units * up])
        offset = start - first * units * up
        return np.concatenate(blocks, axis=1)[:, offset : offset + length]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_cache(self.cache_bytes)  # a spawned worker keeps its own


class _Cache:
    """All files behind one another in anonymous shared memory, which forked workers fill for each other."""

    def __init__(self, frames: np.ndarray, widths: np.ndarray, channels: int) -> None:
        self.channels = channels
        self.samples = frames * channels
        self.widths = widths
        ends = np.cumsum(
            self.samples * widths + 2 * (self.samples % 2)
        )  # float32 stays aligned after odd 16-bit files
        self.offsets = np.concatenate([[0], ends[:-1]])
        self._memory = mmap.mmap(-1, int(ends[-1]))
        self.filled = np.frombuffer(mmap.mmap(-1, len(frames)), dtype=np.uint8)

    def _view(self, index: int) -> np.ndarray:
        kind = np.int16 if self.widths[index] == 2 else np.float32
        samples = np.frombuffer(self._memory, kind, int(self.samples[index]), int(self.offsets[index]))
        return samples.reshape(self.channels, -1)

    def fill(self, index: int, samples: np.ndarray) -> None:
        view = self._view(index)
        view[:] = samples if view.dtype == np.float32 else np.rint(samples * 32768.0)
        self.filled[index] = 1  # after the samples: another worker may look at any moment

    def read(self, index: int, start: int, length: int) -> np.ndarray:
        view = self._view(index)[:, start : start + length]
        return view.copy() if view.dtype == np.float32 else view.astype(np.float32) / np.float32(32768)
