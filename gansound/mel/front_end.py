"""Audio to mel in torch: any device, batched, differentiable."""

import functools
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from gansound.mel import filters
from gansound.mel.spec import MelSpec
from gansound.precision import full_precision, no_autocast


class MelFrontEnd(nn.Module):
    """Audio to mel by a `MelSpec`, in float32 also under autocast (float64 audio stays float64).

    Shape: (B, T) or (T,) → (B, M, F) with F = `spec.frames(T)`.
    """

    filter_bank: Tensor
    window: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("filter_bank", spec.filter_bank(), persistent=False)
        self.register_buffer("window", filters.hann(spec.win_length, spec.window), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `model.half()` must not round the filters: they follow the device only.
        super()._apply(fn, recurse)
        self.filter_bank = self.spec.filter_bank().to(self.filter_bank.device)
        self.window = filters.hann(self.spec.win_length, self.spec.window).to(self.window.device)
        return self

    def forward(self, audio: Tensor) -> Tensor:
        """The mel of the audio."""
        spec = self.spec
        if audio.ndim not in (1, 2) or not audio.is_floating_point():
            raise ValueError(
                f"audio: got {audio.dtype} of shape {tuple(audio.shape)}, expected floats (B, T) or (T,)"
            )
        if spec.frames(audio.shape[-1]) < 1 or audio.shape[-1] < 1:
            raise ValueError(f"audio: got {audio.shape[-1]} samples, fewer than one hop of {spec.hop_length}")
        with no_autocast(audio):
            audio = full_precision(audio)
            total = spec.n_fft if spec.framing == "center" else spec.n_fft - spec.hop_length
            padded = filters.pad(
                audio if audio.ndim == 2 else audio.unsqueeze(0), total // 2, total - total // 2, spec.padding
            )
            spectrum = torch.stft(
                padded,
                spec.n_fft,
                spec.hop_length,
                spec.win_length,
                self.window.to(audio.dtype),
                center=False,
                return_complex=True,
            )
            if spec.magnitude_eps:
                magnitude = (spectrum.real.square() + spectrum.imag.square() + spec.magnitude_eps).sqrt()
            else:
                magnitude = spectrum.abs()  # its gradient at zero is zero, where that of sqrt is infinite
            return spec.from_magnitude(self.filter_bank.to(audio.dtype) @ magnitude)


@functools.lru_cache(maxsize=16)
def front_end(spec: MelSpec, device: torch.device) -> MelFrontEnd:
    """The front end of a spec on a device, made once."""
    # Kept, so never made under inference mode: training would refuse its tensors later.
    with torch.inference_mode(False):
        return MelFrontEnd(spec).to(device)
