"""`ClipGenerator`: a sound is a function of seed, index and label alone, and fit to be heard."""

import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from gansound.draw import draw
from gansound.generators.latent import LatentGenerator
from gansound.generators.prior import Bits, Joint, Normal
from gansound.inference.clips import ClipGenerator
from gansound.model_folder import LoadedModel
from gansound.nn.conditioning import Concatenation, FiLM
from tests.clip_models import DRUMS, tiny_clips, tiny_generator

pytestmark = pytest.mark.usefixtures("one_thread")


class Loud(LatentGenerator):
    """Constant clips as loud as the latent says."""

    def __init__(self):
        super().__init__()
        self.prior, self.labels, self.sample_rate, self.channels, self.clip_samples = (
            Normal(1),
            (),
            1000,
            2,
            400,
        )

    def forward(self, latents, labels=None):
        self.check_inputs(latents, labels)
        return latents[:, :, None].expand(-1, 2, 400)


def loud(**fades):
    return ClipGenerator(LoadedModel(Loud(), None, {}, Path("loud"), {}), "cpu", **fades)


@pytest.mark.parametrize("labels", [(), DRUMS])
def test_a_sound_is_the_same_at_any_n_and_place(labels):
    clips = tiny_clips(labels)
    many = clips.generate(37, seed=3)
    assert many.shape == (37, 1, 2048)
    assert many.dtype == np.float32
    assert len({clip.tobytes() for clip in many}) == 37
    for first, n in ((0, 1), (36, 1), (5, 16), (15, 18), (0, 32)):
        np.testing.assert_array_equal(clips.generate(n, seed=3, first=first), many[first : first + n])
    assert not np.array_equal(clips.generate(1, seed=4), many[:1])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads):
    clips = tiny_clips()
    expected = clips.generate(5)
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(clips.generate(5), expected)


@pytest.mark.parametrize("conditioner", [Concatenation(4), FiLM(4)])
def test_it_is_what_the_generator_makes_of_the_priors_own_draws(conditioner):
    prior = Joint([Normal(5), Bits(3)])
    generator = tiny_generator(DRUMS, prior=prior, conditioner=conditioner).eval()
    clips = ClipGenerator(
        LoadedModel(generator, None, {}, Path("x"), {}), "cpu", fade_in_ms=1.0, fade_out_ms=2.0
    )
    latents = np.stack([prior.sample(draw(11, 6 + i, "latent")) for i in range(4)])
    with torch.no_grad():
        raw = generator(torch.from_numpy(latents), torch.tensor([0, 1, 2, 0])).numpy()
    rise = (1 - np.cos(np.pi * np.arange(8) / 8)) / 2
    raw[..., :8] *= rise
    raw[..., -16:] *= (1 + np.cos(np.pi * np.arange(1, 17) / 16)) / 2
    np.testing.assert_allclose(clips.generate(4, 11, first=6), raw, atol=5e-6)


def test_truncation_halves_the_continuous_part_alone():
    clips = tiny_clips(prior=Joint([Normal(5), Bits(3)]))
    whole, half = clips.latents(9), clips.latents(9, truncation=0.5)
    torch.testing.assert_close(half[:, :5], whole[:, :5] / 2)
    torch.testing.assert_close(half[:, 5:], whole[:, 5:])
    assert not np.array_equal(clips.generate(9), clips.generate(9, truncation=0.5))


def test_peaks_are_brought_to_full_scale_and_told(caplog):
    clips = loud(fade_in_ms=10, fade_out_ms=10)
    latents = torch.tensor([[0.5], [1.0], [-4.0], [2.0]])
    with caplog.at_level(logging.WARNING, logger="gansound"):
        sounds = clips.synthesize(latents)
    np.testing.assert_array_equal(np.abs(sounds).max((1, 2)), [0.5, 1, 1, 1])
    assert sounds[2, 0, 200] == -1
    assert "2 of 4 clips" in caplog.text
    assert "12.0 dB" in caplog.text
    caplog.clear()
    clips.synthesize(latents[:2])
    assert caplog.text == ""


@pytest.mark.parametrize(
    "fades", [{}, {"fade_in_ms": 0, "fade_out_ms": 0}, {"fade_in_ms": 400, "fade_out_ms": 400}]
)
def test_every_clip_starts_and_ends_at_exactly_zero(fades):
    sounds = loud(**fades).synthesize(torch.ones(3, 1))
    assert (sounds[..., 0] == 0).all()
    assert (sounds[..., -1] == 0).all()
    assert sounds.max() > 0.24


def test_labels_take_turns_by_index():
    clips = tiny_clips(DRUMS)
    mixed = clips.generate(7, seed=1, first=2)
    for i, name in enumerate(["snare", "hat", "kick", "snare", "hat", "kick", "snare"]):
        np.testing.assert_array_equal(mixed[i], clips.generate(1, 1, label=name, first=2 + i)[0])
    two = clips.generate(4, seed=1, label=["snare", "hat"])
    np.testing.assert_array_equal(two[3], clips.generate(1, 1, label="hat", first=3)[0])
    assert not np.array_equal(clips.generate(1, label="hat"), clips.generate(1, label="kick"))


@pytest.mark.parametrize("conditioner", [Concatenation(4), FiLM(4)])
def test_a_mixture_of_labels_is_a_mixture_of_their_embeddings(conditioner):
    generator = tiny_generator(DRUMS, conditioner=conditioner).eval()
    clips = ClipGenerator(LoadedModel(generator, None, {}, Path("x"), {}), "cpu")
    assert repr(clips) == f"<ClipGenerator x: {generator.sample_rate} Hz; labels {', '.join(DRUMS)}; on cpu>"
    latents = clips.latents(2)
    pure = clips.synthesize(latents, np.eye(3, dtype=np.float32)[[2, 0]])
    np.testing.assert_array_equal(pure, clips.synthesize(latents, ["snare", "hat"]))
    halfway = clips.synthesize(latents, torch.tensor([[0.5, 0.5, 0]] * 2))
    weight = generator.conditioning.embedding.weight
    with torch.no_grad():
        weight[1] = (weight[0] + weight[1]) / 2
    again = ClipGenerator(LoadedModel(generator, None, {}, Path("x"), {}), "cpu")
    np.testing.assert_allclose(halfway, again.synthesize(latents, "kick"), atol=5e-6)


def test_the_given_generator_is_left_as_it_is():
    generator = tiny_generator(DRUMS).train()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    clips = ClipGenerator(LoadedModel(generator, None, {}, Path("x"), {}), "cpu")
    clips.generate(2)
    assert generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert generator.state_dict().keys() == before.keys()
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_another_training_has_another_hash():
    one, same, other = tiny_clips(), tiny_clips(), tiny_clips(gain=2.4)
    assert one.weights_hash == same.weights_hash != other.weights_hash
    assert len(one.weights_hash) == 16
    assert one.name == "drums"


@pytest.mark.parametrize(
    "labels, call, words",
    [
        (DRUMS, lambda c: c.generate(0), ["n", "0"]),
        (DRUMS, lambda c: c.generate(1, first=-1), ["first -1"]),
        (DRUMS, lambda c: c.generate(1, truncation=0), ["truncation", "0"]),
        (DRUMS, lambda c: c.generate(1, truncation=1.5), ["1.5"]),
        (DRUMS, lambda c: c.generate(1, truncation="x"), ["truncation", "'x'"]),
        (DRUMS, lambda c: c.generate(2, first=2**64), ["2**64", str(2**64)]),
        (DRUMS, lambda c: c.generate(2, first=2**64 - 1), ["2**64", "first"]),
        (DRUMS, lambda c: c.generate(2, first=0.0), ["first must be a whole number, got 0.0"]),
        (DRUMS, lambda c: c.generate(2.0), ["n must be a whole number, got 2.0"]),
        (DRUMS, lambda c: c.generate(2, seed=None), ["seed must be a whole number, got None"]),
        (DRUMS, lambda c: c.generate(2, seed=1.5), ["seed must be a whole number, got 1.5"]),
        (DRUMS, lambda c: c.turns(None, 2.5), ["n must be a whole number, got 2.5"]),
        (DRUMS, lambda c: c.synthesize(c.latents(2), np.array([[0.5, 0.5, 0], [5, -5, 1]])), ["mixture 1", "-5.0"]),
        (DRUMS, lambda c: c.synthesize(c.latents(1), torch.tensor([[5.0, 0, 0]])), ["mixture 0", "together 1"]),
        (DRUMS, lambda c: c.synthesize(c.latents(1), torch.full((1, 3), torch.nan)), ["mixture 0", "nan"]),
        (DRUMS, lambda c: c.generate(1, label="kik"), ["hat, kick, snare", "did you mean 'kick'"]),
        (DRUMS, lambda c: c.generate(1, label="Snare"), ["did you mean 'snare'"]),
        (DRUMS, lambda c: c.generate(1, label=[]), ["empty", "hat, kick, snare"]),
        (DRUMS, lambda c: c.synthesize(c.latents(2)), ["label", "hat, kick, snare"]),
        (DRUMS, lambda c: c.synthesize(c.latents(2), [3, 0]), ["0 to 2"]),
        (DRUMS, lambda c: c.synthesize(c.latents(2), ["hat"]), ["2 labels"]),
        (DRUMS, lambda c: c.synthesize(torch.zeros(2, 3), "hat"), ["(n, 100)", "(2, 3)"]),
        ((), lambda c: c.generate(1, label="kick"), ["no labels", "trained without"]),
        ((), lambda c: c.synthesize(torch.full((1, 100), torch.nan)), ["NaN"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(labels, call, words):
    with pytest.raises(ValueError) as caught:
        call(tiny_clips(labels))
    assert all(word in str(caught.value) for word in words)


def test_a_model_of_a_run_is_called_as_the_run():
    for path, name in (("runs/drums/model", "drums"), ("runs/drums/best", "drums"), ("mine/bells", "bells")):
        assert tiny_clips(path=Path(path)).name == name


def test_an_accent_is_one_however_it_is_written():
    labels = [unicodedata.normalize(form, "dämpfer") for form in ("NFC", "NFD")]
    assert labels[0] != labels[1]
    for label in labels:
        clips = tiny_clips((label, "kick"))
        assert [clips.label_number(one) for one in labels] == [0, 0]


def test_the_last_index_there_is_can_be_asked_for():
    clips = tiny_clips(DRUMS)
    last = 2**64 - 1
    both = clips.generate(2, np.int64(3), first=last - 1)
    np.testing.assert_array_equal(both[1:], clips.generate(1, 3, label=DRUMS[last % 3], first=last))


def test_a_net_that_gives_nan_is_not_heard():
    generator = tiny_generator()
    generator.layers[4].bias.data.fill_(torch.nan)
    clips = ClipGenerator(LoadedModel(generator, None, {}, Path("x"), {}), "cpu")
    with pytest.raises(ValueError, match="NaN"):
        clips.generate(1)


def test_a_vocoder_is_refused():
    with pytest.raises(ValueError, match="gansound vocode"):
        ClipGenerator.from_pretrained("default", "cpu")


@pytest.mark.parametrize("fades", [{"fade_in_ms": -1}, {"fade_out_ms": 401}])
def test_fades_that_do_not_fit_are_refused(fades):
    with pytest.raises(ValueError, match=next(iter(fades))):
        loud(**fades)


@pytest.mark.parametrize("labels", [(), ("hat", "kick", "snare")])
def test_what_is_no_label_is_one_message(labels) -> None:
    clips = tiny_clips(labels)
    for wrong in (5, [None], [5, None], [""], "", ["kick", 3]):
        with pytest.raises(ValueError, match="label"):
            clips.generate(2, label=wrong)
        with pytest.raises(ValueError, match="label"):
            clips.synthesize(clips.latents(2), wrong)
    with pytest.raises(ValueError, match="label"):
        clips.synthesize(clips.latents(2), [])
