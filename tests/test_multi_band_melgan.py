"""The filter bank against scipy and itself, and multi-band MelGAN's shapes and layers."""

import json
import math

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn

from gansound.generators.melgan import MelGANGenerator, melgan_neurips_keys, parallel_wavegan_keys
from gansound.generators.multi_band_melgan import MultiBandMelGANGenerator
from gansound.nn.fold import fold_parametrizations
from gansound.nn.pqmf import PQMF
from gansound.recipe import build
from tests.reference import melgan as reference


def published_bank(bands=4, taps=62, cutoff_ratio=0.142, beta=9.0):
    """Analysis and synthesis filters by scipy's low-pass design, `(bands, taps + 1)` each, for `np.correlate`."""
    low_pass = scipy.signal.firwin(taps + 1, cutoff_ratio, window=("kaiser", beta), scale=False)
    n = np.arange(taps + 1) - taps / 2
    k = np.arange(bands)[:, None]
    turn = (2 * k + 1) * np.pi / (2 * bands) * n
    sign = (-1.0) ** k * np.pi / 4
    return 2 * low_pass * np.cos(turn + sign), 2 * low_pass * np.cos(turn - sign)


def double_bank(**settings):
    """The layer designed and run in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return PQMF(**settings)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "settings", [{}, {"cutoff_ratio": 0.15}, {"bands": 2, "taps": 30, "cutoff_ratio": 0.27, "beta": 7.0}, {"bands": 3}]
)  # fmt: skip
@pytest.mark.parametrize("columns", [1, 2, 9, 50])
def test_both_ways_are_filtering_as_published(settings, columns):
    layer = double_bank(**settings)
    analysis, synthesis = published_bank(**settings)
    bands, half = layer.bands, (analysis.shape[1] - 1) // 2
    rng = np.random.default_rng(columns)
    signal, subbands = rng.normal(size=columns * bands), rng.normal(size=(bands, columns))

    padded = np.pad(signal, half)
    expected = np.stack([np.correlate(padded, filter_, "valid")[::bands] for filter_ in analysis])
    got = layer.analyze(torch.from_numpy(signal)[None, None])
    np.testing.assert_allclose(got[0].numpy(), expected, atol=1e-12)

    spread = np.zeros((bands, columns * bands))  # the bands at the signal's rate, zeros between
    spread[:, ::bands] = subbands * bands
    expected = sum(
        np.correlate(np.pad(band, half), filter_, "valid")
        for band, filter_ in zip(spread, synthesis, strict=True)
    )
    got = layer(torch.from_numpy(subbands)[None])
    assert got.shape == (1, 1, columns * bands)
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-12)


def reconstruction_snr_db(layer, samples=40_000, seed=0):
    """Of noise through analysis and synthesis, but for the ends, where bands before the start are missing."""
    torch.manual_seed(seed)
    signal = torch.randn(1, 1, samples)
    back = layer(layer.analyze(signal))
    assert back.shape == signal.shape
    inside = slice(2 * layer.half_samples, -2 * layer.half_samples)
    error = (back - signal)[..., inside]
    return 10 * math.log10(signal[..., inside].square().mean() / error.square().mean())


def test_a_signal_comes_back_from_its_bands():
    """64.1 dB measured; the old cut-off of 0.15 has 19.5 dB."""
    assert 63 < reconstruction_snr_db(PQMF()) < 65
    assert 18 < reconstruction_snr_db(PQMF(cutoff_ratio=0.15)) < 21


def test_a_tone_lies_in_its_own_band():
    """Band k holds the k-th quarter of the spectrum; a tone in its middle is 70 dB down two bands away."""
    layer = PQMF()
    time = torch.arange(8000)
    for band in range(4):
        tone = torch.sin(math.pi * (band + 0.5) / 4 * time)[None, None]
        power = layer.analyze(tone)[0, :, 50:-50].square().mean(1)
        for other in range(4):
            if abs(other - band) > 1:
                assert power[other] < 1e-7 * power[band]
        assert power[band] == power.max()


def test_the_bank_is_no_weight():
    assert not PQMF().state_dict()


@pytest.mark.parametrize(
    "arguments",
    [{"bands": 1}, {"taps": 61}, {"taps": 2}, {"cutoff_ratio": 0.0}, {"cutoff_ratio": 1.0}, {"beta": -1.0}],
)
def test_a_bank_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        PQMF(**arguments)


# --- the generator


def test_shapes_are_the_published_ones_through_the_name_map(shared):
    nets = {"multi_band_melgan_v2": MultiBandMelGANGenerator(), "melgan_v1": MelGANGenerator()}
    for name, net in nets.items():
        spec = json.loads((shared / "specs" / f"pwg_{name}_generator.json").read_text())
        keys = parallel_wavegan_keys(net)
        assert {keys[key]: list(t.shape) for key, t in net.state_dict().items()} == spec["state_dict"]
        assert (
            sum(p.numel() for p in fold_parametrizations(net).parameters())
            == spec["_meta"]["n_params_weight_norm_folded"]
        )


def test_published_parameter_count_and_law():
    net = fold_parametrizations(MultiBandMelGANGenerator())
    assert sum(p.numel() for p in net.parameters()) == 2_534_356
    torch.testing.assert_close(net.layers[-1].filters, PQMF(4, 62, 0.142, 9.0).filters)
    assert (net.n_mels, net.hop_length) == (80, 256)


class FourSignals(reference.Generator):
    """The reference with as many signals out as there are bands."""

    def __init__(self, bands, ngf, ratios, residuals, signals):
        super().__init__(bands, ngf, ratios, residuals)
        self.model[-2] = reference.WNConv(ngf, signals, 7)


@pytest.mark.parametrize("frames", [6, 11])
def test_equals_the_reference_through_the_published_bank(frames):
    torch.manual_seed(frames)
    theirs = FourSignals(6, 4, (3, 2), 3, 4).double()
    awaken_at = torch.randn(2, 6, 20, dtype=torch.float64)
    reference.awaken(theirs, awaken_at)
    ours = MultiBandMelGANGenerator(6, 16, (3, 2), (1, 3, 9)).double()
    ours.layers[-1] = double_bank()
    reference.bring_over(theirs, ours, melgan_neurips_keys(ours))
    mel = torch.randn(1, 6, frames, dtype=torch.float64)
    with torch.no_grad():
        subbands, got = theirs(mel)[0].numpy(), ours(mel)[0].numpy()
    _, synthesis = published_bank()
    spread = np.zeros((4, frames * 24))
    spread[:, ::4] = subbands * 4
    expected = sum(np.correlate(np.pad(s, 31), f, "valid") for s, f in zip(spread, synthesis, strict=True))
    assert np.sqrt(np.mean(expected**2)) > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_a_recipe_builds_it():
    node = {
        "class_path": "gansound.generators.multi_band_melgan.MultiBandMelGANGenerator",
        "init_args": {"channels": 16, "upsample_rates": [4, 2], "pqmf_cutoff_ratio": 0.15},
    }
    net = build(node, nn.Module, "generator")
    assert net(torch.zeros(1, 80, 3)).shape == (1, 3 * 32)


@pytest.mark.parametrize(
    "arguments", [{"channels": 4}, {"upsample_rates": (8, 1)}, {"bands": 1}, {"pqmf_taps": 61}, {"n_mels": 0}]
)
def test_a_generator_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        MultiBandMelGANGenerator(**arguments)
