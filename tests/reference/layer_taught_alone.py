"""A layer of the universal vocoder, taught by recordings before a vocoder speaks with it: how that begins."""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch

from gansound.generators.universal import UniversalGenerator
from gansound.model_folder import LoadedModel, load_model_folder


def options(doc: str | None, *, channels: int, steps: int) -> argparse.Namespace:
    """What the command line says: a model, where to write it with the layer, recordings, width and steps."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--channels", type=int, default=channels)
    parser.add_argument("--steps", type=int, default=steps)
    return parser.parse_args()


def with_layer(
    name: str, argument: str, channels: int
) -> tuple[LoadedModel, dict[str, Any], UniversalGenerator]:
    """A model, its configuration with a width of the layer's as an argument, and its net with that layer, as drawn."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = load_model_folder(name)
    config = copy.deepcopy(folder.config)
    config["init_args"][argument] = channels
    whole = UniversalGenerator(folder.mel, **config["init_args"])
    return folder, config, whole.around(whole.begun_as(folder.generator)).eval().float()  # type: ignore[arg-type]
