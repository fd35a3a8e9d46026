"""What binds a frame-rate vocoder, its amplitudes or its phases: PESQ with either of them the recording's.

    python -m tests.reference.phase_limit CORPUS [MODEL]  # a prepared corpus; `default` where none is named

Of the first three files of each speaker of split `test`, six seconds each: the vocoder as it is; with the phases of its
sound and the recording's amplitudes; and the other way round.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from pesq import pesq
from torch import Tensor
from tqdm import tqdm

import gansound
from gansound.audio import read, resample
from gansound.data.manifest import MANIFEST_NAME, read_manifest
from gansound.nn.istft import ISTFT

FILES, SECONDS = 3, 6
N_FFT, HOP = 1024, 256


def stft(sound: Tensor) -> Tensor:
    """`(1, T)` -> `(1, T / HOP, N_FFT / 2 + 1)` complex, in framing "same"."""
    cut = (N_FFT - HOP) // 2
    padded = torch.nn.functional.pad(sound[:, None], (cut, cut), mode="reflect")[:, 0]
    window = torch.hann_window(N_FFT)
    return torch.stft(padded, N_FFT, HOP, window=window, center=False, return_complex=True).transpose(1, 2)


def joined(amplitude: Tensor, phased: Tensor) -> Tensor:
    """The sound of some amplitudes with the phases of a spectrum."""
    spectrum = torch.polar(amplitude, phased.angle())
    sound: Tensor = ISTFT(N_FFT, HOP)(torch.cat([spectrum.real, spectrum.imag], -1))
    return sound.reshape(1, -1)


def figures(vocoder: gansound.Vocoder, path: Path) -> dict[str, float]:
    """PESQ of each."""
    samples, given = read(path)
    rate = vocoder.sample_rate
    samples = resample(samples, given, rate)[: SECONDS * rate]
    real = torch.from_numpy(samples[: len(samples) // HOP * HOP].copy())[None]
    made = vocoder(vocoder.mel_spec.mel(real)).reshape(1, -1)
    own, true = stft(made), stft(real)
    sounds = {
        "as it is": made,
        "recording's amplitudes": joined(true.abs(), own),
        "recording's phases": joined(own.abs(), true),
    }
    reference = resample(real[0].numpy(), rate, 16000)
    return {
        name: pesq(16000, reference, resample(sound[0].numpy(), rate, 16000), "wb")
        for name, sound in sounds.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    vocoder = gansound.Vocoder.from_pretrained(
        sys.argv[2] if len(sys.argv) > 2 else "default", backend="eager"
    )
    chosen: dict[str | None, list[Path]] = defaultdict(list)
    for record in read_manifest(Path(sys.argv[1]) / MANIFEST_NAME):
        if record.split == "test" and len(chosen[record.speaker]) < FILES:
            chosen[record.speaker].append(record.path)
    found = [figures(vocoder, path) for path in tqdm([path for paths in chosen.values() for path in paths])]
    print(f"{len(found)} files")
    for name in found[0]:
        print(f"{name:24} {np.mean([one[name] for one in found]):.2f}")
