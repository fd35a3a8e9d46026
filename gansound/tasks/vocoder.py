"""What a batch means to a vocoder: the mel of a real waveform, and the waveform made from it.

The generator's loss is that of MelGAN (arXiv 1910.06711) with whatever spectral terms the recipe adds; the
discriminators are any number of networks, each with its weight.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansound.draw import Draws
from gansound.losses.adversarial import AdversarialLoss, Hinge
from gansound.losses.feature_matching import FeatureMatching
from gansound.mel import MelFrontEnd, MelSpec
from gansound.metrics.level import is_out_of_range, level_figures
from gansound.metrics.pair import UndefinedMeasure
from gansound.metrics.pesq import pesq_wb
from gansound.sections import section
from gansound.tasks.adversary import Adversary
from gansound.tasks.features import (
    Example,
    Features,
    Precision,
    Verdict,
    all_widened,
    detached,
    halves,
    logits,
)


@dataclass
class WeightedLoss:
    """A term of the generator's loss that compares two waveforms.

    Args:
        loss: maps fake `(B, T)` and real `(B, T)` to a scalar; where it has them, `shortest_samples` is the least T
            it takes, and `sample_rate` the only rate it measures at.
        weight: its coefficient, applied nowhere else.
    """

    loss: nn.Module
    weight: float


@dataclass
class WeightedFeatureMatching:
    """Feature matching and its share in the generator's loss.

    Args:
        loss: which convention.
        weight: its coefficient, times the weight of each discriminator.
        fresh_real: compare with the real sounds' features in the discriminators as they are after their update, as
            jik876/hifi-gan does, for another forward pass; without, with those they have just learnt from, as
            descriptinc/melgan-neurips does.
    """

    loss: FeatureMatching = field(default_factory=FeatureMatching)
    weight: float = 10.0
    fresh_real: bool = False


class VocoderTask:
    """Mel spectrogram to waveform.

    Args:
        mel: the convention of the mels; also fixes the sample rate of the audio.
        generator: maps `(B, n_mels, F)` to `(B, F * hop_length)`.
        discriminators: by name; empty trains on the spectral losses alone.
        adversarial: the adversarial loss, MelGAN's hinge by default.
        feature_matching: and its weight (MelGAN: 10).
        losses: further terms by name, each with its weight.

    Raises:
        ValueError: hop length or number of bands differ between the mel and the generator, a loss or a discriminator
            is of another sample rate than the mel, or nothing is to be learned.
    """

    def __init__(
        self,
        mel: MelSpec,
        generator: nn.Module,
        discriminators: dict[str, Adversary] | None = None,
        adversarial: AdversarialLoss | None = None,
        feature_matching: WeightedFeatureMatching | None = None,
        losses: dict[str, WeightedLoss] | None = None,
    ) -> None:
        for name in ("hop_length", "n_mels"):
            if not hasattr(generator, name):
                raise ValueError(
                    f"generator: {type(generator).__name__} has no attribute {name}, which a vocoder's generator "
                    "states"
                )
            if getattr(generator, name) != getattr(mel, name):
                raise ValueError(
                    f"mel.{name} is {getattr(mel, name)} but the generator's {name} is {getattr(generator, name)}"
                    + (" (the product of its upsample_rates)" if name == "hop_length" else "")
                    + "; they must be equal"
                )
        self.discriminators = discriminators or {}
        self.losses = losses or {}
        if not self.discriminators and not self.losses:
            raise ValueError("give at least one of discriminators and losses: there is nothing to learn from")
        for name, judge in self._judges().items():
            if (rate := getattr(judge, "sample_rate", None)) not in (None, mel.sample_rate):
                raise ValueError(
                    f"{name}: is of {rate} Hz, the mel and so the sound of {mel.sample_rate} Hz; leave its own mel "
                    "out, and it takes that of the recipe"
                )
        self.mel = mel
        self.sample_rate = mel.sample_rate
        self.generator = generator
        self.discriminator = nn.ModuleDict({name: a.network for name, a in self.discriminators.items()})
        self.adversarial = adversarial or Hinge()
        matching = feature_matching or WeightedFeatureMatching()
        self.feature_matching = matching.loss
        self.fresh_real = matching.fresh_real or self.adversarial.needs_real
        self.criteria = nn.ModuleDict({name: term.loss for name, term in self.losses.items()})
        self.front_end = MelFrontEnd(mel)
        self.critic_steps, self.over_batch, self.memory = 1, False, None
        self.takes_turns = any(adversary.every > 1 for adversary in self.discriminators.values())
        self.twice_differentiated = ()
        self.weights = {name: term.weight for name, term in self.losses.items()}
        for name, adversary in self.discriminators.items():
            weight = adversary.weight * adversary.every
            self.weights[f"adversarial/{name}"] = weight
            self.weights[f"feature_matching/{name}"] = weight * matching.weight
            self.weights[f"discriminator/{name}"] = 1.0
        self.steady = (*self.losses, *(f"feature_matching/{name}" for name in self.discriminators))

    @property
    def needs_discriminators(self) -> bool:
        return not self.losses

    def judged(self, step: int) -> bool:
        """Whether any discriminator takes part in a step."""
        return bool(self._due(step))

    def _due(self, step: int) -> list[str]:
        return [name for name, adversary in self.discriminators.items() if adversary.due(step)]

    def to(self, device: torch.device) -> None:
        """Move what is neither generator nor discriminator: the engine places those two."""
        self.front_end.to(device)
        self.criteria.to(device)

    def _judges(self) -> dict[str, nn.Module]:
        """All that is given waveforms, by its key in the recipe."""
        losses = {f"losses.{name}.loss": term.loss for name, term in self.losses.items()}
        return losses | {
            f"discriminators.{name}.network": a.network for name, a in self.discriminators.items()
        }

    def check_segment(self, segment_samples: int) -> None:
        """Raises ValueError for a segment that isn't whole hops, or too short for a loss or a discriminator."""
        for name, adversary in self.discriminators.items():
            adversary.check_segment(f"discriminators.{name}", segment_samples)
        hop = self.mel.hop_length
        shortest = {name: getattr(judge, "shortest_samples", 1) for name, judge in self._judges().items()}
        asking = max(shortest, key=lambda name: shortest[name])
        least = -(-shortest[asking] // hop) * hop
        if segment_samples < least:
            raise ValueError(
                f"data.segment_samples must be at least {least}, got {segment_samples}: {asking} takes no fewer than "
                f"{shortest[asking]} samples, and a segment is a multiple of mel.hop_length {hop}"
            )
        if segment_samples % hop:
            raise ValueError(
                f"data.segment_samples must be a multiple of mel.hop_length {hop}, got {segment_samples}; take "
                f"{max(least, round(segment_samples / hop) * hop)}"
            )

    def condition(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the generator is given: the mel `(B, n_mels, F)` of the real audio, F = T / hop_length."""
        with torch.no_grad():
            frames = batch["audio"].shape[-1] // self.mel.hop_length
            return self.front_end(batch["audio"])[..., :frames]

    def generator_inputs(self, batch: Mapping[str, Tensor], draws: Draws) -> tuple[Tensor]:
        return (self.condition(batch),)

    def discriminator_phase(
        self, batch: Mapping[str, Tensor], fake: Tensor, draws: Draws, step: int, precision: Precision
    ) -> Verdict:
        """Losses `discriminator/NAME`, how often each won, and the features of the real batch."""
        verdict = Verdict({}, {}, {})
        for name in self._due(step):
            shown = self.discriminators[name].shown(name, (batch["audio"], fake), draws)
            network = self.discriminator[name]
            with section("discriminator forward"), precision():
                if getattr(network, "judged_apart", False):
                    real, made = (all_widened(network(sound)) for sound in shown)
                else:
                    real, made = halves(network(torch.cat(shown)))
            verdict.losses[f"discriminator/{name}"] = self.adversarial.discriminator(
                logits(real), logits(made)
            )
            wins = [(r > f).float().mean() for r, f in zip(logits(real), logits(made), strict=True)]
            verdict.figures[f"discriminator_wins/{name}"] = torch.stack(wins).mean()
            verdict.kept[name] = detached(real)
        return verdict

    def generator_phase(
        self,
        batch: Mapping[str, Tensor],
        fake: Tensor,
        verdict: dict[str, Features] | None,
        draws: Draws,
        step: int,
        precision: Precision,
    ) -> dict[str, Tensor]:
        """The spectral terms by their names, and of each discriminator `adversarial/NAME`, `feature_matching/NAME`."""
        made, true = {}, dict(verdict or {})
        for name in true:
            shown_real, shown = self.discriminators[name].shown(name, (batch["audio"], fake), draws)
            with section("discriminator forward, for the generator"), precision():
                if self.fresh_real:
                    with torch.no_grad():
                        true[name] = all_widened(self.discriminator[name](shown_real))
                made[name] = self.discriminator[name](shown)
        with section("spectral losses"):
            terms = {name: term(fake, batch["audio"]) for name, term in self.criteria.items()}
        for name, real in true.items():
            maps = all_widened(made[name])
            terms[f"adversarial/{name}"] = self.adversarial.generator(logits(maps), logits(real))
            with section("feature matching"):
                terms[f"feature_matching/{name}"] = self.feature_matching(real, maps)
        return terms

    def constrain(self) -> None:
        """Nothing bounds a vocoder's discriminators."""

    def observe(self, figures: Mapping[str, float], items: int) -> None:
        """Nothing adapts."""

    @torch.no_grad()
    def validate(
        self,
        generator: nn.Module,
        sounds: Sequence[tuple[str, np.ndarray]],
        device: torch.device,
        labels: Sequence[int] = (),
    ) -> tuple[dict[str, float], list[Example]]:
        """Copy synthesis of whole utterances `(name, (T,))`: mean log-mel L1, wide-band PESQ and level, and the sounds.

        Utterances shorter than a hop are left out.
        """
        distances: list[float] = []
        levels: list[dict[str, float]] = []
        scores: list[float] = []
        examples: list[Example] = []
        for name, audio in sounds:
            usable = len(audio) // self.mel.hop_length * self.mel.hop_length
            if usable == 0:
                continue
            real = torch.from_numpy(audio[:usable]).to(device)[None]
            fake = generator(self.condition({"audio": real})).float()
            frames = usable // self.mel.hop_length
            made_mel, real_mel = (self.front_end(x)[..., :frames] for x in (fake, real))
            distances.append((made_mel - real_mel).abs().mean().item())
            example = Example(name, self.sample_rate, real[0].cpu().numpy(), fake[0].cpu().numpy())
            examples.append(example)
            levels.append(level_figures(example.real, example.fake))
            # An early generator may be silent, and a clip may hold no speech: PESQ has no figure for them.
            with contextlib.suppress(UndefinedMeasure):
                scores.append(pesq_wb(example.real, example.fake, self.sample_rate))
        figures = {}
        if distances:
            figures["mel_distance"] = float(np.mean(distances))
            figures |= {name: float(np.mean([level[name] for level in levels])) for name in levels[0]}
        if scores:
            figures["pesq_wb"] = float(np.mean(scores))
        return figures, examples

    def score(self, figures: Mapping[str, float]) -> float | None:
        """The held-out mel distance."""
        return figures.get("mel_distance")

    def trouble(self, figures: Mapping[str, float]) -> str | None:
        """Silence, or a signal at its limits."""
        return is_out_of_range(figures) if figures else None

    def learner(self, shipped: nn.Module) -> nn.Module:
        """The generator itself."""
        return shipped

    def shipped(self, generator: nn.Module, config: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
        """The generator itself."""
        return generator, config
