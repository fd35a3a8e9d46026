"""What the engine asks of a task; `gansound.tasks` holds those there are."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gansound.draw import Draws
from gansound.frames import FrameSpec
from gansound.mel import MelSpec

Precision = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which networks run: autocast, where the recipe asks for it."""


class Example(Protocol):
    """One sound of a validation; waveforms are `(T,)` float32."""

    name: str
    sample_rate: int
    real: np.ndarray
    fake: np.ndarray


class Verdict(Protocol):
    """What came of the discriminators' phase."""

    losses: dict[str, Tensor]
    """To be weighted, summed and made smaller."""
    figures: dict[str, Tensor]
    """To be written down."""
    kept: Any
    """For the generator's phase on the same batch: features of the real sounds, say."""


class Memory(Protocol):
    """Whatever of a task changes with its steps, besides its networks."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class Task(Protocol):
    """A generator, its discriminators, and what their losses are; `weights` holds each loss's coefficient by name."""

    sample_rate: int
    mel: MelSpec | None
    takes: FrameSpec | None
    """What the generator is given, which is more than a mel where it takes a pitch too; None of one of clips."""
    generator: nn.Module
    discriminator: nn.ModuleDict
    weights: Mapping[str, float]
    critic_steps: int
    """Updates of the discriminators for each of the generator, each on a batch of its own."""
    over_batch: bool
    """Whether a loss compares the items of a batch, so that parts of it don't add up to the whole."""
    takes_turns: bool
    """Whether a discriminator takes part in some steps only."""
    memory: Memory | None
    steady: Sequence[str]
    """Losses that fall and don't jump in a healthy run; where one does, the run goes back."""
    twice_differentiated: Collection[str]
    """Discriminators whose gradients a penalty differentiates again, which no compiled graph can do."""

    @property
    def needs_discriminators(self) -> bool:
        """Whether its generator has nothing to learn from without them."""

    def judged(self, step: int) -> bool:
        """Whether any discriminator takes part in a step."""

    def to(self, device: torch.device) -> None: ...
    def check_segment(self, segment_samples: int) -> None: ...
    def try_own(self, segment_samples: int, device: torch.device) -> None:
        """Call what isn't gansound's once, on the device; ValueError, by key, for what a step would fail at."""

    def generator_inputs(self, batch: Mapping[str, Tensor], draws: Draws) -> tuple[Any, ...]:
        """What the generator is called with."""

    def discriminator_phase(
        self, batch: Mapping[str, Tensor], fake: Tensor, draws: Draws, step: int, precision: Precision
    ) -> Verdict:
        """Judge a batch and what the generator made, detached: all that touches the discriminators' weights."""

    def generator_phase(
        self,
        batch: Mapping[str, Tensor],
        fake: Tensor,
        verdict: Any | None,
        draws: Draws,
        step: int,
        precision: Precision,
    ) -> dict[str, Tensor]:
        """The generator's losses; `verdict` is what the other phase kept, None where it didn't run."""

    def constrain(self) -> None:
        """After each update of the discriminators."""

    def observe(self, figures: Mapping[str, float], items: int) -> None:
        """After each step, with its figures over all processes and how many items a discriminator has seen."""

    def validate(
        self,
        generator: nn.Module,
        sounds: Sequence[tuple[str, np.ndarray]],
        device: torch.device,
        labels: Sequence[int] = (),
        given: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> tuple[dict[str, float], Sequence[Example]]: ...
    def score(self, figures: Mapping[str, float]) -> float | None:
        """How bad a validation was, to keep the best model by; None when its figures don't say."""

    def trouble(self, figures: Mapping[str, float]) -> str | None:
        """What a validation shows to have gone wrong, in a sentence."""

    def learner(self, shipped: nn.Module) -> nn.Module:
        """The inverse of `shipped`: what of a model folder's generator learns."""

    def shipped(self, generator: nn.Module, config: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
        """What goes into the model folder, and the `{class_path, init_args}` that builds it."""
