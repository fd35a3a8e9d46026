"""The samples of a record, from its file or from the shard where they lie: the same bits either way."""

from collections.abc import Callable

import numpy as np

from gansound import audio
from gansound.data import store
from gansound.data.disk_cache import DiskCache
from gansound.data.manifest import ENCODINGS, Record

_FULL_SCALE_16 = np.float32(32768)


def read(
    record: Record,
    *,
    start: int = 0,
    frames: int | None = None,
    mono: bool = True,
    check: Callable[[audio.AudioInfo], None] | None = None,
    cache: DiskCache | None = None,
) -> tuple[np.ndarray, int]:
    """``frames`` samples from ``start`` on (to the end when None), and the rate, as :func:`gansound.audio.read`.

    ``check`` is shown what a file holds; a shard is asked for a range of its bytes, by way of ``cache`` where there is
    one, and holds what its index says.
    Raises AudioError.
    """
    stored = record.stored
    if stored is None:
        return audio.read(record.path, start=start, frames=frames, mono=mono, check=check)
    length = record.frames - start if frames is None else frames
    if start < 0 or length < 1 or start + length > record.frames:
        raise audio.AudioError(
            f"{record.place}: asked for samples {start} to {start + length}, but it holds {record.frames}"
        )
    kind = np.dtype(ENCODINGS[stored.encoding])
    width = kind.itemsize * stored.channels
    first, last = stored.at + start * width, stored.at + (start + length) * width
    if cache is None:
        raw = store.read(stored.shard, first, last)
    else:
        raw = cache.read(stored.shard, first, last, of=(stored.at, stored.at + record.frames * width))
    samples = np.frombuffer(raw, kind).reshape(length, stored.channels)
    if kind.kind == "i":
        samples = samples.astype(np.float32) / _FULL_SCALE_16
    elif not np.isfinite(samples).all():
        raise audio.AudioError(f"{record.place}: holds NaN or infinite samples. Write the shards again")
    else:
        samples = samples.astype(np.float32)
    if not mono:
        return np.ascontiguousarray(samples.T), record.sample_rate
    return audio.mixed(samples, stored.mono), record.sample_rate


def info(record: Record) -> audio.AudioInfo:
    """What its file's header says; of a record in a shard what the index says. Raises AudioError."""
    if record.stored is None:
        return audio.probe(record.path)
    stored = record.stored
    return audio.AudioInfo(
        record.path, record.sample_rate, record.frames, stored.channels, "WAV", stored.encoding, (0, 0, 0, 0)
    )
