"""A small vocoder to stream with, and what streaming is held against."""

import itertools

import numpy as np
import torch

from gansound.generators.melgan import MelGANGenerator
from gansound.inference.streaming import StreamingVocoder
from gansound.mel import MelSpec
from gansound.nn.fold import fold_parametrizations

BANDS, HOP = 8, 4
SPEC = MelSpec(sample_rate=8000, n_fft=64, hop_length=HOP, win_length=64, n_mels=BANDS, fmin=0.0, fmax=4000.0)
TOLERANCE = 1e-5


def small_generator() -> MelGANGenerator:
    """A small net with both kinds of padding, both kinds of convolution, and sound well above silence."""
    torch.manual_seed(0)
    net = MelGANGenerator(n_mels=BANDS, channels=16, upsample_rates=(2, 2), residual_dilations=(1, 3))
    net = fold_parametrizations(net.eval())
    for name, weight in net.requires_grad_(False).named_parameters():
        if name.endswith("weight"):
            weight.mul_(1.8)
    sound = net(torch.from_numpy(some_mel(400)[None]))
    assert 0.1 < float(sound.square().mean().sqrt()) < 0.95
    return net


def some_mel(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((BANDS, frames)).astype(np.float32)


def whole(generator: MelGANGenerator, mel: np.ndarray) -> np.ndarray:
    return generator(torch.from_numpy(mel)[None])[0].numpy()


def cuts(frames: int, seed: int, longest: int = 90) -> list[slice]:
    rng = np.random.default_rng(seed)
    edges = [0]
    while edges[-1] < frames:
        edges.append(min(frames, edges[-1] + int(rng.integers(1, rng.integers(2, longest)))))
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def streamed(stream: StreamingVocoder, mel: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.concatenate([*(stream.push(mel[:, cut]) for cut in cuts(mel.shape[1], seed)), stream.flush()])
