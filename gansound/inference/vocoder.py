"""`Vocoder`: a trained generator with the mel convention it understands, ready to turn mels into sound."""

import copy
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from gansound.adapters import HostModule, as_module
from gansound.audio import Resampler
from gansound.counts import counted
from gansound.frames import FrameSpec, PitchedSpec, mel_of
from gansound.frames.pitch import pitch_of
from gansound.generators.converted import ConvertedGenerator
from gansound.inference.backends import Backend, Purpose, check_backend, make_runner, would_measure
from gansound.inference.backends.choice import SHORTER
from gansound.inference.backends.runner import Precision, Runner
from gansound.inference.convention import HOW_TO_STREAM, in_convention
from gansound.inference.device import choose_device
from gansound.inference.forks import check_process
from gansound.inference.streaming import SampleType, StreamingVocoder, joined
from gansound.mel import MelSpec
from gansound.mel.pieces import PIECE_FRAMES, mel_pieces
from gansound.mel.spec import JUDGED_FRAMES
from gansound.model_folder import LoadedModel, load_model_folder, save_model_folder
from gansound.nn.generator import StreamingGenerator

log = logging.getLogger(__name__)

MEASURED_AFTER_SECONDS = 300.0
"""Of sound, made of whole utterances: for less, measuring the backends takes longer than it saves."""


class Vocoder:
    """Mel spectrogram to waveform; or, of a VITS decoder, its latents, which then stand where a mel does below.

    Of one that takes a pitch too (`frame_spec` is a `PitchedSpec`) a mel is given with `f0=` beside it, or is frames
    with the pitch as their last row.

    Args:
        model: what `gansound.model_folder.load_model_folder` gives.
        device: where it runs; CUDA where there is one, else the CPU.
        backend: what runs it: `eager` PyTorch, `compile`, `onnxruntime`, `openvino`; `auto` takes the fastest of
            those that are installed where that was measured before for this model and machine, and `eager` until it
            pays to measure, see `measure`.
        precision: `fp32`, or `bf16` or `int8` where the backend has it. Never changed unasked.

    Raises:
        ValueError: there is no such device, backend or precision here.

    >>> import gansound, torch
    >>> vocoder = gansound.Vocoder.from_pretrained("default")
    >>> mel = vocoder.mel_spec.mel(torch.zeros(1, 22050))
    >>> audio = vocoder(mel)
    >>> audio.shape[-1] == mel.shape[-1] * vocoder.mel_spec.hop_length
    True
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str | torch.device | None = None,
        *,
        backend: Backend = "auto",
        precision: Precision = "fp32",
    ) -> None:
        self.device = choose_device(device)
        check_backend(backend, precision, self.device)
        if not isinstance(model.generator, StreamingGenerator) and (
            backend not in ("auto", "eager") or precision != "fp32"
        ):
            raise ValueError(
                f"{type(model.generator).__name__} runs in PyTorch as it is, in fp32, got backend {backend!r}, "
                f"precision {precision!r}. {HOW_TO_STREAM}"
            )
        self.generator = model.generator.to(self.device).eval().requires_grad_(False)
        self.backend, self.precision = backend, precision
        self._runners: dict[Purpose, Runner] = {}
        self._unmeasured: set[Purpose] = set()  # `eager`, for the time being
        self._seconds_asked = 0.0  # of whole utterances
        self._making = threading.Lock()
        self._made_of, self._has_changed = _versions(self.generator), False
        self.frame_spec: FrameSpec = model.frame_spec
        self._model = model
        self.info: dict[str, Any] = dict(model.info)
        self._config = model.config
        self._path, self._allow = model.path, tuple[str, ...]()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "default",
        device: str | torch.device | None = None,
        *,
        mel: str | MelSpec | None = None,
        backend: Backend = "auto",
        precision: Precision = "fp32",
        allow: Sequence[str] = (),
    ) -> Self:
        """A shipped model by name, a model folder, or a Hugging Face repository id.

        Args:
            name_or_path: `default` is the shipped vocoder.
            device: such as `cpu` or `cuda:1`.
            mel: the convention of the mels it will be given, a preset's name or a `MelSpec`, where it isn't the model's
                own: a universal vocoder takes every one of about its frames a second, `default` of half as many too,
                and then makes sound of that rate, any other those whose values become its own by an exact formula
                (another logarithm, statistics, or lower floor).
            backend: what runs it, see the class.
            precision: what it computes in, see the class.
            allow: packages besides gansound whose generator classes the folder may name.

        Raises:
            ModelFolderError: (a ValueError) not found, not readable, or it names a class that is refused.
            ValueError: there is no such device, backend or precision here, or the model can't take such mels.
        """
        device = choose_device(device)  # before the time that loading takes
        check_backend(backend, precision, device)
        convention = MelSpec.preset(mel) if isinstance(mel, str) else mel
        if not isinstance(convention, MelSpec | None):
            raise ValueError(
                f"mel: got {type(mel).__name__}, expected a preset's name or a MelSpec, such as MelSpec.from_dict makes"
            )
        model = load_model_folder(os.fspath(name_or_path), allow=allow)
        if convention is not None:
            model = in_convention(model, convention)
        vocoder = cls(model, device, backend=backend, precision=precision)
        vocoder._allow = tuple(allow)
        return vocoder

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process a vocoder goes as the folder it came from, which is read again there.

        Its weights go too where they aren't the folder's any more.
        """
        mel = mel_of(self.frame_spec)
        where = os.fspath(self._path.absolute()), str(self.device), mel
        with self._making:
            self._forget_old()
        state = self.generator.state_dict() if self._has_changed else {}
        state = {name: value.detach().cpu() for name, value in state.items()}
        return _reopened, (type(self), *where, self.backend, self.precision, self._allow, state)

    def __repr__(self) -> str:
        where = f"backend {self.backend}, {self.precision}, on {self.device}"
        return f"<Vocoder {self._path}: {self.frame_spec.in_words()}; {where}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Another with weights of its own, as they are now."""
        model = replace(self._model, generator=copy.deepcopy(self.generator, memo))
        other = type(self)(model, self.device, backend=self.backend, precision=self.precision)
        with self._making:
            self._forget_old()
        other.info, other._allow, other._has_changed = dict(self.info), self._allow, self._has_changed
        return other

    @property
    def mel_spec(self) -> MelSpec:
        """The convention of the mels it takes. Raises ModelFolderError (a ValueError) where it takes latents."""
        return mel_of(self.frame_spec) or self._model.mel

    @property
    def sample_rate(self) -> int:
        """Of the sound it makes, in Hz."""
        return self.frame_spec.sample_rate

    def __call__(
        self,
        mel: Tensor | np.ndarray,
        *,
        f0: Tensor | np.ndarray | None = None,
        lengths: Sequence[int] | Tensor | np.ndarray | None = None,
        warn: bool = True,
    ) -> Tensor:
        """Waveform of a mel in the convention `mel_spec`.

        Args:
            mel: torch or numpy, on any device.
            f0: of a vocoder that takes a pitch, `(B, F)` or `(F,)` in Hz, 0 where unvoiced.
            lengths: frames of each item of a batch that was padded to one length: each item sounds as it does alone,
                whatever it was padded with.
            warn: log a warning where the values of the first 4096 frames look like another convention (log base, floor,
                normalised).

        Shape:
            `(B, n_mels, F)` or `(n_mels, F)` -> `(B, F * hop_length)` float32 on the vocoder's device; with lengths,
            item b is zero from sample `lengths[b] * hop_length` on.

        Raises:
            ValueError: wrong number of bands or dimensions, no frames, not a number; lengths that aren't one of 1 to F
                for each item; no pitch where it takes one, or one where it doesn't.
        """
        mel = joined(self.frame_spec, mel, f0)
        if lengths is None:
            return self._synthesize(self._checked(mel, warn=warn).to(self.device))
        items, frames = self._items(mel, lengths)
        if warn:
            self._warn(torch.cat(items, -1))
        padded = pad_sequence([item.T for item in items], batch_first=True).transpose(1, 2)
        padded = functional.pad(padded, (0, mel.shape[-1] - padded.shape[-1]))
        return self._synthesize(padded.to(self.device), frames)

    def vocode_audio(self, audio: ArrayLike, sample_rate: int) -> np.ndarray:
        """Copy synthesis: the mel of a recording, and the waveform made from that mel.

        A vocoder that takes a pitch is given the recording's, found by librosa's pYIN; where there is none, one
        between its last and its next.

        Args:
            audio: `(T,)`, full scale 1.
            sample_rate: of it, in Hz; another than the model's is resampled.

        Returns:
            `(round(T * vocoder.sample_rate / sample_rate),)` float32 at the vocoder's sample rate.

        Raises:
            ValueError: more than one dimension, empty, integers, not finite, or nothing left at the model's rate;
                librosa isn't there to find the pitch that it takes.
        """
        samples = _samples(audio)
        if not samples.size:
            raise ValueError("expected mono audio (T,) with T >= 1, got no samples")
        return np.concatenate(list(self.vocode_blocks([samples], sample_rate)))

    def vocode_blocks(self, blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        """`vocode_audio` of a recording that comes piece by piece, in memory that doesn't grow with its length.

        But for a vocoder that takes a pitch, which is looked for in the whole.

        Args:
            blocks: `(n,)` each, float, finite, such as `gansound.audio.blocks` gives.
            sample_rate: of them, in Hz.

        Returns:
            Pieces `(n,)` float32 at the vocoder's sample rate; joined they are `vocode_audio`'s sound of the whole.

        Raises:
            ValueError: a block that isn't such, no samples, or none left at the model's rate.
        """
        resampler = Resampler(sample_rate, self.sample_rate)
        given = taken = done = 0

        def ready(resampled: np.ndarray) -> Tensor:
            nonlocal taken
            taken += resampled.shape[-1]
            return torch.from_numpy(resampled[0]).to(self.device)

        def samples() -> Iterator[Tensor]:
            nonlocal given
            for block in blocks:
                checked = _samples(block, before=given)
                given += len(checked)
                yield ready(resampler.push(checked[None]))
            yield ready(resampler.flush())

        # A last hop that isn't full is completed with silence, and cut off again.
        for sound in self._pieces(self._counted(self._recorded(samples()))):
            piece = sound[0, : taken - done].cpu().numpy()
            done += len(piece)
            yield piece
        if not done:
            raise ValueError(
                f"{counted(given, f'sample at {sample_rate} Hz is', f'samples at {sample_rate} Hz are')} none at "
                f"{self.sample_rate} Hz"
            )

    def frames_of(self, audio: Tensor) -> Tensor:
        """The frames of a recording: its mel, with its pitch below it where the vocoder takes one.

        Shape: `(T,)` at the model's rate, T >= 1 → `(1, frame_spec.n_mels, ceil(T / hop_length))`.

        Raises:
            ValueError: it takes latents, or librosa isn't there to find the pitch that it takes.
        """
        return torch.cat(list(self._recorded(iter([audio]))), -1)

    def _recorded(self, audio: Iterator[Tensor]) -> Iterator[Tensor]:
        """The frames of a recording that comes in pieces `(n,)`. Shape: `(1, frame_spec.n_mels, n)` each."""
        spec = self.mel_spec
        if not isinstance(self.frame_spec, PitchedSpec):
            yield from mel_pieces(spec, audio)
            return
        parts = list(audio)
        if mels := list(mel_pieces(spec, parts)):
            f0 = pitch_of(torch.cat(parts).cpu().numpy(), spec.sample_rate, spec.hop_length)
            yield from self.frame_spec.join(torch.cat(mels, -1), f0).split(PIECE_FRAMES, -1)

    def pieces(
        self, mel: Tensor | np.ndarray, *, f0: Tensor | np.ndarray | None = None, warn: bool = True
    ) -> Iterator[np.ndarray]:
        """The sound of one mel, as `vocoder(mel)`, piece by piece: an hour of it needs no more memory than the mel.

        Args:
            mel: `(n_mels, F)` or `(1, n_mels, F)`, see the call.
            f0: see the call.
            warn: see the call.

        Returns:
            Pieces `(n,)` float32, `F * hop_length` samples in all.

        Raises:
            ValueError: more than one mel, and as of the call.
        """
        checked = self._checked(joined(self.frame_spec, mel, f0), warn=warn)
        if len(checked) != 1:
            raise ValueError(f"holds {len(checked)} mels, expected one (bands x frames)")
        self._will_make(checked.shape[-1])
        step = PIECE_FRAMES
        parts = (checked[..., at : at + step].to(self.device) for at in range(0, checked.shape[-1], step))
        for sound in self._pieces(parts):
            yield sound[0].cpu().numpy()

    def runner(self, purpose: Purpose) -> Runner:
        """What runs the generator, for whole utterances, short ones or streams; made at its first use.

        And made anew where the generator's weights have changed since, by training it or `load_state_dict`; streams
        that have begun go on with those they began with.

        Raises:
            ValueError: the generator doesn't stream, or its backend isn't to be had.
        """
        check_process()
        pays = purpose != "stream" and self._seconds_asked > MEASURED_AFTER_SECONDS
        # Without the lock, which a thread that measures holds for a minute or more.
        made_of, made = self._made_of, self._runners.get(purpose)
        if made and not (pays and purpose in self._unmeasured) and made_of == _versions(self.generator):
            return made
        with self._making:
            self._forget_old()
            if purpose not in self._runners or (pays and purpose in self._unmeasured):
                self._make(purpose, measure=pays)
            return self._runners[purpose]

    def measure(self, *purposes: Purpose) -> Self:
        """Have `auto` find the fastest backend now, which takes a minute or more unless it is remembered.

        Until then `auto` is `eager`; for whole utterances it measures by itself after `MEASURED_AFTER_SECONDS` of
        sound, for streams never, since somebody is listening. Streams that have begun stay where they are. It does
        nothing where there is one backend to be had, or one was named.

        Args:
            purposes: `whole`, `short` (a second and less) and `stream`; all of them when none is named.

        Raises:
            ValueError: as `runner`; no such purpose.
        """
        if unknown := set(purposes) - set(get_args(Purpose)):
            raise ValueError(f"got purpose {min(unknown)!r}, expected {', '.join(get_args(Purpose))}")
        check_process()
        with self._making:
            self._forget_old()
            for purpose in purposes or get_args(Purpose):
                if purpose not in self._runners or purpose in self._unmeasured:
                    self._make(purpose, measure=True)
        return self

    def measures_first(self, purpose: Purpose = "whole") -> bool:
        """Whether `auto` hasn't measured the backends for this yet, which takes a minute or more."""
        return (
            self.backend == "auto"
            and isinstance(self.generator, StreamingGenerator)
            and would_measure(self.generator, self.precision, purpose)
        )

    def _forget_old(self) -> None:
        """Runners hold copies of the weights that they were made of."""
        if (now := _versions(self.generator)) != self._made_of:
            self._runners, self._made_of, self._has_changed = {}, now, True
            self._unmeasured.clear()

    def _make(self, purpose: Purpose, *, measure: bool) -> None:
        if not isinstance(self.generator, StreamingGenerator):
            raise ValueError(f"{type(self.generator).__name__} doesn't stream. {HOW_TO_STREAM}")
        made = next(iter(self._runners.values()), None)
        if made is None or self.backend == "auto":
            backend = self.backend
            self._unmeasured.discard(purpose)
            if not measure and self.measures_first(purpose):
                backend = "eager"
                self._unmeasured.add(purpose)
                if purpose == "stream":
                    log.warning(
                        "this stream runs on eager PyTorch: which backend is the fastest here wasn't measured. "
                        "vocoder.measure('stream') or gansound stream --measure does it, once, in a minute or more"
                    )
            new = make_runner(self.generator, backend, self.precision, purpose=purpose)
            made = next((other for other in self._runners.values() if other.name == new.name), new)
        self._runners[purpose] = made  # one serves all purposes that took the same

    def stream(self, dtype: SampleType = "float32") -> StreamingVocoder:
        """A new stream of its own: mel frames in as they come, final samples (`float32` or `int16`) out.

        Raises:
            ValueError: another dtype, or the generator doesn't stream.
        """
        return StreamingVocoder(self.runner("stream"), self.frame_spec, dtype=dtype, device=self.device)

    def to(self, device: str | torch.device) -> Self:
        """Move to another device; streams that have begun stay where they are.

        Raises:
            ValueError: there is no such device, or the backend doesn't run there.
        """
        device = choose_device(device)
        check_backend(self.backend, self.precision, device)
        with self._making:
            self._forget_old()
            self.generator.to(device)
            self.device, self._runners, self._made_of = device, {}, _versions(self.generator)
            self._unmeasured.clear()
        return self

    def as_module(self, host: str) -> HostModule:
        """This vocoder in the shape in which a text-to-speech project calls its own, see `gansound.adapters`.

        Args:
            host: `transformers`, `torchaudio`, `espnet`, `vocos` (and F5-TTS), `coqui`, `nemo`, `matcha` or `vits`.

        Raises:
            ValueError: another name, or one whose frames are mels where the vocoder takes latents, or the other way.
        """
        return as_module(self, host)

    def _synthesize(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        if isinstance(self.generator, StreamingGenerator):
            self._will_make(len(mel) * mel.shape[-1])
            return self.runner("whole" if mel.shape[-1] >= SHORTER else "short").synthesize(mel, lengths)
        check_process()
        with torch.no_grad():  # somebody's own class
            if lengths is None:
                return self.generator(mel).float()
            whole = mel.new_zeros(len(mel), mel.shape[-1] * self.frame_spec.hop_length)
            for sound, item, frames in zip(whole, mel, lengths.tolist(), strict=True):
                alone = self.generator(item[None, :, :frames]).float()[0]
                sound[: len(alone)] = alone
            return whole

    def _will_make(self, frames: int) -> None:
        self._seconds_asked += frames * self.frame_spec.hop_length / self.sample_rate

    def _counted(self, mels: Iterable[Tensor]) -> Iterator[Tensor]:
        for mel in mels:
            self._will_make(mel.shape[-1])
            yield mel

    def _pieces(self, mels: Iterable[Tensor]) -> Iterator[Tensor]:
        if isinstance(self.generator, StreamingGenerator):
            yield from self.runner("whole").pieces(mels)
        elif parts := list(mels):
            yield self._synthesize(torch.cat(parts, -1))

    def _checked(self, mel: Tensor | np.ndarray, *, warn: bool) -> Tensor:
        checked = self.frame_spec.check(mel)
        if warn:
            self._warn(checked)
        return checked

    def _items(self, mel: Tensor | np.ndarray, lengths: Any) -> tuple[list[Tensor], Tensor]:
        """Each mel without what it was padded with, which is judged by nobody; and their lengths."""
        if getattr(mel, "ndim", 0) not in (2, 3) or mel.shape[-2] != self.frame_spec.n_mels or 0 in mel.shape:
            self.frame_spec.check(mel)  # says what is wrong with it
        batch = mel if mel.ndim == 3 else mel[None]
        frames = _lengths(lengths, len(batch), batch.shape[-1])
        items = [
            self._checked(item[..., :n], warn=False)[0]
            for item, n in zip(batch, frames.tolist(), strict=True)
        ]
        return items, frames

    def _warn(self, mel: Tensor) -> None:
        for suspicion in self.frame_spec.suspicions(mel[..., :JUDGED_FRAMES]):
            log.warning("%s", suspicion)
        if padded := self.frame_spec.padded(mel):
            log.warning("%s", padded)

    def save_pretrained(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as a folder that `from_pretrained` loads.

        One that was told another convention is written as it was, in its own; a universal one in that convention.
        """
        generator, mel = self.as_saved()
        return save_model_folder(os.fspath(path), generator, mel, config=self._config, info=self.info)

    def as_saved(self) -> tuple[nn.Module, FrameSpec]:
        """The generator that `save_pretrained` writes, and what it takes."""
        own, spec = self.generator, self.frame_spec
        if not isinstance(own, ConvertedGenerator):
            return own, spec
        return own.inner, replace(spec, frames=own.inner_mel) if isinstance(
            spec, PitchedSpec
        ) else own.inner_mel

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Write the model to the Hugging Face Hub, whence `from_pretrained(repo_id)` loads it.

        Its card is the folder's README.md, or one made of what the model says of itself.

        Args:
            repo_id: `owner/name`; made where it isn't there.
            private: of a repository that is made.
            token: that may write there; that of `hf auth login` when None.

        Returns:
            the address of the commit.

        Raises:
            ValueError: a name that is none, or the Hub refuses or can't be reached.
        """
        from gansound.inference.hub import push

        return push(self, self._path, repo_id, private=private, token=token)


def _reopened(
    kind: type[Vocoder],
    path: str,
    device: str,
    mel: MelSpec | None,
    backend: Backend,
    precision: Precision,
    allow: tuple[str, ...],
    state: dict[str, Tensor],
) -> Vocoder:
    vocoder = kind.from_pretrained(path, device, mel=mel, backend=backend, precision=precision, allow=allow)
    if state:
        vocoder.generator.load_state_dict(state)
    return vocoder


def _samples(audio: ArrayLike, before: int = 0) -> np.ndarray:
    """Audio `(T,)` as float32 that may be written to, or a ValueError, which counts from those that came before."""
    given = np.asarray(audio)
    if given.ndim != 1:
        mix = "; mix several channels first: audio.mean(axis=0)" if given.ndim == 2 else ""
        raise ValueError(f"expected mono audio (T,), got shape {given.shape}{mix}")
    if given.dtype.kind != "f":
        raise ValueError(f"expected samples as numbers between -1 and 1 (float32), got {given.dtype}")
    with np.errstate(over="ignore"):
        samples = np.require(given, np.float32, ["C", "W"])
    if not np.isfinite(samples).all():
        bad = before + int(np.argmin(np.isfinite(samples)))
        raise ValueError(f"the audio holds NaN or infinite samples, the first at sample {bad}")
    return samples


def _versions(net: nn.Module) -> list[tuple[int, int]]:
    """What changes when a weight does: where each is, and how often it was written to."""
    return [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in net.parameters()]


def _lengths(given: Sequence[int] | Tensor | np.ndarray, batch: int, most: int) -> Tensor:
    """`(B,)` int64 on the CPU, or the ValueError that says what is wrong with them."""
    found = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    if found.dtype.kind not in "iu":
        raise ValueError(f"lengths: got {given!r}, expected whole numbers of frames")
    lengths = torch.from_numpy(found.astype(np.int64))
    if tuple(lengths.shape) != (batch,):
        raise ValueError(
            f"lengths: got shape {tuple(lengths.shape)}, expected ({batch},): frames of each mel"
        )
    if lengths.numel() and not 1 <= int(lengths.min()) <= int(lengths.max()) <= most:
        wrong = [n for n in lengths.tolist() if not 1 <= n <= most]
        raise ValueError(f"lengths: got {wrong[0]} frames of {most}, expected 1 to {most} for each mel")
    return lengths
