"""OpenVINO on the CPU: the quickest with whole utterances and in bf16.

States live inside its inference requests, which saves handing them out and in at each step. A net compiled for one
number of frames is up to twice as fast as one for any, but compiling takes a second, in which a stream would be silent:
the net for any number serves until the others are there.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansound.inference.backends.runner import (
    STEP_FRAMES,
    BackendUnavailable,
    Precision,
    Runner,
    is_near,
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

log = logging.getLogger(__name__)

_EXACT_SAMPLES = 2**22  # twice the length is computed with, and a few frames are added
_HINTS = {"fp32": "f32", "bf16": "bf16"}

Shape = tuple[int, int, bool]  # batch, frames, interior
ANY = -1  # frames of the net that takes any number of them
MOST_NETS = 16  # of a runner; of the shipped model each takes 50 MB


@dataclass
class Streams:
    """The state of a batch of streams: two counters here, the buffers in a request of the net that ran last."""

    position: Tensor
    length: Tensor
    whole: bool = True  # they wait for what is compiled, and so sound the same each time
    requests: dict[Shape, Any] = field(default_factory=dict)
    last: Any = None


class OpenVINORunner(Runner):
    """A net for any number of frames, and one for each number that recurs, of the ends and of the interior.

    The former computes in fp32 whatever the precision.
    """

    name = "openvino"
    compiles_each_length = True

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        self._core = openvino.Core()
        # It would compute in fp32 instead, and say nothing.
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendUnavailable("backend 'openvino' has no bf16 on this CPU, which lacks it. Take fp32")
        form = InferenceForm(generator, graph=True, most_frames=STEP_FRAMES[0])
        graphs = {interior: step_graph(form, interior=interior) for interior in (False, True)}
        self._models = {interior: self._core.read_model(graph) for interior, graph in graphs.items()}
        self._shapes = [tuple(buffer.shape[1:]) for buffer in form.init_state(1)[2:]]
        self._nets: dict[Shape, Any] = {}
        self._met: dict[Shape, None] = {}  # in that order
        self._waiting = threading.Lock()
        self._behind = ThreadPoolExecutor(1, "gansound-openvino")
        self._compiling: Future[None] | None = None

    def init_state(self, batch: int = 1) -> Streams:
        for interior in (False, True):
            self._net((batch, ANY, interior), waits=True)
        return replace(self.whole_state(batch), whole=False)

    def whole_state(self, batch: int = 1) -> Streams:
        position = torch.zeros(batch, dtype=torch.int64)
        return Streams(position, torch.full_like(position, streaming.UNKNOWN_LENGTH))

    def step(self, mel: Tensor, state: Streams, *, interior: bool = False) -> tuple[Tensor, Streams]:
        sounds = []
        for columns in mel.split(STEP_FRAMES[0], -1):
            request = self._moved(state, (*columns.shape[::2], interior))
            sounds.append(self._infer(request, columns, state, interior))
            state.position = state.position + columns.shape[-1]
        return torch.cat(sounds, -1), state

    def _infer(self, request: Any, mel: Tensor, state: Streams, interior: bool) -> Tensor:
        request.set_tensor("mel", openvino.Tensor(np.ascontiguousarray(mel.numpy())))
        if not interior:
            # OpenVINO computes integers in 32 bits, and some in floats, exact to 2**24 samples. Where a stream stands
            # matters near its ends only, so far from its start it is counted from nearer by, and an end out of sight
            # is as good as unknown.
            near = state.position.clamp(max=self.interior_frames)
            left = (state.length - state.position).clamp(max=_EXACT_SAMPLES // self.hop_length)
            request.get_tensor("state.position").data[:] = near.numpy()
            request.get_tensor("state.length").data[:] = (near + left).numpy()
        request.infer()
        return torch.from_numpy(request.get_tensor("audio").data.copy())

    def finish(self, state: Streams, remaining: int | Tensor = 0, items: Tensor | None = None) -> Streams:
        state.position, state.length = streaming.finish((state.position, state.length), remaining, items)
        return state

    def reset(self, state: Streams, items: Tensor | None = None) -> Streams:
        state.position, state.length = streaming.reset((state.position, state.length), items)
        return state

    def settle(self) -> None:
        for shape in list(self._met):  # after what is being compiled, which is among them
            self._behind.submit(self._add, shape).result()

    def _moved(self, state: Streams, shape: Shape) -> Any:
        """The request of a net for that shape, with the state's buffers in it."""
        shape, net = self._net(shape, waits=state.whole)
        request = state.requests.get(shape)
        if request is None:
            request = state.requests[shape] = net.create_infer_request()
        if state.last not in (None, request):
            buffers = {_name(variable): variable.state for variable in state.last.query_state()}
            for variable in request.query_state():
                variable.state = buffers[_name(variable)]
        state.last = request
        return request

    def _net(self, shape: Shape, *, waits: bool) -> tuple[Shape, Any]:
        """The net for a shape, or, until it is there, that for any number of frames; with the shape that it is for.

        For a length that recurs it is compiled behind the streams, unless they wait.
        """
        if shape not in self._nets and not waits:
            idle = self._compiling is None or self._compiling.done()
            if idle and shape in self._met and self._wants(shape):
                self._compiling = self._behind.submit(self._add, shape)
            self._met[shape] = None
            shape = _any_length(shape)
        if shape not in self._nets:
            with self._waiting:
                if shape not in self._nets:
                    self._nets[shape] = self._compile(*shape)
        return shape, self._nets[shape]

    def _wants(self, shape: Shape) -> bool:
        return shape not in self._nets and len(self._nets) < MOST_NETS

    def _add(self, shape: Shape) -> None:
        """Compile for a shape; what fails, or gives something else than the net for any number, isn't taken."""
        if not self._wants(shape):
            return
        other = self._nets[_any_length(shape)]
        try:
            net = self._compile(*shape)
            # The sound of bf16, whose phases drift, is near that of fp32 for a few frames only.
            right = self.precision != "fp32" or self._agree(net, other, shape)
        except Exception as error:  # whatever a runtime raises, such as at too little memory
            log.info("steps of %d frames go on as those of any number: %s", shape[1], error)
            right = False
        self._nets[shape] = net if right else other

    def _agree(self, net: Any, other: Any, shape: Shape) -> bool:
        """Whether two nets give the same of noise, once what comes before it is past."""
        batch, frames, interior = shape
        noise = torch.randn(batch, self.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 4
        sounds = []
        for request in (net.create_infer_request(), other.create_infer_request()):
            state = self.init_state(batch)
            for _ in range(self.interior_frames // frames + 2):
                sound = self._infer(request, noise, state, interior)
                state.position = state.position + frames
            sounds.append(sound)
        return is_near(sounds[0], sounds[1], self.precision)

    def _compile(self, batch: int, frames: int, interior: bool) -> Any:
        model = self._models[interior].clone()
        # Without a bound it fails to compile a convolution over more than some 64 columns, such as HiFi-GAN V3's.
        columns = openvino.Dimension(1, STEP_FRAMES[0]) if frames == ANY else frames
        sizes: dict[str, list[Any]] = {"mel": [batch, self.n_mels, columns]}
        names = [f"state.{i}" for i in range(len(self._shapes))]
        sizes |= {name: [batch, *shape] for name, shape in zip(names, self._shapes, strict=True)}
        if not interior:
            sizes |= {"state.position": [batch], "state.length": [batch]}
        model.reshape(sizes)
        passes = Manager()
        passes.register_pass(MakeStateful({name: f"next.{name.removeprefix('state.')}" for name in names}))
        passes.run_passes(model)
        # In bf16 a net for any number of frames would round after each operation that one for a length fuses.
        precision = "fp32" if frames == ANY else self.precision
        vectorise(model, exact=precision == "fp32")
        return self._core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "ENABLE_CPU_PINNING": False,
            },
        )


def _any_length(shape: Shape) -> Shape:
    batch, _, interior = shape
    return batch, ANY, interior


def _name(variable: Any) -> str:
    """Of the graph's input that a variable replaces: MakeStateful joins it with the output's."""
    name: str = variable.name.partition("next.")[0]
    return name
