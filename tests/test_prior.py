"""Priors draw what they say: of each value the distribution, of several that one says nothing of another."""

import numpy as np
import pytest
import torch
from scipy import stats

from gansound.draw import draw
from gansound.generators.prior import Bits, Categorical, Joint, Normal, Prior, Uniform

DRAWS = 3000


def drawn(prior: Prior) -> np.ndarray:
    """`(3000, dim)`, each from a generator of its own position, as training draws them."""
    found = np.stack([prior.sample(draw(0, position, "training latent")) for position in range(DRAWS)])
    assert found.shape == (DRAWS, prior.dim)
    assert found.dtype == np.float32
    return found


def test_a_categorical_latent_takes_every_category_as_often() -> None:
    choices = drawn(Categorical(5, choices=2)).reshape(DRAWS, 2, 5)
    assert set(np.unique(choices)) == {0.0, 1.0}
    assert (choices.sum(axis=2) == 1).all()
    numbers = choices.argmax(axis=2)
    pairs = np.bincount(5 * numbers[:, 0] + numbers[:, 1], minlength=25)
    # All 25 pairs equally often: each choice is fair, and says nothing of the other.
    assert stats.chisquare(pairs).pvalue > 0.001


def test_bits_are_fair_and_independent() -> None:
    bits = drawn(Bits(3))
    assert set(np.unique(bits)) == {-1.0, 1.0}
    words = np.bincount(((bits > 0) @ [1, 2, 4]).astype(int), minlength=8)
    assert stats.chisquare(words).pvalue > 0.001


@pytest.mark.parametrize(
    "prior, law", [(Uniform(4), stats.uniform(-1, 2)), (Normal(4), stats.norm())], ids=["uniform", "normal"]
)
def test_continuous_latents_follow_their_law(prior: Prior, law: stats.rv_continuous) -> None:
    values = drawn(prior)
    for column in values.T:
        assert stats.kstest(column, law.cdf).pvalue > 0.001
    apart = np.corrcoef(values.T)[np.triu_indices(4, 1)]
    assert np.abs(apart).max() < 4 / np.sqrt(DRAWS)


def test_joint_latents_lie_one_behind_the_other_and_truncation_leaves_codes() -> None:
    prior = Joint([Normal(2), Categorical(3), Bits(2)])
    values = torch.from_numpy(drawn(prior))
    assert (values[:, 2:5].sum(dim=1) == 1).all()
    assert set(values[:, 5:].unique().tolist()) == {-1.0, 1.0}
    nearer = prior.truncated(values, 0.5)
    assert torch.equal(nearer[:, :2], 0.5 * values[:, :2])
    assert torch.equal(nearer[:, 2:], values[:, 2:])
