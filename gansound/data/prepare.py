"""Make a corpus ready to train on: every file decoded once, a manifest, copies at another rate if asked for."""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gansound import audio
from gansound.data.corpus import scan
from gansound.data.manifest import MANIFEST_NAME, Record, write_manifest
from gansound.data.source import usable
from gansound.data.split import split

logger = logging.getLogger(__name__)

_MIN_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written: the manifest, its records, what was left out and why, how the splits were made."""

    manifest: Path
    records: list[Record]
    unusable: list[tuple[Path, str]]
    grouping: str
    resampled: int
    mixed: int  # files of several channels


def prepare(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    sample_rate: int | None = None,
    seed: int = 0,
    valid: float = 0.05,
    test: float = 0.05,
    speaker_pattern: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode every file of ``root`` and write ``out/manifest.jsonl`` of those that are whole.

    Files of another rate than ``sample_rate`` are resampled to mono FLAC under ``out/audio`` (one that is there
    already, of the right length and newer than its source, is kept, so an interrupted run goes on); others stay
    where they are. Files of equal content stay in one split. The manifest is written last, so there is none
    of a half-done run.
    Raises ValueError when nothing can be used, OSError when ``out`` can't be written.
    """
    root, out = Path(root), Path(out)
    if sample_rate is not None and not 1000 <= sample_rate <= 384000:
        raise ValueError(f"sample rate must be between 1,000 and 384,000 Hz, got {sample_rate}")
    if sample_rate is not None and out.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{out}: copies inside the corpus {root} would become part of it. Choose a place outside"
        )
    split([], seed=seed, valid=valid, test=test)  # wrong shares are known before any work
    places: dict[Path, tuple[audio.AudioInfo, str, bool]] = {}

    def inspect(path: Path) -> audio.AudioInfo:
        info = audio.probe(path)
        copy = None
        if sample_rate is not None and info.sample_rate != sample_rate:
            # The old suffix stays in the name: kick.wav and kick.mp3 are two sounds.
            copy = out / "audio" / path.relative_to(root).with_name(path.name + ".flac")
        if info.seconds < _MIN_SECONDS:
            raise audio.AudioError(f"{path}: {info.frames} samples are too short to be a sound. Delete it")
        done = _convert(info, copy, sample_rate) if copy and sample_rate else info
        places[path] = (done, _content(done.path), info.channels > 1)
        return done

    found = scan(root, speaker_pattern=speaker_pattern, inspect=inspect, progress=progress)
    records = usable(found)
    contents = [places[record.path][1] for record in records]
    records, grouping = split(records, seed=seed, valid=valid, test=test, contents=contents)
    records = [replace(record, path=places[record.path][0].path) for record in records]
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / MANIFEST_NAME
    write_manifest(manifest, records)
    mixed = sum(mixed for _, _, mixed in places.values())
    resampled = sum(done.path != path for path, (done, _, _) in places.items())
    return Prepared(manifest, records, found.unusable, grouping, resampled, mixed)


def _content(path: Path) -> str:
    """Hash of all samples, which proves that they can be decoded."""
    digest = hashlib.blake2b(digest_size=16)
    for block in audio.blocks(path):
        digest.update(block.tobytes())
    return digest.hexdigest()


def _convert(info: audio.AudioInfo, target: Path, sample_rate: int) -> audio.AudioInfo:
    frames = audio.resampled_frames(info.frames, info.sample_rate, sample_rate)
    if target.is_file() and target.stat().st_mtime > info.path.stat().st_mtime:
        try:
            done = audio.probe(target)
        except audio.AudioError:
            done = None  # left by another program: made anew
        if done is not None and (done.sample_rate, done.frames, done.channels) == (sample_rate, frames, 1):
            return done
    samples, rate = audio.read(info.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    subtype = "PCM_24" if info.subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE") else "PCM_16"
    audio.write(target, audio.resample(samples, rate, sample_rate), sample_rate, subtype=subtype)
    return audio.probe(target)
