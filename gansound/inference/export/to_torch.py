"""To a program of `torch.export`."""

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gansound.inference.export.graphs import program, streaming_generator
from gansound.inference.export.writing import beside, largest_error, metadata, verify

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder


def export_torch(vocoder: "Vocoder", path: str | os.PathLike[str], *, streaming: bool = False) -> Path:
    """Write a vocoder as a program that `torch.export.load` reads, without gansound: the same graphs in fp32.

    The offline program takes `(mel,)` and gives audio; the step takes `(mel, state)`, a tuple of tensors, and gives
    `(audio, *state)`. `metadata` lies in it as the extra file `gansound.json`.

    Raises:
        ValueError: a generator that can't be exported, or a program that doesn't give what PyTorch gives.
        OSError: the file can't be written; nothing half-written stays.
    """
    generator = streaming_generator(vocoder)
    traced = program(generator, streaming=streaming)
    path = Path(path)
    properties = json.dumps(metadata(vocoder, generator, streaming=streaming, precision="fp32"))
    with beside(path) as temporary:
        with temporary.open("wb") as file, warnings.catch_warnings():
            # Of tensors that are part of a larger one; read back, they are compared below.
            warnings.filterwarnings("ignore", message="No complete tensor found")
            # by name, torch insists on the suffix .pt2
            torch.export.save(traced, file, extra_files={"gansound.json": properties})
        with temporary.open("rb") as written:
            module = torch.export.load(written).module()

        def run(inputs: list[Tensor]) -> list[Tensor]:
            mel, *state = inputs
            with torch.no_grad():
                return list(module(mel, tuple(state))) if streaming else [module(mel)]

        verify(
            run,
            vocoder.frame_spec,
            generator,
            generator,
            streaming=streaming,
            max_error=largest_error(generator),
        )
    return path
