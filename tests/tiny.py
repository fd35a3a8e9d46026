"""Models and recipes small enough for a test of a whole command."""

from pathlib import Path

import torch

from gansound.generators.freev import FreeVGenerator
from gansound.mel import MelSpec
from gansound.model_folder import save_model_folder

# `gansound train tiny_cpu` in a fraction of a second a step, every step logged.
SETTINGS = {
    "generator.init_args": "{channels: 16, hidden_channels: 32, blocks: 1}",
    "discriminators.msd.network.init_args": "{scales: 2, channels: 4, layers: 2, max_channels: 16}",
    "data.segment_samples": "2048",
    "data.workers": "0",
    "batch_size": "2",
    "threads": "1",
    "adversarial_from": "1",
    "log_every": "1",
    "validate_every": "null",
}


def arguments(**changes: str) -> list[str]:
    """`SETTINGS` as a command line; a change's `__` stands for the dot."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return [part for name, value in (SETTINGS | changed).items() for part in (f"--{name}", value)]


def save_tiny_model(folder: Path, preset: str = "hifigan") -> Path:
    """An untrained generator whose sound is near the pseudo-inverse's amplitudes with some phase."""
    spec = MelSpec.preset(preset)
    sizes = {"channels": 8, "hidden_channels": 16, "blocks": 1}
    torch.manual_seed(0)
    generator = FreeVGenerator(spec, **sizes)
    config = {"class_path": "gansound.generators.freev.FreeVGenerator", "init_args": sizes}
    return save_model_folder(folder, generator, spec, config=config, info={"licence": "CC0-1.0"})
