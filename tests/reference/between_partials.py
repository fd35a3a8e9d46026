"""The convolutions of `BetweenPartials`, taught by phases of recordings before a vocoder learns with them.

    python -m tests.reference.between_partials default OUT --data speech/ [--channels 16] [--steps 4000]

A model folder whose universal generator has those convolutions, everything else as it was. What they see are a mel's
amplitudes and, at the peaks, the phases of the recording; what they should give are the recording's phases between the
peaks too. Losses are 1 - cos of what is wrong, each bin weighted by the root of its amplitude, on the 100 last batches
and on recordings that were held out: without the convolutions, and with them.
"""

import json
import math
import random
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.audio import read, resample
from gansound.model_folder import save_model_folder
from tests.reference import layer_taught_alone

FRAMES, ITEMS = 32, 32
LEARNING_RATE = 3e-3
EACH = 60  # recordings of each folder, of 4 seconds at most


def main() -> None:
    options = layer_taught_alone.options(__doc__, channels=16, steps=4000)
    folder, config, model = layer_taught_alone.with_layer(options.model, "between_partials", options.channels)
    taught = model.layers.core.spectrum.phases
    examples = {split: _examples(model, options.data, split) for split in ("train", "test")}
    optimizer = torch.optim.AdamW(taught.parameters(), betas=(0.9, 0.98))
    losses = []
    for step in range(options.steps):
        rate = LEARNING_RATE * min(1, step / 50) * (0.5 + 0.5 * math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate + 1e-5
        _, loss = _losses(taught, *_batch(examples["train"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1}: {sum(losses[-100:]) / 100:.4f}", flush=True)
    with torch.no_grad():
        held_out = [_losses(taught, *_batch(examples["test"])) for _ in range(100)]
    before, after = (sum(float(pair[which]) for pair in held_out) / len(held_out) for which in (0, 1))
    print(f"held out: {before:.4f} without, {after:.4f} with")
    save_model_folder(options.out, model, folder.mel, config=config, info=folder.info)


def _examples(model: torch.nn.Module, corpus: Path, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Amplitudes, phases as far as peaks tell them, spectra: of all frames, one after the other; `(F, bins)` each."""
    mel, bins = model.mel, model.single_pass_bins
    of_folder = defaultdict(list)
    for line in (corpus / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("split", "train") == split:
            of_folder[row["path"].split("/")[0]].append(row["path"])
    found = []
    draw = random.Random(0)
    for paths in of_folder.values():
        for path in draw.sample(paths, min(EACH, len(paths))):
            sound, rate = read(corpus / path)
            sound = torch.as_tensor(resample(sound.reshape(-1), rate, mel.sample_rate)).float()
            sound = sound[: 4 * mel.sample_rate // mel.hop_length * mel.hop_length]
            if len(sound) > mel.sample_rate // 2:
                found.append(_frames(model, sound, bins))
    return tuple(torch.cat(part) for part in zip(*found, strict=True))


@torch.no_grad()
def _frames(model: torch.nn.Module, sound: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    n_fft, hop = model.n_fft, model.hop_length
    amplitudes = model.layers.inverse(model.mel.mel(sound[None]))
    side = (n_fft - hop) // 2
    padded = F.pad(sound, (side, side))
    spectra = torch.stft(
        padded, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True
    )
    spectra = spectra.T[:, : bins + 1] * (-1.0) ** torch.arange(bins + 1)  # at the middle of each frame
    frames = min(len(spectra), amplitudes.shape[1])
    amplitudes, spectra = amplitudes[:, :frames, : bins + 1], spectra[:frames]
    single_pass = model.layers.core.single_pass
    window = F.pad(amplitudes, (0, 0, single_pass.before, 0))
    begins = (torch.arange(frames) == 0)[None, :, None]
    _, lobes = single_pass._cycles(window, begins, torch.zeros(1, 1, bins))
    row = bins * torch.arange(frames)[:, None]
    peaks = single_pass._peaks(window[:, single_pass.before :].clamp_min(1e-7).log(), row)[0]
    told = spectra.angle().gather(1, peaks.unflatten(1, (-1, bins))[0] - row) + 2 * math.pi * lobes[0]
    return amplitudes[0, :, :bins], told, spectra[:, :bins]


def _batch(examples: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    frames = len(examples[0])
    which = torch.randint(0, frames - FRAMES, (ITEMS, 1)) + torch.arange(FRAMES)
    amplitudes, told, spectra = (part[which] for part in examples)
    gain = 10 ** (torch.empty(ITEMS, 1, 1).uniform_(-12, 12) / 20)
    return gain * amplitudes, told, spectra


def _losses(
    taught: torch.nn.Module, amplitudes: Tensor, told: Tensor, spectra: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the phases as they were told, and as they are turned."""
    columns = taught.columns
    given = F.pad(amplitudes, (0, columns - amplitudes.shape[-1]))
    cosine, sine = taught(torch.cat([given, told.cos(), told.sin()], dim=-1)).chunk(2, dim=-1)
    loudness = spectra.abs().clamp_min(1e-7)
    weights = loudness.sqrt()
    weights = weights / weights.mean((1, 2), keepdim=True).clamp_min(1e-3)
    turned = torch.complex(cosine, sine)
    turned = turned / (turned.abs() + 1e-3)
    before = 1 - (told - spectra.angle()).cos()
    after = 1 - (turned * spectra.conj()).real / loudness
    return (weights * before).mean(), (weights * after).mean()


if __name__ == "__main__":
    main()
