"""Mel filter banks, windows and padding, in plain torch.

The mel scales are Slaney's (Auditory Toolbox, 1998: linear to 1 kHz, then logarithmic) and O'Shaughnessy's formula
(1987), which HTK uses. Computed in float64, kept in float32.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F


def pad(audio: Tensor, left: int, right: int, padding: str) -> Tensor:
    """Pad (B, T) at both ends; reflection goes to and fro where it is longer than the audio."""
    length = audio.shape[-1]
    if padding == "zero" or length == 1:
        return F.pad(audio, (left, right), mode="constant" if padding == "zero" else "replicate")
    if max(left, right) < length:
        return F.pad(audio, (left, right), mode="reflect")
    index = torch.arange(-left, length + right, device=audio.device) % (2 * (length - 1))
    return audio[:, torch.minimum(index, 2 * (length - 1) - index)]


def hz_to_mel(hz: Tensor, scale: str) -> Tensor:
    """Slaney: linear to 1 kHz in steps of 200/3 Hz, then 27 steps for each factor of 6.4. HTK: 2595 log10."""
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + hz / 700.0)
    above = 15.0 + 27.0 * torch.log(hz.clamp(min=1000.0) / 1000.0) / math.log(6.4)
    return torch.where(hz < 1000.0, hz * 3.0 / 200.0, above)


def mel_to_hz(mel: Tensor, scale: str) -> Tensor:
    """The inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


@functools.lru_cache(maxsize=64)
def filter_bank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float, mel_scale: str, mel_norm: str
) -> Tensor:
    """Triangles between points equally spaced in mel, (n_mels, n_fft // 2 + 1) float32. Kept: don't write to it."""
    # Kept, so never made under inference mode: training would refuse such a tensor later.
    with torch.inference_mode(False):
        limits = torch.tensor([fmin, fmax], dtype=torch.float64, device="cpu")
        low, high = hz_to_mel(limits, mel_scale).tolist()
        points = torch.linspace(low, high, n_mels + 2, dtype=torch.float64, device="cpu")
        edges = mel_to_hz(points, mel_scale)
        bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64, device="cpu")
        left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(
            min=0
        )
        if mel_norm == "slaney":
            triangles = triangles * (2.0 / (right - left))
        return triangles.float()


def hann(length: int, window: str) -> Tensor:
    """The Hann window, periodic (`hann`) or symmetric (`hann_symmetric`), float32 on the CPU."""
    with torch.inference_mode(False):
        return torch.hann_window(length, periodic=window == "hann", dtype=torch.float32, device="cpu")
