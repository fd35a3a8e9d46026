"""A loss that sees amplitude and phase of a waveform's short-time spectrum.

The phase terms are APNet's (Ai and Ling, "APNet: An All-Frame-Level Neural Vocoder", arXiv 2305.07952): the error of
the phase's difference along frequency (group delay) and along time (instantaneous frequency). There each is
anti-wrapped, |x - 2 pi round(x / 2 pi)|. Here the same comparison is made without an angle: for an error x,
|sin(x / 2)| = sqrt((1 - cos x) / 2) has the same period, minimum and slope there, and no branch cut. Each is weighted
by the square root of the real amplitude, since the phase of silence is noise.

APNet's third term, the phase itself, is left out: a mel does not tell where in a period it starts, the term stays at
chance (2 / pi) and its gradient is noise. In a pilot, five minutes of training on a core reached a PESQ of 2.10 with it
and 2.18 without; see docs/kathleen.md.
"""

import torch
from torch import Tensor, nn

from gansound.losses.spectral import LONGEST_N_FFT
from gansound.mel import MelSpec
from gansound.precision import full_precision, no_autocast

AMPLITUDE_FLOOR = 1e-5


class AmplitudeAndPhase(nn.Module):
    """Weighted sum of log-amplitude L1, group-delay error and instantaneous-frequency error of one short-time spectrum.

    Frames lie as a vocoder's do, one a hop, the waveform mirrored by (n_fft - hop_length) / 2 at both ends.

    Args:
        n_fft: length of the Hann window, in samples; null takes the mel's, 1024 without one.
        hop_length: samples between two frames; null takes the mel's, 256 without one.
        amplitude: coefficient of the L1 between natural log-amplitudes.
        group_delay: coefficient of the phase's error along frequency, in [0, 1] by itself.
        frequency: coefficient of the phase's error along time, in [0, 1] by itself.
        mel: whose sizes it takes; in a recipe the task's.

    Shape: fake, real `(B, T)`, T >= `shortest_samples` -> scalar.
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int | None = None,
        hop_length: int | None = None,
        amplitude: float = 0.5,
        group_delay: float = 1.0,
        frequency: float = 1.0,
        mel: MelSpec | None = None,
    ) -> None:
        super().__init__()
        n_fft = n_fft if n_fft is not None else mel.n_fft if mel is not None else 1024
        hop_length = hop_length if hop_length is not None else mel.hop_length if mel is not None else 256
        if not 0 < hop_length <= n_fft <= LONGEST_N_FFT or (n_fft - hop_length) % 2:
            raise ValueError(
                f"expected 0 < hop_length <= n_fft <= {LONGEST_N_FFT} with an even difference, got {hop_length} and "
                f"{n_fft}"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.sample_rate = None if mel is None else mel.sample_rate
        # Mirrored by less than it has, and two frames at least, for what is compared between them.
        self.shortest_samples = max((n_fft - hop_length) // 2 + 1, 2 * hop_length)
        self.amplitude = amplitude
        self.group_delay = group_delay
        self.frequency = frequency
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Gradient flows into `fake`.

        Raises:
            ValueError: shapes that differ, or too short to be mirrored or for two frames.
        """
        least = self.shortest_samples
        if fake.shape != real.shape or fake.dim() != 2 or fake.shape[1] < least:
            raise ValueError(
                f"expected two waveforms of one shape (B, T >= {least}), got {tuple(fake.shape)} and "
                f"{tuple(real.shape)}"
            )
        with no_autocast(fake):
            made = self._spectrum(full_precision(fake))
            with torch.no_grad():
                true = self._spectrum(full_precision(real))
            amplitude, group_delay, frequency = amplitude_and_phase_errors(made, true)
        return self.amplitude * amplitude + self.group_delay * group_delay + self.frequency * frequency

    def _spectrum(self, audio: Tensor) -> Tensor:
        pad = (self.n_fft - self.hop_length) // 2
        padded = nn.functional.pad(audio.unsqueeze(1), (pad, pad), mode="reflect").squeeze(1)
        spectrum = torch.stft(
            padded,
            self.n_fft,
            self.hop_length,
            window=self.window.to(audio.dtype),
            center=False,
            return_complex=True,
        )
        return torch.view_as_real(spectrum)


def amplitude_and_phase_errors(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-amplitude L1, and the weighted |sin(error / 2)| of group delay and of instantaneous frequency.

    Shape: two spectra `(B, K, F, 2)`, real and imaginary parts -> three scalars, means over utterances.
    """
    fake_power, real_power = fake.square().sum(-1), real.square().sum(-1)
    floor = AMPLITUDE_FLOOR**2
    fake_amplitude, real_amplitude = (fake_power + floor).sqrt(), (real_power + floor).sqrt()
    amplitude = (fake_amplitude.log() - real_amplitude.log()).abs().mean()
    # The phasor of the error: its modulus is 1, fading to 0 at amplitudes where a phase means nothing.
    inverse = torch.rsqrt((fake_power + 1e-8) * (real_power + 1e-8))
    x = (fake[..., 0] * real[..., 0] + fake[..., 1] * real[..., 1]) * inverse
    y = (fake[..., 1] * real[..., 0] - fake[..., 0] * real[..., 1]) * inverse
    weight = real_amplitude.sqrt()
    # Per utterance, so that a batch is the mean of its items whatever their levels.
    weight = weight / weight.mean(dim=(1, 2), keepdim=True)
    along_frequency = x[:, 1:] * x[:, :-1] + y[:, 1:] * y[:, :-1]
    along_time = x[:, :, 1:] * x[:, :, :-1] + y[:, :, 1:] * y[:, :, :-1]
    return (
        amplitude,
        (weight[:, 1:] * half_sine(along_frequency)).mean(),
        (weight[:, :, 1:] * half_sine(along_time)).mean(),
    )


def half_sine(cosine: Tensor) -> Tensor:
    """|sin(x / 2)| from cos(x), its slope kept finite at zero."""
    return (((1 - cosine) / 2).clamp_min(0) + 1e-6).sqrt()
