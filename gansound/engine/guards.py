"""What goes wrong in the training of a GAN, noticed while there is time to do something about it.

Each guard looks at the figures of every step, which are the same in all processes, so that all of them decide alike;
and each is part of a checkpoint, so that a resumed run notices what an uninterrupted one would have.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

ADVICE = "docs/is_this_normal.md"

WON_SHARE, WON_STEPS = 0.99, 500
BLIND_SHARE, BLIND_STEPS = 0.52, 2000
RECENT_STEPS = 100
HISTORY_STEPS, EXPLODED_STEPS = 500, 50


class NonFiniteLoss(ArithmeticError):
    """A loss or a gradient norm is NaN or infinite; `values`, all of that phase by name, say which."""

    def __init__(self, values: Mapping[str, float]) -> None:
        bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
        super().__init__(bad or "the sum of " + ", ".join(f"{n} = {v:.4g}" for n, v in values.items()))


class TrainingError(RuntimeError):
    """A run cannot go on; the message says why and what to do. Its last checkpoint is good."""


class StoppedError(RuntimeError):
    """The run was asked to stop and did, with a checkpoint."""


class SkippedSteps:
    """Counts steps whose loss or gradient wasn't finite and which therefore changed nothing.

    A few are an accident of one batch; more than `most` of the last `RECENT_STEPS` steps aren't.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.total = 0
        self._recent: list[int] = []

    def add(self, step: int) -> bool:
        """Count one; whether that is too many."""
        self.total += 1
        self._recent = [earlier for earlier in self._recent if earlier > step - RECENT_STEPS] + [step]
        return len(self._recent) > self.most

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "recent": list(self._recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total, self._recent = int(state["total"]), list(state["recent"])


class ExplosionGuard:
    """Notices a loss that has left where it was: over `factor` times its median for `EXPLODED_STEPS` steps on end.

    The median is of the `HISTORY_STEPS` values before; a loss that is younger isn't judged. Only losses that fall
    and don't jump in a healthy run are watched, such as spectral distances; a critic's may be any number.

    Args:
        factor: None watches nothing.
    """

    def __init__(self, factor: float | None) -> None:
        self.factor = factor
        self._history: dict[str, deque[float]] = {}
        self._streak: dict[str, int] = {}

    @property
    def calm(self) -> bool:
        """Whether no loss is over its limit now: a checkpoint of this moment is one to go back to."""
        return not any(self._streak.values())

    def watch(self, figures: Mapping[str, float], names: Sequence[str]) -> str | None:
        """What has exploded, at the step that makes it certain."""
        if self.factor is None:
            return None
        for name in names:
            value = figures.get(name)
            if value is None:
                continue
            history = self._history.setdefault(name, deque(maxlen=HISTORY_STEPS))
            if len(history) == HISTORY_STEPS:
                median = statistics.median(history)
                self._streak[name] = self._streak.get(name, 0) + 1 if value > self.factor * median else 0
                if self._streak[name] >= EXPLODED_STEPS:
                    return (
                        f"{name} has exploded: {value:.3g}, and for {EXPLODED_STEPS} steps over {self.factor:g} times "
                        f"the {median:.3g} it had before"
                    )
                if self._streak[name]:
                    continue  # what may be an explosion must not become the measure
            history.append(value)
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"history": {k: list(v) for k, v in self._history.items()}, "streak": dict(self._streak)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._history = {k: deque(v, maxlen=HISTORY_STEPS) for k, v in state["history"].items()}
        self._streak = dict(state["streak"])


class DiscriminatorGuard:
    """Says once when a discriminator has won or sees nothing, each for so many steps on end.

    Where it has told real from fake nearly always, its gradient says little, and the generator stops improving or
    falls apart. Where it can't tell them apart for long, it says nothing either, unless the generator is perfect.
    """

    def __init__(self) -> None:
        self._streak: dict[str, int] = {}

    def watch(self, figures: Mapping[str, float]) -> str | None:
        """The message, at the step where a streak reaches its length."""
        for name, value in figures.items():
            kind, _, key = name.partition("/")
            if kind == "discriminator_wins":
                won = self._counted(f"won {key}", value >= WON_SHARE)
                blind = self._counted(f"blind {key}", value <= BLIND_SHARE)
                if won == WON_STEPS:
                    return (
                        f"discriminator {key!r} has won: for {WON_STEPS} steps it ranked real above generated in "
                        f"{WON_SHARE:.0%} of places or more. The generator learns little from it now. Lower "
                        "discriminator_optimization.optimizer.init_args.lr, raise feature_matching, let the spectral "
                        "losses run alone for longer (adversarial_from), or make the discriminator smaller. See "
                        f"{ADVICE}#a-discriminator-has-won"
                    )
                if blind == BLIND_STEPS:
                    return _blind(
                        key, f"it ranked real above generated in {BLIND_SHARE:.0%} of places or less"
                    )
            elif kind == "critic_gap" and self._counted(f"blind {key}", value <= 0) == BLIND_STEPS:
                return _blind(key, "it scored real sounds no higher than generated ones")
        return None

    def _counted(self, streak: str, goes_on: bool) -> int:
        self._streak[streak] = self._streak.get(streak, 0) + 1 if goes_on else 0
        return self._streak[streak]

    def state_dict(self) -> dict[str, int]:
        return dict(self._streak)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._streak = dict(state)


def _blind(key: str, what: str) -> str:
    return (
        f"discriminator {key!r} sees nothing: for {BLIND_STEPS} steps {what}. Listen: unless the sounds are as good as "
        "real ones, it is too weak or learns too slowly. Raise discriminator_optimization.optimizer.init_args.lr, make "
        f"it larger, or loosen its penalties. See {ADVICE}#a-discriminator-sees-nothing"
    )
