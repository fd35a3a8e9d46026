"""The multi-resolution discriminator: nets that look at the waveform's spectrograms, each at its own resolution.

Jang et al., "UnivNet", Interspeech 2021, arXiv 2106.07889, section 2.3, as BigVGAN (arXiv 2206.04658) published it; and
Vocos' (Siuzdak, arXiv 2306.00814), whose convolutions stride along both axes. The window is rectangular in the
published code of both, by whatever accident.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.discriminators.waveform import WaveformDiscriminator, published_nets
from gansound.nn.conv import weight_norm
from gansound.nn.conv2d import Conv2d
from gansound.precision import no_autocast

NEGATIVE_SLOPE = 0.1
POWER_FLOOR = 1e-14  # the slope of a root is infinite at nothing

Design = Literal["univnet", "vocos"]
Resolution = tuple[int, int, int]

# Of each layer the kernel and the stride, along frequency and along time.
_LAYERS = {
    "univnet": (((3, 9), (1, 1)), *(((3, 9), (1, 2)),) * 3, ((3, 3), (1, 1))),
    "vocos": (((7, 5), (2, 2)), ((5, 3), (2, 1)), ((5, 3), (2, 2)), ((3, 3), (2, 1)), ((3, 3), (2, 2))),
}
_RESOLUTIONS: dict[str, tuple[Resolution, ...]] = {
    "univnet": ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
    "vocos": ((1024, 256, 1024), (2048, 512, 2048), (512, 128, 512)),
}
_CHANNELS = {"univnet": 32, "vocos": 64}


class ResolutionDiscriminator(nn.Module):
    """One resolution: convolutions over the magnitudes of a short-time spectrum.

    Args:
        resolution: n_fft, hop and window, in samples.
        channels: width of every layer.
        design: which paper's kernels and strides, and framing: UnivNet mirrors (n_fft - hop) / 2 samples at both ends,
            Vocos n_fft / 2.

    Shape:
        audio `(B, T)` → 6 feature maps `(B, channels, K', F')`, the last being the logits `(B, 1, K', F')`.
    """

    def __init__(self, resolution: Resolution, channels: int, design: Design) -> None:
        super().__init__()
        self.resolution = resolution
        n_fft, hop_length, _ = resolution
        self.side_samples = (n_fft - hop_length) // 2 if design == "univnet" else n_fft // 2
        widths = [1] + [channels] * len(_LAYERS[design])
        self.layers = nn.ModuleList(
            weight_norm(Conv2d(before, channels, kernel, stride=stride))
            for before, (kernel, stride) in zip(widths, _LAYERS[design], strict=False)
        )
        self.last = weight_norm(Conv2d(channels, 1, (3, 3)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Shape: `(B, T)` → feature maps `(B, C, K', F')`, the last being the logits."""
        x = self.magnitudes(audio).unsqueeze(1)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), NEGATIVE_SLOPE)
            maps.append(x)
        return [*maps, self.last(x)]

    def magnitudes(self, audio: Tensor) -> Tensor:
        """Shape: `(B, T)` → `(B, n_fft // 2 + 1, F)`, F = 1 + (T + 2 * side_samples - n_fft) // hop."""
        n_fft, hop_length, win_length = self.resolution
        with no_autocast(audio):
            padded = F.pad(
                audio.unsqueeze(1), (self.side_samples, self.side_samples), mode="reflect"
            ).squeeze(1)
            window = torch.ones(win_length, dtype=audio.dtype, device=audio.device)
            spectrum = torch.stft(
                padded, n_fft, hop_length, win_length, window, center=False, return_complex=True
            )
            return (spectrum.real.square() + spectrum.imag.square()).clamp_min(POWER_FLOOR).sqrt()


class MultiResolutionDiscriminator(WaveformDiscriminator):
    """Equal nets, each on the spectrogram of its own resolution.

    Args:
        resolutions: (n_fft, hop, window) in samples of each; null takes those of the design's paper.
        channels: width of each net; null takes the paper's, 32 or 64.
        design: `univnet` (and BigVGAN's first), whose nets keep the frequencies, or `vocos`, several times cheaper,
            whose nets stride along them.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` → for each resolution 6 feature maps `(B, C, K', F')`, the last being
        the logits.

    Raises:
        ValueError: no resolution or one that isn't, or a width that isn't positive.
    """

    shortest_is = "for the longest n_fft"

    def __init__(
        self,
        resolutions: tuple[Resolution, ...] | None = None,
        channels: int | None = None,
        design: Design = "univnet",
    ) -> None:
        super().__init__()
        if design not in _LAYERS:
            raise ValueError(f"design is univnet or vocos, got {design!r}")
        resolutions = _RESOLUTIONS[design] if resolutions is None else resolutions
        channels = _CHANNELS[design] if channels is None else channels
        for resolution in resolutions:
            n_fft, hop_length, win_length = resolution
            if not (0 < win_length <= n_fft and 0 < hop_length <= n_fft):
                raise ValueError(
                    "each resolution is (n_fft, hop, window) in samples, 0 < hop and 0 < window, both at most n_fft, "
                    f"got {tuple(resolution)}"
                )
        if not resolutions or channels < 1:
            raise ValueError(
                f"expected one or more resolutions and a positive width, got {resolutions} and channels={channels}"
            )
        self.resolutions = nn.ModuleList(
            ResolutionDiscriminator(resolution, channels, design) for resolution in resolutions
        )
        # Mirrored by less than it has, and one frame at least.
        self.shortest_samples = max(
            max(net.side_samples + 1, net.resolution[0] - 2 * net.side_samples)
            for net in self.resolutions
            if isinstance(net, ResolutionDiscriminator)
        )

    def heads(self) -> list[nn.Module]:
        """The last layer of each net."""
        return [resolution.get_submodule("last") for resolution in self.resolutions]

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        return [resolution(audio) for resolution in self.resolutions]


def bigvgan_keys(discriminator: MultiResolutionDiscriminator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that NVIDIA/BigVGAN uses for the same tensor.

    `resolutions.i.layers.j` is `discriminators.i.convs.j`, `resolutions.i.last` is `discriminators.i.conv_post`.
    """
    return published_nets(discriminator, "resolutions")
