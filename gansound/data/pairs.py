"""Mels of an acoustic model beside the recordings they are of, to fine-tune a vocoder on what it will be given.

An acoustic model that is told a recording's durations (teacher-forced) makes a mel that runs in step with it, but is
blurred as all of its mels are. Which mel is whose is told by names; that the two belong together, and by how many
frames one is ahead, is found from the sound.
"""

import collections
import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gansound import audio
from gansound.counts import counted, some_of
from gansound.data import sound as sounds
from gansound.data.corpus import in_threads
from gansound.data.manifest import Record
from gansound.data.walk import is_audio, walk
from gansound.mel import MelSpec
from gansound.mel.doctor import (
    ALIKE,
    MOST_OFFSET_FRAMES,
    NEAR_FRAMES,
    SAME,
    distance,
    ln_magnitude,
    matches,
    nearest,
)
from gansound.mel.files import MEL_SUFFIXES, read_mel

logger = logging.getLogger(__name__)

LIST_SUFFIXES = (".txt", ".csv", ".psv", ".tsv")
# What projects put around a recording's name when they write its mel, or its pitch.
_AROUND = {
    "mel": re.compile(r"^(?:mels?|feats)[-_.]|[-_.](?:mels?|feats|features)$"),
    "f0": re.compile(r"^(?:f0|pitch)[-_.]|[-_.](?:f0|pitch)$"),
}
_JUDGED_FRAMES = 512  # of a pair: six seconds say whether it is one
MOST_MISSING_FRAMES = 16
"""By which what lies beside a recording may differ from it in length, besides the offset."""
# Of the distance at which the two would lie by chance, which is that of the mel to the recording at other times.
# One of the hundreds of offsets further off comes nearer by chance than one of the few.
_BY_CHANCE, _FURTHER_BY_CHANCE = 0.7, 0.5
_MUCH_NEARER = 0.7  # times as far: another preset's
_AS_NEAR = 1.05  # the corpus's own offset is taken where it is no further than this times the pair's best
_NAMED = 5


@dataclass(frozen=True)
class Pair:
    """A recording and its mel.

    Attributes:
        record: with its mel.
        frames: of the mel.
        offset_frames: frame i of the mel is frame i + offset of the recording's own.
        turned: the file holds frames x bands.
        distance: mean, in natural logarithms of magnitude, from the recording's own mel.
    """

    record: Record
    frames: int
    offset_frames: int
    turned: bool
    distance: float

    def mel(self, spec: MelSpec) -> np.ndarray:
        """The mel `(n_mels, F)` float32. Raises AudioError where the file is no longer what it was."""
        assert self.record.mel is not None
        try:
            found, turned = _oriented(self.record.mel, spec)
        except (ValueError, OSError) as error:
            raise audio.AudioError(str(error)) from None
        if (found.shape[1], turned) != (self.frames, self.turned):
            raise audio.AudioError(
                f"{self.record.mel}: holds {counted(found.shape[1], 'frame')}, and held {self.frames} when training "
                "began"
            )
        return found.numpy()


def with_mels(records: Sequence[Record], mels: Path | None) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Records with the mel of each, and (recording, reason) of those that have none.

    Args:
        records: those of a manifest may name their mels.
        mels: a folder of mels under the recordings' names, or a list with a line `recording|mel` for each (in any
            order, other columns are passed over); None for what the records name.

    Raises:
        ValueError: there is no such folder or list, or a line of it has no mel.
    """
    if mels is None:
        meant = [(record, record.mel or "its line in the manifest has no mel") for record in records]
    else:
        find = _listed(mels) if mels.is_file() else by_name(mels)
        meant = [(record, find(record.path)) for record in records]
    paired = [dataclasses.replace(record, mel=mel) for record, mel in meant if isinstance(mel, Path)]
    return paired, [(record.path, mel) for record, mel in meant if isinstance(mel, str)]


def checked(records: Sequence[Record], spec: MelSpec) -> tuple[list[Pair], list[tuple[Path, str]]]:
    """Pairs that belong together, and (mel, reason) of all others.

    Args:
        records: each with its mel.
        spec: the convention of the mels.

    Raises:
        ValueError: no pair belongs together; where the mels are in another preset's convention, it is named.
    """
    pairs: list[Pair] = []
    unfit: list[tuple[Path, str]] = []

    def judged(record: Record) -> tuple[Pair, Callable[[int], float]] | str:
        try:
            return _judged(record, spec)
        except (ValueError, OSError) as error:  # an AudioError is one of the first
            return str(error).removeprefix(f"{record.mel}: ")

    found = list(in_threads(judged, records))
    offsets = collections.Counter(one[0].offset_frames for one in found if not isinstance(one, str))
    common = offsets.most_common(1)[0][0] if offsets else 0
    for record, one in zip(records, found, strict=True):
        assert record.mel is not None
        if isinstance(one, str):
            unfit.append((record.mel, one))
            continue
        pair, at = one
        if pair.offset_frames != common and at(common) <= _AS_NEAR * pair.distance:
            pair = dataclasses.replace(pair, offset_frames=common, distance=at(common))
        if reason := _too_long_or_short(pair, spec):
            unfit.append((record.mel, reason))
        else:
            pairs.append(pair)
    if not pairs:
        raise ValueError(
            f"none of {counted(len(records), 'mel')} belongs to its recording: {_named(unfit)}"
            + (_said_by_doctor(records[0], spec, ALIKE) if records else "")
        )
    return pairs, unfit


def open_pairs(
    records: Sequence[Record], mels: Path | None, spec: MelSpec
) -> tuple[list[Pair], list[tuple[Path, str]]]:
    """`with_mels`, then `checked`; says what was found and left out. Raises ValueError as they do."""
    paired, without = with_mels(records, mels)
    if not paired:
        raise ValueError(
            f"data.mels {mels}: none of {counted(len(records), 'recording')} has a mel: {_named(without)}. Mels are "
            f"found by the names of the recordings ({', '.join(sorted(MEL_SUFFIXES))}), or by a list of lines "
            "recording|mel"
        )
    pairs, unfit = checked(paired, spec)
    offsets = collections.Counter(pair.offset_frames for pair in pairs)
    logger.info(
        "%s, offset in frames %s, %.2f from the recordings' own (mean, ln)",
        counted(len(pairs), "mel belongs to its recording", "mels belong to their recordings"),
        ", ".join(f"{offset:+d} ({times})" for offset, times in offsets.most_common(_NAMED)),
        float(np.mean([pair.distance for pair in pairs])),
    )
    _warn_of(pairs, spec)
    if without:
        logger.warning("left out %s without a mel: %s", counted(len(without), "recording"), _named(without))
    if unfit:
        logger.warning(
            "left out %s: %s",
            counted(len(unfit), "mel that doesn't fit", "mels that don't fit"),
            _named(unfit),
        )
    return pairs, [*without, *unfit]


def _warn_of(pairs: Sequence[Pair], spec: MelSpec) -> None:
    """Of mels that belong to their recordings by what is said in them, but are hardly made as the model's."""
    least = pairs[0].distance
    if least >= SAME and (by_preset := _said_by_doctor(pairs[0].record, spec, _MUCH_NEARER * least)):
        logger.warning("the mels seem to be in another convention%s", by_preset)
    elif 2 * len(far := [pair for pair in pairs if pair.distance > ALIKE]) > len(pairs):
        logger.warning(
            "%s further than %g from their recordings' own (mean, ln), where an acoustic model's lie at "
            "about 0.3. Are they of other takes, of another level or pace, or of recordings that were filtered? What "
            "is learnt from them is that difference",
            some_of(len(far), len(pairs), "mel", "lies", "lie"),
            ALIKE,
        )


def _judged(record: Record, spec: MelSpec) -> tuple[Pair, Callable[[int], float]]:
    """A pair at its best offset, and its distance at any. Raises ValueError where it is none."""
    assert record.mel is not None
    mel, turned = _oriented(record.mel, spec)
    wanted = (_JUDGED_FRAMES + MOST_OFFSET_FRAMES) * spec.hop_length
    most = -(-wanted * record.sample_rate // spec.sample_rate)
    samples, rate = sounds.read(record, frames=min(record.frames, most))
    sound = torch.from_numpy(audio.resample(samples, rate, spec.sample_rate)).float()
    if len(sound) < spec.hop_length:
        raise ValueError(f"{record.path} is shorter than one hop of {spec.hop_length} samples")
    given = ln_magnitude(spec, mel[:, :_JUDGED_FRAMES])
    made = ln_magnitude(spec, spec.mel(sound[None])[0])

    def at(offset: int) -> float:
        return distance(given, made, offset)

    least, offset = nearest(given, made)
    if abs(offset) == MOST_OFFSET_FRAMES:
        raise ValueError(
            f"lies nearest to {record.path} at the last of the offsets looked at, {offset:+d} frames, and may lie "
            "nearer beyond: cut the silence before the sound, of mel or recording"
        )
    by_chance = _BY_CHANCE if abs(offset) <= NEAR_FRAMES else _FURTHER_BY_CHANCE
    if not least < SAME and not least < by_chance * _by_chance(given, made):
        raise ValueError(
            f"isn't the mel of {record.path}: at the best of offsets up to {MOST_OFFSET_FRAMES} frames it lies "
            f"{least:.2f} from that in ln, no nearer than by chance"
        )
    return Pair(record, mel.shape[1], offset, turned, least), at


def _by_chance(given: Tensor, made: Tensor) -> float:
    """Mean distance of a mel to another at times that have nothing to do with it."""
    frames = min(given.shape[1], made.shape[1])
    rolled = [made[:, :frames].roll(frames * part // 4, 1) for part in (1, 2, 3)]
    return float(np.mean([float((given[:, :frames] - other).abs().mean()) for other in rolled]))


def _too_long_or_short(pair: Pair, spec: MelSpec) -> str | None:
    record = pair.record
    samples = audio.resampled_frames(record.frames, record.sample_rate, spec.sample_rate)
    there = spec.frames(int(samples))
    if abs(pair.offset_frames + pair.frames - there) <= MOST_MISSING_FRAMES:
        return None
    return (
        f"has {counted(pair.frames, 'frame')} from frame {pair.offset_frames} of {record.path} on, which has {there}; "
        f"expected as many to within {MOST_MISSING_FRAMES}"
    )


def _oriented(path: Path, spec: MelSpec) -> tuple[Tensor, bool]:
    """A file's mel `(n_mels, F)`, and whether it was turned round. Raises ValueError."""
    found = torch.as_tensor(read_mel(path))
    found = found[0] if found.ndim == 3 and len(found) == 1 else found
    turned = found.ndim == 2 and found.shape[0] != spec.n_mels and found.shape[1] == spec.n_mels
    try:
        return spec.check(found.T if turned else found)[0].contiguous(), turned
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _said_by_doctor(record: Record, spec: MelSpec, least: float) -> str:
    """In which other preset a mel lies nearer to its recording than that, in words; "" where in none."""
    assert record.mel is not None
    try:
        mel, _ = _oriented(record.mel, spec)
        samples, rate = sounds.read(record)
    except (ValueError, OSError):
        return ""
    found = matches(mel, lambda wanted: torch.from_numpy(audio.resample(samples, rate, wanted)).float())
    if not found or not found[0].distance < min(ALIKE, least) or found[0].spec == spec:
        return ""
    return (
        f". {record.mel.name} is the recording's mel in {' = '.join(found[0].names)}, and the model takes another: "
        f"{'; '.join(spec.differences(found[0].spec))}. `gansound mel` says whether one can be converted into the other"
    )


def by_name(folder: Path, what: Literal["mel", "f0"] = "mel") -> Callable[[Path], Path | str]:
    """What finds a recording's mel or pitch in a folder, by its name, or says why there is none.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        named_by = "data.mels {}: no such folder or list" if what == "mel" else "data.f0 {}: no such folder"
        raise ValueError(f"{named_by.format(folder)}. Check the path")
    named: dict[str, list[Path]] = collections.defaultdict(list)
    for path in walk(folder):
        if path.suffix.lower() in MEL_SUFFIXES:
            for name in {path.stem, _AROUND[what].sub("", path.stem)}:
                named[name].append(path)

    def find(recording: Path) -> Path | str:
        found = named.get(_name(recording), [])
        shared = [_shared_folders(path, recording) for path in found]
        best = [path for path, count in zip(found, shared, strict=True) if count == max(shared)]
        if len(best) == 1:
            return best[0]
        return (
            f"{len(best)} {what}s are called so: {_some(best)}"
            if best
            else f"{folder} has no {what} of that name"
        )

    return find


def _name(recording: Path) -> str:
    """What a recording is called; a copy that `gansound data prepare` made, `NAME.wav.flac`, as the file it is of."""
    inside = Path(recording.stem)
    return inside.stem if is_audio(inside.name) else recording.stem


def _shared_folders(one: Path, other: Path) -> int:
    """How many of the folders that they lie in are of one name, from the innermost on."""
    pairs = zip(reversed(one.parent.parts), reversed(other.parent.parts), strict=False)
    count = 0
    for a, b in pairs:
        if a != b:
            break
        count += 1
    return count


def _listed(table: Path) -> Callable[[Path], Path | str]:
    if table.suffix.lower() not in LIST_SUFFIXES:
        raise ValueError(
            f"data.mels {table}: expected a folder of mels or a list ({', '.join(LIST_SUFFIXES)}) of lines "
            "recording|mel"
        )
    try:
        lines = table.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not UTF-8 text ({error.reason})") from None
    named: dict[str, Path] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parted = re.split(r"[|\t]" if re.search(r"[|\t]", line) else ",", line)
        columns = [column.strip().replace("\\", "/") for column in parted]
        mels = [column for column in columns if Path(column).suffix.lower() in MEL_SUFFIXES]
        others = [column for column in columns if column and column not in mels]
        if len(mels) != 1 or not others:
            raise ValueError(f"{table}:{number}: got {line.strip()[:60]!r}, expected recording|mel.npy")
        recording = Path(others[0])
        stem = recording.stem if is_audio(recording.name) else recording.name
        if stem in named:
            raise ValueError(f"{table}:{number}: names {stem!r} a second time")
        named[stem] = table.parent / mels[0]

    def find(recording: Path) -> Path | str:
        return named.get(_name(recording), f"{table} doesn't name it")

    return find


def _named(reasons: Sequence[tuple[Path, str]]) -> str:
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return "; ".join(f"{path}: {reason}" for path, reason in reasons[:_NAMED]) + more


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else "")
