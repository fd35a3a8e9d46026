"""A discriminator's view of the sub-bands of a waveform, by a pseudo quadrature mirror filter bank.

Bands of a fraction of the rate let short kernels hear long stretches, and a high band isn't drowned by a loud low one:
Bak et al., "Avocodo", AAAI 2023, arXiv 2206.13404, section 3.2, whose sub-band discriminator takes bands of a PQMF.
"""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from gansound.discriminators.waveform import WaveformDiscriminator
from gansound.mel import MelSpec
from gansound.nn.pqmf import PQMF


class SubBandDiscriminator(WaveformDiscriminator):
    """A net of its own for each band, all alike.

    Args:
        network: a discriminator of waveforms; each band has a copy of it.
        bands: of the filter bank.
        pqmf_taps, pqmf_cutoff_ratio, pqmf_beta: of it, see `PQMF`; other numbers of bands than 4 want others.
        mel: whose hop the bands must divide; in a recipe the task's.

    Attributes:
        shortest_samples: of what it can judge, for the network's own after the split.

    Shape:
        audio `(B, T)` → the network's maps of each band `(B, T / bands)`, band after band.

    Raises:
        ValueError: bands that don't divide the hop; and see `PQMF`.
    """

    shortest_is = "for the network of every band"

    def __init__(
        self,
        network: nn.Module,
        bands: int = 4,
        pqmf_taps: int = 62,
        pqmf_cutoff_ratio: float = 0.142,
        pqmf_beta: float = 9.0,
        mel: MelSpec | None = None,
    ) -> None:
        super().__init__()
        self.filter_bank = PQMF(bands, pqmf_taps, pqmf_cutoff_ratio, pqmf_beta)
        if mel is not None and mel.hop_length % bands:
            raise ValueError(
                f"the bands must divide the mel's hop_length {mel.hop_length}, got {bands} bands"
            )
        self.networks = nn.ModuleList(copy.deepcopy(network) for _ in range(bands))
        self.shortest_samples = bands * getattr(network, "shortest_samples", 1)
        self.judged_apart = getattr(network, "judged_apart", False)

    def heads(self) -> list[nn.Module]:
        """The last layers of all bands' nets.

        Raises:
            ValueError: the network names none.
        """
        heads = []
        for network in self.networks:
            own: Callable[[], list[nn.Module]] | None = getattr(network, "heads", None)
            if own is None:
                raise ValueError(f"{type(network).__name__} names no heads(), its last layers")
            heads += own()
        return heads

    def judge(self, audio: Tensor) -> list[list[Tensor]]:
        bands = self.filter_bank.analyze(audio.unsqueeze(1)).unbind(1)
        return [maps for network, band in zip(self.networks, bands, strict=True) for maps in network(band)]
