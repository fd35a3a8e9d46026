"""`StreamingVocoder`: sound from mel frames as they come, sample for sample what the whole mel would have given."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from contextvars import copy_context
from typing import Any, Literal, NoReturn, Self, get_args

import numpy as np
import torch
from torch import Tensor

from gansound.frames import FrameSpec, PitchedSpec
from gansound.inference.backends.runner import PUSHED_FRAMES, Runner
from gansound.inference.forks import check_process

log = logging.getLogger(__name__)

SampleType = Literal["float32", "int16"]
JUDGED_FRAMES = 256  # of a stream's beginning are held against the mel convention, once
_FULL_SCALE = (
    32768  # as `gansound.audio.Writer` scales: what streams and what is written are the same integers
)
_END = object()


class _CutOff(Exception):
    """The utterance that an iterator was in has been reset."""


class StreamingVocoder:
    """One utterance at a time, pushed frame by frame; what comes out is final.

        with vocoder.stream() as stream:
            for mel in chunks:
                play(stream.push(mel))
            play(stream.flush())

    Frame f becomes samples f * hop_length to (f + 1) * hop_length, which are out once `lookahead_frames` frames more
    were pushed, or at the flush. A stream is for one thread at a time (a push beside another is refused; `reset` waits
    for it); any number of streams on one vocoder run in as many threads without touching each other. To cut the
    talker off, `reset`, leave the `with`, or close the iterator: the stream is then ready for the next utterance.

    Args:
        runner: the generator on its backend, shared by all streams.
        spec: the convention of the mels, or the latents taken instead; values that look like another convention are
            logged as a warning, once.
        dtype: of the samples: `float32`, full scale 1, or `int16`, rounded, and clipped beyond full scale.
        device: where the runner takes its mels.

    Attributes:
        frames_pushed, samples_out: of this utterance so far.
        clipped_samples: of this utterance so far, beyond full scale; int16 only.

    Raises:
        ValueError: another dtype.
    """

    _flushed: bool
    _iterated: bool

    def __init__(
        self,
        runner: Runner,
        spec: FrameSpec,
        *,
        dtype: SampleType = "float32",
        device: str | torch.device = "cpu",
    ) -> None:
        if dtype not in get_args(SampleType):
            raise ValueError(f"dtype: got {dtype!r}, expected one of {', '.join(get_args(SampleType))}")
        self._runner = runner
        self._spec = spec
        self._dtype = np.dtype(dtype)
        self._device = torch.device(device)
        self._in_use = threading.Lock()
        self._utterance = object()  # another with each reset, and each iterator
        self._judged: list[Tensor] | None = []  # frames still to be judged together; None when that is done
        self._state: Any = None  # None also after a step that failed, which has consumed it
        self._begin()

    @property
    def lookahead_frames(self) -> int:
        """Frames that must follow a frame before all of its samples are out."""
        return self._runner.lookahead_frames

    @property
    def latency_seconds(self) -> float:
        """From a frame's push to the last of its sound, where frames come in real time: the look-ahead, computed.

        The time that computing takes comes on top.
        """
        return self.lookahead_frames * self._runner.hop_length / self._spec.sample_rate

    def push(self, mel: Tensor | np.ndarray, *, f0: Tensor | np.ndarray | None = None) -> np.ndarray:
        """The next frames in, the samples that they make final out.

        Args:
            mel: any number of frames, torch or numpy, on any device.
            f0: of a vocoder that takes a pitch, `(n,)` in Hz, 0 where unvoiced, where it isn't the frames' last row.

        Shape:
            `(n_mels, n)` or `(1, n_mels, n)` → `(T,)`, possibly empty.

        Raises:
            ValueError: another shape, NaN or infinite values, the utterance was flushed, or another thread is pushing.
                Nothing was taken then, and the stream goes on unharmed.
        """
        with self._alone():
            return self._push(joined(self._spec, mel, f0))

    def flush(self) -> np.ndarray:
        """End the utterance: the rest of its samples, so that there are frames_pushed * hop_length in all.

        Shape:
            `(T,)`; empty where nothing was pushed, or where it was flushed before.

        Raises:
            ValueError: another thread is pushing.
        """
        with self._alone():
            return self._flush()

    def reset(self) -> None:
        """Drop what isn't out and begin a new utterance; waits for a push that another thread is in.

        An iterator over the utterance that it cuts off ends.
        """
        self._utterance = object()  # before the lock is had, so that an iterator knows who has it
        with self._in_use:
            self._begin()

    def __reduce__(self) -> NoReturn:
        """A stream is neither copied nor sent: two would go on from one state, which a step consumes."""
        raise TypeError(
            "a StreamingVocoder can't be copied or pickled. Open another, vocoder.stream(); to another process give "
            "the vocoder"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def iterate(self, mels: Iterable[Tensor | np.ndarray]) -> Generator[np.ndarray, None, None]:
        """The sound of one utterance, piece by piece, in flat memory; a mel is taken when sound is asked for.

        However it ends (all said, closed, an error), the stream is reset. It ends too where the stream is reset, as by
        another thread that cuts the talker off, and where another iterator begins.

        Args:
            mels: as of `push`, one after the other; a pitch that the vocoder takes is their last row.

        Raises:
            ValueError: as `push`.
        """
        _check_several(mels)
        utterance = self._enter()
        try:
            for mel in mels:
                for part in self._parts(mel):
                    if (audio := self._within(utterance, self._push, part)).size:
                        yield audio
            if (audio := self._within(utterance, self._flush)).size:
                yield audio
        except _CutOff:
            return
        finally:
            self._leave(utterance)

    async def aiterate(
        self, mels: AsyncIterable[Tensor | np.ndarray] | Iterable[Tensor | np.ndarray]
    ) -> AsyncGenerator[np.ndarray, None]:
        """`iterate` for servers: computes in the event loop's threads, so that the loop stays free.

        The next mel is taken when the consumer asks for sound; an ordinary iterable runs in a thread of its own, so
        that it may wait. Cancelled, it waits for the step under way (`PUSHED_FRAMES` at most), so that nothing
        computes on behind it. To be sure that it is closed when the loop over it is left early:
        `async with contextlib.aclosing(...)`.

        Raises:
            ValueError: as `push`.
        """
        _check_several(mels)
        utterance = self._enter()
        try:
            async with aclosing(_each(mels)) as source:
                async for mel in source:
                    for part in self._parts(mel):
                        if (audio := await _in_thread(self._within, utterance, self._push, part)).size:
                            yield audio
            if (audio := await _in_thread(self._within, utterance, self._flush)).size:
                yield audio
        except _CutOff:
            return
        finally:
            self._leave(utterance)

    def _begin(self) -> None:
        state, self._state = self._state, None
        self._state = self._runner.init_state(1) if state is None else self._runner.reset(state)
        self.frames_pushed = 0
        self.samples_out = 0
        self.clipped_samples = 0
        self._stepped = 0  # frames; those after the end too
        self._flushed = False
        self._iterated = False

    @contextmanager
    def _alone(self, utterance: object = None) -> Iterator[None]:
        """In the stream, where no other thread is; an iterator, where its utterance still is."""
        alone = self._in_use.acquire(blocking=False)
        try:
            if utterance not in (None, self._utterance):
                raise _CutOff
            if not alone:
                raise ValueError("another thread is using this stream; give each its own: vocoder.stream()")
            yield
        finally:
            if alone:
                self._in_use.release()

    def _within(self, utterance: object, act: Callable[..., np.ndarray], *args: Any) -> np.ndarray:
        with self._alone(utterance):
            return act(*args)

    def _enter(self) -> object:
        """The utterance that an iterator is in; one that was left in the middle and isn't closed yet is cut off."""
        with self._in_use:
            if self._iterated:
                self._begin()
            self._utterance, self._iterated = object(), True
            return self._utterance

    def _leave(self, utterance: object) -> None:
        """Reset the stream, unless another utterance has begun in it."""
        with self._in_use:
            if self._utterance is utterance:
                self._utterance = object()
                self._begin()

    def _push(self, mel: Tensor | np.ndarray) -> np.ndarray:
        if self._flushed:
            raise ValueError("push after flush: the utterance has ended; reset() begins the next")
        frames = self._checked(mel)
        if self._judged is not None:
            self._judge(frames)
        return self._run(frames)

    def _flush(self) -> np.ndarray:
        if self._judged:
            self._judge(None)
        if self._flushed or self.frames_pushed == 0:
            self._flushed = True
            return np.empty(0, self._dtype)
        self._flushed = True
        self._state = self._runner.finish(self._usable_state())
        # Whatever is stepped after the end only drives out what is still inside.
        return self._run(torch.zeros(1, self._runner.n_mels, self.lookahead_frames, dtype=torch.float32))

    def _usable_state(self) -> Any:
        if self._state is None:
            raise ValueError("an earlier step of this stream failed, so it can't go on: reset() it")
        return self._state

    def _checked(self, mel: Tensor | np.ndarray) -> Tensor:
        """The frames as `(1, n_mels, n)` float32, where the caller has them."""
        shape: tuple[int, ...] = tuple(getattr(mel, "shape", ()))
        if len(shape) == 3 and shape[0] != 1:
            raise ValueError(
                f"mel: got a batch of {shape[0]} (shape {shape}); each needs a stream of its own"
            )
        if shape[-2:] == (self._spec.n_mels, 0) and len(shape) in (2, 3):
            return torch.empty(1, self._spec.n_mels, 0, dtype=torch.float32)
        return self._spec.check(mel)

    def _parts(self, mel: Any) -> Iterator[Any]:
        """A mel in pieces that one step takes; what isn't a mel passes whole, for `push` to refuse."""
        shape: tuple[int, ...] = tuple(getattr(mel, "shape", ()))
        if len(shape) not in (2, 3) or shape[-2] != self._spec.n_mels or shape[-1] <= PUSHED_FRAMES:
            yield mel
            return
        for start in range(0, shape[-1], PUSHED_FRAMES):
            yield mel[..., start : start + PUSHED_FRAMES]

    def _judge(self, frames: Tensor | None) -> None:
        """Gather the stream's first frames and judge them once; what is left of them where None says the end."""
        assert self._judged is not None
        if frames is not None:
            self._judged.append(frames[..., :JUDGED_FRAMES].detach().to("cpu", copy=True))
        have = sum(part.shape[-1] for part in self._judged)
        if frames is not None and have < JUDGED_FRAMES:
            return
        found = self._spec.suspicions(torch.cat(self._judged, -1)[..., :JUDGED_FRAMES])
        # A short utterance says little: the next is judged with it.
        self._judged = None if found or have >= JUDGED_FRAMES else self._judged
        for suspicion in found:
            log.warning("%s", suspicion)

    def _run(self, frames: Tensor) -> np.ndarray:
        """Step through frames of the utterance, or after its end; the samples of the utterance that come out."""
        check_process()
        runner, hop = self._runner, self._runner.hop_length
        late = runner.lookahead_samples
        steps = frames.shape[-1]
        end = self.frames_pushed * hop if self._flushed else (self._stepped + steps) * hop - late
        audio = np.empty(max(0, end - self.samples_out), self._dtype)
        done = 0
        for start in range(0, steps, PUSHED_FRAMES):
            part = frames[..., start : start + PUSHED_FRAMES].to(self._device)
            interior = not self._flushed and self._stepped >= runner.interior_frames
            state = self._usable_state()
            self._state = None
            out, self._state = runner.step(part, state, interior=interior)
            # Sample j of the step is sample `first + j` of the utterance.
            first = self._stepped * hop - late
            self._stepped += part.shape[-1]
            if not self._flushed:
                self.frames_pushed = self._stepped
            skip = max(0, -first)
            samples = out[0, skip : max(skip, min(out.shape[-1], end - first))].float().cpu().numpy()
            audio[done : done + len(samples)] = samples if self._dtype.kind == "f" else self._rounded(samples)
            done += len(samples)
            self.samples_out += len(samples)
        assert done == len(audio)
        return audio

    def _rounded(self, samples: np.ndarray) -> np.ndarray:
        beyond = ~(np.abs(samples) <= 1.0)  # NaN too
        if beyond.any():
            self.clipped_samples += int(np.count_nonzero(beyond))
            samples = np.nan_to_num(samples).clip(-1.0, 1.0)
        return np.minimum(np.rint(samples * _FULL_SCALE), _FULL_SCALE - 1)


def joined(spec: FrameSpec, mel: Tensor | np.ndarray, f0: Tensor | np.ndarray | None) -> Tensor | np.ndarray:
    """Frames of the mel with its pitch, or as they are where none is given. Raises ValueError."""
    if f0 is None:
        return mel
    if isinstance(spec, PitchedSpec):
        return spec.join(mel, f0)
    raise ValueError(f"got an f0, but this vocoder takes {spec.in_words()}, and no pitch beside it")


def _check_several(mels: Any) -> None:
    """Raises ValueError for a mel where several are wanted: its rows would be taken for them."""
    if isinstance(mels, Tensor | np.ndarray) and mels.ndim < 3:
        raise ValueError(
            f"mels: got one of shape {tuple(mels.shape)}, expected an iterable of them, such as [mel]"
        )


async def _each(mels: Any) -> AsyncGenerator[Any, None]:
    if isinstance(mels, AsyncIterable):
        async for mel in mels:
            yield mel
        return
    iterator = iter(mels)
    loop, context = asyncio.get_running_loop(), copy_context()
    # Of its own: while it waits for a talker the event loop's few threads compute for others.
    thread = ThreadPoolExecutor(1)
    try:
        # Not waited for when cancelled: it may block for ever, and the stream isn't in it.
        while (
            mel := await loop.run_in_executor(thread, lambda: context.run(next, iterator, _END))
        ) is not _END:
            yield mel
    finally:
        thread.shutdown(wait=False)


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """`asyncio.to_thread`, except that cancelling it waits until the thread is done."""
    job = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():
            try:
                await asyncio.wait({job})
            except asyncio.CancelledError:
                pass  # asked once more; the first is raised below
        if not job.cancelled():
            job.exception()  # nobody is left to hear it
        raise
