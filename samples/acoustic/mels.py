"""The acoustic model's mels of its own corpus, with the recordings' durations and pitches, to fine-tune a vocoder on.

    python mels.py ru/usr/share/festival/voices/russian/msu_ru_nsh_clunits -o pairs/
    gansound train finetune_cpu --init-from default --data.path pairs/manifest.jsonl --data.mels manifest --run runs/ru

Split `test` are the sentences that neither this model nor `default` has learnt from.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
from corpus import utterances
from net import Acoustic

from gansound.data.manifest import MANIFEST_NAME, Record, write_manifest


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("voice", type=Path, help="the unpacked package's folder msu_ru_nsh_clunits")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--weights", type=Path, default=Path(__file__).with_name("ru.safetensors"), help="of learn.py"
    )
    args = parser.parse_args()
    model = Acoustic.load(args.weights)
    args.output.mkdir(parents=True, exist_ok=True)
    records = []
    for number, one in enumerate(utterances(args.voice)):
        (mel,) = model.mels(one.phones, frames=one.frames, pitch=one.pitch, seed=number)
        file = args.output.resolve() / f"{one.path.stem}.npy"
        np.save(file, mel.numpy())
        split = "test" if one.held_out else "valid" if number % 50 == 24 else "train"
        info = soundfile.info(one.path)
        records.append(
            Record(one.path.resolve(), info.samplerate, info.frames, "ru_nsh", split=split, mel=file)
        )
    write_manifest(args.output / MANIFEST_NAME, records)


if __name__ == "__main__":
    main()
