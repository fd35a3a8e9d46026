"""What a bench measures."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

from gansound.inference.backends import BACKENDS, available, check_backend
from gansound.inference.backends.runner import Precision

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    Attributes:
        model: name, model folder or repository id, as `load_model_folder` takes it.
        contestants: pairs of backend and precision.
        threads: numbers of threads, each in a process of its own.
        offline_seconds: of audio, made at once.
        chunk_frames: frames a push.
        rounds: how often every contestant is timed in each case.
        sample_seconds: a contestant is repeated for about so long in a round.
        case_seconds: a case that takes longer gets fewer rounds, at least 3; None for as many rounds as were said.
        whole_seconds: of audio, streamed frame by frame from the first push to the flush.
        memory_seconds: of audio, whose memory is measured; 0 for not at all.
        own_code: a Python file, which is run: its `synthesize` calls the code of the model's own project, the rival of
            whole utterances then.
        allow: packages besides gansound whose generator classes the model may name.
    """

    model: str
    contestants: tuple[tuple[str, str], ...]
    threads: tuple[int, ...] = (1,)
    offline_seconds: tuple[float, ...] = (1.0, 5.0, 30.0)
    chunk_frames: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 9
    sample_seconds: float = 0.25
    case_seconds: float | None = 45.0
    whole_seconds: float = 1.0
    memory_seconds: float = 30.0
    own_code: str | None = None
    allow: tuple[str, ...] = ()

    def quick(self) -> Self:
        """A few of the cases, in a few rounds: a look, not figures to quote."""
        return dataclasses.replace(
            self,
            offline_seconds=(1.0, 5.0),
            chunk_frames=(1, 8, 32),
            rounds=3,
            sample_seconds=0.1,
            case_seconds=15.0,
            memory_seconds=0.0,
        )

    def with_rounds(self, rounds: int) -> Self:
        """The same in so many rounds, however long they take."""
        return dataclasses.replace(self, rounds=rounds, case_seconds=None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Of what `dataclasses.asdict` gave and JSON brought over."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        pairs = tuple((backend, precision) for backend, precision in values["contestants"])
        return cls(**values | lists | {"contestants": pairs})


def choose(
    backends: Sequence[str] | None, precisions: Sequence[str] | None
) -> tuple[tuple[tuple[str, str], ...], list[dict[str, str]]]:
    """The pairs of backend and precision to be had here, and what isn't to be had, with the reason.

    Args:
        backends: all when None.
        precisions: all that each backend has when None.

    Raises:
        ValueError: a name that doesn't exist, or nothing is left to measure; it says why.
    """
    for given, known, what in ((backends, BACKENDS, "backend"), (precisions, PRECISIONS, "precision")):
        for name in given or ():
            if name not in known:
                raise ValueError(f"got {what} {name!r}, expected some of {', '.join(known)}")
    import torch

    here = available()
    chosen: list[tuple[str, str]] = []
    missing: dict[str, str] = {}
    for backend in BACKENDS if backends is None else dict.fromkeys(backends):
        has = [precision for name, precision in here if name == backend]
        for precision in PRECISIONS if precisions is None else dict.fromkeys(precisions):
            if precision in has:
                chosen.append((str(backend), str(precision)))
            elif precisions is not None or not has:  # nobody asked for bf16 of a backend that never has it
                try:
                    check_backend(backend, precision, torch.device("cpu"))  # type: ignore[arg-type]
                except ValueError as error:
                    # A backend that isn't installed is one thing missing, not one for each precision.
                    missing.setdefault(str(error), f"{backend} {precision}" if has else str(backend))
    if not chosen:
        raise ValueError("; ".join(missing) or "got no backend")
    return tuple(chosen), [{"what": what, "reason": reason} for reason, what in missing.items()]
