"""What a vocoder is tried and timed on where nobody gave it anything."""

import torch
from torch import Tensor

from gansound.latent_spec import FrameSpec, LatentSpec


def noise_mel(spec: FrameSpec, frames: int, *, seed: int = 0) -> Tensor:
    """The mel of noise that swells and fades four times a second; or a latent, noise. Shape: `(1, n_mels, frames)`."""
    draw = torch.Generator().manual_seed(seed)
    if isinstance(spec, LatentSpec):
        return torch.randn(1, spec.channels, frames, generator=draw)
    samples = (frames + 1) * spec.hop_length + spec.n_fft
    noise = torch.randn(1, samples, generator=draw)
    seconds = torch.arange(samples) / spec.sample_rate
    loudness = 0.02 + 0.1 * torch.sin(4 * torch.pi * seconds).square()
    return spec.mel((noise * loudness).clamp(-1, 1))[..., :frames].contiguous()
