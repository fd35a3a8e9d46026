"""The corpus of a causal twin: the recordings, and what the vocoder that looks ahead makes of those to learn from.

    gansound vocode speech/ -o copies/ --model default
    python -m tests.reference.taught_corpus OUT --speech speech/ --copies copies/

What a mel doesn't tell, such as where in a period it starts, a recording decides by chance and the copy by rule: half
of the segments ask for nothing that can't be learnt.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from gansound.audio import probe
from gansound.data.manifest import MANIFEST_NAME, Record, read_manifest, write_manifest


def taught(records: list[Record], speech: Path, copies: Path) -> list[Record]:
    """All but split `test`, each of split `train` followed by its copy.

    Raises:
        ValueError: a copy isn't there.
    """
    rows = []
    for record in records:
        if record.split == "test":
            continue
        rows.append(record)
        if record.split == "train":
            copy = (copies / record.path.relative_to(speech)).with_suffix(".wav")
            if not copy.exists():
                raise ValueError(f"{copy}: not there; gansound vocode {speech} -o {copies} makes it")
            found = probe(copy)
            rows.append(
                replace(record, path=copy, sample_rate=found.sample_rate, frames=found.frames, digest=None)
            )
    return rows


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--copies", type=Path, required=True)
    arguments = parser.parse_args()
    speech = arguments.speech.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = taught(read_manifest(speech / MANIFEST_NAME), speech, arguments.copies.resolve())
    write_manifest(arguments.out / MANIFEST_NAME, rows)


if __name__ == "__main__":
    main()
