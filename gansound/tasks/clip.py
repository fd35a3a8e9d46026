"""What a batch means to a generator of whole sounds: clips, their labels, and sounds made from latents.

A named GAN is a choice of orthogonal pieces (generator with its prior and conditioner, discriminators with their
heads and views, adversarial loss, penalties, augmentations, critic steps); what can't go together is refused here,
before anything is read.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansound.counts import counted
from gansound.discriminators.augmentation import Augmentations
from gansound.discriminators.views import View
from gansound.draw import Draws
from gansound.frames import FrameSpec
from gansound.generators.latent import LatentGenerator
from gansound.losses.adversarial import AdversarialLoss, Wasserstein
from gansound.losses.auxiliary import AuxiliaryClassification
from gansound.losses.penalties import Penalty
from gansound.mel import MelSpec
from gansound.metrics.level import is_out_of_range, level_figures
from gansound.metrics.sets.quick import is_collapsed, quick_figures
from gansound.precision import full_precision, no_autocast
from gansound.sections import section
from gansound.tasks.adversary import check_penalties, check_weight
from gansound.tasks.features import (
    Example,
    Features,
    Precision,
    Verdict,
    halves,
    in_full_precision,
    logits,
)
from gansound.tasks.own import check_maps, check_shape, is_own, trying

log = logging.getLogger(__name__)

_SYNTHESISED_AT_ONCE = 32
_LEAST_SOUNDS = 6


@dataclass
class ClipAdversary:
    """A discriminator of clips, what it is shown, and its share in the generator's loss.

    Args:
        network: maps clips (and labels) to a list over sub-discriminators of feature maps, the logits last.
        weight: of its losses for the generator.
        view: what it sees of a waveform; null shows it what the generator makes.

    Raises:
        ValueError: a weight below 0.
    """

    network: nn.Module
    weight: float = 1.0
    view: View | None = None

    def __post_init__(self) -> None:
        check_weight(self.weight)


class ClipTask:
    """Latents to waveforms: WaveGAN (Donahue et al., arXiv 1802.04208) and whatever is composed instead of it.

    Args:
        generator: of waveforms.
        discriminators: by name.
        adversarial: the adversarial loss; WaveGAN's is Wasserstein.
        penalties: by name, on every discriminator.
        augmentations: of all that the discriminators see, real and generated (arXiv 2006.06676).
        critic_steps: updates of the discriminators for each of the generator (WGAN-GP: 5).
        auxiliary_weight: of the class logits' cross-entropy, where a discriminator has them (AC-GAN).

    Raises:
        ValueError: pieces that can't go together.
    """

    mel: MelSpec | None = None
    takes: FrameSpec | None = None
    needs_discriminators = True
    takes_turns = False
    steady = ()
    domain = "wave"
    """What its augmentations change."""

    def __init__(
        self,
        generator: LatentGenerator,
        discriminators: dict[str, ClipAdversary],
        adversarial: AdversarialLoss | None = None,
        penalties: dict[str, Penalty] | None = None,
        augmentations: Augmentations | None = None,
        critic_steps: int = 1,
        auxiliary_weight: float = 1.0,
    ) -> None:
        self.generator: nn.Module = generator
        self.prior, self.labels = generator.prior, tuple(generator.labels)
        self.discriminators = discriminators
        self.discriminator = nn.ModuleDict({name: a.network for name, a in discriminators.items()})
        self.adversarial = adversarial or Wasserstein()
        self.penalties = penalties or {}
        self.augmentations = augmentations
        self.auxiliary = AuxiliaryClassification()
        self.critic_steps = critic_steps
        if not auxiliary_weight >= 0:
            raise ValueError(f"auxiliary_weight must be 0 or more, got {auxiliary_weight}")
        self.over_batch = self.adversarial.over_batch or any(
            getattr(network, "over_batch", False) for network in self.discriminator.values()
        )
        doubly = any(penalty.differentiates_twice for penalty in self.penalties.values())
        self.twice_differentiated = tuple(discriminators) if doubly else ()
        adapts = augmentations is not None and augmentations.target is not None
        self.memory = augmentations if adapts else None
        self._said_few = False
        self._check()
        self.weights = {}
        for name, adversary in discriminators.items():
            self.weights[f"discriminator/{name}"] = 1.0
            self.weights[f"adversarial/{name}"] = adversary.weight
            self.weights[f"class/{name}"] = auxiliary_weight
            self.weights[f"class_generated/{name}"] = auxiliary_weight * adversary.weight
            for key, penalty in self.penalties.items():
                self.weights[f"{key}/{name}"] = penalty.weight * penalty.every

    @property
    def sample_rate(self) -> int:
        rate: int = self.generator.sample_rate  # type: ignore[assignment]
        return rate

    @property
    def channels(self) -> int:
        """Of the waveforms it trains on."""
        count: int = self.generator.channels  # type: ignore[assignment]
        return count

    def _check(self) -> None:
        if not self.discriminators:
            raise ValueError("discriminators: name at least one; nothing else teaches a generator of clips")
        if not any(adversary.weight for adversary in self.discriminators.values()):
            raise ValueError("discriminators: all weigh 0, and nothing else teaches a generator of clips")
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps must be at least 1, got {self.critic_steps}")
        networks = list(self.discriminator.values())
        check_penalties(self.adversarial, self.penalties, networks)
        if self.labels and not any(hears_labels(network) for network in networks):
            raise ValueError(
                f"the generator has labels ({', '.join(self.labels)}) but no discriminator looks at them, so it would "
                "learn to ignore them; give one of them a head or a conditioner that takes labels, or set labels: null"
            )
        for name, network in self.discriminator.items():
            view = self.discriminators[name].view
            if view is not None:
                try:
                    view.check(network, self.sample_rate, self.clip_samples)
                except ValueError as error:
                    raise ValueError(f"discriminators.{name}: {error}") from error
            for size in ("clip_samples", "channels", "frames", "mel"):
                mine, its = getattr(self.generator, size, None), getattr(network, size, None)
                if view is None and None not in (mine, its) and mine != its:
                    raise ValueError(
                        f"discriminators.{name}: its {size} must be the generator's, {mine}, got {its}"
                    )
            theirs = getattr(network, "labels", ())
            if theirs and tuple(theirs) != self.labels:
                raise ValueError(
                    f"discriminators.{name}: its labels are {', '.join(theirs)}, the generator's "
                    f"{', '.join(self.labels) or 'none'}; leave both out, and the corpus names them"
                )
        augmentations = self.augmentations
        if augmentations is not None:
            if augmentations.domain not in (None, self.domain):
                raise ValueError(
                    f"augmentations: got some for a {augmentations.domain}, but the generator makes a {self.domain}; "
                    f"take those of gansound.discriminators.augmentation.{self.domain}"
                )
            if augmentations.target is not None and self.adversarial.threshold is None:
                raise ValueError(
                    f"augmentations.target: {type(self.adversarial).__name__} only ranks, so there is no telling how "
                    "sure its discriminators are; give a fixed probability, or take Hinge or NonSaturating"
                )

    def to(self, device: torch.device) -> None:
        """Move what is neither generator nor discriminator: the engine places those two."""
        for adversary in self.discriminators.values():
            if adversary.view is not None:
                adversary.view.to(device)

    @property
    def clip_samples(self) -> int:
        """Length of a clip."""
        samples: int = self.generator.clip_samples  # type: ignore[assignment]
        return samples

    def check_segment(self, segment_samples: int) -> None:
        wanted = self.clip_samples
        if segment_samples != wanted:
            raise ValueError(
                f"data.segment_samples must be the generator's clip_samples {wanted}, got {segment_samples}"
            )

    def try_own(self, segment_samples: int, device: torch.device) -> None:
        """Call what isn't gansound's once, on noise. Raises ValueError, by key, for what a step would fail at."""
        if not any(map(is_own, (self.generator, *self.discriminator.values()))):
            return
        draws = Draws(0, range(2), device)
        audio = 0.1 * draws.normal("trial", self.channels, segment_samples)
        batch = {"audio": audio, "label": torch.zeros(2, dtype=torch.long, device=device)}
        latents, labels = self.generator_inputs(batch, draws)
        with trying("generator", self.generator, f"latents {tuple(latents.shape)}"), torch.no_grad():
            made = self.generator(latents, labels)
            check_shape(made, self.real(batch).shape)
        for name, network in self.discriminator.items():
            if is_own(network):
                shown, shifts = self._view(name, made), self._shifts(network, draws, name)
                given = f"sounds {tuple(shown.shape)}, labels and shifts"
                with trying(f"discriminators.{name}.network", network, given), torch.no_grad():
                    check_maps(network(shown, labels, shifts), len(made))

    def generator_inputs(self, batch: Mapping[str, Tensor], draws: Draws) -> tuple[Any, ...]:
        """Latents `(B, prior.dim)` drawn at the batch's positions, and the labels of its real sounds."""
        return draws.each("training latent", self.prior.sample), self._labels(batch)

    def real(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the generator should have made: `(B, C, T)`."""
        return batch["audio"]

    def discriminator_phase(
        self, batch: Mapping[str, Tensor], fake: Tensor, draws: Draws, step: int, precision: Precision
    ) -> Verdict:
        """Of each discriminator `discriminator/NAME`, `class/NAME` and its penalties, and how well it tells."""
        verdict = Verdict({}, {})
        with torch.no_grad():
            shown_real = self._augmented(self.real(batch), draws, "real", step)
            shown_fake = self._augmented(fake, draws, "fake", step)
        labels = self._labels(batch)
        for name, network in self.discriminator.items():
            with torch.no_grad():
                real, made = self._view(name, shown_real), self._view(name, shown_fake)
            shifts = (
                self._shifts(network, draws, f"{name} real"),
                self._shifts(network, draws, f"{name} fake"),
            )
            with section("discriminator forward"), precision():
                if getattr(network, "over_batch", False):  # judged apart: the real half would hide a collapse
                    apart = network(real, labels, shifts[0]), network(made, labels, shifts[1])
                    real_maps, made_maps = in_full_precision(apart[0]), in_full_precision(apart[1])
                else:
                    both = network(torch.cat([real, made]), doubled(labels), joined(shifts))
                    real_maps, made_maps = halves(both)
            classes = getattr(network, "class_logits", 0)
            judged = (
                self._adversarial_logits(real_maps, classes),
                self._adversarial_logits(made_maps, classes),
            )
            verdict.losses[f"discriminator/{name}"] = self.adversarial.discriminator(*judged)
            if classes and labels is not None:
                told = class_logits(real_maps), class_logits(made_maps)
                verdict.losses[f"class/{name}"] = self.auxiliary.discriminator(*told, labels, labels)
            verdict.figures.update(self._how_well(name, *judged))
            with section("penalties"):
                verdict.losses.update(self._penalties(name, real, made, labels, draws, step))
        return verdict

    def _penalties(
        self, name: str, real: Tensor, made: Tensor, labels: Tensor | None, draws: Draws, step: int
    ) -> dict[str, Tensor]:
        network = self.discriminator[name]
        due = {key: penalty for key, penalty in self.penalties.items() if step % penalty.every == 0}
        if not due:
            return {}
        shifts = self._shifts(network, draws, f"{name} penalty")
        mix = draws.uniform(f"{name} penalty mix").to(real.dtype)

        def judge(x: Tensor) -> Tensor:
            classes = getattr(network, "class_logits", 0)
            # Twice differentiated, so in full precision whatever the networks run in.
            with no_autocast(x):
                scores = self._adversarial_logits(network(x, labels, shifts), classes)
            return torch.cat([score.flatten(1) for score in scores], 1)

        terms = {}
        for key, penalty in due.items():
            term = penalty.loss(judge, network, real, made, mix)
            if term is not None:
                terms[f"{key}/{name}"] = term
        return terms

    def generator_phase(
        self,
        batch: Mapping[str, Tensor],
        fake: Tensor,
        verdict: Any,
        draws: Draws,
        step: int,
        precision: Precision,
    ) -> dict[str, Tensor]:
        """Of each discriminator `adversarial/NAME`, and `class_generated/NAME` where it tells classes."""
        terms = {}
        labels = self._labels(batch)
        shown = self._augmented(fake, draws, "generator", step)
        shown_real = None
        if self.adversarial.needs_real:
            with torch.no_grad():
                shown_real = self._augmented(self.real(batch), draws, "generator real", step)
        for name, network in self.discriminator.items():
            shifts = self._shifts(network, draws, f"{name} generator")
            classes = getattr(network, "class_logits", 0)
            with section("discriminator forward, for the generator"), precision():
                maps = network(self._view(name, shown), labels, shifts)
            real_logits = None
            if shown_real is not None:
                with section("discriminator forward, for the generator"), torch.no_grad(), precision():
                    real_maps = network(self._view(name, shown_real), labels, shifts)
                real_logits = self._adversarial_logits(real_maps, classes)
            judged = self._adversarial_logits(maps, classes)
            terms[f"adversarial/{name}"] = self.adversarial.generator(judged, real_logits)
            if classes and labels is not None:
                terms[f"class_generated/{name}"] = self.auxiliary.generator(class_logits(maps), labels)
        return terms

    def judged(self, step: int) -> bool:
        """All discriminators take part in every step."""
        return True

    def constrain(self) -> None:
        """Weight clipping and its like."""
        for penalty in self.penalties.values():
            for network in self.discriminator.values():
                penalty.constrain(network)

    def observe(self, figures: Mapping[str, float], items: int) -> None:
        """Let the augmentations follow how sure the discriminators are of real sounds."""
        signs = [value for name, value in figures.items() if name.startswith("real_sign/")]
        if self.memory is not None and signs:
            self.memory.observe(sum(signs) / len(signs), items)

    @torch.no_grad()
    def validate(
        self,
        generator: nn.Module,
        sounds: Sequence[tuple[str, np.ndarray]],
        device: torch.device,
        labels: Sequence[int] = (),
        given: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> tuple[dict[str, float], list[Example]]:
        """Generate as many sounds as there are held-out ones, of the same labels, and compare the two sets.

        The latents are the same at every validation.
        """
        if len(sounds) < _LEAST_SOUNDS:
            if not self._said_few:
                self._said_few = True
                log.warning(
                    "%s too few to compare with (at least %d), so nothing is validated; raise "
                    "data.valid, or of a prepared corpus the --valid of 'gansound data prepare'",
                    counted(len(sounds), "held-out sound is", "held-out sounds are"),
                    _LEAST_SOUNDS,
                )
            return {}, []
        draws = Draws(0, range(len(sounds)), device)
        latents = draws.each("validation latent", self.prior.sample)
        classes = torch.tensor(labels, device=device) if self.labels else None
        parts = [
            self.sound(generator, part, None if classes is None else classes[i : i + len(part)])
            for i, part in zip(
                range(0, len(latents), _SYNTHESISED_AT_ONCE), latents.split(_SYNTHESISED_AT_ONCE), strict=True
            )
        ]
        made = torch.cat(parts).float().cpu().numpy().mean(1)
        real = np.stack([np.atleast_2d(audio).mean(0) for _, audio in sounds])[:, : made.shape[-1]]
        figures = quick_figures(real, made, self.sample_rate) | level_figures(real, made)
        names = [self.labels[i] if self.labels else "sound" for i in labels] or ["sound"] * len(sounds)
        examples = [
            Example(f"{names[i]}_{i}", self.sample_rate, real[i], made[i]) for i in spread(len(sounds), 4)
        ]
        return figures, examples

    def sound(self, generator: nn.Module, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Waveforms `(B, C, T)` of what the generator makes."""
        made: Tensor = generator(latents, labels)
        return made

    def score(self, figures: Mapping[str, float]) -> float | None:
        """The kernel distance to the held-out sounds."""
        return figures.get("kernel_distance")

    def learner(self, shipped: nn.Module) -> nn.Module:
        """The generator itself."""
        return shipped

    def shipped(self, generator: nn.Module, config: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
        """The generator itself, with the labels that the corpus gave it."""
        arguments = {**(config.get("init_args") or {}), "labels": list(self.labels)}
        return generator, {"class_path": config["class_path"], "init_args": arguments}

    def trouble(self, figures: Mapping[str, float]) -> str | None:
        """What to say of a set that is silent, at its limits, or collapsed."""
        return (is_out_of_range(figures) or is_collapsed(figures)) if figures else None

    def _labels(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        return batch["label"] if self.labels else None

    def _augmented(self, x: Tensor, draws: Draws, purpose: str, step: int) -> Tensor:
        with section("augmentations and views"):
            return (
                x if self.augmentations is None else self.augmentations(x, draws, f"augment {purpose}", step)
            )

    def _view(self, name: str, x: Tensor) -> Tensor:
        view = self.discriminators[name].view
        with section("augmentations and views"):
            return x if view is None else view(x)

    def _shifts(self, network: nn.Module, draws: Draws, purpose: str) -> Tensor | None:
        layers, most = getattr(network, "shuffle_layers", 0), getattr(network, "phase_shuffle", 0)
        if not layers or not most:
            return None
        return draws.integers(f"{purpose} shuffle", -most, most, layers)

    def _adversarial_logits(self, maps: Features, classes: int) -> list[Tensor]:
        return [full_precision(x)[:, : x.shape[1] - classes] for x in logits(maps)]

    def _how_well(self, name: str, real: list[Tensor], made: list[Tensor]) -> dict[str, Tensor]:
        if self.adversarial.threshold is None:
            gaps = [r.detach().mean() - f.detach().mean() for r, f in zip(real, made, strict=True)]
            return {f"critic_gap/{name}": torch.stack(gaps).mean()}
        wins = [(r > f).float().mean() for r, f in zip(real, made, strict=True)]
        signs = [(r.detach() - self.adversarial.threshold).sign().mean() for r in real]
        figures = {
            f"discriminator_wins/{name}": torch.stack(wins).mean(),
            f"real_sign/{name}": torch.stack(signs).mean(),
        }
        if self.augmentations is not None and self.memory is not None:
            figures["augmentation_probability"] = signs[0].new_full((), self.augmentations.probability)
        return figures


def hears_labels(network: nn.Module) -> bool:
    """Whether a discriminator looks at labels."""
    return bool(getattr(network, "labels", ()))


def class_logits(maps: Features) -> list[Tensor]:
    """All but the first column of each sub-discriminator's logits."""
    return [full_precision(x)[:, 1:] for x in logits(maps)]


def doubled(labels: Tensor | None) -> Tensor | None:
    """The labels of real and generated sounds together."""
    return None if labels is None else torch.cat([labels, labels])


def joined(parts: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
    """Both halves' shifts."""
    first, second = parts
    return None if first is None or second is None else torch.cat([first, second])


def spread(count: int, few: int) -> list[int]:
    """`few` numbers below `count`, at equal distances."""
    return [i * count // few for i in range(few)] if count > few else list(range(count))
