"""The corpus of the shipped full-band vocoder: the speech vocoder's, and what there is above 11 kHz.

    python -m tests.reference.full_band_corpus OUT --speech CORPUS --samples FOLDER [--data ../shared/data]

CORPUS is what `tests.reference.shipped_corpus` wrote; its recordings stay where they are, and teach the lower half.
Beside them: Kathleen's takes at 48 kHz (those of held-out prompts aside), Sonic Pi's samples (CC0: `npm pack
supersonic-scsynth-samples`, unpacked into FOLDER), the drum kits that may be learnt from (CC0 and CC-BY), and 2.5
minutes of full-band noise, clicks and pulse trains, and single clicks as there. Held out (split `test`): the speech
corpus's speakers at their own rates, and four hits of every drum kit that isn't learnt from; those of 44.1 kHz or
more are in OUT/judged/speech and OUT/judged/drums too.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from gansound.data.manifest import MANIFEST_NAME, Record, read_manifest, write_manifest
from tests.reference.shipped_corpus import CLICK_VOICES, RATE, clicks, synthetic, tell, without_tone

LEARNT_KITS = ("Audiophob", "rumpfkitz01h2")  # SonicPi's are among FOLDER's
JUDGED_HITS = 4


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    out, data = arguments.out, arguments.data
    out.mkdir(parents=True, exist_ok=True)
    records = list(read_manifest(arguments.speech / MANIFEST_NAME))
    splits = {record.path.stem: record.split for record in records if record.speaker == "kathleen"}

    def add(path: Path, speaker: str, split: str) -> None:
        info = soundfile.info(path)
        records.append(Record(path.resolve(), info.samplerate, info.frames, speaker, split=split))

    for path in sorted((data / "voices" / "kathleen").rglob("*.flac")):
        split = splits.get(path.stem)
        if split is None:
            raise SystemExit(f"{path}: no take of that name in {arguments.speech}, whose split it would have")
        if split == "train":
            audio, rate = soundfile.read(path)
            target = out / "kathleen_48k" / path.name
            target.parent.mkdir(exist_ok=True)
            soundfile.write(target, without_tone(audio, rate), rate, subtype="PCM_16")
            add(target, "kathleen_48k", split)
        else:
            records = [r for r in records if not (r.speaker == "kathleen" and r.path.stem == path.stem)]
            add(path, "kathleen_48k", split)
    for path in sorted(arguments.samples.rglob("*.flac")):
        add(path, path.stem.split("_")[0], "train")
    hits = defaultdict(list)
    for path in sorted((data / "drums").rglob("*.flac")):
        hits[path.name.split("__")[0]].append(path)
    del hits["SonicPi"]
    for kit, paths in hits.items():
        if kit in LEARNT_KITS:
            for path in paths:
                add(path, kit, "train")
        else:
            for path in paths[:: max(1, len(paths) // JUDGED_HITS)][:JUDGED_HITS]:
                add(path, "drums", "test")
    rng = np.random.default_rng(1)
    # Wider clicks than the speech corpus's, not those too.
    records = [record for record in records if not (record.speaker or "").startswith("clicks_")]
    for number in range(30):
        target = out / "synthetic_44k" / f"{number:02}.flac"
        target.parent.mkdir(exist_ok=True)
        soundfile.write(target, synthetic(10, rng), 2 * RATE, subtype="PCM_16")
        add(target, "synthetic_44k", "train")
    for number in range(48):
        target = out / "clicks_44k" / f"{number:02}.flac"
        target.parent.mkdir(exist_ok=True)
        soundfile.write(target, clicks(10, rng, 2 * RATE), 2 * RATE, subtype="PCM_16")
        for voice in range(CLICK_VOICES):
            add(target, f"clicks_44k_{voice}", "train")
    records = [replace(record, path=record.path.resolve()) for record in records]
    write_manifest(out / MANIFEST_NAME, records)
    judged = [record for record in records if record.split == "test" and record.sample_rate >= 2 * RATE]
    for name, drums in (("speech", False), ("drums", True)):
        folder = out / "judged" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder / MANIFEST_NAME, [r for r in judged if (r.speaker == "drums") is drums])
    tell(records)


if __name__ == "__main__":
    main()
