"""OpenVINO on the CPU: the quickest with whole utterances and in bf16.

States live inside its inference requests, which saves handing them out and in at each step. Shapes are fixed when a
net is compiled, which takes a fraction of a second, so a push of any length is cut into steps of a few lengths.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansound.inference.backends.runner import (
    STEP_FRAMES,
    BackendUnavailable,
    Precision,
    Runner,
    step_lengths,
)
from gansound.inference.backends.step_graph import step_graph
from gansound.nn import streaming
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Where its telemetry isn't to be had, OpenVINO does without; otherwise it sends an event when it is imported."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


with _without_telemetry():
    import openvino
    from openvino.passes import MakeStateful, Manager

    from gansound.inference.backends.open_vino_graph import vectorise

_EXACT_SAMPLES = 2**22  # twice the length is computed with, and a few frames are added
_HINTS = {"fp32": "f32", "bf16": "bf16"}

Shape = tuple[int, int, bool]  # batch, frames, interior


@dataclass
class Streams:
    """The state of a batch of streams: two counters here, the buffers here or in a request of a compiled net."""

    position: Tensor
    length: Tensor
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    shape: Shape | None = None
    request: Any = None


class OpenVINORunner(Runner):
    """One compiled net for each length of a step that occurs, for the ends of utterances and for their interior."""

    name = "openvino"
    compiles_each_length = True

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self._core = openvino.Core()
        # It would compute in fp32 instead, and say nothing.
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendUnavailable("backend 'openvino' has no bf16 on this CPU, which lacks it. Take fp32")
        form = InferenceForm(generator, graph=True, most_frames=STEP_FRAMES[0])
        self._graphs = {interior: step_graph(form, interior=interior) for interior in (False, True)}
        self._shapes = [tuple(buffer.shape[1:]) for buffer in form.init_state(1)[2:]]
        self._compiled: dict[Shape, Any] = {}
        self._compiling = threading.Lock()

    def init_state(self, batch: int = 1) -> Streams:
        position = torch.zeros(batch, dtype=torch.int64)
        buffers = {
            f"state.{i}": np.zeros((batch, *shape), np.float32) for i, shape in enumerate(self._shapes)
        }
        return Streams(position, torch.full_like(position, streaming.UNKNOWN_LENGTH), buffers)

    def step(self, mel: Tensor, state: Streams, *, interior: bool = False) -> tuple[Tensor, Streams]:
        batch, _, frames = mel.shape
        audio = np.empty((batch, frames * self.hop_length), np.float32)
        start = 0
        for count in step_lengths(frames):
            self._move(state, (batch, count, interior))
            request = state.request
            request.get_tensor("mel").data[:] = mel[..., start : start + count].numpy()
            if not interior:
                # OpenVINO computes integers in 32 bits, and some in floats, exact to 2**24 samples. Where a stream
                # stands matters near its ends only, so far from its start it is counted from nearer by, and an end
                # out of sight is as good as unknown.
                near = state.position.clamp(max=self.interior_frames)
                left = (state.length - state.position).clamp(max=_EXACT_SAMPLES // self.hop_length)
                request.get_tensor("state.position").data[:] = near.numpy()
                request.get_tensor("state.length").data[:] = (near + left).numpy()
            request.infer()
            hops = slice(start * self.hop_length, (start + count) * self.hop_length)
            audio[:, hops] = request.get_tensor("audio").data
            state.position = state.position + count
            start += count
        return torch.from_numpy(audio), state

    def finish(self, state: Streams, remaining: int | Tensor = 0, items: Tensor | None = None) -> Streams:
        state.position, state.length = streaming.finish((state.position, state.length), remaining, items)
        return state

    def reset(self, state: Streams, items: Tensor | None = None) -> Streams:
        state.position, state.length = streaming.reset((state.position, state.length), items)
        return state

    def _move(self, state: Streams, shape: Shape) -> None:
        """Take the buffers to a request of the net for that shape."""
        if state.shape == shape:
            return
        if state.request is not None:
            state.buffers = {_name(v): v.state.data.copy() for v in state.request.query_state()}
        state.request = self._net(shape).create_infer_request()
        for variable in state.request.query_state():
            variable.state = openvino.Tensor(state.buffers[_name(variable)])
        state.shape, state.buffers = shape, {}

    def _net(self, shape: Shape) -> Any:
        with self._compiling:
            if shape not in self._compiled:
                self._compiled[shape] = self._compile(*shape)
            return self._compiled[shape]

    def _compile(self, batch: int, frames: int, interior: bool) -> Any:
        model = self._core.read_model(self._graphs[interior])
        sizes: dict[str, list[int]] = {"mel": [batch, self.n_mels, frames]}
        names = [f"state.{i}" for i in range(len(self._shapes))]
        sizes |= {name: [batch, *shape] for name, shape in zip(names, self._shapes, strict=True)}
        if not interior:
            sizes |= {"state.position": [batch], "state.length": [batch]}
        model.reshape(sizes)
        passes = Manager()
        passes.register_pass(MakeStateful({name: f"next.{name.removeprefix('state.')}" for name in names}))
        passes.run_passes(model)
        vectorise(model, exact=self.precision == "fp32")
        return self._core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
                "ENABLE_CPU_PINNING": False,
            },
        )


def _name(variable: Any) -> str:
    """Of the graph's input that a variable replaces: MakeStateful joins it with the output's."""
    name: str = variable.name.partition("next.")[0]
    return name
