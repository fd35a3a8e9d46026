"""The two halves composed: a generator of log-mels and a vocoder are one generator of clips."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from gansound.generators.freev import FreeVGenerator
from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.latent import LatentGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.generators.prior import Normal
from gansound.generators.specgan import SpecGANGenerator
from gansound.generators.vocoded import VocodedGenerator, vocoded_config
from gansound.mel import MelSpec
from gansound.recipe import RecipeError, build

MEL = MelSpec(
    sample_rate=8000, n_fft=128, hop_length=32, win_length=128, n_mels=20, fmin=0.0, fmax=4000.0, floor=1e-4
)
LABELS = ("kick", "snare")


def vocoders() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        FreeVGenerator(MEL, channels=8, hidden_channels=8, blocks=1),
        MelGANGenerator(20, channels=8, upsample_rates=(8, 4)),
        HiFiGANGenerator(
            20,
            channels=8,
            upsample_rates=(8, 4),
            upsample_kernel_sizes=(16, 8),
            residual_kernel_sizes=(3,),
            residual_dilations=((1,),),
        ),
    ]


def mel_generator(labels: tuple[str, ...] = LABELS, frames: int = 13) -> SpecGANGenerator:
    torch.manual_seed(1)
    return SpecGANGenerator(MEL, frames, dim=4, prior=Normal(6), labels=labels)


@pytest.mark.parametrize("which", range(3))
def test_it_is_the_parts_one_after_the_other(which: int) -> None:
    vocoder, mels = vocoders()[which], mel_generator()
    whole = VocodedGenerator(mels, vocoder, MEL)
    z, labels = torch.randn(3, 6), torch.tensor([0, 1, 1])
    with torch.no_grad():
        parts = vocoder(mels(z, labels))
        made = whole(z, labels)
    parts = parts / parts.abs().amax(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(made[:, 0], parts, rtol=1e-5, atol=1e-5)
    assert made.shape == (3, 1, 13 * 32)
    assert isinstance(whole, LatentGenerator)
    assert (whole.sample_rate, whole.channels, whole.clip_samples) == (8000, 1, 13 * 32)
    assert whole.prior is mels.prior
    assert whole.labels == LABELS


def test_the_vocoder_is_a_frozen_folded_copy() -> None:
    vocoder = vocoders()[1].train()
    whole = VocodedGenerator(mel_generator(()), vocoder, MEL)
    assert any(parametrize.is_parametrized(m) for m in vocoder.modules())  # the caller's own is as it was
    assert all(p.requires_grad for p in vocoder.parameters())
    assert not any(parametrize.is_parametrized(m) for m in whole.modules())
    assert not any(p.requires_grad for p in whole.vocoder.parameters())
    whole(torch.randn(2, 6)).square().mean().backward()
    assert all(p.grad is not None for p in whole.mel_generator.parameters())


class _Loud(nn.Module):
    n_mels, hop_length = 20, 32

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        wave = torch.sin(torch.arange(mel.shape[2] * 32) / 10).expand(len(mel), -1)
        return self.level * torch.arange(1, len(mel) + 1)[:, None] * wave


def test_a_clip_above_full_scale_is_turned_down_and_no_other() -> None:
    whole = VocodedGenerator(mel_generator(()), _Loud(0.8), MEL)
    made = whole(torch.randn(3, 6))[:, 0]
    wave = torch.sin(torch.arange(13 * 32) / 10)
    torch.testing.assert_close(made[0], 0.8 * wave)
    torch.testing.assert_close(made[2], wave / wave.abs().max())


class _Following(_Loud):
    """As loud as the mean of its log-mel says."""

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return super().forward(mel) * mel.mean((1, 2)).exp()[:, None]


def test_what_turns_a_clip_down_is_no_function_of_it() -> None:
    """A natural logarithm more makes it e times as loud, so that the derivative of each sample is the sample."""
    mels: list[torch.Tensor] = []
    generator = mel_generator(())
    generator.register_forward_hook(lambda module, given, made: mels.append(made) or made.retain_grad())
    made = VocodedGenerator(generator, _Following(1e9), MEL)(torch.randn(3, 6))[:, 0]
    torch.testing.assert_close(made.detach().abs().amax(1), torch.ones(3))
    made.sum().backward()
    torch.testing.assert_close(mels[0].grad.sum((1, 2)), made.detach().sum(1), rtol=1e-4, atol=1e-5)


def test_another_convention_is_refused_by_name() -> None:
    other = MelSpec.from_dict(MEL.to_dict() | {"fmax": 3500.0, "floor": 1e-5})
    with pytest.raises(ValueError, match=r"fmax: 4000\.0 here, 3500\.0 there") as error:
        VocodedGenerator(mel_generator(), vocoders()[0], other)
    assert "floor" in str(error.value)
    with pytest.raises(ValueError, match=r"MelGANGenerator has hop_length 16, expected its mel's 32"):
        VocodedGenerator(mel_generator(), MelGANGenerator(20, channels=8, upsample_rates=(4, 4)), MEL)
    with pytest.raises(ValueError, match=r"Linear has no prior, labels, mel, frames"):
        VocodedGenerator(nn.Linear(1, 1), vocoders()[0], MEL)
    with pytest.raises(ValueError, match="expected a label for each of 2 latents"):
        VocodedGenerator(mel_generator(), vocoders()[0], MEL)(torch.randn(2, 6))


def node() -> dict:
    return {
        "class_path": "gansound.generators.vocoded.VocodedGenerator",
        "init_args": {
            "mel_generator": {
                "class_path": "gansound.generators.specgan.SpecGANGenerator",
                "init_args": {
                    "frames": 13,
                    "dim": 4,
                    "prior": {"class_path": "gansound.generators.prior.Normal", "init_args": {"dim": 6}},
                },
            },
            "vocoder": {
                "class_path": "gansound.generators.freev.FreeVGenerator",
                "init_args": {"channels": 8, "hidden_channels": 8, "blocks": 1},
            },
        },
    }


def test_it_is_built_from_a_recipe_that_says_the_mel_once() -> None:
    whole = build(node(), LatentGenerator, "generator", context={"mel": MEL, "labels": LABELS})
    assert whole.labels == LABELS
    assert whole.mel == MEL
    assert whole(torch.randn(2, 6), torch.tensor([0, 1])).shape == (2, 1, 416)
    wrong = node()
    wrong["init_args"]["mel_generator"]["init_args"]["mel"] = MEL.to_dict() | {"fmax": 3000.0}
    with pytest.raises(RecipeError, match=r"generator: .*fmax: 3000\.0 here, 4000\.0 there"):
        build(wrong, LatentGenerator, "generator", context={"mel": MEL})


def test_its_config_builds_it_again_without_context() -> None:
    whole = build(node(), LatentGenerator, "generator", context={"mel": MEL, "labels": LABELS})
    parts = node()["init_args"]
    parts["mel_generator"]["init_args"]["labels"] = list(LABELS)
    config = vocoded_config(whole, parts["mel_generator"], parts["vocoder"])
    again = build(config, LatentGenerator, "generator")
    again.load_state_dict(whole.state_dict())
    z, labels = torch.randn(2, 6), torch.tensor([1, 0])
    assert torch.equal(again(z, labels), whole(z, labels))
    # MelGAN takes no convention: none is forced on it.
    melgan = {
        "class_path": "gansound.generators.melgan.MelGANGenerator",
        "init_args": {"n_mels": 20, "channels": 8, "upsample_rates": [8, 4]},
    }
    other = VocodedGenerator(mel_generator(), vocoders()[1], MEL)
    built = build(vocoded_config(other, parts["mel_generator"], melgan), LatentGenerator, "generator")
    built.load_state_dict(other.state_dict())
    assert torch.equal(built(z, labels), other(z, labels))
