"""What a batch means to a vocoder of every convention: each item is seen through a mel drawn for it.

And recordings differ in what they hold: above half of its own rate one says nothing. Where the convention saw that
there is nothing, nothing is to be made; what lies above both, nothing is learnt about.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansound.discriminators.augmentation.phase import PhaseAugmentation
from gansound.draw import Draws, placed, streams
from gansound.generators.freev import FreeVGenerator
from gansound.generators.universal import UniversalGenerator
from gansound.losses.adversarial import AdversarialLoss
from gansound.losses.penalties import Penalty
from gansound.mel import MelFrontEnd, MelSpec
from gansound.mel.conventions import drawn_conventions
from gansound.mel.inverse import MelInverse
from gansound.precision import no_autocast
from gansound.tasks.adversary import Adversary
from gansound.tasks.balance import LossBalance
from gansound.tasks.features import Features, Precision, Verdict
from gansound.tasks.vocoder import VocoderTask, WeightedFeatureMatching, WeightedLoss

_EDGE = 0.97  # of half a file's rate: a resampler's slope begins there


class UniversalVocoderTask(VocoderTask):
    """Mel spectrogram of any convention to waveform.

    What learns is the generator's core, from amplitudes; the convention before it has no weights.

    Args:
        mel: the convention in which the model is stored and validated; it fixes rate, hop and framing.
        generator: the universal one.
        discriminators: as of `VocoderTask`.
        adversarial: likewise.
        feature_matching: likewise.
        losses: likewise.
        penalties: likewise.
        phase_augmentation: likewise.
        balance: likewise.
        conventions: how many conventions items are seen through, drawn once; the presets of the rate come first.
        own_share: share of the items that are seen through `mel` itself.

    Raises:
        ValueError: as `VocoderTask`; or `own_share` isn't between 0 and 1, or no convention is left for the others.
    """

    def __init__(
        self,
        mel: MelSpec,
        generator: UniversalGenerator,
        discriminators: dict[str, Adversary] | None = None,
        adversarial: AdversarialLoss | None = None,
        feature_matching: WeightedFeatureMatching | None = None,
        losses: dict[str, WeightedLoss] | None = None,
        penalties: dict[str, Penalty] | None = None,
        phase_augmentation: PhaseAugmentation | None = None,
        balance: LossBalance | None = None,
        conventions: int = 64,
        own_share: float = 0.4,
    ) -> None:
        super().__init__(
            mel,
            generator,
            discriminators,
            adversarial,
            feature_matching,
            losses,
            penalties,
            phase_augmentation,
            balance,
        )
        if not 0 <= own_share <= 1 or (own_share < 1 and conventions < 1):
            raise ValueError(
                f"expected own_share between 0 and 1, and conventions of 1 or more where it is below 1; got "
                f"{own_share} and {conventions}"
            )
        self.whole = generator
        self.generator = generator.layers.core  # type: ignore[assignment]
        self.own_share, self.others = own_share, conventions
        specs = [mel, *drawn_conventions(mel, conventions)]
        inverses = [MelInverse(spec, generator.n_fft, generator.tones, mel) for spec in specs]
        self.views = nn.ModuleList(
            nn.Sequential(MelFrontEnd(spec), inverse) for spec, inverse in zip(specs, inverses, strict=True)
        )
        # Of some the inverse leaves out what they tell.
        self.tops_hz = [
            min(spec.fmax, float(inverse.seen.nonzero().max() + 1) * mel.sample_rate / generator.n_fft)
            for spec, inverse in zip(specs, inverses, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Move what is neither generator nor discriminator: the engine places those two."""
        super().to(device)
        self.views.to(device)

    @torch.no_grad()
    def condition(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Amplitudes `(B, F, n_fft // 2 + 1)` as the model's own convention tells them."""
        if "mel" in batch:
            inverse: nn.Sequential = self.views[0]  # type: ignore[assignment]
            made: Tensor = inverse[1](batch["mel"])
            return made
        return self._seen(0, batch["audio"])

    @torch.no_grad()
    def generator_inputs(self, batch: Mapping[str, Tensor], draws: Draws) -> tuple[Tensor]:
        """Amplitudes as a convention drawn for each item tells them; those of an acoustic model's mels as they are."""
        if "mel" in batch:
            return (self.condition(batch),)
        items = zip(batch["audio"], self._chosen(draws), strict=True)
        return (torch.cat([self._seen(which, audio[None]) for audio, which in items]),)

    def _chosen(self, draws: Draws) -> list[int]:
        """Which convention each item is seen through; 0 is the model's own."""
        drawn = [
            rng.random(2, dtype=np.float32) for rng in streams(draws.seed, draws.positions, "convention")
        ]
        return [0 if own < self.own_share else 1 + int(which * self.others) for own, which in drawn]

    def _seen(self, which: int, audio: Tensor) -> Tensor:
        frames = audio.shape[-1] // self.mel.hop_length
        amplitudes: Tensor = self.views[which](audio)
        return amplitudes[:, :frames]

    def discriminator_phase(
        self, batch: Mapping[str, Tensor], fake: Tensor, draws: Draws, step: int, precision: Precision
    ) -> Verdict:
        """As of `VocoderTask`, on what the recordings hold."""
        batch, fake = self._held(batch, fake, draws)
        return super().discriminator_phase(batch, fake, draws, step, precision)

    def generator_phase(
        self,
        batch: Mapping[str, Tensor],
        fake: Tensor,
        verdict: dict[str, Features] | None,
        draws: Draws,
        step: int,
        precision: Precision,
    ) -> dict[str, Tensor]:
        """As of `VocoderTask`, on what the recordings hold."""
        batch, fake = self._held(batch, fake, draws)
        return super().generator_phase(batch, fake, verdict, draws, step, precision)

    def _held(
        self, batch: Mapping[str, Tensor], fake: Tensor, draws: Draws
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The real and the made without what lies above the real one's band and the mel's, cut alike in both."""
        audio, bandwidth = batch["audio"], batch["bandwidth_hz"]
        chosen = [0] * len(audio) if "mel" in batch else self._chosen(draws)
        told = torch.tensor([self.tops_hz[which] for which in chosen], dtype=bandwidth.dtype)
        limit = torch.maximum(bandwidth, placed(told, bandwidth.device))
        held = dict(batch) | {"audio": below(audio, limit, self.sample_rate)}
        return held, below(fake, limit, self.sample_rate)

    def learner(self, shipped: nn.Module) -> nn.Module:
        """A core with the weights of another, of a FreeV or of a net that may look ahead too.

        Raises:
            ValueError: it is another kind of generator.
        """
        if not isinstance(shipped, FreeVGenerator | UniversalGenerator):
            raise ValueError(
                f"got a {type(shipped).__name__}, expected a UniversalGenerator or a FreeVGenerator"
            )
        return self.whole.begun_as(shipped)

    def shipped(self, generator: nn.Module, config: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
        """The core behind the model's own convention."""
        return self.whole.around(generator), config


def below(audio: Tensor, limit_hz: Tensor, sample_rate: int) -> Tensor:
    """Each waveform without what lies above a frequency, which is taken away in its whole spectrum.

    Shape:
        audio `(B, T)`, limit_hz `(B,)`; half the sample rate or more keeps all → `(B, T)`.
    """
    with no_autocast(audio):
        spectrum = torch.fft.rfft(audio)
        hz = torch.arange(spectrum.shape[1], device=audio.device) * (sample_rate / audio.shape[1])
        # A recording of the model's own rate is kept whole, bit for bit but for rounding.
        limit = torch.where(limit_hz < sample_rate / 2, _EDGE * limit_hz, sample_rate)
        return torch.fft.irfft(spectrum * (hz < limit[:, None]), n=audio.shape[1])
