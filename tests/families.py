"""Every family of vocoders, one line each: narrow, but with every kind of layer of the real one.

What stands here is streamed against the whole, exported, run on every backend, saved and trained by the tests.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gansound.generators.bigvgan import V2, BigVGANGenerator
from gansound.generators.dac import DACGenerator
from gansound.generators.freev import FreeVGenerator
from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.hift import HiFTGenerator
from gansound.generators.istftnet import ISTFTNetGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.generators.multi_band_melgan import MultiBandMelGANGenerator
from gansound.generators.nsf_hifigan import NSFHiFiGANGenerator
from gansound.generators.universal import UniversalGenerator
from gansound.generators.vocos import VocosGenerator
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator
from gansound.recipe import parameters

N_MELS = 10
SPEC = replace(MelSpec.preset("hifigan"), n_fft=128, win_length=128, hop_length=32, n_mels=N_MELS)


@dataclass(frozen=True)
class Family:
    """One of the suite's nets.

    Args:
        cls: its class.
        arguments: of the constructor, but for the mel (or its number of bands) and `causal`.
        framing: of the mel that it takes.
        waits_samples: what it looks ahead by when it is causal: what its last layer needs.
        begins_samples: of the look-ahead, what its first samples alone need: they are of a column mirrored from ahead.
        strided: it has strided layers, for whose grid a stream waits.
        short: arguments that leave out repeated layers, for the graphs traced of it: each layer takes seconds there.
        new_layers: it has a layer that neither `test_export`, `test_backends` nor another such family has. The graphs
            of the others are traced here with the slow tests only, as that takes seconds.
    """

    cls: type[StreamingGenerator]
    arguments: dict[str, Any] = field(default_factory=dict)
    framing: str = "same"
    waits_samples: int = 0
    begins_samples: int = 0
    strided: bool = False
    short: dict[str, Any] = field(default_factory=dict)
    new_layers: bool = False

    def make(self, causal: bool = False) -> StreamingGenerator:
        return self.cls(**self._about_the_mel, **self.arguments, causal=causal)

    @property
    def traced(self) -> "Family":
        return replace(self, arguments=self.arguments | self.short)

    @cached_property
    def mel(self) -> MelSpec:
        """The convention that fits its hop."""
        return replace(SPEC, framing=self.framing, hop_length=self.make().hop_length)

    @property
    def config(self) -> dict[str, Any]:
        """As a recipe and a model folder name it."""
        bands = {"n_mels": N_MELS} if "n_mels" in parameters(self.cls) else {}
        return {
            "class_path": f"{self.cls.__module__}.{self.cls.__qualname__}",
            "init_args": bands | self.arguments,
        }

    @property
    def _about_the_mel(self) -> dict[str, Any]:
        if "mel" in parameters(self.cls):
            return {"mel": replace(SPEC, framing=self.framing)}
        return {"n_mels": N_MELS} if "n_mels" in parameters(self.cls) else {}


def _rates(rates: tuple[int, ...], kernels: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"channels": 16, "upsample_rates": rates, "upsample_kernel_sizes": kernels} | more


def _codec(codebooks: tuple[int, ...], rates: tuple[int, ...], **more: Any) -> dict[str, Any]:
    sizes = {"codebook_size": 4, "codebook_channels": 3, "latent_channels": 12, "channels": 16}
    return {"codebooks": codebooks, "upsample_rates": rates} | sizes | more


_TWO_CHAINS = {"residual_kernel_sizes": (3, 5), "residual_dilations": ((1, 3), (1,))}
_FRAMES = {"channels": 16, "hidden_channels": 32, "blocks": 2, "kernel_size": 5}
_SOURCE = {
    "source_kernel_sizes": (3, 5),
    "source_dilations": ((1, 3), (1,)),
    "pitch_channels": 16,
    "harmonics": 2,
}
_SHORT_CHAIN = {"residual_kernel_sizes": (3,), "residual_dilations": ((1,),)}
_SHORT_SOURCE = _SHORT_CHAIN | {
    "source_kernel_sizes": (3, 3),
    "source_dilations": ((1,), (1,)),
}
# Rates odd and even, odd overlaps, both residual blocks, both framings.
FAMILIES = {
    "melgan": Family(
        MelGANGenerator,
        {"channels": 16, "upsample_rates": (8, 3), "residual_dilations": (1, 3)},
    ),
    "hifigan v1": Family(HiFiGANGenerator, _rates((8, 4), (16, 8), **_TWO_CHAINS)),
    "hifigan v3": Family(
        HiFiGANGenerator,
        _rates((8, 3), (16, 8), residual_kernel_sizes=(3, 5), residual_dilations=((1, 2), (2, 6)), residual_block=2),
        short=_rates((3,), (8,)) | {"residual_dilations": ((1,), (2,))},
    ),
    "multi-band melgan": Family(
        MultiBandMelGANGenerator,
        {"channels": 16, "upsample_rates": (4, 2), "residual_dilations": (1, 3, 9)},
        waits_samples=31,
        short={"upsample_rates": (4,), "residual_dilations": (3,)},
    ),
    "freev": Family(FreeVGenerator, _FRAMES | {"blocks": 1}, waits_samples=(128 - 32) // 2),
    "universal": Family(
        UniversalGenerator,
        _FRAMES
        | {"n_fft": 128, "griffin_lim": 2, "single_pass_bins": 20, "single_pass_lobes": True}
        | {"between_partials": 6, "group_delay_bands": 3},
        waits_samples=(128 - 32) // 2 + 32 + 6,  # the frame ahead of clicks; half of the mean that parts bands
        short={"blocks": 1},
    ),
    "universal centred": Family(
        UniversalGenerator,
        _FRAMES | {"n_fft": 128, "tones": 16},
        framing="center",
        waits_samples=128 // 2 + 6,
    ),
    "vocos": Family(VocosGenerator, _FRAMES, framing="center", waits_samples=128 // 2, short={"blocks": 1}),
    "vocos same": Family(VocosGenerator, _FRAMES | {"n_fft": 64}, waits_samples=(64 - 32) // 2),
    "bigvgan": Family(
        BigVGANGenerator,
        _rates((4, 3), (8, 6), residual_kernel_sizes=(3,), residual_dilations=((2,),)) | {"channels": 8} | V2,
        short={"upsample_rates": (3,), "upsample_kernel_sizes": (6,), "residual_block": 2},
        new_layers=True,
    ),
    "istftnet": Family(
        ISTFTNetGenerator,
        _rates((4, 2), (8, 5), **_TWO_CHAINS),
        waits_samples=(16 - 4) // 2,
        short=_rates((2,), (5,), residual_kernel_sizes=(3,), residual_dilations=((1,),)),
    ),
    "istftnet centred": Family(
        ISTFTNetGenerator,
        _rates((4, 2), (8, 4), **_TWO_CHAINS) | {"framing": "center", "phase_range": 3.0},
        waits_samples=16 // 2 + 4,
        begins_samples=2 * 4,
        short=_rates((2,), (5,), residual_kernel_sizes=(3,), residual_dilations=((1,),)),
    ),
    "hift": Family(
        HiFTGenerator,
        _rates((4, 2), (8, 5), **_TWO_CHAINS) | _SOURCE,
        waits_samples=4 * 32 + 16 // 2 + 4,
        begins_samples=2 * 4,
        strided=True,
        short=_SHORT_SOURCE,
        new_layers=True,
    ),
    "hift summed": Family(
        HiFTGenerator,
        _rates((2, 4), (6, 8), **_TWO_CHAINS) | _SOURCE | {"phases": "summed"},
        waits_samples=4 * 32 + 16 // 2 + 4,
        begins_samples=2 * 4,
        strided=True,
        short=_SHORT_SOURCE,
    ),
    "hift held": Family(
        HiFTGenerator,
        _rates((8,), (16,), **_TWO_CHAINS)
        | _SOURCE
        | {"source_kernel_sizes": (3,), "source_dilations": ((1,),), "phases": "held"},
        waits_samples=4 * 32 + 16 // 2 + 4,
        begins_samples=2 * 4,
        strided=True,
    ),
    # Which take mels here too, cut off to whole numbers as codes.
    "dac": Family(DACGenerator, _codec((1,) * 10, (3, 2)), short={"upsample_rates": (3,)}),
    "snac": Family(
        DACGenerator,
        _codec((1, 1, 2, 2, 4), (2, 4), depthwise=True, noise=True),
        short={"upsample_rates": (2,)},
        new_layers=True,
    ),
    # Of a low rate, since the pitch, the last row here as the others, is about 1.
    "nsf hifigan": Family(
        NSFHiFiGANGenerator,
        _rates((2, 3, 4), (4, 7, 8), **_TWO_CHAINS) | {"harmonics": 2, "sample_rate": 220},
        strided=True,
        short={"upsample_rates": (3, 2), "upsample_kernel_sizes": (7, 4)} | _SHORT_CHAIN,
        new_layers=True,
    ),
    "nsf hifigan mini": Family(
        NSFHiFiGANGenerator,
        _rates((2, 4, 3), (4, 8, 6), **_TWO_CHAINS) | {"residual_block": 2, "mini": True, "sample_rate": 220},
        waits_samples=24,
        short=_rates((2, 2, 2), (4, 4, 4)) | _SHORT_CHAIN,
        new_layers=True,
    ),
}  # fmt: skip
