"""A model as another project's checkpoint: the way back of an import, for what that project's code can hold."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from gansound.generators.hifigan import HiFiGANGenerator, hifigan_keys
from gansound.importers import hifigan, transformers
from gansound.model_folder import LoadedModel

FORMATS = ("hifigan", "transformers")


class _Writer(Protocol):
    def written(
        self, model: LoadedModel, sizes: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> dict[str, bytes]:
        """The files of a checkpoint, of a HiFi-GAN's arguments and its weights by jik876's names, folded."""


_WRITERS: dict[str, _Writer] = {"hifigan": hifigan, "transformers": transformers}


def export_checkpoint(model: LoadedModel, out: Path, kind: str) -> Path:
    """Write a folder that another project's own code loads.

    Args:
        model: a HiFi-GAN; that is what these projects hold.
        out: the folder; it mustn't hold anything yet.
        kind: `hifigan` (jik876/hifi-gan: `g_00000000` and `config.json`) or `transformers` (`SpeechT5HifiGan`).

    Raises:
        ValueError: a model that the project's code can't hold, and why; something is at `out`. Nothing is written then.
        OSError: the folder can't be written; nothing half-written stays.
    """
    if kind not in FORMATS:
        raise ValueError(f"got {kind!r}, expected one of {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: something is there. Choose another path")
    files = _WRITERS[kind].written(model, *_hifigan(model, kind))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        temporary.replace(out)
    except OSError as error:
        # That of a write doesn't say where, others name the folder beside, which nobody asked for.
        raise OSError(error.errno, error.strerror, str(out)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _hifigan(model: LoadedModel, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of a HiFi-GAN, and its weights by jik876's names; ValueError where it isn't one as published."""
    generator, sizes = model.generator, dict(model.config.get("init_args") or {})
    refused = None
    if not isinstance(generator, HiFiGANGenerator):
        refused = f"is a {type(generator).__name__}, and {kind} holds HiFi-GANs only"
    elif sizes["causal"]:
        refused = f"is causal, and {kind} pads both sides"
    elif any(
        (size - rate) % 2
        for size, rate in zip(sizes["upsample_kernel_sizes"], sizes["upsample_rates"], strict=True)
    ):
        refused = f"has upsampling kernels longer than their rates by an odd number, of which {kind} cuts another share"
    if refused:
        raise ValueError(f"{model.path}: {refused}. Export it as onnx")
    assert isinstance(generator, HiFiGANGenerator)
    state = generator.state_dict()
    return sizes, {theirs: state[ours].cpu().contiguous() for ours, theirs in hifigan_keys(generator).items()}
