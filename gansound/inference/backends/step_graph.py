"""A generator's step as ONNX, for the runtimes that take it, kept in the user's cache: tracing takes seconds.

Two graphs: one that knows the ends of utterances, and a quicker one for their interior, without positions. Short
utterances have one of their own, of the plain net.
"""

import contextlib
import errno
import hashlib
import logging
import os
import stat
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

import gansound
from gansound.inference.backends.runner import BackendUnavailable
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm

log = logging.getLogger(__name__)

Made = TypeVar("Made")

_thread = threading.local()
LEAST_FRAMES = 16  # of a plain net's graph
KEPT_GRAPHS = 24  # in the cache; the oldest go
_CHECKSUM_BYTES = 4


def step_graph(form: InferenceForm, *, interior: bool) -> bytes:
    """The ONNX model of `form.step`; inputs `mel` and `state.*`, outputs `audio` and `next.*`, in order.

    Batch and frames are dynamic. The interior's graph has neither `position` nor `length`.
    """
    path = cache_folder() / "graphs" / f"{fingerprint(form)}_{'interior' if interior else 'whole'}.graph"

    def trace() -> bytes:
        from gansound.inference.export import onnx_model

        graph: bytes = onnx_model(form, streaming=True, interior=interior).SerializeToString()
        return graph

    return _cached(path, trace)


def plain_graph(generator: StreamingGenerator) -> bytes | None:
    """The ONNX model of a generator's `forward`, `mel` to `audio`, of LEAST_FRAMES and more; None where it has none.

    A net may ask for its input's length in a way that no graph for any length can answer.
    """
    path = cache_folder() / "graphs" / f"{fingerprint(generator)}_plain.graph"

    def trace() -> bytes:
        from gansound.inference.export import onnx_model

        try:
            form = InferenceForm(generator, graph=True)
            whole = onnx_model(form, streaming=False, least_frames=LEAST_FRAMES)
            graph: bytes = whole.SerializeToString()
        except Exception as error:  # whatever torch's exporter raises
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.info("short utterances go in steps, too: %s", reason)
            return b""
        return graph

    return _cached(path, trace) or None


def _cached(path: Path, trace: Callable[[], bytes]) -> bytes:
    """A graph of the cache, or traced now and kept there; threads that want the same one trace it once."""
    if (found := _kept(path)) is not None:
        return found
    # A second of imports, which a cached graph does without.
    from gansound.inference.export.graphs import TRACING

    with TRACING:
        if (found := _kept(path)) is not None:
            return found
        log.info("tracing the net for the runtime, once (kept in %s)", path.parent)
        graph = trace()
        keep(path, graph + _checksum(graph))
        _prune(path.parent, spare=path)
    return graph


def _kept(path: Path) -> bytes | None:
    """A graph of the cache, None where it isn't there or isn't what was written."""
    try:
        found = _read_private(path)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.info("%s: not taken (%s), made again", path, error.strerror or error)
        return None
    graph = found[:-_CHECKSUM_BYTES]
    if found[-_CHECKSUM_BYTES:] != _checksum(graph):
        log.info("%s: damaged, made again", path)
        return None
    _taken_from().append(path)
    with contextlib.suppress(OSError):  # another user's cache may be read all the same
        path.touch()
    return graph


def from_cache(
    make: Callable[[], Made],
    is_right: Callable[[Made], bool],
    graphs_are_right: Callable[[], bool] = lambda: False,
) -> Made:
    """What `make` makes; and where it took graphs of the cache that don't do what they should, again without them.

    A graph's checksum lies in its own file, so that it says nothing of who wrote both.

    Args:
        make: what is wanted, of graphs.
        is_right: whether that does what it should.
        graphs_are_right: where it doesn't, whether its graphs do, so that it lies in what is made of them.

    Raises:
        BackendUnavailable: what was made without the cache computes something else than the model, too.
    """
    taken = _taken_from()
    taken.clear()
    try:
        made = make()
        if is_right(made):
            return made
        reason = "it computes something else than the model"
        if taken and graphs_are_right():
            taken = []
    except Exception as error:  # whatever a runtime raises at a graph that is none
        if not taken:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if taken:
        log.warning("%s: a graph kept in the cache is wrong (%s), made again", taken[0].parent, reason)
        for path in taken:
            with contextlib.suppress(OSError):
                path.unlink()
        made = make()
        if is_right(made):
            return made
    raise BackendUnavailable(
        "this runtime computes something else than the model, in this release of it and on this machine. Take another "
        "backend or precision"
    )


def _taken_from() -> list[Path]:
    """The graphs of the cache that this thread took since it last began to make something of them."""
    if not hasattr(_thread, "taken"):
        _thread.taken = []
    found: list[Path] = _thread.taken
    return found


def _read_private(path: Path) -> bytes:
    """A file that only its owner may write: this user, or the system's."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        if hasattr(os, "getuid") and (about.st_uid not in (os.getuid(), 0) or about.st_mode & 0o022):
            raise OSError(errno.EPERM, "others may write it")
        return file.read()


def _checksum(graph: bytes) -> bytes:
    return zlib.crc32(graph).to_bytes(_CHECKSUM_BYTES, "little")


def _prune(folder: Path, spare: Path) -> None:
    graphs = sorted((path for path in folder.glob("*.graph") if path != spare), key=_changed)
    left_behind = [path for path in folder.glob(".*.tmp") if _changed(path) < time.time() - 24 * 3600]
    for path in (*graphs[: -(KEPT_GRAPHS - 1)], *left_behind):
        with contextlib.suppress(OSError):
            path.unlink()


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/gansound`, as a rule `~/.cache/gansound`."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gansound"
    except RuntimeError:  # a user without a home, as in containers
        return Path(os.devnull) / "gansound"  # where nothing can be kept


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, beside and then renamed. A cache that can't be written is no error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        _make_private(path.parent)
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        log.info("%s: can't be kept (%s); the next process makes it again", path, error)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """Make a folder of the cache, whatever the umask, for this user alone."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def fingerprint(generator: StreamingGenerator, *, weights: bool = True) -> str:
    """Of what a generator computes: its layers with their settings, its weights, and the code that runs them.

    Without the weights' values it is that of all models of its shape.
    """
    digest = hashlib.sha256(_code().encode())
    for name, module in generator.named_modules():
        settings = {k: _described(v) for k, v in vars(module).items() if k not in _OF_TORCH}
        kind = type(module)
        digest.update(f"{name} {kind.__module__} {kind.__qualname__} {sorted(settings.items())}\n".encode())
        digest.update(_own_code(kind.__module__))
    for name, tensor in (*generator.named_parameters(), *generator.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if weights:
            digest.update(_values(tensor))
    return digest.hexdigest()[:32]


_OF_TORCH = frozenset(vars(torch.nn.Module()))  # what every module has; the rest are its settings


def _described(setting: Any) -> str:
    if isinstance(setting, torch.Tensor):
        return hashlib.sha256(_values(setting)).hexdigest()  # whose text leaves most of it out
    return str(getattr(setting, "__qualname__", None) or repr(setting))  # a function's text has its address


def _values(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


@lru_cache(maxsize=1)
def _code() -> str:
    """Versions and sources on which a traced graph depends."""
    digest = hashlib.sha256(f"{gansound.__version__} {torch.__version__}".encode())
    package = Path(gansound.__file__).parent
    for room in ("nn", "generators", "mel", "inference/export"):
        for file in sorted((package / room).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@lru_cache
def _own_code(module: str) -> bytes:
    """The source of a module that isn't gansound's or torch's: of somebody's own layers."""
    if module.partition(".")[0] in ("gansound", "torch"):
        return b""
    try:
        return Path(sys.modules[module].__file__ or "").read_bytes()
    except (KeyError, AttributeError, OSError):
        return os.urandom(16)  # typed in by hand: nobody knows whether it is the same the next time


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
