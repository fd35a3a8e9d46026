"""In place of the decoder inside a VITS: `model.decoder` in transformers' `VitsModel`, `net.dec` in others.

The vocoder is an imported decoder (`gansound import`) that takes the latents of this very model.
"""

from typing import ClassVar

from torch import Tensor

from gansound.adapters.host_module import HostModule


class Module(HostModule):
    """Called with latents, and with the speaker's embedding where the host has several."""

    takes: ClassVar[str] = "latent"

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """`(B, C, F)` -> `(B, 1, F * hop_length)`. The speaker is the one it was imported for, whatever `g` says."""
        return self.sound(z).unsqueeze(-2)
