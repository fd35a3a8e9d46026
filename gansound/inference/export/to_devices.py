"""To phones and boards: a step of a stream for ExecuTorch (`.pte`, its XNNPACK kernels) or LiteRT (`.tflite`).

Both plan their memory beforehand, so the step takes one utterance and a number of frames fixed at export. An utterance
is a row of such steps; before the one that passes its end, `state.length` is set to its frames, and what follows it may
be anything: `streamed` does it. What a reader must know lies in a file beside, `NAME.json`: `metadata`, and `frames`.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.extras import require
from gansound.inference.export.graphs import fixed_step, streaming_generator
from gansound.inference.export.writing import Run, beside, metadata
from gansound.nn.inference_form import InferenceForm

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder

FRAMES = 8
_UNKNOWN_LENGTH = 2**20  # frames, of a counter of 32 bits that counts samples too: hours
_MAX_ERROR = 1e-3  # of the samples of noise; XNNPACK, whose kernels both use, approximates exponentials
_CHECKED_FRAMES = 45  # several steps, the last of them begun


def export_executorch(vocoder: "Vocoder", path: str | os.PathLike[str], *, frames: int = FRAMES) -> Path:
    """Write a step of so many frames for ExecuTorch, in fp32: `(mel, *state) -> (audio, *state)`, in this order.

    Raises:
        ValueError: a missing package, a generator that can't be exported, or a program that gives something else.
        OSError: a file can't be written; nothing half-written stays.
    """
    require("exporting to ExecuTorch", "executorch")

    def lower(form: InferenceForm, target: Path) -> None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        step, inputs = fixed_step(form, frames)
        for module in step.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer)  # persistent, as XNNPACK's passes take every one to be
        with torch.no_grad():
            exported = torch.export.export(step, inputs)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        target.write_bytes(lowered.to_executorch().buffer)

    return _write(vocoder, Path(path), frames, lower, load_executorch, "int64")


def export_litert(vocoder: "Vocoder", path: str | os.PathLike[str], *, frames: int = FRAMES) -> Path:
    """Write a step of so many frames for LiteRT, in fp32; its counters are int32, and `unknown_length` fits into them.

    Its inputs are called `args_0` (the mel) and `args_1_0` on (the states in order), its outputs `output_0` on.

    Raises:
        ValueError: a missing package, a generator that can't be exported, or a model that gives something else.
        OSError: a file can't be written; nothing half-written stays.
    """
    require("exporting to LiteRT", "litert_torch", "ai_edge_litert")

    def lower(form: InferenceForm, target: Path) -> None:
        import litert_torch

        with tempfile.TemporaryDirectory() as folder:  # by its suffix it knows what to write
            model = Path(folder) / "step.tflite"
            litert_torch.convert(*fixed_step(form, frames)).export(str(model))
            target.write_bytes(model.read_bytes())

    return _write(vocoder, Path(path), frames, lower, load_litert, "int32")


def load_executorch(path: Path) -> Run:
    """A step in ExecuTorch's runtime for Python."""
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def run(inputs: list[Tensor]) -> list[Tensor]:
        return [output.clone() for output in method.execute([one.contiguous() for one in inputs])]

    return run


def load_litert(path: Path) -> Run:
    """A step in LiteRT's interpreter, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    step = Interpreter(str(path), num_threads=1).get_signature_runner()

    def run(inputs: list[Tensor]) -> list[Tensor]:
        mel, *state = (np.ascontiguousarray(one.numpy()) for one in inputs)
        found = step(args_0=mel, **{f"args_1_{i}": one for i, one in enumerate(state)})
        return [torch.from_numpy(found[f"output_{i}"]) for i in range(len(inputs))]

    return run


def streamed(run: Run, mel: Tensor, about: dict[str, Any]) -> Tensor:
    """A whole utterance by such steps. Shape: `(1, n_mels, F)` → `(1, F * hop_length)`."""
    frames, late, hop = int(about["frames"]), int(about["lookahead_samples"]), int(about["hop_length"])
    state = [torch.zeros(1, *one["shape"], dtype=getattr(torch, one["dtype"])) for one in about["states"]]
    length = [one["name"] for one in about["states"]].index("length")
    state[length] += int(about["unknown_length"])
    total = mel.shape[-1] + -(-late // hop)
    parts = []
    for first in range(0, total, frames):
        chunk = mel[..., first : first + frames]
        if first + frames > mel.shape[-1]:
            state[length] = torch.full_like(state[length], mel.shape[-1])
            chunk = F.pad(chunk, (0, frames - chunk.shape[-1]))
        audio, *state = run([chunk, *state])
        parts.append(audio)
    return torch.cat(parts, dim=1)[:, late : late + mel.shape[-1] * hop]


def _write(
    vocoder: "Vocoder",
    path: Path,
    frames: int,
    lower: Callable[[InferenceForm, Path], None],
    load: Callable[[Path], Run],
    counters: str,
) -> Path:
    if frames < 1:
        raise ValueError(f"frames: got {frames}, expected 1 or more")
    generator = streaming_generator(vocoder)
    form = InferenceForm(generator, graph=True)
    about: dict[str, Any] = dict(metadata(vocoder, form, streaming=True, precision="fp32"))
    states = [
        state | {"dtype": counters} if state["dtype"] == "int64" else state
        for state in json.loads(about["states"])
    ]
    about |= {"frames": str(frames), "unknown_length": str(_UNKNOWN_LENGTH), "states": states}
    told = path.with_name(f"{path.name}.json")
    with beside(path) as temporary, beside(told) as temporary_told:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their own doing, pages of them
            lower(form, temporary)
            run = load(temporary)
        mel = vocoder.frame_spec.noise(_CHECKED_FRAMES)
        with torch.no_grad():
            expected = generator(mel)
        error = float(
            (streamed(run, mel, about) - expected).abs().max() / expected.abs().max().clamp_min(1.0)
        )
        if not error <= _MAX_ERROR:
            raise ValueError(
                f"not written: the exported step differs from PyTorch by {error:.1e}, expected at most "
                f"{_MAX_ERROR:.0e}. Report it, with the versions of torch and of the runtime"
            )
        temporary_told.write_text(json.dumps(about, indent=1) + "\n")
    return path
