"""Teach the acoustic model on festvox-ru.

    python learn.py ru/usr/share/festival/voices/russian/msu_ru_nsh_clunits -o ru.safetensors

By the distance of mels first, which alone leaves them blurred; then against a discriminator on mels too, for the
frames' noise lets it draw what durations and pitches don't tell. Held-out sentences are never learnt from.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from corpus import Utterance, utterances
from net import PAUSE, PHONE_REACH, Acoustic
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, mse_loss

BATCH, FRAMES = 16, 128
BLURRED_SHARE = 0.6  # of the steps, by the distance alone
ADVERSARIAL, MATCHING = 0.1, 1.0


def autocast() -> torch.autocast:
    """What can be in bf16 is: half as long a step where a processor has it."""
    return torch.autocast("cpu", torch.bfloat16)


class Discriminator(nn.Module):
    """Patches of a mel: `(B, F, BANDS)` to its feature maps, the last being the logits."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(1, 24, (2, 2)), (24, 48, (1, 2)), (48, 64, (2, 2)), (64, 64, (1, 1)), (64, 1, (1, 1))]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (3, 3), stride, padding=1))
            for a, b, stride in sizes
        )

    def forward(self, mel: Tensor) -> list[Tensor]:
        with autocast():
            maps = [self.layers[0](mel[:, None])]
            for layer in self.layers[1:]:
                maps.append(layer(leaky_relu(maps[-1], 0.2)))
        return [one.float() for one in maps]


def batches(corpus: list[Utterance], seed: int) -> Iterator[list[Utterance]]:
    """Without end, each utterance once a round, and none shorter than a segment."""
    drawn = torch.Generator().manual_seed(seed)
    long = [one for one in corpus if one.mel.shape[1] >= FRAMES]
    while True:
        order = torch.randperm(len(long), generator=drawn).tolist()
        yield from (
            [long[i] for i in order[at : at + BATCH]] for at in range(0, len(long) - BATCH + 1, BATCH)
        )


@dataclass
class Segment:
    """Frames of an utterance, the phones that have a share in them, and as many around as those see."""

    phones: Tensor
    spoken: slice  # of the phones, those with frames in the segment
    frames: Tensor  # of the spoken phones
    pitch: Tensor
    mel: Tensor  # of the spoken phones, all their frames (F, BANDS)
    piece: slice  # of those, the segment


def segment(one: Utterance, length: int | None = None) -> Segment:
    """A random one of `length` frames, or all of the utterance."""
    total = one.mel.shape[1]
    length = length or total
    start = int(torch.randint(total - length + 1, ()))
    ends = one.frames.cumsum(0)
    first, last = torch.searchsorted(ends, torch.tensor([start, start + length - 1]), right=True).tolist()
    seen = max(first - PHONE_REACH, 0)
    begin = int(ends[first] - one.frames[first])
    return Segment(
        torch.tensor(one.phones[seen : last + 1 + PHONE_REACH]),
        slice(first - seen, last + 1 - seen),
        one.frames[first : last + 1],
        one.pitch[first : last + 1],
        one.mel.T[begin : int(ends[last])],
        slice(start - begin, start - begin + length),
    )


def forward(model: Acoustic, batch: list[Segment]) -> tuple[Tensor, Tensor, Tensor]:
    """Mels of equally long segments, made and real `(B, F, BANDS)`, and the loss of durations and pitches."""
    phones = nn.utils.rnn.pad_sequence([one.phones for one in batch], batch_first=True, padding_value=PAUSE)
    with autocast():
        known, log_frames, pitch = (part.float() for part in model.encode(phones))
    features, real, prosody = [], [], []
    for row, one in enumerate(batch):
        prosody.append(mse_loss(log_frames[row, one.spoken], one.frames.float().log1p()))
        prosody.append(mse_loss(pitch[row, one.spoken], one.pitch))
        features.append(model.features(known[row, one.spoken], one.frames, one.pitch)[one.piece])
        real.append((one.mel[one.piece] - model.mean) / model.scale)
    with autocast():
        made = model.decode(torch.stack(features))
    return made.float(), torch.stack(real), torch.stack(prosody).mean()


@torch.inference_mode()
def judge(model: Acoustic, corpus: list[Utterance]) -> str:
    """Of whole held-out sentences with their durations and pitches: mean distance, and the spread of what is made."""
    apart, spread, prosody = [], [], []
    for one in corpus:
        made, real, foretold = forward(model, [segment(one)])
        apart.append((made - real).abs().mean())
        spread.append(made.diff(dim=1).abs().mean() / real.diff(dim=1).abs().mean())
        prosody.append(foretold)
    means = [torch.stack(part).mean().item() for part in (apart, spread, prosody)]
    return "held out: mel {:.3f}, its changes {:.2f} of the recording's, prosody {:.3f}".format(*means)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("voice", type=Path, help="the unpacked package's folder msu_ru_nsh_clunits")
    parser.add_argument("-o", "--output", type=Path, default=Path("ru.safetensors"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    everything = list(utterances(args.voice))
    corpus, held_out = ([one for one in everything if one.held_out is flag] for flag in (False, True))
    model, critic = Acoustic(), Discriminator()
    frames = torch.cat([one.mel for one in corpus], 1)
    model.mean.copy_(frames.mean(1))
    model.scale.copy_(frames.std(1))
    blurred = round(BLURRED_SHARE * args.steps)
    teacher = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.8, 0.99))
    opponent = torch.optim.AdamW(critic.parameters(), 4e-4, betas=(0.8, 0.99))
    decay = torch.optim.lr_scheduler.LambdaLR(
        teacher, lambda step: min(1, (step + 1) / 100) * (1 - 0.95 * step / args.steps)
    )
    began = time.perf_counter()
    for step, batch in zip(range(args.steps), batches(corpus, args.seed), strict=False):
        made, real, prosody = forward(model, [segment(one, FRAMES) for one in batch])
        distance = (made - real).abs().mean()
        loss, told = distance + prosody, ""
        if step >= blurred:
            for_real, for_made = critic(real)[-1], critic(made.detach())[-1]
            doubt = (for_real - 1).square().mean() + for_made.square().mean()
            opponent.zero_grad()
            doubt.backward()
            opponent.step()
            with torch.no_grad():
                aims = critic(real)
            maps = critic(made)
            matching = sum(
                ((a - b).abs().mean() for a, b in zip(maps[:-1], aims[:-1], strict=True)), made.new_zeros(())
            )
            loss = loss + ADVERSARIAL * (maps[-1] - 1).square().mean() + MATCHING * matching
            told = f", discriminator {doubt.item():.3f}, matching {matching.item():.3f}"
        teacher.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        teacher.step()
        decay.step()
        if step % 200 == 199 or step == args.steps - 1:
            print(
                f"step {step + 1}, {time.perf_counter() - began:.0f} s: mel {distance.item():.3f}, prosody "
                f"{prosody.item():.3f}{told}; {judge(model, held_out)}",
                flush=True,
            )
        if step % 1000 == 999 or step == args.steps - 1:
            beside = args.output.with_suffix(".part")
            save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, beside)
            os.replace(beside, args.output)


if __name__ == "__main__":
    main()
