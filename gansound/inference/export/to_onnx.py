"""To ONNX, in fp32 or with weights of fp16 or int8, and back into ONNX Runtime."""

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from gansound.extras import install_line, missing, require
from gansound.inference.export.graphs import TRACING, program, state_names, streaming_generator
from gansound.inference.export.writing import beside, largest_error, metadata, verify
from gansound.nn.finer_frames import FinerFrames
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder

log = logging.getLogger(__name__)

OPSET = 18
_NO_PRODUCTS = (
    "precision: int8 quantizes matrix products, and this generator has none, only convolutions, which ONNX Runtime has "
    "three times slower in int8. Take fp32"
)
_LEAST_HALVED = 64  # values; what is smaller is worth no node
_INLINE_BYTES = 2**31 - 2**20  # protobuf holds 2 GiB


def export_onnx(
    vocoder: "Vocoder",
    path: str | os.PathLike[str],
    *,
    streaming: bool = False,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    opset: int = OPSET,
    more: Mapping[str, str] | None = None,
    accept: Callable[[Path], None] | None = None,
) -> Path:
    """Write a vocoder as ONNX.

    It is written beside, checked (by onnx, and where onnxruntime is installed by running it against PyTorch) and then
    renamed. Weights lie in the file; beyond 2 GB beside it, in `NAME.data`.

    Args:
        vocoder: its generator is copied.
        path: the file.
        streaming: the graph of a step instead of that of whole utterances.
        precision: `fp16` stores learnt weights in 16 bits, which halves the file, and computes in fp32. `int8`
            quantizes the weights of the offline graph's matrix products (activations as they come), all but the
            constants of the mel convention and of the inverse STFT. Listen, or measure it, before you use it:
            `gansound export` does.
        opset: of ONNX, 18 or later.
        more: metadata besides that of `metadata`.
        accept: is given the file before it takes its place; what it raises leaves the old one there.

    Raises:
        ValueError: a missing package, a generator or precision that can't be exported, an opset that is too old, or a
            graph that doesn't give what PyTorch gives.
        OSError: the file can't be written; nothing half-written stays.
    """
    run_by = ["onnxruntime"] if precision == "int8" else []
    require("exporting to ONNX", "onnx", "onnxscript", *run_by, extra="export")
    if precision not in ("fp32", "fp16", "int8"):
        raise ValueError(f"precision: ONNX is exported in fp32, fp16 or int8, got {precision!r}")
    if precision == "int8" and streaming:
        raise ValueError(
            "precision: the streaming graph is exported in fp32 or fp16, got 'int8'. Dynamic quantization takes its "
            "scale from each chunk, so what is streamed would depend on how it was cut"
        )
    if opset < OPSET:
        raise ValueError(f"opset: expected {OPSET} or later, got {opset}")
    generator = streaming_generator(vocoder)
    form = InferenceForm(generator, graph=True)
    if precision == "int8":
        check_quantizable(form)
    model = onnx_model(form, streaming=streaming, opset=opset)
    if precision == "int8":
        model = quantized(model, form)
    elif precision == "fp16":
        halve(model, form)
    import onnx

    properties = metadata(vocoder, form, streaming=streaming, precision=precision) | dict(more or {})
    onnx.helper.set_model_props(model, properties)
    # The exporter writes the newest; runtimes of two years ago, sherpa-onnx's say, refuse what they don't know.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    model.producer_name, model.producer_version = "gansound", properties["gansound_version"]

    path = Path(path)
    with beside(path) as temporary:
        if model.ByteSize() < _INLINE_BYTES:
            onnx.save(model, temporary)
        else:
            data = f"{path.name}.data"
            (path.parent / data).unlink(missing_ok=True)  # onnx appends
            onnx.save(model, temporary, save_as_external_data=True, location=data)
        onnx.checker.check_model(os.fspath(temporary), full_check=True)
        if not missing("onnxruntime"):
            session = _session(temporary)

            def run(inputs: list[Tensor]) -> list[Tensor]:
                names = [value.name for value in session.get_inputs()]
                found = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
                return [torch.from_numpy(array) for array in found]

            exact = largest_error(generator) if precision == "fp32" else None
            verify(run, vocoder.frame_spec, generator, form, streaming=streaming, max_error=exact)
        else:
            log.warning(
                "onnxruntime isn't installed, so %s wasn't run. To have it checked: %s",
                path,
                install_line("onnxruntime", extra="export"),
            )
        if accept is not None:
            accept(temporary)
    return path


def onnx_model(
    form: StreamingGenerator,
    *,
    streaming: bool,
    interior: bool = False,
    opset: int = OPSET,
    least_frames: int | None = None,
) -> Any:
    """The graph of a generator's inference form (made with `graph=True`), an `onnx.ModelProto` without metadata.

    With `least_frames` that of its `forward`, see `graphs.program`.
    """
    states = state_names(form)[2 if interior else 0 :] if streaming else []
    inputs = ["mel", *(f"state.{name}" for name in states)] if streaming else ["mel"]
    outputs = ["audio", *(f"next.{name}" for name in states)] if streaming else ["audio"]
    exported_program = program(form, streaming=streaming, interior=interior, least_frames=least_frames)
    # It warns of torchvision, which has nothing to do with sound.
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with TRACING, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, at what it does itself
            exported = torch.onnx.export(
                exported_program,
                dynamo=True,
                input_names=inputs,
                output_names=outputs,
                opset_version=opset,
                verbose=False,
                optimize=False,
            )
    finally:
        registration.setLevel(level)
    assert exported is not None
    _simplify(exported.model)
    model = exported.model_proto  # made anew each time
    _name_axes(model)
    return model


def _name_axes(model: Any) -> None:
    """Call batch and frames so, where the tracer numbers them."""
    graph = model.graph
    batch, _, frames = graph.input[0].type.tensor_type.shape.dim
    names = {batch.dim_param: "batch", frames.dim_param: "frames"}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), axis.dim_param)


def _simplify(model: Any) -> None:
    """An exporter's `onnx_ir.Model` without the functions, casts and repetitions that it is written with, in place.

    torch's own optimizer infers shapes and searches for patterns besides, of which a net of convolutions has none:
    minutes for BigVGAN, where these passes take seconds, and the graph is as fast.
    """
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import fold_constants

    passes.InlinePass()(model)
    fold_constants(model, onnx_shape_inference=False)
    for simpler in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        simpler(model)


def load_onnx(path: str | os.PathLike[str]) -> Callable[[Tensor], Tensor]:
    """An exported offline graph in ONNX Runtime on one thread: mel `(B, n_mels, F)` → audio `(B, F * hop_length)`."""
    session = _session(Path(path))
    return lambda mel: torch.from_numpy(session.run(["audio"], {"mel": mel.numpy()})[0])


def check_quantizable(form: InferenceForm) -> None:
    """ValueError where no layer of a net has a learnt matrix, which is known before the minutes of tracing it."""
    if not any(weight.ndim == 2 for weight in form.parameters()):
        raise ValueError(_NO_PRODUCTS)


def quantized(model: Any, form: InferenceForm) -> Any:
    """The weights of matrix products in int8, channel by channel; constants of the design stay as they are.

    A constant multiplies what spans the whole range of amplitudes, and nothing was trained around its error. Phases
    would add up the error of `FinerFrames`, which stays too.
    Convolutions stay too: ONNX Runtime has them three times slower in int8 than in fp32.
    """
    import onnx
    from onnx import numpy_helper
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    finer = [module for module in form.modules() if isinstance(module, FinerFrames)]
    kept = [*form.buffers(), *(weight for module in finer for weight in module.parameters())]

    def learnt(name: str) -> bool:
        if name not in weights:
            return False
        return not _is_one_of(numpy_helper.to_array(weights[name]), kept)

    products = [node.name for node in model.graph.node if node.op_type == "MatMul" and learnt(node.input[1])]
    if not products:
        raise ValueError(_NO_PRODUCTS)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        add_pre_process_metadata(model)  # or it asks for the folding that has been done
        quantize_dynamic(model, target, per_channel=True, nodes_to_quantize=products)
        return onnx.load(target)


def halve(model: Any, form: InferenceForm) -> None:
    """The learnt weights in 16 bits, each cast back before its use; constants of the design stay as they are.

    Runtimes undo it when they load the file: it is smaller, no faster and no slower.
    """
    from onnx import TensorProto, helper, numpy_helper

    for at, tensor in enumerate(model.graph.initializer):
        value = numpy_helper.to_array(tensor)
        if (
            value.dtype != np.float32
            or value.ndim < 2
            or value.size < _LEAST_HALVED
            or _is_one_of(value, form.buffers())
        ):
            continue
        if float(np.abs(value).max()) > np.finfo(np.float16).max:
            continue
        half = f"{tensor.name}.half"
        model.graph.node.insert(0, helper.make_node("Cast", [half], [tensor.name], to=TensorProto.FLOAT))
        model.graph.initializer[at].CopyFrom(numpy_helper.from_array(value.astype(np.float16), half))


def _is_one_of(value: np.ndarray, tensors: Iterable[Tensor]) -> bool:
    """Whether a graph's constant is one of a net's tensors, such as the inverse DFT, which was never learnt."""
    arrays = (tensor.numpy() for tensor in tensors)
    return any(np.array_equal(value, array) or np.array_equal(value, array.T) for array in arrays)


def _session(path: Path) -> Any:
    require("running an ONNX file", "onnxruntime", extra="export")
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where it was imported before gansound
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
