"""The losses against numpy, librosa and closed forms; their gradients; full precision under autocast."""

import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gansound.losses.adversarial import AdversarialLoss, Hinge, LeastSquares
from gansound.losses.feature_matching import FeatureMatching, feature_matching
from gansound.losses.modulation import EnvelopeModulation
from gansound.losses.phase import AmplitudeAndPhase
from gansound.losses.spectral import (
    PARALLEL_WAVEGAN_RESOLUTIONS,
    MelL1,
    MultiResolutionSTFT,
    MultiScaleMel,
    SubBandSTFT,
    log_magnitude_l1,
    spectral_convergence,
    stft_magnitude,
)
from gansound.mel import MelSpec

SMALL = ((64, 16, 48), (32, 8, 32))


def noise(seed, *shape, rms=0.1, dtype=torch.float32):
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
        * rms
    )


def logits_of(seed, scales=3, dtype=torch.float64):
    return [noise(seed + i, 2, 1, 5 + i, rms=2.0, dtype=dtype) for i in range(scales)]


# --- adversarial


def test_by_hand():
    real = [torch.tensor([[2.0, 0.5]]), torch.tensor([[-1.0]])]
    fake = [torch.tensor([[-3.0, 0.0]]), torch.tensor([[1.0]])]
    assert Hinge().discriminator(real, fake).item() == pytest.approx((0.5 / 2 + 1 / 2) + (2 + 2))
    assert Hinge().generator(fake).item() == pytest.approx(3 / 2 - 1)
    assert LeastSquares().discriminator(real, fake).item() == pytest.approx((1.25 / 2 + 9 / 2) + (4 + 1))
    assert LeastSquares().generator(fake).item() == pytest.approx((16 + 1) / 2 + 0)


@given(seed=st.integers(0, 10_000), scales=st.integers(1, 4))
def test_adversarial_losses_are_their_definitions(seed, scales):
    real, fake = logits_of(seed, scales), logits_of(seed + 100, scales)
    pairs = [(a.numpy().ravel(), b.numpy().ravel()) for a, b in zip(real, fake, strict=True)]
    hinge = sum(np.mean(np.maximum(0, 1 - a)) + np.mean(np.maximum(0, 1 + b)) for a, b in pairs)
    squares = sum(np.mean((a - 1) ** 2) + np.mean(b**2) for a, b in pairs)
    assert Hinge().discriminator(real, fake).item() == pytest.approx(hinge, rel=1e-12)
    assert Hinge().generator(fake).item() == pytest.approx(-sum(np.mean(b) for _, b in pairs), rel=1e-9)
    assert LeastSquares().discriminator(real, fake).item() == pytest.approx(squares, rel=1e-12)
    assert LeastSquares().generator(fake).item() == pytest.approx(
        sum(np.mean((b - 1) ** 2) for _, b in pairs)
    )


@pytest.mark.parametrize("loss", [Hinge(), LeastSquares()])
def test_each_player_pulls_its_way(loss: AdversarialLoss):
    real, fake = torch.zeros(1, 1, 4, requires_grad=True), torch.zeros(1, 1, 4, requires_grad=True)
    fake_shifted = fake + 0.5
    loss.discriminator([real], [fake_shifted]).backward()
    assert (real.grad < 0).all()  # descending raises the real logits
    assert (fake.grad > 0).all()  # and lowers the fake ones
    fake.grad = None
    loss.generator([fake]).backward()
    assert (fake.grad < 0).all()


def test_hinge_is_satisfied_beyond_its_margin():
    real, fake = (
        torch.full((2, 1, 3), 1.5, requires_grad=True),
        torch.full((2, 1, 3), -1.5, requires_grad=True),
    )
    loss = Hinge().discriminator([real], [fake])
    loss.backward()
    assert loss.item() == 0
    assert not real.grad.any()
    assert not fake.grad.any()


def test_sixteen_bit_logits_are_reduced_in_float32():
    """A mean of 4,096 equal bf16 values near 1/3 loses digits in bf16; here it must not."""
    value = torch.tensor(0.333, dtype=torch.bfloat16)
    logits = [value.repeat(1, 1, 4096)]
    exact = float(value)
    with torch.autocast("cpu", torch.bfloat16):
        results = {
            Hinge().generator(logits): -exact,
            Hinge().discriminator(logits, logits): 2.0,
            LeastSquares().generator(logits): (1 - exact) ** 2,
            LeastSquares().discriminator(logits, logits): (1 - exact) ** 2 + exact**2,
            feature_matching([logits], [[2 * logits[0]]], "sum"): exact,
        }
    for got, expected in results.items():
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(expected, rel=1e-6)


# --- feature matching


def maps_of(seed, scales=3, layers=7):
    return [
        [noise(100 * seed + 10 * i + j, 2, 3 + j, 11, dtype=torch.float64) for j in range(layers)]
        for i in range(scales)
    ]


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), scales=st.integers(1, 4), layers=st.integers(3, 8))
def test_feature_matching_is_its_definition(seed, scales, layers):
    real, fake = maps_of(seed, scales, layers), maps_of(seed + 1, scales, layers)
    means = np.array(
        [
            [np.mean(np.abs(a.numpy() - b.numpy())) for a, b in zip(*pair, strict=True)]
            for pair in zip(real, fake, strict=True)
        ]
    )
    n_layers = layers - 3  # a first, a widening and a last convolution don't downsample
    melgan = means[:, :-1].sum() * 4 / (n_layers + 1) / scales
    assert FeatureMatching()(real, fake).item() == pytest.approx(melgan, rel=1e-12)
    assert FeatureMatching("sum")(real, fake).item() == pytest.approx(means.sum(), rel=1e-12)


def test_feature_matching_of_the_paper_by_hand():
    """Three discriminators of seven maps, each differing by 1: 3 x 6 x 4/5 x 1/3."""
    real = [[torch.zeros(1, 2, 3)] * 7] * 3
    fake = [[torch.ones(1, 2, 3)] * 7] * 3
    assert feature_matching(real, fake).item() == pytest.approx(4.8)
    assert feature_matching(real, fake, "sum").item() == pytest.approx(21)


def test_feature_matching_moves_the_fake_only():
    real = [[m.requires_grad_() for m in maps] for maps in maps_of(1)]
    fake = [[m.requires_grad_() for m in maps] for maps in maps_of(2)]
    feature_matching(real, fake).backward()
    assert all(m.grad is None for maps in real for m in maps)
    for real_maps, fake_maps in zip(real, fake, strict=True):
        assert fake_maps[-1].grad is None
        for a, b in zip(real_maps[:-1], fake_maps[:-1], strict=True):
            torch.testing.assert_close(b.grad, (b - a).sign() * (4 / 5 / 3 / b.numel()))


def test_feature_matching_needs_features_and_a_convention_that_is_known():
    with pytest.raises(ValueError, match='got 2 maps in all; use convention "sum"'):
        feature_matching([[torch.zeros(1), torch.zeros(1)]], [[torch.zeros(1), torch.zeros(1)]])
    maps = [[torch.zeros(1)] * 3]
    with pytest.raises(ValueError, match="melgan or sum, got 'hifigan'"):
        FeatureMatching("hifigan")(maps, maps)  # type: ignore[arg-type]


# --- multi-resolution STFT


@pytest.mark.parametrize("resolution", PARALLEL_WAVEGAN_RESOLUTIONS)
def test_magnitudes_are_librosas(resolution):
    n_fft, hop_length, win_length = resolution
    audio = noise(3, 2, 4000)
    got = stft_magnitude(audio, n_fft, hop_length, torch.hann_window(win_length))
    expected = np.abs(
        librosa.stft(
            audio.numpy(), n_fft=n_fft, hop_length=hop_length, win_length=win_length, pad_mode="reflect"
        )
    )
    np.testing.assert_allclose(got.numpy(), np.maximum(expected, 1e-7**0.5), atol=1e-4)


def test_multi_resolution_stft_is_its_definition():
    fake, real = noise(4, 2, 6000, rms=0.05), noise(5, 2, 6000)
    total = 0.0
    for n_fft, hop_length, win_length in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        a, b = (
            np.maximum(
                np.abs(
                    librosa.stft(
                        x.double().numpy(),
                        n_fft=n_fft,
                        hop_length=hop_length,
                        win_length=win_length,
                        pad_mode="reflect",
                    )
                ),
                1e-7**0.5,
            )
            for x in (fake, real)
        )
        convergence = [np.linalg.norm(b[i] - a[i]) / np.linalg.norm(b[i]) for i in range(2)]
        total += np.mean(convergence) + np.mean(np.abs(np.log(a) - np.log(b)))
    assert MultiResolutionSTFT()(fake, real).item() == pytest.approx(total / 3, rel=1e-5)


@settings(max_examples=25)
@given(gain=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_a_gain_costs_its_distance_to_one_and_its_logarithm(gain, seed):
    real = noise(seed, 1, 40, 12, rms=1.0).abs() + 0.1
    assert spectral_convergence(gain * real, real).item() == pytest.approx(abs(1 - gain), rel=1e-4, abs=1e-6)
    assert log_magnitude_l1(gain * real, real).item() == pytest.approx(
        abs(math.log(gain)), rel=1e-4, abs=1e-6
    )


def test_a_batch_is_the_mean_of_its_utterances():
    """Utterances of very different level: a ratio of batch norms would not be a mean."""
    loss = MultiResolutionSTFT(SMALL)
    levels = torch.tensor([[1.0], [0.01], [0.1]])
    fake, real = noise(6, 3, 500) * levels, noise(7, 3, 500) * levels.flip(0)
    alone = torch.stack([loss(fake[i : i + 1], real[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(fake, real), alone.mean())


def test_silence_does_not_explode():
    """A silent utterance is measured against noise at -60 dBFS: a fake at that level costs about 1 in convergence."""
    real, fake = torch.zeros(1, 16000), noise(8, 1, 16000, rms=1e-3)
    for n_fft, hop_length, win_length in PARALLEL_WAVEGAN_RESOLUTIONS:
        loss = MultiResolutionSTFT(((n_fft, hop_length, win_length),))
        window = torch.hann_window(win_length)
        logarithm = log_magnitude_l1(
            stft_magnitude(fake, n_fft, hop_length, window), stft_magnitude(real, n_fft, hop_length, window)
        )
        # The floor of each bin, sqrt(1e-7), takes some of the difference away in short windows.
        assert 0.8 < (loss(fake, real) - logarithm).item() < 1.05
    assert MultiResolutionSTFT()(real, real).item() == 0


def test_equal_waveforms_cost_nothing_and_have_a_finite_gradient():
    real = noise(9, 2, 3000)
    for loss in (MultiResolutionSTFT(), MelL1(MelSpec.preset("hifigan"))):
        for audio in (real, torch.zeros_like(real)):
            fake = audio.clone().requires_grad_()
            value = loss(fake, audio)
            value.backward()
            assert value.item() == pytest.approx(0, abs=1e-6)
            assert torch.isfinite(fake.grad).all()


def test_multi_resolution_gradient_is_the_slope():
    loss = MultiResolutionSTFT(SMALL).double()
    fake, real = noise(10, 2, 90, dtype=torch.float64).requires_grad_(), noise(11, 2, 90, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, real), fake, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("resolutions", [(), ((64, 16, 80),), ((64, 0, 64),)])
def test_resolutions_that_cannot_be_are_refused(resolutions):
    with pytest.raises(ValueError, match="got"):
        MultiResolutionSTFT(resolutions)


@pytest.mark.parametrize(
    "fake_shape, real_shape", [((2, 1024), (2, 1024)), ((2, 4000), (2, 4001)), ((2, 1, 4000), (2, 1, 4000))]
)
def test_waveforms_that_cannot_be_compared_are_refused(fake_shape, real_shape):
    with pytest.raises(ValueError, match="more than 1024 samples"):
        MultiResolutionSTFT()(torch.zeros(fake_shape), torch.zeros(real_shape))


# --- mel


def test_mel_l1_is_librosas():
    fake, real = noise(12, 2, 8192, rms=0.05), noise(13, 2, 8192)
    for full_band, fmax in ((False, 8000), (True, 11025)):
        mels = []
        for audio in (fake, real):
            padded = np.pad(audio.double().numpy(), ((0, 0), (384, 384)), mode="reflect")
            spectrum = librosa.stft(padded, n_fft=1024, hop_length=256, center=False)
            bank = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=fmax)
            mels.append(np.log(np.maximum(bank @ np.sqrt(np.abs(spectrum) ** 2 + 1e-9), 1e-5)))
        expected = np.mean(np.abs(mels[0] - mels[1]))
        assert MelL1(MelSpec.preset("hifigan"), full_band)(fake, real).item() == pytest.approx(
            expected, rel=1e-4
        )


def test_only_the_full_band_hears_above_fmax():
    real = noise(14, 1, 8192)
    hiss = 0.5 * torch.sin(2 * math.pi * 9500 / 22050 * torch.arange(8192))
    spec = MelSpec.preset("hifigan")
    deaf, hearing = (MelL1(spec, full_band)(real + hiss, real).item() for full_band in (False, True))
    assert hearing > 0.03  # a tone moves few of 80 bands
    assert hearing > 10 * deaf  # the window's side lobes reach below fmax a little


def test_mel_l1_pulls_towards_the_real():
    spec = MelSpec.preset("hifigan")
    fake, real = noise(15, 1, 4096).requires_grad_(), noise(16, 1, 4096)
    loss = MelL1(spec)
    before = loss(fake, real)
    (slope,) = torch.autograd.grad(before, fake)
    step = 1e-3 * slope / slope.norm()
    after = loss(fake - step, real)
    assert (before - after).item() == pytest.approx(1e-3 * slope.norm().item(), rel=0.05)


def test_a_mel_of_other_windows_follows_the_convention():
    """At any rate the same as the convention written out with its sizes multiplied."""
    for rate, n_fft, hop in ((22050, 1024, 256), (48000, 2048, 300)):
        spec = replace(
            MelSpec.preset("hifigan"), sample_rate=rate, n_fft=n_fft, win_length=n_fft, hop_length=hop
        )
        half = MelL1(spec, times_window=0.5, n_mels=40, full_band=True)
        written_out = replace(
            spec, n_fft=n_fft // 2, win_length=n_fft // 2, hop_length=hop // 2, n_mels=40, fmax=rate / 2
        )
        assert half.front_end.spec == written_out
        assert half.sample_rate == rate
    bands = replace(spec, mean=tuple(range(80)), scale=(2.0,) * 80, clip=(-3.0, 3.0))
    assert MelL1(bands).front_end.spec == bands
    assert MelL1(bands, n_mels=40).front_end.spec == replace(spec, n_mels=40)
    with pytest.raises(ValueError, match=r"times_window: 0.0625 times the mel's hop_length 300 is 18.75"):
        MelL1(spec, times_window=1 / 16)


def test_amplitude_and_phase_follow_the_convention():
    spec = replace(MelSpec.preset("hifigan"), sample_rate=48000, n_fft=2048, win_length=1200, hop_length=300)
    loss = AmplitudeAndPhase(mel=spec)
    assert (loss.n_fft, loss.hop_length, loss.sample_rate) == (2048, 300, 48000)
    assert (AmplitudeAndPhase(mel=spec, n_fft=512).n_fft, AmplitudeAndPhase().n_fft) == (512, 1024)


@pytest.mark.parametrize(
    "loss",
    [
        MultiResolutionSTFT(SMALL),
        MelL1(MelSpec.preset("hifigan")),
        AmplitudeAndPhase(64, 16),
        AmplitudeAndPhase(64, 64),
    ],
)
def test_the_shortest_is_the_shortest(loss):
    """There it is a number and has a slope; a sample less is refused."""
    shortest = loss.shortest_samples
    fake, real = noise(20, 2, shortest).requires_grad_(), noise(21, 2, shortest)
    value = loss(fake, real)
    value.backward()
    assert value.item() > 0
    assert torch.isfinite(fake.grad).all()
    with pytest.raises(ValueError):
        loss(fake[:, 1:], real[:, 1:])


# --- precision


WHOLE = [
    MultiResolutionSTFT(),
    MelL1(MelSpec.preset("hifigan")),
    SubBandSTFT(),
    MultiScaleMel(MelSpec.preset("hifigan")),
    AmplitudeAndPhase(),
    EnvelopeModulation(),
]


@pytest.mark.parametrize("loss", WHOLE)
def test_autocast_changes_nothing(loss):
    """Given the same waveforms: the value and the gradient under bf16 autocast are bit for bit those without."""
    values = []
    for enabled in (False, True):
        fake, real = noise(17, 2, 4096).requires_grad_(), noise(18, 2, 4096)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = loss(fake, real)
        value.backward()
        assert value.dtype == torch.float32
        values.append((value.detach(), fake.grad))
    assert torch.equal(values[0][0], values[1][0])
    assert torch.equal(values[0][1], values[1][1])


@pytest.mark.parametrize("loss", WHOLE)
def test_a_waveform_in_double_is_measured_in_double(loss):
    fake, real = noise(17, 2, 4096), noise(18, 2, 4096)
    value = loss(fake.double(), real.double())
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(loss(fake, real).item(), rel=1e-5)


@pytest.mark.parametrize("loss", WHOLE)
def test_a_sixteen_bit_waveform_is_measured_in_float32(loss):
    fake, real = noise(19, 2, 4096).bfloat16(), noise(20, 2, 4096)
    assert loss(fake, real).item() == loss(fake.float(), real).item()
