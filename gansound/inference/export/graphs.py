"""The two graphs as modules of PyTorch, and as its exported programs."""

import copy
import re
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_shapes
from torch.nn import functional as F
from torch.utils._sympy.value_ranges import ValueRanges

from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.nn.streaming import State

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder

_LOWER_BOUND = re.compile(r"size\(\)\[\d\] (?:>|!=) (\d+)$")  # what export asks of a size
_EXAMPLE = (2, 5)  # batch and frames to trace with: neither is special to any layer

TRACING = threading.RLock()
"""One net at a time: torch's tracers patch what threads share, and two at once fail."""


def streaming_generator(vocoder: "Vocoder") -> StreamingGenerator:
    """The vocoder's generator copied to the CPU, in fp32, its weights folded; ValueError if it doesn't stream."""
    if not isinstance(vocoder.generator, StreamingGenerator):
        raise ValueError(
            f"{type(vocoder.generator).__name__} can't be exported: derive it from gansound.nn.generator's "
            "StreamingGenerator and build it from the layers of gansound.nn"
        )
    copied = copy.deepcopy(vocoder.generator).cpu().float().eval()
    return fold_parametrizations(copied).requires_grad_(False)


def program(
    generator: StreamingGenerator, *, streaming: bool, interior: bool = False, least_frames: int | None = None
) -> torch.export.ExportedProgram:
    """A generator's step, `(mel, state) -> (audio, *state)`, or its whole function, with batch and frames dynamic.

    The step of the interior (see `StreamingGenerator.step`) takes and gives the buffers of a state only. The whole
    function is one step over the utterance; or with `least_frames`, for so many and more, its `forward`.

    Raises:
        ValueError: `forward` wants more frames, or asks something else of them; what torch can't export it says itself.
    """
    batch, frames = _EXAMPLE
    mel = torch.zeros(batch, generator.n_mels, frames)
    dynamic = torch.export.Dim.DYNAMIC
    shapes: tuple[Any, ...] = ({0: dynamic, 2: dynamic},)
    if least_frames is not None:
        return _traced(
            generator, (mel.new_zeros(batch, generator.n_mels, 4 * least_frames),), shapes, least_frames
        )
    if not streaming:
        return _traced(_Offline(generator), (mel,), shapes)
    state = generator.init_state(batch)
    if interior:
        state = state[2:]
    step = _InteriorStep(generator) if interior else _Step(generator)
    return _traced(step, (mel, state), (*shapes, tuple({0: dynamic} for _ in state)))


def fixed_step(generator: StreamingGenerator, frames: int) -> tuple[nn.Module, tuple[Tensor, State]]:
    """A generator's step as a module, and what it takes where one utterance gets so many frames a step.

    Its weights and what begins its state are laid out anew: XNNPACK has layouts of its own and refuses weights that are
    channels last already, and ExecuTorch reads every state in the layout of the one that the step was exported with.
    """
    for weight in generator.parameters():
        weight.data = weight.detach().contiguous()
    state = tuple(buffer.contiguous() for buffer in generator.init_state(1))
    return _Step(generator).eval(), (torch.zeros(1, generator.n_mels, frames), state)


def _traced(
    module: nn.Module, inputs: tuple[Any, ...], shapes: tuple[Any, ...], least: int | None = None
) -> torch.export.ExportedProgram:
    with TRACING, torch.no_grad(), symbolic_shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        traced = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)
    # torch asks whether sizes are 1 to choose memory layouts, and would then refuse to run the same graph on those.
    guards = getattr(traced, "_guards_code", [])
    if least is not None:
        for guard in guards:
            if not (bound := _LOWER_BOUND.search(guard)) or int(bound[1]) >= least:
                raise ValueError(f"{type(module).__name__} asks of its input that {guard}")
    traced._guards_code = [guard for guard in guards if not guard.endswith((" > 1", " != 1"))]
    for symbol, limits in traced.range_constraints.items():
        traced.range_constraints[symbol] = ValueRanges(1, limits.upper)
    return traced


def state_names(generator: StreamingGenerator) -> list[str]:
    """Of the tensors of a state: position, length, 0, 1, ..."""
    return ["position", "length", *map(str, range(len(generator.init_state(1)) - 2))]


class _Step(nn.Module):
    def __init__(self, generator: StreamingGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, mel: Tensor, state: State) -> tuple[Tensor, ...]:
        audio, (position, length, *buffers) = self.generator.step(mel, state)
        # What goes in and comes out as it is has one name in a graph, and loses that of the input; a copy has its own.
        return audio, position, length.clone(), *buffers


class _InteriorStep(nn.Module):
    def __init__(self, generator: StreamingGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, mel: Tensor, buffers: State) -> tuple[Tensor, ...]:
        anywhere = torch.zeros(mel.shape[0], dtype=torch.int64)
        audio, state = self.generator.step(mel, (anywhere, anywhere, *buffers), interior=True)
        return audio, *state[2:]


class _Offline(nn.Module):
    """One step over the whole utterance and the look-ahead, whose end is known: any length, the same numbers."""

    def __init__(self, generator: StreamingGenerator) -> None:
        super().__init__()
        self.generator = generator
        self.hop_length = generator.hop_length
        self.lookahead_samples = generator.receptive_field.lookahead
        self.shapes = [tuple(buffer.shape[1:]) for buffer in generator.init_state(1)[2:]]

    def forward(self, mel: Tensor) -> Tensor:
        batch, frames = mel.shape[0], mel.shape[2]
        position = torch.zeros(batch, dtype=torch.int64)
        state = (position, position + frames, *(mel.new_zeros(batch, *shape) for shape in self.shapes))
        after = -(-self.lookahead_samples // self.hop_length)
        audio, _ = self.generator.step(F.pad(mel, (0, after)), state)
        return audio[:, self.lookahead_samples : self.lookahead_samples + frames * self.hop_length]
