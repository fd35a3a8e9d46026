"""F0 of recordings beside them: found once and kept, or brought; cut for segments, whatever their speed.

It is kept in the user's cache (`$XDG_CACHE_HOME`, as a rule `~/.cache/gansound/f0`), a file for each recording, by what
tells recordings apart and by rate and hop: finding it takes two thirds of the recording's length on one core.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gansound import audio
from gansound.counts import counted, some_of
from gansound.data import sound
from gansound.data.corpus import in_threads
from gansound.data.index import cache_folder, on_all_cores
from gansound.data.manifest import Record
from gansound.data.pairs import MOST_MISSING_FRAMES, by_name
from gansound.extras import require
from gansound.frames.pitch import pitch_of
from gansound.frames.pitched import check_f0
from gansound.mel.files import read_mel

logger = logging.getLogger(__name__)

_VERSION = 1  # of what is found
_SAID_EVERY_SECONDS = 10.0
_NAMED = 5


@dataclass(frozen=True)
class Pitches:
    """The pitch of some recordings, one behind the other.

    Args:
        hop_length: samples of a frame, at the model's rate.
        values: all of them, float32, Hz at the beginning of each frame, 0 where unvoiced.
        ends: for each recording, the place behind its last frame.
    """

    hop_length: int
    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, tracks: Sequence[np.ndarray], hop_length: int) -> "Pitches":
        """Those of each recording, of a frame or more."""
        ends = np.cumsum([len(track) for track in tracks], dtype=np.int64)
        values = np.concatenate(tracks) if tracks else np.zeros(0)
        return cls(hop_length, values.astype(np.float32), ends)

    def at(self, index: int, first: float, frames: int, speed: float = 1.0) -> np.ndarray:
        """What is heard where a recording is played from a frame on, so many times as fast and so much higher.

        Between two frames it goes straight between their logarithms, or is the nearer one's where one is unvoiced.
        Beyond the recording it is that of its first or its last frame.

        Shape:
            `(frames,)` float32.
        """
        whole = self.values[self.ends[index - 1] if index else 0 : self.ends[index]]
        place = np.clip(first + speed * np.arange(frames), 0, len(whole) - 1)
        before = place.astype(np.int64)
        one, other = whole[before], whole[np.minimum(before + 1, len(whole) - 1)]
        share = (place - before).astype(np.float32)
        both = (one > 0) & (other > 0)
        ratio = np.divide(other, one, out=np.ones_like(one), where=both)
        return np.float32(speed) * np.where(both, one * ratio**share, np.where(share < 0.5, one, other))


def open_pitches(
    records: Sequence[Record], folder: Path | None, sample_rate: int, hop_length: int
) -> Pitches:
    """The pitch of recordings: that which lies in a folder under their names, or where none is named what is found.

    What can't be read has none: whoever draws from it says what is wrong with it.

    Raises:
        ValueError: the folder isn't there, or a file in it is missing, no pitch, or of another number of frames; or
            librosa isn't installed, which finds it.
    """
    if folder is not None:
        tracks = _brought(records, folder, sample_rate, hop_length)
        logger.info("the pitch of %s is that in %s", counted(len(records), "recording"), folder)
    else:
        require("The pitch of recordings, which this generator takes,", "librosa")
        tracks = _found(records, sample_rate, hop_length)
    return Pitches.of(tracks, hop_length)


def _frames(record: Record, sample_rate: int, hop_length: int) -> int:
    return -(-int(audio.resampled_frames(record.frames, record.sample_rate, sample_rate)) // hop_length)


def _brought(records: Sequence[Record], folder: Path, sample_rate: int, hop_length: int) -> list[np.ndarray]:
    find = by_name(folder, "f0")
    tracks, wrong = [], []
    for record in records:
        place = find(record.path)
        try:
            if isinstance(place, str):
                raise ValueError(f"{record.path}: {place}")
            tracks.append(_track(place, _frames(record, sample_rate, hop_length), hop_length / sample_rate))
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError(
            f"data.f0 {folder}: {some_of(len(wrong), len(records), 'recording', 'has', 'have')} no pitch that fits: "
            f"{'; '.join(wrong[:_NAMED])}{more}. Without data.f0 it is found"
        )
    return tracks


def _track(path: Path, frames: int, frame_seconds: float) -> np.ndarray:
    """A file's F0, as many frames as the recording has."""
    f0 = torch.as_tensor(read_mel(path)).float()
    if f0.numel() != max(f0.shape, default=0):
        raise ValueError(f"{path}: got shape {tuple(f0.shape)}, expected (F,): Hz of each frame")
    try:
        check_f0(f0)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if f0.numel() < 1 or abs(f0.numel() - frames) > MOST_MISSING_FRAMES:
        raise ValueError(
            f"{path}: has {counted(f0.numel(), 'frame')} beside a recording of {frames}, expected one every "
            f"{1000 * frame_seconds:.2f} ms, the model's hop, from the recording's first sample on"
        )
    return f0.flatten().numpy()


def _found(records: Sequence[Record], sample_rate: int, hop_length: int) -> list[np.ndarray]:
    """From the cache, or by all cores."""
    kept = partial(_kept, sample_rate=sample_rate, hop_length=hop_length)
    there = list(in_threads(kept, records))
    missing = [index for index, track in enumerate(there) if track is None]
    if not missing:
        return [track for track in there if track is not None]
    seconds = sum(records[index].seconds for index in missing)
    logger.info(
        "finding the pitch of %s (%.2f h), once: it is kept in %s",
        counted(len(missing), "recording"),
        seconds / 3600,
        _folder(),
    )
    said, lost = time.monotonic(), []
    find = partial(_find, sample_rate=sample_rate, hop_length=hop_length)
    with on_all_cores(len(missing), "a process that looked for the pitch of recordings") as each:
        for done, (index, (track, wrong)) in enumerate(
            zip(missing, each(find, [records[index] for index in missing]), strict=True), start=1
        ):
            there[index] = track
            lost += [wrong] if wrong else []
            if time.monotonic() > said + _SAID_EVERY_SECONDS:
                said = time.monotonic()
                logger.info("the pitch of %s is found", some_of(done, len(missing), "recording"))
    if lost:
        logger.warning(
            "%s, for %s can't be read: %s",
            counted(len(lost), "recording has no pitch", "recordings have no pitch"),
            "it" if len(lost) == 1 else "they",
            "; ".join(lost[:_NAMED]),
        )
    return [track for track in there if track is not None]


def _find(record: Record, sample_rate: int, hop_length: int) -> tuple[np.ndarray, str]:
    """F0, kept; or none in any frame, and why."""
    try:
        samples, rate = sound.read(record)
        track = pitch_of(audio.resample(samples, rate, sample_rate), sample_rate, hop_length)
    except audio.AudioError as error:
        return np.zeros(max(1, _frames(record, sample_rate, hop_length)), np.float32), str(error)
    with contextlib.suppress(OSError):  # it is only found again
        place = _place(record, sample_rate, hop_length)
        beside = place.with_name(f".{place.stem}.{secrets.token_hex(4)}.npy")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.save(beside, track)
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)
    return track, ""


def _kept(record: Record, sample_rate: int, hop_length: int) -> np.ndarray | None:
    try:
        track: np.ndarray = np.load(_place(record, sample_rate, hop_length), allow_pickle=False)
        check_f0(torch.from_numpy(track))
    except (OSError, ValueError, TypeError, EOFError, audio.AudioError):
        return None
    return track if track.shape == (_frames(record, sample_rate, hop_length),) else None


def _folder() -> Path:
    return cache_folder() / "f0"


def _place(record: Record, sample_rate: int, hop_length: int) -> Path:
    """Where the pitch of a recording is kept. Raises AudioError for a file that isn't there."""
    if record.digest is None and record.stored is not None:
        name = f"{record.stored.shard} {record.stored.at}"
    else:
        name = record.digest or audio.digest(record.path)
    told = f"{_VERSION} {name} {record.frames} {record.sample_rate} {sample_rate} {hop_length}"
    key = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    return _folder() / key[:2] / f"{key}.npy"
