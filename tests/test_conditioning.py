"""Labels: what they change, and by which formula."""

import pytest
import torch
from torch import nn

from gansound.discriminators.heads import AuxiliaryClassifier, Dense, Head, Projection
from gansound.discriminators.wavegan import WaveGANDiscriminator
from gansound.generators.wavegan import WaveGANGenerator
from gansound.nn.conditioning import Concatenation, Conditioner, FiLM

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("kick", "snare", "hat")
LABELS = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("conditioner", [None, Concatenation(5), FiLM(5)])
def test_the_label_changes_the_sound_and_learns(conditioner: Conditioner | None) -> None:
    torch.manual_seed(0)
    net = WaveGANGenerator(4096, dim=2, labels=NAMES, conditioner=conditioner)
    latents = torch.rand(1, 100).expand(4, -1) * 2 - 1
    sounds = net(latents, LABELS)
    torch.testing.assert_close(sounds[1], sounds[3])
    assert not torch.allclose(sounds[0], sounds[1], atol=1e-4)
    # Only the embeddings of labels that were given learn.
    net(latents[:1], LABELS[:1]).square().sum().backward()
    (embedding,) = [m for m in net.modules() if isinstance(m, nn.Embedding)]
    assert embedding.weight.grad[0].abs().sum() > 0
    assert not embedding.weight.grad[1:].any()


def test_concatenation_is_the_dense_layer_over_both() -> None:
    torch.manual_seed(1)
    net = WaveGANGenerator(4096, dim=2, labels=NAMES, conditioner=Concatenation(5))
    plain = WaveGANGenerator(4096, dim=2)
    plain.layers.load_state_dict(net.layers.state_dict())
    latents = torch.rand(4, 100)
    (embedding,) = [m for m in net.modules() if isinstance(m, nn.Embedding)]
    assert embedding.weight.shape == (3, 5)
    with torch.no_grad():
        for i, label in enumerate(LABELS):
            plain.dense.weight.copy_(net.dense.weight[:, :100])
            plain.dense.bias.copy_(net.dense.bias + net.dense.weight[:, 100:] @ embedding.weight[label])
            torch.testing.assert_close(plain(latents)[i], net(latents, LABELS)[i])


def test_film_scales_and_shifts_every_hidden_channel() -> None:
    torch.manual_seed(2)
    film = FiLM(5).layers(3, [7, 4]).requires_grad_(False)
    assert film.embedding.weight.shape == (3, 5)
    assert not any(affine.bias.any() for affine in film.affine)
    at_first = film.features(torch.ones(4, 4, 6), LABELS, 1)
    assert 0 < (at_first - 1).abs().max() < 0.5, "near the identity, and each label another"
    for affine in film.affine:
        nn.init.normal_(affine.weight)
        nn.init.normal_(affine.bias)
    x = torch.randn(4, 4, 6)
    y = film.features(x, LABELS, 1)
    for i, label in enumerate(LABELS):
        values = film.affine[1].weight @ film.embedding.weight[label] + film.affine[1].bias
        for channel in range(4):
            expected = x[i, channel] * (1 + values[channel]) + values[4 + channel]
            torch.testing.assert_close(y[i, channel], expected)
    image = x.unflatten(2, (2, 3))
    torch.testing.assert_close(film.features(image, LABELS, 1).flatten(2), y)
    net = WaveGANGenerator(4096, dim=2, labels=NAMES, conditioner=FiLM(5))
    assert [a.out_features for a in net.conditioning.affine] == [2 * 32, 2 * 16, 2 * 8, 2 * 4, 2 * 2]


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_projection_head_is_its_formula(spectral_norm: bool) -> None:
    torch.manual_seed(3)
    net = WaveGANDiscriminator(4096, dim=2, labels=NAMES, spectral_norm=spectral_norm).eval()
    assert (net.labels, net.class_logits) == (NAMES, 0)
    with torch.no_grad():
        *_, last, logits = net(torch.randn(4, 1, 4096), LABELS)[0]
        assert logits.shape == (4, 1)
        for i, label in enumerate(LABELS):
            phi = last[i].T.flatten()
            expected = (
                net.head.dense.weight[0] + net.head.embedding.weight[label]
            ) @ phi + net.head.dense.bias
            torch.testing.assert_close(logits[i], expected)


def test_each_head_hears_what_it_says() -> None:
    torch.manual_seed(4)
    x = torch.randn(4, 1, 4096)
    for settings, labels, class_logits, hears in (
        ({"head": Dense()}, (), 0, False),
        ({"head": AuxiliaryClassifier()}, NAMES, 3, False),
        ({"head": Projection()}, NAMES, 0, True),
        ({"concatenate_labels": True}, NAMES, 0, True),
        ({"concatenate_labels": True, "head": AuxiliaryClassifier()}, NAMES, 3, True),
    ):
        net = WaveGANDiscriminator(4096, dim=2, labels=NAMES, **settings).eval()
        assert (net.labels, net.class_logits, net.takes_labels) == (labels, class_logits, hears)
        logits, others = (net(x, given)[0][-1] for given in (LABELS, LABELS[[1, 0, 2, 3]]))
        assert logits.shape == (4, 1 + class_logits)
        changed = (logits != others).any(1).tolist()
        assert changed == ([True, True, False, False] if hears else [False] * 4), settings
        if hears:
            with pytest.raises(ValueError, match="a label for each of 4 clips, got none"):
                net(x)
        else:
            assert torch.equal(net(x)[0][-1], logits)


@pytest.mark.parametrize("head", [Dense(), Projection(), AuxiliaryClassifier()])
def test_without_labels_heads_and_conditioners_are_unused(head: Head) -> None:
    with torch.device("meta"):
        for net, plain in (
            (WaveGANDiscriminator(head=head, concatenate_labels=True), WaveGANDiscriminator()),
            (WaveGANGenerator(conditioner=FiLM()), WaveGANGenerator()),
        ):
            assert [(k, v.shape) for k, v in net.state_dict().items()] == [
                (k, v.shape) for k, v in plain.state_dict().items()
            ]
            assert net.labels == ()


def test_an_embedding_has_values() -> None:
    for conditioner in (Concatenation, FiLM):
        with pytest.raises(ValueError, match="must be positive, got 0"):
            conditioner(0)
