"""`FinerFrames`, taught by spectra of recordings before a vocoder speaks from them.

    python -m tests.reference.finer_frames default OUT --data speech/ [--channels 112] [--steps 14000]

A model folder whose universal generator takes conventions of half its frame rate too, everything else as it was. What
is learnt sees the amplitudes that such a convention tells, drawn for each batch from several windows, bands and rates,
and should give those that the same bands tell of twice as many windows half as long, which the generator was trained
on. The loss is the difference of their logarithms, above two floors. It is printed of the 100 last batches, and of
recordings that were held out: of frames interpolated between those given, and as they were learnt.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gansound.audio import read, resample
from gansound.generators.universal import UniversalGenerator
from gansound.mel import MelSpec
from gansound.mel.front_end import front_end
from gansound.model_folder import save_model_folder
from tests.reference import layer_taught_alone

ITEMS, FRAMES, EDGE = 16, 48, 4
LEARNING_RATE = 2e-3
BALANCE = 0.4  # an hour of one voice counts five times as much as a minute of another, not sixty times
FLOORS = (1e-3, 0.1)
GAIN_DB = 12.0

_BANDS = MelSpec.preset("hifigan")  # its eighty to 8 kHz
_MANY = {"n_mels": 128, "fmax": 12000.0}
_OF_VOCOS = {"n_mels": 100, "fmax": 12000.0, "mel_scale": "htk", "mel_norm": "none"}
_OF_ESPNET = {"fmin": 80.0, "fmax": 7600.0}
# Of 24 kHz: hop, window, bands. Of the first there are most: CosyVoice 2 and Chatterbox.
CONVENTIONS = [
    *[(480, 1920, bands) for bands in ({}, {}, {}, {"fmax": 12000.0}, _OF_VOCOS, _MANY, _OF_ESPNET)],
    *[(480, 1536, {}), (480, 1280, {"mel_scale": "htk", "mel_norm": "none"}), (480, 1024, {})],
    *[(512, 2048, {}), (512, 1536, {"n_mels": 100, "fmax": 11000.0}), (556, 2224, {}), (556, 1668, {})],
]
RATE = 24000


def main() -> None:
    options = layer_taught_alone.options(__doc__, channels=112, steps=14000)
    folder, config, model = layer_taught_alone.with_layer(options.model, "finer_frames", options.channels)
    taught = model.layers.core.finer.where(True).requires_grad_(True)
    pairs = [_pair(model, *convention) for convention in CONVENTIONS]
    draw = np.random.default_rng(0)
    heard = {split: _Recordings(options.data, split, draw) for split in ("train", "test")}
    optimizer = torch.optim.AdamW(taught.parameters(), betas=(0.8, 0.99), weight_decay=0.01)
    losses = []
    for step in range(options.steps):
        decay = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 200) * decay
        given, wanted = heard["train"].batch(pairs[draw.integers(len(pairs))])
        loss = _difference(taught(given), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1}: {sum(losses[-100:]) / 100:.4f}", flush=True)
    untaught = type(taught)(model.n_fft // 2 + 1, options.channels)
    with torch.no_grad():
        held_out = [heard["test"].batch(pairs[which % len(pairs)]) for which in range(100)]
        for name, finer in (("interpolated", untaught), ("learnt", taught)):
            found = [float(_difference(finer(given), wanted)) for given, wanted in held_out]
            print(f"held out, {name}: {sum(found) / len(found):.4f}")
    save_model_folder(options.out, model, folder.mel, config=config, info=folder.info, half=True)


class _Recordings:
    """Those of a split, in memory."""

    def __init__(self, corpus: Path, split: str, draw: np.random.Generator) -> None:
        rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row.get("split", "train") == split]
        self.draw, self.sounds = draw, []
        for row in rows:
            samples, rate = read(corpus / row["path"])
            sound = np.asarray(resample(samples.reshape(-1), rate, RATE)).clip(-1, 1)
            self.sounds.append((sound * 32767).astype(np.int16))
        seconds = np.array([len(sound) / RATE for sound in self.sounds])
        speakers = np.array([row["speaker"] for row in rows])
        of_speaker = np.array([seconds[speakers == speaker].sum() for speaker in speakers])
        chances = seconds * of_speaker ** (BALANCE - 1)
        self.chances = chances / chances.sum()

    def batch(self, pair: tuple[MelSpec, torch.nn.Module, MelSpec, torch.nn.Module]) -> tuple[Tensor, Tensor]:
        """Amplitudes as the coarse convention tells them, and as the fine one does."""
        coarse, told, fine, wanted = pair
        audio = np.zeros((ITEMS, FRAMES * coarse.hop_length), np.float32)
        for row, which in zip(audio, self.draw.choice(len(self.sounds), ITEMS, p=self.chances), strict=True):
            sound = self.sounds[which]
            begin = self.draw.integers(max(0, len(sound) - len(row)) + 1)
            piece = sound[begin : begin + len(row)]
            gain = 10 ** (self.draw.uniform(-GAIN_DB, GAIN_DB) / 20) / 32767
            row[: len(piece)] = (piece * gain).clip(-1, 1)
        sounds = torch.from_numpy(audio)
        with torch.no_grad():
            return told(front_end(coarse, sounds.device)(sounds)), wanted(
                front_end(fine, sounds.device)(sounds)
            )


def _pair(
    model: UniversalGenerator, hop: int, window: int, bands: dict[str, object]
) -> tuple[MelSpec, torch.nn.Module, MelSpec, torch.nn.Module]:
    """A convention and how it is undone, and that of half its hop whose window is as the generator's own."""
    coarse = replace(_BANDS, sample_rate=RATE, hop_length=hop, n_fft=window, win_length=window, **bands)  # type: ignore[arg-type]
    fine = replace(coarse, hop_length=hop // 2, n_fft=2 * hop, win_length=2 * hop)
    return coarse, model.for_mel(coarse).layers.inverse, fine, model.for_mel(fine).layers.inverse  # type: ignore[return-value]


def _difference(made: Tensor, wanted: Tensor) -> Tensor:
    """Of logarithms above each floor, in the bins that something is known of, away from the ends."""
    known = (wanted > 0).to(wanted.dtype)
    total = sum(((made + floor).log() - (wanted + floor).log()).abs() for floor in FLOORS) * known
    return total[:, EDGE:-EDGE].sum() / known[:, EDGE:-EDGE].sum()


if __name__ == "__main__":
    main()
