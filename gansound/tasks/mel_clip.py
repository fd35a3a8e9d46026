"""What a batch means to a generator of log-mels whose sound comes from a vocoder: SpecGAN's idea (arXiv 1802.04208)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gansound.discriminators.augmentation import Augmentations
from gansound.generators.specgan import SpecGANGenerator
from gansound.generators.vocoded import VocodedGenerator, vocoded_config
from gansound.losses.adversarial import AdversarialLoss
from gansound.losses.penalties import Penalty
from gansound.mel import MelFrontEnd, MelSpec
from gansound.model_folder import load_model_folder
from gansound.sections import section
from gansound.tasks.clip import ClipAdversary, ClipTask


class MelClipTask(ClipTask):
    """Latents to log-mels; validation and the model folder add the vocoder, and so make waveforms.

    Args:
        mel: the convention of the log-mels, which must be the vocoder's.
        generator: of log-mels.
        discriminators: by name, of log-mels.
        vocoder: name, folder or repository id of a trained vocoder; it stays as it is.
        adversarial: as of `ClipTask`.
        penalties: likewise.
        augmentations: of log-mels.
        critic_steps: as of `ClipTask`.
        auxiliary_weight: likewise.

    Raises:
        ValueError: pieces that can't go together, a vocoder that can't be loaded or takes other mels.
    """

    domain = "mel"

    def __init__(
        self,
        mel: MelSpec,
        generator: SpecGANGenerator,
        discriminators: dict[str, ClipAdversary],
        vocoder: str = "default",
        adversarial: AdversarialLoss | None = None,
        penalties: dict[str, Penalty] | None = None,
        augmentations: Augmentations | None = None,
        critic_steps: int = 1,
        auxiliary_weight: float = 1.0,
    ) -> None:
        super().__init__(
            generator,  # type: ignore[arg-type]
            discriminators,
            adversarial,
            penalties,
            augmentations,
            critic_steps,
            auxiliary_weight,
        )
        viewed = [name for name, adversary in discriminators.items() if adversary.view is not None]
        if viewed:
            raise ValueError(
                f"discriminators.{viewed[0]}.view: a generator of log-mels shows them as they are; leave it out"
            )
        self.front_end = MelFrontEnd(mel)
        self._vocoder = load_model_folder(vocoder)
        self._whole = VocodedGenerator(generator, self._vocoder.generator, self._vocoder.mel)

    @property
    def sample_rate(self) -> int:
        return self._whole.sample_rate

    @property
    def channels(self) -> int:
        return 1

    @property
    def clip_samples(self) -> int:
        return self._whole.clip_samples

    def to(self, device: torch.device) -> None:
        """Move what is neither generator nor discriminator: the engine places those two."""
        self.front_end.to(device)
        self._whole.vocoder.to(device)

    def real(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The log-mel `(B, n_mels, F)` of the real sounds."""
        with section("conditioning"), torch.no_grad():
            audio = super().real(batch)[:, 0]
            mel: Tensor = self.front_end(audio)
            return mel[..., : audio.shape[-1] // self.front_end.spec.hop_length]

    def sound(self, generator: nn.Module, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Waveforms `(B, 1, T)` of what the generator makes."""
        sound: Tensor = self._whole.around(generator)(latents, labels)
        return sound

    def learner(self, shipped: nn.Module) -> nn.Module:
        """Its generator of log-mels.

        Raises:
            ValueError: it has none.
        """
        if not isinstance(shipped, VocodedGenerator):
            raise ValueError(
                f"got a {type(shipped).__name__}, expected a generator of log-mels with its vocoder, such as `drums`"
            )
        return shipped.mel_generator

    def shipped(self, generator: nn.Module, config: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
        """The generator and the vocoder as one."""
        _, own = super().shipped(generator, config)
        whole = self._whole.around(generator)
        return whole, vocoded_config(whole, own, self._vocoder.config)
