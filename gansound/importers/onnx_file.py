"""The weights of an ONNX file by name, with what only its graph knows of them."""

from pathlib import Path
from typing import Any

import torch

from gansound.extras import require


def read_onnx(path: Path) -> dict[str, Any]:
    """As a checkpoint of PyTorch would hold it: `state_dict`, and a `config` of what its convolutions are.

    `config["strides"]` and `config["dilations"]` are those of each convolution, by the name of its weight.

    Raises:
        MissingPackage: (a ValueError) onnx isn't installed.
        ValueError: the weights lie in another file.
    """
    require("importing an ONNX file", "onnx", extra="export")
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path), load_external_data=False).graph
    state = {}
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"{tensor.name} lies in another file; save the graph with its weights inside")
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            state[tensor.name] = torch.from_numpy(array.copy())
    strides, dilations = {}, {}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 1 and node.input[1] in state:
            values = {item.name: list(item.ints) for item in node.attribute}
            strides[node.input[1]] = next(iter(values.get("strides", [])), 1)
            dilations[node.input[1]] = next(iter(values.get("dilations", [])), 1)
    return {"state_dict": state, "config": {"strides": strides, "dilations": dilations}}
