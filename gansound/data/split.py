"""Splits through which nothing leaks.

What must not be on both sides of a split (the takes of one prompt, the velocity layers of one drum, a
speaker) is a group, and a group is put into a split as a whole by a hash of its name and the seed: a file
added later doesn't move the others.
"""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from gansound.data.manifest import Record
from gansound.draw import unit_hash

_LARGEST_GROUP = 0.2  # of all files: more, and a common prefix says nothing of takes
_ALWAYS_TRAINED = 0.3  # of all audio: a group this large would leave too little to train on
SHORT_SECONDS = 2.0
"""A set of sounds is one whose median is below it; some may last long, as loops and pads do."""


def groups(records: Sequence[Record]) -> tuple[list[str], str]:
    """The group of each record, and in words what a group is.

    The first that applies: the speaker, when there are three or more; the prompt, by equal text (and by equal
    name up to the last ``_`` where that agrees with the texts); the name up to ``__`` (a kit); the folder below the
    label's (a kit, too); the name up to the last ``_`` where that makes three groups or more, none larger than a
    fifth of the files (a common prefix such as ``recording_`` says nothing); else each file for itself. Labels don't
    count: a speaker's name is the same speaker under every word. But what only repeats the labels of a set of
    short sounds (``kick/kick_01.wav``) groups nothing: it would hold out a whole label.
    """
    if all(r.speaker for r in records) and len({r.speaker for r in records}) >= 3:
        return [f"speaker {r.speaker}" for r in records], "speaker"
    prefixes = [r.path.stem.rpartition("_")[0] or r.path.stem for r in records]
    if any(r.text for r in records):
        texts = [_plain(r.text) or f"file {r.path.stem}" for r in records]
        return _joined(texts, prefixes) if _agree(prefixes, texts) else texts, "prompt"
    kits = [r.path.stem.partition("__")[0] for r in records]
    if (
        all("__" in r.path.stem for r in records)
        and len(set(kits)) >= 3
        and not _repeat_labels(kits, records)
    ):
        return kits, "name up to the first __"
    below = [
        r.path.parent.name if r.label and r.label.casefold() != r.path.parent.name.casefold() else ""
        for r in records
    ]
    if have_classes(records) and all(below) and len(set(below)) >= 3 and not _repeat_labels(below, records):
        return below, "folder below the label's"
    sizes = Counter(prefixes)
    largest = max(2, _LARGEST_GROUP * len(records))
    if (
        3 <= len(sizes) < len(records)
        and max(sizes.values()) <= largest
        and not _repeat_labels(prefixes, records)
    ):
        return prefixes, "name up to the last _"
    return [r.path.stem for r in records], "file"


def have_classes(records: Sequence[Record]) -> bool:
    """Whether labels are classes of sounds: several of them, on short sounds; else they may be speakers or books."""
    if len({r.label for r in records if r.label}) < 2:
        return False
    seconds = sorted(r.seconds for r in records)
    return seconds[len(seconds) // 2] < SHORT_SECONDS


def _repeat_labels(names: Sequence[str], records: Sequence[Record]) -> bool:
    """Whether most labels are one group each, so that the groups hold nothing together but the labels."""
    groups_of: dict[str, set[str]] = defaultdict(set)
    for name, record in zip(names, records, strict=True):
        groups_of[record.label or ""].add(name)
    return have_classes(records) and 2 * sum(len(g) == 1 for g in groups_of.values()) > len(groups_of)


def _plain(text: str | None) -> str:
    return " ".join(re.findall(r"\w+", (text or "").lower()))


def _agree(prefixes: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether files of one prefix mostly share their text, so that the prefix names a prompt."""
    by_prefix: dict[str, Counter[str]] = defaultdict(Counter)
    for prefix, text in zip(prefixes, texts, strict=True):
        by_prefix[prefix][text] += 1
    several = [texts_of for texts_of in by_prefix.values() if texts_of.total() > 1]
    same = sum(texts_of.most_common(1)[0][1] for texts_of in several)
    return bool(several) and same >= 0.8 * sum(texts_of.total() for texts_of in several)


def _joined(texts: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """Groups linked by an equal text or an equal prefix, named by their first text in the alphabet."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for text, prefix in zip(texts, prefixes, strict=True):
        one, other = sorted((find(f"t{text}"), find(f"p{prefix}")))
        parent[one] = other  # "t…" sorts after "p…": a text ends up on top
    first: dict[str, str] = {}
    for text in texts:
        top = find(f"t{text}")
        first[top] = min(first.get(top, text), text)
    return [first[find(f"t{text}")] for text in texts]


def split(
    records: Sequence[Record],
    *,
    seed: int,
    valid: float = 0.05,
    test: float = 0.05,
    contents: Sequence[str] | None = None,
) -> tuple[list[Record], str]:
    """Fill in ``split`` group by group, and say in words what a group is.

    ``valid`` and ``test`` are the expected shares. With three groups or more no split is empty (unless its share
    is 0), and a group with over 30 % of the audio is trained on, as is one group at least of each label of a set of
    short sounds. ``contents``, a hash of each file's samples,
    joins the groups that share a file. Raises ValueError for shares that don't fit.
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid and test are shares of the corpus, together below 1; got {valid} and {test}")
    names, rule = groups(records)
    if contents is not None:
        names = _joined(names, contents)
    seconds: dict[str, float] = defaultdict(float)
    for name, record in zip(names, records, strict=True):
        seconds[name] += record.seconds
    hashes = {name: unit_hash(seed, name, "split") for name in seconds}
    small = [n for n in seconds if seconds[n] <= _ALWAYS_TRAINED * sum(seconds.values())]
    order = sorted(small if len(small) >= 3 or len(seconds) < 3 else seconds, key=lambda n: (hashes[n], n))
    if have_classes(records):
        last: dict[str, str] = {}
        for name, record in zip(names, records, strict=True):
            if record.label:
                last[record.label] = max(last.get(record.label, name), name, key=lambda n: (hashes[n], n))
        order = [name for name in order if name not in last.values()]
    chosen = dict.fromkeys(seconds, "train")
    for name in order:
        if hashes[name] < valid + test:
            chosen[name] = "valid" if hashes[name] < valid else "test"
    if len(seconds) >= 3:
        _fill(chosen, order, [s for s, share in (("valid", valid), ("test", test)) if share])
    return [dataclasses.replace(r, split=chosen[n]) for n, r in zip(names, records, strict=True)], rule


def _fill(chosen: dict[str, str], order: Sequence[str], wanted: Sequence[str]) -> None:
    """Give each empty split a group: held-out ones the first by hash that is free, training the last of all."""
    for name in wanted:
        if name not in chosen.values():
            count = Counter(chosen.values())
            free = next((n for n in order if count[chosen[n]] > 1 or chosen[n] == "train"), None)
            if free is not None:
                chosen[free] = name
    if "train" not in chosen.values():
        chosen[next(n for n in reversed(order) if Counter(chosen.values())[chosen[n]] > 1)] = "train"
