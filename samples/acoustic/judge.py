"""What vocoders make of the acoustic model's mels of held-out sentences, beside the recordings and Griffin-Lim.

    pip install 'gansound[eval]'
    python judge.py ru/usr/share/festival/voices/russian/msu_ru_nsh_clunits --vocoders default runs/ru/best -o sounds/

With the recordings' durations and pitches: DNSMOS P.808, and how far the sound's mel lies from the recording's and from
the mel that it was made of. With the model's own: P.808 alone, since those run at another pace.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from corpus import SPEC, Utterance, utterances
from net import Acoustic
from torch import Tensor

import gansound
from gansound.audio import Writer
from gansound.metrics.griffin_lim import griffin_lim
from gansound.metrics.judge import judge


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("voice", type=Path, help="the unpacked package's folder msu_ru_nsh_clunits")
    parser.add_argument(
        "--weights", type=Path, default=Path(__file__).with_name("ru.safetensors"), help="of learn.py"
    )
    parser.add_argument("--vocoders", nargs="+", default=["default"], help="names or model folders")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write the sounds, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Acoustic.load(args.weights)
    systems = {name: gansound.Vocoder.from_pretrained(name, "cpu", backend="eager") for name in args.vocoders}
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in utterances(args.voice):
        if not one.held_out:
            continue
        for name, sound, mel in sounds(model, systems, one):
            figures[name, "P.808"].append(opinion(sound))
            if mel is not None:
                figures[name, "from the recording's mel"].append(apart(sound, one.mel))
                figures[name, "from the mel given"].append(apart(sound, mel))
            if args.output:
                args.output.mkdir(parents=True, exist_ok=True)
                file = args.output / f"{one.path.stem}_{name.replace('/', '_')}.flac"
                with Writer(str(file), SPEC.sample_rate) as writer:
                    writer.append(sound)
    for (name, figure), found in figures.items():
        print(f"{name}: {figure} {statistics.mean(found):.3f} ({len(found)} sentences)")


def sounds(model: Acoustic, systems: dict[str, gansound.Vocoder], one: Utterance):
    """Names, sounds `(T,)`, and the mel that each was made of, where it runs in step with the recording."""
    (taught,) = model.mels(one.phones, frames=one.frames, pitch=one.pitch)
    (own,) = model.mels(one.phones)
    for name, vocoder in systems.items():
        yield f"recording, {name}", vocoder(one.mel[None])[0].numpy(), one.mel
        yield f"taught, {name}", vocoder(taught[None])[0].numpy(), taught
        yield f"own, {name}", vocoder(own[None])[0].numpy(), None
    yield "taught, Griffin-Lim", griffin_lim(taught.numpy(), SPEC), taught
    yield "own, Griffin-Lim", griffin_lim(own.numpy(), SPEC), None
    yield "recording", one.sound.numpy(), None


def opinion(sound: np.ndarray) -> float:
    """DNSMOS P.808."""
    found = judge(sound, {}, SPEC.sample_rate, measures=["dnsmos"]).figures["ground truth"]["dnsmos_p808"]
    assert found is not None
    return found


def apart(sound: np.ndarray, mel: Tensor) -> float:
    """Mean distance of a sound's mel from another, in natural logarithms."""
    made = SPEC.mel(torch.from_numpy(np.asarray(sound, np.float32))[None])[0]
    frames = min(made.shape[1], mel.shape[1])
    return float((made[:, :frames] - mel[:, :frames]).abs().mean())


if __name__ == "__main__":
    main()
