"""Who runs: each backend in each precision, and the rivals. One that fails is noted and left out."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from torch import Tensor

from gansound.frames import FrameSpec
from gansound.inference.backends import Purpose, make_runner
from gansound.inference.backends.runner import Runner
from gansound.inference.bench.rivals import (
    OWN_CODE,
    PLAIN,
    RECOMPUTED,
    RecomputedStream,
    own_code,
    plain_eager,
)
from gansound.inference.streaming import StreamingVocoder
from gansound.model_folder import LoadedModel
from gansound.nn.generator import StreamingGenerator

log = logging.getLogger(__name__)

Contestant = tuple[str, str]  # backend or rival, precision
Stream = StreamingVocoder | RecomputedStream
OFFLINE_RIVAL: Contestant = (PLAIN, "fp32")
OWN_RIVAL: Contestant = (OWN_CODE, "fp32")
STREAMING_RIVAL: Contestant = (RECOMPUTED, "fp32")


class Contestants:
    """Makes the runners of one model, each once.

    Args:
        model: what they run.
        pairs: of backend and precision.
        own: a file with the code of the model's own project, see `own_code`.

    Attributes:
        generator: as it was loaded, for the rivals.
        not_measured: what failed, and why.

    Raises:
        ValueError: a generator that doesn't stream.
    """

    def __init__(self, model: LoadedModel, pairs: Sequence[Contestant], own: str | None = None) -> None:
        if not isinstance(model.generator, StreamingGenerator):
            raise ValueError(
                f"{model.path}: {type(model.generator).__name__} doesn't stream. Derive it from "
                "gansound.nn.generator.StreamingGenerator and build it from the layers of gansound.nn"
            )
        self.generator = model.generator.eval().requires_grad_(False)
        self.frame_spec: FrameSpec = model.frame_spec
        self.not_measured: list[dict[str, str]] = []
        self._pairs = list(pairs)
        self._own = None if own is None else own_code(Path(own))
        self._runners: dict[tuple[Contestant, Purpose], Runner] = {}

    def offline(self) -> dict[Contestant, Callable[[Tensor], Tensor]]:
        """What turns a whole mel into sound, the rivals first."""
        runners = self._made("whole")
        rivals: dict[Contestant, Callable[[Tensor], Tensor]] = {
            OFFLINE_RIVAL: partial(plain_eager, self.generator)
        }
        if self._own is not None:
            rivals[OWN_RIVAL] = self._own
        return rivals | {contestant: runner.synthesize for contestant, runner in runners.items()}

    def streams(self) -> dict[Contestant, Stream]:
        """New streams, the rival first."""
        streams: dict[Contestant, Stream] = {STREAMING_RIVAL: RecomputedStream(self.generator)}
        for contestant, runner in self._made("stream").items():
            streams[contestant] = StreamingVocoder(runner, self.frame_spec)
        return streams

    def settle(self) -> None:
        """Have everything compiled that would be while it is timed."""
        for runner in self._runners.values():
            runner.settle()

    @contextmanager
    def noting(self, contestant: Contestant, doing: str) -> Iterator[None]:
        """Take down a failure of the body, and leave the contestant out from then on. A rival's isn't caught."""
        try:
            yield
        except Exception as error:
            if contestant in (OFFLINE_RIVAL, STREAMING_RIVAL, OWN_RIVAL):
                raise
            log.debug("%s failed", contestant, exc_info=error)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self.not_measured.append({"what": f"{' '.join(contestant)}, {doing}", "reason": reason})
            self._pairs.remove(contestant)

    def _made(self, purpose: Purpose) -> dict[Contestant, Runner]:
        for contestant in list(self._pairs):
            if (contestant, purpose) not in self._runners:
                with self.noting(contestant, "made ready"):
                    # A backend may rearrange what it is given, and the rivals run the generator as it was loaded.
                    own = copy.deepcopy(self.generator)
                    made = make_runner(own, *contestant, purpose=purpose)  # type: ignore[arg-type]
                    if (made.name, made.precision) != contestant:
                        raise ValueError(f"fell back to {made.name} {made.precision}")
                    self._runners[contestant, purpose] = made
        return {contestant: self._runners[contestant, purpose] for contestant in self._pairs}
