"""What goes wrong in the training of a GAN, noticed while there is time to do something about it."""

import logging
import math
from collections.abc import Mapping

log = logging.getLogger(__name__)

WON_SHARE = 0.99
WON_STEPS = 500


class NonFiniteLoss(ArithmeticError):
    """A loss or a gradient norm is NaN or infinite; `values`, all of that phase by name, say which."""

    def __init__(self, values: Mapping[str, float]) -> None:
        bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
        super().__init__(bad or "the sum of " + ", ".join(f"{n} = {v:.4g}" for n, v in values.items()))


class TrainingError(RuntimeError):
    """A run cannot go on; the message says why and what to do. Its last checkpoint is good."""


class DiscriminatorGuard:
    """Says once when a discriminator has won: it has told real from fake nearly always for `WON_STEPS` steps.

    Its gradient then says little, and the generator stops improving or falls apart.
    """

    def __init__(self) -> None:
        self._streak: dict[str, int] = {}

    def watch(self, step: int, figures: Mapping[str, float]) -> str | None:
        """The message, at the step where a streak of victories reaches its length."""
        message = None
        for name, share in figures.items():
            if not name.startswith("discriminator_wins/"):
                continue
            self._streak[name] = self._streak.get(name, 0) + 1 if share >= WON_SHARE else 0
            if self._streak[name] == WON_STEPS:
                key = name.removeprefix("discriminator_wins/")
                message = (
                    f"step {step}: discriminator {key!r} has won: for {WON_STEPS} steps it ranked real above generated "
                    f"in {WON_SHARE:.0%} of places or more. The generator learns little from it now. Lower "
                    "discriminator_optimization.optimizer.init_args.lr, raise feature_matching, let the spectral "
                    "losses run alone for longer (adversarial_from), or make the discriminator smaller"
                )
                log.warning(message)
        return message

    def state_dict(self) -> dict[str, int]:
        return dict(self._streak)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._streak = dict(state)
