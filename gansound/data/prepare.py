"""Make a corpus ready to train on: every file decoded once, the broken and the copies left out, a manifest written.

What happens to a file is `gansound.data.process.process`, which needs nothing but the file; here it runs on all cores
and its outcomes are remembered, so that a second run does only what is new.
"""

import functools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gansound.counts import counted
from gansound.data.corpus import Entry, entries, in_threads, listed, recognised
from gansound.data.journal import Journal, Stamp
from gansound.data.manifest import MANIFEST_NAME, Record, json_line, read_manifest, write_manifest
from gansound.data.process import Outcome, Processing, process
from gansound.data.readers import hugging_face
from gansound.data.slices import Slice
from gansound.data.split import split

DROPPED = "dropped.jsonl"
_LOOKED_AT = 1 << 14  # files whose outcomes are looked up before one of them is made

Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function for each of some items, wherever, and gives the results in their order."""


@dataclass(slots=True)
class Prepared:
    """What was written: the manifest, its records, what was left out and why, how the splits were made, totals."""

    manifest: Path
    layout: str
    records: list[Record] = field(default_factory=list)
    unusable: list[tuple[Path, str]] = field(default_factory=list)
    copies: list[tuple[Path, Path]] = field(default_factory=list)  # each with the one that is kept
    grouping: str = ""
    copied: int = 0  # files with a copy under OUT/audio
    mixed: int = 0  # files of several channels
    mixed_copies: int = 0  # of those, the ones whose copies are mono
    cancelled: int = 0  # whose channels would cancel each other: one alone is read
    lowered: list[tuple[Path, float]] = field(default_factory=list)  # over full scale, each by how many dB
    reused: int = 0  # files that an earlier run had done
    seconds_in: float = 0.0  # of the files that were decoded
    trimmed_seconds: float = 0.0

    @property
    def seconds_out(self) -> float:
        """Duration of what is trained on."""
        return sum(record.seconds for record in self.records)


def prepare(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    sample_rate: int | None = None,
    seed: int = 0,
    valid: float = 0.05,
    test: float = 0.05,
    speaker_pattern: str | None = None,
    layout: str | None = None,
    trim_db: float | None = None,
    loudness_lufs: float | None = None,
    min_seconds: float = 0.01,
    keep_copies: bool = False,
    jobs: int | None = None,
    part: Slice | None = None,
    run: Run | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode every file of ``root`` and write ``out/manifest.jsonl`` of those that are whole.

    Files whose samples change by ``sample_rate``, ``trim_db`` or ``loudness_lufs`` (see Processing) become mono FLAC
    under ``out/audio``, and so do long ones whose segments can't be found without decoding all before them (where
    ``out`` lies outside of ``root``); others stay where they are. What would pass full scale in FLAC is made quieter
    until it fits. Of exact copies (equal samples) the first by name
    is taken; with ``keep_copies`` all, in one split unless the corpus's own splits say otherwise, which are kept
    where it has them.
    ``part``: decode only a slice of the files, beside others on other machines, and write no manifest; once all are
    done, a run without it finds all decoded and writes what one run would have.
    Of a folder that `prepare` wrote, or that holds another manifest, it is what the manifest names, with its speakers,
    texts, labels and splits, unless a layout is given.
    ``layout``: one of LAYOUTS; None recognises it. ``jobs``: threads, all cores by default. ``run``: what calls the
    function for each file instead of threads, such as a cluster's processes.

    Run again, with more files or after a kill, only what is new or changed is decoded (``out/journal.jsonl``), and the
    result is that of one run. What is left out is listed in ``out/dropped.jsonl``. The manifest is written last.

    Raises ValueError when nothing can be used, OSError when ``out`` can't be written.
    """
    root, out = Path(root), Path(out)
    processing = Processing(sample_rate, trim_db, loudness_lufs, min_seconds)
    if out.resolve().is_relative_to(root.resolve()) and processing != Processing(min_seconds=min_seconds):
        raise ValueError(
            f"{out}: copies inside the corpus {root} would become part of it. Choose a place outside"
        )
    inside = out.resolve().is_relative_to(root.resolve())
    processing = replace(processing, enterable=not inside)
    split([], seed=seed, valid=valid, test=test)  # wrong shares are known before any work
    manifest, in_place = root / MANIFEST_NAME, out.resolve() == root.resolve()
    if layout is None and manifest.is_file() and not in_place:
        layout = "prepared"
    layout = layout or recognised(root)
    if layout == "hugging_face" and part is not None:
        raise ValueError(
            f"slice {part}: a Hugging Face data set is taken apart as a whole. Leave the slice out"
        )
    if layout == "hugging_face":
        if speaker_pattern is not None:
            raise ValueError(
                "a speaker pattern looks at names of files, of which a Hugging Face data set has none; its column of "
                "speakers is read. Leave the pattern out"
            )
        found, missing = hugging_face.extract(root, out / "source", progress)
    elif layout == "prepared":
        found, missing = _listed(manifest, speaker_pattern), []
    else:
        found, missing = entries(root, speaker_pattern=speaker_pattern, layout=layout)
    done = Prepared(out / MANIFEST_NAME, layout, unusable=missing)
    first: dict[str, Path] = {}
    contents: list[str] = []
    if part is not None:
        found = list(part.of(found))
    journal = Journal(out, processing.key, part)
    if in_place and manifest.is_file():
        _check_own(manifest, found, journal)
    run = run or functools.partial(in_threads, threads=jobs)
    make = functools.partial(_outcome, processing, out)
    for entry, outcome, stamp in _outcomes(journal, make, found, run, progress):
        if outcome.dropped is not None:
            done.unusable.append((entry.path, outcome.dropped))
            continue
        if stamp is not None:
            journal.add(entry, stamp, outcome)
        done.reused += stamp is None
        done.seconds_in += 0.0 if stamp is None else outcome.seconds_in
        if (original := first.setdefault(outcome.content, entry.path)) != entry.path and not keep_copies:
            done.copies.append((entry.path, original))
            continue
        done.copied += outcome.bytes > 0
        mixed = outcome.channels > 1 and not outcome.cancels
        done.mixed += mixed
        done.mixed_copies += mixed and outcome.bytes > 0
        done.cancelled += outcome.cancels
        if outcome.lowered_db:
            done.lowered.append((entry.path, outcome.lowered_db))
        done.trimmed_seconds += outcome.trimmed_seconds
        contents.append(outcome.content)
        done.records.append(_record(entry, outcome, out))
    if part is not None:
        return done
    if not done.records:
        named = "; ".join(f"{path}: {reason}" for path, reason in done.unusable[:5])
        more = f"; and {len(done.unusable) - 5} more" if len(done.unusable) > 5 else ""
        raise ValueError(f"{root}: none of {counted(len(done.unusable), 'file')} can be used: {named}{more}")
    if all(record.split for record in done.records):
        done.grouping = f"the corpus itself ({layout})"
    else:
        done.records, done.grouping = split(
            done.records, seed=seed, valid=valid, test=test, contents=contents
        )
    for leftover in (out / "audio").rglob(".*.tmp"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    _write_dropped(out / DROPPED, done)
    write_manifest(done.manifest, done.records)
    return done


def _listed(manifest: Path, speaker_pattern: str | None) -> list[Entry]:
    """The files that a manifest names, with what it says of them. Raises ValueError for what would be lost."""
    if speaker_pattern is not None:
        raise ValueError(
            f"{manifest}: says its speakers itself. Leave the speaker pattern out, or prepare the corpus that it was "
            "made of"
        )
    lines = listed(manifest)
    if beside := next((record.mel for _, record in lines if record.mel is not None), None):
        raise ValueError(
            f"{manifest}: names mels beside its sounds, such as {beside}, which a prepared corpus doesn't hold. Train "
            "on the manifest itself"
        )
    return [entry for entry, _ in lines]


def _check_own(manifest: Path, found: Sequence[Entry], journal: Journal) -> None:
    """Raises ValueError where the manifest in the corpus, to be written anew, isn't one that was made of it."""
    names = {entry.path: entry.name for entry in found}
    for record in read_manifest(manifest):
        if record.path.exists() and names.get(record.path) not in journal:
            raise ValueError(
                f"{manifest}: wasn't made of this folder by 'gansound data prepare', for it names {record.path}, and "
                "would be written over. Prepare into another folder, which keeps what it says"
            )


def _outcome(processing: Processing, out: Path, entry: Entry) -> Outcome:
    return process(entry, processing, out)


def _outcomes(
    journal: Journal,
    make: Callable[[Entry], Outcome],
    found: Sequence[Entry],
    run: Run,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[Entry, Outcome, Stamp | None]]:
    """Each file, in order, with what came of it, and the stamp it had where that was found out just now."""

    def look(entry: Entry) -> tuple[Stamp, Outcome | None]:
        stamp = journal.stamp(entry)
        return stamp, journal.outcome(entry, stamp)

    for first in range(0, len(found), _LOOKED_AT):
        part = found[first : first + _LOOKED_AT]
        looks = list(in_threads(look, part))
        fresh = iter(
            run(make, [entry for entry, (_, known) in zip(part, looks, strict=True) if known is None])
        )
        for done, (entry, (stamp, known)) in enumerate(zip(part, looks, strict=True), start=first + 1):
            if progress is not None:
                progress(done, len(found))
            yield (entry, next(fresh), stamp) if known is None else (entry, known, None)


def _record(entry: Entry, outcome: Outcome, out: Path) -> Record:
    place = outcome.place(entry, out)
    return Record(place, outcome.sample_rate, outcome.frames, digest=outcome.digest, **entry.known)


def _write_dropped(path: Path, done: Prepared) -> None:
    """Every file that is left out, with the reason."""
    lines: list[Iterable[tuple[str, str]]] = [
        [(str(file), reason) for file, reason in done.unusable],
        [(str(file), f"a copy of {original}") for file, original in done.copies],
    ]
    content = b"".join(json_line({"path": file, "reason": reason}) for part in lines for file, reason in part)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:  # that of a write names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
