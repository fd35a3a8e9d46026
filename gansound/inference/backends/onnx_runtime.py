"""ONNX Runtime on the CPU: the quickest at a frame at a time in single precision, and at short utterances."""

from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from gansound.inference.backends.choice import SHORTER
from gansound.inference.backends.runner import STEP_FRAMES, BackendUnavailable, Precision, Runner, is_near
from gansound.inference.backends.step_graph import LEAST_FRAMES, from_cache, plain_graph, step_graph
from gansound.nn import streaming
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm

Arrays = list[np.ndarray]


class OnnxRuntimeRunner(Runner):
    """Two sessions for streams, of the ends of utterances and of their interior, and one for those of a few seconds.

    As many threads as torch has.

    In int8 the weights of matrix products are quantized, and what they multiply is as it comes, by the range of each
    step's values: then what streams depends a little on how it was cut.
    """

    name = "onnxruntime"

    def __init__(self, generator: StreamingGenerator, precision: Precision = "fp32") -> None:
        super().__init__(generator, precision)
        form = InferenceForm(generator, graph=True, most_frames=STEP_FRAMES[0])
        self._example = [t.numpy() for t in form.init_state(1)]
        if precision == "int8":
            from gansound.inference.export.to_onnx import check_quantizable, quantized

            check_quantizable(form)
        graphs = [step_graph(form, interior=interior) for interior in (False, True)]
        if precision == "int8":
            import onnx

            graphs = [quantized(onnx.load_from_string(graph), form).SerializeToString() for graph in graphs]
        self._ends, self._interior = (_session(graph) for graph in graphs)
        self._names = [value.name for value in self._ends.get_inputs()]

    def synthesize(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As every runner's. A short utterance by the plain net: steps would go on until the look-ahead is out."""
        if lengths is None and LEAST_FRAMES <= mel.shape[-1] < SHORTER and self._short is not None:
            return _whole(self._short, mel)
        return super().synthesize(mel, lengths)

    @cached_property
    def _short(self) -> Any:
        """The session of the plain net, made when it is first asked for; None where there is none."""
        if self.precision == "int8":
            return None
        try:
            return from_cache(
                lambda: None if (graph := plain_graph(self.generator)) is None else _session(graph),
                lambda session: session is None or self._computes(session),
            )
        except BackendUnavailable:
            return None

    def _computes(self, session: Any) -> bool:
        """Whether a session's sound of two lengths is the generator's."""
        for frames in (LEAST_FRAMES, 2 * LEAST_FRAMES + 1):
            mel = torch.randn(1, self.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 4
            with torch.inference_mode():
                expected = self.generator(mel.to(next(self.generator.parameters())))
            if not is_near(_whole(session, mel), expected, self.precision):
                return False
        return True

    def init_state(self, batch: int = 1) -> Arrays:
        return [np.repeat(array, batch, axis=0) for array in self._example]

    def step(self, mel: Tensor, state: Arrays, *, interior: bool = False) -> tuple[Tensor, Arrays]:
        sounds = []
        for columns in mel.split(STEP_FRAMES[0], -1):
            if interior:
                position, length, *buffers = state
                feeds = dict(zip(self._names[3:], buffers, strict=True))
                audio, *kept = self._interior.run(None, {"mel": columns.numpy(), **feeds})
                state = [position + columns.shape[-1], length, *kept]
            else:
                feeds = dict(zip(self._names, [columns.numpy(), *state], strict=True))
                audio, *state = self._ends.run(None, feeds)
            sounds.append(torch.from_numpy(audio))
        return torch.cat(sounds, -1), state

    def finish(self, state: Arrays, remaining: int | Tensor = 0, items: Tensor | None = None) -> Arrays:
        return _counted(streaming.finish(_counters(state), remaining, items), state)

    def reset(self, state: Arrays, items: Tensor | None = None) -> Arrays:
        return _counted(streaming.reset(_counters(state), items), state)


def _whole(session: Any, mel: Tensor) -> Tensor:
    return torch.from_numpy(session.run(None, {"mel": mel.numpy()})[0])


def _session(graph: bytes) -> Any:
    onnxruntime.disable_telemetry_events()  # where it was imported before gansound
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _counters(state: Arrays) -> streaming.State:
    return torch.from_numpy(state[0]), torch.from_numpy(state[1])


def _counted(counters: streaming.State, state: Arrays) -> Arrays:
    return [*(counter.numpy() for counter in counters), *state[2:]]
