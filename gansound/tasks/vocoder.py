"""What a batch means to a vocoder: the mel of a real waveform, and the waveform made from it.

The generator's loss is that of MelGAN (arXiv 1910.06711) with whatever spectral terms the recipe adds; the
discriminators are any number of networks, each with its weight.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansound.discriminators.augmentation.phase import PhaseAugmentation
from gansound.discriminators.slicing import sliced_logits
from gansound.draw import Draws
from gansound.extras import MissingPackage
from gansound.frames import FrameSpec, PitchedSpec
from gansound.losses.adversarial import AdversarialLoss, Hinge
from gansound.losses.feature_matching import FeatureMatching
from gansound.losses.penalties import Penalty
from gansound.mel import MelFrontEnd, MelSpec
from gansound.metrics.level import is_out_of_range, level_figures
from gansound.metrics.pair import UndefinedMeasure
from gansound.metrics.pesq import pesq_wb
from gansound.precision import no_autocast
from gansound.sections import section
from gansound.tasks.adversary import Adversary, check_penalties, check_weight
from gansound.tasks.balance import SIZE, LossBalance
from gansound.tasks.features import (
    Example,
    Features,
    Precision,
    Verdict,
    detached,
    halves,
    in_full_precision,
    logits,
)
from gansound.tasks.own import check_maps, check_shape, is_own, try_loss, trying


@dataclass
class WeightedLoss:
    """A term of the generator's loss that compares two waveforms.

    Args:
        loss: maps fake `(B, T)` and real `(B, T)` to a scalar; where it has them, `shortest_samples` is the least T
            it takes, and `sample_rate` the only rate it measures at.
        weight: its coefficient, applied nowhere else; 0 only writes it down.

    Raises:
        ValueError: a weight below 0.
    """

    loss: nn.Module
    weight: float

    def __post_init__(self) -> None:
        check_weight(self.weight)


@dataclass
class WeightedFeatureMatching:
    """Feature matching and its share in the generator's loss.

    Args:
        loss: which convention.
        weight: its coefficient, times the weight of each discriminator; 0 for none.
        fresh_real: compare with the real sounds' features in the discriminators as they are after their update, as
            jik876/hifi-gan does, for another forward pass; without, with those they have just learnt from, as
            descriptinc/melgan-neurips does.

    Raises:
        ValueError: a weight below 0.
    """

    loss: FeatureMatching = field(default_factory=FeatureMatching)
    weight: float = 10.0
    fresh_real: bool = False

    def __post_init__(self) -> None:
        check_weight(self.weight)


class VocoderTask:
    """Mel spectrogram to waveform.

    Args:
        mel: the convention of the mels; also fixes the sample rate of the audio.
        generator: maps `(B, n_mels, F)` to `(B, F * hop_length)`; one that takes a pitch (`takes_pitch`) finds F0 in Hz
            in the last row, and its n_mels is one more than the mel's.
        discriminators: by name; empty trains on the spectral losses alone.
        adversarial: the adversarial loss, MelGAN's hinge by default.
        feature_matching: and its weight (MelGAN: 10).
        losses: further terms by name, each with its weight.
        penalties: by name, on every discriminator, such as R1 and R2 beside relativistic pairs.
        phase_augmentation: of all that the discriminators see, real and generated alike.
        balance: weigh the generator's losses by their gradients instead of their values; the weights are then shares.

    Raises:
        ValueError: pieces that can't go together: hop length, rate or number of bands differ between the mel and the
            generator, a loss or a discriminator is of another sample rate than the mel, a loss and its penalties or
            heads don't fit, or nothing is to be learned.
    """

    def __init__(
        self,
        mel: MelSpec,
        generator: nn.Module,
        discriminators: dict[str, Adversary] | None = None,
        adversarial: AdversarialLoss | None = None,
        feature_matching: WeightedFeatureMatching | None = None,
        losses: dict[str, WeightedLoss] | None = None,
        penalties: dict[str, Penalty] | None = None,
        phase_augmentation: PhaseAugmentation | None = None,
        balance: LossBalance | None = None,
    ) -> None:
        takes = PitchedSpec(mel) if getattr(generator, "takes_pitch", False) else mel
        for name in ("hop_length", "n_mels"):
            if not hasattr(generator, name):
                raise ValueError(
                    f"generator: {type(generator).__name__} has no attribute {name}, which a vocoder's generator "
                    "states"
                )
            if getattr(generator, name) != getattr(takes, name):
                pitched = name == "n_mels" and takes is not mel
                raise ValueError(
                    f"mel.{name} is {getattr(mel, name)} but the generator's {name} is {getattr(generator, name)}"
                    + (" (the product of its upsample_rates)" if name == "hop_length" else "")
                    + ("; it must be one more, for the pitch" if pitched else "; they must be equal")
                )
        if (rate := getattr(generator, "sample_rate", mel.sample_rate)) != mel.sample_rate:
            raise ValueError(
                f"mel.sample_rate is {mel.sample_rate} but the generator's sample_rate is {rate}; they must be equal"
            )
        self.discriminators = discriminators or {}
        self.losses = losses or {}
        self.penalties = penalties or {}
        self.phase_augmentation = phase_augmentation
        self.balance = balance
        if not self.discriminators and not self.losses:
            raise ValueError("give at least one of discriminators and losses: there is nothing to learn from")
        for name, judge in self._judges().items():
            if (rate := getattr(judge, "sample_rate", None)) not in (None, mel.sample_rate):
                raise ValueError(
                    f"{name}: is of {rate} Hz, the mel and so the sound of {mel.sample_rate} Hz; leave its own mel "
                    "out, and it takes that of the recipe"
                )
        self.mel = mel
        self.takes: FrameSpec = takes
        self.sample_rate = mel.sample_rate
        self.generator = generator
        self.discriminator = nn.ModuleDict({name: a.network for name, a in self.discriminators.items()})
        self.adversarial = adversarial or Hinge()
        matching = feature_matching or WeightedFeatureMatching()
        self.feature_matching = matching.loss if matching.weight else None
        self.fresh_real = matching.fresh_real or self.adversarial.needs_real
        self.criteria = nn.ModuleDict({name: term.loss for name, term in self.losses.items()})
        self.front_end = MelFrontEnd(mel)
        self.critic_steps, self.over_batch, self.memory = 1, self.adversarial.over_batch, balance
        self.takes_turns = any(adversary.every > 1 for adversary in self.discriminators.values())
        doubly = any(penalty.differentiates_twice for penalty in self.penalties.values())
        self.twice_differentiated = tuple(self.discriminators) if doubly else ()
        self._check()
        self.weights = {name: term.weight for name, term in self.losses.items()}
        for name, adversary in self.discriminators.items():
            weight = adversary.weight * adversary.every
            self.weights[f"adversarial/{name}"] = weight
            self.weights[f"feature_matching/{name}"] = weight * matching.weight
            self.weights[f"discriminator/{name}"] = 1.0
            if adversary.slicing:
                self.weights[f"direction/{name}"] = 1.0
            for key, penalty in self.penalties.items():
                # It is due where both are; of the discriminator's own steps every so many.
                together = math.lcm(penalty.every, adversary.every) // adversary.every
                self.weights[f"{key}/{name}"] = penalty.weight * together
        if balance is not None:
            self.weights |= {f"{SIZE}{name}": 0.0 for name in list(self.weights)}
        self.steady = (*self.losses, *(f"feature_matching/{name}" for name in self.discriminators))

    @property
    def needs_discriminators(self) -> bool:
        return not any(term.weight for term in self.losses.values())

    def judged(self, step: int) -> bool:
        """Whether any discriminator takes part in a step."""
        return bool(self._due(step))

    def _due(self, step: int) -> list[str]:
        return [name for name, adversary in self.discriminators.items() if adversary.due(step)]

    def to(self, device: torch.device) -> None:
        """Move what is neither generator nor discriminator: the engine places those two."""
        self.front_end.to(device)
        self.criteria.to(device)
        if self.phase_augmentation is not None:
            self.phase_augmentation.to(device)

    def _judges(self) -> dict[str, nn.Module]:
        """All that is given waveforms, by its key in the recipe."""
        losses = {f"losses.{name}.loss": term.loss for name, term in self.losses.items()}
        networks = {f"discriminators.{name}.network": a.network for name, a in self.discriminators.items()}
        views = {} if self.phase_augmentation is None else {"phase_augmentation": self.phase_augmentation}
        return losses | networks | views

    def _check(self) -> None:
        check_penalties(self.adversarial, self.penalties, list(self.discriminator.values()))
        if not self.discriminators and (self.penalties or self.phase_augmentation is not None):
            raise ValueError(
                "discriminators: none, but there are penalties or a phase_augmentation, which are for them; leave "
                "those out"
            )
        always = any(a.weight and a.every == 1 and a.teaches_from == 0 for a in self.discriminators.values())
        if self.needs_discriminators and not always:
            raise ValueError(
                "discriminators: without further losses of some weight one must teach in every step from the first; "
                "set its every to 1, its teaches_from to 0 and its weight above 0, or give losses"
            )
        for key in self.penalties:
            if key in ("adversarial", "feature_matching", "discriminator", "direction", "discriminator_wins"):
                raise ValueError(f"penalties.{key}: there is a loss of that name; take another")
        for name, adversary in self.discriminators.items():
            if adversary.slicing and (self.adversarial.needs_real or not self.adversarial.falls):
                raise ValueError(
                    f"discriminators.{name}.slicing: needs an adversarial loss that falls wherever a logit rises, such "
                    f"as SoftLeastSquares or Hinge, got {type(self.adversarial).__name__}"
                )

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

    def try_own(self, segment_samples: int, device: torch.device) -> None:
        """Call what isn't gansound's once, on noise. Raises ValueError, by key, for what a step would fail at."""
        draws = Draws(0, range(2), device)
        real, fake = (0.1 * draws.normal(f"trial {what}", segment_samples) for what in ("real", "fake"))
        if is_own(self.generator):
            f0 = real.new_full((len(real), segment_samples // self.mel.hop_length), 200.0)
            (mel,) = self.generator_inputs({"audio": real, "f0": f0}, draws)
            with trying("generator", self.generator, f"mels {tuple(mel.shape)}"), torch.no_grad():
                check_shape(self.generator(mel), real.shape)
        for name, term in self.losses.items():
            if is_own(term.loss):
                try_loss(f"losses.{name}.loss", term.loss, fake, real)
        for name, adversary in self.discriminators.items():
            network = adversary.network
            if is_own(network):
                shown = torch.cat(adversary.shown(name, (real, fake), draws))
                given = f"sounds {tuple(shown.shape)}"
                with trying(f"discriminators.{name}.network", network, given), torch.no_grad():
                    maps = network(shown)
                    check_maps(maps, len(shown))
                    if self.feature_matching is not None:
                        self.feature_matching(*halves(maps))

    def condition(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the generator is given: an acoustic model's mel or the real audio's, `(B, n_mels, T / hop_length)`.

        And the pitch `f0` `(B, T / hop_length)` as a row below, where it takes one.
        """
        if "mel" in batch:
            mel = batch["mel"]
        else:
            with torch.no_grad():
                frames = batch["audio"].shape[-1] // self.mel.hop_length
                mel = self.front_end(batch["audio"])[..., :frames]
        return torch.cat([mel, batch["f0"][:, None]], 1) if isinstance(self.takes, PitchedSpec) else mel

    def generator_inputs(self, batch: Mapping[str, Tensor], draws: Draws) -> tuple[Tensor]:
        return (self.condition(batch),)

    def discriminator_phase(
        self, batch: Mapping[str, Tensor], fake: Tensor, draws: Draws, step: int, precision: Precision
    ) -> Verdict:
        """Losses `discriminator/NAME`, `direction/NAME` of slicing heads and `PENALTY/NAME`, how often each won, and
        the features of the real batch.
        """
        verdict = Verdict({}, {}, {})
        sounds = self._turned((batch["audio"], fake), draws)
        for name in self._due(step):
            adversary, network = self.discriminators[name], self.discriminator[name]
            shown = adversary.shown(name, sounds, draws)
            with section("discriminator forward"), precision():
                if getattr(network, "judged_apart", False):
                    real, made = (in_full_precision(network(sound)) for sound in shown)
                else:
                    real, made = halves(network(torch.cat(shown)))
            judged = logits(real), logits(made)
            if adversary.slicing:
                with precision():
                    (real_logits, real_ways), (made_logits, made_ways) = (
                        sliced_logits(network, maps) for maps in (real, made)
                    )
                judged = real_logits, made_logits
                verdict.losses[f"direction/{name}"] = self.adversarial.generator(
                    real_ways
                ) - self.adversarial.generator(made_ways)
            verdict.losses[f"discriminator/{name}"] = self.adversarial.discriminator(*judged)
            with section("penalties"):
                verdict.losses.update(self._penalties(name, shown, draws, step))
            wins = [(r > f).float().mean() for r, f in zip(logits(real), logits(made), strict=True)]
            verdict.figures[f"discriminator_wins/{name}"] = torch.stack(wins).mean()
            if step >= adversary.teaches_from:
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
        sounds = self._turned((batch["audio"], fake), draws) if true else []
        for name in true:
            shown_real, shown = self.discriminators[name].shown(name, sounds, draws)
            with section("discriminator forward, for the generator"), precision():
                if self.fresh_real:
                    with torch.no_grad():
                        true[name] = in_full_precision(self.discriminator[name](shown_real))
                made[name] = self.discriminator[name](shown)
        with section("spectral losses"):
            terms = {name: term(fake, batch["audio"]) for name, term in self.criteria.items()}
        for name, real in true.items():
            maps = in_full_precision(made[name])
            terms[f"adversarial/{name}"] = self.adversarial.generator(logits(maps), logits(real))
            if self.feature_matching is not None:
                with section("feature matching"):
                    terms[f"feature_matching/{name}"] = self.feature_matching(real, maps)
        if self.balance is not None:
            with section("balance"):
                return self.balance(terms, self.weights, fake)
        return terms

    def _turned(self, sounds: Sequence[Tensor], draws: Draws) -> Sequence[Tensor]:
        """What the discriminators are shown, before any takes its crop."""
        if self.phase_augmentation is None:
            return sounds
        with section("augmentations and views"):
            return self.phase_augmentation(sounds, draws)

    def _penalties(self, name: str, shown: Sequence[Tensor], draws: Draws, step: int) -> dict[str, Tensor]:
        network = self.discriminator[name]
        due = {key: penalty for key, penalty in self.penalties.items() if step % penalty.every == 0}
        if not due:
            return {}
        real, made = shown
        mix = draws.uniform(f"{name} penalty mix").to(real.dtype)

        def judge(sound: Tensor) -> Tensor:
            # Twice differentiated, so in full precision whatever the networks run in.
            with no_autocast(sound):
                return torch.cat([score.flatten(1) for score in logits(network(sound))], 1)

        terms = {key: penalty.loss(judge, network, real, made, mix) for key, penalty in due.items()}
        return {f"{key}/{name}": term for key, term in terms.items() if term is not None}

    def constrain(self) -> None:
        """Weight clipping and its like."""
        for penalty in self.penalties.values():
            for network in self.discriminator.values():
                penalty.constrain(network)

    def observe(self, figures: Mapping[str, float], items: int) -> None:
        """Let the balance follow the gradients' lengths."""
        if self.balance is not None:
            self.balance.observe(figures)

    @torch.no_grad()
    def validate(
        self,
        generator: nn.Module,
        sounds: Sequence[tuple[str, np.ndarray]],
        device: torch.device,
        labels: Sequence[int] = (),
        given: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> tuple[dict[str, float], list[Example]]:
        """Whole utterances `(name, (T,))` made again: mean log-mel L1, wide-band PESQ and level, and the sounds.

        From the `mel` `(n_mels, T / hop_length)` that is given for each, else from that of the sound, and with the `f0`
        `(T / hop_length,)` that is given where the generator takes one. Utterances shorter than a hop are left out.
        """
        distances: list[float] = []
        levels: list[dict[str, float]] = []
        scores: list[float] = []
        examples: list[Example] = []
        for number, (name, audio) in enumerate(sounds):
            usable = len(audio) // self.mel.hop_length * self.mel.hop_length
            if usable == 0:
                continue
            real = torch.from_numpy(audio[:usable]).to(device)[None]
            beside = given[number] if given else {}
            frames_of = {name: torch.from_numpy(value).to(device)[None] for name, value in beside.items()}
            fake = generator(self.condition({"audio": real} | frames_of)).float()
            frames = usable // self.mel.hop_length
            made_mel, real_mel = (self.front_end(x)[..., :frames] for x in (fake, real))
            distances.append((made_mel - real_mel).abs().mean().item())
            example = Example(name, self.sample_rate, real[0].cpu().numpy(), fake[0].cpu().numpy())
            examples.append(example)
            levels.append(level_figures(example.real, example.fake))
            # A clip may hold no speech, and PESQ, which a compiler must build, may not be installed (`gansound train`
            # says so): there is no figure then.
            with contextlib.suppress(UndefinedMeasure, MissingPackage):
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
