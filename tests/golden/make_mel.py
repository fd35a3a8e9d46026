"""Golden mel values, by librosa and numpy, never by gansound: `python tests/golden/make_mel.py`.

Each convention is written out as its own project computes it, from constants typed in again here.
"""

import json
from pathlib import Path

import librosa
import numpy as np
from scipy.signal import get_window

SAMPLES = 9000  # a multiple of no hop


def signal(sample_rate: int, samples: int = SAMPLES) -> np.ndarray:
    """A chirp, a hum and a hiss that any version of anything makes alike; silence in the last fifth."""
    t = np.arange(samples) / sample_rate
    x = 0.3 * np.sin(2 * np.pi * (200 * t + 9000 * t**2)) + 0.1 * np.sin(2 * np.pi * 120 * t)
    hiss = np.modf(np.sin(np.arange(1, samples + 1) * 12.9898) * 43758.5453)[0]
    return np.where(np.arange(samples) < samples * 4 // 5, x + 0.02 * hiss, 0.0).astype(np.float32)


def slaney(rate, n_fft, n_mels, fmin, fmax):
    return librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, dtype=np.float64)


def stft(x, n_fft, hop, win=None, window="hann", center=False, pad_mode="reflect"):
    return librosa.stft(
        x.astype(np.float64),
        n_fft=n_fft,
        hop_length=hop,
        win_length=win,
        window=window,
        center=center,
        pad_mode=pad_mode,
    )


def cut(x, n_fft, hop):
    """Both ends mirrored by half of what a window overlaps the hop: one frame for each hop."""
    return np.pad(x, (n_fft - hop) // 2, mode="reflect")


def hifigan_like(rate, n_fft, hop, n_mels, fmax, eps, fmin=0):
    power = np.abs(stft(cut(signal(rate), n_fft, hop), n_fft, hop)) ** 2
    return np.log(np.maximum(slaney(rate, n_fft, n_mels, fmin, fmax) @ np.sqrt(power + eps), 1e-5))


def melgan_neurips():
    magnitude = np.abs(stft(cut(signal(22050), 1024, 256), 1024, 256))
    return np.log10(np.maximum(slaney(22050, 1024, 80, 0, 11025) @ magnitude, 1e-5))


def tacotron2(rate=22050, n_mels=80, fmax=8000):
    magnitude = np.abs(stft(signal(rate), 1024, 256, center=True))
    return np.log(np.maximum(slaney(rate, 1024, n_mels, 0, fmax) @ magnitude, 1e-5))


def parallel_wavegan(rate, n_fft, hop, win):
    magnitude = np.abs(stft(signal(rate), n_fft, hop, win, center=True))
    return np.log10(np.maximum(slaney(rate, n_fft, 80, 80, 7600) @ magnitude, 1e-10))


def vocos_24khz():
    magnitude = np.abs(stft(signal(24000), 1024, 256, center=True))
    filters = librosa.filters.mel(sr=24000, n_fft=1024, n_mels=100, htk=True, norm=None, dtype=np.float64)
    return np.log(np.maximum(filters @ magnitude, 1e-7))


def coqui():
    magnitude = np.abs(stft(signal(22050), 1024, 256, center=True))
    decibels = 20 * np.log10(np.maximum(slaney(22050, 1024, 80, 0, 11025) @ magnitude, 1e-8))
    unit = (decibels - 20 + 100) / 100
    return np.clip(8 * unit - 4, -4, 4)


def nemo():
    window = get_window("hann", 1024, fftbins=False)
    magnitude = np.abs(stft(signal(22050), 1024, 256, window=window, center=True, pad_mode="constant"))
    return np.log(np.maximum(slaney(22050, 1024, 80, 0, 8000) @ magnitude, 1e-5))


CONVENTIONS = {
    "melgan_neurips": melgan_neurips,
    "hifigan": lambda: hifigan_like(22050, 1024, 256, 80, 8000, 1e-9),
    "bigvgan_22khz": lambda: hifigan_like(22050, 1024, 256, 80, 8000, 1e-9),
    "bigvgan_v2_22khz": lambda: hifigan_like(22050, 1024, 256, 80, 11025, 1e-9),
    "bigvgan_24khz": lambda: hifigan_like(24000, 1024, 256, 100, 12000, 1e-9),
    "bigvgan_44khz": lambda: hifigan_like(44100, 2048, 512, 128, 22050, 1e-9),
    "tacotron2": tacotron2,
    "tortoise": lambda: tacotron2(24000, 100, 12000),
    "seungwonpark_melgan": lambda: (tacotron2() + 5) / 5,
    "parallel_wavegan": lambda: parallel_wavegan(22050, 1024, 256, 1024),
    "parallel_wavegan_24khz": lambda: parallel_wavegan(24000, 2048, 300, 1200),
    "speecht5": lambda: parallel_wavegan(16000, 1024, 256, 1024),
    "vocos_24khz": vocos_24khz,
    "coqui": coqui,
    "nemo": nemo,
    "amphion_24khz": lambda: hifigan_like(24000, 1024, 256, 100, 12000, 1e-6),
    "fish_44khz": lambda: hifigan_like(44100, 2048, 512, 128, 22050, 1e-6),
    "diffsinger_44khz": lambda: hifigan_like(44100, 2048, 512, 128, 16000, 1e-9, fmin=40),
    "cosyvoice2": lambda: hifigan_like(24000, 1920, 480, 80, 8000, 1e-9),
    "cosyvoice3": lambda: hifigan_like(24000, 1920, 480, 80, 12000, 1e-9),
}


def main() -> None:
    golden = {}
    for name, make in CONVENTIONS.items():
        mel = make()
        bands, frames = mel.shape
        places = [
            [b, f] for b in (0, 3, bands // 2, bands - 1) for f in (0, 1, frames // 2, frames - 3, frames - 1)
        ]
        golden[name] = {
            "shape": [bands, frames],
            "mean": float(mel.mean()),
            "std": float(mel.std()),
            "places": places,
            "values": [round(float(mel[b, f]), 6) for b, f in places],
        }
    path = Path(__file__).with_name("mel.json")
    path.write_text(json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
