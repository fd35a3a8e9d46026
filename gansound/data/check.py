"""What a corpus holds and whether it is good to train on: measures of each file, a summary, plain words."""

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gansound import audio
from gansound.audio import SILENT_PEAK_DB
from gansound.data.corpus import Entry, by_split, entries, in_threads, listed, recognised
from gansound.data.manifest import MANIFEST_NAME, Record
from gansound.data.onsets import resting
from gansound.data.split import groups, have_classes, split
from gansound.data.verdict import verdicts

CLIPPED_RUN = 3  # this many full-scale samples in a row don't come from a microphone
FULL_SCALE = 0.995
SILENT_UNDER_LOUD_DB = 40.0
SILENT_DB = -70.0
_FRAME_SECONDS = 0.02
_SPECTRUM = 1024
_BAND_DEPTH_DB = 75.0
_CLIFF_DB = 15.0
_BLOCK_SAMPLES = 1 << 23  # decoded at a time, of all channels
_LOUDNESS_SECONDS = 600.0  # of a longer file the loudness of its beginning stands for the rest


@dataclass(frozen=True, slots=True)
class FileReport:
    """Measures of one file; levels in dB relative to full scale, -inf for digital silence."""

    path: Path
    sample_rate: int
    frames: int
    channels: int
    format: str
    subtype: str
    seconds: float
    rms_db: float
    peak_db: float
    loudness_lufs: float
    noise_floor_db: float  # 5th percentile of the level of 20 ms frames that aren't digital silence
    silence_share: float  # frames 40 dB under the file's loud ones (95th percentile), or under -70 dB
    clipped_samples: int  # in runs of three or more at full scale
    offset: float  # mean of the samples
    rests_at: float  # a constant offset; 0 where the mean is that of an uneven sound, as of a kick
    band_limit_hz: float | None  # above it there is nothing, though the sample rate has room; None: full band
    content_hash: str  # of the decoded samples, rate and channels
    cancels: bool  # its channels, when they are mixed to mono: the strongest alone is measured, and read


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """Measures of a corpus: files, what can't be used, exact duplicates, groups, verdicts in plain words."""

    root: Path
    layout: str
    files: list[FileReport]
    unusable: list[tuple[Path, str]]
    duplicates: list[list[Path]]
    grouping: str
    takes: dict[int, int]  # files in a group -> groups of that size
    splits: dict[str, int]  # files of each, where the corpus itself says which; else empty
    speakers: dict[str, int]
    labels: dict[str, int]
    verdicts: list[str]
    summary: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: figures with units in their names; what is infinite is null."""
        files = [asdict(f) | {"path": str(f.path)} for f in self.files]
        return _finite(
            {
                "root": str(self.root),
                "layout": self.layout,
                "summary": self.summary,
                "verdicts": self.verdicts,
                "unusable": [{"path": str(path), "reason": reason} for path, reason in self.unusable],
                "duplicates": [[str(path) for path in paths] for paths in self.duplicates],
                "grouping": self.grouping,
                "takes": {str(size): count for size, count in sorted(self.takes.items())},
                "splits": self.splits,
                "speakers": self.speakers,
                "labels": self.labels,
                "files": files,
            }
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_corpus(
    root: str | os.PathLike[str],
    *,
    speaker_pattern: str | None = None,
    layout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CorpusReport:
    """Decode and measure every file of a corpus, on all cores. Raises ValueError when no file is found.

    Of a folder that `prepare` wrote, or its manifest, it is what the manifest names, unless a layout is given.
    """
    root = Path(root)
    said: dict[Path, tuple[int, int]] = {}
    unusable: list[tuple[Path, str]] = []
    manifest = root / MANIFEST_NAME if root.is_dir() else root
    if layout is None and manifest.is_file():
        if speaker_pattern is not None:
            raise ValueError(
                f"{manifest}: says its speakers itself. Leave the speaker pattern out, or look at the corpus that it "
                "was made of"
            )
        lines = listed(manifest)
        found, said = [e for e, _ in lines], {r.path: (r.sample_rate, r.frames) for _, r in lines}
        layout = "prepared"
    else:
        layout = layout or recognised(root)
        found, unusable = entries(root, speaker_pattern=speaker_pattern, layout=layout)
    files: list[FileReport] = []
    used: list[Entry] = []
    for entry, outcome in zip(found, in_threads(_attempt, found, progress), strict=True):
        if isinstance(outcome, str):
            unusable.append((entry.path, outcome))
        elif said.get(entry.path, is_ := (outcome.sample_rate, outcome.frames)) != is_:
            unusable.append(
                (entry.path, "another sound than the manifest says. Run 'gansound data prepare' again")
            )
        else:
            files.append(outcome)
            used.append(entry)
    records = [Record(e.path, f.sample_rate, f.frames, **e.known) for e, f in zip(used, files, strict=True)]
    names, grouping = groups(records)
    splits = {name: len(part) for name, part in by_split(records).items()} if _are_split(records) else {}
    by_content: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_content[file.content_hash].append(file.path)
    duplicates = [paths for paths in by_content.values() if len(paths) > 1]
    summary = summarise(files, len(unusable), duplicates) | _sounds(records, files, duplicates)
    return CorpusReport(
        root,
        layout,
        files,
        unusable,
        duplicates,
        grouping,
        dict(Counter(Counter(names).values())),
        splits,
        dict(Counter(r.speaker for r in records if r.speaker).most_common()),
        dict(Counter(r.label for r in records if r.label).most_common()),
        verdicts(summary),
        summary,
    )


def _are_split(records: Sequence[Record]) -> bool:
    return bool(records) and all(record.split for record in records)


def _sounds(
    records: Sequence[Record], files: Sequence[FileReport], duplicates: Sequence[Sequence[Path]]
) -> dict[str, Any]:
    """Figures of a set of short sounds: its classes, what training would slice, what it would never be judged on."""
    label_of = {f.path: r.label for f, r in zip(files, records, strict=True)}
    figures: dict[str, Any] = {
        "classes": dict(Counter(r.label for r in records if r.label)) if have_classes(records) else {},
        "longer_than_1_s_files": sum(r.seconds > 1 for r in records),
        "longer_than_4_s_files": sum(r.seconds >= 4 for r in records),
        "copies_in_two_labels": sum(len({label_of[path] for path in paths}) > 1 for paths in duplicates),
    }
    if figures["classes"]:
        # As the recipes for labelled sounds hold out.
        contents = [file.content_hash for file in files]
        if _are_split(records):
            parted, figures["classes_split_by"] = list(records), None  # by the corpus itself
        else:
            parted, figures["classes_split_by"] = split(
                records, seed=0, valid=0.1, test=0.1, contents=contents
            )
        parts = by_split(parted)
        held = {name: {r.label for r in part} for name, part in parts.items() if name != "train"}
        figures["classes_not_in"] = {n: sorted(figures["classes"].keys() - held[n]) for n in held}
        figures["without_label_files"] = sum(r.label is None for r in records)
    return figures


def _attempt(entry: Entry) -> FileReport | str:
    try:
        return check_file(entry.path)
    except audio.AudioError as error:
        return str(error).removeprefix(f"{entry.path}: ")


def check_file(path: str | os.PathLike[str]) -> FileReport:
    """Decode one file piece by piece and measure it. Raises AudioError when it can't be used."""
    info = audio.probe(path)
    rate, frame = info.sample_rate, max(1, round(_FRAME_SECONDS * info.sample_rate))
    digest = hashlib.blake2b(f"{rate} {info.channels}".encode(), digest_size=16)
    powers, spectra, weight = [], np.zeros(_SPECTRUM // 2 + 1), 0
    total = squares = peak = 0.0
    clipped = 0
    # Floats beyond full scale are whole; what a lossy encoding makes of clipped sound goes beyond it too.
    limit = 1.0 if info.subtype in ("FLOAT", "DOUBLE") else math.inf
    beginning: list[np.ndarray] = []
    channel = audio.cancelling(path)
    most = max(1, min(60 * 50, _BLOCK_SAMPLES // (frame * info.channels)))
    for block in audio.blocks(path, block_samples=most * frame, mono=False):
        digest.update(np.ascontiguousarray(block.T).tobytes())
        clipped += sum(_clipped(channel, limit) for channel in block)
        peak = max(peak, float(np.abs(block).max()))
        mono = block.mean(axis=0, dtype=np.float64) if channel is None else block[channel].astype(np.float64)
        total += float(mono.sum())
        squares += float(np.square(mono).sum())
        powers.append(_frame_powers(mono, frame))
        spectrum, count = _spectrum(mono)
        spectra, weight = spectra + spectrum, weight + count
        if sum(map(len, beginning)) < _LOUDNESS_SECONDS * rate:
            beginning.append(mono)
    power = np.concatenate(powers)
    sounding = power[power > 0]
    start = np.concatenate(beginning)
    loud = np.percentile(power, 95)
    threshold = max(loud * 10 ** (-SILENT_UNDER_LOUD_DB / 10), 10 ** (SILENT_DB / 10))
    return FileReport(
        path=info.path,
        sample_rate=rate,
        frames=info.frames,
        channels=info.channels,
        format=info.format,
        subtype=info.subtype,
        seconds=info.seconds,
        rms_db=_db(squares / info.frames),
        peak_db=_db(peak**2),
        loudness_lufs=audio.loudness_lufs(start, rate),
        noise_floor_db=_db(float(np.percentile(sounding, 5))) if len(sounding) else -math.inf,
        silence_share=float(np.mean(power < threshold)),
        clipped_samples=clipped,
        offset=total / info.frames,
        rests_at=float(resting(start[None])[0, 0]),
        band_limit_hz=band_limit(spectra / max(weight, 1), rate),
        content_hash=digest.hexdigest(),
        cancels=channel is not None,
    )


def _db(power: float) -> float:
    return 10 * math.log10(power) if power > 0 else -math.inf


def _clipped(channel: np.ndarray, limit: float) -> int:
    """Samples in runs of CLIPPED_RUN or more from full scale up to a limit, of one sign."""
    count = 0
    within = np.abs(channel) <= limit
    for side in (within & (channel >= FULL_SCALE), within & (channel <= -FULL_SCALE)):
        if not side.any():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[0], side.astype(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        count += int(runs[runs >= CLIPPED_RUN].sum())
    return count


def _frame_powers(mono: np.ndarray, frame: int) -> np.ndarray:
    whole = len(mono) // frame * frame
    if not whole:
        return np.array([np.mean(np.square(mono))])
    return np.square(mono[:whole]).reshape(-1, frame).mean(axis=1)


def _spectrum(mono: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum of the power spectra of half-overlapping Hann windows, and how many."""
    if len(mono) < _SPECTRUM:
        mono = np.pad(mono, (0, _SPECTRUM - len(mono)))
    windows = np.lib.stride_tricks.sliding_window_view(mono, _SPECTRUM)[:: _SPECTRUM // 2]
    hann = np.hanning(_SPECTRUM)
    total = np.zeros(_SPECTRUM // 2 + 1)
    for first in range(0, len(windows), 512):
        spectrum = np.fft.rfft(windows[first : first + 512] * hann)
        total += np.square(np.abs(spectrum)).sum(axis=0)
    return total, len(windows)


def band_limit(power: np.ndarray, sample_rate: int) -> float | None:
    """Where the long-term power spectrum ends, if it ends well short of half the sample rate, and at a cliff.

    ``power``: (bins,) from 0 Hz to half the rate. The end is the highest frequency within 75 dB of the strongest
    (or 6 dB above the floor of 16-bit rounding, if that is higher). It is a limit when it is under 85 % of the
    half rate and the mean level falls by 15 dB or more across it, which a resampler or a lossy encoder does and
    a decaying sound doesn't. In Hz, or None.
    """
    smooth = np.convolve(power, np.ones(5) / 5, mode="same")
    hann_gain = _SPECTRUM * 3 / 8
    rounding = hann_gain / (12 * 32768.0**2) * 10 ** (6 / 10)
    floor = max(float(smooth.max()) * 10 ** (-_BAND_DEPTH_DB / 10), rounding)
    above = np.flatnonzero(smooth > floor)
    if not len(above):
        return None
    end = int(above[-1])
    bins = len(power) - 1
    if end >= 0.85 * bins or end < 8:
        return None
    inside = power[int(0.85 * end) : max(int(0.97 * end), int(0.85 * end) + 1)].mean()
    outside = power[math.ceil(1.03 * end) + 1 : math.ceil(1.2 * end) + 2].mean()
    if _db(float(inside)) - _db(float(max(outside, 1e-30))) < _CLIFF_DB:
        return None
    return end * sample_rate / 2 / bins


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return dict.fromkeys(("min", "p5", "median", "p95", "max"), -math.inf)
    low, p5, middle, p95, high = np.percentile(finite, [0, 5, 50, 95, 100])
    return {
        "min": float(low),
        "p5": float(p5),
        "median": float(middle),
        "p95": float(p95),
        "max": float(high),
    }


def summarise(
    files: Sequence[FileReport], unusable: int, duplicates: Sequence[Sequence[Path]]
) -> dict[str, Any]:
    """Figures of the whole corpus, named with their units."""
    seconds = sum(f.seconds for f in files)
    limits = [f for f in files if f.band_limit_hz is not None]
    return {
        "files": len(files),
        "unusable_files": unusable,
        "hours": seconds / 3600,
        "sample_rates_hz": {str(k): v for k, v in Counter(f.sample_rate for f in files).most_common()},
        "channels": {str(k): v for k, v in Counter(f.channels for f in files).most_common()},
        "formats": dict(Counter(f"{f.format} {f.subtype}" for f in files).most_common()),
        "duration_seconds": _quantiles([f.seconds for f in files]),
        "rms_db": _quantiles([f.rms_db for f in files]),
        "peak_db": _quantiles([f.peak_db for f in files]),
        "loudness_lufs": _quantiles([f.loudness_lufs for f in files]),
        "noise_floor_db": _quantiles([f.noise_floor_db for f in files]),
        "silence_share": sum(f.silence_share * f.seconds for f in files) / seconds if seconds else 0.0,
        "silent_files": sum(f.peak_db <= SILENT_PEAK_DB for f in files),
        "clipped_files": sum(f.clipped_samples > 0 for f in files),
        "clipped_samples": sum(f.clipped_samples for f in files),
        "over_full_scale_files": sum(f.peak_db > 0 for f in files),
        "offset_files": sum(abs(f.rests_at) > 0.01 for f in files),
        "band_limited_files": len(limits),
        "band_limit_hz": _quantiles([f.band_limit_hz or 0.0 for f in limits]) if limits else None,
        "cancelling_files": sum(f.cancels for f in files),
        "duplicate_files": sum(len(paths) - 1 for paths in duplicates),
    }
