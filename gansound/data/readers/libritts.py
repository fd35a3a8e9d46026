"""LibriTTS (https://www.openslr.org/60/) and LibriTTS-R (https://www.openslr.org/141/): many speakers, texts.

``SUBSET/SPEAKER/CHAPTER/SPEAKER_CHAPTER_PARAGRAPH_SENTENCE.wav`` with ``.normalized.txt`` and ``.original.txt``
beside. LibriSpeech has the same folders but other names of files, and isn't taken for it.
"""

import re
from pathlib import Path

from gansound.data.readers.entry import Entry, Found, folders, in_order, names, text_of
from gansound.data.walk import is_audio

EXPECTED = (
    "train-clean-100/SPEAKER/CHAPTER/SPEAKER_CHAPTER_000001_000000.wav, and so for the other subsets; "
    "the folder of one subset; or a folder that holds LibriTTS/ or LibriTTS_R/"
)
_SPLITS = {
    "train-clean-100": "train",
    "train-clean-360": "train",
    "train-other-500": "train",
    "dev-clean": "valid",
    "dev-other": "valid",
    "test-clean": "test",
    "test-other": "test",
}
_UTTERANCE = re.compile(r"(\d+)_(\d+)_\d+_\d+")
_TEXTS = (".normalized.txt", ".original.txt")
_LOOK = 100  # so many names of a folder tell what it is


def recognises(root: Path) -> bool:
    """One file of a subset in its place."""
    return bool(_subsets(root))


def read(root: Path) -> Found:
    """All utterances, with the normalised text, else the original; a text without its sound is missing."""
    found: list[Entry] = []
    missing: list[tuple[Path, str]] = []
    for subset in _subsets(root):
        split = _SPLITS.get(subset.name)
        for speaker in folders(subset):
            for chapter in folders(speaker):
                sounds, texts = _chapter(chapter)
                for utterance, name in sounds.items():
                    path = chapter / name
                    text = next(filter(None, (text_of(chapter / t) for t in texts.get(utterance, []))), None)
                    found.append(
                        Entry(path, path.relative_to(root).as_posix(), speaker.name, text, split=split)
                    )
                missing += [
                    (chapter / f"{utterance}.wav", f"{texts[utterance][0]} is there, but not its sound")
                    for utterance in sorted(texts.keys() - sounds.keys())
                ]
    return in_order(found), missing


def _chapter(chapter: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Sounds and texts of a chapter by utterance, the normalised text first."""
    sounds: dict[str, str] = {}
    texts: dict[str, list[str]] = {}
    for name in names(chapter):
        utterance, dot, kind = name.partition(".")
        if not _UTTERANCE.fullmatch(utterance):
            continue
        if is_audio(name) and "." not in kind:
            sounds[utterance] = name
        elif dot + kind in _TEXTS:
            texts.setdefault(utterance, []).append(name)  # in order of name: normalized before original
    return sounds, texts


def _subsets(root: Path) -> list[Path]:
    if _is_subset(root):
        return [root]
    for above in (root, root / "LibriTTS", root / "LibriTTS_R"):
        if found := [above / name for name in sorted(_SPLITS) if _is_subset(above / name)]:
            return found
    return []


def _is_subset(folder: Path) -> bool:
    for speaker in names(folder, _LOOK):
        for chapter in names(folder / speaker, _LOOK) if speaker.isdecimal() else ():
            place = folder / speaker / chapter
            for name in names(place, _LOOK) if chapter.isdecimal() else ():
                match = _UTTERANCE.fullmatch(name.partition(".")[0])
                if match and is_audio(name) and match.groups() == (speaker, chapter):
                    return True
    return False
