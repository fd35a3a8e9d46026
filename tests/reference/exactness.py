"""How far a vocoder's stream, a frame at a time, lies from the whole utterance, on every pair of backends.

    python -m tests.reference.exactness [MODEL]  # minutes; `default` where none is named

A second of noise for each of 150 seeds, and the speech in samples/. The largest difference in each second, of full
scale 1: the median one and the largest.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import gansound
from gansound.audio import read, resample
from gansound.inference.backends import BACKENDS, missing

SECONDS = 150
SAMPLES = Path(__file__).parents[2] / "samples"
RECORDINGS = sorted([*SAMPLES.glob("*.flac"), *SAMPLES.glob("kathleen/*.flac")])


def streamed(vocoder: gansound.Vocoder, mel: np.ndarray) -> np.ndarray:
    with vocoder.stream() as stream:
        frames = [stream.push(mel[:, i : i + 1]) for i in range(mel.shape[1])]
        return np.concatenate([*frames, stream.flush()])


def noise(seed: int, samples: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) / 10


if __name__ == "__main__":
    model = sys.argv[1] if len(sys.argv) > 1 else "default"
    vocoders = {
        backend: gansound.Vocoder.from_pretrained(model, backend=backend)
        for backend in BACKENDS
        if backend != "compile" and not missing(backend)
    }
    spec = next(iter(vocoders.values())).mel_spec
    rate = spec.sample_rate
    sounds = {"noise": [noise(seed, rate) for seed in range(SECONDS)], "speech": []}
    for path in RECORDINGS:
        samples, given = read(path)
        sounds["speech"] += torch.from_numpy(resample(samples, given, rate)).split(rate)[:-1]
    for kind, pieces in sounds.items():
        apart: dict[tuple[str, str], list[float]] = {}
        for piece in tqdm(pieces, desc=kind):
            mel = spec.mel(piece[None])[0].numpy()
            streams = {name: streamed(vocoder, mel) for name, vocoder in vocoders.items()}
            wholes = {name: vocoder(mel)[0].numpy() for name, vocoder in vocoders.items()}
            for pair in itertools.product(vocoders, vocoders):
                apart.setdefault(pair, []).append(np.abs(streams[pair[0]] - wholes[pair[1]]).max())
        for (stream, whole), found in apart.items():
            print(
                f"{kind}, {len(found)} s: {stream} stream, {whole} whole: median {np.median(found):.1e}, "
                f"largest {max(found):.1e}"
            )
