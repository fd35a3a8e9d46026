"""In place of the HiFi-GAN of Matcha-TTS: called with a mel, also by the host's own `Denoiser`."""

from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """HiFi-GAN's own shape, which whoever took jik876's `Generator` expects too."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, M, F)` -> `(B, 1, F * hop_length)`; no mel but the one that `Denoiser` tries it by is all zeros."""
        return self.sound(x, warn=bool(x.any())).unsqueeze(-2)
