"""What a run is fed: its corpus, the batches of each step in order, and the sounds it is validated on."""

import collections
import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from gansound import audio
from gansound.counts import counted, some_of
from gansound.data import sound
from gansound.data.clips import ClipDataset
from gansound.data.corpus import by_split
from gansound.data.disk_cache import DiskCache
from gansound.data.index import cache_folder
from gansound.data.items import BAD, collate
from gansound.data.manifest import Record
from gansound.data.paired import PairedDataset
from gansound.data.pairs import Pair, open_pairs
from gansound.data.pitch import Pitches, open_pitches
from gansound.data.records import Records
from gansound.data.segments import PositionSampler, SegmentDataset
from gansound.data.source import open_corpus
from gansound.engine.loading import unbroken, worker_context
from gansound.engine.settings import RunSettings
from gansound.engine.task import Task
from gansound.frames import PitchedSpec
from gansound.recipe import RecipeError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Of each held-out utterance so much is vocoded: a corpus may hold recordings of hours.
_VALIDATED_SECONDS = 30
_FEW_CLIPS = 20
_WORTHWHILE_SHARE = 0.2  # of a corpus; a smaller cache spares a store few requests
_NAMED = 5
_DRAWN_FOR_SOUND = 64  # segments, until one is heard


class Feed:
    """A corpus as its settings and task want it.

    Args:
        settings: of the run.
        task: says the sample rate, the channels, and how many batches a step takes.
        corpus: its records, where it is open already.
        once: does in one process what would come to the same in all.

    Raises:
        RecipeError: no corpus is named.
        ValueError: it can't be opened or holds nothing to train on.

    Attributes:
        bad: what is wrong with each file, by its record, that couldn't be used when it was drawn.
    """

    def __init__(
        self,
        settings: RunSettings,
        task: Task,
        corpus: Sequence[Record] | None = None,
        once: Callable[[Callable[[], Any]], Any] = lambda work: work(),
    ) -> None:
        self.settings = settings
        self.task = task
        self._once = once
        if settings.data.path is None:
            raise RecipeError("data.path: missing; say what to train on: --data.path DIR")
        self.train_records, self.valid_records = self._open_corpus(corpus)
        self.valid_pairs: PairedDataset | None = None
        self.valid_pitch: Pitches | None = None
        self.disk = self._disk()
        self.dataset = self._dataset()
        if settings.data.one_shots is None:  # where silent recordings are left out one by one
            self._check_heard()
        self.bad: dict[int, str] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with what is trained on: names, order, lengths and rates of its files."""
        return self.train_records.fingerprint

    @property
    def about(self) -> dict[str, Any]:
        """How much is trained on, and in whose mels."""
        found: dict[str, Any] = {
            "recordings": len(self.train_records),
            "hours": round(self.train_records.seconds / 3600, 3),
        }
        if isinstance(self.dataset, PairedDataset):
            offsets = collections.Counter(pair.offset_frames for pair in self.dataset.pairs)
            found |= {
                "mels": "an acoustic model's",
                "mel_offset_frames": offsets.most_common(1)[0][0],
            }
        if self._takes_pitch:
            found["pitch"] = "found" if self.settings.data.f0 is None else "given"
        return found

    @property
    def held_out_fingerprint(self) -> str:
        """Changes with what is validated on: which sounds, how many, and the mels and pitch that are given for them."""
        most = self.settings.validate_utterances
        # Of mels what they say counts, not what their files are called.
        chosen = [dataclasses.replace(record, mel=None) for record in spread(self.valid_records, most)]
        digest = hashlib.blake2b(Records.of(chosen).fingerprint.encode(), digest_size=8)
        if self.valid_pairs is not None:
            for pair in spread(self.valid_pairs.pairs, most):
                digest.update(pair.mel(self.valid_pairs.spec).tobytes())
        if self.valid_pitch is not None:
            digest.update(self.valid_pitch.values.tobytes())
        return digest.hexdigest()

    def file(self, record: int) -> str:
        """The path of a record that a batch names."""
        return self.train_records[record].place

    @functools.cached_property
    def held_out(self) -> tuple[list[tuple[str, np.ndarray]], list[int], list[dict[str, np.ndarray]]]:
        """Names, waveforms, labels of what is validated on, prepared as what is trained on, and what is given for them.

        That is the mel where an acoustic model's are trained on, and the pitch where the generator takes one, as many
        frames as their sounds have hops; of no sound anything where neither is.
        """
        most = self.settings.validate_utterances
        if self.settings.data.one_shots is not None:
            clips = self._clips(self.valid_records)
            chosen = spread(range(len(clips)), most)
            pairs = [clips.clip(i) for i in chosen]
            names = [Path(clips.record(i).path).stem for i in chosen]
            sounds = [(name, audio.numpy()) for name, (audio, _) in zip(names, pairs, strict=True)]
            return sounds, [label for _, label in pairs], []
        if self.valid_pairs is not None:
            return self._held_out_pairs(self.valid_pairs)
        sounds, given, bad = [], [], []
        for index, record in enumerate(spread(self.valid_records, most)):
            frames = min(record.frames, _VALIDATED_SECONDS * record.sample_rate)
            try:
                samples, rate = sound.read(record, frames=frames, cache=self.disk)
            except audio.AudioError as error:
                bad.append(str(error))
                continue
            samples = audio.resample(samples, rate, self.task.sample_rate)
            sounds.append((Path(record.path).stem, samples))
            if self.valid_pitch is not None:
                whole_frames = len(samples) // self.valid_pitch.hop_length
                given.append({"f0": self.valid_pitch.at(index, 0, whole_frames)})
        if bad and not sounds:
            raise ValueError(
                f"none of {counted(len(bad), 'file')} to validate on can be used: {'; '.join(bad)}"
            )
        if bad:
            log.warning("validated without %s: %s", counted(len(bad), "file"), "; ".join(bad))
        return sounds, [], given

    def _held_out_pairs(
        self, pairs: PairedDataset
    ) -> tuple[list[tuple[str, np.ndarray]], list[int], list[dict[str, np.ndarray]]]:
        most = _VALIDATED_SECONDS * pairs.spec.sample_rate // pairs.spec.hop_length
        sounds, given = [], []
        for index in spread(range(len(pairs.pairs)), self.settings.validate_utterances):
            whole = pairs.whole(index)
            sound = whole.pop("audio")[: most * pairs.spec.hop_length]
            sounds.append((Path(pairs.records[index].path).stem, sound))
            given.append({name: frames[..., :most] for name, frames in whole.items()})
        return sounds, [], given

    def batches(
        self, start: int, rank: int, ranks: int, pin_memory: bool, left_out_steps: int = 0
    ) -> Iterator[dict[str, torch.Tensor]]:
        """From step `start` to the last, this process's part of each batch, `critic_steps` of them a step.

        They are drawn `left_out_steps` steps further on. A batch holds the tensors of the data set's items: `audio`,
        `position`, `record`, and `retries`, how many draws of each item met a file that can't be used. Those files are
        named in the log, each once.

        Raises:
            ValueError: too many files went bad; it names them.
        """
        whole, a_step = self.settings.batch_size, self.task.critic_steps
        last = (self.settings.steps + left_out_steps) * a_step
        size = whole // ranks

        def sampler(number: int, stop: int) -> PositionSampler:
            return PositionSampler(number * whole, stop * whole, rank=rank, ranks=ranks, batch_size=size)

        def loader(number: int) -> DataLoader[dict[str, torch.Tensor]]:
            return DataLoader(
                self.dataset,
                batch_size=size,
                sampler=sampler(number, last),
                num_workers=self.settings.data.workers,
                collate_fn=collate,
                pin_memory=pin_memory,
                persistent_workers=False,
                multiprocessing_context=worker_context() if self.settings.data.workers else None,
            )

        def files(number: int) -> list[str]:
            return [self.dataset.file(position) for position in sampler(number, number + 1)]

        for batch in unbroken(loader, (start + left_out_steps) * a_step, last, files):
            self._note(batch.pop(BAD, ()))
            yield batch

    def _note(self, bad: Sequence[tuple[int, str]]) -> None:
        """Name files that can't be used, each once. Raises ValueError when they are too many."""
        for record, reason in bad:
            if record not in self.bad:
                self.bad[record] = reason
                log.warning("drawn past a file that can't be used: %s", reason)
        most = min(self.settings.data.max_bad_files, len(self.train_records) // 2)
        if len(self.bad) > most:
            named = "; ".join(list(self.bad.values())[-_NAMED:])
            more = f"; and {len(self.bad) - _NAMED} more, named above" if len(self.bad) > _NAMED else ""
            raise ValueError(
                f"{some_of(len(self.bad), len(self.train_records), 'file')} can't be used any more, more than {most}: "
                f"{named}{more}. Put them back, or prepare the corpus again without them ('gansound data prepare'); "
                "data.max_bad_files says how many there may be, and half of all is the most"
            )

    def _open_corpus(self, corpus: Sequence[Record] | None) -> tuple[Records, Sequence[Record]]:
        data = self.settings.data
        assert data.path is not None
        if corpus is None:
            corpus = open_corpus(data.path, seed=0, valid=data.valid, test=data.test)
        splits = by_split(corpus)
        train = Records.of(splits.get("train", []))
        there = sorted({record.label for record in train if record.label}) if self.settings.labels else []
        if lacking := [label for label in self.settings.labels or () if label not in there]:
            raise ValueError(
                f"labels: no sound to train on has the label {', '.join(map(repr, lacking))}; {data.path} has "
                f"{', '.join(there) or 'no label folders'}. Leave it out, or set labels: auto"
            )
        if data.one_shots is not None and not self.settings.labels:
            ignored = sorted({record.label for record in train if record.label})
            if len(ignored) > 1:
                log.info(
                    "%s: trained on without its labels (%s); labels: auto would take them",
                    data.path,
                    ", ".join(ignored),
                )
        if not train:
            raise ValueError(
                f"{data.path}: no file is in split 'train'; its splits are {', '.join(splits) or 'none'}"
            )
        valid = splits.get("valid", [])
        if not valid and self.settings.validate_every is not None:
            log.warning(
                "%s: no file is in split 'valid', so nothing is validated; raise data.valid, or of a prepared corpus "
                "the --valid of 'gansound data prepare'",
                data.path,
            )
        return train, valid

    def _disk(self) -> DiskCache | None:
        """Where pieces of shards are kept, where the recipe says so."""
        how = self.settings.data.disk_cache
        if how is None:
            return None
        if self.train_records[0].stored is None:
            log.warning("data.disk_cache: keeps shards, and %s holds files, which are read where they lie",
                        self.settings.data.path)  # fmt: skip
            return None
        cache = DiskCache(how.path or cache_folder() / "shards", int(how.gb * 1e9))
        log.info("up to %g GB of the shards are kept in %s", how.gb, cache.folder)
        share = how.gb * 1e9 / (2 * float(self.train_records.frames.sum(dtype="float64")))
        if share < _WORTHWHILE_SHARE:
            log.warning(
                "data.disk_cache: %g GB are %.2g %% of what is trained on: most segments are still waited for, and "
                "64 KiB are fetched for each. Give it more, or leave it out",
                how.gb,
                100 * share,
            )
        return cache

    def _check_heard(self) -> None:
        """Raises ValueError where all that is drawn first is silent, from which nothing is learnt and no loss tells."""
        draws = (self.dataset[position]["audio"].numpy() for position in range(_DRAWN_FOR_SOUND))
        if all(audio.peak_db(segment) <= audio.SILENT_PEAK_DB for segment in draws):
            raise ValueError(
                f"data.path {self.settings.data.path}: the first {_DRAWN_FOR_SOUND} segments are silent, with no peak "
                f"over {audio.SILENT_PEAK_DB:.0f} dB. Expected sound; 'gansound data check' says which files are silent"
            )

    def _dataset(self) -> SegmentDataset | ClipDataset:
        data = self.settings.data
        if data.f0 is not None and not self._takes_pitch:
            raise RecipeError(
                "data.f0: is for a vocoder that takes a pitch, and this recipe's generator takes none; leave it out"
            )
        if data.one_shots is not None:
            return self._checked(self._clips(self.train_records))
        if data.mels is not None:
            return self._paired(data.mels)
        pitch = None
        if self._takes_pitch:
            chosen = spread(self.valid_records, self.settings.validate_utterances)
            pitch, self.valid_pitch = self._pitches(self.train_records, chosen)
        found = SegmentDataset(
            self.train_records,
            sample_rate=self.task.sample_rate,
            segment_samples=data.segment_samples,
            seed=self.settings.seed,
            speed=data.speed,
            gain_db=data.gain_db,
            silence_db=data.silence_db,
            crop=data.crop,
            pad=data.pad,
            balance=data.balance,
            cache_bytes=int(data.cache_gb * 2**30),
            disk=self.disk,
            pitch=pitch,
        )
        mean, segment = found.seconds / len(found.records), data.segment_samples / self.task.sample_rate
        if 2 * mean < segment:
            log.warning(
                "%s: recordings of %.2g s in the mean, and segments of %.2g s: most of them is zeros, which cost time "
                "and teach nothing; fewer data.segment_samples would do",
                data.path,
                mean,
                segment,
            )
        return found

    @property
    def _takes_pitch(self) -> bool:
        return isinstance(self.task.takes, PitchedSpec)

    def _pitches(self, *parts: Sequence[Record]) -> list[Pitches]:
        """The pitch of some parts of the corpus, brought or found."""
        where = self.settings.data.f0
        folder = None if where is None else Path(where).expanduser()
        spec = self.task.takes
        assert spec is not None
        return self._once(
            lambda: [open_pitches(part, folder, spec.sample_rate, spec.hop_length) for part in parts]
        )

    def _paired(self, mels: str) -> PairedDataset:
        """What is trained on with its mels; and `valid_pairs`, likewise."""
        spec, data = self.task.mel, self.settings.data
        if spec is None:
            raise RecipeError(
                "data.mels: are for a vocoder, and this recipe's generator takes none; leave them out"
            )
        where = None if mels == "manifest" else Path(mels).expanduser()
        settings = {
            "segment_samples": data.segment_samples,
            "seed": self.settings.seed,
            "silence_db": data.silence_db,
            "balance": data.balance,
            "cache_bytes": int(data.cache_gb * 2**30),
            "disk": self.disk,
        }
        count = len(self.train_records)
        records = [*self.train_records, *self.valid_records]
        pairs: list[Pair] = self._once(lambda: open_pairs(records, where, spec)[0])
        known = {record.path for record in self.valid_records}
        train, valid = (
            [pair for pair in pairs if (pair.record.path in known) == held_out] for held_out in (False, True)
        )
        if not train:
            raise ValueError(
                f"data.mels {mels}: none of {counted(count, 'recording')} to train on has a mel of its own"
            )
        self.train_records = Records.of([pair.record for pair in train])
        if self.valid_records and not valid and self.settings.validate_every is not None:
            log.warning(
                "data.mels %s: none of %s has a mel of its own, so nothing is validated",
                mels,
                counted(len(self.valid_records), "held-out recording"),
            )
        self.valid_records = [pair.record for pair in valid]
        pitch = None
        if self._takes_pitch:
            pitch, self.valid_pitch = self._pitches(self.train_records, self.valid_records)
        self.valid_pairs = PairedDataset(valid, spec, pitch=self.valid_pitch, **settings) if valid else None
        return PairedDataset(train, spec, pitch=pitch, **settings)

    def _checked(self, clips: ClipDataset) -> ClipDataset:
        """The same; says where it is too little to learn from."""
        heard = {clips.record(index).label for index in range(len(clips))}
        if mute := [label for label in self.settings.labels or () if label not in heard]:
            raise ValueError(
                f"{self.settings.data.path}: no file with the label {', '.join(map(repr, mute))} holds a sound that "
                "can be used, see the warning above. Add sounds to its folder, or take the folder out"
            )
        if len(clips) < _FEW_CLIPS:
            log.warning(
                "%s: %s to learn from, which a generator can only copy; hundreds teach it to make new ones",
                self.settings.data.path,
                counted(len(clips), "sound"),
            )
        return clips

    def _clips(self, records: Sequence[Record]) -> ClipDataset:
        data = self.settings.data
        return ClipDataset(
            records,
            sample_rate=self.task.sample_rate,
            clip_samples=data.segment_samples,
            channels=getattr(self.task, "channels", 1),
            seed=self.settings.seed,
            labels=self.settings.labels or (),
            settings=data.one_shots,
            cache_bytes=int(data.cache_gb * 2**30),
            disk=self.disk,
        )


def spread(records: Sequence[T], count: int) -> list[T]:
    """`count` of them at equal distances, so that they don't all come from the first speaker."""
    if len(records) <= count:
        return list(records)
    return [records[i * len(records) // count] for i in range(count)]
