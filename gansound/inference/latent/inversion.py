"""The latent whose sound is nearest to a given sound.

Gradient descent from the best of many random latents, as in Zhu et al., "Generative Visual Manipulation on the
Natural Image Manifold", arXiv 1609.03552, on log-mels at several resolutions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansound.counts import counted
from gansound.draw import Draws
from gansound.generators.prior import Joint, Normal, Prior, Uniform
from gansound.inference.clips import ClipGenerator
from gansound.inference.latent.favourites import Favourite, mixtures
from gansound.mel import MelFrontEnd, MelSpec

_WINDOWS_SAMPLES = (512, 1024, 2048)
_RANGE_DB = 70.0  # what is further below full scale doesn't count
_LOUDEST_GAIN_DB = 40.0
_RATE = 0.05


@dataclass(frozen=True)
class Inversion:
    """What was found.

    Attributes:
        favourite: the latent and its label.
        distance: of its sound to the target, see `LogMelDistance`.
        best_random: distance of the nearest random latent, where the descent began.
        median_random: distance of the random latents' median.
        of_starts: distances that the starts ended at, the best first.
    """

    favourite: Favourite
    distance: float
    best_random: float
    median_random: float
    of_starts: tuple[float, ...]


class LogMelDistance:
    """Mean absolute difference of natural-log mels, in nepers, over windows of 512, 1024 and 2048 samples.

    Levels don't count: each sound is brought to the target's RMS first, by 40 dB at most. What lies 70 dB below full
    scale counts as silence.

    Args:
        target: `(C, T)`, of any level.
        sample_rate: of it, in Hz.
        device: of the sounds that come.

    Raises:
        ValueError: a silent target.
    """

    def __init__(self, target: NDArray[np.float32], sample_rate: int, device: torch.device) -> None:
        peak = float(np.abs(target).max())
        if not 0 < peak < math.inf:
            raise ValueError(
                f"the target is silent or not finite (peak {peak}), there is nothing to look for"
            )
        scaled = torch.from_numpy(target / np.float32(peak)).to(device)
        fitting = [n for n in _WINDOWS_SAMPLES if n <= 2 * target.shape[-1]] or [_WINDOWS_SAMPLES[0]]
        self.front_ends = [_front_end(sample_rate, n).to(device) for n in fitting]
        self.rms = scaled.square().mean().sqrt()
        self.target = [front_end(scaled) for front_end in self.front_ends]

    def __call__(self, sounds: Tensor) -> Tensor:
        """Shape: `(B, C, T)` → `(B,)`. Differentiable."""
        rms = (sounds.square().mean((1, 2)) + 1e-12).sqrt()
        gain = (self.rms / rms).clamp_max(10 ** (_LOUDEST_GAIN_DB / 20))
        levelled = (sounds * gain[:, None, None]).flatten(0, 1)
        distances = [
            (front_end(levelled).unflatten(0, (len(sounds), -1)) - target).abs().mean((1, 2, 3))
            for front_end, target in zip(self.front_ends, self.target, strict=True)
        ]
        return torch.stack(distances).mean(0)


def invert(
    clips: ClipGenerator,
    target: NDArray[np.float32],
    *,
    name: str = "inverted",
    label: str | None = None,
    starts: int = 8,
    candidates: int = 256,
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, distance: None,
) -> Inversion:
    """Look for the latent whose sound is nearest to the target.

    Adam on `starts` latents at once, the nearest of `candidates` random ones, kept where the prior can be; what is
    discrete of a latent, and the label, stays as each start has it.

    Args:
        clips: the model.
        target: `(channels, clip_samples)`, prepared as the model's training sounds were, see
            `gansound.data.clips.one_clip`.
        name: of the result.
        label: to look among; None looks among all the model has.
        starts: latents that are improved.
        candidates: random latents they are the best of.
        steps: of the descent.
        seed: of the random latents.
        progress: called after each step with its number and the least distance so far.

    Raises:
        ValueError: a target of another shape, or a silent one; numbers below 1, or more starts than candidates.
    """
    if target.shape != (clips.channels, clips.clip_samples):
        raise ValueError(
            f"expected a target of shape {(clips.channels, clips.clip_samples)}, got {target.shape}. Prepare it with "
            "gansound.data.clips.one_clip"
        )
    if not (1 <= starts <= candidates and steps >= 1):
        raise ValueError(
            f"expected 1 start or more, at least as many candidates and 1 step or more, got "
            f"{counted(starts, 'start')}, {counted(candidates, 'candidate')}, {counted(steps, 'step')}"
        )
    distance = LogMelDistance(target, clips.sample_rate, clips.device)
    drawn = Draws(seed, range(candidates)).each("inversion", clips.generator.prior.sample)
    labels = clips.turns(label, candidates)
    with torch.no_grad():
        parts = [
            distance(clips.waveforms(drawn[i : i + 16], None if labels is None else labels[i : i + 16]))
            for i in range(0, candidates, 16)
        ]
    random = torch.cat(parts).cpu()
    nearest = random.argsort()[:starts]
    begun = drawn[nearest].to(clips.device)
    kept_labels = None if labels is None else labels[nearest]
    moving = begun.clone().requires_grad_()
    optimizer = torch.optim.Adam([moving], lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, found = random[nearest].clone(), begun.clone().cpu()
    for step in range(steps + 1):  # the last only measures
        distances = distance(clips.waveforms(moving, kept_labels))
        better = distances.detach().cpu() < best
        best = torch.where(better, distances.detach().cpu(), best)
        found = torch.where(better[:, None], moving.detach().cpu(), found)
        if step == steps:
            break
        optimizer.zero_grad()
        distances.sum().backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            moving.copy_(_within(clips.generator.prior, moving, begun))
        progress(step + 1, float(best.min()))
    order = best.argsort()
    mixture = None if kept_labels is None else mixtures(clips, kept_labels[order[:1]], 1)[0]
    return Inversion(
        Favourite(name, found[order[0]], mixture),
        float(best[order[0]]),
        float(random.min()),
        float(random.median()),
        tuple(best[order].tolist()),
    )


def _within(prior: Prior, latents: Tensor, begun: Tensor) -> Tensor:
    """Latents `(B, dim)` brought back to where the prior has mass; `begun` is where they started."""
    if isinstance(prior, Joint):
        dims = [part.dim for part in prior.priors]
        parts = zip(prior.priors, latents.split(dims, 1), begun.split(dims, 1), strict=True)
        return torch.cat([_within(*part) for part in parts], 1)
    if isinstance(prior, Uniform):
        return latents.clamp(-1, 1)
    if isinstance(prior, Normal):
        # A draw's length is near √dim, give or take 1/√2: five of that away there is none.
        longest = math.sqrt(prior.dim) + 5 / math.sqrt(2)
        return latents * (longest / latents.norm(dim=1, keepdim=True)).clamp_max(1)
    return begun


def _front_end(sample_rate: int, n_fft: int) -> MelFrontEnd:
    spec = MelSpec(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=n_fft // 4,
        win_length=n_fft,
        n_mels=n_fft // 16,
        fmin=0,
        fmax=sample_rate / 2,
        framing="center",
        padding="zero",
        mel_norm="none",
        magnitude_eps=1e-10,
        floor=n_fft / 4 * 10 ** (-_RANGE_DB / 20),  # a full-scale sine is n_fft / 4 high
    )
    return MelFrontEnd(spec)
