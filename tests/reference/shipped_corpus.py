"""The corpus of the shipped speech vocoder, from the recordings that it is allowed to learn from.

    python -m tests.reference.shipped_corpus OUT [--data ../shared/data] [--festvox-ru FOLDER_OF_WAV]

Kathleen (CC0) without the steady tone of her room at 8 kHz, the voices of `voices/` (CC0 and CC-BY 4.0), the ten words
of Speech Commands (CC-BY 4.0), a Russian man (Debian's festvox-ru: `apt-get download festvox-ru; dpkg -x … ru`), and
five minutes of noise, clicks and pulse trains and eight of single clicks, so that a net learns those too; the latter
are drawn as often as six voices, for most of them is silence. Held out are whole speakers (split
`test`) and of Kathleen the prompts that `gansound` holds out; beside them a telephone voice, to be judged by alone.
"""

import argparse
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

from gansound.data.corpus import scan
from gansound.data.manifest import MANIFEST_NAME, Record, write_manifest
from gansound.data.split import split as assign

HELD_OUT = ("thorsten", "karen_cenon", "dmitri", "lili", "imre")
SHORTEST_JUDGED = 1.5  # seconds; a shout of half a second has no PESQ to speak of
TONE_HZ = 8000.0
RATE = 22050
CLICK_VOICES = 6


def without_tone(audio: np.ndarray, rate: int) -> np.ndarray:
    """A notch 20 Hz wide, forwards and backwards."""
    return scipy.signal.filtfilt(*scipy.signal.iirnotch(TONE_HZ, TONE_HZ / 20, rate), audio)


def synthetic(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Coloured noise, clicks in near silence, or pulses of a gliding pitch in noise."""
    samples = round(seconds * RATE)
    kind = rng.integers(3)
    if kind == 0:
        sound = scipy.signal.lfilter([1], [1, -rng.uniform(-0.9, 0.9)], rng.standard_normal(samples))
    elif kind == 1:
        sound = rng.standard_normal(samples) * 1e-4
        for start in rng.integers(samples - 50, size=round(3 * seconds)):
            length = rng.integers(1, 50)
            sound[start : start + length] += rng.standard_normal(length) * np.exp(-np.arange(length) / 8)
    else:
        pitch = rng.uniform(70, 350) * np.exp(np.cumsum(rng.standard_normal(samples)) * 2e-4)
        pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0)
        sound = scipy.signal.lfilter([1], [1, -rng.uniform(0.3, 0.95)], pulses)
        sound += rng.standard_normal(samples) * 10 ** rng.uniform(-4, -1.5)
    return sound / np.abs(sound).max() * 10 ** (rng.uniform(-30, -3) / 20)


def clicks(seconds: float, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Clicks apart from each other, mostly of one sample, in silence or in faint noise."""
    samples = round(seconds * rate)
    sound = rng.standard_normal(samples) * rng.choice([0.0, 1e-5, 1e-4, 1e-3])
    place = 0
    while (place := place + round(rate * rng.uniform(0.06, 0.5))) < samples - 8:
        length = rng.choice([1, 1, 1, 2, 8])
        sound[place : place + length] += rng.standard_normal(length) + np.sign(rng.standard_normal())
    return sound / np.abs(sound).max() * 10 ** (rng.uniform(-20, -3) / 20)


def tell(records: Iterable[Record]) -> None:
    """The seconds of each speaker in each split."""
    seconds: dict[str, dict[str, float]] = {split: defaultdict(float) for split in ("train", "valid", "test")}
    for record in records:
        seconds[record.split or "train"][record.speaker or ""] += record.seconds
    for split, speakers in seconds.items():
        print(split, " ".join(f"{name} {round(s)} s" for name, s in speakers.items()))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--festvox-ru", type=Path)
    arguments = parser.parse_args()
    out, data = arguments.out, arguments.data
    records = []

    def add(path: Path, speaker: str, split: str) -> None:
        info = soundfile.info(path)
        records.append(Record(path, info.samplerate, info.frames, speaker, split=split))

    for record in assign(scan(data / "kathleen").records, seed=0)[0]:
        target = out / "kathleen" / f"{record.path.stem}.flac"
        target.parent.mkdir(parents=True, exist_ok=True)
        audio, rate = soundfile.read(record.path)
        if record.split == "train":
            audio = without_tone(audio, rate)
        soundfile.write(target, audio, rate, subtype="PCM_16")
        add(target, "kathleen", record.split or "train")
    others = defaultdict(list)
    for path in sorted((data / "voices").rglob("*.flac")):
        others[path.relative_to(data / "voices").parts[0]].append(path)
    del others["kathleen"]  # the same takes at 48 kHz
    others["words"] = sorted((data / "words").rglob("*.flac"))
    if arguments.festvox_ru:
        others["ru_nsh"] = sorted(arguments.festvox_ru.glob("*.wav"))
    for speaker, paths in others.items():
        files = [soundfile.info(path) for path in paths]
        best = max((file.samplerate for file in files), default=0)
        for number, (path, file) in enumerate(zip(paths, files, strict=True)):
            held_out = speaker in HELD_OUT
            if held_out and (file.samplerate < best or file.duration < SHORTEST_JUDGED):
                continue  # the same take at a lower rate, or too short
            name = f"{path.parent.name}_{path.name}" if speaker == "words" else path.name
            target = out / speaker / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            split = "test" if held_out else "valid" if number % 50 == 49 else "train"
            add(target, speaker, split)
    for path in sorted((data / "prompts_en").rglob("*.flac"))[::5]:
        target = out / "allison" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        add(target, "allison", "test")
    for seed, (make, files, voices) in enumerate(((synthetic, 30, 1), (clicks, 48, CLICK_VOICES))):
        rng = np.random.default_rng(seed)
        for number in range(files):
            target = out / make.__name__ / f"{number:02}.flac"
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, make(10, rng), RATE, subtype="PCM_16")
            for voice in range(voices):
                add(target, f"{make.__name__}_{voice}", "train")
    write_manifest(out / MANIFEST_NAME, records)
    tell(records)


if __name__ == "__main__":
    main()
