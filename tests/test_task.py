"""What a vocoder's batch means: weights applied once, borders checked, validation against figures made elsewhere."""

import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pesq import pesq
from torch import Tensor, nn

from gansound.engine.phases import Phases, frozen
from gansound.engine.plan import plan
from gansound.generators.melgan import MelGANGenerator
from gansound.losses.adversarial import LeastSquares
from gansound.losses.feature_matching import FeatureMatching
from gansound.losses.spectral import MelL1, MultiResolutionSTFT
from gansound.mel import MelSpec
from gansound.recipe import RecipeError, load_recipe
from gansound.tasks.vocoder import Adversary, VocoderTask, WeightedFeatureMatching, WeightedLoss

SPEC = replace(MelSpec.preset("hifigan"), sample_rate=16000, fmax=7600.0)


class Gain(nn.Module):
    """A generator of one weight: makes the frames' mean log-mel, held for a hop and scaled."""

    n_mels, hop_length = SPEC.n_mels, SPEC.hop_length

    def __init__(self, gain: float = 0.5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, mel: Tensor) -> Tensor:
        return self.gain * 0.01 * mel.mean(1).repeat_interleave(self.hop_length, dim=-1)


class Judge(nn.Module):
    """Two sub-discriminators of three maps, each a scaling of the one before."""

    def __init__(self, scale: float = 0.7) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        maps = [audio * self.scale, audio * self.scale**2 + 0.1, audio * self.scale**3 - 0.1]
        return [maps, [m[:, ::2] for m in maps]]


class Constant(nn.Module):
    """A loss whose value is the mean of the generated sound, times a number."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        return self.times * fake.mean()


def task(**changed: object) -> VocoderTask:
    arguments = {
        "mel": SPEC,
        "generator": Gain(),
        "discriminators": {"a": Adversary(Judge(0.7), 0.5), "b": Adversary(Judge(0.3), 2.0)},
        "adversarial": LeastSquares(),
        "feature_matching": WeightedFeatureMatching(FeatureMatching("sum"), 3.0),
        "losses": {"one": WeightedLoss(Constant(1.0), 7.0), "two": WeightedLoss(Constant(-2.0), 11.0)},
    }
    return VocoderTask(**(arguments | changed))


def audio(seed: int = 0, frames: int = 8, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, frames * SPEC.hop_length, generator=generator)


def whole(sound: Tensor) -> dict[str, Tensor]:
    """A batch as the engine deals it."""
    return {"audio": sound, "position": torch.arange(len(sound))}


def test_each_coefficient_is_applied_once() -> None:
    made, batch = task(), whole(audio())
    start = made.generator.gain.item()
    optimizers = {
        "generator": torch.optim.SGD(made.generator.parameters(), lr=1.0),
        "discriminator": torch.optim.SGD(made.discriminator.parameters(), lr=0.0),
    }
    figures = Phases(made, Accelerator(cpu=True), optimizers).step([[batch]], adversarial=True)

    # The same by hand: every term from its formula, every coefficient written out.
    gain = torch.tensor(start, requires_grad=True)
    fake = gain * 0.01 * SPEC.mel(batch["audio"]).mean(1).repeat_interleave(SPEC.hop_length, dim=-1)
    total = 7.0 * fake.mean() + 11.0 * -2.0 * fake.mean()
    for name, scale, weight in (("a", 0.7, 0.5), ("b", 0.3, 2.0)):
        adversarial = matching = discriminator = torch.zeros(())
        for part in (slice(None), slice(None, None, 2)):
            f, r = fake[:, part], batch["audio"][:, part]
            logits, real_logits = f * scale**3 - 0.1, r * scale**3 - 0.1
            adversarial = adversarial + (logits - 1).square().mean()
            discriminator = discriminator + (real_logits - 1).square().mean() + logits.square().mean()
            # Three maps, the offsets of two of them cancelling.
            matching = matching + sum((scale**k * (f - r)).abs().mean() for k in (1, 2, 3))
        total = total + weight * adversarial + weight * 3.0 * matching
        assert figures[f"adversarial/{name}"] == pytest.approx(adversarial.item(), rel=1e-5)
        assert figures[f"feature_matching/{name}"] == pytest.approx(matching.item(), rel=1e-4)
        assert figures[f"discriminator/{name}"] == pytest.approx(discriminator.item(), rel=1e-5)
    assert figures["one"] == pytest.approx(fake.mean().item(), rel=1e-5)
    total.backward()
    assert start - made.generator.gain.item() == pytest.approx(gain.grad.item(), rel=1e-4)
    assert figures["gradient_norm/generator"] == pytest.approx(abs(gain.grad.item()), rel=1e-4)


def test_discriminators_count_one_each_in_their_own_loss() -> None:
    made, batch = task(), whole(audio())
    judge = made.discriminator["b"]
    start = judge.scale.item()
    optimizers = {
        "generator": torch.optim.SGD(made.generator.parameters(), lr=0.0),
        "discriminator": torch.optim.SGD(made.discriminator.parameters(), lr=1.0),
    }
    with torch.no_grad():
        fake = made.generator(SPEC.mel(batch["audio"]))
    Phases(made, Accelerator(cpu=True), optimizers).step([[batch]], adversarial=True)
    scale = torch.tensor(start, requires_grad=True)
    loss = sum(
        (r * scale**3 - 0.1 - 1).square().mean() + (f * scale**3 - 0.1).square().mean()
        for f, r in ((fake, batch["audio"]), (fake[:, ::2], batch["audio"][:, ::2]))
    )
    loss.backward()
    assert start - judge.scale.item() == pytest.approx(scale.grad.item(), rel=1e-4)


def test_micro_batches_give_the_step_of_the_whole() -> None:
    sound = audio(1, batch=4)
    gains, scales, figures = [], [], []
    for parts in (1, 2, 4):
        made = task()
        optimizers = {
            "generator": torch.optim.SGD(made.generator.parameters(), lr=1.0),
            "discriminator": torch.optim.SGD(made.discriminator.parameters(), lr=0.1),
        }
        phases = Phases(made, Accelerator(cpu=True), optimizers)
        figures.append(phases.step([[whole(part) for part in sound.chunk(parts)]], adversarial=True))
        gains.append(made.generator.gain.item())
        scales.append(made.discriminator["a"].scale.item())
    assert gains == pytest.approx([gains[0]] * 3, rel=1e-5)
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-5)
    for other in figures[1:]:
        assert other == pytest.approx(figures[0], rel=1e-4)


def test_freezing_leaves_what_was_frozen_before() -> None:
    judge = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    judge[0].requires_grad_(False)
    with frozen(judge.parameters()):
        assert not any(p.requires_grad for p in judge.parameters())
    assert [p.requires_grad for p in judge.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("framing", ["same", "center"])
def test_the_condition_has_one_frame_a_hop(framing: str) -> None:
    spec = replace(SPEC, framing=framing)
    made = task(mel=spec)
    sound = audio(2, frames=9)
    mel = made.condition({"audio": sound})
    assert mel.shape == (2, SPEC.n_mels, 9)
    assert torch.equal(mel, spec.mel(sound)[..., :9])
    assert made.generator(mel).shape == sound.shape


def test_the_condition_is_full_precision_under_autocast() -> None:
    made, sound = task(), audio(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.condition({"audio": sound}), SPEC.mel(sound))


def utterances() -> list[tuple[str, np.ndarray]]:
    """Half-second harmonics with pauses, which PESQ takes for speech; the lengths are no whole hops."""
    found = []
    for i, samples in enumerate((16000 + 100, 20000 + 37)):
        time = np.arange(samples) / SPEC.sample_rate
        phase = 2 * np.pi * np.cumsum(120 + 30 * i + 20 * np.sin(2 * np.pi * 2 * time)) / SPEC.sample_rate
        sound = sum(np.sin(k * phase) / k for k in range(1, 30)) * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
        sound = 0.1 * sound + 1e-3 * np.random.default_rng(i).standard_normal(samples)
        found.append((f"u{i}", sound.astype(np.float32)))
    return found


class Echo(nn.Module):
    """Gives back, for a mel it was told of, the waveform it belongs to, with noise."""

    def __init__(self, sounds: list[np.ndarray]) -> None:
        super().__init__()
        rng = np.random.default_rng(9)
        self.answers = [s + 0.01 * rng.standard_normal(len(s)).astype(np.float32) for s in sounds]
        self.calls = 0

    def forward(self, mel: Tensor) -> Tensor:
        answer = torch.from_numpy(self.answers[self.calls])[None, : mel.shape[-1] * SPEC.hop_length]
        self.calls += 1
        return answer


def test_validation_gives_the_figures_of_librosa_and_pesq() -> None:
    given = utterances()
    echo = Echo([sound for _, sound in given])
    figures, examples = task().validate(echo, given, torch.device("cpu"))

    def log_mel(sound: np.ndarray) -> np.ndarray:
        pad = (SPEC.n_fft - SPEC.hop_length) // 2
        magnitude = np.abs(
            librosa.stft(
                np.pad(sound, pad, mode="reflect"), n_fft=SPEC.n_fft, hop_length=SPEC.hop_length, center=False
            )
        )
        bank = librosa.filters.mel(
            sr=SPEC.sample_rate, n_fft=SPEC.n_fft, n_mels=SPEC.n_mels, fmin=SPEC.fmin, fmax=SPEC.fmax
        )
        return np.log(np.maximum(bank @ np.sqrt(magnitude**2 + SPEC.magnitude_eps), SPEC.floor))

    cut = [
        (s[: len(s) // 256 * 256], a[: len(a) // 256 * 256])
        for (_, s), a in zip(given, echo.answers, strict=True)
    ]
    distances = [np.abs(log_mel(fake) - log_mel(real)).mean() for real, fake in cut]
    scores = [pesq(16000, real, fake, "wb") for real, fake in cut]
    assert figures["mel_distance"] == pytest.approx(np.mean(distances), rel=1e-3)
    assert figures["pesq_wb"] == pytest.approx(np.mean(scores), abs=1e-3)
    assert [e.name for e in examples] == ["u0", "u1"]
    for example, (real, fake) in zip(examples, cut, strict=True):
        np.testing.assert_array_equal(example.real, real)
        np.testing.assert_array_equal(example.fake, fake)


def test_validation_leaves_out_what_has_no_figure() -> None:
    tiny = ("tiny", np.zeros(100, dtype=np.float32))  # shorter than a hop
    silent = ("silent", np.zeros(8000, dtype=np.float32))
    assert task().validate(Gain(), [tiny], torch.device("cpu")) == ({}, [])
    figures, examples = task().validate(Gain(), [tiny, silent], torch.device("cpu"))
    assert set(figures) == {"mel_distance", "level_db", "clipped_share"}
    assert [e.name for e in examples] == ["silent"]


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"mel": replace(SPEC, hop_length=200)}, r"mel.hop_length is 200 .* 256"),
        ({"mel": replace(SPEC, n_mels=100)}, r"mel.n_mels is 100 .* 80"),
        ({"generator": MelGANGenerator(upsample_rates=(8, 8, 2))}, r"is 256 .* 128 \(the product"),
        ({"generator": nn.Linear(1, 1)}, "Linear has no attribute hop_length"),
        ({"discriminators": {}, "losses": {}}, "nothing to learn from"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(changed: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        task(**changed)


def test_a_segment_is_whole_hops() -> None:
    task().check_segment(2560)
    with pytest.raises(ValueError, match=r"multiple of mel\.hop_length 256, got 2500; take 2560"):
        task().check_segment(2500)


def test_a_segment_is_long_enough_for_all_that_judge_it() -> None:
    judge = Judge()
    judge.shortest_samples = 700
    made = task(
        discriminators={"a": Adversary(judge)},
        losses={"mel": WeightedLoss(MelL1(SPEC), 1.0), "stft": WeightedLoss(MultiResolutionSTFT(), 1.0)},
    )
    made.check_segment(1280)
    with pytest.raises(
        ValueError, match=r"data\.segment_samples must be at least 1280, got 1024: losses\.stft\.loss "
    ):
        made.check_segment(1024)
    made = task(discriminators={"a": Adversary(judge)}, losses={})
    with pytest.raises(
        ValueError, match=r"at least 768, got 100: discriminators\.a\.network takes no fewer than 700"
    ):
        made.check_segment(100)


@pytest.mark.parametrize(
    "mel", ["bigvgan_44khz", {"sample_rate": 16000}, {"hop_length": 300, "win_length": 1200}]
)
@pytest.mark.parametrize("name", ["freev_cpu", "tiny_cpu"])
def test_the_losses_of_a_recipe_follow_its_mel(name: str, mel: object) -> None:
    settings = {"mel": mel, "data.segment_samples": 19200 if isinstance(mel, dict) else 8192}
    if isinstance(mel, dict) and "hop_length" in mel:
        settings["mel.n_fft"] = 1200
    made = plan(load_recipe(name, settings)).task
    spec = made.mel
    for key, loss in made.criteria.items():
        assert loss.sample_rate == spec.sample_rate, key
    assert (made.criteria["spectrum"].n_fft, made.criteria["spectrum"].hop_length) == (
        spec.n_fft,
        spec.hop_length,
    )
    assert made.criteria["mel_512"].front_end.spec.hop_length == spec.hop_length // 2


def test_a_loss_of_another_rate_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"losses\.mel\.loss: is of 22050 Hz, the mel and so the sound of 16000 Hz"
    ):
        task(losses={"mel": WeightedLoss(MelL1(MelSpec.preset("hifigan")), 1.0)})


def test_waiting_for_discriminators_with_nothing_to_learn_meanwhile_is_refused() -> None:
    assert task(losses={}).needs_discriminators
    assert not task().needs_discriminators
    small = {
        "generator.init_args": {"channels": 16},
        "discriminators.msd.network.init_args": {"scales": 1, "channels": 4},
    }
    assert plan(load_recipe("melgan_ljspeech", small)).settings.adversarial_from == 0
    with pytest.raises(RecipeError, match="adversarial_from"):
        plan(load_recipe("melgan_ljspeech", small | {"adversarial_from": 5}))


@pytest.mark.parametrize("name", ["validate_every", "threads", "batch_size", "log_every"])
def test_counts_of_zero_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} must be at least 1"):
        plan(load_recipe("tiny_cpu", {name: 0}))


def test_weights_are_named_as_the_losses_are() -> None:
    made = task()
    assert made.weights == {
        "one": 7.0, "two": 11.0, "adversarial/a": 0.5, "adversarial/b": 2.0, "feature_matching/a": 1.5,
        "feature_matching/b": 6.0, "discriminator/a": 1.0, "discriminator/b": 1.0,
    }  # fmt: skip
    assert math.isclose(made.weights["feature_matching/b"], 2.0 * 3.0)
