"""The one walk through folders of sounds: of a corpus as of what is to be vocoded."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from gansound import audio
from gansound.counts import counted

logger = logging.getLogger(__name__)

_FOREIGN = frozenset(
    {".m4a", ".aac", ".wma", ".ape", ".wv", ".mp4", ".m4b", ".webm", ".amr", ".mpc", ".mka", ".ac3"}
)
_NAMED = 8


def walk(root: Path) -> Iterator[Path]:
    """Every file below a folder but the hidden ones, folder by folder.

    Links are followed, and each folder is gone through once (by device and inode), by its own path rather than by
    that of a link to it: so links that lead back up end nothing and double nothing.
    """
    seen: set[tuple[int, int]] = set()
    own, linked = [root], list[Path]()
    while own or linked:
        folder = own.pop() if own else linked.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                inside = sorted((item for item in found if item.name[:1] != "."), key=lambda item: item.name)
        except OSError as error:
            logger.warning("%s: passed over, it can't be listed (%s)", folder, error.strerror)
            continue
        folders = [item for item in inside if item.is_dir()]
        own += [folder / item.name for item in reversed(folders) if not item.is_symlink()]
        linked += [folder / item.name for item in folders if item.is_symlink()]
        yield from (folder / item.name for item in inside if not item.is_dir())


def is_audio(name: str) -> bool:
    """Whether a name's suffix is one of audio that can be read."""
    return Path(name).suffix.lower() in audio.AUDIO_SUFFIXES


def say_passed_over(root: Path, paths: Iterable[Path]) -> None:
    """Log what of a folder wasn't taken: a warning where it may be sound."""
    suffixes = Counter(path.suffix.lower() for path in paths)
    if not suffixes:
        return
    named = [f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(_NAMED)]
    if len(suffixes) > _NAMED:
        named.append(f"{sum(c for _, c in suffixes.most_common()[_NAMED:])} others")
    advice = ""
    if foreign := sorted(suffixes.keys() & _FOREIGN):
        advice = f". {', '.join(foreign)} can't be read: convert them first, for example with ffmpeg"
    if "" in suffixes:
        advice += ". What has no suffix and is sound needs one"
    logger.log(
        logging.WARNING if advice else logging.INFO,
        "%s: %s passed over: %s%s",
        root,
        counted(sum(suffixes.values()), "file"),
        ", ".join(named),
        advice,
    )
