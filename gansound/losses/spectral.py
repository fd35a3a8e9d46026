"""Distances between spectra: of mels, and of magnitudes at several resolutions.

Each is a mean over utterances of something that depends on one utterance alone, so that a batch cut into
micro-batches, or spread over ranks, gives the same loss. All are computed in float32 also under autocast.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gansound.mel import MelFrontEnd, MelSpec
from gansound.nn.pqmf import PQMF
from gansound.precision import full_precision, no_autocast

# (n_fft, hop, window) in samples. Yamamoto et al., "Parallel WaveGAN", arXiv 1910.11480.
PARALLEL_WAVEGAN_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
# Of each of four bands. kan-bayashi/ParallelWaveGAN, multi_band_melgan.v2.
SUB_BAND_RESOLUTIONS = ((384, 30, 150), (683, 60, 300), (171, 10, 60))

POWER_FLOOR = 1e-7  # below it the square root's slope explodes and a logarithm measures nothing
LONGEST_N_FFT = 32768
SILENCE_RMS = 1e-3  # −60 dBFS


def mel_l1(fake_mel: Tensor, real_mel: Tensor) -> Tensor:
    """Mean absolute difference of two mels `(B, M, F)` → scalar. HiFi-GAN, arXiv 2010.05646."""
    return (full_precision(fake_mel) - full_precision(real_mel)).abs().mean()


def stft_magnitude(audio: Tensor, n_fft: int, hop_length: int, window: Tensor) -> Tensor:
    """Magnitude of the centred, reflected short-time spectrum, never below `sqrt(POWER_FLOOR)`.

    Shape:
        audio `(B, T)`, T > n_fft // 2 → `(B, n_fft // 2 + 1, 1 + T // hop_length)`.
    """
    spectrum = torch.stft(audio, n_fft, hop_length, window.numel(), window, center=True, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp_min(POWER_FLOOR).sqrt()


def spectral_convergence(fake_magnitude: Tensor, real_magnitude: Tensor, floor: float = 0.0) -> Tensor:
    """‖real − fake‖ / max(‖real‖, floor) of each utterance's spectrum, then the mean over utterances.

    Arik et al., arXiv 1808.06719; Parallel WaveGAN, arXiv 1910.11480. Published code takes the
    norms over the whole batch; a ratio of sums can't be accumulated over micro-batches.

    Shape:
        `(B, K, F)` each → scalar.
    """
    error = torch.linalg.vector_norm(real_magnitude - fake_magnitude, dim=(1, 2))
    return (error / torch.linalg.vector_norm(real_magnitude, dim=(1, 2)).clamp_min(floor)).mean()


def log_magnitude_l1(fake_magnitude: Tensor, real_magnitude: Tensor) -> Tensor:
    """Mean absolute difference of natural logarithms. Parallel WaveGAN, arXiv 1910.11480.

    Shape:
        `(B, K, F)` each, positive → scalar.
    """
    return (real_magnitude.log() - fake_magnitude.log()).abs().mean()


class MelL1(nn.Module):
    """Mean absolute difference of mels, in the convention's own scale.

    In a recipe the convention is the task's unless another is given, so that a loss of another resolution follows it.

    Args:
        mel: the convention.
        full_band: measure up to half the sample rate instead of the convention's fmax, as HiFi-GAN's loss
            does, so that what the input doesn't show is trained too.
        times_window: n_fft, window and hop are so many times the convention's.
        n_mels: bands, where they are to be others than the convention's; its statistics of each band then stay out.

    Shape:
        fake, real `(B, T)`, T >= `shortest_samples` → scalar.

    Raises:
        ValueError: sizes that aren't whole numbers any more, or no convention (see `MelSpec`).
    """

    def __init__(
        self,
        mel: MelSpec,
        full_band: bool = False,
        times_window: float = 1.0,
        n_mels: int | None = None,
    ) -> None:
        super().__init__()
        sizes = {name: getattr(mel, name) * times_window for name in ("n_fft", "win_length", "hop_length")}
        if uneven := [name for name, size in sizes.items() if not float(size).is_integer()]:
            raise ValueError(
                f"times_window: {times_window:g} times the mel's {uneven[0]} {getattr(mel, uneven[0])} is "
                f"{sizes[uneven[0]]:g}, expected a whole number of samples"
            )
        changed: dict[str, Any] = {name: int(size) for name, size in sizes.items()}
        if full_band:
            changed["fmax"] = mel.sample_rate / 2
        if n_mels not in (None, mel.n_mels):
            changed["n_mels"] = n_mels
            if max(len(mel.mean), len(mel.scale)) > 1:
                changed |= {"mean": (0.0,), "scale": (1.0,), "clip": None}
        self.front_end = MelFrontEnd(replace(mel, **changed))
        self.sample_rate = mel.sample_rate
        self.shortest_samples = self.front_end.spec.hop_length

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Shape: fake, real `(B, T)` → scalar. Gradient flows into both."""
        with no_autocast(fake):
            return mel_l1(self.front_end(full_precision(fake)), self.front_end(full_precision(real)))


class MultiResolutionSTFT(nn.Module):
    """Spectral convergence plus log-magnitude distance, averaged over resolutions.

    Parallel WaveGAN, arXiv 1910.11480. Two departures: convergence is per utterance, and an
    utterance below −60 dBFS counts as white noise at −60 dBFS in its denominator, since otherwise one silent
    segment would outweigh the rest of its batch a thousandfold.

    Args:
        resolutions: (n_fft, hop, window) in samples of each; Hann window.

    Shape:
        fake, real `(B, T)`, T >= `shortest_samples`, half the longest n_fft and one more → scalar.

    Raises:
        ValueError: when a window is longer than its n_fft, or the audio too short for the largest one.
    """

    def __init__(self, resolutions: tuple[tuple[int, int, int], ...] = PARALLEL_WAVEGAN_RESOLUTIONS) -> None:
        super().__init__()
        for n_fft, hop_length, win_length in resolutions:
            if not (0 < win_length <= n_fft <= LONGEST_N_FFT and hop_length > 0):
                raise ValueError(
                    f"each resolution is (n_fft, hop, window) in samples, 0 < window <= n_fft <= {LONGEST_N_FFT}, "
                    f"hop > 0, got {(n_fft, hop_length, win_length)}"
                )
        if not resolutions:
            raise ValueError("resolutions must hold at least one (n_fft, hop, window), got none")
        self.resolutions = tuple((n_fft, hop_length) for n_fft, hop_length, _ in resolutions)
        self.shortest_samples = max(n_fft for n_fft, _ in self.resolutions) // 2 + 1
        self.silence_magnitudes = []
        for index, (_, _, win_length) in enumerate(resolutions):
            window = torch.hann_window(win_length)
            self.register_buffer(f"window_{index}", window, persistent=False)
            # White noise of RMS a has the expected power a² Σw² in every bin.
            self.silence_magnitudes.append(SILENCE_RMS * math.sqrt(window.square().sum().item()))

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Shape: fake, real `(B, T)` → scalar. Gradient flows into both.

        Raises:
            ValueError: when the shapes differ or the audio is too short for the largest n_fft.
        """
        if fake.shape != real.shape or fake.dim() != 2 or fake.shape[1] < self.shortest_samples:
            raise ValueError(
                f"expected two waveforms of one shape (batch, more than {self.shortest_samples - 1} samples), got "
                f"{tuple(fake.shape)} and {tuple(real.shape)}; take longer segments or smaller resolutions"
            )
        losses = []
        with no_autocast(fake):
            fake, real = full_precision(fake), full_precision(real)
            for index, (n_fft, hop_length) in enumerate(self.resolutions):
                window = self.get_buffer(f"window_{index}").to(fake.dtype)
                fake_magnitude = stft_magnitude(fake, n_fft, hop_length, window)
                real_magnitude = stft_magnitude(real, n_fft, hop_length, window)
                floor = self.silence_magnitudes[index] * math.sqrt(real_magnitude[0].numel())
                losses.append(
                    spectral_convergence(fake_magnitude, real_magnitude, floor)
                    + log_magnitude_l1(fake_magnitude, real_magnitude)
                )
        return torch.stack(losses).mean()


class SubBandSTFT(nn.Module):
    """`MultiResolutionSTFT` of each band of a filter bank, averaged over the bands.

    Yang et al., "Multi-band MelGAN", arXiv 2005.05106, section 3.2. One departure: the paper compares with the bands
    that the generator puts together, here those that the made waveform is taken apart to again, so that any generator
    can learn from it; the filter bank reconstructs nearly perfectly, so the two are nearly the same.

    Args:
        mel: whose hop the bands must divide; in a recipe the task's.
        bands: of the filter bank.
        resolutions: (n_fft, hop, window) of each, in samples of a band.
        pqmf_taps, pqmf_cutoff_ratio, pqmf_beta: of the filter bank, see `PQMF`.

    Shape:
        fake, real `(B, T)`, T >= `shortest_samples` → scalar.

    Raises:
        ValueError: bands that don't divide the hop; and see `PQMF` and `MultiResolutionSTFT`.
    """

    def __init__(
        self,
        mel: MelSpec | None = None,
        bands: int = 4,
        resolutions: tuple[tuple[int, int, int], ...] = SUB_BAND_RESOLUTIONS,
        pqmf_taps: int = 62,
        pqmf_cutoff_ratio: float = 0.142,
        pqmf_beta: float = 9.0,
    ) -> None:
        super().__init__()
        self.filter_bank = PQMF(bands, pqmf_taps, pqmf_cutoff_ratio, pqmf_beta)
        if mel is not None and mel.hop_length % bands:
            raise ValueError(
                f"the bands must divide the mel's hop_length {mel.hop_length}, got {bands} bands"
            )
        self.stft = MultiResolutionSTFT(resolutions)
        self.shortest_samples = bands * self.stft.shortest_samples

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Shape: fake, real `(B, T)` → scalar. Gradient flows into both."""
        with no_autocast(fake):
            bands = [self.filter_bank.analyze(full_precision(x).unsqueeze(1)) for x in (fake, real)]
            distance: Tensor = self.stft(*(band.flatten(0, 1) for band in bands))
            return distance


class MultiScaleMel(nn.Module):
    """Mean absolute difference of log-mels, summed over windows from the shortest click to the longest tone.

    Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), arXiv 2306.06546, section 3.4, where its
    coefficient is 15; BigVGAN 2 has taken it over. Hops are a quarter of the window, bands reach up to half the rate,
    logarithms are decimal and above 1e-5.

    Args:
        mel: whose sample rate it is; in a recipe the task's.
        windows: in samples.
        n_mels: bands of each window.

    Shape:
        fake, real `(B, T)`, T >= `shortest_samples` → scalar.

    Raises:
        ValueError: other numbers of windows and bands; and see `MelSpec`.
    """

    def __init__(
        self,
        mel: MelSpec,
        windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048),
        n_mels: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320),
    ) -> None:
        super().__init__()
        if not windows or len(windows) != len(n_mels) or min(windows) < 4:
            raise ValueError(
                f"expected one or more windows of 4 samples or more, and n_mels for each, got {windows} and {n_mels}"
            )
        self.front_ends = nn.ModuleList(
            MelFrontEnd(
                MelSpec(
                    sample_rate=mel.sample_rate,
                    n_fft=window,
                    hop_length=window // 4,
                    win_length=window,
                    n_mels=bands,
                    fmin=0.0,
                    fmax=mel.sample_rate / 2,
                    framing="center",
                    magnitude_eps=0.0,
                    log="log10",
                )
            )
            for window, bands in zip(windows, n_mels, strict=True)
        )
        self.sample_rate = mel.sample_rate
        self.shortest_samples = max(windows) // 2 + 1  # mirrored by less than it has

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Shape: fake, real `(B, T)` → scalar. Gradient flows into both."""
        with no_autocast(fake):
            fake, real = full_precision(fake), full_precision(real)
            return torch.stack([mel_l1(mel(fake), mel(real)) for mel in self.front_ends]).sum()
