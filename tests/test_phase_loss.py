"""The loss of amplitude and phase, against angles in numpy and scipy's spectra."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from gansound.losses.phase import AmplitudeAndPhase, amplitude_and_phase_errors, half_sine

N_FFT, HOP = 256, 64


def noise(seed: int, batch: int = 2, samples: int = 2048, level: float = 0.2) -> torch.Tensor:
    return level * torch.randn(
        batch, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def spectrum(audio: np.ndarray) -> np.ndarray:
    """`(B, K, F)` by scipy: mirrored by (N_FFT - HOP) / 2, one frame a hop, unscaled."""
    pad = (N_FFT - HOP) // 2
    padded = np.pad(audio, ((0, 0), (pad, pad)), mode="reflect")
    window = scipy.signal.get_window("hann", N_FFT)
    _, _, found = scipy.signal.stft(
        padded, window=window, nperseg=N_FFT, noverlap=N_FFT - HOP, boundary=None, padded=False
    )
    return found * window.sum()


def by_angles(fake: np.ndarray, real: np.ndarray) -> tuple[float, float, float]:
    """APNet's differences of anti-wrapped angles, as sines of half of them; weighted by the real amplitude's root."""
    a, b = spectrum(fake), spectrum(real)
    error = np.angle(a) - np.angle(b)

    def unwrapped(x: np.ndarray) -> np.ndarray:
        return np.abs(x - 2 * np.pi * np.round(x / (2 * np.pi)))

    weight = np.sqrt(np.abs(b))
    weight = weight / weight.mean(axis=(1, 2), keepdims=True)
    return (
        float(np.abs(np.log(np.abs(a)) - np.log(np.abs(b))).mean()),
        float((weight[:, 1:] * np.sin(unwrapped(np.diff(error, axis=1)) / 2)).mean()),
        float((weight[:, :, 1:] * np.sin(unwrapped(np.diff(error, axis=2)) / 2)).mean()),
    )


def terms(fake: torch.Tensor, real: torch.Tensor) -> list[float]:
    """Each of the three alone, by its coefficient."""
    return [
        AmplitudeAndPhase(N_FFT, HOP, *coefficients)(fake, real).item()
        for coefficients in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]


def test_the_three_terms_equal_their_formulas_by_angles() -> None:
    fake, real = noise(0), noise(1) * torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    assert terms(fake, real) == pytest.approx(by_angles(fake.numpy(), real.numpy()), rel=1e-3)
    close = real + 0.02 * fake
    assert terms(close, real) == pytest.approx(by_angles(close.numpy(), real.numpy()), rel=5e-3)


def test_coefficients_weigh_the_terms() -> None:
    fake, real = noise(0), noise(1)
    amplitude, group_delay, frequency = terms(fake, real)
    whole = AmplitudeAndPhase(N_FFT, HOP, 0.5, 2.0, 3.0)(fake, real).item()
    assert whole == pytest.approx(0.5 * amplitude + 2 * group_delay + 3 * frequency)


def test_phases_that_have_nothing_to_do_with_each_other_err_by_chance() -> None:
    torch.manual_seed(1)
    fake, real = (torch.view_as_real(torch.randn(4, 129, 200, dtype=torch.complex128)) for _ in range(2))
    _, group_delay, frequency = amplitude_and_phase_errors(fake, real)
    assert group_delay.item() == pytest.approx(2 / math.pi, abs=0.005)  # E sin(|x| / 2) of a uniform angle
    assert frequency.item() == pytest.approx(2 / math.pi, abs=0.005)


def test_equal_sounds_cost_nothing_but_the_root_s_floor() -> None:
    real = noise(2)
    amplitude, group_delay, frequency = terms(real, real)
    assert amplitude == 0
    assert group_delay < 2e-3
    assert frequency < 2e-3


def test_a_turn_of_all_phases_costs_no_phase_and_a_gain_only_amplitude() -> None:
    torch.manual_seed(0)
    real = torch.randn(2, 65, 12, dtype=torch.complex128)
    turned = 2.0 * real * complex(math.cos(2.1), math.sin(2.1))
    amplitude, group_delay, frequency = amplitude_and_phase_errors(
        torch.view_as_real(turned), torch.view_as_real(real)
    )
    assert amplitude.item() == pytest.approx(math.log(2.0), rel=1e-6)
    assert group_delay.item() < 2e-3
    assert frequency.item() < 2e-3
    # A turn that grows along frequency is a delay: it costs group delay alone; along time, frequency alone.
    step = 0.7
    for axis, (along, across) in ((1, (1, 2)), (2, (2, 1))):
        ramp = step * torch.arange(real.shape[axis], dtype=torch.float64)
        ramp = ramp[None, :, None] if axis == 1 else ramp[None, None, :]
        moved = real * torch.polar(torch.ones_like(ramp), ramp)
        errors = amplitude_and_phase_errors(torch.view_as_real(moved), torch.view_as_real(real))
        assert errors[along].item() == pytest.approx(math.sin(step / 2), rel=0.05)
        assert errors[across].item() < 2e-3
        assert errors[0].item() < 1e-9


def test_a_batch_is_the_mean_of_its_items_whatever_their_levels() -> None:
    fake, real = noise(3, batch=3), noise(4, batch=3)
    scale = torch.tensor([[1.0], [0.03], [0.3]], dtype=torch.float64)
    loss = AmplitudeAndPhase(N_FFT, HOP)
    whole = loss(fake * scale, real * scale).item()
    parts = [loss(fake[i : i + 1] * scale[i], real[i : i + 1] * scale[i]).item() for i in range(3)]
    assert whole == pytest.approx(np.mean(parts), rel=1e-9)


@pytest.mark.parametrize("level", [0.0, 1e-8, 1.0])
@pytest.mark.parametrize("real_level", [0.0, 1e-4, 1.0])
def test_gradients_stay_finite_in_silence_and_where_equal(level: float, real_level: float) -> None:
    real = (real_level * noise(5)).float()
    for fake in ((level * noise(6)).float(), real.clone(), torch.zeros_like(real)):
        fake.requires_grad_()
        loss = AmplitudeAndPhase(N_FFT, HOP)(fake, real)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(fake.grad).all()


def test_the_gradient_is_the_slope() -> None:
    fake, real = noise(7, batch=1, samples=512).requires_grad_(), noise(8, batch=1, samples=512)
    loss = AmplitudeAndPhase(N_FFT, HOP)
    loss(fake, real).backward()
    direction = noise(9, batch=1, samples=512)
    step = 1e-6
    with torch.no_grad():
        slope = (loss(fake + step * direction, real) - loss(fake - step * direction, real)) / (2 * step)
    assert slope.item() == pytest.approx((fake.grad * direction).sum().item(), rel=1e-4)


def test_no_gradient_reaches_the_real_sound() -> None:
    fake, real = noise(0).requires_grad_(), noise(1).requires_grad_()
    AmplitudeAndPhase(N_FFT, HOP)(fake, real).backward()
    assert real.grad is None


def test_it_is_computed_in_full_precision_under_autocast() -> None:
    fake, real = noise(0).float(), noise(1).float()
    loss = AmplitudeAndPhase(N_FFT, HOP)
    plain = loss(fake, real)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(fake, real), plain)
        assert loss(fake.bfloat16(), real).dtype == torch.float32


def test_descending_it_finds_the_delay_free_sound() -> None:
    real = noise(1, batch=1, samples=512)
    fake = noise(2, batch=1, samples=512).requires_grad_()
    loss = AmplitudeAndPhase(64, 16)
    optimizer = torch.optim.Adam([fake], lr=0.01)
    first = loss(fake, real).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(fake, real).backward()
        optimizer.step()
    assert loss(fake, real).item() < 0.4 * first


def test_half_sine_is_the_sine_of_half_the_angle() -> None:
    angle = torch.linspace(-math.pi, math.pi, 101, dtype=torch.float64)
    torch.testing.assert_close(half_sine(angle.cos()), (angle / 2).sin().abs(), atol=1.01e-3, rtol=0)
    beyond = half_sine(torch.tensor([1.0 + 1e-7, -1.0]))  # a cosine that rounding put past one
    assert beyond[0].item() == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "shapes, settings, reason",
    [
        (((2, 512), (2, 256)), {}, "one shape"),
        (((512,), (512,)), {}, "one shape"),
        (((1, 127), (1, 127)), {}, "T >= 128"),
        (((1, 96), (1, 96)), {"hop_length": 16}, "T >= 121"),
        ((), {"n_fft": 256, "hop_length": 63}, "even difference"),
        ((), {"n_fft": 256, "hop_length": 300}, "hop_length <= n_fft"),
        ((), {"n_fft": 256, "hop_length": 0}, "hop_length"),
    ],
)
def test_what_cannot_be_compared_is_refused(shapes: tuple, settings: dict, reason: str) -> None:
    def compare() -> None:
        loss = AmplitudeAndPhase(**({"n_fft": N_FFT, "hop_length": HOP} | settings))
        loss(*(torch.zeros(shape) for shape in shapes))

    with pytest.raises(ValueError, match=reason):
        compare()
