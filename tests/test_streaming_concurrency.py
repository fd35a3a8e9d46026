"""`StreamingVocoder` shared: many streams in many threads, iterated, on an event loop, and cut off there."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from gansound.generators.melgan import MelGANGenerator
from gansound.inference.backends.eager import EagerRunner
from gansound.inference.backends.runner import PUSHED_FRAMES
from gansound.inference.streaming import StreamingVocoder
from gansound.inference.vocoder import Vocoder
from tests.small_streams import BANDS, HOP, SPEC, TOLERANCE, cuts, small_generator, some_mel, streamed, whole
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator() -> MelGANGenerator:
    return small_generator()


@pytest.fixture(scope="module")
def runner(generator: MelGANGenerator) -> EagerRunner:
    return EagerRunner(generator)


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Vocoder:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return Vocoder.from_pretrained(folder, device="cpu", backend="eager")


@pytest.fixture
def stream(runner: EagerRunner) -> StreamingVocoder:
    return StreamingVocoder(runner, SPEC)


def test_many_streams_at_once(vocoder: Vocoder, runner: EagerRunner, generator: Any) -> None:
    """Different inputs, lengths and starts, some reset midway, some interrupted, some given rubbish."""
    expected = {seed: whole(generator, some_mel(5 + 3 * seed % 97, seed)) for seed in range(80)}
    gate = threading.Barrier(16)

    def one(seed: int) -> float:
        if seed < 16:
            gate.wait(timeout=240)  # so that they really overlap
        rng = np.random.default_rng(seed)
        stream = StreamingVocoder(runner, SPEC)
        if seed % 5 == 0:
            stream.push(some_mel(int(rng.integers(1, 60)), seed + 1000))
            stream.reset()
        if seed % 7 == 0:
            with contextlib.suppress(KeyboardInterrupt), stream:
                stream.push(some_mel(20, seed + 2000))
                raise KeyboardInterrupt
        if seed % 11 == 0:
            for _ in stream.iterate([some_mel(70, seed + 3000)]):
                break
        if seed % 3 == 0:
            with pytest.raises(ValueError, match="NaN"):
                stream.push(np.full((BANDS, 2), np.nan, np.float32))
        got = streamed(stream, some_mel(5 + 3 * seed % 97, seed), seed)
        assert got.shape == expected[seed].shape
        return float(np.abs(got - expected[seed]).max())

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(one, range(80))) <= TOLERANCE


def test_streams_of_one_vocoder_share_its_runner(vocoder: Vocoder) -> None:
    mel = vocoder.mel_spec.mel(0.1 * torch.randn(1, 256 * 40, generator=torch.Generator().manual_seed(0)))
    expected = vocoder(mel)[0].numpy()
    one, other = vocoder.stream(), vocoder.stream("int16")
    got, rounded = [], []
    for n in range(40):
        got.append(one.push(mel[..., n : n + 1]))
        if n % 3 == 0:
            rounded.append(other.push(mel[..., n : n + 3]))
    sound = np.concatenate([*got, one.flush()])
    assert np.abs(sound - expected).max() <= TOLERANCE
    assert np.abs(np.concatenate([*rounded, other.flush()]) / 32768 - expected).max() <= 1 / 65536 + TOLERANCE
    assert one._runner is other._runner


def test_two_threads_on_one_stream_are_refused(runner: EagerRunner, generator: Any) -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(EagerRunner):
        def step(self, mel: Any, state: Any, *, interior: bool = False) -> Any:
            inside.set()
            assert go_on.wait(240)
            return super().step(mel, state, interior=interior)

    stream = StreamingVocoder(Slow(generator), SPEC)
    mel = some_mel(20)
    with ThreadPoolExecutor(2) as pool:
        pushing = pool.submit(stream.push, mel)
        assert inside.wait(240)
        for call in (lambda: stream.push(mel), stream.flush):
            with pytest.raises(ValueError, match="another thread"):
                call()
        resetting = pool.submit(stream.reset)  # the talker is cut off from elsewhere: it waits
        assert not resetting.done()
        go_on.set()
        pushing.result(240)
        resetting.result(240)
    assert np.abs(streamed(stream, mel) - whole(generator, mel)).max() <= TOLERANCE


def test_iterate(stream: StreamingVocoder, generator: Any) -> None:
    mel = some_mel(400)
    pieces = list(stream.iterate([mel[:, :1], mel[:, 1:330], mel[:, 330:]]))
    assert np.abs(np.concatenate(pieces) - whole(generator, mel)).max() <= TOLERANCE
    assert all(0 < len(piece) <= PUSHED_FRAMES * HOP for piece in pieces)
    with pytest.raises(ValueError, match=r"transposed.*\(400, 8\)"):
        list(stream.iterate([mel[:, :50], mel.T]))
    assert stream.frames_pushed == 0


def test_a_reset_ends_the_iterator_and_it_leaves_the_next_utterance_alone(generator: Any) -> None:
    """Cut off by `reset` between two pieces, or in the middle of a step, by another thread; or by the next iterator."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(EagerRunner):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            inside.set()
            go_on.wait(60)
            return super().step(*args, **kwargs)

    stream = StreamingVocoder(Slow(generator), SPEC)
    mel, other = some_mel(90), some_mel(70, 1)
    expected = whole(generator, other)

    go_on.set()
    for how in (stream.reset, lambda: None):
        cut_off = stream.iterate([mel[:, :40], mel[:, 40:]])
        next(cut_off)
        how()
        going_on = stream.iterate([other[:, :40], other[:, 40:]])
        first = next(going_on)
        assert list(cut_off) == []  # neither pushes into the next utterance nor resets it
        assert np.abs(np.concatenate([first, *going_on]) - expected).max() <= TOLERANCE
        assert stream.frames_pushed == 0
    go_on.clear()
    inside.clear()
    heard: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: heard.extend(stream.iterate([mel] * 5)))
    thread.start()
    assert inside.wait(60)
    cut_off_in = stream._utterance
    resetting = threading.Thread(target=stream.reset)
    resetting.start()
    while stream._utterance is cut_off_in:
        time.sleep(0.001)
    go_on.set()
    thread.join()
    resetting.join()
    assert sum(map(len, heard)) <= PUSHED_FRAMES * HOP
    assert np.abs(np.concatenate(list(stream.iterate([other]))) - expected).max() <= TOLERANCE


def test_an_iterator_on_the_loop_that_was_left_open_leaves_the_next_utterance_alone(
    stream: StreamingVocoder, generator: Any
) -> None:
    """It is closed when the event loop comes to it."""
    mel = some_mel(60)

    async def said() -> AsyncIterator[np.ndarray]:
        yield mel[:, :40]
        yield mel[:, 40:]

    async def main() -> list[np.ndarray]:
        async for _ in stream.aiterate(said()):
            break
        return [audio async for audio in stream.aiterate(said())]

    assert np.abs(np.concatenate(asyncio.run(main())) - whole(generator, mel)).max() <= TOLERANCE


def test_iterate_takes_a_mel_when_sound_is_asked_for(stream: StreamingVocoder) -> None:
    taken = []

    def mels() -> Iterator[np.ndarray]:
        for n in range(100):
            taken.append(n)
            yield some_mel(5, n)

    sound = stream.iterate(mels())
    assert taken == []
    next(sound)
    assert len(taken) <= 2 + stream.lookahead_frames // 5
    sound.close()
    assert stream.frames_pushed == 0


def test_aiterate_equals_iterate_and_leaves_the_loop_free(stream: StreamingVocoder, generator: Any) -> None:
    mel = some_mel(300)
    threads = set()

    class Watched(EagerRunner):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            threads.add(threading.get_ident())
            return super().step(*args, **kwargs)

    stream = StreamingVocoder(Watched(generator), SPEC)
    expected = whole(generator, mel)

    async def source() -> AsyncIterator[np.ndarray]:
        for cut in cuts(300, 1):
            await asyncio.sleep(0)
            yield mel[:, cut]

    async def main() -> None:
        for mels in (source(), [mel[:, :200], mel[:, 200:]]):
            pieces = [audio async for audio in stream.aiterate(mels)]
            assert np.abs(np.concatenate(pieces) - expected).max() <= TOLERANCE
            assert all(0 < len(piece) <= PUSHED_FRAMES * HOP for piece in pieces)
        with pytest.raises(ValueError, match="NaN"):
            async for _ in stream.aiterate([mel, mel * np.nan]):
                pass
        assert stream.frames_pushed == 0

    asyncio.run(main())
    assert threading.get_ident() not in threads


def test_talkers_who_are_waited_for_hold_up_no_other(runner: EagerRunner, generator: Any) -> None:
    """More of them than the event loop has threads."""
    mel = some_mel(40)
    talkers: list[queue.Queue[Any]] = [queue.Queue() for _ in range(3)]

    def said_by(talker: queue.Queue[Any]) -> Iterator[Any]:
        while (said := talker.get()) is not None:
            yield said

    async def listen(mels: Any) -> np.ndarray:
        return np.concatenate([audio async for audio in StreamingVocoder(runner, SPEC).aiterate(mels)])

    async def main() -> list[np.ndarray]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        waiting = [asyncio.create_task(listen(said_by(talker))) for talker in talkers]
        try:
            found = [await asyncio.wait_for(asyncio.shield(asyncio.create_task(listen([mel]))), 60)]
        finally:
            for talker in talkers:
                talker.put(mel)
                talker.put(None)
        return found + await asyncio.gather(*waiting)

    for sound in asyncio.run(main()):
        assert np.abs(sound - whole(generator, mel)).max() <= TOLERANCE


def test_aiterate_cut_off(generator: Any) -> None:
    """Cancelled in the middle of a step, or closed between two: nothing runs on and the stream is as new."""
    inside, running = threading.Event(), threading.Lock()
    hold = threading.Event()

    class Slow(EagerRunner):
        def step(self, mel: Any, state: Any, *, interior: bool = False) -> Any:
            with running:
                inside.set()
                hold.wait(0.2)
                return super().step(mel, state, interior=interior)

    stream = StreamingVocoder(Slow(generator), SPEC)
    mel = some_mel(33)

    async def listen() -> None:
        async for _ in stream.aiterate(some_mel(20, n) for n in range(1000)):
            pass

    async def main() -> None:
        for times in (1, 2):
            inside.clear()
            task = asyncio.create_task(listen())
            while not inside.is_set():
                await asyncio.sleep(0.001)
            for _ in range(times):  # asked twice it must wait all the same
                task.cancel()
                await asyncio.sleep(0.001)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not running.locked()
            assert stream.frames_pushed == 0
        hold.set()
        async with contextlib.aclosing(stream.aiterate([some_mel(200)])) as sound:
            async for _ in sound:
                break
        assert stream.frames_pushed == 0
        pieces = [audio async for audio in stream.aiterate([mel])]
        assert np.abs(np.concatenate(pieces) - whole(generator, mel)).max() <= TOLERANCE

    asyncio.run(main())
