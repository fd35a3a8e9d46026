"""Nets that have no counterpart here, by the names of their weights, so that each is called what it is."""

import re
from collections.abc import Iterable

# A pattern of a weight's name, and what a net with such weights is. First those that have all that a known net has.
_SOURCE = (
    r"(^|\.)(m_source|noise_convs|source_conv|source_downs)\.",
    "a neural source-filter vocoder, and none of those that are known (NSF-HiFiGAN, RVC, so-vits-svc, HiFT)",
)
_MORE = (
    (
        r"(^|\.)noise_res\.",
        "the decoder of StyleTTS 2 or of HiFTNet's own code, which takes a pitch beside its mel",
    ),
    (
        r"(^|\.)(subband_conv_post|multistream_conv_post)\.",
        "the decoder of an MB-iSTFT-VITS, which speaks in bands",
    ),
    (r"(^|\.)kernel_predictor\.", "a UnivNet"),
)
_OTHERS = (
    (r"^(first_conv|conv_layers\.0\.conv)\.", "a Parallel WaveGAN, whose net is a WaveNet"),
    (r"^(noise_upsample|blocks\.0\.tade1)\.", "a StyleMelGAN"),
    (r"(^|\.)WN\.0\.", "a WaveGlow"),
    (r"^(backbone\.downsample_layers|head\.conv_pre)\.", "fish-speech's FireflyGAN"),
    (r"(^|\.)quantizer\.", "a neural codec whose decoder isn't that of DAC or SNAC"),
    (r"^discriminators\.0\.", "a discriminator without its generator"),
)


def makes_more(names: Iterable[str], *, sourced: bool = False) -> str | None:
    """What a net is that has weights besides those by which a known one is recognised; None where nothing shows it.

    Args:
        names: of its weights.
        sourced: the known one hears a source of sines.
    """
    return _first(_MORE if sourced else (*_MORE, _SOURCE), names)


def another(names: Iterable[str]) -> str | None:
    """What a net is that isn't known; None where nothing shows it."""
    return _first(_OTHERS, names)


def _first(table: tuple[tuple[str, str], ...], names: Iterable[str]) -> str | None:
    found = list(names)
    return next((what for pattern, what in table if any(re.search(pattern, name) for name in found)), None)
