"""What only a GPU shows of the whole library; `python -m tests.gpu` runs these among its own checks."""

from pathlib import Path

import numpy as np
import pytest
import torch

import gansound
from gansound import audio
from gansound.mel import MelSpec, presets
from gansound.nn.generator import StreamingGenerator
from tests.clip_models import tiny_clips
from tests.gpu.absent import reads_sound
from tests.small_streams import some_mel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
DEVICE = "cuda"


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def vocoders() -> tuple[gansound.Vocoder, gansound.Vocoder]:
    return tuple(
        gansound.Vocoder.from_pretrained("default", device, backend="eager") for device in (DEVICE, "cpu")
    )


def a_mel(frames: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((80, frames)).astype(np.float32) - 5


def near(got: np.ndarray, expected: np.ndarray, relative: float = 1e-4) -> None:
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) <= relative * np.linalg.norm(expected)


@pytest.mark.parametrize("name", presets())
def test_a_mel_is_the_same(name: str) -> None:
    spec = MelSpec.preset(name)
    sound = torch.randn(2, 9000) * 0.1
    torch.testing.assert_close(spec.mel(sound.to(DEVICE)).cpu(), spec.mel(sound), atol=1e-3, rtol=1e-3)


def test_a_mel_of_speech_is_judged_where_it_lies(
    vocoders: tuple[gansound.Vocoder, gansound.Vocoder], caplog: pytest.LogCaptureFixture
) -> None:
    spec = vocoders[0].mel_spec
    sound, rate = audio.read(Path(gansound.__file__).parent / "models" / "demo.flac")
    mel = spec.mel(torch.from_numpy(audio.resample(sound, rate, spec.sample_rate))[None])
    for values in (mel, 2.3 * mel):
        caplog.clear()
        vocoders[0](values.to(DEVICE))
        assert caplog.messages == spec.suspicions(values)


def test_the_shipped_vocoder_is_the_same_whole_and_streamed(
    vocoders: tuple[gansound.Vocoder, gansound.Vocoder],
) -> None:
    here, there = vocoders
    mel = a_mel(70)
    expected = there(mel, warn=False).numpy()[0]
    near(here(mel, warn=False).cpu().numpy()[0], expected)
    with here.stream() as stream:
        parts = [stream.push(mel[:, start : start + 9]) for start in range(0, 70, 9)]
        near(np.concatenate([*parts, stream.flush()]), expected)


def test_states_of_streams_stay_on_the_device(vocoders: tuple[gansound.Vocoder, gansound.Vocoder]) -> None:
    generator = vocoders[0].generator
    assert isinstance(generator, StreamingGenerator)
    state = generator.init_state(3)
    with torch.no_grad():
        for _ in range(3):
            _, state = generator.step(torch.zeros(3, 80, 5, device=DEVICE), state)
    state = generator.finish(state)
    assert {part.device.type for part in state} == {DEVICE}


def test_clips_of_a_seed_are_the_same() -> None:
    clips = tiny_clips()
    clips.generator.to(DEVICE)
    latents = torch.from_numpy(
        np.stack([clips.generator.prior.sample(np.random.default_rng(i)) for i in range(3)])
    )
    with torch.no_grad():
        sounds = clips.generator(latents.to(DEVICE), None)
        near(sounds.cpu().numpy(), tiny_clips().generator(latents, None).numpy(), 1e-3)


def test_a_checkpoint_of_a_gpu_is_a_model_of_a_processor(tmp_path: Path) -> None:
    if not reads_sound():
        pytest.skip("needs soundfile and soxr, to read a corpus")
    from gansound.engine.plan import plan
    from gansound.engine.run import Run
    from tests.corpus import write_corpus
    from tests.test_engine import tiny

    run = Run(plan(tiny(write_corpus(tmp_path / "corpus", files=4), 4, precision="bf16")), tmp_path / "run")
    assert run.accelerator.device.type == DEVICE
    assert all(optimizer.param_groups[0]["fused"] for optimizer in run.plan.optimizers.values())
    run.fit()
    made = gansound.Vocoder.from_pretrained(tmp_path / "run" / "model", "cpu", backend="eager")
    assert torch.isfinite(made(a_mel(20), warn=False)).all()


def test_small_streams_of_a_batch_are_those_alone() -> None:
    from tests.small_streams import BANDS, small_generator

    net = small_generator().to(DEVICE)
    mels = torch.from_numpy(np.stack([some_mel(12, seed) for seed in range(4)])).to(DEVICE)
    assert mels.shape[1] == BANDS
    state = net.init_state(4)
    with torch.no_grad():
        together, _ = net.step(mels, state)
        for i in range(4):
            alone, _ = net.step(mels[i : i + 1], net.init_state(1))
            near(together[i].cpu().numpy(), alone[0].cpu().numpy())
