"""VCTK 0.92 (https://doi.org/10.7488/ds/2645) and 0.80: 110 speakers, texts, in 0.92 two microphones.

Of 0.92 the first microphone is read: the second recorded the same utterances at the same time, isn't there for
p280, and a split that parts the two would hold out what was trained on. p315 has no texts.
"""

import logging
import re
from pathlib import Path

from gansound.counts import counted
from gansound.data.readers.entry import Entry, Found, folders, in_order, names, text_of
from gansound.data.walk import is_audio

logger = logging.getLogger(__name__)

EXPECTED = (
    "wav48_silence_trimmed/p225/p225_001_mic1.flac (0.92) or wav48/p225/p225_001.wav (0.80), "
    "and txt/p225/p225_001.txt; or a folder that holds VCTK-Corpus-0.92/ or VCTK-Corpus/"
)
_UTTERANCE = re.compile(r"(([ps]\d+)_\d+)(?:_mic([12]))?")
_LOOK = 100  # so many names of a folder tell what it is


def recognises(root: Path) -> bool:
    """One file of a speaker in its place."""
    return _sounds(root) is not None


def read(root: Path) -> Found:
    """All utterances of the first microphone; a text without its sound is missing."""
    sounds = _sounds(root)
    assert sounds is not None  # asked of recognises() before
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    second = 0
    for folder in folders(sounds):
        place = sounds.parent / "txt" / folder.name
        texts = {name.removesuffix(".txt") for name in names(place) if name.endswith(".txt")}
        for name in names(folder):
            match = _UTTERANCE.fullmatch(Path(name).stem)
            if match is None or not is_audio(name):
                continue
            utterance, speaker, microphone = match.groups()
            if microphone == "2":
                second += 1
                continue
            text = text_of(place / f"{utterance}.txt") if utterance in texts else None
            texts.discard(utterance)
            path = folder / name
            found.append(Entry(path, path.relative_to(root).as_posix(), speaker, text))
        missing += [
            (folder / utterance, f"{place / utterance}.txt is there, but not its sound")
            for utterance in sorted(texts)
        ]
    if second:
        of = "of the second microphone (mic2)"
        logger.info("%s: %s left out", root, counted(second, f"file {of} is", f"files {of} are"))
    return in_order(found), missing


def _sounds(root: Path) -> Path | None:
    """The folder of the speakers' folders."""
    for above in (root, root / "VCTK-Corpus-0.92", root / "VCTK-Corpus"):
        for folder, microphones in (("wav48_silence_trimmed", ("1", "2")), ("wav48", (None,))):
            for speaker in names(above / folder, _LOOK):
                for name in names(above / folder / speaker, _LOOK):
                    match = _UTTERANCE.fullmatch(Path(name).stem)
                    if match and is_audio(name) and match[2] == speaker and match[3] in microphones:
                        return above / folder
    return None
