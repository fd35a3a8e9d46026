"""What the engine asks of a task; `gansound.tasks` holds those there are."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gansound.mel import MelSpec

Features = list[list[Tensor]]


class Example(Protocol):
    """One utterance of a validation; waveforms are `(T,)` float32."""

    name: str
    sample_rate: int
    real: np.ndarray
    fake: np.ndarray


class Task(Protocol):
    """A generator, its discriminators, and what their losses are; `weights` holds each loss's coefficient by name."""

    sample_rate: int
    mel: MelSpec
    generator: nn.Module
    discriminator: nn.ModuleDict
    weights: Mapping[str, float]

    @property
    def needs_discriminators(self) -> bool:
        """Whether its generator has nothing to learn from without them."""

    def to(self, device: torch.device) -> None: ...
    def check_segment(self, segment_samples: int) -> None: ...
    def condition(self, batch: Mapping[str, Any]) -> Tensor: ...
    def real(self, batch: Mapping[str, Any]) -> Tensor: ...
    def discriminator_losses(
        self, real: dict[str, Features], fake: dict[str, Features]
    ) -> dict[str, Tensor]: ...
    def generator_losses(
        self, fake_audio: Tensor, real_audio: Tensor, fake: dict[str, Features], real: dict[str, Features]
    ) -> dict[str, Tensor]: ...
    def validate(
        self, generator: nn.Module, utterances: Sequence[tuple[str, np.ndarray]], device: torch.device
    ) -> tuple[dict[str, float], Sequence[Example]]: ...
