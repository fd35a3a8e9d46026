"""`ClipGenerator`: a trained generator of clips, ready to draw sounds from it."""

import difflib
import hashlib
import logging
import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansound.audio import fade
from gansound.counts import counted, some_of
from gansound.draw import Draws
from gansound.generators.latent import LatentGenerator
from gansound.inference.clip_form import clip_form, mixed
from gansound.inference.device import choose_device
from gansound.inference.forks import check_process
from gansound.model_folder import LoadedModel, load_model_folder

log = logging.getLogger(__name__)

FADE_IN_MS, FADE_OUT_MS = 1.0, 10.0
NO_LABELS = "this model has no labels: it was trained without them. Leave them out"
_BLOCK = {"cpu": 16}  # clips computed at once, whatever is asked for; what fills a CPU's caches
_BLOCK_ELSEWHERE = 64

Labels = str | Sequence[str] | Tensor | NDArray[Any] | None


@dataclass(frozen=True)
class Rendered:
    """Clips `(n, C, T)` float32, and the peak `(n,)` each had before it was turned down to full scale."""

    audio: NDArray[np.float32]
    peaks: NDArray[np.float32]


class ClipGenerator:
    """Latents to clips.

    A clip is a function of its latent and label alone: however many are asked for at once, each is computed in a block
    of one size, so the same seed and index give the same samples, bit for bit, on one machine and device.

    Args:
        model: what `gansound.model_folder.load_model_folder` gives.
        device: where it runs; CUDA where there is one, else the CPU.
        fade_in_ms: raised cosine at the start of each clip; its first sample is 0 whatever this is.
        fade_out_ms: the same at its end.

    Raises:
        ValueError: the model is a vocoder, there is no such device here, or the fades don't fit into a clip.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str | torch.device | None = None,
        *,
        fade_in_ms: float = FADE_IN_MS,
        fade_out_ms: float = FADE_OUT_MS,
    ) -> None:
        if not isinstance(model.generator, LatentGenerator):
            raise ValueError(
                f"{model.path}: is a vocoder ({type(model.generator).__name__}), expected a generator of clips. "
                f"Its sounds are made from mels by: gansound vocode --model {shlex.quote(str(model.path))}"
            )
        self.device = choose_device(device)
        self._original = model.generator
        self.generator = clip_form(model.generator).to(self.device)
        self.info: dict[str, Any] = dict(model.info)
        self.path = model.path
        of_a_run = model.path.name in ("model", "best")
        self.name = model.path.parent.name if of_a_run else model.path.name
        self.fade_in_ms, self.fade_out_ms = fade_in_ms, fade_out_ms
        self._block = _BLOCK.get(self.device.type, _BLOCK_ELSEWHERE)
        self._envelope = torch.from_numpy(self._fades()).to(self.device)

    def __repr__(self) -> str:
        labels = f"; labels {', '.join(self.labels)}" if self.labels else ""
        return f"<ClipGenerator {self.path}: {self.sample_rate} Hz{labels}; on {self.device}>"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        device: str | torch.device | None = None,
        *,
        allow: Sequence[str] = (),
        fade_in_ms: float = FADE_IN_MS,
        fade_out_ms: float = FADE_OUT_MS,
    ) -> Self:
        """A shipped model by name, a model folder, or a Hugging Face repository id.

        Args:
            name_or_path: such as `runs/drums/model`.
            device: such as `cpu` or `cuda:1`.
            allow: packages besides gansound whose generator classes the folder may name.
            fade_in_ms: see the class.
            fade_out_ms: see the class.

        Raises:
            ModelFolderError: (a ValueError) not found, not readable, or it names a class that is refused.
            ValueError: see the class.
        """
        device = choose_device(device)  # before the time that loading takes
        model = load_model_folder(os.fspath(name_or_path), allow=allow)
        clips = cls(model, device, fade_in_ms=fade_in_ms, fade_out_ms=fade_out_ms)
        if not Path(name_or_path).is_dir():  # a name's or a repository's folder is called otherwise
            clips.name = Path(name_or_path).name
        return clips

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; () when the model has none."""
        return tuple(self.generator.labels)

    @property
    def sample_rate(self) -> int:
        """Of the clips, in Hz."""
        return self.generator.sample_rate

    @property
    def channels(self) -> int:
        """Of the clips."""
        return self.generator.channels

    @property
    def clip_samples(self) -> int:
        """Length of each clip."""
        return self.generator.clip_samples

    @property
    def latent_dim(self) -> int:
        """Values of a latent."""
        return self.generator.prior.dim

    @cached_property
    def weights_hash(self) -> str:
        """16 hexadecimal digits that stand for the weights: another training gives another sound for a seed."""
        digest = hashlib.blake2b(digest_size=8)
        for name, tensor in self._original.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def generate(
        self,
        n: int,
        seed: int = 0,
        truncation: float = 1.0,
        label: str | Sequence[str] | None = None,
        *,
        first: int = 0,
    ) -> NDArray[np.float32]:
        """New sounds, at a peak of at most full scale, starting and ending at zero.

        Args:
            n: how many.
            seed: clip i of a seed is the same whatever else is asked for.
            truncation: 1 draws from all the model knows; less is less varied.
            label: a name, or several that take turns; None lets all the model has take turns.
            first: index of the first clip.

        Returns:
            `(n, channels, clip_samples)` float32.

        Raises:
            ValueError: n below 1, a truncation outside (0, 1], a label that isn't there, or a net that gives NaN.
        """
        latents = self.latents(n, seed, first=first, truncation=truncation)
        rendered = self.render(latents, self.turns(label, n, first=first))
        if note := turned_down(rendered.peaks):
            log.warning("%s", note)
        return rendered.audio

    def latents(self, n: int, seed: int = 0, *, first: int = 0, truncation: float = 1.0) -> Tensor:
        """Latents of the clips `first` to `first + n − 1` of a seed: `(n, latent_dim)` float32 on the CPU.

        Raises:
            ValueError: n below 1, first below 0, clips beyond 2**64, or a truncation outside (0, 1].
        """
        _check_whole(n=n, seed=seed, first=first)
        if n < 1 or not 0 <= first <= 2**64 - n:
            raise ValueError(
                f"expected n of 1 or more and first of 0 or more, together at most 2**64, got n {n}, first {first}"
            )
        if not isinstance(truncation, Real):
            raise ValueError(f"truncation must be a number above 0 and at most 1, got {truncation!r}")
        prior = self.generator.prior
        drawn = Draws(seed, range(first, first + n)).each("latent", prior.sample)
        return prior.truncated(drawn, truncation)

    def turns(self, label: str | Sequence[str] | None, n: int, *, first: int = 0) -> Tensor | None:
        """Labels of the clips `first` to `first + n − 1` when some take turns, `(n,)` int64; None without labels.

        Raises:
            ValueError: a label that isn't there, or any where the model has none.
        """
        if not isinstance(label, Iterable | None):
            raise ValueError(f"label {label!r}: expected a name, or several that take turns")
        _check_whole(n=n, first=first)
        names = [label] if isinstance(label, str) else list(self.labels if label is None else label)
        if not names and not self.labels:
            return None
        if not names:
            raise ValueError(f"label is an empty list, expected some of {', '.join(self.labels)}")
        numbers = torch.tensor([self.label_number(name) for name in names])
        return numbers[[index % len(names) for index in range(first, first + n)]]

    def label_number(self, name: str) -> int:
        """The number of a label. Raises ValueError when it isn't there; it says which are."""
        if not self.labels:
            raise ValueError(f"label {name!r}: {NO_LABELS}")
        if not isinstance(name, str):
            raise ValueError(f"label {name!r}: expected a name, one of {', '.join(self.labels)}")
        # An accent may be a character of its own, as a Mac writes it in a folder's name.
        composed = [unicodedata.normalize("NFC", label) for label in self.labels]
        if (wanted := unicodedata.normalize("NFC", name)) not in composed:
            near = difflib.get_close_matches(name.lower(), [label.lower() for label in self.labels], n=1)
            guess = next((f"; did you mean {one!r}?" for one in self.labels if one.lower() in near), "")
            raise ValueError(f"label {name!r}: the model has {', '.join(self.labels)}{guess}")
        return composed.index(wanted)

    def synthesize(self, latents: Tensor | NDArray[Any], labels: Labels = None) -> NDArray[np.float32]:
        """Clips of these latents, finished as `generate` finishes them.

        Args:
            latents: `(n, latent_dim)`.
            labels: of a model with labels: a name for all, a name or number for each, or mixtures `(n, classes)`,
                shares of 0 or more that sum to 1.

        Returns:
            `(n, channels, clip_samples)` float32.

        Raises:
            ValueError: shapes or labels that don't fit the model, or a net that gives NaN.
        """
        rendered = self.render(latents, labels)
        if note := turned_down(rendered.peaks):
            log.warning("%s", note)
        return rendered.audio

    def render(self, latents: Tensor | NDArray[Any], labels: Labels = None) -> Rendered:
        """As `synthesize`, with the peaks, and without a word about them."""
        check_process()
        z = self._checked(latents)
        y = self.numbered(labels, len(z))
        audio = np.empty((len(z), self.channels, self.clip_samples), np.float32)
        peaks = np.empty(len(z), np.float32)
        for start in range(0, len(z), self._block):
            part = slice(start, start + self._block)
            with torch.inference_mode():
                sound = self.waveforms(self._padded(z[part]), None if y is None else self._padded(y[part]))
                sound = sound[: len(z[part])].float()
                peak = sound.abs().amax((1, 2))
                sound = sound / peak.clamp_min(1.0)[:, None, None]
            audio[part], peaks[part] = sound.cpu().numpy(), peak.cpu().numpy()
            if not np.isfinite(peaks[part]).all():
                bad = start + int(np.argmin(np.isfinite(peaks[part])))
                raise ValueError(
                    f"clip {bad} holds NaN or infinite samples. Did the model's training diverge?"
                )
        return Rendered(audio, peaks)

    def waveforms(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the net makes of latents, faded; differentiable in latents and mixtures, and not brought below ±1.

        Shape:
            latents `(B, latent_dim)`, labels `(B,)` int64 or mixtures `(B, classes)` → `(B, C, T)` on the device.
        """
        mixture = None
        if labels is not None and labels.is_floating_point():
            mixture, labels = labels.to(self.device), labels.argmax(1)
        with mixed(self.generator, mixture):
            sound = self.generator(
                latents.to(self.device), None if labels is None else labels.to(self.device)
            )
        return sound * self._envelope

    def numbered(self, labels: Labels, n: int) -> Tensor | None:
        """Labels in any form as numbers `(n,)` int64 or mixtures `(n, classes)` float32; None without labels.

        Raises:
            ValueError: labels that aren't there, not one for each of n, or mixtures that aren't shares of a whole.
        """
        if not isinstance(labels, Iterable | None):
            raise ValueError(f"labels {labels!r}: expected a name, or one for each latent")
        if labels is None:
            if self.labels:
                raise ValueError(
                    f"expected a label for each latent, got none; the model has {', '.join(self.labels)}"
                )
            return None
        if isinstance(labels, str):
            return torch.full((n,), self.label_number(labels))
        if not isinstance(labels, Tensor | np.ndarray) and any(isinstance(one, str | None) for one in labels):
            found = torch.tensor([self.label_number(name) for name in labels])
        else:
            found = torch.as_tensor(labels)
            if not self.labels:
                raise ValueError(NO_LABELS)
        whole = not found.is_floating_point()
        if found.shape != ((n,) if whole else (n, len(self.labels))):
            raise ValueError(
                f"expected {counted(n, 'label')}, or mixtures of shape ({n}, {len(self.labels)}), got shape "
                f"{tuple(found.shape)}"
            )
        if whole and not bool(((found >= 0) & (found < len(self.labels))).all()):
            raise ValueError(f"labels count from 0 to {len(self.labels) - 1}, got {found.tolist()}")
        if whole:
            return found.long()
        # Written so that NaN is refused too; a share may be rounded.
        fits = (found >= 0).all(1) & ((found.sum(1) - 1).abs() < 1e-3)
        if not bool(fits.all()):
            bad = int(fits.int().argmin())
            raise ValueError(
                f"mixture {bad}: expected the share of each label, 0 or more and together 1, got {found[bad].tolist()}"
            )
        plain = bool((found.amax(1) == 1).all()) and bool((found.abs().sum(1) == 1).all())
        return found.argmax(1) if plain else found.float()

    def _checked(self, latents: Tensor | NDArray[Any]) -> Tensor:
        z = torch.as_tensor(latents)
        if z.dim() != 2 or z.shape[1] != self.latent_dim or len(z) < 1:
            raise ValueError(
                f"expected latents of shape (n, {self.latent_dim}), n >= 1, got {tuple(z.shape)}"
            )
        z = z.detach().float()
        if not bool(torch.isfinite(z).all()):
            raise ValueError("the latents hold NaN or infinity")
        return z

    def _padded(self, rows: Tensor) -> Tensor:
        missing = self._block - len(rows)
        return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows

    def _fades(self) -> NDArray[np.float32]:
        lengths = []
        for name, milliseconds in (("fade_in_ms", self.fade_in_ms), ("fade_out_ms", self.fade_out_ms)):
            longest = 1000 * self.clip_samples / self.sample_rate
            if not 0 <= milliseconds <= longest:
                raise ValueError(
                    f"{name} must be 0 to {longest:.0f}, the length of a clip, got {milliseconds}"
                )
            lengths.append(min(round(milliseconds / 1000 * self.sample_rate), self.clip_samples))
        return fade(np.ones(self.clip_samples, np.float32), *lengths)


def _check_whole(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number, got {value!r}")


def turned_down(peaks: NDArray[np.float32]) -> str:
    """What to say of clips whose peaks were above full scale; "" when none was."""
    loud = peaks[peaks > 1]
    if not loud.size:
        return ""
    return (
        f"{some_of(loud.size, peaks.size, 'clip')} peaked above full scale, by up to {20 * np.log10(loud.max()):.1f} "
        "dB; turned down to it"
    )
