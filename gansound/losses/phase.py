"""Losses that see the phase of a waveform's short-time spectrum.

The three errors are APNet's (Ai and Ling, "APNet: An All-Frame-Level Neural Vocoder", arXiv 2305.07952): of the
phase itself (instantaneous phase), of its difference along frequency (group delay) and along time (instantaneous
angular frequency). There each is anti-wrapped, |x - 2 pi round(x / 2 pi)|. Here the same comparison is made without
an angle: for two complex numbers of phase error x, |sin(x / 2)| = sqrt((1 - cos x) / 2), which has the period, the
minimum and near it the slope of the anti-wrapped error, and no branch cut. Errors are weighted by the square root
of the real amplitude, since the phase of silence is noise.
"""

import torch
from torch import Tensor, nn


def phase_errors(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean of |sin(error / 2)| of phase, group delay and instantaneous frequency, each a scalar in [0, 1].

    Shape: two complex spectra `(B, K, F)`.
    """
    weight = real.abs().sqrt()
    # Per utterance, so that a batch is the mean of its items whatever their levels.
    weight = weight / weight.mean(dim=(1, 2), keepdim=True).clamp_min(1e-5)
    fake, real = unit(fake), unit(real)
    error = fake * real.conj()
    along_frequency = error[:, 1:] * error[:, :-1].conj()
    along_time = error[:, :, 1:] * error[:, :, :-1].conj()
    return (
        (weight * half_sine(error)).mean(),
        (weight[:, 1:] * half_sine(along_frequency)).mean(),
        (weight[:, :, 1:] * half_sine(along_time)).mean(),
    )


def unit(spectrum: Tensor) -> Tensor:
    """x / |x|, fading to zero for amplitudes below 1e-4 where a phase means nothing and its gradient explodes."""
    squared = spectrum.real.square() + spectrum.imag.square()
    return spectrum * torch.rsqrt(squared + 1e-8)


def half_sine(error: Tensor) -> Tensor:
    """|sin(x / 2)| of the angle x of a complex number of modulus 1."""
    return torch.sqrt(((1 - error.real) / 2).clamp_min(0) + 1e-6)


def compressed_complex_l1(fake: Tensor, real: Tensor, power: float) -> Tensor:
    """L1 between spectra whose amplitudes are raised to `power`, their phases kept, relative to the real one's mean.

    Power-law compression as in Ephrat et al., "Looking to Listen at the Cocktail Party" (arXiv 1804.03619).
    """
    fake, real = compress(fake, power), compress(real, power)
    distance = torch.view_as_real(fake - real).abs().sum(-1).mean(dim=(1, 2))
    return (distance / real.abs().mean(dim=(1, 2)).clamp_min(1e-4)).mean()


def compress(spectrum: Tensor, power: float) -> Tensor:
    squared = spectrum.real.square() + spectrum.imag.square()
    return spectrum * (squared + 1e-8).pow((power - 1) / 2)
