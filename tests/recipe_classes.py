"""Classes that the recipe tests build; imported by name, so that an import can be seen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol


class Net:
    """A net.

    Args:
        width: channels of
            every layer.
        rates, dilations: two at once.
    """

    def __init__(
        self,
        width: int,
        rates: tuple[int, ...] = (8, 8),
        slope: float = 0.2,
        dilations: tuple[int, int] = (1, 3),
        mode: Literal["zero", "reflect"] = "zero",
    ):
        if width < 1:
            raise ValueError(f"width: got {width}, expected at least 1")
        self.width, self.rates, self.slope, self.dilations, self.mode = width, rates, slope, dilations, mode


class WideNet(Net):
    """Another net."""

    def __init__(self, depth: int = 2, width: int = 4, **more: int):
        super().__init__(width)
        self.depth, self.more = depth, more


class Loss(Protocol):
    """A protocol, which nothing need inherit from."""

    def __call__(self, x: Any) -> Any: ...


class Hinge:
    """Fits the protocol."""

    def __call__(self, x: Any) -> Any:
        return x


@dataclass
class Entry:
    """A net with its weight."""

    net: Net
    weight: float = 1.0


@dataclass
class Training:
    """A whole recipe.

    Args:
        net: the generator.
        data: folder of sounds.
        entries: discriminators by name.
    """

    net: Net
    data: Path
    entries: dict[str, Entry]
    loss: Loss = field(default_factory=Hinge)
    steps: int = 10
    ema: float | None = None
    labels: list[str] = field(default_factory=list)
    amp: bool = False
    speed: int | str = 1
