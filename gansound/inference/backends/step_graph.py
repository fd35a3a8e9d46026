"""A generator's step as ONNX, for the runtimes that take it, kept in the user's cache: tracing takes seconds.

Two graphs: one that knows the ends of utterances, and a quicker one for their interior, without positions.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import gansound
from gansound.inference.export import onnx_model
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm

log = logging.getLogger(__name__)

KEPT_GRAPHS = 16  # in the cache; the oldest go


def step_graph(form: InferenceForm, *, interior: bool) -> bytes:
    """The ONNX model of `form.step`; inputs `mel` and `state.*`, outputs `audio` and `next.*`, in order.

    Batch and frames are dynamic. The interior's graph has neither `position` nor `length`.
    """
    path = cache_folder() / "graphs" / f"{fingerprint(form)}_{'interior' if interior else 'whole'}.onnx"
    try:
        found = path.read_bytes()
        path.touch()
        return found
    except OSError:
        pass
    log.info("tracing the net for the runtime, once (kept in %s)", path.parent)
    graph: bytes = onnx_model(form, streaming=True, interior=interior).SerializeToString()
    keep(path, graph)
    for old in sorted(path.parent.glob("*.onnx"), key=_age)[:-KEPT_GRAPHS]:
        old.unlink(missing_ok=True)
    return graph


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/gansound`, as a rule `~/.cache/gansound`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gansound"


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, beside and then renamed. A cache that can't be written is no error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        log.info("%s: can't be kept (%s); the next process makes it again", path, error)
        temporary.unlink(missing_ok=True)


def fingerprint(generator: StreamingGenerator, *, weights: bool = True) -> str:
    """Of what a generator computes: its layers with their settings, its weights, and the code that runs them.

    Without the weights' values it is that of all models of its shape.
    """
    digest = hashlib.sha256(_code().encode())
    for name, module in generator.named_modules():
        plain = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        settings = {k: repr(v) for k, v in plain.items() if not isinstance(v, torch.nn.Module)}
        digest.update(f"{name} {type(module).__qualname__} {sorted(settings.items())}\n".encode())
    for name, tensor in (*generator.named_parameters(), *generator.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if weights:
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _code() -> str:
    """Versions and sources on which a traced graph depends."""
    digest = hashlib.sha256(f"{gansound.__version__} {torch.__version__}".encode())
    for file in _sources():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    package = Path(gansound.__file__).parent
    for room in ("nn", "generators", "inference/export"):
        yield from sorted((package / room).glob("*.py"))


def _age(path: Path) -> Any:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0
