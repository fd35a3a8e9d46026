"""Latent tools against closed forms, numpy's eigenvectors, planted directions and sounds of known latents."""

import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from gansound.draw import Draws
from gansound.generators.latent import LatentGenerator
from gansound.generators.prior import Bits, Joint, Normal, Uniform
from gansound.inference.clip_folder import ClipFolder
from gansound.inference.clips import ClipGenerator
from gansound.inference.latent.directions import Directions, from_vector, joined, pca, replaced, sefa
from gansound.inference.latent.favourites import Favourite, find, load, named, origin, save
from gansound.inference.latent.inversion import LogMelDistance, invert
from gansound.inference.latent.paths import attribute, lerp, slerp
from gansound.model_folder import LoadedModel
from gansound.nn.conditioning import Concatenation, FiLM
from tests.clip_models import DRUMS, tiny_clips

pytestmark = pytest.mark.usefixtures("one_thread")
AT = torch.linspace(0, 1, 9)


class Layers(LatentGenerator):
    """Two dense layers with a rectifier between; the first normalises its input if asked to."""

    def __init__(self, weight, prior, bias=0.0, normalise=False):
        super().__init__()
        self.prior, self.labels, self.sample_rate, self.channels, self.clip_samples = prior, (), 8000, 1, 64
        self.normalise = normalise
        self.first = nn.Linear(weight.shape[1], weight.shape[0])
        self.last = nn.Linear(weight.shape[0], 64)
        self.first.weight.data = torch.from_numpy(weight).float()
        self.first.bias.data.fill_(bias)

    def forward(self, latents, labels=None):
        latents = latents / latents.norm(dim=1, keepdim=True).clamp_min(1e-3) if self.normalise else latents
        return self.last(self.first(latents).relu()).tanh()[:, None]


def of(generator):
    return ClipGenerator(LoadedModel(generator, None, {}, Path("x"), {}), "cpu", fade_in_ms=0, fade_out_ms=0)


def rng(seed=0):
    return np.random.default_rng(seed)


def vector(seed, dim=20):
    return torch.from_numpy(rng(seed).standard_normal(dim)).float()


def test_both_paths_go_from_end_to_end():
    for path in (lerp, slerp):
        way = path(vector(1), 3 * vector(2), AT)
        torch.testing.assert_close(way[[0, -1]], torch.stack([vector(1), 3 * vector(2)]))
    torch.testing.assert_close(lerp(vector(1), vector(2), AT)[2], 0.75 * vector(1) + 0.25 * vector(2))


def test_slerp_turns_at_constant_speed_and_its_length_goes_straight():
    a, b = vector(1), 3 * vector(2)
    way = slerp(a, b, AT).double()
    lengths = lerp(a.norm()[None], b.norm()[None], AT)[:, 0].double()
    torch.testing.assert_close(way.norm(dim=1), lengths, atol=1e-5, rtol=1e-6)
    units = way / way.norm(dim=1, keepdim=True)
    whole = math.acos(float(units[0] @ units[-1]))
    turned = torch.arccos((units[:-1] * units[1:]).sum(1))
    torch.testing.assert_close(turned, torch.full((8,), whole / 8).double(), atol=1e-6, rtol=1e-6)
    plane = torch.stack([a, b]).double()
    assert torch.linalg.matrix_rank(torch.cat([plane, way]), rtol=1e-4) == 2
    quarter = slerp(torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), torch.tensor([1 / 3]))
    torch.testing.assert_close(quarter, torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]))


@pytest.mark.parametrize("b", [vector(1), 2 * vector(1), -vector(1), torch.zeros(20)])
def test_slerp_without_one_great_circle_is_a_line(b):
    torch.testing.assert_close(slerp(vector(1), b, AT), lerp(vector(1), b, AT))


def test_an_attribute_is_the_difference_of_means():
    liked, others = torch.stack([vector(1), vector(2)]), torch.stack([vector(3)])
    torch.testing.assert_close(attribute(liked, others), (vector(1) + vector(2)) / 2 - vector(3))
    with pytest.raises(ValueError, match="0"):
        attribute(liked, others[:0])


@pytest.mark.parametrize("prior, deviation", [(Normal(12), 1.0), (Uniform(12), 1 / math.sqrt(3))])
def test_sefa_gives_numpys_eigenvectors_of_the_first_weight(prior, deviation):
    weight = rng(3).standard_normal((40, 12))
    found = sefa(of(Layers(weight, prior, bias=0.3)), 5)
    values, vectors = np.linalg.eigh(weight.T @ weight)
    np.testing.assert_allclose(found.strengths, values[::-1][:5], rtol=1e-4)
    units = found.vectors / found.vectors.norm(dim=1, keepdim=True)
    cosines = np.abs(np.sum(units.numpy() * vectors.T[::-1][:5], axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    np.testing.assert_allclose(found.vectors.norm(dim=1), deviation, rtol=0.06)


@pytest.mark.parametrize("conditioner", [None, Concatenation(4), FiLM(4)])
def test_sefa_sees_the_latents_part_of_a_conditional_generators_dense_layer(conditioner):
    clips = tiny_clips(DRUMS if conditioner else (), conditioner=conditioner)
    weight = clips.generator.dense.weight[:, :100].double().numpy()
    np.testing.assert_allclose(sefa(clips, 3).strengths, np.linalg.svd(weight)[1][:3] ** 2, rtol=1e-4)


def test_sefa_refuses_a_first_layer_behind_something_that_is_not_affine():
    with pytest.raises(ValueError, match="pca"):
        sefa(of(Layers(rng().standard_normal((40, 12)), Normal(12), normalise=True)))


def test_pca_recovers_a_planted_direction():
    planted = rng(4).standard_normal(12)
    planted /= np.linalg.norm(planted)
    weight = 0.1 * rng(5).standard_normal((200, 12)) + np.outer(rng(6).standard_normal(200), planted)
    found = pca(of(Layers(weight, Normal(12))), 2)
    cosine = found.vectors[0].numpy() @ planted / np.linalg.norm(found.vectors[0])
    assert abs(cosine) > 0.98
    assert found.strengths[0] > 2 * found.strengths[1]  # the second is what the rectifier makes of the first
    before = pca(of(Layers(weight, Normal(12))), 2, layer=0)
    np.testing.assert_allclose(
        before.strengths, 1 / 12, rtol=0.25
    )  # the latents themselves: no direction stands out


class Offsets(Layers):
    """The label moves what goes into the rectifier, and nothing else."""

    def __init__(self, weight, prior, labels):
        super().__init__(weight, prior)
        self.labels = labels
        self.offset = nn.Embedding(len(labels), weight.shape[0])
        self.offset.weight.data = torch.from_numpy(
            rng(8).standard_normal((len(labels), weight.shape[0]))
        ).float()

    def forward(self, latents, labels=None):
        return self.last((self.first(latents) + self.offset(labels)).relu()).tanh()[:, None]


def test_pca_is_numpys_within_each_label():
    """GANSpace's: principal components by SVD, and the latents that least squares give their coordinates."""
    weight = rng(9).standard_normal((40, 12)) * np.geomspace(4, 0.2, 12)
    generator = Offsets(weight, Normal(12), ("a", "b", "c"))
    found = pca(of(generator), 4, seed=5)
    z = Draws(5, range(1024)).each("directions", generator.prior.sample).double().numpy()
    kinds = np.arange(1024) % 3
    x = np.maximum(z @ weight.T + generator.offset.weight.detach().double().numpy()[kinds], 0)
    for kind in range(3):
        for rows in (x, z):
            rows[kinds == kind] -= rows[kinds == kind].mean(0)
    _, deviations, components = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(found.strengths, (deviations**2 / np.sum(deviations**2))[:4], rtol=1e-3)
    expected = np.linalg.lstsq(x @ components[:4].T, z, rcond=None)[0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    units = found.vectors.double().numpy() / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(np.sum(units * expected, 1)), 1, atol=1e-4)
    assert all(row[np.abs(row).argmax()] > 0 for row in units)  # of the two signs always the same


def test_pca_leaves_out_what_labels_alone_change():
    clips = tiny_clips(DRUMS, prior=Normal(100))
    with torch.no_grad():
        embedding = next(m for m in clips.generator.modules() if type(m).__name__ == "_LabelEmbedding")
        before = pca(clips, 3)
        embedding.weight.mul_(50)
    after = pca(clips, 3)
    assert sum(after.strengths) < 3 * sum(before.strengths)


def test_directions_move_latents_and_are_read_again(tmp_path):
    clips = tiny_clips()
    found = joined(sefa(clips, 3), from_vector(clips, vector(1, 100), "punchy", "made up"))
    found.save(tmp_path / "d.safetensors")
    again = Directions.load(tmp_path / "d.safetensors", clips)
    assert again.names == ("0", "1", "2", "punchy")
    assert (again.strengths, again.method) == (found.strengths, found.method)
    latents = clips.latents(2)
    moved = again.moved(latents, {1: 2.0, "punchy": -1.0})
    torch.testing.assert_close(moved, latents + 2 * found.vectors[1] - vector(1, 100))
    for name in ("dull", "4"):
        with pytest.raises(ValueError, match=r"0 to 3.*punchy"):
            again.number(name)
    with pytest.raises(ValueError, match="other weights"):
        Directions.load(tmp_path / "d.safetensors", tiny_clips(gain=2.4))
    for find_some in (sefa, pca):
        for count in (0, 101):
            with pytest.raises(ValueError, match=f"1 to 100 directions, got {count}"):
                find_some(clips, count)
    assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"]


def test_favourites_are_read_again_by_label_name(tmp_path):
    clips = tiny_clips(DRUMS)
    kept = [Favourite("a", vector(1, 100), torch.tensor([0.25, 0.75, 0])), *find("3:7:snare", clips)]
    path = save(tmp_path / "kept.safetensors", kept, clips)
    for one, again in zip(kept, load(path, clips), strict=True):
        assert one.name == again.name
        assert torch.equal(one.latent, again.latent)
        assert torch.equal(one.mixture, again.mixture)
    assert torch.equal(find(f"{path}#1", clips)[0].latent, clips.latents(1, 3, first=7)[0])
    assert len(find(str(path), clips)) == 2
    turned = load(path, tiny_clips(tuple(reversed(DRUMS))))
    assert turned[0].mixture.tolist() == [0, 0.75, 0.25]
    for spec, words in ((f"{path}#2", "0 to 1"), ("nothing.wav", "SEED:INDEX"), ("1:2:kik", "kick")):
        with pytest.raises(ValueError, match=words):
            find(spec, clips)
    with pytest.raises(ValueError, match="isn't one of the model's"):
        load(path, tiny_clips(("a", "b")))


def test_the_distance_of_a_sound_to_itself_is_nothing_at_any_level():
    sound = (rng().standard_normal((3, 1, 4000)) * 0.1).astype(np.float32)
    distance = LogMelDistance(sound[0], 8000, torch.device("cpu"))
    apart = distance(torch.from_numpy(sound) * torch.tensor([0.3, 1, 1])[:, None, None])
    assert apart[0] < 1e-4
    assert apart[1] > 0.1
    with pytest.raises(ValueError, match="silent"):
        LogMelDistance(np.zeros((1, 4000), np.float32), 8000, torch.device("cpu"))


def test_the_distance_is_that_of_librosas_log_mels():
    """In nepers, over three windows, from 70 dB below full scale on; a sound is brought to the target's RMS first."""
    decay = np.exp(-np.arange(4000) / 600)
    target, *others = (rng(i).standard_normal((2, 4000)) * decay for i in range(3))
    target *= 0.4  # brought to a peak of 1
    faint = np.sin(np.arange(4000) / 9)[None] * [[1e-4], [1e-4]]  # 80 dB short: only 40 of them are given
    sounds = np.stack([0.02 * others[0], 3 * others[1], faint])
    distance = LogMelDistance(target.astype(np.float32), 8000, torch.device("cpu"))
    got = distance(torch.from_numpy(sounds).float()).tolist()

    def log_mels(sound, n_fft):
        padded = np.pad(sound, ((0, 0), (n_fft // 2, n_fft // 2)))
        spectrum = np.abs(librosa.stft(padded, n_fft=n_fft, hop_length=n_fft // 4, center=False))
        mel = librosa.filters.mel(sr=8000, n_fft=n_fft, n_mels=n_fft // 16, norm=None) @ spectrum
        return np.log(np.maximum(mel, n_fft / 4 * 10 ** (-70 / 20)))

    def rms(sound):
        return np.sqrt(np.mean(sound**2))

    target /= np.abs(target).max()
    for sound, found in zip(sounds, got, strict=True):
        levelled = sound * min(rms(target) / rms(sound), 100)
        apart = [np.mean(np.abs(log_mels(levelled, n) - log_mels(target, n))) for n in (512, 1024, 2048)]
        assert found == pytest.approx(np.mean(apart), rel=1e-3)
    short = LogMelDistance(target[:, :600].astype(np.float32), 8000, torch.device("cpu"))
    assert [front_end.spec.n_fft for front_end in short.front_ends] == [512, 1024]


@pytest.mark.parametrize("prior", [Normal(6), Uniform(6), Joint([Normal(4), Bits(2)])])
def test_inverting_a_sound_of_the_generator_gets_far_nearer_than_chance(prior):
    clips = tiny_clips(("a", "b"), prior=prior)
    latents = clips.latents(1, seed=5)
    target = 0.3 * clips.synthesize(latents, "b")[0]
    steps = []
    found = invert(
        clips, target, starts=3, candidates=32, steps=50, progress=lambda step, _: steps.append(step)
    )
    assert found.distance < 0.35 * found.best_random < 0.35 * found.median_random
    assert found.of_starts == tuple(sorted(found.of_starts))
    assert found.favourite.mixture.tolist() == [0, 1]
    assert steps == list(range(1, 51))
    made = clips.synthesize(found.favourite.latent[None], found.favourite.mixture[None])
    distance = LogMelDistance(target, clips.sample_rate, torch.device("cpu"))
    assert float(distance(torch.from_numpy(made))) == pytest.approx(found.distance, rel=1e-3, abs=1e-4)
    if isinstance(prior, Uniform):
        assert found.favourite.latent.abs().max() <= 1
    if isinstance(prior, Joint):
        assert set(found.favourite.latent[4:].abs().tolist()) == {1.0}


class Balance(LatentGenerator):
    """A low tone, and a high one as loud as the latent says."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.labels, self.sample_rate, self.channels, self.clip_samples = prior, (), 8000, 1, 1024
        self.here = nn.Parameter(torch.zeros(()))

    def forward(self, latents, labels=None):
        time = torch.arange(1024) / 8000
        low, high = (torch.sin(2 * math.pi * hertz * time) for hertz in (300, 2500))
        return (0.01 * (low + (latents.sum(1, keepdim=True) + self.here) * high))[:, None]


@pytest.mark.parametrize("prior, border", [(Uniform(1), 1.0), (Normal(1), 1 + 5 / math.sqrt(2))])
def test_what_is_found_lies_where_the_prior_has_mass(prior, border):
    # A balance that only a latent far outside has: the nearest one inside is on the border.
    clips = of(Balance(prior))
    target = clips.waveforms(torch.tensor([[50.0]]), None)[0].detach().numpy()
    found = invert(clips, target, starts=2, candidates=8, steps=200).favourite.latent
    assert found.abs().max() == pytest.approx(border, abs=1e-4)


def test_a_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="one_clip"):
        invert(tiny_clips(), np.ones((1, 100), np.float32))


def test_a_slider_is_replaced_in_its_place():
    clips = tiny_clips()
    made = [
        from_vector(clips, vector(i, 100), name, f"{name}: {i}") for i, name in enumerate(("a", "b", "c"))
    ]
    before = joined(*made)
    again = replaced(before, from_vector(clips, vector(7, 100), "b", "b: 7"))
    torch.testing.assert_close(before.vectors[1], vector(1, 100))
    assert (again.names, again.method) == (("a", "b", "c"), "a: 0; c: 2; b: 7")
    assert again.strengths[1] == pytest.approx(float(vector(7, 100).norm()))
    torch.testing.assert_close(again.vectors, torch.stack([vector(0, 100), vector(7, 100), vector(2, 100)]))


def test_a_sound_of_other_weights_is_said_to_be(tmp_path, caplog):
    """Another sound comes of its latent, drawn or kept: nothing is refused, and nobody is left to wonder."""
    clips, trained_on = tiny_clips(DRUMS), tiny_clips(DRUMS, gain=2.4)
    kept = find("3:7:snare", clips)
    save(tmp_path / "kept.safetensors", kept, clips)
    with ClipFolder(tmp_path, clips.sample_rate) as folder:
        drawn = origin(clips, label="snare", seed=3, index=7, truncation=0.5)
        folder.add("drawn.wav", np.zeros((1, 64), np.float32), drawn)
        folder.add(
            "kept.wav", np.zeros((1, 64), np.float32), origin(clips, label="snare", latent=kept[0].latent)
        )
    for name, share in (("kept.safetensors", 1.0), ("drawn.wav", 0.5), ("kept.wav", 1.0)):
        for model, words in ((clips, ""), (trained_on, f"{name}: was made with other weights")):
            caplog.clear()
            (found,) = find(str(tmp_path / name), model)
            torch.testing.assert_close(found.latent, share * clips.latents(1, 3, first=7)[0])
            assert words in caplog.text
            assert bool(words) == bool(caplog.text)


def test_a_draw_that_was_moved_says_what_it_was_drawn_from():
    clips = tiny_clips(DRUMS)
    told = origin(clips, label="snare", seed=3, index=7, latent=vector(1, 100))
    assert (told["label"], told["seed"], told["index"], told["weights"]) == (
        "snare",
        3,
        7,
        clips.weights_hash,
    )
    assert not {"seed", "index"} & set(origin(clips, label="snare", latent=vector(1, 100)))


def test_a_latent_too_long_for_its_file_is_read_from_the_list_beside_it(tmp_path):
    clips = tiny_clips(DRUMS, prior=Normal(512))
    mixture = torch.tensor([0.25, 0.75, 0])
    with ClipFolder(tmp_path, clips.sample_rate) as folder:
        for i in range(2):
            told = origin(clips, label=named(clips, mixture), latent=vector(i, 512))
            folder.add(f"{i}.wav", np.zeros((1, 64), np.float32), told)
    (tmp_path / "1.wav").rename(tmp_path / "mine.wav")
    for name, seed in (("0", 0), ("mine", 1)):
        (found,) = find(str(tmp_path / f"{name}.wav"), clips)
        assert torch.equal(found.latent, vector(seed, 512))
        assert torch.equal(found.mixture, mixture)
    (tmp_path / "away").mkdir()
    away = (tmp_path / "mine.wav").rename(tmp_path / "away" / "mine.wav")
    with pytest.raises(ValueError, match=r"no generated\.json beside it has it"):
        find(str(away), clips)
    (tmp_path / "generated.json").write_text("[]")
    with pytest.raises(ValueError, match="isn't a list that gansound wrote"):
        find(str(tmp_path / "0.wav"), clips)
