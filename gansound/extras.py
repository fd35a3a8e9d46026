"""Packages that not every installation has, the extra of gansound that brings each, and the one message that says so.

The core vocodes, streams, generates, exports and imports. What trains, judges, draws or runs other runtimes is an extra
(`pip install 'gansound[train]'`), imported inside functions after `require`.
"""

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("accelerate", "tensorboard", "matplotlib"),
    "eval": ("pesq", "pystoi", "librosa", "matplotlib", "visqol", "speechmos", "pocketsphinx", "jiwer"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "executorch": ("executorch",),
    "litert": ("litert_torch", "ai_edge_litert"),
    "datasets": ("pyarrow",),
    "store": ("fsspec", "aiohttp"),
    "ray": ("ray",),
}
"""What each extra of `pyproject.toml` is asked for, by the names under which Python imports it."""

# The first that brings a package, where nobody says which is meant; pictures come with judging, by the smaller step.
_HOME = {package: extra for extra in reversed(EXTRAS) for package in EXTRAS[extra]} | {"matplotlib": "eval"}


class MissingPackage(ValueError):
    """Something asked for needs a package that isn't installed; the message names the extra that brings it."""


def missing(*packages: str) -> list[str]:
    """Those of the packages that aren't installed here."""
    return [package for package in packages if find_spec(package) is None]


def install_line(*packages: str, extra: str | None = None) -> str:
    """The command that brings the packages: the extra named, or those that have them."""
    extras = [extra] if extra else list(dict.fromkeys(_HOME[package] for package in packages))
    return f"pip install 'gansound[{','.join(extras)}]'"


def lacks(what: str, *packages: str, extra: str | None = None) -> str:
    """The one sentence that says what can't be had for want of which packages, and how to get them."""
    return f"{what} needs {', '.join(packages)}, not installed here: {install_line(*packages, extra=extra)}"


def require(what: str, *packages: str, extra: str | None = None) -> None:
    """Go on only where the packages are installed.

    Args:
        what: what needs them, at the beginning of a sentence.
        packages: as Python imports them.
        extra: that brings them, where several do.

    Raises:
        MissingPackage: (a ValueError) one isn't.
    """
    if absent := missing(*packages):
        raise MissingPackage(lacks(what, *absent, extra=extra))


def explained(error: ImportError, what: str) -> str:
    """An import that failed, in a sentence: with the extra where a package of one isn't there."""
    package = (error.name or "").partition(".")[0]
    if package in _HOME and missing(package):
        return lacks(what, package)
    return f"{str(error).strip()}. Is it installed, and for this Python? Installing gansound anew brings what it needs"
