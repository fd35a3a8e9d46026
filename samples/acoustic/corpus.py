"""festvox-ru, a Russian man's 620 sentences with phone labels: phones, their frames and pitches, and mels of `default`.

    apt-get download festvox-ru && dpkg -x festvox-ru_*.deb ru

© 2005 Nickolay V. Shmyrev; free to use, also what is made of it, with his notice (see README.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from net import PHONES, PITCH_HZ
from torch import Tensor

from gansound import MelSpec
from gansound.audio import read, resample

VOICE = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
SPEC = MelSpec.preset("hifigan")  # `default`'s own
LOWEST_HZ, HIGHEST_HZ = 65.0, 280.0
VOICED = 0.6  # of an autocorrelation of at most 1


@dataclass
class Utterance:
    """A recording, its phones, and of each phone the frames and the pitch in octaves; held out are those that the
    training of `default` had kept for validation."""

    path: Path
    sound: Tensor  # at the mel's rate
    phones: list[int]
    frames: Tensor
    pitch: Tensor
    mel: Tensor
    held_out: bool


def utterances(voice: Path) -> Iterator[Utterance]:
    """Those of the unpacked package's folder of the voice, which has `wav/` and `lab/`."""
    for number, path in enumerate(sorted((voice / "wav").glob("*.wav"))):
        sound, rate = read(path)
        whole = torch.from_numpy(resample(sound, rate, SPEC.sample_rate))
        mel = SPEC.mel(whole[None])[0]
        lines = [line.split() for line in (voice / "lab" / f"{path.stem}.lab").read_text().splitlines()[1:]]
        phones = [PHONES.index(line[2]) for line in lines]
        seconds = torch.tensor([float(line[0]) for line in lines])
        ends = (seconds * SPEC.sample_rate / SPEC.hop_length).round().long()
        ends[-1] = mel.shape[1]
        frames = ends.diff(prepend=torch.zeros(1, dtype=torch.long))
        if frames.min() < 1:
            raise ValueError(f"{path}: its labels don't rise, or end after its {mel.shape[1]} frames")
        pitch = phone_pitch(sound, rate, ends)
        yield Utterance(path, whole, phones, frames, pitch, mel, held_out=number % 50 == 49)


def phone_pitch(sound: np.ndarray, rate: int, ends: Tensor) -> Tensor:
    """Octaves from PITCH_HZ of each phone `(P,)`: the median of its voiced frames; of one without, its neighbours'.

    A frame's is the highest peak of its autocorrelation over that of its window (Boersma 1993), the shorter of two
    nearly as high.
    """
    hop, size = SPEC.hop_length * rate / SPEC.sample_rate, 1024
    starts = ((torch.arange(int(ends[-1])) + 0.5) * hop - size / 2).round().long()
    padded = torch.nn.functional.pad(torch.from_numpy(sound), (size, 2 * size))
    window = torch.hann_window(size)
    pieces = padded.unfold(0, size, 1)[starts + size]
    power = torch.fft.rfft((pieces - pieces.mean(1, keepdim=True)) * window, 2 * size).abs().square()
    alike = torch.fft.irfft(power)[:, :size]
    own = torch.fft.irfft(torch.fft.rfft(window, 2 * size).abs().square())[:size]
    alike = alike / alike[:, :1].clamp(min=1e-9) / (own / own[0])
    lags = torch.arange(round(rate / HIGHEST_HZ), round(rate / LOWEST_HZ))
    heights = alike[:, lags] - 0.05 * torch.log2(lags / lags[0])
    height, best = heights.max(1)
    octaves = torch.log2(rate / lags[best] / PITCH_HZ)
    loud = pieces.square().mean(1) > 1e-5
    octaves[(height < VOICED) | ~loud] = torch.nan
    found = torch.stack([part.nanmedian() for part in octaves.tensor_split(ends[:-1])])
    known = ~found.isnan()
    places = np.arange(len(found))
    return torch.from_numpy(np.interp(places, places[known], found[known])).float()
