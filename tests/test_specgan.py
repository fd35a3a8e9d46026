"""SpecGAN: the range of a mel, shapes at any size, labels, gradients once and twice."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gansound.discriminators.heads import AuxiliaryClassifier, Projection
from gansound.discriminators.specgan import SpecGANDiscriminator
from gansound.generators.prior import Normal
from gansound.generators.specgan import Doubling, SpecGANGenerator
from gansound.generators.vocoded import VocodedGenerator
from gansound.losses.adversarial import NonSaturating
from gansound.mel import MelSpec, presets
from gansound.mel.levels import Levels, silence_and_full_scale
from gansound.nn.conditioning import Concatenation, FiLM
from gansound.recipe import RecipeError, build
from gansound.tasks.clip import ClipAdversary
from gansound.tasks.mel_clip import MelClipTask
from tests.tiny import save_tiny_model

MEL = MelSpec.preset("hifigan")
LABELS = ("kick", "snare", "hat")


def small(bands: int, **more: object) -> MelSpec:
    values = MEL.to_dict() | {"n_mels": bands} | more
    return MelSpec.from_dict(values)


def latents(count: int, dim: int = 100, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- the range


def loud_sounds(rate: int) -> torch.Tensor:
    """What comes near the bound: square waves of every band's frequency, noise of ±1, an impulse, a constant."""
    rng = np.random.default_rng(0)
    t = np.arange(8192) / rate
    waves = [np.sign(np.cos(2 * np.pi * f * t)) for f in np.geomspace(20, rate / 2.02, 60)]
    waves += [np.sign(rng.standard_normal(8192)), np.ones(8192), np.eye(1, 8192, 4000)[0]]
    return torch.tensor(np.stack(waves), dtype=torch.float32)


@pytest.mark.parametrize("name", presets())
def test_no_sound_within_one_reads_above_full_scale_or_below_silence(name: str) -> None:
    spec = MelSpec.preset(name)
    low, high = silence_and_full_scale(spec)
    mels = spec.mel(loud_sounds(spec.sample_rate))
    torch.testing.assert_close(
        low.expand(-1, spec.frames(4096)), spec.mel(torch.zeros(1, 4096))[0], rtol=0, atol=2e-6
    )
    assert (mels >= low - 2e-5).all()
    assert (mels <= high + 2e-5).all()
    # The bound is no mere number: each band comes within 19 dB of it (less where a clip lies lower).
    short = (spec.to_magnitude(high[None]) / spec.to_magnitude(mels.amax((0, 2))[None, :, None])).log10() * 20
    assert 0 <= short.max() < 19


def test_full_scale_counts_what_the_convention_adds_to_each_bin() -> None:
    spec = small(20, magnitude_eps=1e6)  # more than any sound's own
    low, high = silence_and_full_scale(spec)
    mels = spec.mel(loud_sounds(spec.sample_rate))
    assert (mels <= high + 2e-5).all()
    assert (low < high).all()


def test_levels_are_affine_from_silence_to_full_scale_band_by_band() -> None:
    spec = small(20, mean=tuple(np.linspace(-3, 1, 20)), scale=tuple(np.linspace(1, 4, 20)))
    levels = Levels(spec)
    low, high = silence_and_full_scale(spec)
    torch.testing.assert_close(levels.unit(low[None]), -torch.ones(1, 20, 1))
    torch.testing.assert_close(levels.unit(high[None]), torch.ones(1, 20, 1))
    mel = spec.mel(torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)) / 8)
    torch.testing.assert_close(levels.value(levels.unit(mel)), mel)
    assert not levels.state_dict()  # derived from the convention, not stored


def test_a_band_without_a_filter_divides_nothing_by_zero() -> None:
    spec = small(100, n_fft=256, win_length=256, fmax=11025.0)
    assert (spec.filter_bank().sum(1) == 0).any()
    assert torch.isfinite(Levels(spec).unit(spec.mel(torch.zeros(1, 4096)))).all()


# --- the generator


@pytest.mark.parametrize(
    "bands, frames", [(80, 64), (80, 65), (13, 21), (2, 2), (7, 40), (100, 9), (128, 128)]
)
def test_any_bands_and_frames(bands: int, frames: int) -> None:
    mel = small(bands)
    made = SpecGANGenerator(mel, frames, dim=4)(latents(3))
    assert made.shape == (3, bands, frames)
    assert made.dtype == torch.float32
    judge = SpecGANDiscriminator(mel, frames, dim=4)
    assert [layer.out_channels for layer in judge.layers] == [4 * 2**i for i in range(len(judge.layers))]
    maps = judge(made)
    assert len(maps) == 1
    assert maps[0][-1].shape == (3, 1)
    assert all(m.dim() == 4 and m.shape[0] == 3 for m in maps[0][:-1])


def test_the_shorter_side_of_the_coarsest_map_has_four_to_seven_cells() -> None:
    for bands, frames in ((80, 64), (80, 33), (128, 128), (31, 90), (16, 8)):
        generator = SpecGANGenerator(small(bands), frames, dim=2)
        assert 4 <= min(generator.first[1:]) <= 8  # rounded up
        maps = SpecGANDiscriminator(small(bands), frames, dim=2)(generator(latents(1)))[0]
        assert 4 <= min(maps[-2].shape[2:]) <= 7
        # As many layers here as there.
        assert len(generator.layers) == len(maps) - 1


def test_sizes_as_the_docstring_says() -> None:
    counts = [sum(p.numel() for p in SpecGANGenerator(MEL, dim=dim).parameters()) / 1e6 for dim in (64, 32)]
    assert [round(count, 1) for count in counts] == [3.8, 1.2]


@pytest.mark.parametrize("name", ["hifigan", "coqui", "amphion_24khz"])
def test_it_reaches_silence_exactly_and_never_leaves_the_range(name: str) -> None:
    mel = MelSpec.preset(name)
    generator = SpecGANGenerator(mel, 32, dim=4)
    low, high = silence_and_full_scale(mel)
    with torch.no_grad():
        generator.last.bias.fill_(-4.0)  # type: ignore[union-attr]
        assert torch.equal(generator(latents(2)), low.expand(2, -1, 32))
        generator.last.bias.fill_(4.0)  # type: ignore[union-attr]
        torch.testing.assert_close(generator(latents(2)), high.expand(2, -1, 32), rtol=0, atol=1e-5)
        generator.last.bias.zero_()  # type: ignore[union-attr]
        generator.last.weight.mul_(10)
        spread = generator(latents(2))
    assert (spread >= low).all()
    assert (spread <= high + 1e-5).all()


def test_what_lies_at_silence_can_come_back() -> None:
    generator = SpecGANGenerator(MEL, 16, dim=2)
    with torch.no_grad():
        generator.last.weight.zero_()
        generator.last.bias.fill_(-3.0)  # type: ignore[union-attr]
    generator(latents(2)).sum().backward()
    assert generator.last.bias.grad.item() > 0  # type: ignore[union-attr]


def test_a_doubling_starts_as_a_convolution_of_nearest_neighbours() -> None:
    torch.manual_seed(0)
    layer = Doubling(3, 2).double()
    # Each corner of the 4 x 4 kernel holds one tap of the 3 x 3 one.
    w = layer.weight
    kernel = torch.empty(3, 2, 3, 3, dtype=torch.float64)
    for i, row in enumerate((3, None, 0)):
        for j, column in enumerate((3, None, 0)):
            if row is not None and column is not None:
                kernel[:, :, i, j] = w[:, :, row, column]
    kernel[:, :, 0, 1] = w[:, :, 3, 1] - kernel[:, :, 0, 2]
    kernel[:, :, 2, 1] = w[:, :, 0, 1] - kernel[:, :, 2, 2]
    kernel[:, :, 1, 0] = w[:, :, 1, 3] - kernel[:, :, 2, 0]
    kernel[:, :, 1, 2] = w[:, :, 1, 0] - kernel[:, :, 2, 2]
    kernel[:, :, 1, 1] = w[:, :, 1, 1] - kernel[:, :, 1, 2] - kernel[:, :, 2, 1] - kernel[:, :, 2, 2]
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), kernel.transpose(0, 1), padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)
    assert abs(kernel.std().item() - math.sqrt(2 / 27)) < 0.06


def test_an_item_is_the_same_in_any_batch() -> None:
    generator = SpecGANGenerator(MEL, 32, dim=4, prior=Normal(7))
    z = latents(5, 7)
    torch.testing.assert_close(generator(z)[3:4], generator(z[3:4]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("conditioner", [None, Concatenation(5), FiLM(5)])
def test_the_label_changes_the_mel(conditioner: Concatenation | FiLM | None) -> None:
    torch.manual_seed(1)
    generator = SpecGANGenerator(MEL, 16, dim=4, labels=LABELS, conditioner=conditioner)
    z = latents(1).expand(3, -1)
    made = generator(z, torch.arange(3))
    assert generator.labels == LABELS
    assert (made[0] - made[1]).abs().max() > 1e-3
    assert (made[1] - made[2]).abs().max() > 1e-3
    torch.testing.assert_close(made[1:2], generator(z[:1], torch.tensor([1])), rtol=0, atol=1e-4)
    made.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_autocast_keeps_the_mel_in_full_precision() -> None:
    generator = SpecGANGenerator(MEL, 16, dim=16)
    with torch.autocast("cpu", torch.bfloat16):
        made = generator(latents(2))
    assert made.dtype == torch.float32
    assert torch.unique(made).numel() > 1000  # bf16 has no so many numbers there
    torch.testing.assert_close(made, generator(latents(2)), rtol=0, atol=0.5)


def test_what_a_generator_refuses() -> None:
    with pytest.raises(ValueError, match="dim must be positive, got 0"):
        SpecGANGenerator(MEL, dim=0)
    with pytest.raises(ValueError, match="got 80 and 1"):
        SpecGANGenerator(MEL, frames=1)
    generator = SpecGANGenerator(MEL, 16, dim=2, labels=LABELS)
    with pytest.raises(ValueError, match=r"latents of shape \(batch, 100\), got \(2, 99\)"):
        generator(latents(2, 99), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="expected a label for each of 2 latents"):
        generator(latents(2))
    with pytest.raises(ValueError, match="has no labels"):
        SpecGANGenerator(MEL, 16, dim=2)(latents(2), torch.zeros(2, dtype=torch.long))


# --- the discriminator


def drum_mels(count: int, frames: int = 16) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    decay = torch.exp(-torch.arange(frames * 256) / 1000)
    return MEL.mel(torch.randn(count, frames * 256, generator=rng) * 0.3 * decay)


def test_it_judges_items_one_by_one_and_gradients_reach_the_sound() -> None:
    torch.manual_seed(0)
    judge = SpecGANDiscriminator(MEL, 16, dim=4)
    wave = (torch.randn(3, 4096, generator=torch.Generator().manual_seed(3)) * 0.1).requires_grad_()
    logits = judge(MEL.mel(wave))[0][-1]
    torch.testing.assert_close(logits[1:2], judge(MEL.mel(wave[1:2]))[0][-1])
    logits[1].sum().backward()
    gradient = wave.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient[1].abs().sum() > 0
    assert gradient[0].abs().sum() == 0


def test_it_sees_a_mel_in_units_of_the_convention() -> None:
    """The same sound in another log base, with another affine, is judged the same by the same weights."""
    torch.manual_seed(0)
    other = small(80, log="log10", mean=(-2.0,), scale=(3.0,))
    judges = [SpecGANDiscriminator(spec, 16, dim=4) for spec in (MEL, other)]
    judges[1].load_state_dict(judges[0].state_dict())
    mel = drum_mels(2)
    for a, b in zip(judges[0](mel)[0], judges[1](MEL.convert(mel, other))[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "more", [{}, {"spectral_norm": True}, {"minibatch_deviation": True}, {"labels": LABELS}]
)
def test_second_derivatives_are_those_of_the_logit(more: dict) -> None:
    """A gradient penalty's own gradient against a finite difference, along one direction of the weights."""
    torch.manual_seed(0)
    judge = SpecGANDiscriminator(small(16), 16, dim=4, **more).double().eval()
    labels = torch.tensor([0, 2]) if more.get("labels") else None
    x = (torch.randn(2, 16, 16, dtype=torch.float64) - 5).requires_grad_()
    weights = [p for p in judge.parameters() if p.requires_grad]
    direction = [torch.randn_like(p) for p in weights]

    def penalty() -> torch.Tensor:
        (g,) = torch.autograd.grad(judge(x, labels)[0][-1].sum(), x, create_graph=True)
        return g.square().sum(dim=(1, 2)).mean()

    gradients = torch.autograd.grad(penalty(), weights, allow_unused=True)
    along = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)

    def moved(by: float) -> float:
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p.add_(d, alpha=by)
        value = penalty().item()
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p.sub_(d, alpha=by)
        return value

    assert along == pytest.approx((moved(1e-7) - moved(-1e-7)) / 2e-7, rel=1e-3)
    assert along != 0


def test_the_head_decides_what_a_label_means() -> None:
    mel, zeros = drum_mels(3), torch.zeros(3, dtype=torch.long)
    projection = SpecGANDiscriminator(MEL, 16, dim=2, labels=LABELS)
    assert projection.labels == LABELS
    assert projection.class_logits == 0
    assert not torch.allclose(projection(mel, zeros)[0][-1], projection(mel, zeros + 1)[0][-1])
    guess = SpecGANDiscriminator(MEL, 16, dim=2, labels=LABELS, head=AuxiliaryClassifier())
    assert guess.labels == LABELS
    assert guess.class_logits == 3
    assert guess(mel)[0][-1].shape == (3, 4)
    flat = SpecGANDiscriminator(MEL, 16, dim=2, head=Projection())
    assert flat.labels == ()
    assert flat(mel)[0][-1].shape == (3, 1)
    assert flat.shuffle_layers == flat.phase_shuffle == 0


def test_spectral_norm_bounds_the_weights() -> None:
    judge = SpecGANDiscriminator(MEL, 16, dim=4, labels=LABELS, spectral_norm=True)
    assert judge.bounds_lipschitz
    labels = torch.zeros(2, dtype=torch.long)
    for _ in range(30):
        judge(drum_mels(2), labels)
    judge.eval()
    weights = [m.weight for m in judge.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weights) == len(judge.layers) + 1
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


def test_minibatch_deviation_tells_a_collapsed_batch() -> None:
    torch.manual_seed(0)
    judge = SpecGANDiscriminator(MEL, 16, dim=2, minibatch_deviation=True)
    mel = drum_mels(4)
    seen: list[torch.Tensor] = []
    judge.layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1]))
    before = []
    judge.layers[-1].register_forward_pre_hook(lambda _, inputs: before.append(inputs[0][:, :-1]))
    judge(mel), judge(mel[:1].expand(4, -1, -1))
    expected = before[0].detach().numpy().std(0).mean()
    np.testing.assert_allclose(seen[0].detach().numpy(), expected, rtol=1e-3)
    assert seen[1].max() <= 1.1e-4


def test_what_a_discriminator_refuses() -> None:
    with pytest.raises(ValueError, match="got dim=0"):
        SpecGANDiscriminator(MEL, dim=0)
    with pytest.raises(ValueError, match="1 frames"):
        SpecGANDiscriminator(MEL, frames=1)
    with pytest.raises(ValueError, match="set one"):
        SpecGANDiscriminator(MEL, spectral_norm=True, minibatch_deviation=True)
    judge = SpecGANDiscriminator(MEL, 16, dim=2, labels=LABELS)
    with pytest.raises(ValueError, match=r"80 bands, 16 frames\), got \(1, 80, 17\)"):
        judge(torch.zeros(1, 80, 17))
    with pytest.raises(ValueError, match="expected a label for each of 2 clips, got none"):
        judge(torch.zeros(2, 80, 16))


def test_both_are_built_from_a_recipe() -> None:
    context = {"mel": MEL, "labels": LABELS, "frames": 24}
    node = {
        "class_path": "gansound.generators.specgan.SpecGANGenerator",
        "init_args": {
            "dim": 2,
            "conditioner": {"class_path": "gansound.nn.conditioning.FiLM", "init_args": {"dim": 3}},
            "prior": {"class_path": "gansound.generators.prior.Normal", "init_args": {"dim": 5}},
        },
    }
    generator = build(node, torch.nn.Module, "generator", context=context)
    assert (generator.labels, generator.frames, generator.prior.dim) == (LABELS, 24, 5)
    judge = build(
        {
            "class_path": "gansound.discriminators.specgan.SpecGANDiscriminator",
            "init_args": {
                "dim": 2,
                "head": {"class_path": "gansound.discriminators.heads.AuxiliaryClassifier"},
            },
        },
        torch.nn.Module,
        "discriminator",
        context=context,
    )
    assert judge(generator(latents(2, 5), torch.tensor([0, 1])))[0][-1].shape == (2, 4)
    with pytest.raises(RecipeError, match="dim must be positive, got -1"):
        build(node | {"init_args": {"dim": -1}}, torch.nn.Module, "generator", context=context)


def test_every_layer_has_channels_of_unit_mean_square_before_its_activation() -> None:
    """Pixel normalisation of Karras et al., "Progressive Growing of GANs" (arXiv 1710.10196), section 4.2."""
    made = SpecGANGenerator(small(16), 8, dim=2)
    seen = []
    for layer in (made.dense, *made.layers):
        layer.register_forward_hook(lambda _, __, out: seen.append(out))
    given = []
    for layer in (*made.layers, made.last):
        layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    made(latents(3))
    seen[0] = seen[0].unflatten(1, made.first)
    for out, after in zip(seen, given, strict=True):
        expected = F.leaky_relu(out / (out.square().mean(1, keepdim=True) + 1e-8).sqrt(), 0.2)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)


# --- the task


def test_discriminators_are_shown_the_log_mels_of_real_sounds(tmp_path: Path) -> None:
    vocoder = save_tiny_model(tmp_path / "vocoder")
    judge = ClipAdversary(SpecGANDiscriminator(MEL, frames=8, dim=2))
    generator = SpecGANGenerator(MEL, frames=8, dim=2)
    task = MelClipTask(MEL, generator, {"mel": judge}, str(vocoder), NonSaturating())
    sounds = 0.1 * torch.randn(3, 1, 8 * 256)
    assert torch.equal(task.real({"audio": sounds}), MEL.mel(sounds[:, 0]))
    assert (task.channels, task.sample_rate, task.clip_samples) == (1, 22050, 8 * 256)
    average = SpecGANGenerator(MEL, frames=8, dim=2)
    z = latents(2, average.prior.dim)
    with torch.no_grad():
        whole, _ = task.shipped(average, {"class_path": "gansound.generators.specgan.SpecGANGenerator"})
        sound = task.sound(average, z, None)
        assert torch.equal(sound, whole(z))
        assert torch.equal(sound, VocodedGenerator(average, whole.vocoder, MEL)(z))
        assert not torch.equal(sound, task.sound(generator, z, None))
    assert task.shipped(generator, {"class_path": "x"})[0].vocoder is whole.vocoder  # of which there is one
