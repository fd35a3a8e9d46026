"""Figures of sets against closed forms, a root of a matrix by scipy, and loops written from the papers."""

import itertools
import math

import librosa
import numpy as np
import pytest
from scipy.linalg import sqrtm

from gansound.metrics.sets import (
    LogMelBackbone,
    frechet_distance,
    is_collapsed,
    kernel_distance,
    nearest_distances,
    precision_recall_density_coverage,
    quick_figures,
)
from gansound.metrics.sets.backbone import cell_edges

RATE = 16000


def gaussian(seed: int, count: int, dim: int, *, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((count, dim))


def hits(seed: int, count: int, samples: int = 8192) -> np.ndarray:
    """Decaying sines of random pitch and decay: a drum folder in small."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    pitch, decay = rng.uniform(80, 3000, (count, 1)), rng.uniform(0.02, 0.3, (count, 1))
    level = rng.uniform(0.1, 0.8, (count, 1))
    return (level * np.exp(-time / decay) * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


@pytest.mark.parametrize("count, dim", [(200, 12), (30, 50), (13, 12), (12, 13)])
def test_frechet_distance_is_that_of_the_root_of_a_matrix(count, dim):
    mixing = gaussian(9, dim, dim) / math.sqrt(dim)
    a, b = gaussian(1, count, dim) @ mixing, gaussian(2, count + 7, dim, mean=0.3, scale=1.5)
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # A singular product makes sqrtm inexact, as it does every FID: a ridge far below the eigenvalues that count.
    ridge = 1e-10 * np.eye(dim)
    root = sqrtm((covariances[0] + ridge) @ (covariances[1] + ridge)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7 if count > dim else 1e-3)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_frechet_distance_of_points_on_axes_is_known():
    # Variances a² and b² on the same axes: Σ (a − b)², whatever the number of dimensions that hold nothing.
    corners = np.concatenate([np.eye(40)[:3], -np.eye(40)[:3]]) * math.sqrt(
        5 / 2
    )  # unit variance on three axes
    scales = np.diag([1.0, 2.0, 5.0] + [1.0] * 37)
    assert frechet_distance(corners, corners @ scales) == pytest.approx(0 + 1 + 16, rel=1e-12)
    assert frechet_distance(corners, corners + 2.0) == pytest.approx(40 * 4.0, rel=1e-12)
    assert frechet_distance(corners, corners) == pytest.approx(0.0, abs=1e-12)


def test_kernel_distance_is_the_papers_sum():
    a, b = gaussian(1, 7, 4), gaussian(2, 5, 4, mean=0.5)

    def k(x, y):
        return (float(x @ y) / 4 + 1) ** 3

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    across = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_kernel_distance_of_one_distribution_is_zero_in_the_mean_at_any_size():
    draws = [kernel_distance(gaussian(2 * i, 12, 5), gaussian(2 * i + 1, 20, 5)) for i in range(1500)]
    standard_error = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws)) < 3 * standard_error
    assert standard_error < 0.02  # the biased estimate lies 0.6 above
    biased = [d + 3.0 / 12 for d in draws]
    assert abs(np.mean(biased)) > 3 * standard_error


def prdc_by_loops(real, fake, k):
    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, i) for i in range(len(fake))]
    inside = [
        [np.linalg.norm(r - f) <= radius_r for f in fake]
        for r, radius_r in zip(real, real_radii, strict=True)
    ]
    precision = np.mean([any(inside[i][j] for i in range(len(real))) for j in range(len(fake))])
    recall = np.mean(
        [any(np.linalg.norm(r - f) <= q for f, q in zip(fake, fake_radii, strict=True)) for r in real]
    )
    density = sum(sum(row) for row in inside) / (k * len(fake))
    coverage = np.mean([any(row) for row in inside])
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_is_that_of_loops_written_from_the_papers(k):
    real, fake = gaussian(1, 40, 3), gaussian(2, 25, 3, mean=0.7, scale=0.6)
    assert precision_recall_density_coverage(real, fake, k) == pytest.approx(prdc_by_loops(real, fake, k))


def test_a_ball_holds_what_lies_on_its_surface():
    """Whole numbers about whole means, so that nothing is rounded: each outer point at a neighbour's distance."""
    inner, outer = [[0.0], [2.0], [4.0]], [[-2.0], [6.0]]
    assert precision_recall_density_coverage(inner, outer, 1) == (1.0, 1.0, 1.0, 2 / 3)
    assert precision_recall_density_coverage(outer, inner, 1) == (1.0, 1.0, 2.0, 1.0)


def test_an_outlier_raises_precision_but_not_density_or_coverage():
    # Naeem et al., figure 3: one real outlier's ball holds the whole line of fakes that lies between.
    real = np.concatenate([np.linspace(0, 1, 20)[:, None], [[10.0]]])
    fake = np.linspace(4, 6, 20)[:, None]
    found = precision_recall_density_coverage(real, fake, 5)
    assert found.precision == 1.0
    assert found.density == pytest.approx(1 / 5)
    assert found.coverage == pytest.approx(1 / 21)


def test_noise_raises_recall_and_neither_precision_nor_coverage():
    real = gaussian(1, 300, 8)
    good = 0.3 * gaussian(2, 30, 8)  # near the middle: real enough, and not various
    mixed = np.concatenate([good, gaussian(3, 270, 8, scale=6.0)])
    narrow = precision_recall_density_coverage(real, good, 5)
    widened = precision_recall_density_coverage(real, mixed, 5)
    assert widened.recall > 0.95 > narrow.recall + 0.5
    assert widened.precision < 0.2
    assert widened.coverage == pytest.approx(narrow.coverage, abs=0.03)


def test_nearest_distances():
    real, fake = gaussian(1, 30, 4), gaussian(2, 20, 4)
    loop = [min(np.linalg.norm(f - r) for r in real) for f in fake]
    assert nearest_distances(fake, real) == pytest.approx(loop)
    own = [min(np.linalg.norm(f - g) for j, g in enumerate(fake) if j != i) for i, f in enumerate(fake)]
    assert nearest_distances(fake) == pytest.approx(own)
    assert nearest_distances(real[3:9], real) == pytest.approx(np.zeros(6), abs=1e-6)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        frechet_distance(gaussian(1, 9, 3), gaussian(1, 9, 4))
    with pytest.raises(ValueError, match="first set: got 5 points, expected at least 6"):
        precision_recall_density_coverage(gaussian(1, 5, 3), gaussian(1, 9, 3))
    with pytest.raises(ValueError, match="NaN"):
        kernel_distance(gaussian(1, 5, 3), np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="expected points"):
        kernel_distance(gaussian(1, 5, 3)[0], gaussian(1, 9, 3))


def test_log_mel_levels_are_relative_to_a_full_sine():
    time = np.arange(RATE) / RATE
    backbone = LogMelBackbone(RATE)
    loud = np.sin(2 * np.pi * 1000 * time)[None]
    tops = [float(backbone.embed(g * loud).max()) for g in (1.0, 0.1)]
    assert 3.5 < tops[0] < 3.9  # 70 dB are 3.5; a band sums the main lobe's bins
    assert tops[0] - tops[1] == pytest.approx(1.0, abs=1e-3)  # 20 dB are one unit
    assert backbone.embed(np.zeros((2, RATE))) == pytest.approx(0.0, abs=1e-6)


def test_log_mel_cells_are_means_of_librosas_decibels():
    """8192 samples are 64 frames of 512 samples, 128 apart: eight cells that end at the squares."""
    clips = hits(4, 3) + 1e-3 * gaussian(5, 3, 8192).astype(np.float32)
    filters = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=24, fmin=0.0, fmax=RATE / 2, norm=None)
    got = LogMelBackbone(RATE).embed(clips).reshape(3, 24, 8)
    for clip, cells in zip(clips, got, strict=True):
        padded = np.pad(clip, 192)
        spectrum = np.abs(librosa.stft(padded, n_fft=512, hop_length=128, window="hann", center=False))
        decibels = 20 * np.log10(filters @ spectrum / 128)  # a full-scale sine's peak is 128 high
        levels = np.maximum(decibels + 70, 0) / 20
        edges = [0, 1, 4, 9, 16, 25, 36, 49, 64]
        means = [levels[:, a:b].mean(1) for a, b in itertools.pairwise(edges)]
        np.testing.assert_allclose(cells, np.stack(means, 1), atol=1e-4)


def test_log_mel_points_depend_on_their_own_clip():
    clips, backbone = hits(1, 300), LogMelBackbone(RATE)
    points = backbone.embed(clips)
    assert points.shape == (300, 24 * 8)
    assert backbone.embed(clips[290:291]) == pytest.approx(points[290:291], abs=1e-5)


@pytest.mark.parametrize("frames, cells", [(8, 8), (9, 8), (11, 8), (128, 8), (512, 32), (5, 1)])
def test_cells_fill_the_clip_and_grow(frames, cells):
    edges = cell_edges(frames, cells)
    assert (edges[0], edges[-1], len(edges)) == (0, frames, cells + 1)
    assert np.diff(edges).min() >= 1
    if frames >= 8 * cells:
        assert (np.diff(np.diff(edges)) >= -1).all()


def test_short_clips_are_followed_by_silence():
    points = LogMelBackbone(RATE).embed(hits(1, 4, 300)).reshape(4, 24, 8)
    assert points[..., 0].max() > 1
    assert points[..., -1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "clips", [np.zeros(9), np.zeros((0, 9)), np.zeros((2, 9), np.int16), np.full((2, 9), np.nan)]
)
def test_clips_that_are_none_are_refused(clips):
    with pytest.raises(ValueError, match="clips"):
        LogMelBackbone(RATE).embed(clips)


def test_quick_figures_of_equals_and_of_collapses():
    real = hits(1, 128)
    well = quick_figures(real, hits(2, 128), RATE)
    assert abs(well["kernel_distance"]) < 0.06
    assert well["coverage"] > 0.9
    assert well["diversity"] == pytest.approx(1.0, abs=0.15)
    assert is_collapsed(well) is None
    noise = 1e-3 * np.random.default_rng(5).standard_normal((128, 8192)).astype(np.float32)
    one = quick_figures(real, np.repeat(hits(3, 1), 128, axis=0) + noise, RATE)
    assert "all alike" in str(is_collapsed(one))
    few = quick_figures(real, np.repeat(hits(3, 8), 16, axis=0) + noise, RATE)
    assert few["diversity"] > 0.6
    assert "copies of a few" in str(is_collapsed(few))
    silent = quick_figures(real, np.zeros_like(real), RATE)
    assert is_collapsed(silent) is not None
