"""What a batch means to a generator of clips: pieces composed, draws by position, impossible pairs refused."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gansound.discriminators.augmentation import Augmentation, Augmentations
from gansound.discriminators.augmentation.wave import Polarity
from gansound.discriminators.heads import AuxiliaryClassifier
from gansound.discriminators.specgan import SpecGANDiscriminator
from gansound.discriminators.views import LogMel
from gansound.discriminators.wavegan import WaveGANDiscriminator
from gansound.draw import Draws
from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.generators.wavegan import WaveGANGenerator
from gansound.losses.adversarial import Hinge, NonSaturating, Relativistic, Wasserstein
from gansound.losses.mmd import MMD
from gansound.losses.penalties import R1, GradientPenalty, WeightClipping
from gansound.mel import MelSpec
from gansound.model_folder import ModelFolderError, load_model_folder
from gansound.recipe import RecipeError
from gansound.tasks.clip import ClipAdversary, ClipTask
from tests.clips import small_wave, write_sounds

LABELS = ("bell", "hiss", "zap")
SMALL = {"clip_samples": 1024, "dim": 2}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds"))


def judge(**changed: Any) -> WaveGANDiscriminator:
    return WaveGANDiscriminator(**(SMALL | {"phase_shuffle": 1} | changed))


def task(labels: tuple[str, ...] = (), **changed: Any) -> ClipTask:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "generator": WaveGANGenerator(labels=labels, **SMALL),
        "discriminators": {"wave": ClipAdversary(judge(labels=labels))},
        "adversarial": Wasserstein(),
        "penalties": {"gradient": GradientPenalty(weight=10.0)},
    }
    return ClipTask(**(arguments | changed))


def batch(size: int = 4, first: int = 0, classes: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(first + 1)
    made = {
        "audio": 0.2 * torch.randn(size, 1, 1024, generator=generator),
        "position": torch.arange(first, first + size),
    }
    return made | ({"label": torch.arange(size) % classes} if classes else {})


def parts_of(whole: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    size = len(whole["audio"]) // parts
    return [{k: v[i * size : (i + 1) * size] for k, v in whole.items()} for i in range(parts)]


def phases(made: ClipTask, rate: float = 0.01) -> Phases:
    return Phases(
        made,
        Accelerator(cpu=True),
        {
            "generator": torch.optim.SGD(made.generator.parameters(), lr=rate),
            "discriminator": torch.optim.SGD(made.discriminator.parameters(), lr=rate),
        },
    )


def test_a_step_is_that_of_the_paper_written_out() -> None:
    """WGAN-GP by hand: critics on batches of their own, then the generator against the last of them."""
    made, by_hand = task(), task()
    rounds = [batch(first=0), batch(first=4)]
    figures = phases(made).step([[b] for b in rounds], adversarial=True)

    generator, critic = by_hand.generator, by_hand.discriminator["wave"]
    sgd_d = torch.optim.SGD(critic.parameters(), lr=0.01)
    losses = []
    for b in rounds:
        draws = Draws(0, b["position"].tolist())
        fake = generator(draws.each("training latent", by_hand.prior.sample))
        shifts = {
            k: draws.each(f"wave {k} shuffle", lambda rng: rng.integers(-1, 1, size=4, endpoint=True)).long()
            for k in ("real", "fake", "penalty", "generator")
        }
        mix = draws.uniform("wave penalty mix")[:, None, None]
        real_score = critic(b["audio"], shifts=shifts["real"])[0][-1]
        fake_score = critic(fake.detach(), shifts=shifts["fake"])[0][-1]
        between = (mix * b["audio"] + (1 - mix) * fake.detach()).requires_grad_(True)
        score = critic(between, shifts=shifts["penalty"])[0][-1].sum()
        slope = torch.autograd.grad(score, between, create_graph=True)[0].flatten(1).norm(dim=1)
        penalty = (slope - 1).square().mean()
        losses.append((fake_score.mean() - real_score.mean()).item())
        sgd_d.zero_grad()
        (fake_score.mean() - real_score.mean() + 10 * penalty).backward()
        sgd_d.step()
    generator.zero_grad()
    (-critic(fake, shifts=shifts["generator"])[0][-1].mean()).backward()
    torch.optim.SGD(generator.parameters(), lr=0.01).step()

    assert figures["discriminator/wave"] == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-6)
    assert figures["critic_gap/wave"] == pytest.approx(-np.mean(losses), rel=1e-4, abs=1e-6)
    for ours, theirs in ((made.generator, generator), (made.discriminator["wave"], critic)):
        for (name, a), b_ in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b_, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("labels", [(), LABELS])
def test_micro_batches_give_the_step_of_the_whole(labels: tuple[str, ...]) -> None:
    """Latents, shifts, mixes and augmentations belong to positions, not to the batch they stand in."""
    found = []
    for parts in (1, 2, 4):
        made = task(
            labels,
            adversarial=Hinge(),
            augmentations=Augmentations([Polarity()], probability=0.5),
        )
        rounds = [parts_of(batch(first=f, classes=len(labels)), parts) for f in (0, 4)]
        figures = phases(made).step(rounds, adversarial=True)
        weights = torch.cat([p.detach().flatten() for p in made.generator.parameters()])
        found.append((figures["discriminator/wave"], figures["gradient/wave"], weights))
    for other in found[1:]:
        assert other[:2] == pytest.approx(found[0][:2], rel=1e-4)
        torch.testing.assert_close(other[2], found[0][2], rtol=1e-4, atol=1e-6)


def test_lazy_penalties_come_every_so_many_steps_at_so_many_times_their_weight() -> None:
    made = task(adversarial=NonSaturating(), penalties={"r1": R1(weight=3.0, every=4)})
    assert made.weights["r1/wave"] == 12.0
    due = [
        step
        for step in range(9)
        if "r1/wave" in phases(made, 0.0).step([[batch()]], adversarial=True, step=step)
    ]
    assert due == [0, 4, 8]


def test_weights_stay_within_the_clip() -> None:
    made = task(penalties={"clip": WeightClipping(limit=0.005)})
    phases(made).step([[batch()]], adversarial=True)
    assert max(p.abs().max().item() for p in made.discriminator.parameters()) <= 0.005


def test_an_auxiliary_classifier_is_told_the_classes_and_teaches_them() -> None:
    made = task(
        LABELS,
        discriminators={"wave": ClipAdversary(judge(labels=LABELS, head=AuxiliaryClassifier()), weight=0.5)},
        auxiliary_weight=2.0,
    )
    assert (made.weights["class/wave"], made.weights["class_generated/wave"]) == (2.0, 1.0)
    b = batch(classes=3)
    figures = phases(made, 0.0).step([[b]], adversarial=True)
    # Untrained it guesses: ln 3 for the real ones and as much for the generated.
    assert figures["class/wave"] == pytest.approx(2 * np.log(3), abs=0.2)
    assert figures["class_generated/wave"] == pytest.approx(np.log(3), abs=0.1)


def test_relativistic_sees_the_real_batch_in_both_phases() -> None:
    made = task(adversarial=Relativistic(), penalties={"r1": R1(weight=1.0)})
    figures = phases(made, 0.0).step([[batch()]], adversarial=True)
    # One pair, seen from both sides by an unchanged judge: softplus(x) and softplus(-x) but for other shifts.
    assert figures["discriminator/wave"] == pytest.approx(np.log(2), abs=0.1)
    assert figures["adversarial/wave"] == pytest.approx(np.log(2), abs=0.1)


class Raised(Augmentation):
    """Raises every item by 3: seen at once in what a discriminator is shown."""

    domain = "wave"

    def __call__(self, x: Tensor, chance: Tensor) -> Tensor:
        return x + 3.0


class Listening(nn.Module):
    """A discriminator that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, labels: Tensor | None = None, shifts: Tensor | None = None) -> Any:
        self.shown.append(x.detach().clone())
        return [[self.gain * x.mean((1, 2), keepdim=True)]]


def test_all_that_discriminators_are_shown_is_augmented() -> None:
    """Real and made sounds, in the discriminators' phase and the generator's, or its changes leak into the sounds."""
    network = Listening()
    made = task(
        discriminators={"wave": ClipAdversary(network)},
        adversarial=Relativistic(),
        penalties={},
        augmentations=Augmentations([Raised()], probability=1.0, limit=1.0),
    )
    b, fake = batch(), 0.1 * torch.randn(4, 1, 1024)
    draws = Draws(0, b["position"].tolist())
    verdict = made.discriminator_phase(b, fake, draws, 0, contextlib.nullcontext)
    both = torch.cat([b["audio"], fake]) + 3.0
    torch.testing.assert_close(torch.cat(network.shown), both)
    network.shown.clear()
    terms = made.generator_phase(b, fake, verdict, draws, 0, contextlib.nullcontext)
    shown_fake, shown_real = network.shown
    torch.testing.assert_close(shown_fake, fake + 3.0)
    torch.testing.assert_close(shown_real, b["audio"] + 3.0)
    pairs = (fake.mean((1, 2)) - b["audio"].mean((1, 2))).double()
    assert float(terms["adversarial/wave"]) == pytest.approx(
        float(nn.functional.softplus(-pairs).mean()), rel=1e-5
    )


def test_a_generator_of_waves_learns_from_its_spectrum() -> None:
    mel = MelSpec(
        sample_rate=16000, n_fft=256, hop_length=64, win_length=256, n_mels=16, fmin=0.0, fmax=8000.0
    )
    view = LogMel(mel)
    made = task(
        adversarial=NonSaturating(),
        penalties={"r1": R1(weight=1.0)},
        discriminators={
            "spectrum": ClipAdversary(SpecGANDiscriminator(mel, frames=16, dim=2), view=view),
        },
    )
    before = made.generator.dense.weight.detach().clone()
    phases(made).step([[batch()]], adversarial=True)
    assert not torch.equal(before, made.generator.dense.weight)
    wave = torch.randn(2, 2, 1024)
    torch.testing.assert_close(view(wave), mel.mel(wave.mean(1))[..., :16])


def test_adaptive_augmentation_follows_the_discriminator() -> None:
    augmentations = Augmentations([Polarity()], target=0.6, ramp_items=100)
    made = task(adversarial=NonSaturating(), penalties={}, augmentations=augmentations)
    for _ in range(3):
        made.observe({"real_sign/wave": 1.0}, 8)
    assert augmentations.probability == pytest.approx(0.24)
    made.observe({"real_sign/wave": -1.0}, 8)
    assert augmentations.probability == pytest.approx(0.16)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"penalties": {}}, "Wasserstein needs critics of bounded slope"),
        ({"discriminators": {}}, "name at least one"),
        ({"critic_steps": 0}, "critic_steps must be at least 1, got 0"),
        (
            {
                "penalties": {"clip": WeightClipping()},
                "discriminators": {"wave": ClipAdversary(judge(spectral_norm=True))},
            },
            "WeightClipping clips what spectral",
        ),
        ({"penalties": {"a": GradientPenalty(), "b": GradientPenalty()}}, "GradientPenalty is there twice"),
        ({"augmentations": Augmentations([Polarity()], target=0.6)}, "Wasserstein only ranks"),
        (
            {"generator": WaveGANGenerator(labels=LABELS, **SMALL)},
            "no discriminator looks at them",
        ),
        (
            {"discriminators": {"wave": ClipAdversary(judge(labels=LABELS))}},
            "discriminators.wave: its labels are bell, hiss, zap, the generator's none",
        ),
    ],
)
def test_impossible_pairs_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changed)


MEL = MelSpec(sample_rate=16000, n_fft=256, hop_length=64, win_length=256, n_mels=16, fmin=0.0, fmax=8000.0)


@pytest.mark.parametrize(
    "mel, frames, message",
    [
        (replace(MEL, sample_rate=22050), 16, "view.mel is of 22050 Hz, the generator makes 16000 Hz"),
        (MEL, 8, "its view makes 16 frames of 1024 samples, the network takes 8"),
        (replace(MEL, fmax=7000.0), 16, "the network's mel isn't its view's"),
    ],
)
def test_a_view_makes_what_its_discriminator_takes(mel: MelSpec, frames: int, message: str) -> None:
    network = SpecGANDiscriminator(MEL, frames=frames, dim=2)
    with pytest.raises(ValueError, match=message):
        task(
            adversarial=Hinge(),
            penalties={},
            discriminators={"spectrum": ClipAdversary(network, view=LogMel(mel))},
        )


def test_a_deviation_over_the_batch_sees_real_and_generated_apart(sounds: Path) -> None:
    """What the discriminators' phase judges is what the network says of each half alone."""
    network = SpecGANDiscriminator(MEL, frames=16, dim=2, minibatch_deviation=True)
    made = task(
        adversarial=Hinge(),
        penalties={},
        discriminators={"spectrum": ClipAdversary(network, view=LogMel(MEL))},
    )
    b = batch()
    fake = b["audio"][:1].expand(4, -1, -1)  # collapsed
    draws = Draws(0, b["position"].tolist())
    verdict = made.discriminator_phase(b, fake, draws, 0, contextlib.nullcontext)
    view = LogMel(MEL)
    apart = Hinge().discriminator([network(view(b["audio"]))[0][-1]], [network(view(fake))[0][-1]])
    torch.testing.assert_close(verdict.losses["discriminator/spectrum"], apart)
    assert made.over_batch


def test_spectral_norm_bounds_a_critic_too() -> None:
    made = task(penalties={}, discriminators={"wave": ClipAdversary(judge(spectral_norm=True))})
    assert "critic_gap/wave" in phases(made).step([[batch()]], adversarial=True)


def test_a_loss_over_the_batch_takes_no_parts(sounds: Path) -> None:
    recipe = small_wave(sounds, 1, micro_batches=2)
    recipe["adversarial"] = {"class_path": "gansound.losses.mmd.MMD"}
    assert MMD().over_batch
    with pytest.raises(
        RecipeError, match="micro_batches: got 2, but the adversarial loss or a discriminator"
    ):
        plan(recipe)


def test_labels_come_from_the_corpus_and_go_into_the_model(sounds: Path, tmp_path: Path) -> None:
    planned = plan(small_wave(sounds, 1, labels="auto"))
    assert planned.task.generator.labels == LABELS
    assert planned.recipe["labels"] == list(LABELS)
    Run(planned, tmp_path / "run").fit()
    loaded = load_model_folder(tmp_path / "run" / "model")
    assert loaded.generator.labels == LABELS
    assert "path" not in loaded.info["data"]
    assert loaded.info["data"]["one_shots"]["peak_db"] == -1.0
    with pytest.raises(ModelFolderError, match="is a generator of clips, expected a vocoder"):
        loaded.mel  # noqa: B018
    with pytest.raises(ModelFolderError, match="--model 'a run/model' "):
        replace(loaded, path=Path("a run/model")).mel  # noqa: B018


def test_a_corpus_is_opened_once_and_labels_that_it_has_are_not_dropped_in_silence(
    sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    Run(plan(small_wave(sounds, 1, labels="auto")), tmp_path / "with")
    assert caplog.text.count("split by") == 1
    assert "without its labels" not in caplog.text
    Run(plan(small_wave(sounds, 1, labels=None)), tmp_path / "without")
    assert f"without its labels ({', '.join(LABELS)}); labels: auto would take them" in caplog.text


def test_a_flat_folder_trains_without_labels(tmp_path: Path) -> None:
    flat = write_sounds(tmp_path / "sounds", each=4) / "bell"
    planned = plan(small_wave(flat, 1, labels="auto"))
    assert planned.task.generator.labels == ()
    assert planned.recipe["labels"] is None


def run(recipe: dict[str, Any], folder: Path) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    planned = plan(recipe)
    Run(planned, folder).fit()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("step_seconds", "data_share")
    kept = [{k: v for k, v in line.items() if k not in timed} for line in lines]
    return kept, planned.task.generator.state_dict() | planned.task.discriminator.state_dict()


def test_resumed_equals_uninterrupted_bit_for_bit(sounds: Path, tmp_path: Path) -> None:
    """With critic rounds, labels, a lazy penalty and augmentation that adapts."""
    changes: dict[str, Any] = {
        "labels": "auto",
        "adversarial": {"class_path": "gansound.losses.adversarial.NonSaturating"},
        "penalties": {
            "gradient": None,
            "r1": {"class_path": "gansound.losses.penalties.R1", "init_args": {"weight": 1.0, "every": 2}},
        },
        "augmentations": {
            "class_path": "gansound.discriminators.augmentation.Augmentations",
            "init_args": {
                "ops": [{"class_path": "gansound.discriminators.augmentation.wave.Polarity"}],
                "target": 0.0,
                "ramp_items": 40,
            },
        },
        "ema_decay": 0.9,
        "checkpoint_every": 3,
        "validate_every": 2,
    }
    whole = run(small_wave(sounds, 6, **changes), tmp_path / "whole")
    run(small_wave(sounds, 3, **changes), tmp_path / "parts")
    resumed = run(small_wave(sounds, 6, **changes), tmp_path / "parts")
    assert [line["step"] for line in whole[0]][-6:] == list(range(1, 7))
    # The first part validated at its own last step too.
    assert [{k: v for k, v in x.items() if "valid" not in k} for x in resumed[0]] == [
        {k: v for k, v in x.items() if "valid" not in k} for x in whole[0]
    ]
    for name, value in whole[1].items():
        assert torch.equal(resumed[1][name], value), name
    probabilities = [
        line["augmentation_probability"] for line in whole[0] if "augmentation_probability" in line
    ]
    assert len(set(probabilities)) > 2, "the augmentation was to adapt"


class Echo(nn.Module):
    """Gives back the held-out sounds: as good as a generator gets."""

    def __init__(self, clips: Tensor) -> None:
        super().__init__()
        self.clips, self.next = clips, 0

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        self.next += len(latents)
        return self.clips[self.next - len(latents) : self.next]


def test_validation_tells_good_from_bad() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(1024) / 16000
    clips = [
        (np.sin(2 * np.pi * rng.uniform(300, 4000) * time) * np.exp(-time * 40)).astype(np.float32)[None]
        for _ in range(40)
    ]
    held_out = [(f"s{i}", clip) for i, clip in enumerate(clips)]
    made = task()
    good, examples = made.validate(Echo(torch.from_numpy(np.stack(clips))), held_out, torch.device("cpu"))
    bad, _ = made.validate(made.generator, held_out, torch.device("cpu"))
    one = torch.from_numpy(np.stack([clips[0]] * 40))
    collapsed, _ = made.validate(Echo(one), held_out, torch.device("cpu"))
    assert made.score(good) < made.score(bad)
    assert made.trouble(good) is None
    assert "alike" in made.trouble(collapsed)
    assert len(examples) == 4
    assert examples[0].fake.shape == examples[0].real.shape == (1024,)
    assert made.validate(made.generator, held_out[:3], torch.device("cpu")) == ({}, [])


class Heard(nn.Module):
    """Makes silence, and keeps the latents and labels that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.latents: list[Tensor] = []
        self.labels: list[Tensor] = []

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        self.latents.append(latents)
        self.labels.append(labels)
        return torch.zeros(len(latents), 1, 1024)


def test_validation_makes_each_held_out_sound_s_label_of_a_latent_of_its_own() -> None:
    """In blocks, of which the second isn't the first again."""
    rng = np.random.default_rng(0)
    held_out = [(f"s{i}", 0.1 * rng.standard_normal((1, 1024)).astype(np.float32)) for i in range(70)]
    labels = rng.integers(3, size=70).tolist()
    generator = Heard()
    _, examples = task(LABELS).validate(generator, held_out, torch.device("cpu"), labels)
    assert [len(part) for part in generator.labels] == [32, 32, 6]
    assert torch.cat(generator.labels).tolist() == labels
    assert len(torch.cat(generator.latents).unique(dim=0)) == 70
    assert [example.name for example in examples] == [f"{LABELS[labels[i]]}_{i}" for i in (0, 17, 35, 52)]


def test_that_too_few_sounds_are_held_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    held_out = [(f"s{i}", np.ones((1, 1024), np.float32)) for i in range(5)]
    made = task()
    for _ in range(2):
        assert made.validate(made.generator, held_out, torch.device("cpu")) == ({}, [])
    assert caplog.text.count("5 held-out sounds are too few to compare with (at least 6)") == 1


def test_augmentations_follow_the_mean_of_what_discriminators_say_of_real_sounds() -> None:
    made = task(augmentations=Augmentations([Polarity()], target=0.6), adversarial=NonSaturating())
    seen = []
    made.memory.observe = lambda sure, items: seen.append((sure, items))
    made.observe(
        {"real_sign/wave": 0.2, "real_sign/spectrum": 0.6, "real_signs": 9.0, "adversarial/wave": 9.0}, 8
    )
    made.observe({"adversarial/wave": 9.0}, 8)
    assert seen == [(pytest.approx(0.4), 8)]
