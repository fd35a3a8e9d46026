"""How often the mel doctor is right: `python -m tests.reference.mel_doctor DATA` (`../shared/data`; minutes).

20 utterances, most of a voice of its own. Of each, in every preset, cut to begin at another frame: the recording's own
mel, and one as blurred as an acoustic model's. Asked of both beside the recording: convention and offset. Asked of the
values alone: is the own convention among those that fit, and does it raise no suspicion, of these and of noise, tones
and silence? And of seven wrong mels, each as some front end makes it: are they warned of by name?
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


def seven_wrong(audio: Tensor) -> dict[str, tuple[Tensor, str]]:
    """Mels given to a hifigan model, and what must be said of each."""
    ln = HIFIGAN.mel(audio)
    spread = (ln - ln.mean(-1, keepdim=True)) / ln.std(-1, keepdim=True)
    power = power_mel(audio, HIFIGAN, 2.0)
    return {
        "log10": (MelSpec.preset("melgan_neurips").mel(audio), "base-10"),
        "decibels": (ln / DECIBEL, "decibels"),
        "filters of height one": (
            power_mel(audio, HIFIGAN, 1.0).clamp(min=1e-5).log(),
            "filters of height one",
        ),
        "power": (power.clamp(min=1e-5).log(), "of power (torchaudio"),
        "StyleTTS 2": (((power + 1e-5).log() + 4) / 4, "StyleTTS 2"),
        "z-scores": (spread, "mean 0 and deviation 1"),
        "divided twice": (HIFIGAN.mel(audio / 32768), "divided by 32768 twice"),
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
        for wrong, (mel, words) in seven_wrong(audio).items():
            told = HIFIGAN.suspicions(mel)
            count(f"wrong mel, named: {wrong}", any(words in one for one in told), f"{name}: {told}")
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
