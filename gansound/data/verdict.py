"""What the figures of a corpus mean for someone who is about to train on it, in plain words."""

from typing import Any

from gansound.counts import counted, some_of
from gansound.data.split import SHORT_SECONDS

_ENOUGH_HOURS = 10.0
_SOME_HOURS = 1.0
_A_VOICE_HOURS = 1 / 6
_FEW_SOUNDS, _MANY_SOUNDS = 200, 1000
_FEW_OF_A_LABEL = 20


def verdicts(summary: dict[str, Any]) -> list[str]:
    """Sentences for the figures of gansound.data.check.summarise; the amount first, then what to look at."""
    if not summary["files"]:
        return ["no file can be used: see the reasons above"]
    if summary["silent_files"] == summary["files"]:
        return ["all files are silent from beginning to end: there is nothing to train on"]
    looks = _rates(summary) + _levels(summary) + _defects(summary)
    return [_for_a_vocoder(summary), _for_clips(summary), *_sounds(summary), *looks]


def _for_a_vocoder(s: dict[str, Any]) -> str:
    amount, hours = f"for a vocoder, {duration(s['hours'] * 3600)} of sound: ", s["hours"]
    if hours >= _ENOUGH_HOURS:
        return amount + "enough to train one from scratch"
    if hours >= _SOME_HOURS:
        return amount + "enough to fine-tune one or to train a small one; 10 h and more for a large one"
    if hours >= _A_VOICE_HOURS:
        return amount + "enough to fine-tune one on a voice, too little to train one; 1 h for a small one"
    return amount + "enough to try things out, too little to train on; 10 min for fine-tuning on a voice"


def _for_clips(s: dict[str, Any]) -> str:
    if not _short(s):
        return (
            f"for a generator of clips, long: {s['duration_seconds']['median']:.1f} s is the median, of one-shots it "
            f"is under {SHORT_SECONDS:g} s"
        )
    amount = f"for a generator of clips, {counted(s['files'], 'short sound')}: "
    if s["files"] < _FEW_SOUNDS:
        return (
            amount + f"too few, it would learn them by heart; {_FEW_SOUNDS} is little, {_MANY_SOUNDS:,} good"
        )
    return amount + (
        f"it can learn from them, better {_MANY_SOUNDS:,}" if s["files"] < _MANY_SOUNDS else "enough"
    )


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds >= 360:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _short(s: dict[str, Any]) -> bool:
    return bool(s["duration_seconds"]["median"] < SHORT_SECONDS)


def _sounds(s: dict[str, Any]) -> list[str]:
    """What training on one-shots will do with them."""
    if not _short(s):
        return []
    said = []
    if classes := s["classes"]:
        counts = sorted(classes.items(), key=lambda item: -item[1])
        said.append(
            f"{counted(len(classes), 'label')} to choose from: " + ", ".join(f"{n} {c}" for n, c in counts)
        )
        if lone := [name for name, count in counts if count == 1]:
            said.append(
                f"a single file has the label {', '.join(lone)}: a generator can only copy it; add sounds, move it to "
                "another label's folder, or take it out"
            )
        elif counts[-1][1] < _FEW_OF_A_LABEL:
            few = [name for name, count in counts if count < _FEW_OF_A_LABEL]
            said.append(
                f"fewer than {_FEW_OF_A_LABEL} sounds of {', '.join(few)}: expect near copies of them, and augment"
            )
        if s["without_label_files"]:
            said.append(
                f"{_files(s['without_label_files'], s, 'lies', 'lie')} in no label's folder: training with labels "
                "skips them"
            )
        for name, lacking in s["classes_not_in"].items():
            if lacking:
                said.append(
                    f"nothing of {', '.join(lacking)} is held out for {name}{_how(s['classes_split_by'])} (every label "
                    "is trained on): more sounds, or another seed or share of 'prepare', would change that"
                )
    if s["longer_than_1_s_files"]:
        said.append(
            f"{_files(s['longer_than_1_s_files'], s, 'lasts', 'last')} over a second: a model of one-second clips cuts "
            "them there, with a fade-out"
        )
    if s["longer_than_4_s_files"]:
        said.append(
            f"{_files(s['longer_than_4_s_files'], s, 'lasts', 'last')} four seconds or more: those that don't just "
            "ring out are sliced into hits or crops"
        )
    if s["copies_in_two_labels"]:
        said.append(
            f"{counted(s['copies_in_two_labels'], 'sound lies', 'sounds lie')} under two labels at once (see the exact "
            "copies): decide for one"
        )
    return said


def _how(rule: str | None) -> str:
    return f" where a tenth is, split by {rule}" if rule else ""


def _rates(s: dict[str, Any]) -> list[str]:
    said = []
    if len(s["sample_rates_hz"]) > 1:
        said.append(
            f"{len(s['sample_rates_hz'])} sample rates: 'gansound data prepare --sample-rate N' makes them one"
        )
    if s["band_limited_files"]:
        limit, count = s["band_limit_hz"]["median"], s["band_limited_files"]
        said.append(
            f"{_files(count, s, 'holds', 'hold')} nothing above about {limit / 1000:.1f} kHz, less than their sample "
            f"rate has room for (up-sampled or lossy before?): a model trained on them stays as dull"
        )
    cancelling = s["cancelling_files"]
    if wide := sum(n for channels, n in s["channels"].items() if int(channels) > 1) - cancelling:
        said.append(
            f"{_files(wide, s, 'has', 'have')} several channels: mixed to mono as they are read, but by a generator of "
            "clips in stereo (docs/sounds.md)"
        )
    if cancelling:
        said.append(
            f"{_files(cancelling, s, 'has', 'have')} channels that cancel each other (one is upside down): the "
            "strongest alone is read"
        )
    return said


def _levels(s: dict[str, Any]) -> list[str]:
    said = []
    loud = s["loudness_lufs"]
    if loud["median"] < -33:
        said.append(
            f"quiet (median {loud['median']:.0f} LUFS): train with gain augmentation, so louder voices work too"
        )
    if loud["p95"] - loud["p5"] > 12:
        said.append(
            f"levels differ by {loud['p95'] - loud['p5']:.0f} dB between files (5th to 95th percentile)"
        )
    if s["noise_floor_db"]["median"] > -45:
        said.append(
            f"noisy: the quietest moments are at {s['noise_floor_db']['median']:.0f} dB; the model will learn that"
        )
    if s["silence_share"] > 0.3:
        said.append(f"{s['silence_share']:.0%} is silence: trimming the files saves training time")
    return said


def _defects(s: dict[str, Any]) -> list[str]:
    said = []
    if s["silent_files"]:
        said.append(
            f"{_files(s['silent_files'], s, 'is', 'are')} silent from beginning to end: leave them out"
        )
    if s["clipped_files"]:
        said.append(
            f"{_files(s['clipped_files'], s, 'is', 'are')} clipped ({counted(s['clipped_samples'], 'sample')}): "
            "the model learns the crackle"
        )
    if s["over_full_scale_files"]:
        said.append(
            f"{_files(s['over_full_scale_files'], s, 'passes', 'pass')} full scale (floating point): lower their level"
        )
    if s["offset_files"]:
        said.append(
            f"{_files(s['offset_files'], s, 'has', 'have')} a constant offset above 1 %: remove it with a high-pass "
            "filter"
        )
    if s["duplicate_files"]:
        said.append(
            f"{_files(s['duplicate_files'], s, 'is an exact copy', 'are exact copies')} of another: prepare leaves "
            "them out"
        )
    if s["unusable_files"]:
        unfit = counted(s["unusable_files"], "file can't be used and is", "files can't be used and are")
        said.append(f"{unfit} skipped: see the reasons")
    return said


def _files(count: int, s: dict[str, Any], does: str, do: str) -> str:
    """So many files with the verb of one or of several."""
    if count == s["files"]:
        return f"the file {does}" if count == 1 else f"all files {do}"
    return some_of(count, s["files"], "file", does, do)
