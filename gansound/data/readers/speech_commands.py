"""Speech Commands v0.01 and v0.02 (https://arxiv.org/abs/1804.03209): words of a second by thousands of speakers.

``WORD/SPEAKER_nohash_N.wav``, and two lists of what is for validation and for testing, by speaker. The folder of
noise is left out. Without the lists it is a folder of label folders as any other.
"""

import logging
import re
from pathlib import Path, PurePosixPath

from gansound.counts import counted
from gansound.data.readers.entry import Entry, Found, folders, in_order, names
from gansound.data.walk import is_audio

logger = logging.getLogger(__name__)

EXPECTED = (
    "WORD/SPEAKER_nohash_0.wav with validation_list.txt and testing_list.txt, "
    "or a folder that holds speech_commands_v0.01/ or speech_commands_v0.02/"
)
_LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
_UTTERANCE = re.compile(r"([^_]+)_nohash_\d+")
_NOISE = "_background_noise_"


def recognises(root: Path) -> bool:
    """Both lists, and in the first line of one a name of this corpus."""
    return _corpus(root) is not None


def read(root: Path) -> Found:
    """All words; what neither list names is for training."""
    corpus = _corpus(root)
    assert corpus is not None  # asked of recognises() before
    held: dict[str, str] = {}
    for table, split in _LISTS.items():
        for line in (corpus / table).read_text(encoding="utf-8").split():
            held[str(PurePosixPath(line).with_suffix(""))] = split
    found: list[Entry] = []
    seen: set[str] = set()
    others = 0
    for folder in folders(corpus):
        for name in names(folder) if folder.name != _NOISE else ():
            if not is_audio(name):
                continue
            path = folder / name
            if (match := _UTTERANCE.fullmatch(path.stem)) is None:
                others += 1
                continue
            listed = f"{folder.name}/{path.stem}"
            seen.add(listed)
            found.append(
                Entry(
                    path,
                    path.relative_to(root).as_posix(),
                    speaker=match[1],
                    label=folder.name,
                    split=held.get(listed, "train"),
                )
            )
    if others:
        left_out = counted(others, "file isn't", "files aren't"), "is" if others == 1 else "are"
        logger.warning("%s: %s named SPEAKER_nohash_N and %s left out", root, *left_out)
    tables = {split: table for table, split in _LISTS.items()}
    missing = [
        (corpus / f"{listed}.wav", f"{tables[held[listed]]} names it, but it isn't there")
        for listed in sorted(held.keys() - seen)
    ]
    return in_order(found), missing


def _corpus(root: Path) -> Path | None:
    for folder in (root, root / "speech_commands_v0.02", root / "speech_commands_v0.01"):
        if all((folder / table).is_file() for table in _LISTS):
            for table in _LISTS:
                with (folder / table).open(encoding="utf-8", errors="replace") as lines:
                    if _UTTERANCE.fullmatch(PurePosixPath(lines.readline(1000).strip()).stem):
                        return folder
    return None
