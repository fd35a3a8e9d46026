"""Clips for a generator of sounds: each recording becomes a whole sound of the model's length, or several.

The item at a position is a pure function of (seed, position), the settings and the records: positions are
endless, so a set smaller than a batch repeats within it and no epoch ends. Every file is decoded and measured
once, on all cores, when the data set is made; then an item is a copy out of memory, a gain and two fades.
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gansound import audio
from gansound.audio import SILENT_PEAK_DB
from gansound.counts import counted, some_of
from gansound.data.corpus import by_split, in_threads
from gansound.data.decoded import Source
from gansound.data.disk_cache import DiskCache
from gansound.data.items import Item, PositionDataset
from gansound.data.manifest import Record
from gansound.data.onsets import Envelope, Read, attacks, decays, ending, held
from gansound.data.records import Records
from gansound.data.settings import OneShotSettings
from gansound.draw import draw

logger = logging.getLogger(__name__)

Kind = Literal["one-shot", "hits", "crops"]
_LONG_CLIPS = 4
_LONG_SECONDS = 4.0  # a cymbal is no recording of several sounds, however short the model's clips
_HELD_SHARE = 0.8
_NAMED = 5
_WHOLE_SAMPLES = 1 << 22  # a recording up to this is decoded once for all that is measured of it


@dataclass(frozen=True, slots=True)
class _Clip:
    """Samples ``start`` … ``stop`` - 1 of a record (before 0: silence), their gain, and where its crops may lie."""

    record: int
    start: int
    stop: int
    gain: float = 1.0
    region: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What one record gave: its clips, or why it gave none."""

    clips: list[_Clip]
    kind: Kind | None = None
    samples: int = 0  # from the attack to the end
    channels: int = 0  # of the file
    offset: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.float32))  # (C, 1)
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class _Form:
    """What clips are, and how recordings become them."""

    sample_rate: int
    clip_samples: int
    channels: int
    settings: OneShotSettings

    def found(self, record: int, read: Read, frames: int) -> _Found:
        """The clips of a record of so many samples, each with its gain."""
        envelope = Envelope.of(read, frames, self.sample_rate)
        if envelope.silent:
            return _Found([], skipped=f"silent, its peak isn't over {SILENT_PEAK_DB:.0f} dB")
        clips, kind, samples = self._placed(record, envelope, read)
        rested: Read = functools.partial(_less, read, envelope.offset)
        if kind == "crops":
            # One level for all, or a pause would become as loud as the sound around it.
            gain = self._gain(rested(clips[0].start, clips[0].stop - clips[0].start), envelope.peak)
            clips = [replace(clip, gain=gain) for clip in clips]
            return _Found(clips, kind, samples, offset=envelope.offset)
        for i, clip in enumerate(clips):
            shaped = self.cut(replace(clip, gain=1.0), clip.start, read, envelope.offset)
            gain = self._gain(shaped[:, : clip.stop - clip.start], float(np.abs(shaped).max()))
            clips[i] = replace(clip, gain=gain)
        return _Found(clips, kind, samples, offset=envelope.offset)

    def cut(self, clip: _Clip, start: int, read: Read, offset: np.ndarray) -> np.ndarray:
        """A clip that begins at ``start``, without its offset, faded, with its gain: (channels, clip_samples)."""
        length, before = clip.stop - clip.start, max(0, -start)
        out = np.zeros((self.channels, self.clip_samples), dtype=np.float32)
        out[:, before:length] = read(start + before, length - before) - offset
        fades = (self._samples(self.settings.fade_in_ms), self._samples(self.settings.fade_out_ms))
        out[:, :length] = audio.fade(out[:, :length], *(min(fade, length // 4) for fade in fades))
        return out * np.float32(clip.gain)

    def _gain(self, sound: np.ndarray, peak: float) -> float:
        """What brings a sound to the settings' level; it never passes full scale."""
        s = self.settings
        highest = 10 ** ((s.peak_db or 0.0) / 20) / max(peak, 1e-9)
        if s.loudness_lufs is not None:
            loudness = audio.loudness_lufs(sound, self.sample_rate)
            return (
                min(highest, 10 ** ((s.loudness_lufs - loudness) / 20)) if np.isfinite(loudness) else highest
            )
        return highest if s.peak_db is not None else min(1.0, highest)

    def _placed(self, index: int, envelope: Envelope, read: Read) -> tuple[list[_Clip], Kind, int]:
        """Where a record's clips lie, what it was taken for, and how long its sound is, in samples."""
        s, length, frames = self.settings, self.clip_samples, envelope.samples
        lead = self._samples(s.lead_ms)
        found = attacks(envelope, read)
        start = found[0] - lead if s.align else 0
        stop = ending(envelope, max(start, 0), frames, s.trim_db)
        longest = max(_LONG_CLIPS * length, _LONG_SECONDS * self.sample_rate)
        rings = len(found) == 1 and decays(envelope, found[0], stop)
        if stop - start >= longest and s.long != "cut" and not (s.long == "auto" and rings):
            hits = []
            for attack, following in zip(found, [*(a - lead for a in found[1:]), frames], strict=True):
                limit = min(following, attack - lead + length)
                hits.append(_Clip(index, attack - lead, ending(envelope, attack, limit, s.trim_db)))
            if s.long == "hits" or (
                s.long == "auto" and held(envelope, [(h.start, h.stop) for h in hits]) >= _HELD_SHARE
            ):
                return hits, "hits" if len(hits) > 1 else "one-shot", stop - start
            region = (max(start, 0), stop)
            starts = range(region[0], stop - length + 1, length)
            return (
                [_Clip(index, first, first + length, region=region) for first in starts],
                "crops",
                stop - start,
            )
        return [_Clip(index, start, min(stop, start + length))], "one-shot", stop - start

    def _samples(self, milliseconds: float) -> int:
        return round(milliseconds * self.sample_rate / 1000)


class ClipDataset(PositionDataset):
    """Clips of ``clip_samples`` at ``sample_rate``, one for each position 0 … 2**64 - 1.

    An item: ``audio`` (channels, clip_samples) float32, its first and last sample 0; ``label``, its number in
    ``labels`` (-1 without labels); ``position``; ``record`` (index into ``records``); ``retries``.

    ``clip(index)`` for index 0 … ``len`` - 1 gives each clip once, in the order of the records, crops of a long
    recording side by side: to validate on.

    records: usually one split. Silent ones, those that can't be decoded or aren't what their record says, and with
        ``labels`` those of none of them, are skipped and named in a warning. A file that goes bad later, and isn't
        in memory, is drawn past, see :mod:`gansound.data.items`.
    labels: names of the classes by number, as of :func:`labels_of`; () draws every file equally.
    cache_bytes: decoded audio is kept in memory, shared by forked workers, when all of it fits in this.
    disk: keeps pieces of shards, so that a store is asked for less.
    Raises ValueError when no clip is left.
    """

    purpose = "clip"

    def __init__(
        self,
        records: Sequence[Record],
        *,
        sample_rate: int,
        clip_samples: int,
        channels: int = 1,
        seed: int,
        labels: Sequence[str] = (),
        settings: OneShotSettings | None = None,
        cache_bytes: int = 2**30,
        disk: DiskCache | None = None,
    ) -> None:
        if not records:
            raise ValueError("got no records to draw clips from, expected one or more. Check path and split")
        if min(sample_rate, clip_samples, channels) < 1:
            raise ValueError(
                "sample_rate, clip_samples and channels must be 1 or more, got "
                f"{sample_rate}, {clip_samples} and {channels}"
            )
        self.records = Records.of(records)
        self.sample_rate = sample_rate
        self.clip_samples = clip_samples
        self.channels = channels
        self.seed = seed
        self.labels = tuple(labels)
        self.settings = settings or OneShotSettings()
        self._form = _Form(sample_rate, clip_samples, channels, self.settings)
        numbers = {name: number for number, name in enumerate(self.labels)}
        skipped, self._used = [], []
        for index, r in enumerate(self.records):
            if self.labels and r.label not in numbers:
                skipped.append((r.path, self._why_unlabelled(r)))
            elif not audio.resampled_frames(r.frames, r.sample_rate, sample_rate):
                skipped.append(
                    (r.path, f"{counted(r.frames, 'sample is', 'samples are')} none at {sample_rate} Hz")
                )
            else:
                self._used.append(index)
        used = self.records.take(self._used)
        self._labels = [numbers.get(r.label or "", -1) for r in used]
        if not used:
            self._say([], [], skipped)
        self.source = Source(used, sample_rate, cache_bytes, channels, disk)
        found = list(in_threads(self._examine, range(len(used))))
        self._say(used, found, skipped)
        self._offsets = [f.offset for f in found]
        self._clips = [clip for f in found for clip in f.clips]
        by_label: dict[int, list[int]] = {}
        for index, clip in enumerate(self._clips):
            by_label.setdefault(self._label(clip) if self.settings.balance else -1, []).append(index)
        self._choices = [np.array(by_label[number]) for number in sorted(by_label)]

    def _why_unlabelled(self, record: Record) -> str:
        if record.label:
            return f"label {record.label!r} is none of the model's"
        if (folder := Path(record.path).absolute().parent.name) in self.labels:
            return f"labels are the folders below the one that is given; give the one above {folder!r}"
        return "lies in no label's folder"

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def seconds(self) -> float:
        """Duration of all the clips' sound, without the silence that fills them up."""
        return sum(clip.stop - max(clip.start, 0) for clip in self._clips) / self.sample_rate

    def record(self, index: int) -> Record:
        """What the clip at an index comes from."""
        return self.records[self._used[self._clips[index].record]]

    def clip(self, index: int) -> tuple[torch.Tensor, int]:
        """The clip at an index: audio (channels, clip_samples) and the number of its label, or -1."""
        clip = self._clips[index]
        return torch.from_numpy(self._cut(clip, clip.start)), self._label(clip)

    def _choose(self, position: int, purpose: str) -> tuple[int, np.random.Generator]:
        rng = draw(self.seed, position, purpose)
        choices = self._choices[int(rng.integers(len(self._choices)))]
        return int(choices[int(rng.integers(len(choices)))]), rng

    def _record(self, chosen: int) -> int:
        return self._used[self._clips[chosen].record]

    def _make(self, position: int, chosen: int, rng: np.random.Generator) -> Item:
        clip = self._clips[chosen]
        start = clip.start
        if clip.region is not None:
            start = int(rng.integers(clip.region[0], clip.region[1] - self.clip_samples + 1))
        return {"audio": self._cut(clip, start), "label": self._label(clip), "record": self._record(chosen)}

    def _cut(self, clip: _Clip, start: int) -> np.ndarray:
        read: Read = functools.partial(self.source.read, clip.record)
        return self._form.cut(clip, start, read, self._offsets[clip.record])

    def _label(self, clip: _Clip) -> int:
        return self._labels[clip.record]

    def _examine(self, index: int) -> _Found:
        """The clips of a record, each with its gain."""
        frames = int(self.source.frames[index])
        read: Read = functools.partial(self.source.read, index)
        try:
            channels = self.source.check(index).channels
            if frames <= _WHOLE_SAMPLES:
                read = functools.partial(_part, read(0, frames))
            found = self._form.found(index, read, frames)
        except audio.AudioError as error:
            return _Found([], skipped=str(error).removeprefix(f"{self.source.records[index].path}: "))
        return found if found.skipped else replace(found, channels=channels)

    def _say(self, used: Sequence[Record], found: Sequence[_Found], skipped: list[tuple[Path, str]]) -> None:
        """What became of the records, in the log. Raises ValueError when nothing did."""
        skipped += [(r.path, f.skipped) for r, f in zip(used, found, strict=True) if f.skipped]
        if skipped:
            named = "; ".join(f"{path}: {reason}" for path, reason in skipped[:_NAMED])
            more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
            if len(skipped) == len(self.records):
                raise ValueError(
                    f"none of {counted(len(skipped), 'file')} holds a sound that can be used: {named}{more}"
                )
            logger.warning("skipped %s: %s%s", counted(len(skipped), "file"), named, more)
        whole = [f for f in found if f.kind == "one-shot"]
        sliced = [f for f in found if f.kind in ("hits", "crops")]
        seconds = self.clip_samples / self.sample_rate
        kinds = " and ".join(sorted({f.kind for f in sliced if f.kind}))
        logger.info(
            "%s%s; clips of %.2f s",
            counted(len(whole), "one-shot"),
            f", {counted(len(sliced), 'long recording')} sliced into "
            f"{counted(sum(len(f.clips) for f in sliced), 'clip')} ({kinds})"
            if sliced
            else "",
            seconds,
        )
        if cut := sum(f.samples > self.clip_samples for f in whole):
            logger.info(
                "%s longer than %.2f s: cut there, with a fade-out",
                counted(cut, "sound is", "sounds are"),
                seconds,
            )
        short = sum(f.samples < self.clip_samples / 4 for f in whole)
        if 2 * short > len(found):
            logger.warning(
                "%s less than a quarter of %.2f s: the rest is zeros, which cost time and "
                "teach nothing; a shorter segment_samples would do",
                some_of(short, len(whole), "sound", "fills", "fill"),
                seconds,
            )
        others = Counter(f.channels for f in found if f.channels not in (0, self.channels))
        for channels, count in sorted(others.items()):
            how = "mixed to mono" if channels > 1 else ""
            if self.channels > 1:
                how += f"{' and ' if how else ''}copied to {self.channels} channels"
            logger.info("%s of %s: %s", counted(count, "file"), counted(channels, "channel"), how)


def one_clip(
    path: str | os.PathLike[str],
    *,
    sample_rate: int,
    clip_samples: int,
    channels: int = 1,
    settings: OneShotSettings | None = None,
) -> tuple[np.ndarray, str]:
    """A recording by itself as it would be trained on: its clip, the first where it has several.

    Returns the clip, (channels, clip_samples) float32, and what was done to it, in words, "" for nothing. Raises
    ValueError for a recording that is silent or can't be read.
    """
    info = audio.probe(path)
    done = []
    kept = info.channels == channels
    samples, rate = audio.read(path, mono=not kept)
    sound = audio.resample(samples if kept else np.tile(samples, (channels, 1)), rate, sample_rate)
    frames = sound.shape[1]
    if not frames:
        raise ValueError(
            f"{path}: {counted(info.frames, f'sample at {rate} Hz is', f'samples at {rate} Hz are')} none at "
            f"{sample_rate} Hz"
        )
    if rate != sample_rate:
        done.append(f"resampled from {rate} to {sample_rate} Hz")
    if not kept:
        alone = audio.cancelling(path)
        if alone is not None:
            done.append(f"took channel {alone + 1} of {info.channels} alone: mixed to one they cancel")
        elif info.channels > 1:
            done.append(f"mixed {info.channels} channels to one")
        if channels > 1:
            done.append(f"copied to {channels} channels")
    form = _Form(sample_rate, clip_samples, channels, settings or OneShotSettings())
    read: Read = functools.partial(_part, sound)
    found = form.found(0, read, frames)
    if found.skipped:
        raise ValueError(f"{path}: {found.skipped}")
    if found.offset.any():
        done.append(f"took off a constant offset of {found.offset[np.abs(found.offset).argmax(), 0]:.3g}")
    clip = found.clips[0]
    if clip.start > 0 or clip.stop < frames:
        which = f", the first of {len(found.clips)} {found.kind}" if len(found.clips) > 1 else ""
        begin, end, whole = (n / sample_rate for n in (max(0, clip.start), clip.stop, frames))
        done.append(f"took {begin:.3f} to {end:.3f} s of {whole:.3f} s{which}")
    return form.cut(clip, clip.start, read, found.offset), ", ".join(done)


def _less(read: Read, offset: np.ndarray, start: int, length: int) -> np.ndarray:
    return read(start, length) - offset


def _part(whole: np.ndarray, start: int, length: int) -> np.ndarray:
    return whole[:, start : start + length]


def labels_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The names of a corpus's classes, sorted; () where it has none, or only one, which tells nothing apart.

    ``records``: all splits together. Warns of labels with a single file and of those that a held-out split lacks.
    Raises ValueError when a label is nowhere in the training split.
    """
    labels = sorted({r.label for r in records if r.label})
    if len(labels) < 2:
        return ()
    parts = {name: Counter(r.label for r in part) for name, part in by_split(records).items() if part}
    if lacking := [label for label in labels if not parts.get("train", Counter(labels))[label]]:
        raise ValueError(
            f"no file to train on has the label {_names(lacking)}: all of them are held out. Give some the split "
            '"train" in the manifest (gansound data prepare makes one)'
        )
    counts = Counter(r.label for r in records)
    if lone := [label for label in labels if counts[label] == 1]:
        logger.warning(
            "one file has the label %s: a generator can only copy it. Add sounds, move it to another label's folder, "
            "or take it out",
            _names(lone),
        )
    for name in ("valid", "test"):
        if name in parts and (lacking := [label for label in labels if not parts[name][label]]):
            logger.warning(
                "no file of the %s split has the label %s: it isn't judged there", name, _names(lacking)
            )
    return tuple(labels)


def _names(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(repr(label) for label in labels[:_NAMED]) + more
