"""The corpus of one-shots at 44.1 kHz that a shipped generator of drums may learn from, and what it is judged by.

    python -m tests.reference.drum_corpus OUT --samples FOLDER [--data ../shared/data]

Learnt from: the drum kits under CC0 and CC-BY (SonicPi, Audiophob, rumpfkitz01h2), and of the package of Sonic Pi (CC0:
`npm pack supersonic-scsynth-samples`, unpacked into FOLDER) what the kit hasn't: most of the hats. Whole kits of others
are split `valid` and `test`; nothing is learnt from them. Claps are left out, being two. OUT/manifest.jsonl
names the files where they lie.
"""

import argparse
from pathlib import Path

import soundfile

from gansound.data.manifest import MANIFEST_NAME, Record, write_manifest

LEARNT_KITS = ("SonicPi", "Audiophob", "rumpfkitz01h2")
VALID_KITS = ("MilloDrumsv1", "TR808EmulationKit", "VariBreaks")
LABELS = ("cymbal", "hat", "kick", "perc", "snare", "tom")
OF_THE_PACKAGE = {
    "bd_": "kick", "hat_": "hat", "tbd_perc_hat": "hat", "ride_": "cymbal", "sn_": "snare", "glitch_perc": "perc",
    "tbd_perc_blip": "perc", "tbd_perc_tap": "perc",
}  # fmt: skip
HATS_BY_NAME = ("drum_cymbal_closed", "drum_cymbal_pedal")  # wherever the kit has them


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    records: list[Record] = []

    def add(path: Path, label: str, split: str) -> None:
        info = soundfile.info(path)
        records.append(Record(path.resolve(), info.samplerate, info.frames, label=label, split=split))

    known = set()
    for path in sorted((arguments.data / "drums").rglob("*.flac")):
        kit, _, name = path.stem.partition("__")
        label = "hat" if name in HATS_BY_NAME else path.parent.name
        if kit == "SonicPi":
            known.add(name)
        if label in LABELS:
            add(path, label, "train" if kit in LEARNT_KITS else "valid" if kit in VALID_KITS else "test")
    for path in sorted(arguments.samples.rglob("*.flac")):
        label = next((label for begin, label in OF_THE_PACKAGE.items() if path.stem.startswith(begin)), None)
        if label is not None and path.stem not in known:
            add(path, label, "train")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_manifest(arguments.out / MANIFEST_NAME, records)
    for split in ("train", "valid", "test"):
        counts = {label: sum(r.label == label and r.split == split for r in records) for label in LABELS}
        print(split, sum(counts.values()), counts)


if __name__ == "__main__":
    main()
