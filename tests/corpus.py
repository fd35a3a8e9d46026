"""A corpus made on the spot: voiced-like harmonic sounds, so that the core tests need no recordings."""

from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 22050


def write_corpus(folder: Path, files: int = 12, seconds: float = 0.8) -> Path:
    """`files` WAVs of gliding harmonics under a moving envelope, with a little noise."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    for i in range(files):
        rng = np.random.default_rng(i)
        pitch = rng.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(1, 3) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        sound = sum(np.sin(k * phase) / k for k in range(1, 25))
        envelope = 0.1 + np.sin(np.pi * time / seconds) ** 2
        audio = 0.15 * envelope * sound + 0.003 * rng.standard_normal(len(time))
        soundfile.write(folder / f"clip{i:02d}.wav", audio.astype(np.float32), SAMPLE_RATE, subtype="PCM_16")
    return folder
