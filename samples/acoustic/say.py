"""Say a Russian text: phones by festival, mels by the acoustic model in chunks, sound by `default`, as it comes.

    apt-get install festival festvox-ru && pip install gansound
    python say.py "Доброе утро. Сегодня хорошая погода." -o morning.wav
    python say.py "Доброе утро." | aplay -f S16_LE -r 22050 -c 1

`--vocoder` takes any vocoder of the same mels, such as `default` fine-tuned on this model's (see README.md).
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from net import PHONES, Acoustic

import gansound
from gansound.audio import Writer

WEIGHTS = Path(__file__).with_name("ru.safetensors")
CHUNK_FRAMES = 16
# All of festival's voice but its durations, its melody and its sound.
MODULES = "Initialize Text Token_POS Token POS Phrasify Word Pauses PostLex"


def phones_of(text: str) -> list[list[int]]:
    """The phones of each sentence, as festival's voice msu_ru_nsh_clunits has them; a + stands before a stressed vowel.

    Raises:
        ValueError: festival or that voice isn't there, or says nothing of the text.
    """
    script = ["(voice_msu_ru_nsh_clunits)"]
    for sentence in re.findall(r"[^.!?…]*\w[^.!?…]*[.!?…]*", text):
        quoted = sentence.replace("\\", " ").replace('"', " ")
        script.append(f'(set! said (Utterance Text "{quoted}"))')
        script.extend(f"({module} said)" for module in MODULES.split())
        script.append('(format t "%l\\n" (mapcar item.name (utt.relation.items said \'Segment)))')
    try:
        done = subprocess.run(
            ["festival", "--pipe"], input="\n".join(script), capture_output=True, text=True, encoding="utf-8"
        )
    except FileNotFoundError:
        raise ValueError(
            "needs festival and its Russian voice: apt-get install festival festvox-ru"
        ) from None
    if "unbound variable: voice_msu_ru_nsh_clunits" in done.stderr:
        raise ValueError("festival lacks its Russian voice: apt-get install festvox-ru")
    sentences = [re.findall(r"\w+", line) for line in done.stdout.splitlines() if line.startswith("(")]
    if done.returncode != 0 or not sentences:
        raise ValueError(
            f"festival has no phones for {text!r}: {done.stderr.strip()[-200:] or 'no word in it'}"
        )
    return [[PHONES.index(phone) for phone in sentence] for sentence in sentences]


def spoken(
    model: Acoustic,
    stream: gansound.StreamingVocoder,
    sentences: Iterable[list[int]],
    slower: float,
    seed: int,
) -> Iterator[np.ndarray]:
    """The sound, each piece as soon as it is final; the stream asks for a chunk of mels when it has said the last."""
    yield from stream.iterate(
        mel.numpy()
        for phones in sentences
        for mel in model.mels(phones, CHUNK_FRAMES, slower=slower, seed=seed)
    )


def main() -> int:
    """The command line; 2 where it can't be done as said."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text")
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="of learn.py (default: those beside this file)"
    )
    parser.add_argument(
        "--vocoder", default="default", help="name, model folder or Hugging Face id (default: default)"
    )
    parser.add_argument("--backend", default="auto", help="that runs it")
    parser.add_argument("--slower", type=float, default=1.0, help="factor on all durations")
    parser.add_argument("--seed", type=int, default=0, help="of what can't be foretold")
    parser.add_argument("-o", "--output", metavar="FILE", help="an audio file (default: s16le on stdout)")
    args = parser.parse_args()
    if args.output is None and sys.stdout.isatty():
        parser.error("stdout is a terminal: pipe the sound into a player, or name a file with -o")
    if not args.weights.is_file():
        parser.error(f"{args.weights}: no such file")
    torch.set_num_threads(1)
    try:
        sentences = phones_of(args.text)
        vocoder = gansound.Vocoder.from_pretrained(args.vocoder, "cpu", backend=args.backend)
    except ValueError as error:
        parser.error(str(error))
    model, rate = Acoustic.load(args.weights), vocoder.sample_rate
    with ExitStack() as opened:
        writer = opened.enter_context(Writer(args.output, rate)) if args.output else None
        stream = opened.enter_context(vocoder.stream())
        started, heard, samples = time.perf_counter(), 0.0, 0
        for piece in spoken(model, stream, sentences, args.slower, args.seed):
            heard = heard or time.perf_counter() - started
            samples += len(piece)
            if writer:
                writer.append(piece)
            else:
                sys.stdout.buffer.write(np.rint(piece.clip(-1, 1) * 32767).astype("<i2").tobytes())
                sys.stdout.buffer.flush()
        took = time.perf_counter() - started
    sys.stderr.write(f"first sound after {heard:.2f} s; {samples / rate:.2f} s in {took:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
