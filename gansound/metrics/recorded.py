"""Sounds that were made elsewhere as a system to judge: a folder that has a file for each recording."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from gansound.audio import AUDIO_SUFFIXES, read, resample


class RecordedSounds:
    """A folder of sounds, found by the recording's path, or by its name where that is the only one.

    The path is that below the data, or as much of its end as the sounds have in common with it: of `/corpus/anna/1.wav`
    and of `audio/anna/1.wav.flac`, a copy that `gansound data prepare` made of it, the sound is `anna/1.wav`.

    Args:
        folder: holds WAV, FLAC, MP3, Ogg or Opus files; the suffix may be another than the recording's.

    Raises:
        ValueError: it holds no sound.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_path: dict[str, Path] = {}
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
                self._by_path.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
                self._by_name.setdefault(path.stem, []).append(path)
        if not self._by_path:
            raise ValueError(f"{folder}: holds no audio file, expected one for each recording")

    def file(self, item_id: str) -> Path:
        """The file that belongs to a recording; ValueError when there is none, or more than one of its name."""
        inside = PurePosixPath(item_id).with_suffix("")
        copied = inside.with_suffix("") if inside.suffix.lower() in AUDIO_SUFFIXES else inside
        for path in dict.fromkeys((inside, copied)):
            for start in range(max(1, len(path.parts) - 1)):
                if found := self._by_path.get("/".join(path.parts[start:])):
                    return found
        named = self._by_name.get(inside.name) or self._by_name.get(copied.name, [])
        if len(named) != 1:
            count = f"{len(named)} files are called" if named else "no file is called"
            raise ValueError(f"{self.folder}: {count} {copied.name}, expected one at {copied}")
        return named[0]

    def first(self, item_ids: Iterable[str]) -> Path:
        """The file of the first recording that has one; ValueError when none has."""
        reason = "there is no recording"
        for item_id in item_ids:
            try:
                return self.file(item_id)
            except ValueError as error:
                reason = str(error)
        raise ValueError(f"{self.folder}: holds a sound of none of the recordings; of the last: {reason}")

    def sound(self, item_id: str, sample_rate: int) -> NDArray[np.float32]:
        """The sound of a recording, mixed to mono, at `sample_rate`. Shape: `(T,)`."""
        audio, rate = read(self.file(item_id))
        return resample(audio, rate, sample_rate)
