"""Train the classifier that judges sets: `gansound classifier`, and whoever wants one in Python.

What a hundred sounds a class don't say is made up for by showing each another way every time: shifted by up to 30 ms,
a gain of ±6 dB, and a band of frequency and of time blanked out (SpecAugment, arXiv 1904.08779, its masks alone).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from gansound.counts import counted
from gansound.draw import draw
from gansound.metrics.sets.backbone import UNIT_DB
from gansound.metrics.sets.classifier import BANDS, ClassifierBackbone, LogMelNet

log = logging.getLogger(__name__)

_BATCH = 32
_SHIFT_SECONDS, _GAIN_DB = 0.03, 6.0
_LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Trained:
    """A classifier and how well it names sounds that it hasn't seen.

    Attributes:
        backbone: the classifier.
        confusion: held-out sounds `(class, named as)`.
    """

    backbone: ClassifierBackbone
    confusion: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of held-out sounds that are named right."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes that have held-out sounds."""
        counts = self.confusion.sum(axis=1)
        return float((self.confusion.diagonal()[counts > 0] / counts[counts > 0]).mean())


def train_classifier(
    clips: ArrayLike,
    classes: Sequence[int],
    held_out: ArrayLike,
    held_out_classes: Sequence[int],
    labels: Sequence[str],
    sample_rate: int,
    *,
    steps: int = 800,
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Learn to name clips `(N, T)` of known classes, and try it on held-out ones.

    Every class is drawn as often as any other. The same arguments give the same weights on one thread.

    Raises:
        ValueError: fewer than 2 classes, one without a clip, or classes that aren't numbers of labels.
    """
    targets, tested = np.asarray(classes, dtype=np.int64), np.asarray(held_out_classes, dtype=np.int64)
    counts = np.bincount(targets, minlength=len(labels))
    if len(labels) < 2 or len(counts) > len(labels) or (len(tested) and tested.max() >= len(labels)):
        raise ValueError(
            f"expected classes 0 to {len(labels) - 1} of 2 labels or more, got {counted(len(labels), 'label')} and "
            f"classes up to {max(targets.max(initial=0), tested.max(initial=0))}"
        )
    if not counts.all():
        raise ValueError(
            f"no sound to learn {labels[int(counts.argmin())]!r} from: all of them are held out, or it has none"
        )
    if not len(tested):
        raise ValueError("no sound is held out to try the classifier on. Add sounds")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LogMelNet(len(labels))
        backbone = ClassifierBackbone(net, labels, sample_rate, int(np.shape(clips)[-1]))
        mels = backbone.mels(clips)
        _learn(backbone, mels, targets, counts, steps, seed, on_progress)
    named = backbone.probabilities(held_out).argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (tested, named), 1)
    return Trained(backbone, confusion)


def _learn(
    backbone: ClassifierBackbone,
    mels: Tensor,
    targets: NDArray[np.int64],
    counts: NDArray[np.int64],
    steps: int,
    seed: int,
    on_progress: Callable[[int, float], None] | None,
) -> None:
    net = backbone.net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    shares = 1.0 / counts[targets] / len(counts)
    frames_shift = max(1, round(_SHIFT_SECONDS * backbone.sample_rate / backbone.hop_length))
    for step in range(steps):
        rng = draw(seed, step, "classifier")
        chosen = rng.choice(len(targets), _BATCH, p=shares)
        batch = torch.stack([_varied(mels[i], rng, frames_shift) for i in chosen])
        loss = F.cross_entropy(net(batch), torch.from_numpy(targets[chosen]), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_progress is not None:
            on_progress(step + 1, float(loss.detach()))
    net.eval()


def _varied(mel: Tensor, rng: np.random.Generator, frames_shift: int) -> Tensor:
    """A log-mel `(64, F)` shifted later (silence before it), louder or softer, with two stripes blanked out."""
    shift = int(rng.integers(frames_shift + 1))
    silence = -1.0
    moved = F.pad(mel, (shift, 0), value=silence)[:, : mel.shape[1]]
    # A gain raises what is above the floor; what is on it stays there, as in a real recording of another level.
    louder = torch.where(moved > silence, moved + float(rng.uniform(-_GAIN_DB, _GAIN_DB)) / UNIT_DB, moved)
    varied = louder.clamp_min(silence)
    for axis, widest in ((0, BANDS // 8), (1, mel.shape[1] // 8)):
        width = int(rng.integers(widest + 1))
        start = int(rng.integers(mel.shape[axis] - width + 1))
        varied.narrow(axis, start, width).fill_(silence)
    return varied
