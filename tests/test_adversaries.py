"""What a recipe says of each discriminator beside its net: how often it takes part, and on how much it judges."""

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gansound.draw import Draws
from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.losses.adversarial import LeastSquares, Relativistic
from gansound.losses.feature_matching import FeatureMatching
from gansound.losses.spectral import MelL1
from gansound.recipe import RecipeError, load_recipe
from gansound.tasks.clip import ClipAdversary
from gansound.tasks.vocoder import Adversary, WeightedFeatureMatching, WeightedLoss
from tests.test_task import SPEC, Judge, audio, task, whole


def phases(made: object, rate: float = 1.0) -> Phases:
    optimizers = {
        "generator": torch.optim.SGD(made.generator.parameters(), lr=rate),
        "discriminator": torch.optim.SGD(made.discriminator.parameters(), lr=rate),
    }
    return Phases(made, Accelerator(cpu=True), optimizers)


def test_a_discriminator_takes_part_every_so_many_steps_and_counts_as_often() -> None:
    made = task(
        discriminators={"a": Adversary(Judge(0.7), 0.5, every=2), "b": Adversary(Judge(0.3), 2.0, every=3)}
    )
    assert made.takes_turns
    assert not task(discriminators={"a": Adversary(Judge(0.7))}).takes_turns
    assert (made.weights["adversarial/a"], made.weights["feature_matching/b"]) == (1.0, 18.0)
    assert made.weights["discriminator/a"] == 1.0
    run = phases(made, 1e-3)
    for step in range(7):
        before = {name: net.scale.item() for name, net in made.discriminator.items()}
        figures = run.step([[whole(audio(step))]], adversarial=True, step=step)
        for name, every in (("a", 2), ("b", 3)):
            due = step % every == 0
            kinds = ("discriminator", "adversarial", "feature_matching", "discriminator_wins")
            assert [f"{kind}/{name}" in figures for kind in kinds] == [due] * 4
            assert (made.discriminator[name].scale.item() != before[name]) == due
        assert ("gradient_norm/discriminator" in figures) == made.judged(step) == (step not in (1, 5))
        assert "one" in figures


def test_a_discriminator_learns_alone_before_it_teaches() -> None:
    late = Adversary(Judge(0.7), 0.5, every=2, teaches_from=3)
    made = task(discriminators={"late": late, "early": Adversary(Judge(0.3))})
    run = phases(made, 1e-3)
    for step in range(6):
        before = made.discriminator["late"].scale.item()
        figures = run.step([[whole(audio(step))]], adversarial=True, step=step)
        learns = step % 2 == 0
        assert (
            (made.discriminator["late"].scale.item() != before) == learns == ("discriminator/late" in figures)
        )
        assert [f"{kind}/late" in figures for kind in ("adversarial", "feature_matching")] == [step == 4] * 2
        assert "adversarial/early" in figures


def test_a_step_in_which_nothing_teaches_is_refused() -> None:
    task(discriminators={"a": Adversary(Judge()), "b": Adversary(Judge(), every=2)}, losses={})
    told = {"told": WeightedLoss(MelL1(SPEC), 0.0)}  # is written down, and teaches nothing
    for lazy in (Adversary(Judge(), every=2), Adversary(Judge(), teaches_from=5), Adversary(Judge(), 0.0)):
        for losses in ({}, told):
            with pytest.raises(ValueError, match="one must teach in every step from the first"):
                task(discriminators={"a": lazy, "b": lazy}, losses=losses)
        task(discriminators={"a": lazy})  # the losses teach
    assert task(losses=told).needs_discriminators
    with pytest.raises(ValueError, match="of some weight"):
        task(discriminators={}, losses=told)


def test_a_weight_below_nothing_is_refused() -> None:
    for weighted in (
        lambda weight: WeightedLoss(MelL1(SPEC), weight),
        lambda weight: WeightedFeatureMatching(weight=weight),
        lambda weight: Adversary(Judge(), weight),
        lambda weight: ClipAdversary(Judge(), weight),
    ):
        with pytest.raises(ValueError, match="weight must be 0 or more, got -1"):
            weighted(-1.0)
        weighted(0.0)


class Seen(nn.Module):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.sounds: list[Tensor] = []

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        self.sounds.append(audio.detach())
        return [[audio * self.scale] * 3]


def test_a_crop_is_of_real_and_generated_alike_in_both_phases_and_follows_the_position() -> None:
    nets = {"a": Seen(), "b": Seen()}
    made = task(discriminators={name: Adversary(net, crop_samples=300) for name, net in nets.items()})
    real = torch.arange(4 * 2048.0).view(4, 2048)
    batch = {"audio": real, "position": torch.arange(4) + 8}
    draws = Draws(0, range(8, 12))
    fake = -real
    verdict = made.discriminator_phase(batch, fake, draws, 0, torch.no_grad)
    made.generator_phase(batch, fake, verdict.kept, draws, 0, torch.no_grad)
    starts = {}
    for name, net in nets.items():
        judged, taught = net.sounds
        assert judged.shape == (8, 300)
        torch.testing.assert_close(judged[:4], -judged[4:])
        torch.testing.assert_close(taught, judged[4:])
        starts[name] = judged[:4, 0].remainder(2048)
        torch.testing.assert_close(judged[:4], real[:, :1] + starts[name][:, None] + torch.arange(300.0))
    assert not torch.equal(starts["a"], starts["b"])
    # An item's crop is its own, whatever else is in the batch.
    (alone,) = made.discriminators["a"].shown("a", (real[2:3],), Draws(0, [10]))
    torch.testing.assert_close(alone, nets["a"].sounds[0][2:3])
    # Every start is as likely, the first and the last too.
    (many,) = Adversary(Seen(), crop_samples=3).shown(
        "a", (torch.arange(6.0).repeat(400, 1),), Draws(1, range(400))
    )
    counts = torch.bincount(many[:, 0].long(), minlength=4)
    assert len(counts) == 4
    assert counts.min() > 70


def test_a_crop_must_fit_the_segment_and_the_network() -> None:
    judge = Judge()
    judge.shortest_samples = 100
    made = task(discriminators={"a": Adversary(judge, crop_samples=512)})
    made.check_segment(512)
    with pytest.raises(
        ValueError,
        match=r"discriminators\.a\.crop_samples must be from 100, .* to data\.segment_samples 256, got 512",
    ):
        made.check_segment(256)
    with pytest.raises(ValueError, match=r"from 100, .* got 99"):
        task(discriminators={"a": Adversary(judge, crop_samples=99)}).check_segment(512)
    # What the network needs is asked of its crop, not of the segment alone.
    with pytest.raises(ValueError, match=r"discriminators\.a\.network takes no fewer than 100"):
        task(discriminators={"a": Adversary(judge)}, losses={}).check_segment(0)
    for arguments in ({"every": 0}, {"crop_samples": 0}):
        with pytest.raises(ValueError, match="got 0"):
            Adversary(judge, **arguments)
    with pytest.raises(ValueError, match="teaches_from is a step, 0 or more, got -1"):
        Adversary(judge, teaches_from=-1)


@pytest.mark.parametrize("loss", [LeastSquares(), Relativistic()])
@pytest.mark.parametrize("fresh", [False, True])
def test_real_features_are_those_before_or_after_the_update(fresh: bool, loss: object) -> None:
    made = task(
        discriminators={"a": Adversary(Judge(0.7))},
        adversarial=loss,
        feature_matching=WeightedFeatureMatching(FeatureMatching("sum"), 3.0, fresh_real=fresh),
        losses={},
    )
    batch = whole(audio())
    with torch.no_grad():
        fake = made.generator(made.condition(batch))
    before = Judge(0.7)
    figures = phases(made, 3.0).step([[batch]], adversarial=True)
    after = Judge(made.discriminator["a"].scale.item())
    assert abs(after.scale.item() - before.scale.item()) > 0.03
    judge = after if fresh or loss.needs_real else before  # relativistic pairs are of the same discriminator
    with torch.no_grad():
        real, made_maps = judge(batch["audio"]), after(fake)
    matching = sum(
        (r - f).abs().mean() for a, b in zip(real, made_maps, strict=True) for r, f in zip(a, b, strict=True)
    )
    assert figures["feature_matching/a"] == pytest.approx(matching.item(), rel=1e-4)
    expected = loss.generator([maps[-1] for maps in made_maps], [maps[-1] for maps in real])
    assert figures["adversarial/a"] == pytest.approx(expected.item(), rel=1e-4)


class Apart(Seen):
    judged_apart = True


def test_a_network_may_be_given_real_and_generated_sounds_one_after_the_other() -> None:
    net = Apart()
    made = task(discriminators={"a": Adversary(net)})
    batch = whole(audio())
    made.discriminator_phase(batch, -batch["audio"], Draws(0, range(2)), 0, torch.no_grad)
    real, fake = net.sounds
    assert torch.equal(real, batch["audio"])
    assert torch.equal(fake, -real)


DISCRIMINATOR = "gansound.discriminators"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"discriminators.mpd.weight": 0.5}, r"discriminators\.mpd\.network: missing"),
        ({"discriminators.msd.every": 0}, r"discriminators\.msd: every counts steps from 1 on, got 0"),
        ({"discriminators.msd.crop_samples": 9000}, r"discriminators\.msd\.crop_samples must be .* 8192, got 9000"),
        ({"discriminators.msd.slicing": True}, r"discriminators\.msd\.slicing: .* got LeastSquares"),
        (
            {
                "discriminators.msd.network": {
                    "class_path": f"{DISCRIMINATOR}.multi_resolution.MultiResolutionDiscriminator",
                    "init_args": {"resolutions": [[32768, 256, 32768]]},
                }
            },
            r"data\.segment_samples must be at least 16384, got 8192: discriminators\.msd\.network",
        ),
        (
            {
                "discriminators.msd.network": {
                    "class_path": f"{DISCRIMINATOR}.sub_band_cqt.SubBandCQTDiscriminator",
                    "init_args": {"octaves": 10},
                }
            },
            r"discriminators\.msd\.network: octaves: the highest of 10 .* 22050 Hz",
        ),
        (
            {
                "discriminators.msd.network": {
                    "class_path": f"{DISCRIMINATOR}.sub_band.SubBandDiscriminator",
                    "init_args": {
                        "bands": 3,
                        "network": {"class_path": f"{DISCRIMINATOR}.wave_u_net.WaveUNetDiscriminator"},
                    },
                }
            },
            r"discriminators\.msd\.network: .* hop_length 256, got 3 bands",
        ),
        (
            {"discriminators.msd.network.class_path": f"{DISCRIMINATOR}.multi_period.MultiPeriodDiscriminator",
             "discriminators.msd.network.init_args": {"periods": [2, 9000]}},
            r"at least 9216, got 8192: discriminators\.msd\.network takes no fewer than 9000",
        ),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_refused_before_a_file_is_read(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(load_recipe("tiny_cpu", changes))
