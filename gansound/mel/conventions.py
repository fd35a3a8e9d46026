"""Conventions of one rate and hop, to train a vocoder that is to take any of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gansound.mel.presets import PRESETS
from gansound.mel.spec import MelSpec

_BANDS = (64, 72, 80, 80, 80, 96, 100, 128)
_FLOORS = (1e-5, 1e-5, 1e-7, 1e-10)
_EPS = (0.0, 1e-9, 1e-6)


def drawn_conventions(own: MelSpec, count: int, seed: int = 0) -> list[MelSpec]:
    """Other conventions: the presets of its rate and hop, and then drawn ones, all framed as `own` is.

    Framing is a shift of the waveform by half a hop, which a convolutional net doesn't notice. Drawn are the number of
    bands (64 to 128), fmin (0 to 120 Hz), fmax (from 7 / 11 of half the rate to all of it), scale, norm and floor.

    Args:
        own: says rate, hop, framing and window.
        count: how many, presets included.
        seed: of those that are drawn.
    """
    framing: Mapping[str, Any] = {"framing": own.framing, "padding": own.padding}
    known = (replace(MelSpec(**values), **framing) for values in PRESETS.values())
    specs = [
        s for s in dict.fromkeys(known) if (s.sample_rate, s.hop_length) == (own.sample_rate, own.hop_length)
    ]
    specs = [spec for spec in specs if spec != own]
    rng = np.random.default_rng(seed)
    nyquist = own.sample_rate / 2
    while len(specs) < count:
        specs.append(
            replace(
                own,
                n_mels=int(rng.choice(_BANDS)),
                fmin=float(round(rng.uniform(0, 120))) if rng.random() < 0.6 else 0.0,
                fmax=nyquist if rng.random() < 0.25 else float(round(rng.uniform(7 / 11, 1) * nyquist)),
                mel_scale="slaney" if rng.random() < 0.5 else "htk",
                mel_norm="slaney" if rng.random() < 0.5 else "none",
                floor=float(rng.choice(_FLOORS)),
                magnitude_eps=float(rng.choice(_EPS)),
                log="ln",
                mean=(0.0,),
                scale=(1.0,),
                clip=None,
            )
        )
    return specs[:count]
