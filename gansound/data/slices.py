"""A job's part for one of several processes that know nothing of each other: `--slice 3/16`, or what SLURM says."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Slice:
    """Part ``number`` of ``count``, from 1 on."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= _MOST:
            raise ValueError(f"slice {self}: expected a number from 1 on of as many or more, such as 3/16")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """``3/16``, or ``slurm`` for the task of an array, or else of a step, in which this process runs.

        Raises ValueError for anything else, and where there is no task.
        """
        if text == "slurm":
            return cls._of_slurm()
        if (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)) is None:
            raise ValueError(f"slice {text!r}: expected NUMBER/COUNT, such as 3/16, or slurm")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def _of_slurm(cls) -> "Slice":
        def said(name: str, otherwise: int | None = None) -> int:
            value = os.environ.get(name)
            if value is None and otherwise is not None:
                return otherwise
            try:
                return int(value or "")
            except ValueError:
                raise ValueError(
                    f"slice slurm: {name} is {value!r}, expected a number. Start it with srun, or as an array (sbatch "
                    "--array=0-15), or say the slice, such as 3/16"
                ) from None

        if "SLURM_ARRAY_TASK_ID" in os.environ:
            first, step = said("SLURM_ARRAY_TASK_MIN", 0), said("SLURM_ARRAY_TASK_STEP", 1)
            return cls((said("SLURM_ARRAY_TASK_ID") - first) // step + 1, said("SLURM_ARRAY_TASK_COUNT"))
        return cls(said("SLURM_PROCID") + 1, said("SLURM_NTASKS"))

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``count``-th, so that neighbours, which are alike, are dealt out."""
        return items[self.number - 1 :: self.count]
