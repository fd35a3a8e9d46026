"""Any folder of audio: every file below it, labelled by the folders they lie in."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gansound.data.readers.entry import Entry, Found, in_order
from gansound.data.walk import is_audio, say_passed_over, walk

EXPECTED = "audio files, in it or below"


def recognises(root: Path) -> bool:
    """Any folder."""
    return root.is_dir()


def read(root: Path) -> Found:
    """Every file with a suffix of audio.

    The label is the folder at the first level where files lie in several (``drums/kick/kit1/x.wav``: kick, where
    all lie in ``drums``); names that differ in case are one, and so are the two ways of writing an accent, of which a
    Mac's folders may have the one that no keyboard gives.
    """
    found, others = [], []
    for path in walk(root):
        if is_audio(path.name):
            found.append(Entry(path, path.relative_to(root).as_posix()))
        else:
            others.append(path)
    say_passed_over(root, others)
    return _labelled(in_order(found)), []


def _labelled(found: Sequence[Entry]) -> list[Entry]:
    places = [entry.name.split("/")[:-1] for entry in found]
    shared = 0
    while (
        places
        and all(place[: shared + 1] == places[0][: shared + 1] for place in places)
        and shared < len(places[0])
    ):
        shared += 1
    level = shared if any(len(place) > shared for place in places) else max(0, shared - 1)
    spelt: dict[str, str] = {}
    labelled = []
    for entry, place in zip(found, places, strict=True):
        name = unicodedata.normalize("NFC", place[level]) if len(place) > level else None
        label = None if name is None else spelt.setdefault(name.casefold(), name)
        labelled.append(dataclasses.replace(entry, label=label))
    return labelled
