"""`StreamingVocoder`: what streams is what the whole gives, however it is cut, interrupted, shared or prolonged."""

import asyncio
import contextlib
import copy
import logging
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gansound
from gansound.generators.melgan import MelGANGenerator
from gansound.inference.backends.eager import EagerRunner
from gansound.inference.backends.runner import Runner
from gansound.inference.streaming import JUDGED_FRAMES, StreamingVocoder
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from tests.small_streams import BANDS, HOP, SPEC, TOLERANCE, small_generator, some_mel, streamed, whole
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = Path(gansound.__file__).parent / "models" / "demo.flac"


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


@pytest.mark.parametrize("frames", [1, 2, 3, 17, 64, 65, 300])
@pytest.mark.parametrize("seed", range(3))
def test_streamed_is_whole(stream: StreamingVocoder, generator: Any, frames: int, seed: int) -> None:
    mel = some_mel(frames, seed)
    for again in range(2):  # the same stream once more
        got = streamed(stream, mel, seed + again)
        assert got.dtype == np.float32
        assert got.shape == (frames * HOP,) == (stream.samples_out,)
        assert stream.frames_pushed == frames
        assert np.abs(got - whole(generator, mel)).max() <= TOLERANCE
        stream.reset()
        assert stream.frames_pushed == stream.samples_out == 0


def test_a_new_stream_computes_nothing(generator: MelGANGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And streams that begin from the same state don't touch."""
    runner, mel = EagerRunner(generator), some_mel(40)
    StreamingVocoder(runner, SPEC)
    monkeypatch.setattr(runner._form, "forward", None)
    monkeypatch.setattr(runner._form, "init_state", None)
    first, second = (StreamingVocoder(runner, SPEC) for _ in range(2))
    first.push(some_mel(20, 1))
    assert np.abs(streamed(second, mel, 0) - whole(generator, mel)).max() <= TOLERANCE
    assert all(
        torch.equal(a, b)
        for a, b in zip(runner.init_state(3), EagerRunner(generator)._form.init_state(3), strict=True)
    )


def test_all_that_is_final_comes_out_and_no_more(stream: StreamingVocoder, runner: EagerRunner) -> None:
    """After n frames there are n hops less the look-ahead; one frame's sound is whole lookahead_frames later."""
    mel, out = some_mel(40), 0
    assert stream.lookahead_frames == -(-runner.lookahead_samples // HOP) > 1
    assert stream.latency_seconds == pytest.approx(stream.lookahead_frames * HOP / SPEC.sample_rate)
    for n in range(40):
        out += len(stream.push(mel[:, n : n + 1]))
        assert out == stream.samples_out == max(0, (n + 1) * HOP - runner.lookahead_samples)
        if n >= stream.lookahead_frames:
            assert out >= (n + 1 - stream.lookahead_frames) * HOP


def test_what_came_out_does_not_depend_on_what_follows(runner: EagerRunner) -> None:
    mel = some_mel(50)
    sounds = []
    for seed in range(2):
        mel[:, 30:] = some_mel(20, seed + 1)
        first, last = StreamingVocoder(runner, SPEC), mel[:, 30:]
        sounds.append((first.push(mel[:, :30]), first.push(last)))
    assert np.array_equal(sounds[0][0], sounds[1][0])
    assert not np.allclose(sounds[0][1], sounds[1][1])


def test_a_mel_of_any_kind(stream: StreamingVocoder, generator: Any) -> None:
    mel = some_mel(30)
    expected = whole(generator, mel)
    read_only = np.frombuffer(mel.tobytes(), np.float32).reshape(BANDS, -1)
    kinds = (
        mel[None], np.asfortranarray(mel), mel.astype(np.float64), mel.astype(">f4"), read_only,
        torch.from_numpy(mel), torch.from_numpy(mel)[None].double().requires_grad_(),
    )  # fmt: skip
    for kind in kinds:
        got = np.concatenate([stream.push(kind), stream.push(mel[:, :0]), stream.flush()])
        assert np.abs(got - expected).max() <= TOLERANCE
        stream.reset()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_neither_copied_nor_sent(stream: StreamingVocoder, generator: Any, how: Any) -> None:
    mel = some_mel(30)
    before = stream.push(mel[:, :20])
    with pytest.raises(TypeError, match=r"can't be copied or pickled. Open another, vocoder.stream\(\)"):
        how(stream)
    got = np.concatenate([before, stream.push(mel[:, 20:]), stream.flush()])
    assert np.abs(got - whole(generator, mel)).max() <= TOLERANCE


def test_the_callers_arrays_are_free_again(stream: StreamingVocoder, generator: Any) -> None:
    """An engine that fills one buffer again and again, and changes the sound that it was given."""
    mel = some_mel(60)
    buffer, sound = np.empty((BANDS, 1), np.float32), []
    for n in range(60):
        buffer[:] = mel[:, n : n + 1]
        out = stream.push(buffer)
        sound.append(out.copy())
        buffer[:] = 7.0
        out[:] = 7.0
    got = np.concatenate([*sound, stream.flush()])
    assert np.abs(got - whole(generator, mel)).max() <= TOLERANCE


@pytest.mark.parametrize(
    "bad, words",
    [
        (np.zeros((10, BANDS), np.float32), "10 bands.*transposed"),
        (np.zeros((BANDS + 1, 3), np.float32), f"{BANDS + 1} bands.*expected {BANDS}"),
        (np.zeros((3, BANDS, 2), np.float32), "batch of 3.*stream of its own"),
        (np.zeros(BANDS, np.float32), "shape"),
        (np.full((BANDS, 1), np.nan, np.float32), "NaN"),
        (np.full((BANDS, 1), np.inf, np.float32), "NaN or infinite"),
        (np.zeros((BANDS, 1), complex), "complex"),
        ([[0.0]] * BANDS, "list"),
        (None, "NoneType"),
    ],
)  # fmt: skip
def test_a_bad_push_harms_nothing(stream: StreamingVocoder, generator: Any, bad: Any, words: str) -> None:
    mel = some_mel(80)
    sound = []
    for cut in (slice(0, 3), slice(3, 50), slice(50, 80)):
        with pytest.raises(ValueError, match=words):
            stream.push(bad)
        sound.append(stream.push(mel[:, cut]))
    with pytest.raises(ValueError, match=words):
        stream.push(bad)
    got = np.concatenate([*sound, stream.flush()])
    assert np.abs(got - whole(generator, mel)).max() <= TOLERANCE


def test_a_mel_where_several_are_wanted_is_refused(stream: StreamingVocoder) -> None:
    async def said() -> None:
        async for _ in stream.aiterate(some_mel(20)):
            pass

    with pytest.raises(ValueError, match=r"got one of shape .*expected an iterable of them, such as \[mel\]"):
        list(stream.iterate(some_mel(20)))
    with pytest.raises(ValueError, match="expected an iterable of them"):
        asyncio.run(said())
    assert sum(map(len, stream.iterate(some_mel(20)[None])))  # an array of mels is an iterable of them


def test_after_the_flush(stream: StreamingVocoder, generator: Any) -> None:
    mel = some_mel(20)
    streamed(stream, mel)
    assert stream.flush().size == 0
    with pytest.raises(ValueError, match=r"after flush.*reset\(\)"):
        stream.push(mel)
    stream.reset()
    assert np.abs(streamed(stream, mel) - whole(generator, mel)).max() <= TOLERANCE


def test_nothing_pushed_is_nothing(stream: StreamingVocoder) -> None:
    assert stream.push(some_mel(0)).shape == (0,)
    assert stream.flush().shape == (0,)
    with pytest.raises(ValueError, match="after flush"):
        stream.push(some_mel(1))


@pytest.mark.parametrize("heard", [0, 1, 9, 100])
def test_the_talker_is_cut_off(stream: StreamingVocoder, generator: Any, heard: int) -> None:
    mel = some_mel(33, 1)
    stream.push(some_mel(heard))
    stream.reset()
    assert np.abs(streamed(stream, mel) - whole(generator, mel)).max() <= TOLERANCE
    stream.reset()
    with contextlib.suppress(KeyError), stream:
        stream.push(some_mel(heard))
        raise KeyError
    assert np.abs(streamed(stream, mel) - whole(generator, mel)).max() <= TOLERANCE


@pytest.fixture
def no_border(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convention that refuses no value, as far as it goes, so that what is behind its border is tried."""
    monkeypatch.setattr(MelSpec, "check", lambda spec, mel: torch.as_tensor(mel).unsqueeze(0))


def test_absurd_values_end_with_their_utterance(
    stream: StreamingVocoder, generator: Any, no_border: None
) -> None:
    """Numbers near the greatest overflow inside the net; the next utterance must not hear of it."""
    stream.push(np.full((BANDS, 40), 3e38, np.float32))
    stream.reset()
    mel = some_mel(33, 1)
    assert np.abs(streamed(stream, mel) - whole(generator, mel)).max() <= TOLERANCE


class _Loud(Runner):
    """Gives the first band's value four times, so that every sample is known."""

    name = "loud"

    def __init__(self) -> None:
        self.n_mels, self.hop_length, self.lookahead_samples, self.interior_frames = BANDS, HOP, 0, 0

    def init_state(self, batch: int = 1) -> Any:
        return ()

    def step(self, mel: torch.Tensor, state: Any, *, interior: bool = False) -> tuple[torch.Tensor, Any]:
        if float(mel[0, 1, 0]) == 9.0:
            raise RuntimeError("the machine broke")
        return mel[:, 0].repeat_interleave(HOP, 1), state

    def finish(self, state: Any, remaining: Any = 0, items: Any = None) -> Any:
        return state

    def reset(self, state: Any, items: Any = None) -> Any:
        return state


def test_int16_rounds_and_never_wraps(no_border: None) -> None:
    steps = [0.0, 0.4, 0.6, -0.6, 1.5, 2.5, 32766.7, 32768.0, -32768.0, -32769.0, 1e9, -1e9, 3e38 * 32768]
    expected = [0, 0, 1, -1, 2, 2, 32767, 32767, -32768, -32768, 32767, -32768, 32767]
    mel = np.zeros((BANDS, len(steps)), np.float32)
    mel[0] = np.array(steps) / 32768
    stream = StreamingVocoder(_Loud(), SPEC, dtype="int16")
    got = np.concatenate([stream.push(mel), stream.flush()])
    assert got.dtype == np.int16
    assert got[::HOP].tolist() == expected
    assert stream.clipped_samples == 4 * HOP
    stream.reset()
    assert stream.clipped_samples == 0
    with pytest.raises(ValueError, match=r"int8.*expected one of float32, int16"):
        StreamingVocoder(_Loud(), SPEC, dtype="int8")  # type: ignore[arg-type]


def test_int16_is_what_the_writer_writes(runner: EagerRunner, tmp_path: Any) -> None:
    import soundfile

    from gansound import audio

    mel = some_mel(100)
    sound = streamed(StreamingVocoder(runner, SPEC), mel) * 1.5
    path = tmp_path / "a.wav"
    audio.write(path, sound, SPEC.sample_rate)
    repeated = np.zeros((BANDS, len(sound)), np.float32)
    repeated[0] = sound
    got = StreamingVocoder(_Loud(), SPEC, dtype="int16").push(repeated)[::HOP]
    assert np.array_equal(got, soundfile.read(path, dtype="int16")[0])


def test_a_step_that_failed_asks_for_a_reset() -> None:
    stream = StreamingVocoder(_Loud(), SPEC)
    mel = some_mel(3)
    broken = mel.copy()
    broken[1, 0] = 9.0
    with pytest.raises(RuntimeError, match="machine broke"):
        stream.push(broken)
    with pytest.raises(ValueError, match=r"failed.*reset\(\)"):
        stream.push(mel)
    stream.reset()
    assert np.array_equal(stream.push(mel), mel[0].repeat(HOP))


def test_interior_is_promised_exactly_where_it_holds(runner: EagerRunner, generator: Any) -> None:
    promised = []

    class Watched(EagerRunner):
        def step(self, mel: Any, state: Any, *, interior: bool = False) -> Any:
            known = int(state[1]) < 2**30
            promised.append((interior, int(state[0]) >= self.interior_frames and not known))
            return super().step(mel, state, interior=interior)

    stream = StreamingVocoder(Watched(generator), SPEC)
    for seed in range(2):
        streamed(stream, some_mel(200), seed)
        stream.reset()
    for n in range(runner.interior_frames + 3):
        stream.push(some_mel(1, n))
    stream.flush()
    assert {told for told, _ in promised} == {False, True}
    assert all(told == true for told, true in promised)


def test_a_stream_of_days_does_not_drift(runner: EagerRunner, generator: Any) -> None:
    """A hundred hours on, the middle and the end are those of a short utterance with the same last frames."""
    mel = some_mel(150)
    expected = whole(generator, mel)
    stream = StreamingVocoder(runner, SPEC)
    first = stream.push(mel[:, :90])
    days = 2**31 + 12345  # frames; samples are beyond 32 bits whichever way they are counted
    position, *rest = stream._state
    stream._state = (position + days, *rest)
    stream._stepped = stream.frames_pushed = 90 + days
    stream.samples_out += days * HOP
    got = np.concatenate([first, stream.push(mel[:, 90:110]), stream.push(mel[:, 110:])])
    # And once by way of the layers' own positions.
    state = runner.init_state(1)
    edge, (position, *rest) = runner.step(torch.from_numpy(mel)[None, :, :90], state)
    edge, _ = runner.step(torch.from_numpy(mel)[None, :, 90:], (position + days, *rest), interior=False)
    assert np.abs(edge[0].numpy() - got[-60 * HOP :]).max() <= TOLERANCE
    got = np.concatenate([got, stream.flush()])
    assert np.abs(got - expected).max() <= TOLERANCE
    assert stream.samples_out == (days + 150) * HOP


def test_memory_does_not_grow(runner: EagerRunner) -> None:
    stream = StreamingVocoder(runner, SPEC)
    frames = some_mel(10)

    def shapes() -> list[tuple[int, ...]]:
        return [tuple(part.shape) for part in stream._state]

    def push(times: int) -> int:
        for _ in range(times):
            stream.push(frames)
        return tracemalloc.get_traced_memory()[0]

    before = shapes()
    tracemalloc.start()
    try:
        push(JUDGED_FRAMES // 10 + 20)
        sizes = [push(80) for _ in range(3)]
    finally:
        tracemalloc.stop()
    assert shapes() == before
    assert max(sizes) - min(sizes) < 20_000  # 800 frames kept would be 25,600, each time


def test_a_wrong_convention_is_said_once(vocoder: Vocoder, caplog: pytest.LogCaptureFixture) -> None:
    from gansound import audio

    speech = audio.resample(*audio.read(CLIP), vocoder.sample_rate)
    mel = vocoder.mel_spec.mel(torch.from_numpy(speech)[None])[
        ..., :150
    ]  # so the end of one is judged with the next
    with caplog.at_level(logging.WARNING):
        stream = vocoder.stream()
        for _ in range(3):
            streamed_tensor(stream, mel)
        assert not caplog.records
        stream = vocoder.stream()
        for _ in range(4):
            streamed_tensor(stream, mel / np.log(10.0))
    assert len(caplog.records) == 1
    assert "log10" in caplog.records[0].message


def streamed_tensor(stream: StreamingVocoder, mel: torch.Tensor) -> None:
    for n in range(0, mel.shape[-1], 10):
        buffer = mel[..., n : n + 10].clone()
        stream.push(buffer)
        buffer.fill_(3.0)  # the caller's, to be filled again
    stream.flush()
    stream.reset()
