"""gansound: audio GAN synthesis, from corpus to sound.

The names below are loaded when first used, so that ``import gansound`` costs nothing:

>>> import gansound
>>> gansound.MelSpec.preset("melgan_neurips").hop_length
256
"""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gansound.inference.clips import ClipGenerator
    from gansound.inference.streaming import StreamingVocoder
    from gansound.inference.vocoder import Vocoder
    from gansound.mel import MelSpec

# Nothing calls home. Read when these libraries are first imported, which is after this; OpenVINO's is at its import.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

__all__ = ["ClipGenerator", "MelSpec", "StreamingVocoder", "Vocoder", "__version__"]

try:
    __version__ = version("gansound")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0+checkout"

_HOME = {
    "ClipGenerator": "gansound.inference.clips",
    "MelSpec": "gansound.mel",
    "StreamingVocoder": "gansound.inference.streaming",
    "Vocoder": "gansound.inference.vocoder",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'gansound' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
