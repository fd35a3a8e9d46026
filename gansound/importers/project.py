"""What an importer of one project says of a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from gansound.frames import FrameSpec
from gansound.importers.checkpoint import Checkpoint

SAME_NOISE = (
    "its noise is the same in each utterance; the original draws it anew, so that no two of its are alike"
)
"""A note on nets that were trained with noise drawn anew."""


@dataclass(frozen=True)
class Described:
    """Which of our generators a checkpoint is, and where its weights go.

    Attributes:
        class_path: of the generator.
        init_args: of its constructor.
        takes: the convention of its mels, or the latents it takes instead.
        keys: of a generator without weight norm: our names of its weights and, for each, theirs.
        weights: of the generator alone, by their names; None where they are the checkpoint's as they are.
        speaker: whose voice was taken, where there are several: its name, or the file's of an embedding.
        constants: parts of names there that aren't weights, but follow from the configuration.
        notes: what a user should know that a model folder doesn't say.
    """

    class_path: str
    init_args: dict[str, Any]
    takes: FrameSpec
    keys: Callable[[Any], Mapping[str, str]]
    constants: tuple[str, ...] = ()
    weights: Mapping[str, Tensor] | None = None
    speaker: str | None = None
    notes: list[str] = field(default_factory=list)


class Project(Protocol):
    """A module of this package."""

    TITLE: str

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Whether it is this project's, by the names of the weights and, where those don't tell, its configuration."""

    def describe(self, checkpoint: Checkpoint) -> Described:
        """Raises ImportFailed for a configuration that says too little."""
