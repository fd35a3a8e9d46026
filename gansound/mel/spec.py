"""`MelSpec`: what a log-mel spectrogram is made of, checked, comparable and convertible."""

import dataclasses
import difflib
import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from gansound.counts import some_of
from gansound.mel import filters
from gansound.mel.conversion import LN_PER_UNIT, conversion
from gansound.mel.frames import from_outside
from gansound.mel.presets import PRESETS

JUDGED_FRAMES = 4096  # of a mel; judging takes ten times their memory
LEAST_VALUE = -1e4  # of a mel in any unit
LOUDEST_LN = 25.0
"""Of magnitude, natural log: full scale comes to 9, 16-bit samples as they are to 18; little more overflows in nets."""
Framing = Literal["same", "center"]
Padding = Literal["reflect", "zero"]
Window = Literal["hann", "hann_symmetric"]
MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney", "none"]
Log = Literal["ln", "log10", "db"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "framing": get_args(Framing),
    "padding": get_args(Padding),
    "window": get_args(Window),
    "mel_scale": get_args(MelScale),
    "mel_norm": get_args(MelNorm),
    "log": get_args(Log),
}
# Beyond what anyone hears or trains with: a file that says more would only fill the memory.
_MOST = {"sample_rate": 1_000_000, "n_fft": 32768, "hop_length": 32768, "win_length": 32768, "n_mels": 1024}


@dataclass(frozen=True)
class MelSpec:
    """One way of turning audio into a log-mel spectrogram.

    value = clip((log(max(filter_bank @ sqrt(|STFT|² + magnitude_eps), floor)) − mean) / scale)

    Args:
        sample_rate: Hz.
        n_fft, hop_length, win_length: samples; the window is centred in the n_fft samples.
        n_mels: bands M.
        fmin, fmax: Hz, the outer edges of the filter bank.
        framing: `same` pads (n_fft − hop) / 2 at both ends: F = T // hop, frame i is centred on the middle
            of hop i. `center` pads n_fft / 2: F = 1 + T // hop, frame i is centred on sample i · hop.
        padding: `reflect` mirrors without repeating the edge (again and again where T is short), or `zero`.
        window: periodic Hann, or the symmetric one (NeMo).
        mel_scale, mel_norm: `slaney` or `htk`; triangles of unit area, or of height one (`none`).
        magnitude_eps: added to the power of each bin, before the square root.
        log: `ln`, `log10`, or `db` (20 log10).
        floor: the least linear mel magnitude, applied before the logarithm.
        mean, scale: subtracted from and dividing the logarithm; one number, or one for each band.
        clip: least and greatest value, applied last.

    Raises:
        ValueError: when a field is out of its range or contradicts another; it names both.
    """

    kind: ClassVar[Literal["mel"]] = "mel"

    sample_rate: int
    n_fft: int
    hop_length: int
    win_length: int
    n_mels: int
    fmin: float
    fmax: float
    framing: Framing = "same"
    padding: Padding = "reflect"
    window: Window = "hann"
    mel_scale: MelScale = "slaney"
    mel_norm: MelNorm = "slaney"
    magnitude_eps: float = 1e-9
    log: Log = "ln"
    floor: float = 1e-5
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels"):
            count = _whole(name, getattr(self, name))
            object.__setattr__(self, name, count)
            if count > (most := _MOST[name]):
                raise ValueError(f"mel {name}: got {count}, expected at most {most}")
        for name in ("fmin", "fmax", "magnitude_eps", "floor"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        for name in ("mean", "scale"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray | Tensor):
                if value.ndim > 1:
                    raise ValueError(
                        f"mel {name}: got shape {tuple(value.shape)}, expected a number, or one for each band"
                    )
                value = value.tolist()
            values = value if isinstance(value, tuple | list) else (value,)
            object.__setattr__(self, name, tuple(_finite(name, v) for v in values))
            if len(getattr(self, name)) not in (1, self.n_mels):
                raise ValueError(
                    f"mel {name}: got {len(values)} numbers, expected 1 or n_mels = {self.n_mels}"
                )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"mel {name}: got {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        if self.n_fft % 2:
            raise ValueError(f"mel n_fft: got {self.n_fft}, expected an even number")
        if self.win_length > self.n_fft:
            raise ValueError(f"mel win_length: got {self.win_length}, expected at most n_fft = {self.n_fft}")
        if self.hop_length > self.win_length:
            raise ValueError(
                f"mel hop_length: got {self.hop_length}, more than win_length = {self.win_length}: "
                "samples between two frames would be in neither"
            )
        if not 0 <= self.fmin < self.fmax:
            raise ValueError(
                f"mel fmin, fmax: got {self.fmin:g} and {self.fmax:g} Hz, expected 0 <= fmin < fmax"
            )
        if self.fmax > self.sample_rate / 2:
            raise ValueError(
                f"mel fmax: got {self.fmax:g} Hz, above half the sample rate "
                f"({self.sample_rate / 2:g} Hz); lower fmax or raise sample_rate"
            )
        apart = self.sample_rate / self.n_fft
        if (math.floor(self.fmin / apart) + 1) * apart >= self.fmax:
            raise ValueError(
                f"mel fmin, fmax: got {self.fmin:g} and {self.fmax:g} Hz, between which no bin of n_fft = {self.n_fft} "
                f"lies ({apart:.4g} Hz from one to the next), so that every mel would be the same; they are in Hz"
            )
        if self.n_mels > self.n_fft // 2 + 1:
            raise ValueError(
                f"mel n_mels: got {self.n_mels}, more than the {self.n_fft // 2 + 1} bins of "
                f"n_fft = {self.n_fft}"
            )
        if self.floor <= 0 or self.magnitude_eps < 0:
            raise ValueError(
                f"mel floor, magnitude_eps: got {self.floor:g} and {self.magnitude_eps:g}, "
                "expected floor > 0 and magnitude_eps >= 0"
            )
        if min(self.scale) <= 0:
            raise ValueError(f"mel scale: got {min(self.scale):g}, expected numbers above 0")
        if self.clip is not None:
            if len(self.clip) != 2 or not float(self.clip[0]) < float(self.clip[1]):
                raise ValueError(f"mel clip: got {self.clip!r}, expected (least, greatest)")
            object.__setattr__(self, "clip", (float(self.clip[0]), float(self.clip[1])))

    @classmethod
    def preset(cls, name: str) -> Self:
        """The convention of a known project; `presets()` lists the names."""
        if name not in PRESETS:
            near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
            meant = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise ValueError(f"mel preset {name!r} isn't known{meant}; known: {', '.join(PRESETS)}")
        return cls(**PRESETS[name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. An unknown or missing key is a ValueError that names it."""
        if not isinstance(values, Mapping):
            raise ValueError(
                f"mel: got {type(values).__name__}, expected a convention's fields, as to_dict gives them"
            )
        fields = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(fields)):
            raise ValueError(f"mel: unknown key {', '.join(unknown)}; known: {', '.join(fields)}")
        required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
        if missing := [n for n in required if n not in values]:
            raise ValueError(f"mel: missing key {', '.join(missing)}")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON can hold it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def filter_bank(self) -> Tensor:
        """The mel filters, (n_mels, n_fft // 2 + 1) float32, on the CPU."""
        return filters.filter_bank(
            self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax, self.mel_scale, self.mel_norm
        ).clone()

    def frames(self, samples: int) -> int:
        """Frames that `mel` makes of so many samples."""
        return samples // self.hop_length + (self.framing == "center")

    def samples(self, frames: int) -> int:
        """Samples that a generator makes of so many frames: frames · hop_length."""
        return frames * self.hop_length

    def mel(self, audio: Tensor | np.ndarray) -> Tensor:
        """The mel of audio, on the audio's device; differentiable.

        Shape: (B, T) or (T,), torch or numpy → (B, M, F) with F = `frames(T)`.
        """
        from gansound.mel.front_end import front_end  # it needs this class

        audio = _tensor(audio, "audio")
        return front_end(self, audio.device)(audio)

    def from_magnitude(self, magnitude: Tensor) -> Tensor:
        """Linear mel magnitude (…, M, F) → value: floor, logarithm, affine, clip."""
        magnitude = magnitude.clamp(min=self.floor)
        if self.log == "ln":
            value = magnitude.log()
        else:
            value = magnitude.log10() * (20.0 if self.log == "db" else 1.0)
        if self.mean != (0.0,) or self.scale != (1.0,):
            value = (value - self._column(self.mean, value)) / self._column(self.scale, value)
        return value if self.clip is None else value.clamp(*self.clip)

    def to_magnitude(self, mel: Tensor) -> Tensor:
        """Value (…, M, F) → linear mel magnitude. What the floor or the clip took stays lost."""
        return (self._log_value(mel) * LN_PER_UNIT[self.log]).exp()

    def differences(self, other: "MelSpec") -> list[str]:
        """One line for each field in which the other convention differs: name, this, the other."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return [f"{name}: {_short(a)} here, {_short(b)} there" for name, a, b in pairs if a != b]

    def convert(self, mel: Tensor | np.ndarray, target: "MelSpec") -> Tensor:
        """The mel (…, M, F), torch or numpy, of this convention in the target's, exactly.

        Log base, affine, and a floor or clip that the target has tighter are convertible.

        Raises:
            ValueError: where no function of the values is exact; it names each such field and why.
        """
        mel = _tensor(mel, "mel")
        if self == target:
            return mel
        return conversion(self, target)(mel.to(torch.float64)).to(mel.dtype)

    def check(self, mel: Tensor | np.ndarray) -> Tensor:
        """A mel from outside as float32 (B, M, F), or the ValueError that says what is wrong with it.

        Shape: (B, M, F) or (M, F), torch or numpy.
        """
        mel = from_outside(mel, self.n_mels)
        if bad := int(self.beyond_sound(mel).sum()):
            said = self.suspicions(mel[..., :JUDGED_FRAMES])
            raise ValueError(
                f"mel: {some_of(bad, mel.numel(), 'value', 'is', 'are')} such as no sound has in this convention, the "
                f"least {float(mel.min()):.3g} and the greatest {float(mel.max()):.3g}: "
                f"{said[0] if said else 'look at how it was saved and read; gansound mel may tell what it is'}"
            )
        return mel

    def beyond_sound(self, mel: Tensor) -> Tensor:
        """Which values (…, M, F) are far louder than any sound, or below all floors: those of another kind of mel."""
        ln = self._log_value(mel) * LN_PER_UNIT[self.log]
        return (ln > LOUDEST_LN) | (mel < LEAST_VALUE)

    def suspicions(self, mel: Tensor) -> list[str]:
        """What the values themselves say against this convention; empty where they fit."""
        from gansound.mel.suspicions import suspicions  # it reads this class

        return suspicions(self, mel)

    def padded(self, mel: Tensor) -> str:
        """What is said of a mel that ends in zeros, where these are no silence; else ""."""
        from gansound.mel.suspicions import padded

        return padded(self, mel)

    def in_words(self) -> str:
        """For a card, or a message."""
        return (
            f"log-mels ({self.log}) of {self.n_mels} bands, {self.fmin:g} to {self.fmax:g} Hz; {self.sample_rate} Hz, "
            f"window {self.win_length} of {self.n_fft}, hop {self.hop_length}, framing `{self.framing}`"
        )

    def noise(self, frames: int, *, seed: int = 0) -> Tensor:
        """The mel of noise that swells and fades four times a second, to try and time a vocoder with.

        Shape: `(1, n_mels, frames)`.
        """
        draw = torch.Generator().manual_seed(seed)
        samples = (frames + 1) * self.hop_length + self.n_fft
        noise = torch.randn(1, samples, generator=draw)
        seconds = torch.arange(samples) / self.sample_rate
        loudness = 0.02 + 0.1 * torch.sin(4 * torch.pi * seconds).square()
        return self.mel((noise * loudness).clamp(-1, 1))[..., :frames].contiguous()

    def ln_limits(self) -> tuple[float, float]:
        """Least and greatest natural logarithm of magnitude that any band's value can say; the floor, the clip."""
        low, high = self.ln_bounds()
        return float(low.min()), float(high.max())

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return _column(values, like.dtype, like.device)

    def _log_value(self, mel: Tensor) -> Tensor:
        if self.mean == (0.0,) and self.scale == (1.0,):
            return mel
        return mel * self._column(self.scale, mel) + self._column(self.mean, mel)

    def ln_bounds(self) -> tuple[Tensor, Tensor]:
        """`ln_limits` band by band: two of (M or 1, 1) float64, on the CPU."""
        bands = max(len(self.mean), len(self.scale))
        ones = torch.ones(bands, 1, dtype=torch.float64, device="cpu")
        low, high = ones * math.log(self.floor), ones * math.inf
        if self.clip is not None:
            unit = LN_PER_UNIT[self.log]
            low = low.maximum(self._log_value(ones * self.clip[0]) * unit)
            high = self._log_value(ones * self.clip[1]) * unit
        return low, high


def _tensor(values: Tensor | np.ndarray, what: str) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise ValueError(f"{what}: got {type(values).__name__}, expected a tensor or an array")
    return values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))


@functools.lru_cache(maxsize=64)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(M or 1, 1), made once: a GPU would be waited for."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).unsqueeze(-1)


def _whole(name: str, value: Any) -> int:
    try:
        is_bool = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool  # an index to both
        found = 0 if is_bool else operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise ValueError(f"mel {name}: got {value!r}, expected a whole number above 0")
    return found


def _finite(name: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or not math.isfinite(value)
    ):
        raise ValueError(f"mel {name}: got {value!r}, expected a finite number")
    return float(value)


def _short(value: object) -> str:
    return (
        f"({value[0]}, … {len(value)} numbers)" if isinstance(value, tuple) and len(value) > 2 else str(value)
    )
