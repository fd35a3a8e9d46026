"""How often the mel doctor is right: `python -m tests.reference.mel_doctor DATA` (`../shared/data`; minutes).

20 utterances, most of a voice of its own. Of each, in every preset, cut to begin at another frame: the recording's own
mel, and one as blurred as an acoustic model's. Asked of both beside the recording: convention and offset. Asked of the
values alone: is the own convention among those that fit, and does it raise no suspicion, of these and of noise, tones
and silence? And of wrong mels, each as some front end makes it, and of latents: are they warned of, is what they are
among what is named, and is it never something else alone that is named?
"""

import argparse
import functools
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gansound.audio import probe, read, resample
from gansound.mel import MelSpec, presets
from gansound.mel.doctor import alike, fitting, matches
from gansound.mel.readings import RANGES, STATISTICS
from tests.test_mel_suspicions import DECIBEL, other_sounds, power_mel

UTTERANCES, SECONDS, LEAST = 20, 3.0, 2.0
MOST_CUT_FRAMES = 12
HIFIGAN = MelSpec.preset("hifigan")


def utterances(data: Path) -> list[tuple[str, np.ndarray, int]]:
    """Name, samples and rate of one recording of two seconds or more of each of so many voices, from its middle."""
    voices = sorted(folder for folder in (data / "voices").iterdir() if folder.is_dir())
    chosen = [sorted(p for p in folder.rglob("*") if p.suffix == ".flac") for folder in voices]
    long = [
        [take for take in takes if probe(take).frames >= LEAST * probe(take).sample_rate] for takes in chosen
    ]
    files = [takes[len(takes) // 2] for takes in long if takes][: UTTERANCES - 4]
    takes = sorted((data / "kathleen" / "wavs").iterdir())
    files += takes[:: len(takes) // (UTTERANCES - len(files))][: UTTERANCES - len(files)]
    return [middle(path) for path in files]


def others(data: Path) -> list[tuple[str, np.ndarray, int]]:
    """The same of speakers who are not among those: the voices left, and words of one speaker after another."""
    seen = {name.split("/")[0] for name, *_ in utterances(data)} | {"wavs", "kathleen"}
    voices = [v for v in sorted((data / "voices").iterdir()) if v.is_dir() and v.name not in seen]
    found = [middle(sorted(voice.rglob("*.flac"))[0]) for voice in voices]
    spoken: dict[str, list[Path]] = {}
    for path in sorted((data / "words").rglob("*.flac")):
        spoken.setdefault(path.name.split("_")[0], []).append(path)
    for speaker, takes in sorted(spoken.items(), key=lambda item: -len(item[1]))[: UTTERANCES - len(found)]:
        parts = [read(path) for path in takes[: int(SECONDS)]]
        found.append((f"words/{speaker}", np.concatenate([samples for samples, _ in parts]), parts[0][1]))
    return found


def middle(path: Path) -> tuple[str, np.ndarray, int]:
    samples, rate = read(path)
    spare = max(0, len(samples) - int(SECONDS * rate))
    return f"{path.parent.name}/{path.stem}", samples[spare // 2 :][: int(SECONDS * rate)], rate


def resampled(samples: np.ndarray, rate: int, wanted: int) -> Tensor:
    return torch.from_numpy(resample(samples, rate, wanted)).float()


def blurred(mel: Tensor) -> Tensor:
    """The mean of three frames and three bands, in a little noise."""
    smooth = torch.nn.functional.avg_pool2d(mel[None], 3, 1, 1, count_include_pad=False)[0]
    return smooth + 0.02 * smooth.std() * torch.randn(
        smooth.shape, generator=torch.Generator().manual_seed(0)
    )


def corpus(data: Path, preset: str) -> tuple[Tensor, ...]:
    """Mean, deviation, least and greatest of each band `(M, 1)` over speakers of whom no utterance is asked."""
    spec = MelSpec.preset(preset)
    every = torch.cat([spec.mel(resampled(s, r, spec.sample_rate))[0] for _, s, r in others(data)], 1)
    deviation, mean = torch.std_mean(every, 1, keepdim=True)
    return mean, deviation, every.amin(1, keepdim=True), every.amax(1, keepdim=True)


def latents(channels: int, frames: int, seed: int) -> Tensor:
    """`(C, F)`: a mean for each of 40 phones, each of some frames, a deviation for each channel, and noise."""
    generator = torch.Generator().manual_seed(seed)
    lasting = torch.randint(3, 15, (frames,), generator=generator)
    phones = torch.randint(0, 40, (frames,), generator=generator).repeat_interleave(lasting)[:frames]
    means = torch.randn(channels, 40, generator=generator)
    noise = torch.randn(channels, frames, generator=generator)
    return (means[:, phones] + 0.6 * noise) * (0.5 + torch.rand(channels, 1, generator=generator))


def wrong_mels(
    audio: Tensor, mean: Tensor, deviation: Tensor, least: Tensor, greatest: Tensor
) -> dict[str, tuple[Tensor, str]]:
    """Mels given to a hifigan model, and what must be among what is said of each."""
    ln = HIFIGAN.mel(audio)[0]
    spread = (ln - ln.mean(-1, keepdim=True)) / ln.std(-1, keepdim=True)
    low, high = least.minimum(ln.amin(1, keepdim=True)), greatest.maximum(ln.amax(1, keepdim=True))
    power = power_mel(audio, HIFIGAN, 2.0)
    magnitude = power_mel(audio, HIFIGAN, 1.0)
    log_power = power.clamp(min=1e-10).log10()
    return {
        "log10": (MelSpec.preset("melgan_neurips").mel(audio)[0], "base-10"),
        "decibels": (ln / DECIBEL, "decibels"),
        "filters of height one": (
            power_mel(audio, HIFIGAN, 1.0).clamp(min=1e-5).log(),
            "filters of height one",
        ),
        "power": (power.clamp(min=1e-5).log(), "of power (torchaudio"),
        "StyleTTS 2": (((power + 1e-5).log() + 4) / 4, "StyleTTS 2"),
        "z-scores": (spread, "mean 0 and deviation 1"),
        "divided twice": (HIFIGAN.mel(audio / 32768)[0], "divided by 32768 twice"),
        "(ln + 4) / 4": ((ln + 4) / 4, "(ln + 4) / 4 of magnitudes"),
        "(ln + 4) / 4, height one": (((magnitude + 1e-5).log() + 4) / 4, "(ln + 4) / 4 of magnitudes"),
        "(ln + 5) / 5": ((ln + 5) / 5, "(ln + 5) / 5"),
        "decibels of power": (10 * log_power, "decibels of power"),
        "Whisper's": ((log_power.clamp(min=float(log_power.max()) - 8) + 4) / 4, "Whisper"),
        "Tortoise's": ((ln + 11.5129) / 6.9136 - 1, "Tortoise"),
        "Tacotron's 0 to 1": (((ln / DECIBEL + 80) / 100).clamp(0, 1), "Tacotron"),
        "z-scores of a corpus, by band": ((ln - mean) / deviation, STATISTICS),
        "z-scores of a corpus, over all": (
            (ln - mean.mean()) / (deviation.square().mean() + mean.var()).sqrt(),
            STATISTICS,
        ),
        "-1 to 1, by band": (2 * (ln - low) / (high - low) - 1, RANGES[-1.0, 1.0]),
    }


def main() -> None:
    """Print a line for each question, and each that was answered wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--presets", nargs="+", default=[n for n in presets() if n != "bigvgan_22khz"])
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    asked, right = Counter[str](), Counter[str]()

    def count(question: str, is_right: bool, what: str) -> None:
        asked[question] += 1
        right[question] += is_right
        if not is_right:
            print(f"  wrong, {question}: {what}", flush=True)

    found = (others if args.unseen else utterances)(args.data)
    known = corpus(args.data, "hifigan")
    for number, (name, samples, rate) in enumerate(found):
        at_rate = functools.cache(partial(resampled, samples, rate))
        for preset in args.presets:
            spec = MelSpec.preset(preset)
            audio = torch.from_numpy(resample(samples, rate, spec.sample_rate)).float()
            own = spec.mel(audio[None])[0]
            cut = (number * 5) % (MOST_CUT_FRAMES + 1)
            for kind, mel in () if args.alone else (("own mel", own), ("blurred mel", blurred(own))):
                nearest = alike(matches(mel[:, cut:], at_rate))
                said = f"{name} in {preset}: {nearest[0].names} {nearest[0].offset_frames:+d} ({cut:+d})"
                named = any(preset in match.names for match in nearest)
                count(f"{kind} beside its recording, convention among those told", named, said)
                count(f"{kind} beside its recording, that alone", named and len(nearest) == 1, said)
                count(f"{kind} beside its recording, offset", nearest[0].offset_frames == cut, said)
            fits = fitting(own)
            told = sorted(one for names in fits.values() for one in names)
            another = [one for one in told if MelSpec.preset(one).log != spec.log]
            count("own mel alone, its convention fits", spec in fits, f"{name} in {preset}: {told}")
            count(
                "own mel alone, none of another logarithm does", not another, f"{name} in {preset}: {another}"
            )
            alarm = spec.suspicions(own)
            count("own mel alone, no false alarm", not alarm, f"{name} in {preset}: {alarm}")
        audio = torch.from_numpy(resample(samples, rate, HIFIGAN.sample_rate)).float()
        for wrong, (mel, words) in wrong_mels(audio, *known).items():
            told = HIFIGAN.suspicions(mel)
            named = any(words in one for one in told)
            count(f"wrong mel, named: {wrong}", named, f"{name}: {told}")
            if wrong != "divided twice":
                count("wrong mels, warned of", bool(told), f"{name}: {wrong}")
            another = any("these look like" in one for one in told) and not named
            count("wrong mels, no other named alone", not another, f"{name}: {wrong}: {told}")
        for preset in ("hifigan", "vocos_24khz", "fish_44khz"):
            spec = MelSpec.preset(preset)
            latent = latents(spec.n_mels, own.shape[1], number)
            told = spec.suspicions(latent)
            is_right = any("latents" in one for one in told) and not fitting(latent)
            count(f"latents of {spec.n_mels} channels, named", is_right, f"{name}: {told}")
        print(f"{number + 1} of {len(found)}: {name}", flush=True)
    for preset in args.presets:
        spec = MelSpec.preset(preset)
        for kind, sound in other_sounds(spec.sample_rate).items():
            alarm = spec.suspicions(spec.mel(torch.from_numpy(sound.astype(np.float32))))
            count("noise, tones, silence: no false alarm", not alarm, f"{kind} in {preset}: {alarm}")
    for question, times in asked.items():
        print(f"{question}: {right[question]} of {times} ({100 * right[question] / times:.1f} %)")


if __name__ == "__main__":
    main()
