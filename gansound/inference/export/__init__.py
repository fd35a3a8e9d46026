"""A vocoder as one file for other runtimes: ONNX, PyTorch's own exported program, ExecuTorch, LiteRT.

Two graphs, both with any batch and any number of frames:

    offline     mel (batch, n_mels, frames) -> audio (batch, frames * hop_length)
    streaming   mel (batch, n_mels, frames), state.* -> audio (batch, frames * hop_length), next.*

The streaming graph is `StreamingGenerator.step`, late by `lookahead_samples`: states begin at zero with
`state.length` at `unknown_length`; at the end `state.length` is set to the frames of the whole utterance, and frames
of anything are fed until the look-ahead is out. `samples/onnx_reader.py` does it in numpy. The offline graph is the
same step over the whole utterance; ExecuTorch and LiteRT get the step alone, of one utterance and a fixed number of
frames (see `to_devices`). What a reader must know travels inside the file, see `metadata`.
"""

from gansound.inference.export.to_devices import export_executorch, export_litert
from gansound.inference.export.to_onnx import OPSET, export_onnx, load_onnx, onnx_model
from gansound.inference.export.to_torch import export_torch
from gansound.inference.export.writing import metadata

__all__ = [
    "OPSET",
    "export_executorch",
    "export_litert",
    "export_onnx",
    "export_torch",
    "load_onnx",
    "metadata",
    "onnx_model",
]
