"""A small network that names a user's own sounds, as a backbone: what WaveGAN's evaluation was measured with.

The paper (arXiv 1802.04208, section 5.1) trains its classifier on log-mels in 128 bands, four layers of convolution and
pooling, and takes its probabilities for the Inception score. This one has 64 bands, half the layers' width and one mean
over time, so that a few hundred sounds teach it in a minute; its points are the activations before the last layer.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.metrics.sets.backbone import LogMelBackbone, checked_clips
from gansound.metrics.sets.points import Points

CONFIG, WEIGHTS = "classifier.json", "classifier.safetensors"
FORMAT = 1
BANDS, DIM = 64, 128
_CHANNELS = 16, 32, 64
_BATCH = 64


class ClassifierError(ValueError):
    """A folder that holds no classifier, or can't become one."""


class LogMelNet(nn.Module):
    """Log-mels in, one number for each class out: three blocks of 3×3 convolution, each at half the bands and
    frames of the one before, mean and maximum over time, and a hidden layer.

    Args:
        classes: how many.

    Shape:
        `(B, 64, F)` → `(B, classes)`; F is any number of frames from 8 on.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 1
        for channels in _CHANNELS:
            stride = (
                1 if blocks else 2
            )  # the first layer is most of the time: it computes what a pool would keep
            blocks += [
                nn.Conv2d(before, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                *([nn.MaxPool2d(2)] if before > 1 else []),
            ]
            before = channels
        self.blocks = nn.Sequential(*blocks)
        self.hidden = nn.Linear(2 * before * BANDS // 2 ** len(_CHANNELS), DIM)
        self.classes = nn.Linear(DIM, classes)

    def embed(self, mels: Tensor) -> Tensor:
        """The hidden layer `(B, 128)`."""
        features = self.blocks(mels[:, None])
        pooled = torch.cat([features.mean(dim=3), features.amax(dim=3)], dim=1)
        return F.relu(self.hidden(pooled.flatten(1)))

    def forward(self, mels: Tensor) -> Tensor:
        """Logits."""
        return self.classes(F.dropout(self.embed(mels), 0.3, self.training))


class ClassifierBackbone:
    """A trained classifier as a backbone. `gansound classifier DIR -o FOLDER` makes one.

    Args:
        net: trained.
        labels: its classes, in the order of its outputs.
        sample_rate: of the clips, in Hz.
        clip_samples: length of the clips it was trained on.
        info: what it was trained on and how well it does, anything JSON holds.
    """

    name = "classifier"

    def __init__(
        self,
        net: LogMelNet,
        labels: Sequence[str],
        sample_rate: int,
        clip_samples: int,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.net = net.eval()
        self.labels = tuple(labels)
        self.sample_rate, self.clip_samples = sample_rate, clip_samples
        self.info = dict(info or {})
        self._spec = LogMelBackbone(sample_rate, BANDS).spec

    @property
    def hop_length(self) -> int:
        """Samples from one frame of its log-mels to the next."""
        return self._spec.hop_length

    def mels(self, clips: ArrayLike) -> Tensor:
        """Log-mels `(N, 64, F)` as the network takes them: those of `LogMelBackbone`, about zero."""
        sounds = checked_clips(clips)
        missing = max(0, 8 * self._spec.hop_length - sounds.shape[1])
        found = []
        for start in range(0, len(sounds), _BATCH):
            batch = np.pad(sounds[start : start + _BATCH], ((0, 0), (0, missing)))
            with torch.no_grad():
                found.append(self._spec.mel(torch.from_numpy(batch)) - 1.0)
        return torch.cat(found)

    def embed(self, clips: ArrayLike) -> Points:
        """`(N, T)` → `(N, 128)`."""
        return self._mapped(clips, self.net.embed)

    def probabilities(self, clips: ArrayLike) -> Points:
        """`(N, T)` → `(N, classes)`."""
        return self._mapped(clips, lambda mels: F.softmax(self.net(mels).double(), dim=1))

    def _mapped(self, clips: ArrayLike, function: Any) -> Points:
        found = []
        with torch.no_grad():
            for batch in self.mels(clips).split(_BATCH):
                found.append(function(batch).double().numpy())
        return np.concatenate(found)

    def save(self, folder: str | Path, beside_it: Mapping[str, bytes] | None = None) -> Path:
        """Write the classifier as a folder, beside and then renamed; one that is there is replaced.

        Args:
            folder: where.
            beside_it: further files by name, such as a picture.

        Raises:
            ClassifierError: something else is there.
        """
        folder = check_output(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.replaced")
        for path in (temporary, old):
            shutil.rmtree(path, ignore_errors=True)
        described = {
            "format": FORMAT,
            "labels": list(self.labels),
            "sample_rate": self.sample_rate,
            "clip_samples": self.clip_samples,
            "info": self.info,
        }
        try:
            temporary.mkdir()
            state = {name: tensor.contiguous() for name, tensor in self.net.state_dict().items()}
            safetensors.torch.save_file(state, temporary / WEIGHTS)
            text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False)
            (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
            for name, data in (beside_it or {}).items():
                (temporary / name).write_bytes(data)
            if folder.exists():
                folder.rename(old)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "ClassifierBackbone":
        """The classifier of a folder.

        Raises:
            ClassifierError: there is none, or its files don't fit together.
        """
        folder = Path(folder).expanduser()
        if not _is_classifier(folder):
            raise ClassifierError(
                f"{folder}: no classifier is there ({CONFIG} and {WEIGHTS}). Make one: gansound classifier DIR -o "
                f"{folder}"
            )
        try:
            found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            labels, rate, samples = found["labels"], found["sample_rate"], found["clip_samples"]
            if found["format"] != FORMAT or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"format {found['format']!r}, expected {FORMAT}")
            net = LogMelNet(len(labels))
            net.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
            return cls(net, labels, int(rate), int(samples), found.get("info"))
        except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
            raise ClassifierError(
                f"{folder}: can't be read as a classifier: {error}. Train it again"
            ) from error


def check_output(folder: str | Path) -> Path:
    """A folder that a classifier may be written to, absolute.

    Raises:
        ClassifierError: something else is there.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not _is_classifier(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ClassifierError(f"{folder}: something that isn't a classifier is there. Choose another folder")
    return folder


def _is_classifier(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
