"""The multi-band complex-spectrum discriminator: nets for each band of the spectrum, which see its phase too.

Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), NeurIPS 2023, arXiv 2306.06546, section 3.3;
layers as published in descriptinc/descript-audio-codec.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansound.discriminators.waveform import WaveformDiscriminator
from gansound.nn.conv import weight_norm
from gansound.nn.conv2d import Conv2d
from gansound.precision import no_autocast

NEGATIVE_SLOPE = 0.1
PEAK = 0.8
# The published 1e-9 would multiply the gradient of an all but silent sound by 8e8.
LEAST_PEAK = 1e-5
_LAYERS = (((3, 9), (1, 1)), *(((3, 9), (1, 2)),) * 3, ((3, 3), (1, 1)))  # along time and along frequency
FEWEST_BINS = 8  # of a band, which three strides of 2 leave one of

DAC_BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


class BandedSpectrumDiscriminator(nn.Module):
    """One window: a stack of convolutions for each band of the complex spectrum, and a last one over all bands.

    Args:
        window: in samples; hops are a quarter of it.
        channels: width of every layer.
        bands: of each, where it begins and ends, in fractions of half the sample rate.

    Shape:
        audio `(B, T)` → 5 feature maps `(B, channels, F, K)` a band, then the logits `(B, 1, F, K')`,
        F = 1 + T // (window // 4).
    """

    window: Tensor

    def __init__(self, window: int, channels: int, bands: tuple[tuple[float, float], ...]) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        bins = window // 2 + 1
        self.bands = [(int(low * bins), int(high * bins)) for low, high in bands]
        widths = [2] + [channels] * len(_LAYERS)
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                weight_norm(Conv2d(before, channels, kernel, stride=stride))
                for before, (kernel, stride) in zip(widths, _LAYERS, strict=False)
            )
            for _ in bands
        )
        self.last = weight_norm(Conv2d(channels, 1, (3, 3)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Shape: `(B, T)` → feature maps `(B, C, F, K)`, the last being the logits."""
        spectrum = self.spectrum(audio)
        maps, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = spectrum[..., low:high]
            assert isinstance(stack, nn.ModuleList)
            for layer in stack:
                x = F.leaky_relu(layer(x), NEGATIVE_SLOPE)
                maps.append(x)
            ends.append(x)
        joined = torch.cat(ends, 3)
        return [*maps, self.last(joined)]

    def spectrum(self, audio: Tensor) -> Tensor:
        """Real and imaginary part of the sound without its mean and at one level: `(B, T)` → `(B, 2, F, K)`."""
        with no_autocast(audio):
            centred = audio - audio.mean(1, keepdim=True)
            level = centred * (PEAK / centred.abs().amax(1, keepdim=True).clamp_min(LEAST_PEAK))
            window = self.window.to(audio.dtype)
            size = len(window)
            spectrum = torch.stft(level, size, size // 4, size, window, return_complex=True)
            return torch.view_as_real(spectrum).permute(0, 3, 2, 1)


class MultiBandDiscriminator(WaveformDiscriminator):
    """Equal nets, each on the complex spectrum of its own window.

    Args:
        windows: in samples, multiples of 4.
        channels: width of each net.
        bands: of each, where it begins and ends, in fractions of half the sample rate.

    Shape:
        audio `(B, T)`, T >= `shortest_samples` → for each window 5 feature maps `(B, C, F, K)` a band, then the logits.

    Raises:
        ValueError: no window or band, or one that isn't, or a width that isn't positive.
    """

    shortest_is = "for the longest window"

    def __init__(
        self,
        windows: tuple[int, ...] = (2048, 1024, 512),
        channels: int = 32,
        bands: tuple[tuple[float, float], ...] = DAC_BANDS,
    ) -> None:
        super().__init__()
        if not windows or channels < 1 or any(window < 4 or window % 4 for window in windows):
            raise ValueError(
                f"expected one or more windows that are multiples of 4, and a positive width, got {windows} and "
                f"channels={channels}"
            )
        for low, high in bands:
            if not 0 <= low < high <= 1:
                raise ValueError(f"a band is (low, high) with 0 <= low < high <= 1, got {(low, high)}")
            bins = min(windows) // 2 + 1
            if int(high * bins) - int(low * bins) < FEWEST_BINS:
                raise ValueError(
                    f"a band needs {FEWEST_BINS} bins, got {(low, high)}, which are "
                    f"{int(high * bins) - int(low * bins)} of window {min(windows)}; take wider bands or longer windows"
                )
        if not bands:
            raise ValueError("expected one or more bands, got none")
        self.windows = nn.ModuleList(BandedSpectrumDiscriminator(w, channels, bands) for w in windows)
        self.shortest_samples = max(windows) // 2 + 1  # mirrored by less than it has

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        return [window(audio) for window in self.windows]
