"""Generators of clips small enough for tests of whole commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gansound.generators.prior import Prior
from gansound.generators.wavegan import WaveGANGenerator
from gansound.inference.clips import ClipGenerator
from gansound.model_folder import LoadedModel, save_model_folder

DRUMS = ("hat", "kick", "snare")


def tiny_generator(labels: tuple[str, ...] = (), gain: float = 2.5, **arguments) -> WaveGANGenerator:
    """Untrained, its weights scaled up so that it is heard."""
    torch.manual_seed(0)
    generator = WaveGANGenerator(clip_samples=2048, dim=2, sample_rate=8000, labels=labels, **arguments)
    for parameter in generator.parameters():
        parameter.data *= gain
    return generator


def tiny_clips(
    labels: tuple[str, ...] = (), prior: Prior | None = None, path: Path = Path("drums/model"), **arguments
) -> ClipGenerator:
    return ClipGenerator(
        LoadedModel(tiny_generator(labels, prior=prior, **arguments), None, {"steps": 7}, path, {}), "cpu"
    )


def save_tiny_clips(
    folder: Path, labels: tuple[str, ...] = DRUMS, info: Mapping[str, Any] | None = None
) -> Path:
    arguments = {"clip_samples": 2048, "dim": 2, "sample_rate": 8000, "labels": list(labels)}
    config = {"class_path": "gansound.generators.wavegan.WaveGANGenerator", "init_args": arguments}
    folder.parent.mkdir(parents=True, exist_ok=True)
    return save_model_folder(
        folder, tiny_generator(labels), None, config=config, info={"steps": 7, **(info or {})}
    )
