"""A step of Griffin-Lim as a layer, against torch's own STFT and inverse."""

import pytest
import torch

from gansound.generators.universal import UniversalGenerator
from gansound.mel import MelSpec
from gansound.nn.griffin_lim import CONTRADICTION, Frames, GriffinLimStep
from gansound.nn.inference_form import _MatrixFrames, _MatrixISTFT


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(frames: int, n_fft: int = 64) -> torch.Tensor:
    """Of no sound: each frame says something else."""
    drawn = noise(2, frames, n_fft + 2)
    drawn[..., [n_fft // 2 + 1, n_fft + 1]] = 0  # what a real frame can't have
    return drawn


def layer(n_fft: int = 64, hop: int = 16, causal: bool = False) -> GriffinLimStep:
    step = GriffinLimStep(n_fft, hop, causal=causal)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    step.inverse.window, step.frames.window = window, window
    return step


def as_complex(x: torch.Tensor) -> torch.Tensor:
    """As torch's own: `(B, n_fft // 2 + 1, F)`."""
    return torch.complex(*x.chunk(2, 2)).transpose(1, 2)


@pytest.mark.parametrize("hop", [16, 8, 32])
def test_it_keeps_amplitudes_and_takes_the_phases_of_the_nearest_sound(hop):
    given = spectrum(40)
    form = {"n_fft": 64, "hop_length": hop, "window": torch.hann_window(64, dtype=torch.float64)}
    target = as_complex(given)
    sound = torch.istft(target, **form, center=True)
    near = torch.stft(sound, **form, center=True, return_complex=True)
    inside = slice(8, -9)
    wanted, left = target.abs()[..., inside], near[..., inside]
    expected = wanted * left / (left.abs().square() + (CONTRADICTION * wanted).square()).sqrt()
    made = as_complex(layer(hop=hop)(given))[..., inside]
    torch.testing.assert_close(made, expected, atol=1e-9, rtol=0)
    assert (made.abs() / wanted).median() > 0.9
    assert (made.angle() - target[..., inside].angle()).abs().median() > 0.1


def test_the_spectrum_of_a_sound_stays_as_it_is():
    sound = noise(1, 64 * 10)
    window = torch.hann_window(64, dtype=torch.float64)
    own = torch.view_as_real(torch.stft(sound, 64, 16, window=window, center=False, return_complex=True))
    own = own.permute(0, 2, 3, 1).flatten(2)
    inside = slice(3, -3)
    torch.testing.assert_close(
        layer()(own)[:, inside], own[:, inside] / (1 + CONTRADICTION**2) ** 0.5, atol=1e-9, rtol=0
    )


def test_a_causal_one_agrees_with_the_frames_until_then():
    given = spectrum(9)
    made = layer(causal=True)(given)
    for last in (3, 8):
        # The last of a sound: no frame comes after it that it could have listened to.
        torch.testing.assert_close(layer()(given[:, : last + 1])[:, last], made[:, last], atol=1e-12, rtol=0)
    later = given.clone()
    later[:, 5:] = 0
    torch.testing.assert_close(layer(causal=True)(later)[:, :5], made[:, :5], atol=0, rtol=0)


def test_rounding_grows_by_no_more_than_the_share_of_contradiction_allows():
    given = spectrum(20)
    bent = given * (1 + 1e-7 * noise(*given.shape, seed=1))
    step = layer()
    change = (step(bent) - step(given)).abs().max()
    assert 0 < change < 1e-7 * given.abs().max() * 4 / CONTRADICTION
    silence = torch.zeros_like(given)
    assert step(silence).abs().max() == 0
    silence.requires_grad_()
    step(silence).sum().backward()
    assert bool(silence.grad.isfinite().all())


@pytest.mark.parametrize("n_fft", [64, 60, 33])
def test_a_graph_has_the_same_transform_as_a_matrix_product(n_fft):
    frames = Frames(torch.hann_window(n_fft, dtype=torch.float64))
    given = noise(2, 3, n_fft)
    graph = _MatrixFrames(frames)
    torch.testing.assert_close(graph(given), frames(given), atol=1e-10, rtol=0)
    # One pair of matrices for all layers of a size, so that a file holds it once.
    assert _MatrixFrames(frames).cosines is graph.cosines
    if n_fft % 16 == 0:
        inverse = layer(n_fft).inverse
        assert _MatrixISTFT(inverse).sines is graph.sines
        torch.testing.assert_close(
            _MatrixISTFT(inverse)._frames(spectrum(3)), inverse._frames(spectrum(3)), atol=1e-10, rtol=0
        )


def test_sizes_that_do_not_overlap_evenly_are_refused():
    with pytest.raises(ValueError, match="n_fft must be a multiple of hop_length"):
        GriffinLimStep(64, 24)
    with pytest.raises(ValueError, match="griffin_lim must be 0 or more steps, got -1"):
        UniversalGenerator(MelSpec.preset("hifigan"), griffin_lim=-1)
