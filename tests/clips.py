"""A folder of sounds made on the spot, in label folders, and recipes of clip generators that take a moment a step."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from gansound.recipe import load_recipe

SAMPLE_RATE = 16000


def write_sounds(folder: Path, each: int = 8, rate: int = SAMPLE_RATE) -> Path:
    """`each` WAVs a label: decaying tones (`bell`), bursts of noise (`hiss`), falling sweeps (`zap`)."""
    for label in ("bell", "hiss", "zap"):
        (folder / label).mkdir(parents=True, exist_ok=True)
    for i in range(each):
        rng = np.random.default_rng(i)
        time = np.arange(int(0.1 * rate)) / rate
        decay = np.exp(-time * rng.uniform(20, 60))
        fall = np.cumsum(np.exp(-time * rng.uniform(15, 30)) * rng.uniform(1500, 4000)) / rate
        sounds = {
            "bell": np.sin(2 * np.pi * rng.uniform(300, 2000) * time),
            "hiss": rng.standard_normal(len(time)) / 4,
            "zap": np.sin(2 * np.pi * fall),
        }
        for label, sound in sounds.items():
            soundfile.write(
                folder / label / f"take{i:02d}.wav", (0.5 * decay * sound).astype(np.float32), rate
            )
    return folder


def small_wave(path: Path, steps: int, **changes: Any) -> dict[str, Any]:
    """The recipe `wavegan_tiny_cpu` at the least size, every step logged; `changes` by dotted key, `__` the dot."""
    settings = {
        "generator.init_args.clip_samples": 1024,
        "discriminators.wave.network.init_args.clip_samples": 1024,
        # After four layers 4 samples are left, and a shift must be shorter.
        "discriminators.wave.network.init_args.phase_shuffle": 1,
        "data.segment_samples": 1024,
        "data.workers": 0,
        "critic_steps": 2,
        "batch_size": 4,
        "threads": 1,
        "log_every": 1,
        "validate_every": None,
    }
    return _recipe("wavegan_tiny_cpu", settings, path, steps, changes)


def _recipe(
    name: str, settings: dict[str, Any], path: Path, steps: int, changes: dict[str, Any]
) -> dict[str, Any]:
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe(name, settings | {"steps": steps, "data.path": str(path)} | changed)
