"""Who takes part in the race: a shipped recipe each, and what differs from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One row.

    Args:
        what: its name in the table.
        recipe: a shipped one.
        settings: by dotted key, what differs.
        alone: share of the steps before the discriminators join.
        warm_up_steps: of the generator's learning rate.
    """

    what: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    alone: float = 0.0
    warm_up_steps: int = 0


SMALL = {"data.segment_samples": 8192}

ROWS = {
    "freev": Entry("FreeV, spectral losses alone", "freev_cpu", warm_up_steps=100),
    "universal": Entry("universal, spectral losses alone", "universal_cpu", warm_up_steps=100),
    "melgan": Entry("MelGAN", "melgan_ljspeech", {"batch_size": 4, **SMALL}),
    "hifigan_v3": Entry("HiFi-GAN V3", "hifigan_v3_ljspeech", {"batch_size": 2, **SMALL}),
    "multi_band_melgan": Entry(
        "multi-band MelGAN v2", "multi_band_melgan_v2_ljspeech", {"batch_size": 8}, alone=0.2
    ),
    "vocos_small": Entry(
        "Vocos, small",
        "vocos_24khz",
        {
            "mel": "hifigan",
            "generator.init_args": {"channels": 256, "hidden_channels": 768, "blocks": 6},
            "batch_size": 2,
        },
    ),
}

_MEL = 0.9 / 45
"""FreeV's weights of mels together, of HiFi-GAN's: what its other weights are scaled by to keep the balance."""

_FORK = {
    "init_from": "runs/kathleen/model",
    "batch_size": 4,
    "generator_optimization.optimizer.init_args.lr": 2e-4,
}


def _judged(rate: float, **networks: Mapping[str, Any]) -> dict[str, Any]:
    return _FORK | {
        "discriminators": networks,
        "adversarial": {"class_path": "gansound.losses.adversarial.LeastSquares"},
        "feature_matching": {
            "loss": {
                "class_path": "gansound.losses.feature_matching.FeatureMatching",
                "init_args": {"convention": "sum"},
            },
            "weight": 2.0,
        },
        "discriminator_optimization": {
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": rate, "betas": [0.8, 0.99]},
            }
        },
    }


def _mrd(weight: float, **more: Any) -> dict[str, Any]:
    network = {
        "class_path": "gansound.discriminators.multi_resolution.MultiResolutionDiscriminator",
        "init_args": {"design": "vocos", "channels": 16},
    }
    return {"network": network, "weight": weight, "crop_samples": 8192, "teaches_from": 100, **more}


def _mpd(weight: float, **more: Any) -> dict[str, Any]:
    network = {
        "class_path": "gansound.discriminators.multi_period.MultiPeriodDiscriminator",
        "init_args": {"channels": 8},
    }
    return {"network": network, "weight": weight, "crop_samples": 8192, "teaches_from": 100, **more}


_BOTH = _judged(1e-3, mrd=_mrd(0.1 * _MEL, every=2), mpd=_mpd(_MEL, every=2))


def _pilot(what: str, settings: Mapping[str, Any]) -> Entry:
    return Entry(what, "freev_cpu", settings, warm_up_steps=50)


PILOTS = {
    "spectral": _pilot("spectral losses alone", _FORK),
    "mrd_mpd": _pilot(
        "MRD 16 × 0.1 and MPD 8, every 2nd step, lr 2e-4",
        _judged(2e-4, mrd=_mrd(0.1 * _MEL, every=2), mpd=_mpd(_MEL, every=2)),
    ),
    "mrd": _pilot("MRD 16 × 1, every 2nd step, lr 1e-3", _judged(1e-3, mrd=_mrd(_MEL, every=2))),
    "mrd_mpd_fast": _pilot("MRD 16 × 0.1 and MPD 8, every 2nd step, lr 1e-3", _BOTH),
    "san": _pilot(
        "the same with SAN heads",
        _judged(
            1e-3,
            mrd=_mrd(0.1 * _MEL, every=2, slicing=True),
            mpd=_mpd(_MEL, every=2, slicing=True),
        )
        | {"adversarial": {"class_path": "gansound.losses.adversarial.SoftLeastSquares"}},
    ),
    "phase_augmentation": _pilot(
        "the same with PhaseAug",
        _BOTH
        | {
            "phase_augmentation": {
                "class_path": "gansound.discriminators.augmentation.phase.PhaseAugmentation"
            }
        },
    ),
}
